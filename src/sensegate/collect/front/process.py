"""A front as a whole: its connection to the engine, its desk, its listener. Run in a process of its own, or in the gateway's.

`python -m sensegate.collect.front.process` reads its settings (`FrontSettings`, MessagePack) from standard input, of
which the gateway keeps the other end: when that closes, the front stores what it has taken and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import struct
import sys

import msgspec
import structlog
import uvloop

from sensegate import logs
from sensegate.bus import trust
from sensegate.bus.connect import connect
from sensegate.bus.process import write_private as _unused  # noqa: F401
from sensegate.clock import Clock, SystemClock
from sensegate.collect.front.desk import GatewayDesk
from sensegate.collect.front.front import Front
from sensegate.collect.front.messages import FrontSettings
from sensegate.collect.front.store import IntakeStore
from sensegate.collect.front.upstream import BrokerAddress
from sensegate.collect.intake.batch import new_instance

SETTINGS_BYTES_MAX = 1024**2
READY = b"ready\n"
_LENGTH = struct.Struct("<I")

_log = structlog.get_logger("collect")


def tls_context(settings: FrontSettings) -> ssl.SSLContext | None:
    """Return the TLS context of the listener; None: it uses no TLS."""
    tls = settings.engine.tls
    if not tls.cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert_file, tls.key_file or None)
    if tls.ca_file:
        context.load_verify_locations(tls.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class FrontProcess:
    """A front with everything that it needs."""

    def __init__(self, settings: FrontSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._context = tls_context(settings)

    @contextlib.asynccontextmanager
    async def opened(self):  # type: ignore[no-untyped-def]
        """Listen; leaving the context stores what was taken and closes all connections."""
