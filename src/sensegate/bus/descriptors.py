"""File descriptors: the limit is raised as far as it may be, and connections are capped so that files stay possible.

A process without a free descriptor can open neither its store nor its configuration. So no flood of connections may
take the last one: the caps of all listeners together leave `RESERVE` free.
"""

from __future__ import annotations

import resource
from typing import Final

import msgspec
import structlog

from sensegate.config import Config
from sensegate.errors import ConfigError

RESERVE: Final = 128
"""Descriptors kept free for files, connections to the server, other tiers and children."""
LEAST: Final = 192
"""Least number of file descriptors with which the gateway starts."""
SERVER_RESERVE: Final = 512
"""Descriptors that nats-server needs for its store."""
_WANTED: Final = 65_536

_log = structlog.get_logger("start")


def raise_limit(wanted: int = _WANTED) -> int:
    """Raise the limit of this process and its children as far as the system permits; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return wanted if soft == resource.RLIM_INFINITY else soft


def fitted(config: Config, limit: int) -> Config:
    """Return the configuration with caps of connections that fit the limit, and log which were lowered.

    Raises:
        ConfigError: the limit is too low to run at all.
    """
    if limit < LEAST:
        raise ConfigError(
            f"this process may open {limit} files, it needs at least {LEAST}",
            key="LimitNOFILE",
            remedy="raise it: LimitNOFILE=65536 in the unit, or `ulimit -n 65536`",
        )
    caps = [config.web.connections_max, *(listener.connections_max for listener in config.listen.tcp)]
    caps += [config.viid.connections_max] if config.viid.server_id else []
    share = min(1.0, (limit - RESERVE) / sum(caps))
    server = min(config.engine.max_connections, max(limit - SERVER_RESERVE, limit // 2))
    if share == 1.0 and server == config.engine.max_connections:
        return config
    _log.warning(
        "connections are capped below the configuration: too few file descriptors; raise LimitNOFILE",
        limit=limit,
        share=round(share, 3),
        engine_max_connections=server,
    )
    replace = msgspec.structs.replace
    return replace(
        config,
        web=replace(config.web, connections_max=_part(config.web.connections_max, share)),
        listen=replace(
            config.listen,
            tcp=tuple(
                replace(listener, connections_max=_part(listener.connections_max, share))
                for listener in config.listen.tcp
            ),
        ),
        viid=replace(config.viid, connections_max=_part(config.viid.connections_max, share)),
        engine=replace(config.engine, max_connections=server),
    )


def _part(cap: int, share: float) -> int:
    return max(1, int(cap * share))
