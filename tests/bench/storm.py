"""A storm: all devices come back at once after their front's death, plain and by TLS; the server's death beside it.

Devices have sessions and publish one message each once they are connected; one that is told to wait, waits and tries
again. The figure is the time from the kill until every device has its PUBACK again, with the devices' own process on
the same cores. After the server's death connections stay open; every device publishes, and waits for its PUBACK.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import msgspec
from typer.testing import CliRunner

from sensegate import flow
from sensegate.authority.credentials import issue
from sensegate.authority.device_table import StoredDevice
from sensegate.bus.names import token
from sensegate.demo.processes import die_with_parent
from sensegate.model import Device
from tests.bench import rig

DEVICES = 15_000
DEADLINE_S = 90.0
GOALS_S = {"plain": 10.0, "tls": 30.0}


async def registered(parts: flow.Gateway, count: int) -> list[tuple[str, str]]:
    """Put devices into the registry as a backup is put back; return their ids and passwords."""
    js = parts.core.bus.jetstream(publish_async_max_pending=4_000)
    rows = []
    for first in range(0, count, 2_000):
        waiting = []
        for number in range(first, min(first + 2_000, count)):
            password, credentials = issue()
            device = Device(id=f"d{number:05d}", division="440106", profile="sensegate/plain")
            rows.append((device.id, password))
            row = msgspec.msgpack.encode(StoredDevice(device, credentials))
            waiting.append(await js.publish_async(f"$KV.devices.{token(device.id)}", row))
        await asyncio.gather(*waiting)
    await parts.lifecycle.devices.load()
    return rows


def fronts_of(pid: int) -> list[int]:
    """Return the process ids of the fronts of a gateway."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if b"sensegate.collect.front.process" in words and parent == pid:
                    children.append(int(entry.name))
    return children


class Watch:
    """Reads the states of the devices' process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.state: dict[str, int] = {}

    async def until(self, count: int, *, below: bool = False) -> float:
        """Wait until so many devices are served, or fewer; return the monotonic time."""
        assert self._process.stdout
        async with asyncio.timeout(DEADLINE_S):
            while line := await self._process.stdout.readline():
                self.state = json.loads(line)
                if (self.state["served"] < count) if below else (self.state["served"] >= count):
                    return time.monotonic()
        raise RuntimeError("the devices' process ended; see above")

    def ask_all(self) -> None:
        """Have all devices publish."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")


async def storm(count: int, processes: int, *, tls: bool, server: bool) -> dict[str, Any]:
    """Return what a storm took."""
    with tempfile.TemporaryDirectory(prefix="sensegate-storm-") as folder:
        directory = Path(folder)
        settings = f"listen: {{mqtt: {{processes: {processes}}}}}\nlog_level: error\n"
        ca_file = ""
        if tls:
            from sensegate.cli import app

            CliRunner().invoke(app, ["tls", "init", folder])
            cert, ca_file = directory / "server.pem", str(directory / "ca.pem")
            settings += f"engine: {{tls: {{cert_file: {cert}, key_file: {cert.with_suffix('.key')}}}}}\n"
        async with rig.gateway(settings) as parts:
            rows = await registered(parts, count)
            host, port = rig.mqtt_address(parts)
            file = directory / "devices.json"
            file.write_text(json.dumps({"host": host, "port": port, "ca_file": ca_file, "devices": rows}))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.storm_clients", str(file)),
                cwd=rig.ROOT, stdin=PIPE, stdout=PIPE, preexec_fn=die_with_parent,
            )  # fmt: skip
            try:
                return await measured(parts, Watch(process), count, server=server)
            finally:
                process.kill()
                await process.wait()


async def measured(parts: flow.Gateway, watch: Watch, count: int, *, server: bool) -> dict[str, Any]:
    """Measure the first connects, and the return after the death of all fronts (and of the server)."""
    began = time.monotonic()
    first_s = await watch.until(count) - began
    began = time.monotonic()
    for pid in fronts_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    await watch.until(count, below=True)
    back_s = await watch.until(count) - began
    state = dict(watch.state)
    result = {"first_s": round(first_s, 2), "back_s": round(back_s, 2), **state}
    if server:
        parts.core.engine.restarted.clear()
        began = time.monotonic()
        os.kill(parts.core.engine.info.pid, signal.SIGKILL)
        watch.ask_all()
        await watch.until(count, below=True)
        result["server_s"] = round(await watch.until(count) - began, 2)
        result["server_dropped"] = watch.state["dropped"] - state["dropped"]
    return result


async def bench(devices: int = DEVICES, processes: int = 2) -> dict[str, Any]:
    """Return the slower relation to its goal: seconds after the kill of all fronts."""
    plain = await storm(devices, 1, tls=False, server=True)
    tls = await storm(devices, processes, tls=True, server=False)
    return {
        "figure": plain["back_s"],
        "unit": f"s until {devices:,} devices are served again after the kill of their front, plain",
        "goal": GOALS_S["plain"],
        "plain": plain,
        "plain_processes": 1,
        "tls": tls,
        "tls_goal": GOALS_S["tls"],
        "tls_processes": processes,
        "complete": plain["served"] == tls["served"] == devices and plain.get("server_dropped") == 0,
    }
