"""The configuration of a gateway: records with a default, a unit in the name, a help text, and ranges of the numbers.

`config.reading` reads them from YAML; `config.reference` writes their table in `config/README.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sensegate.config import builtin
from sensegate.config.alarms import AlarmsConfig
from sensegate.config.cameras import CameraConfig
from sensegate.config.cluster import ClusterConfig
from sensegate.config.history import HistoryConfig
from sensegate.config.influx import InfluxConfig
from sensegate.config.map import MapConfig
from sensegate.config.mqtt import MqttConfig
from sensegate.config.people import AuditConfig, EgressConfig, OidcConfig, PeopleConfig, ReturnsConfig, SharingConfig
from sensegate.config.setting import ConfigRecord, doc
from sensegate.config.sites import CentreConfig, NodeQuotaConfig, PeerConfig
from sensegate.config.video import VideoConfig
from sensegate.config.viid import ViidConfig


class StoreConfig(ConfigRecord, frozen=True):
    """Size limits and retention of the streams; keep the sum far below the size of the disk."""

    intake_bytes: Annotated[
        int,
        doc(
            "size limit of INTAKE; when full, devices get no PUBACK and have to wait",
            least=1024**2,
            most=10**15,
        ),
    ] = 2 * 1024**3
    log_bytes: Annotated[
        int, doc("size limit of LOG; when full, commits (and so acknowledgements) stop", least=1024**2, most=10**15)
    ] = 8 * 1024**3
    ledger_bytes: Annotated[int, doc("size limit of LEDGER, the hourly sums", least=1024**2, most=10**15)] = (
        256 * 1024**2
    )
    registry_bytes: Annotated[int, doc("size limit of each key-value bucket", least=1024**2, most=10**15)] = (
        256 * 1024**2
    )
    audit_bytes: Annotated[
        int,
        doc(
            "size limit of AUDIT; when full, changes are refused (/readyz warns at 80 %); 1,000 subscribers: 4 MB/day",
            least=1024**2,
            most=10**15,
        ),
    ] = 2 * 1024**3
    disk_reserve_bytes: Annotated[
        int,
        doc(
            "with less free disk space commits stop before a write can fail half-way, and devices have to wait",
            least=1024**2,
            most=10**15,
        ),
    ] = 512 * 1024**2
    raw_ttl_h: Annotated[int, doc("retention of raw messages, for replay and reprocessing", least=1, most=876_000)] = 72
    readings_ttl_h: Annotated[int, doc("retention of readings on the log", least=1, most=876_000)] = 168
    observations_ttl_h: Annotated[
        int, doc("retention of observations of cameras on the log", least=1, most=876_000)
    ] = 168
    quarantine_ttl_h: Annotated[int, doc("retention of quarantined messages", least=1, most=876_000)] = 720
    ledger_ttl_h: Annotated[int, doc("retention of the hourly sums", least=1, most=876_000)] = 9600
    scrub_bytes_s: Annotated[
        int,
        doc(
            "bytes of LOG per second that the background scrub reads to find losses; 0: only by doctor --scrub",
            least=0,
            most=10**10,
        ),
    ] = 1024**2


class TlsConfig(ConfigRecord, frozen=True):
    """Certificates of a listener; without them it uses no TLS, which is allowed on loopback only."""

    cert_file: Annotated[str, doc("PEM certificate chain")] = ""
    key_file: Annotated[str, doc("PEM private key")] = ""
    ca_file: Annotated[str, doc("PEM of the CA of client certificates; empty: no client certificate is required")] = ""


_MEMBER = msgspec.Meta(pattern="^([0-9]{2,12}(-[a-z0-9]+)*)?$", max_length=32)
"""Pattern of a node's id: its city, and a name after a dash; may be empty."""


