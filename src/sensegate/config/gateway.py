"""The configuration: records with a default, a unit in the name, and a line of help for each key.

Read from YAML; unknown keys are errors that name the nearest right one. The reference table in `config/README.md`
is generated from these records (`python -m sensegate.config`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from sensegate.config.cameras import CameraConfig
from sensegate.config.people import AuditConfig, EgressConfig, OidcConfig, PeopleConfig, ReturnsConfig, SharingConfig
from sensegate.config.setting import Record
from sensegate.config.setting import told as _h
from sensegate.config.sites import CentreConfig, NodeQuotaConfig, PeerConfig
from sensegate.config.video import VideoConfig
from sensegate.config.viid import ViidConfig
from sensegate.errors import ConfigError


class StoreConfig(Record, frozen=True):
    """How much each stream may hold. Keep the sum far below the disk."""

    intake_bytes: Annotated[
        int, _h("cap of the broker's store; when full, devices get no PUBACK and are held back")
    ] = 2 * 1024**3
    log_bytes: Annotated[int, _h("cap of LOG; when full, commits and so acknowledgements stop")] = 8 * 1024**3
    ledger_bytes: Annotated[int, _h("cap of LEDGER, the hourly sums")] = 256 * 1024**2
    registry_bytes: Annotated[int, _h("cap of each key-value bucket")] = 256 * 1024**2
    audit_bytes: Annotated[
        int,
        _h("cap of AUDIT; when full nothing may be changed (/readyz warns from 80 %); 1,000 subscribers: 4 MB a day"),
    ] = 2 * 1024**3
    disk_reserve_bytes: Annotated[
        int, _h("with less free on the disk commits stop before a write can fail half-way; intake holds devices back")
    ] = 512 * 1024**2
    raw_ttl_h: Annotated[int, _h("life of messages as received, for replay and decoding again")] = 72
    readings_ttl_h: Annotated[int, _h("life of readings on the log")] = 168
    observations_ttl_h: Annotated[int, _h("life of observations of cameras on the log")] = 168
    quarantine_ttl_h: Annotated[int, _h("life of quarantined messages")] = 720
    ledger_ttl_h: Annotated[int, _h("life of the hourly sums")] = 9600
    scrub_bytes_s: Annotated[
        int, _h("bytes a second of LOG that the scrub reads by itself, looking for losses; 0: only by doctor --scrub")
    ] = 1024**2


class TlsConfig(Record, frozen=True):
    """Certificates of a listener; all three empty means no TLS, allowed on loopback only."""

    cert_file: Annotated[str, _h("PEM certificate chain")] = ""
    key_file: Annotated[str, _h("PEM private key")] = ""
    ca_file: Annotated[str, _h("PEM of the authority that signs client certificates; empty: none asked for")] = ""


_MEMBER = msgspec.Meta(pattern="^([0-9]{2,12}(-[a-z0-9]+)*)?$", max_length=32)
"""Form of a node's id: its city, and a name behind a dash; empty: none is given."""


class NodeUserConfig(Record, frozen=True):
    """A node that may write to this centre."""

    division: Annotated[str, _h("the node's id, usually its city code, e.g. 4401"), _MEMBER]
    secret_file: Annotated[str, _h("file with the node's secret for its link to the centre")]
    areas: Annotated[
        tuple[str, ...], _h("divisions of which it may send readings, each with all below it; empty: its city")
    ] = ()


