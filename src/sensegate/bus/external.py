"""A server that others run: its configuration to hand over, and the users by which the gateway enters it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sensegate.bus.process import write_private
from sensegate.bus.server_conf import Kept, User, render
from sensegate.bus.trust import gather
from sensegate.config import Config, read_secret
from sensegate.errors import ConfigError

USERS = "users.json"
CONFIGURATION = "nats-server.conf"
NATS_PORT, MQTT_PORT = 4222, 1883


def fresh() -> Kept:
    """Return new passwords for our users and a new issuer; the ports are not chosen yet."""
    import nkeys  # noqa: PLC0415 - imports PyNaCl, needed once

    return Kept(
        port=0,
        mqtt_port=0,
        passwords={user: secrets.token_urlsafe(24) for user in User},
        issuer_seed=nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode(),
        slot_seed=secrets.token_urlsafe(32),
    )


def secrets_of(config: Config) -> dict[str, str]:
    """Return the secret of each configured node by its slot, and that of the other centre by the province's code.

    Raises:
        ConfigError: a secret is missing.
    """
    found = {node.division: read_secret(node.secret_file) for node in config.nodes}
    if config.role == "centre" and config.peer.secret_file:
        found[config.division] = read_secret(config.peer.secret_file)
    return found


def sealed(config: Config, *, personal: bool) -> bool:
    """Return whether the server's store is encrypted."""
    wanted = config.engine.encryption
    return wanted in {"on", "convert"} or (wanted == "auto" and personal)


def write(config: Config, directory: Path, *, slots: Sequence[str], personal: bool = False) -> tuple[Path, Path]:
    """Write the configuration of a server for this gateway and the file of its users; return both paths, 0600.

    `slots`: those of nodes, as `authority.slots.node_slots` returns them.

    `personal`: devices may send data of persons, so its store is encrypted, unless the configuration says `off`.

    Users that are there already are kept, so that the server's configuration can be made again for new nodes or sizes.

    Raises:
        ConfigError: the users' file cannot be read, or a node's secret is missing.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    users = directory / USERS
    try:
        kept = msgspec.json.decode(users.read_bytes(), type=Kept) if users.exists() else fresh()
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(users), remedy="restore it, or remove it") from why
    engine = config.engine
    kept = msgspec.structs.replace(
        kept, port=engine.port or kept.port or NATS_PORT, mqtt_port=engine.mqtt_port or kept.mqtt_port or MQTT_PORT
    )
    text = render(
        engine,
        config.store,
        kept,
        directory.resolve(),
        name=f"sensegate-{config.division}",
        nodes=secrets_of(config),
        slots=slots,
        slot_connections=config.node_quota.connections,
        sealed=sealed(config, personal=personal),
    )
    gather(engine, directory.resolve())
    write_private(users, msgspec.json.encode(kept).decode())
    write_private(directory / CONFIGURATION, text.replace("changes are lost", "`sensegate engine` writes it anew", 1))
    return directory / CONFIGURATION, users
