"""The configuration of the embedded nats-server: a pure function of our settings and what is kept by the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from sensegate.config import EngineConfig, StoreConfig, TlsConfig

MIB = 1024**2
NEWLINE = "\n"
KEY_VARIABLE = "SENSEGATE_STORE_KEY"
"""Of the server's environment: the key of an encrypted store."""
FLOW_WINDOW = 32 * MIB
"""What nats-server sends a push consumer with flow control before it waits; one that may hold less is cut off."""
BUCKETS_MAX = 64
"""Most buckets and small streams (DOWN) of the internal account, each of `store.registry_bytes`."""
BATCH_MESSAGES_MAX = 10_000
"""Most members of one atomic batch."""
CALLOUT_S = 2
"""A client waits so long for the callout; the server's orderly end waits for such clients."""


class User(StrEnum):
    """The users of our own, one an account."""

    INTAKE = "intake"
    """In DEVICES: drains the broker's store, sends commands down."""
    GATEWAY = "gateway"
    """In SG: the log, the ledger, the registry."""
    FEEDS = "feeds"
    """In SUB: publishes granted feeds to subscribers (also as an MQTT client, for QoS 1)."""
    CALLOUT = "callout"
    """In AUTH: answers the server's question who a client is."""
    SYSTEM = "system"
    """In SYS: sees and closes connections."""

    @property
    def account(self) -> str:
        """The account of this user."""
        return ACCOUNTS[self]


ACCOUNTS: dict[User, str] = {
    User.INTAKE: "DEVICES",
    User.GATEWAY: "SG",
    User.FEEDS: "SUB",
    User.CALLOUT: "AUTH",
    User.SYSTEM: "SYS",
}


class Kept(msgspec.Struct, frozen=True):
    """Made once and kept in the directory (``engine.json``, 0600), so that a new gateway fits the old server."""

    port: int
    mqtt_port: int
    passwords: dict[User, str]
    issuer_seed: str
    """Seed of the account key that signs the callout's answers."""


def node_user(division: str) -> str:
    """Return the name under which a node connects to its centre."""
    return f"node-{division}"


def inbox_prefix(user: str) -> str:
    """Return the only prefix under which `user` may receive answers."""
    return f"_INBOX_{user.removeprefix('node-')}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(word) for word in words) + "]"


LINK_CA = "link-ca.pem"
"""In the server's directory: whose certificates of links are taken (`bus.trust.gather`)."""


def _tls(tls: TlsConfig, ca_file: str) -> str:
    if not tls.cert_file:
        return ""
    # The server runs in a directory of its own: a relative path would begin there.
    cert, key = (_quoted(str(Path(file).absolute())) for file in (tls.cert_file, tls.key_file))
    lines = [f"cert_file: {cert}", f"key_file: {key}", "timeout: 10"]
    if ca_file:
        lines += [f"ca_file: {_quoted(str(Path(ca_file).absolute()))}", "verify: true"]
    return "  tls {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _user(name: str, password: str, *, types: Sequence[str] = ("STANDARD",), permissions: str = "") -> str:
    tail = f", permissions: {permissions}" if permissions else ""
    return (
        f"      {{ user: {_quoted(name)}, password: {_quoted(password)}, "
        f"allowed_connection_types: {_list(types)}{tail} }}\n"
    )