class EngineConfig(Record, frozen=True):
    """nats-server: a child process, or an external one by URL."""

    url: Annotated[str, _h("external nats-server or cluster; empty starts an embedded one")] = ""
    credentials_file: Annotated[
        str, _h("with url: file with the users' passwords and the issuer's seed, of the form of engine.json")
    ] = ""
    host: Annotated[str, _h("address on which clients and links connect")] = "127.0.0.1"
    port: Annotated[int, _h("client and link port; 0 takes a free one below 32768")] = 0
    mqtt_host: Annotated[str, _h("address on which devices connect")] = "127.0.0.1"
    mqtt_port: Annotated[int, _h("MQTT port; 0 takes a free one below 32768")] = 0
    durability: Annotated[
        Literal["process", "power"],
        _h("process: survives kill -9 of any process; power: fsync before each acknowledgement"),
    ] = "process"
    encryption: Annotated[
        Literal["auto", "on", "off", "convert"],
        _h("of the store: auto: where a profile takes video metadata; convert: on, also for a store made without"),
    ] = "auto"
    cipher: Annotated[Literal["chacha", "aes"], _h("cipher of an encrypted store; fixed when it is made")] = "chacha"
    store_key_file: Annotated[
        str,
        _h("file of the store's key, 0600; empty: $SENSEGATE_STORE_KEY, else <directory>/engine/store.key, made once"),
    ] = ""
    max_payload_bytes: Annotated[int, _h("largest message; a device that sends more is disconnected")] = 1024**2
    max_connections: Annotated[int, _h("most client connections")] = 20_000
    tls: Annotated[TlsConfig, _h("certificates of both listeners; ca_file asks devices for theirs")] = TlsConfig()
    link_ca_file: Annotated[
        str, _h("PEM of the authority that signs the certificates of nodes' links; empty: none asked for")
    ] = ""
    ca_file: Annotated[
        str, _h("with url: PEM of the authority of the external server's certificate (tls:// addresses)")
    ] = ""
    restart_backoff_max_s: Annotated[float, _h("longest wait between restarts of a dying server")] = 10.0


class IngestConfig(Record, frozen=True):
    """Limits of the intake; each has its counter."""

    commit_messages_max: Annotated[int, _h("most messages in one commit")] = 8_000
    commit_interval_ms: Annotated[int, _h("longest wait for a fuller commit under load; idle commits go at once")] = 50
    depth_messages_max: Annotated[int, _h("most messages received and not yet committed")] = 60_000
    message_bytes_max: Annotated[int, _h("larger messages go to quarantine: too_large")] = 262_144
    nesting_max: Annotated[int, _h("deeper payloads go to quarantine: too_deep")] = 32
    rate_per_device_s: Annotated[
        float, _h("most messages a second of one device over a minute; more go to quarantine: rate")
    ] = 200.0
    stall_s: Annotated[float, _h("messages pending and none delivered for so long: the consumer is made again")] = 30.0
    partition: Annotated[int, _h("number of this worker's partition")] = 0


class ForeignBrokerConfig(Record, frozen=True):
    """A broker of others from which this node subscribes."""

    name: Annotated[str, _h("name of the source in the ledger")]
    host: Annotated[str, _h("address of the broker")]
    port: Annotated[int, _h("port of the broker")] = 1883
    version: Annotated[Literal["3.1.1", "5"], _h("MQTT version to speak")] = "3.1.1"
    client_id: Annotated[str, _h("fixed client id of the persistent session")] = "sensegate"
    username: Annotated[str, _h("user name")] = ""
    password_file: Annotated[str, _h("file with the password")] = ""
    ca_file: Annotated[str, _h("authority of the broker's certificate; empty: no TLS")] = ""
    topics: Annotated[tuple[str, ...], _h("topic filters to subscribe to, QoS 1")] = ("#",)
    video: Annotated[bool, _h("all its messages are metadata of cameras: what no profile takes is not kept")] = False
    inflight_max: Annotated[int, _h("most messages not yet acknowledged")] = 5_000
    backoff_max_s: Annotated[float, _h("longest wait between attempts to connect")] = 30.0


class TcpConfig(Record, frozen=True):
    """A port on which devices speak a national protocol over TCP."""

    protocol: Annotated[
        Literal["hj212", "sl651", "gbt26875", "jtt808"],
        _h("hj212: pollution; sl651: hydrology; gbt26875: fire (GB/T 26875.3); jtt808: vehicles"),
    ]
    name: Annotated[str, _h("name of the source in the ledger, behind tcp:; empty: the protocol's")] = ""
    host: Annotated[str, _h("address to listen on; beyond loopback, give allow, passwords_file or tls.ca_file")] = (
        "127.0.0.1"
    )
    port: Annotated[int, _h("port to listen on; 0 takes a free one below 32768")] = 0
    allow: Annotated[tuple[str, ...], _h("addresses and networks that may connect (10.1.0.0/16); empty: any")] = ()
    passwords_file: Annotated[
        str,
        _h(
            "file with a line `name password` for each device, * for all others; read again when it changes; empty: any"
        ),
    ] = ""
    centres: Annotated[
        tuple[str, ...],
        _h("our addresses as a centre, in hex; frames to others are refused; empty: any (sl651, gbt26875)"),
    ] = ()
    hang_up: Annotated[bool, _h("sl651: a confirmed station may go off line until its next report")] = False
    idle_s: Annotated[float, _h("a connection that is silent for so long is closed")] = 900.0
    first_s: Annotated[float, _h("a connection without a frame of a known device after this is closed")] = 60.0
    frame_s: Annotated[float, _h("a frame must be complete after this")] = 20.0
    rubbish_bytes_max: Annotated[int, _h("most bytes that belong to no frame between two good ones")] = 16_384
    refused_max: Annotated[int, _h("most refused frames of a connection; then it is closed")] = 5
    unknown_per_minute: Annotated[
        int, _h("so many frames of unknown devices a minute are kept in quarantine, to see who knocks")
    ] = 6
    inflight_max: Annotated[
        int, _h("most frames of a connection that wait for their commit; then it is read no more")
    ] = 64
    connections_max: Annotated[int, _h("most open connections")] = 2_000
    connections_per_address_max: Annotated[int, _h("most open connections from one address")] = 200
    tls: Annotated[TlsConfig, _h("certificates of the listener")] = TlsConfig()


