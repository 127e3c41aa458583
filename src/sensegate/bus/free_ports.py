"""Free ports below the ephemeral range, where a burst of connections cannot have left them occupied."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sensegate.errors import EngineError

LOWEST, HIGHEST = 10_240, 32_767
_TRIES_MAX = 200
_LISTEN_TRIES = 20


def free_port(host: str = "127.0.0.1") -> int:
    """Return a random port of `LOWEST`…`HIGHEST` that binds on `host` now; another may still take it first.

    Raises:
        EngineError: none was free in 200 tries, or `host` is no address of this machine.
    """
    for _ in range(_TRIES_MAX):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - no secret
        if is_free(port, host):
            return port
    raise EngineError(f"no free port on {host} between {LOWEST} and {HIGHEST}; is it an address of this machine?")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether `port` binds on `host` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As nats-server binds: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def listen(
    bind: Callable[[int], Awaitable[asyncio.Server]], port: int, host: str = "127.0.0.1"
) -> tuple[asyncio.Server, int]:
    """Listen on a port, by 0 on a free one; return the listener and its port. Raises `OSError`."""
    if port:
        return await bind(port), port
    for _ in range(_LISTEN_TRIES):
        port = free_port(host)
        with suppress(OSError):  # another process was faster
            return await bind(port), port
    return await bind(port), port


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