def node_rights(division: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a node may publish and hear at its centre; rights are checked on the mapped subject."""
    publish = (
        f"readings.{division}.>",
        f"observations.{division}.>",
        f"ledger.{division}",
        f"sequences.{division}",
        f"commit.{division}.*",
        f"ask.{division}.*",
        f"$JS.API.DIRECT.GET.LOG.commit.{division}.*",
        f"$JS.API.DIRECT.GET.DOWN.down.{division}.*",
    )
    return publish, (f"{inbox_prefix(division)}.>", f"down.{division}.>")


def peer_rights(division: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the other centre may publish and hear: it asks, and writes nothing."""
    return (f"ask.{division}.*",), (f"{inbox_prefix(division)}.>",)


def node_permissions(division: str) -> str:
    """Return the rights of a node, or (a province's code) of the other centre, as the configuration has them."""
    publish, subscribe = node_rights(division) if len(division) > PROVINCE else peer_rights(division)
    return f"{{ publish: {_list(publish)}, subscribe: {_list(subscribe)} }}"


PROVINCE = 2
"""Digits of the code of a province, which no node has."""
MAPPINGS = {
    "up.*.readings.>": "readings.{{wildcard(1)}}.>",
    "up.*.observations.>": "observations.{{wildcard(1)}}.>",
    "up.*.ledger": "ledger.{{wildcard(1)}}",
    "up.*.sequences": "sequences.{{wildcard(1)}}",
    "up.*.commit.*": "commit.{{wildcard(1)}}.{{wildcard(2)}}",
    "up.*.ask.*": "ask.{{wildcard(1)}}.{{wildcard(2)}}",
}
"""What a node publishes -> where it lands: the node's own code stands in the second place of each subject."""


def render(
    config: EngineConfig,
    store: StoreConfig,
    kept: Kept,
    directory: Path,
    *,
    name: str,
    nodes: Mapping[str, str],
    sealed: bool = False,
) -> str:
    """Return the text of the server's configuration. It holds passwords: write it 0600.

    `sealed`: the store is encrypted, under the key that the server finds in its environment. `nodes` gives the
    secret of each node (division -> secret) that may write here. The monitoring port, routes, leaf nodes and
    WebSocket have no block, so the server does not open them.
    """
    # Far above what the streams may hold: a limit of account or server would tear a batch, the stream's own does not.
    devices_bytes = store.intake_bytes * 5 // 4 + 512 * MIB
    kept_bytes = store.ledger_bytes + store.audit_bytes + BUCKETS_MAX * store.registry_bytes
    inner_bytes = (store.log_bytes + kept_bytes) * 5 // 4 + 256 * MIB
    subscribers_bytes = 1024 * MIB
    total_bytes = (devices_bytes + inner_bytes + subscribers_bytes) * 11 // 10
    mappings = ", ".join(f"{_quoted(source)}: {_quoted(target)}" for source, target in MAPPINGS.items())
    node_users = "".join(
        _user(node_user(division), secret, permissions=node_permissions(division))
        for division, secret in sorted(nodes.items())
    )
    bypass = [str(user) for user in User] + [node_user(division) for division in sorted(nodes)]
    users = {user: _user(user, kept.passwords[user]) for user in User}
    users[User.FEEDS] = _user(User.FEEDS, kept.passwords[User.FEEDS], types=("STANDARD", "MQTT"))
    sync = "sync_interval: always" if config.durability == "power" else 'sync_interval: "2m"'
    return f"""\
# Written by sensegate; changes are lost. Holds secrets.
server_name: {_quoted(name)}
host: {_quoted(config.host)}
port: {kept.port}
{_tls(config.tls, str(directory / LINK_CA) if config.link_ca_file else "")}max_payload: {config.max_payload_bytes}
max_control_line: 4096
max_connections: {config.max_connections}
max_pending: {max(FLOW_WINDOW + 8 * MIB, 4 * config.max_payload_bytes)}
write_deadline: "10s"
ping_interval: "20s"
ping_max: 3
log_file: {_quoted(str(directory / "nats.log"))}
logfile_size_limit: {16 * MIB}
logfile_max_num: 4
jetstream {{
  store_dir: {_quoted(str(directory / "store"))}
  max_file_store: {total_bytes}
  max_memory_store: {256 * MIB}
{f"  cipher: {config.cipher}{NEWLINE}  key: ${KEY_VARIABLE}{NEWLINE}" if sealed else ""}  {sync}
  limits {{ batch {{ max_msgs: {BATCH_MESSAGES_MAX}, max_inflight_per_stream: 500, max_inflight_total: 1000,
    timeout: "10s" }} }}
}}
mqtt {{
  host: {_quoted(config.mqtt_host)}
  port: {kept.mqtt_port}
{_tls(config.tls, config.tls.ca_file)}  ack_wait: "30s"
  max_ack_pending: 1024
  reject_qos2_publish: true
  authorization {{ timeout: {CALLOUT_S} }}
}}
system_account: SYS
authorization {{
  timeout: {CALLOUT_S}
  auth_callout {{ issuer: {_quoted(issuer_of(kept))}, account: AUTH, auth_users: {_list(bypass)} }}
}}
accounts {{
  DEVICES {{
    jetstream {{ max_file: {devices_bytes}, max_memory: 0 }}
    users: [
{users[User.INTAKE]}    ]
  }}
  SG {{
    jetstream {{ max_file: {inner_bytes}, max_memory: {128 * MIB} }}
    mappings: {{ {mappings} }}
    users: [
{users[User.GATEWAY]}{node_users}    ]
  }}
  SUB {{
    jetstream {{ max_file: {subscribers_bytes}, max_memory: 0 }}
    users: [
{users[User.FEEDS]}    ]
  }}
  AUTH {{
    users: [
{users[User.CALLOUT]}    ]
  }}
  SYS {{
    users: [
{users[User.SYSTEM]}    ]
  }}
}}
"""


def issuer_of(kept: Kept) -> str:
    """Return the public key of the callout's issuer."""
    import nkeys  # noqa: PLC0415 - imports PyNaCl, needed by the engine alone

    public: bytes = nkeys.from_seed(kept.issuer_seed.encode()).public_key
    return public.decode()