class ListenConfig(Record, frozen=True):
    """What is listened to beside MQTT and HTTP."""

    tcp: Annotated[tuple[TcpConfig, ...], _h("ports for national protocols")] = ()


class TimeConfig(Record, frozen=True):
    """What is believed of clocks."""

    future_s: Annotated[float, _h("a phenomenon time further ahead than this is marked future")] = 300.0
    late_s: Annotated[float, _h("a phenomenon time older than this at arrival is marked late")] = 300.0
    stale_h: Annotated[float, _h("older than this at arrival is marked stale")] = 24.0
    oldest: Annotated[str, _h("phenomenon times before this are rejected: bad_time")] = "2000-01-01T00:00:00Z"
    future_max_h: Annotated[float, _h("phenomenon times further ahead are rejected: bad_time")] = 87_600.0
    own_clock_off_s: Annotated[float, _h("own clock off by more than this: nothing is judged by time, all marked")] = (
        60.0
    )
    zone: Annotated[str, _h("zone assumed where a device sends local time without one")] = "Asia/Shanghai"


class DuplicateConfig(Record, frozen=True):
    """What is remembered to tell duplicates."""

    horizon_h: Annotated[
        int, _h("arrivals of so many hours are judged exactly; older ones are marked not_deduplicated")
    ] = 24
    checkpoint_s: Annotated[float, _h("longest time between checkpoints; the rest is replayed from the log")] = 5.0