class NodeUserConfig(ConfigRecord, frozen=True):
    """A node that may write to this centre."""

    division: Annotated[str, doc("the node's id, usually its city code, e.g. 4401"), _MEMBER]
    secret_file: Annotated[str, doc("file with the node's secret for its link to the centre")]
    areas: Annotated[
        tuple[str, ...], doc("divisions whose readings it may send, each with its subdivisions; empty: its city")
    ] = ()


class EngineConfig(ConfigRecord, frozen=True):
    """nats-server: a child process, or an external server by URL."""

    url: Annotated[str, doc("external nats-server or cluster; empty: start an embedded one")] = ""
    credentials_file: Annotated[
        str, doc("with url: file with the users' passwords and the issuer's seed, in the format of engine.json")
    ] = ""
    host: Annotated[str, doc("listen address for clients and links")] = "127.0.0.1"
    port: Annotated[int, doc("port for clients and links; 0: a free port below 32768", least=0, most=65_535)] = 0
    mqtt_host: Annotated[str, doc("address of the server's own MQTT listener, to which only our fronts connect")] = (
        "127.0.0.1"
    )
    mqtt_port: Annotated[int, doc("MQTT port; 0: a free port below 32768", least=0, most=65_535)] = 0
    durability: Annotated[
        Literal["process", "power"],
        doc("power: fsync before each acknowledgement; process: survives kill -9 of any process, not power loss"),
    ] = "power"
    encryption: Annotated[
        Literal["auto", "on", "off", "convert"],
        doc("of the store; auto: if a profile takes video metadata; convert: on, also for an unencrypted store"),
    ] = "auto"
    cipher: Annotated[
        Literal["chacha", "aes"], doc("cipher of an encrypted store; fixed when the store is created")
    ] = "chacha"
    store_key_file: Annotated[
        str,
        doc(
            "file of the store's key, 0600; empty: $SENSEGATE_STORE_KEY, else <directory>/engine/store.key (generated)"
        ),
    ] = ""
    max_payload_bytes: Annotated[
        int, doc("largest message; a device that sends more is disconnected", least=65_536, most=64 * 1024**2)
    ] = 1024**2
    max_connections: Annotated[int, doc("most client connections", least=16, most=1_000_000)] = 20_000
    tls: Annotated[
        TlsConfig, doc("certificates of engine.host and listen.mqtt; with ca_file devices must present theirs")
    ] = TlsConfig()
    link_ca_file: Annotated[
        str, doc("PEM of the CA of the nodes' link certificates; empty: no client certificate is required")
    ] = ""
    ca_file: Annotated[str, doc("with url: PEM of the CA of the external server's certificate (tls:// addresses)")] = ""
    replicas: Annotated[
        Literal[1, 3, 5],
        doc("copies of each stream and bucket, on servers of a cluster (url); existing ones are given more copies"),
    ] = 1
    standby: Annotated[
        bool,
        doc("with replicas: several gateways of this node may run, on several machines; one is active by a lease"),
    ] = False
    cluster: Annotated[ClusterConfig, doc("servers of the cluster, for `sensegate engine`")] = ClusterConfig()
    restart_backoff_max_s: Annotated[
        float, doc("longest wait between restarts of a crashing server", least=0.1, most=3_600)
    ] = 10.0


