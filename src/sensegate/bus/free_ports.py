"""Choice of free TCP ports below the ephemeral range, so that outgoing connections do not occupy them."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from sensegate.errors import EngineError

Listener = TypeVar("Listener")
LOWEST, HIGHEST = 10_240, 32_767
_TRIES_MAX = 200
_LISTEN_TRIES = 20
_PORTS = range(LOWEST, HIGHEST + 1)
_offset = itertools.count(random.randrange(len(_PORTS)))  # noqa: S311 - no secret
"""The random start makes two processes seldom offer the same port; one process never offers a port twice."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of `LOWEST`…`HIGHEST` that is free on `host` now; another process may still take it.

    No port is offered a second time before all others were: two listeners that start together get two ports.

    Raises:
        EngineError: none of 200 tried ports was free, or `host` is not an address of this machine.
    """
    for _ in range(_TRIES_MAX):
        port = _PORTS[next(_offset) % len(_PORTS)]
        if is_free(port, host):
            return port
    raise EngineError(f"no free port on {host} between {LOWEST} and {HIGHEST}; is it an address of this machine?")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a port can be bound on `host` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As nats-server does: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def listen(
    bind: Callable[[int], Awaitable[Listener]], port: int, host: str = "127.0.0.1"
) -> tuple[Listener, int]:
    """Listen on a port, or for 0 on a free one; return the listener and its port. Raises `OSError`."""
    if port:
        return await bind(port), port
    for _ in range(_LISTEN_TRIES):
        port = free_port(host)
        with suppress(OSError):  # another process was faster
            return await bind(port), port
    return await bind(port), port


def url_host(host: str) -> str:
    """Return a host as written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