class UplinkConfig(Record, frozen=True):
    """The way to the centre."""

    url: Annotated[
        str, _h("nats:// address of the centre; empty: that told on joining; without either the node goes on alone")
    ] = ""
    others: Annotated[tuple[CentreConfig, ...], _h("centres to turn to when that one is not active, in order")] = ()
    lease_s: Annotated[
        float, _h("with others: an active centre must have been away for so long before another one is granted")
    ] = 15.0
    secret_file: Annotated[
        str, _h("file with this node's secret at the centre; empty: this node joins with a code")
    ] = ""
    centre_url: Annotated[str, _h("http(s) address of the centre, to join with a code")] = ""
    join_code_file: Annotated[
        str, _h("file with a join code of the centre, used once, where this node has not joined yet")
    ] = ""
    ca_file: Annotated[str, _h("authority of the centre's certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...], _h("fingerprints (SHA-256, hex) of which the centre's certificate must have one; empty: any")
    ] = ()
    cert_file: Annotated[str, _h("PEM of this node's own certificate, where the centre asks for one")] = ""
    key_file: Annotated[str, _h("PEM of its private key")] = ""
    span_ms: Annotated[int, _h("longest span of readings in one live message")] = 1_000
    backlog_after_s: Annotated[float, _h("readings older than this at (re)connection go to the backlog lane")] = 2.0
    backlog_bytes_max: Annotated[int, _h("most bytes of log read into one backlog message")] = 4_194_304
    grade_max: Annotated[int, _h("readings of a higher grade are withheld")] = 3
    backoff_max_s: Annotated[float, _h("longest wait between attempts to reach the centre")] = 0.25


class WebConfig(Record, frozen=True):
    """The HTTP side."""

    host: Annotated[str, _h("address to listen on")] = "127.0.0.1"
    more_hosts: Annotated[
        tuple[str, ...],
        _h("further addresses with the same port, one for each network plane; IPv6 as it is"),
    ] = ()
    port: Annotated[int, _h("port to listen on; 0 takes a free one below 32768")] = 0
    metrics: Annotated[
        Literal["open", "token"],
        _h("token: /metrics asks for a token that may read the ledger of the whole gateway; it counts for all scopes"),
    ] = "open"
    body_bytes_max: Annotated[int, _h("largest request body")] = 1_048_576
    pictures_bytes_max: Annotated[
        int, _h("largest multipart body that a camera pushes; its pictures are dropped while they come")
    ] = 16_777_216
    connections_max: Annotated[int, _h("most open connections")] = 4_000
    header_timeout_s: Annotated[float, _h("a request's head must be complete after this")] = 10.0
    body_timeout_s: Annotated[float, _h("a request's body must be complete after this")] = 30.0
    wait_max_s: Annotated[float, _h("longest long-poll")] = 60.0
    page_max: Annotated[int, _h("most records or rows in one answer")] = 10_000
    buffer_bytes_max: Annotated[
        int, _h("most bytes waiting for one slow stream; then it is cut, its cursor stays valid")
    ] = 1_048_576
    tls: Annotated[TlsConfig, _h("certificates of the HTTP listener")] = TlsConfig()


class Config(Record, frozen=True):
    """One node or centre."""

    role: Annotated[Literal["node", "centre"], _h("node: the gateway of a city; centre: that of the province")]
    division: Annotated[str, _h("division code: 4401 for a node, 44 for the centre")]
    directory: Annotated[str, _h("where the store, the dedup index and generated files live")]
    member: Annotated[
        str,
        _h("id of this node at its centre and in its records, where a city has several; empty: its division"),
        _MEMBER,
    ] = ""
    profiles: Annotated[tuple[str, ...], _h("folders of device profiles")] = ("device_profiles",)
    standard_vendors: Annotated[
        tuple[str, ...], _h("vendors (folders) whose profiles are standard: only the province releases other versions")
    ] = ("sensegate", "hj212", "sl651", "gbt26875", "jtt808")
    engine: Annotated[EngineConfig, _h("nats-server")] = EngineConfig()
    store: Annotated[StoreConfig, _h("sizes and lives of the streams")] = StoreConfig()
    ingest: Annotated[IngestConfig, _h("limits of the intake")] = IngestConfig()
    foreign: Annotated[tuple[ForeignBrokerConfig, ...], _h("brokers of others")] = ()
    listen: Annotated[ListenConfig, _h("listeners beside MQTT and HTTP")] = ListenConfig()
    cameras: Annotated[tuple[CameraConfig, ...], _h("cameras whose alarm streams are fetched")] = ()
    time: Annotated[TimeConfig, _h("what is believed of clocks")] = TimeConfig()
    duplicates: Annotated[DuplicateConfig, _h("what is remembered to tell duplicates")] = DuplicateConfig()
    uplink: Annotated[UplinkConfig, _h("the way to the centre (nodes)")] = UplinkConfig()
    nodes: Annotated[tuple[NodeUserConfig, ...], _h("nodes that may write here (centre)")] = ()
    node_quota: Annotated[NodeQuotaConfig, _h("what one node may ask of this centre (centre)")] = NodeQuotaConfig()
    peer: Annotated[PeerConfig, _h("the other centre (centre)")] = PeerConfig()
    returns: Annotated[ReturnsConfig, _h("what goes back from the centre to nodes")] = ReturnsConfig()
    web: Annotated[WebConfig, _h("the HTTP side")] = WebConfig()
    viid: Annotated[ViidConfig, _h("GA/T 1400: cameras and video platforms")] = ViidConfig()
    audit: Annotated[AuditConfig, _h("the audit trail")] = AuditConfig()
    people: Annotated[PeopleConfig, _h("people who sign in with a password")] = PeopleConfig()
    oidc: Annotated[OidcConfig, _h("a provider of identities")] = OidcConfig()
    sharing: Annotated[SharingConfig, _h("applications, grants, receipts")] = SharingConfig()
    egress: Annotated[EgressConfig, _h("where this gateway may connect to by the wish of others")] = EgressConfig()
    video: Annotated[VideoConfig, _h("metadata of cameras")] = VideoConfig()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _h("least level that is logged")] = "info"
    log_format: Annotated[Literal["text", "json"], _h("form of the log lines")] = "text"

    @property
    def member_id(self) -> str:
        """Id of this node at its centre, and in the records that it makes."""
        return self.member or self.division