class IngestConfig(ConfigRecord, frozen=True):
    """Limits of the intake; each has a counter."""

    commit_messages_max: Annotated[int, doc("most messages in one commit", least=1, most=1_000_000)] = 8_000
    commit_interval_ms: Annotated[
        int,
        doc(
            "longest wait for a fuller commit under load, four times as long while deliveries to subscribers are "
            "behind; without load a commit is written at once",
            least=0,
            most=60_000,
        ),
    ] = 50
    commit_interval_min_ms: Annotated[
        int,
        doc(
            "wait for a fuller commit while there is little load; the wait grows with the load up to "
            "`commit_interval_ms`, if that is longer",
            least=0,
            most=60_000,
        ),
    ] = 10
    depth_messages_max: Annotated[
        int, doc("most messages received and not yet committed", least=1, most=10_000_000)
    ] = 60_000
    message_bytes_max: Annotated[
        int, doc("larger messages go to quarantine: too_large", least=64, most=64 * 1024**2)
    ] = 262_144
    nesting_max: Annotated[int, doc("deeper payloads go to quarantine: too_deep", least=1, most=128)] = 32
    rate_per_device_s: Annotated[
        float,
        doc(
            "most messages per second of one device, averaged over a minute; more go to quarantine: rate",
            least=0.001,
            most=1_000_000,
        ),
    ] = 200.0
    stall_timeout_s: Annotated[
        float,
        doc(
            "recreate the consumer if messages are pending and none is delivered for this long", least=0.1, most=86_400
        ),
    ] = 30.0


class ScriptsConfig(ConfigRecord, frozen=True):
    """Codec scripts of profiles, which run in child processes."""

    require_seccomp: Annotated[
        bool,
        doc(
            "run scripts only where the kernel filters their system calls (seccomp); false: also without, "
            "with the other restrictions of their sandbox"
        ),
    ] = True


class ExternalBrokerConfig(ConfigRecord, frozen=True):
    """An external MQTT broker to which this node subscribes."""

    name: Annotated[str, doc("name of the source in the ledger")]
    host: Annotated[str, doc("address of the broker")]
    port: Annotated[int, doc("port of the broker", least=1, most=65_535)] = 1883
    version: Annotated[Literal["3.1.1", "5"], doc("MQTT protocol version")] = "3.1.1"
    client_id: Annotated[str, doc("fixed client id of the persistent session")] = "sensegate"
    username: Annotated[str, doc("user name")] = ""
    password_file: Annotated[str, doc("file with the password")] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the broker's certificate; empty: no TLS")] = ""
    topics: Annotated[tuple[str, ...], doc("topic filters to subscribe to, QoS 1")] = ("#",)
    video: Annotated[
        bool, doc("all its messages are camera metadata: messages that no profile takes are not stored")
    ] = False
    inflight_max: Annotated[int, doc("most messages not yet acknowledged", least=1, most=65_535)] = 5_000
    backoff_max_s: Annotated[float, doc("longest wait between attempts to connect", least=0.05, most=3_600)] = 30.0


class TcpConfig(ConfigRecord, frozen=True):
    """A port for devices that use a national protocol over TCP."""

    protocol: Annotated[
        Literal["hj212", "sl651", "gbt26875", "jtt808"],
        doc("hj212: pollution; sl651: hydrology; gbt26875: fire (GB/T 26875.3); jtt808: vehicles"),
    ]
    name: Annotated[str, doc("name of the source in the ledger, after tcp:; empty: the name of the protocol")] = ""
    host: Annotated[str, doc("address to listen on; beyond loopback, give allow, passwords_file or tls.ca_file")] = (
        "127.0.0.1"
    )
    port: Annotated[int, doc("port to listen on; 0: a free port below 32768", least=0, most=65_535)] = 0
    allow: Annotated[tuple[str, ...], doc("addresses and networks that may connect (10.1.0.0/16); empty: any")] = ()
    passwords_file: Annotated[
        str,
        doc("file with a line `name password` for each device, * for all others; reloaded when it changes; empty: any"),
    ] = ""
    centres: Annotated[
        tuple[str, ...],
        doc("centre addresses of this gateway, in hex; other frames are refused; empty: any (sl651, gbt26875)"),
    ] = ()
    allow_offline: Annotated[bool, doc("sl651: a confirmed station may go offline until its next report")] = False
    idle_timeout_s: Annotated[
        float, doc("close a connection that is silent for this long", least=0.1, most=604_800)
    ] = 900.0
    identify_timeout_s: Annotated[
        float, doc("close a connection that has not identified a known device after this", least=0.1, most=86_400)
    ] = 60.0
    frame_timeout_s: Annotated[float, doc("time limit for a complete frame", least=0.1, most=3_600)] = 20.0
    resync_bytes_max: Annotated[
        int, doc("most bytes to skip in search of the next frame", least=0, most=64 * 1024**2)
    ] = 16_384
    refused_max: Annotated[int, doc("refused frames after which a connection is closed", least=1, most=10_000)] = 5
    unknown_per_minute: Annotated[
        int,
        doc(
            "frames of unknown devices to store in quarantine per minute, so that they can be identified",
            least=0,
            most=10_000,
        ),
    ] = 6
    inflight_max: Annotated[
        int,
        doc(
            "most frames of a connection that await their commit; beyond it the connection is not read",
            least=1,
            most=100_000,
        ),
    ] = 64
    connections_max: Annotated[int, doc("most open connections", least=1, most=1_000_000)] = 2_000
    connections_per_address_max: Annotated[
        int, doc("most open connections from one address", least=1, most=1_000_000)
    ] = 200
    tls: Annotated[TlsConfig, doc("certificates of the listener")] = TlsConfig()


