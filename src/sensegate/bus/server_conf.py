"""Configuration file of nats-server: a pure function of the settings and the stored state of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from sensegate.bus.cluster_conf import ClusterMember, cluster_block
from sensegate.bus.slots import (
    CONNECTIONS_MAX,
    SUBSCRIPTIONS_MAX,
    SlotRights,
    account_of,
    centre_password,
    centre_rights,
    centre_user,
    member_rights,
    node_user,
)
from sensegate.config import EngineConfig, StoreConfig, TlsConfig

SYNC_INTERVALS = {"power": "always", "process": '"2m"'}
"""Durability -> when the server flushes a stream to the disk."""
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
MIB = 1024**2
NEWLINE = "\n"
KEY_VARIABLE = "SENSEGATE_STORE_KEY"
"""Environment variable of the server with the key of an encrypted store."""
FLOW_WINDOW = 32 * MIB
"""Bytes that nats-server sends to a push consumer with flow control before it waits; `max_pending` must exceed it."""
BUCKETS_MAX = 64
"""Most buckets and small streams (DOWN) of the internal account, each of `store.registry_bytes`."""
BATCH_MESSAGES_MAX = 10_000
"""Most members of one atomic batch."""
CALLOUT_S = 2
"""Time-out of the auth callout; a graceful stop of the server waits for clients in it."""


class User(StrEnum):
    """The gateway's own users, one per account."""

    INTAKE = "intake"
    """In account DEVICES: consumes device messages, sends commands to devices."""
    GATEWAY = "gateway"
    """In account SG, its only user: log, ledger, registries."""
    FEEDS = "feeds"
    """In account SUB: publishes granted feeds to subscribers (also as an MQTT client, for QoS 1)."""
    CALLOUT = "callout"
    """In account AUTH: answers the server's auth callout."""
    SYSTEM = "system"
    """In account SYS: lists and closes connections."""

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


class EngineState(msgspec.Struct, frozen=True):
    """Ports, passwords and keys, generated once and stored in ``engine.json`` (0600), so that restarts reuse them."""

    port: int
    mqtt_port: int
    passwords: dict[User, str]
    issuer_seed: str
    """Seed of the account key that signs responses of the auth callout."""
    slot_seed: str
    """Secret from which the passwords of the centre's users in the slots are derived."""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(word) for word in words) + "]"


LINK_CA = "link-ca.pem"
"""File in the engine's directory: authorities of client certificates on links (`trust.write_link_authorities`)."""


CIPHER_SUITES = tuple(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    for key in ("ECDSA", "RSA")
)
"""Suites of TLS 1.2 without CBC, as Go names them (`trust.CIPHERS`); those of TLS 1.3 cannot be chosen in Go."""


def _tls(tls: TlsConfig, ca_file: str) -> str:
    if not tls.cert_file:
        return ""
    # The server runs in another directory, so relative paths are made absolute.
    cert, key = (_quoted(str(Path(file).absolute())) for file in (tls.cert_file, tls.key_file))
    lines = [f"cert_file: {cert}", f"key_file: {key}", "timeout: 10"]
    lines += ['min_version: "1.2"', f"cipher_suites: {_list(CIPHER_SUITES)}"]
    if ca_file:
        lines += [f"ca_file: {_quoted(str(Path(ca_file).absolute()))}", "verify: true"]
    return "  tls {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _user(name: str, password: str, *, types: Sequence[str] = ("STANDARD",), permissions: str = "") -> str:
    tail = f", permissions: {permissions}" if permissions else ""
    return (
        f"      {{ user: {_quoted(name)}, password: {_quoted(password)}, "
        f"allowed_connection_types: {_list(types)}{tail} }}\n"
    )


def _slot(slot: str, secret: str, state: EngineState, connections: int) -> str:
    """Return the account of a slot; `secret`: of a configured node, empty where the auth callout admits nodes."""
    users = _user(centre_user(slot), centre_password(state.slot_seed, slot), permissions=_rights(centre_rights(slot)))
    if secret:
        users += _user(node_user(slot), secret, permissions=_rights(member_rights(slot)))
    return f"""\
  {account_of(slot)} {{
    limits {{ max_connections: {connections}, max_subscriptions: {SUBSCRIPTIONS_MAX} }}
    users: [
{users}    ]
  }}
"""


def _rights(grant: SlotRights) -> str:
    return f"{{ publish: {_list(grant.publish)}, subscribe: {_list(grant.subscribe)} }}"


def has_broker_tls(config: EngineConfig) -> bool:
    """Return whether the server's MQTT listener, behind our fronts, uses TLS: beyond loopback."""
    return bool(config.tls.cert_file) and config.mqtt_host not in LOOPBACK


class NodeSlots(msgspec.Struct, frozen=True):
    """Accounts of nodes and of the other centre."""

    secrets: Mapping[str, str] = {}
    """Slot -> secret of a configured node or of the other centre."""
    names: tuple[str, ...] = ()
    """Accounts to which nodes are assigned when they join."""
    connections: int = CONNECTIONS_MAX
    """Limit of connections of each."""


NO_SLOTS = NodeSlots()


class ServerPlace(NamedTuple):
    """Name of a server, and the directory of its files."""

    name: str
    directory: Path


