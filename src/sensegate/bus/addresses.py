"""Addresses of a running gateway: printed at the start and stored in ``<directory>/run.json``."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sensegate.bus.engine import Engine
from sensegate.bus.files import write_private

FILE = "run.json"


class GatewayAddresses(msgspec.Struct, frozen=True):
    """Process ids and listening addresses of a node or centre."""

    pid: int
    engine_pid: int
    http: str
    mqtt: str
    nats: str
    tcp: dict[str, str] = {}
    """Name of a TCP listener -> its address."""
    viid: str = ""
    """Address of the GA/T 1400 listener; empty: there is none."""

    @classmethod
    def of(cls, engine: Engine, http: str, mqtt: str, tcp: dict[str, str], viid: str) -> GatewayAddresses:
        """Return the addresses of this process; its engine must have started."""
        info = engine.info
        return cls(os.getpid(), info.pid, http, mqtt, info.urls[0], tcp, viid)

    def save(self, directory: Path) -> None:
        """Write ``run.json``."""
        write_private(directory / FILE, msgspec.json.encode(self).decode())


async def keep_engine_pid_current(addresses: GatewayAddresses, engine: Engine, directory: Path) -> None:
    """Rewrite the file after each restart of the engine, until cancelled."""
    while True:
        await engine.restarted.wait()
        engine.restarted.clear()
        msgspec.structs.replace(addresses, engine_pid=engine.info.pid).save(directory)