class ListenConfig(ConfigRecord, frozen=True):
    """Listeners besides HTTP."""

    mqtt: Annotated[MqttConfig, doc("MQTT listener")] = MqttConfig()
    tcp: Annotated[tuple[TcpConfig, ...], doc("ports for national protocols")] = ()


class TimeConfig(ConfigRecord, frozen=True):
    """Limits for the plausibility of phenomenon times."""

    future_s: Annotated[
        float, doc("mark a phenomenon time further ahead than this as future", least=0, most=31_536_000)
    ] = 300.0
    late_s: Annotated[
        float, doc("mark a phenomenon time older than this at arrival as late", least=0, most=31_536_000)
    ] = 300.0
    stale_h: Annotated[
        float, doc("mark a phenomenon time older than this at arrival as stale", least=0, most=876_000)
    ] = 24.0
    oldest: Annotated[str, doc("reject phenomenon times before this: bad_time")] = "2000-01-01T00:00:00Z"
    future_max_h: Annotated[
        float, doc("reject phenomenon times further ahead than this: bad_time", least=0, most=876_000)
    ] = 87_600.0
    clock_error_max_s: Annotated[
        float,
        doc(
            "if the gateway's clock is off by more than this, mark all readings and judge none by time",
            least=0.1,
            most=86_400,
        ),
    ] = 60.0
    ntp_servers: Annotated[
        tuple[str, ...],
        doc("NTP servers (host or host:port) to compare the gateway's clock with; without: the centre, else devices"),
    ] = ()
    zone: Annotated[str, doc("time zone of devices that send local time without a zone")] = "Asia/Shanghai"


class DuplicateConfig(ConfigRecord, frozen=True):
    """The deduplication window."""

    horizon_h: Annotated[
        int, doc("window of exact deduplication; older arrivals are marked not_deduplicated", least=1, most=8_784)
    ] = 24
    checkpoint_s: Annotated[
        float,
        doc(
            "longest interval of checkpoints; after a restart the remainder is replayed from the log",
            least=0.1,
            most=3_600,
        ),
    ] = 5.0


