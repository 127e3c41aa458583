"""Build the core of a gateway: its configuration, clock and open stores, on which every other part is built."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from nats.aio.client import Client

from sensegate.bus import streams, timelines
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import Bucket
from sensegate.bus.log import JetStreamLog
from sensegate.clock import Clock
from sensegate.config import Config


class Core(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Configuration, clock and open stores of a gateway."""

    config: Config
    clock: Clock
    engine: Engine
    bus: Client
    """Connection of `User.GATEWAY`."""
    log: JetStreamLog
    hours: JetStreamLog
    """Log of the hourly ledgers."""
    buckets: dict[str, Bucket] = msgspec.field(default_factory=dict)
    """Buckets opened so far, by name."""

    @property
    def directory(self) -> Path:
        """Directory of the gateway."""
        return Path(self.config.directory)

    async def bucket(self, name: str) -> Bucket:
        """Open the bucket of a registry. Raises `Unavailable`."""
        bucket = await Bucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)
        self.buckets[name] = bucket
        return bucket


async def open_core(
    config: Config, clock: Clock, engine: Engine, stack: contextlib.AsyncExitStack, *, log_first: int
) -> Core:
    """Open the stores of a gateway, whose engine has started.

    Args:
        config: the configuration.
        clock: the clock.
        engine: the engine.
        stack: closes the connection.
        log_first: first sequence of the log if it is created now.
    """
    bus = await engine.connect(User.GATEWAY, name="gateway")
    stack.push_async_callback(bus.close)
    await streams.ensure_streams(bus, config.store, audit_ttl_h=config.audit.ttl_h, log_first=log_first)
    log = JetStreamLog(bus, room=engine.has_room)
    await log.open(Path(config.directory))
    # Before nodes or devices are let in: nobody has written since the server began.
    await timelines.begin(log, clock.now())
    hours = JetStreamLog(bus, stream=streams.LEDGER, room=engine.has_room)
    await hours.open()
    return Core(config=config, clock=clock, engine=engine, bus=bus, log=log, hours=hours)
