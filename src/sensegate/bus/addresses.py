"""Where a running gateway is reached: told to whoever started it, and kept in ``<directory>/run.json``."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sensegate.bus.engine import Engine
from sensegate.bus.free_ports import bracketed
from sensegate.bus.process import write_private

FILE = "run.json"


class Addresses(msgspec.Struct, frozen=True):
    """Of a node or centre."""

    pid: int
    engine_pid: int
    http: str
    mqtt: str
    nats: str
    tcp: dict[str, str] = {}
    """Name of a listener -> where it listens."""
    viid: str = ""
    """Where GA/T 1400 is spoken; empty: it is not."""

    @classmethod
    def of(cls, engine: Engine, http: str, tcp: dict[str, str], viid: str) -> Addresses:
        """Return those of this process, whose engine has started."""
        info = engine.info
        mqtt = f"mqtt://{bracketed(info.mqtt_host)}:{info.mqtt_port}"
        return cls(os.getpid(), info.pid, http, mqtt, info.urls[0], tcp, viid)

    def keep(self, directory: Path) -> None:
        """Write the file."""
        write_private(directory / FILE, msgspec.json.encode(self).decode())


async def follow(addresses: Addresses, engine: Engine, directory: Path) -> None:
    """Keep the server's process id in the file true, until cancelled."""
    while True:
        await engine.restarted.wait()
        engine.restarted.clear()
        msgspec.structs.replace(addresses, engine_pid=engine.info.pid).keep(directory)
