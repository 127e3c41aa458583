"""Set-up of an external server: the configuration to install there, and the file of the gateway's users."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from sensegate.bus.cluster_conf import members_of
from sensegate.bus.files import write_private
from sensegate.bus.server_conf import EngineState, NodeSlots, ServerPlace, User, render
from sensegate.bus.trust import write_link_authorities
from sensegate.config import Config, read_secret
from sensegate.errors import ConfigError

USERS = "users.json"
CONFIGURATION = "nats-server.conf"
NATS_PORT, MQTT_PORT = 4222, 1883


def generate_state() -> EngineState:
    """Return new passwords for the gateway's users and a new issuer key; ports are not chosen yet."""
    import nkeys  # noqa: PLC0415 - imports PyNaCl, needed once

    return EngineState(
        port=0,
        mqtt_port=0,
        passwords={user: secrets.token_urlsafe(24) for user in User},
        issuer_seed=nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode(),
        slot_seed=secrets.token_urlsafe(32),
    )


def slot_secrets(config: Config) -> dict[str, str]:
    """Return slot -> secret of each configured node, and of the other centre (its slot is the province's code).

    Raises:
        ConfigError: a secret is missing.
    """
    secrets_by_slot = {node.division: read_secret(node.secret_file) for node in config.nodes}
    if config.role == "centre" and config.peer.secret_file:
        secrets_by_slot[config.division] = read_secret(config.peer.secret_file)
    return secrets_by_slot


def is_encrypted(config: Config, *, personal: bool) -> bool:
    """Return whether the store of the server is to be encrypted."""
    wanted = config.engine.encryption
    return wanted in {"on", "convert"} or (wanted == "auto" and personal)


def write(
    config: Config, directory: Path, *, slots: Sequence[str], personal: bool = False
) -> tuple[tuple[Path, ...], Path]:
    """Write the configuration of an external server, or of each of a cluster, and the file of the users (mode 0600).

    Return the paths of the configurations, and that of the users.

    `slots`: those of nodes, as `authority.slots.node_slots` returns them.

    `personal`: messages may contain personal data: the store is encrypted unless the configuration says `off`.

    Existing users are kept, so that the configuration can be generated again for new nodes or sizes.

    Raises:
        ConfigError: the file of users cannot be read, or the secret of a node is missing.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    users = directory / USERS
    try:
        state = msgspec.json.decode(users.read_bytes(), type=EngineState) if users.exists() else generate_state()
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(users), remedy="restore it, or delete it") from why
    engine = config.engine
    state = msgspec.structs.replace(
        state, port=engine.port or state.port or NATS_PORT, mqtt_port=engine.mqtt_port or state.mqtt_port or MQTT_PORT
    )
    encrypted = is_encrypted(config, personal=personal)
    text_of = partial(
        render,
        engine,
        config.store,
        state,
        ServerPlace(f"sensegate-{config.division}", directory.resolve()),
        slots=NodeSlots(slot_secrets(config), tuple(slots), config.node_quota.connections),
        encrypted=encrypted,
    )
    members = members_of(engine, f"sensegate-{config.member_id}")
    write_private(users, msgspec.json.encode(state).decode())
    if not members:
        write_link_authorities(engine, directory.resolve())
        return (_write_text(directory, text_of()),), users
    return tuple(_write_text(directory / member.own.name, text_of(member=member)) for member in members), users


def _write_text(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / CONFIGURATION
    write_private(path, text.replace("changes are lost", "`sensegate engine` rewrites it", 1))
    return path