class UplinkConfig(ConfigRecord, frozen=True):
    """The link to the centre."""

    url: Annotated[
        str,
        doc("nats:// address of the centre; empty: the address received on joining; without either there is no link"),
    ] = ""
    other_centres: Annotated[
        tuple[CentreConfig, ...], doc("further centres to try, in order, when that one is not active")
    ] = ()
    lease_s: Annotated[
        float,
        doc(
            "with other_centres: how long the active centre must be unreachable before this node votes for another",
            least=1,
            most=3_600,
        ),
    ] = 15.0
    secret_file: Annotated[
        str, doc("file with this node's secret at the centre; empty: the node joins with a code")
    ] = ""
    centre_url: Annotated[str, doc("http(s) address of the centre, to join with a code")] = ""
    join_code_file: Annotated[
        str, doc("file with a join code of the centre, used once by a node that has not joined yet")
    ] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the centre's certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...], doc("accepted SHA-256 fingerprints (hex) of the centre's certificate; empty: any")
    ] = ()
    cert_file: Annotated[str, doc("PEM of this node's client certificate, if the centre requires one")] = ""
    key_file: Annotated[str, doc("PEM of the private key")] = ""
    span_ms: Annotated[int, doc("longest time span of readings in one live message", least=1, most=60_000)] = 1_000
    backlog_after_s: Annotated[
        float, doc("send readings older than this at (re)connection on the backlog lane", least=0, most=86_400)
    ] = 2.0
    backlog_bytes_max: Annotated[
        int, doc("most bytes of log read into one backlog message", least=4_096, most=64 * 1024**2)
    ] = 4_194_304
    grade_max: Annotated[int, doc("withhold readings of a higher grade", least=1, most=4)] = 3
    backoff_max_s: Annotated[
        float, doc("longest wait between attempts to reach the centre", least=0.01, most=3_600)
    ] = 0.25


class WebConfig(ConfigRecord, frozen=True):
    """The HTTP interface."""

    host: Annotated[str, doc("address to listen on")] = "127.0.0.1"
    additional_hosts: Annotated[
        tuple[str, ...],
        doc("further addresses with the same port, one for each network plane; IPv6 without brackets"),
    ] = ()
    port: Annotated[int, doc("port to listen on; 0: a free port below 32768", least=0, most=65_535)] = 0
    metrics: Annotated[
        Literal["unnamed", "token", "open"],
        doc(
            "unnamed: metrics that name devices, feeds or nodes need a token that may read the ledger of the whole "
            "gateway; token: all metrics need it; open: none"
        ),
    ] = "unnamed"
    body_bytes_max: Annotated[int, doc("largest request body", least=1_024, most=1024**3)] = 1_048_576
    multipart_bytes_max: Annotated[
        int, doc("largest multipart body of a camera; pictures are dropped while it is read", least=1_024, most=1024**3)
    ] = 16_777_216
    connections_max: Annotated[int, doc("most open connections", least=16, most=1_000_000)] = 4_000
    connections_per_address_max: Annotated[
        int,
        doc(
            "most open connections from one address; 0: half of connections_max; behind a proxy give connections_max",
            least=0,
            most=1_000_000,
        ),
    ] = 0
    requests_per_caller_max: Annotated[
        int, doc("most requests that one credential may have open at a time", least=1, most=1_000_000)
    ] = 200
    streams_per_caller_max: Annotated[
        int, doc("most streams (SSE, WebSocket) that one credential may have open", least=1, most=1_000_000)
    ] = 200
    header_timeout_s: Annotated[float, doc("time limit for a complete request head", least=0.1, most=3_600)] = 10.0
    body_timeout_s: Annotated[float, doc("time limit for a complete request body", least=0.1, most=3_600)] = 30.0
    long_poll_max_s: Annotated[float, doc("longest long-poll", least=0, most=3_600)] = 60.0
    page_max: Annotated[int, doc("most records or rows in one answer", least=1, most=1_000_000)] = 10_000
    trusted_proxies: Annotated[
        tuple[str, ...],
        doc("addresses and networks of reverse proxies, for HTTP and VIID, whose proxy_header names the client"),
    ] = ()
    proxy_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        doc("header that the trusted proxies write; the other one is never read"),
    ] = "x-forwarded-for"
    tls: Annotated[TlsConfig, doc("certificates of the HTTP listener")] = TlsConfig()
    map: Annotated[MapConfig, doc("layers of the console's map")] = MapConfig()