def render(
    config: EngineConfig,
    store: StoreConfig,
    state: EngineState,
    place: ServerPlace,
    *,
    slots: NodeSlots = NO_SLOTS,
    encrypted: bool = False,
    member: ClusterMember | None = None,
) -> str:
    """Return the text of the server's configuration. It contains passwords: write it with mode 0600.

    `encrypted`: the store is encrypted with the key in the server's environment. `member`: the server of a cluster;
    None: it stands alone, and opens no routes. The monitoring port, leaf nodes and WebSocket are not configured,
    so the server does not open them.
    """
    # Far above the limits of the streams: a limit of an account or server would break a batch, a stream's does not.
    devices_bytes = store.intake_bytes * 5 // 4 + 512 * MIB
    kept_bytes = store.ledger_bytes + store.audit_bytes + BUCKETS_MAX * store.registry_bytes
    inner_bytes = (store.log_bytes + store.intake_bytes + kept_bytes) * 5 // 4 + 256 * MIB
    subscribers_bytes = 1024 * MIB
    # Each server of a cluster holds at most one copy of a stream; the limit of an account counts all copies.
    total_bytes = (devices_bytes + inner_bytes + subscribers_bytes) * 11 // 10
    copies = member.replicas if member else 1
    devices_bytes, inner_bytes, subscribers_bytes = (
        account_bytes * copies for account_bytes in (devices_bytes, inner_bytes, subscribers_bytes)
    )
    listeners = _Listeners.of(config, state, place.directory, member)
    all_slots = sorted({*slots.names, *slots.secrets})
    accounts = "".join(_slot(slot, slots.secrets.get(slot, ""), state, slots.connections) for slot in all_slots)
    bypass = [str(user) for user in User] + [centre_user(slot) for slot in all_slots]
    bypass += [node_user(slot) for slot in sorted(slots.secrets)]
    users = {user: _user(user, state.passwords[user]) for user in User}
    users[User.FEEDS] = _user(User.FEEDS, state.passwords[User.FEEDS], types=("STANDARD", "MQTT"))
    sync = f"sync_interval: {SYNC_INTERVALS[config.durability]}"
    return f"""\
# Written by sensegate; changes are lost. Holds secrets.
server_name: {_quoted(member.own.name if member else place.name)}
host: {_quoted(listeners.host)}
port: {listeners.port}
{listeners.tls}{listeners.cluster}max_payload: {config.max_payload_bytes}
max_control_line: 4096
max_connections: {config.max_connections}
max_pending: {max(FLOW_WINDOW + 8 * MIB, 4 * config.max_payload_bytes)}
write_deadline: "10s"
ping_interval: "20s"
ping_max: 3
log_file: {_quoted(str(listeners.directory / "nats.log"))}
logfile_size_limit: {16 * MIB}
logfile_max_num: 4
jetstream {{
  store_dir: {_quoted(str(listeners.directory / "store"))}
  max_file_store: {total_bytes}
  max_memory_store: {256 * MIB}
{f"  cipher: {config.cipher}{NEWLINE}  key: ${KEY_VARIABLE}{NEWLINE}" if encrypted else ""}  {sync}
  limits {{ batch {{ max_msgs: {BATCH_MESSAGES_MAX}, max_inflight_per_stream: 500, max_inflight_total: 1000,
    timeout: "10s" }} }}
}}
mqtt {{
  host: {_quoted(listeners.mqtt_host)}
  port: {listeners.mqtt_port}
{listeners.mqtt_tls}{f"  stream_replicas: {copies}{NEWLINE}" if member else ""}  ack_wait: "30s"
  max_ack_pending: 1024
  reject_qos2_publish: true
  authorization {{ timeout: {CALLOUT_S} }}
}}
system_account: SYS
authorization {{
  timeout: {CALLOUT_S}
  auth_callout {{ issuer: {_quoted(issuer_of(state))}, account: AUTH, auth_users: {_list(bypass)} }}
}}
accounts {{
  DEVICES {{
    jetstream {{ max_file: {devices_bytes}, max_memory: 0 }}
    users: [
{users[User.INTAKE]}    ]
  }}
  SG {{
    jetstream {{ max_file: {inner_bytes}, max_memory: {128 * MIB} }}
    users: [
{users[User.GATEWAY]}    ]
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
{accounts}}}
"""


class _Listeners(msgspec.Struct, frozen=True):
    """Ports and directories of a server, and the blocks of its configuration that depend on them."""

    host: str
    port: int
    mqtt_host: str
    mqtt_port: int
    directory: Path
    tls: str
    mqtt_tls: str
    cluster: str = ""

    @classmethod
    def of(cls, config: EngineConfig, state: EngineState, directory: Path, member: ClusterMember | None) -> _Listeners:
        """Return those of a server that stands alone, or of one of a cluster."""
        if member is None:
            return cls(
                config.host,
                state.port,
                config.mqtt_host,
                state.mqtt_port,
                directory,
                _tls(config.tls, str(directory / LINK_CA) if config.link_ca_file else ""),
                _tls(config.tls, "") if has_broker_tls(config) else "",
            )
        own, paths = member.own, member.tls
        tls = TlsConfig(cert_file=paths.cert_path, key_file=paths.key_path)
        return cls(
            own.host,
            own.port,
            own.host,
            own.mqtt_port,
            member.directory,
            _tls(tls, ""),
            _tls(tls, "") if own.host not in LOOPBACK else "",
            cluster_block(
                member, state.slot_seed, _tls(tls, paths.ca_path), (_quoted(member.cluster_name), _quoted(own.host))
            ),
        )


def issuer_of(state: EngineState) -> str:
    """Return the public key of the callout's issuer."""
    import nkeys  # noqa: PLC0415 - imports PyNaCl, needed by the engine alone

    public: bytes = nkeys.from_seed(state.issuer_seed.encode()).public_key
    return public.decode()