_NUMBER_MAX = 1e12
"""Of seconds, hours, rates: none is infinite, and `nan` is no number."""


def _records(kind: object) -> type[Record] | None:
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind
    for part in get_args(kind):
        if found := _records(part):
            return found
    return None


def settings(record: type[Record] = Config, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, help) for every setting, nested keys with dots; ``[]`` marks a list of records."""
    hints = get_type_hints(record, include_extras=True)
    for field in msgspec.structs.fields(record):
        annotated = hints[field.name]
        kind, meta = get_args(annotated)[0], get_args(annotated)[1]
        nested = _records(kind)
        many = get_origin(kind) is tuple
        key = f"{prefix}{field.name}{'[]' if nested and many else ''}"
        if nested:
            yield from settings(nested, f"{key}.")
            continue
        default = "(required)" if field.default is msgspec.NODEFAULT else msgspec.json.encode(field.default).decode()
        yield key, default, str(meta.description)


def line_of(text: str, path: list[str]) -> int:
    """Return the 1-based line of a key path in YAML text, or of its nearest parent."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return 1
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line


def _unknown(record: type[Record], tree: object, path: list[str]) -> tuple[list[str], str] | None:
    if not isinstance(tree, dict):
        return None
    hints = get_type_hints(record, include_extras=True)
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            return [*path, str(key)], f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(hints)}"
        nested = _records(hints[key])
        if nested is None:
            continue
        children = enumerate(value) if isinstance(value, list) else [("", value)]
        for index, child in children:
            found = _unknown(nested, child, [*path, str(key), *([str(index)] if index != "" else [])])
            if found:
                return found
    return None


def _odd(tree: object, path: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield (path, what is wrong) of each value that no setting may have, whatever it is of."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, member in members:
        yield from _odd(member, [*path, str(name)])
    if isinstance(tree, float) and not abs(tree) <= _NUMBER_MAX:
        yield path, f"must be a number up to {_NUMBER_MAX:g}"
    if isinstance(tree, str) and not tree.isascii() and any("\ud800" <= sign <= "\udfff" for sign in tree):
        yield path, "holds half a character"


def parse(text: str, *, file: str = "") -> Config:
    """Return the configuration in YAML text.

    Raises:
        ConfigError: with file, line and key of what is wrong and the nearest right word.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        raise ConfigError(
            "not YAML", file=file, line=mark.line + 1 if mark else 1, remedy=str(getattr(why, "problem", why))
        ) from why
    if found := _unknown(Config, tree, []):
        path, remedy = found
        raise ConfigError("unknown key", file=file, line=line_of(text, path), key=".".join(path), remedy=remedy)
    for path, what in _odd(tree, []):
        raise ConfigError(what, file=file, line=line_of(text, path), key=".".join(path), remedy="see config/README.md")
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as why:
        message, _, place = str(why).partition(" - at `$")
        path = [part for part in place.rstrip("`").replace("[", ".").replace("]", "").split(".") if part]
        raise ConfigError(
            message, file=file, line=line_of(text, path), key=".".join(path), remedy="see config/README.md"
        ) from why


def load(path: Path) -> Config:
    """Read a configuration file; see `parse`."""
    try:
        return parse(path.read_text(encoding="utf-8"), file=str(path))
    except OSError as why:
        raise ConfigError("cannot be read", file=str(path), remedy=why.strerror or str(why)) from why


def secret(file: str, environment: str = "") -> str:
    """Return a secret from an environment variable or a file (trailing newline cut); never log it.

    Raises:
        ConfigError: if neither is there.
    """
    if environment and (value := os.environ.get(environment)):
        return value
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as why:
        remedy = f"{why.strerror or why}; write the secret into it, mode 0600, for the gateway's user"
        raise ConfigError("secret cannot be read", file=file, remedy=remedy) from why


def reference() -> str:
    """Return the Markdown table of all settings."""
    rows = ["| key | default | what it does |", "|---|---|---|"]
    rows += [f"| `{key}` | `{default}` | {text} |" for key, default, text in settings()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is the command