class Config(ConfigRecord, frozen=True):
    """A node or centre."""

    role: Annotated[Literal["node", "centre"], doc("node: the gateway of a city; centre: that of the province")]
    division: Annotated[str, doc("division code: 4401 for a node, 44 for the centre")]
    directory: Annotated[str, doc("directory of the store, the deduplication index and generated files")]
    member: Annotated[
        str,
        doc("id of this node at its centre and in its records, if a city has several; empty: the division"),
        _MEMBER,
    ] = ""
    profiles: Annotated[
        tuple[str, ...], doc("folders of device profiles; builtin: those that come with the package")
    ] = (builtin.WORD,)
    standard_vendors: Annotated[
        tuple[str, ...], doc("vendors (folders) of standard profiles, of which only the province releases versions")
    ] = ("sensegate", "hj212", "sl651", "gbt26875", "jtt808")
    engine: Annotated[EngineConfig, doc("nats-server")] = EngineConfig()
    store: Annotated[StoreConfig, doc("size limits and retention of the streams")] = StoreConfig()
    ingest: Annotated[IngestConfig, doc("limits of the intake")] = IngestConfig()
    scripts: Annotated[ScriptsConfig, doc("codec scripts of profiles")] = ScriptsConfig()
    external_brokers: Annotated[tuple[ExternalBrokerConfig, ...], doc("external MQTT brokers")] = ()
    listen: Annotated[ListenConfig, doc("listeners besides HTTP")] = ListenConfig()
    cameras: Annotated[tuple[CameraConfig, ...], doc("cameras whose alarm streams are fetched")] = ()
    time: Annotated[TimeConfig, doc("plausibility of phenomenon times")] = TimeConfig()
    duplicates: Annotated[DuplicateConfig, doc("deduplication window")] = DuplicateConfig()
    uplink: Annotated[UplinkConfig, doc("link to the centre (node)")] = UplinkConfig()
    nodes: Annotated[tuple[NodeUserConfig, ...], doc("nodes that may connect (centre)")] = ()
    node_quota: Annotated[NodeQuotaConfig, doc("limits for each node (centre)")] = NodeQuotaConfig()
    peer: Annotated[PeerConfig, doc("other centre of the pair (centre)")] = PeerConfig()
    returns: Annotated[ReturnsConfig, doc("return flow from the centre to nodes")] = ReturnsConfig()
    web: Annotated[WebConfig, doc("HTTP interface")] = WebConfig()
    viid: Annotated[ViidConfig, doc("GA/T 1400: cameras and video platforms")] = ViidConfig()
    alarms: Annotated[AlarmsConfig, doc("deliveries of alarms")] = AlarmsConfig()
    history: Annotated[HistoryConfig, doc("readings beyond the retention of the log")] = HistoryConfig()
    influx: Annotated[InfluxConfig, doc("stores of others that take line protocol")] = InfluxConfig()
    audit: Annotated[AuditConfig, doc("audit trail")] = AuditConfig()
    people: Annotated[PeopleConfig, doc("people who sign in with a password")] = PeopleConfig()
    oidc: Annotated[OidcConfig, doc("single sign-on")] = OidcConfig()
    sharing: Annotated[SharingConfig, doc("applications, grants, usage statements")] = SharingConfig()
    egress: Annotated[EgressConfig, doc("destinations to which this gateway may connect on behalf of others")] = (
        EgressConfig()
    )
    video: Annotated[VideoConfig, doc("camera metadata")] = VideoConfig()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("lowest level to log")] = "info"
    log_format: Annotated[Literal["text", "json"], doc("format of the log lines")] = "text"

    @property
    def member_id(self) -> str:
        """Id of this node at its centre, and in the records that it makes."""
        return self.member or self.division

    @property
    def profile_folders(self) -> tuple[str, ...]:
        """Folders of device profiles, that of the package by its path."""
        return tuple(str(builtin.PROFILES) if folder == builtin.WORD else folder for folder in self.profiles)
