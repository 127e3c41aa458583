"""Start of a process to ``/readyz`` 200 after ``kill -9``, with a full log and many devices.

A process fills the log (a city's day in minutes, `day`) and is killed while it writes. Then a node is started as
people start it, twice: after the death of gateway and nats-server, and, once more killed, of the gateway alone.
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

import aiohttp

from sensegate.bus.free_ports import free_port
from sensegate.demo.processes import Reaper, die_with_parent, sweep
from tests.bench import rig

REGISTERED = 100_000
DEVICES = 20_000
READINGS = 60
DEADLINE_S = 120.0
POLL_S = 0.01


async def filled(directory: Path, config: Path, registered: int, devices: int, readings: int) -> int:
    """Fill the log and kill whoever did it, and the server; return how many readings were written at least."""
    sizes = [str(size) for size in (registered, devices, readings)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.day",
        str(config),
        *sizes,
        cwd=rig.ROOT,
        stdout=PIPE,
        preexec_fn=die_with_parent,
    )
    assert process.stdout
    try:
        word, _, count = (await process.stdout.readline()).decode().partition(" ")
        if word != "full":
            raise RuntimeError("the log could not be filled; see above")
        await asyncio.sleep(0.5)  # killed in the middle of the next minute
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.to_thread(sweep, directory, grace_s=0.0)
    return int(count)


async def started(config: Path, port: int) -> tuple[Process, float]:
    """Start a node; return it and the seconds until it answered ready."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sensegate.cli", "run", str(config), start_new_session=True, preexec_fn=die_with_parent
    )
    async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as session:
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the node ended with {process.returncode}; see above")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return process, time.perf_counter() - began
            await asyncio.sleep(POLL_S)  # from outside there is nothing to wait for


async def killed(process: Process, *more: int) -> None:
    """Kill a process and others by id."""
    process.kill()
    await process.wait()
    for pid in more:
        os.kill(pid, signal.SIGKILL)


async def bench(registered: int = REGISTERED, devices: int = DEVICES, readings: int = READINGS) -> dict[str, Any]:
    """Return the seconds of the slower start."""
    directory = Path(tempfile.mkdtemp(prefix="sensegate-bench-"))
    port = free_port()
    config = directory / "config.yaml"
    config.write_text(
        f'role: node\ndivision: "4401"\ndirectory: {directory}/store\nprofiles: [{rig.ROOT}/device_profiles]\n'
        f"log_level: warning\nweb: {{port: {port}}}\n"
        f'engine: {{port: {free_port()}, mqtt_port: {free_port()}, encryption: "off"}}\n',
        encoding="utf-8",
    )
    times: dict[str, float] = {}
    warden = Reaper(directory, remove=True)
    await warden.start()
    try:
        count = await filled(directory, config, registered, devices, readings)
        size = sum(file.stat().st_size for file in directory.rglob("*.blk"))
        process, times["both_killed"] = await started(config, port)
        try:
            memory = rig.rss_mb(process.pid)
            engine = int(json.loads((directory / "store" / "run.json").read_text(encoding="utf-8"))["engine_pid"])
            engine_memory = rig.rss_mb(engine)
            await killed(process)
            process, times["gateway_killed"] = await started(config, port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    finally:
        await asyncio.to_thread(sweep, directory, grace_s=2.0)
        await warden.finish()
    return {
        "figure": round(max(times.values()), 2),
        "unit": "s from start of a process to ready",
        "goal": 20,
        **{f"{name}_s": round(took, 2) for name, took in times.items()},
        "readings": count,
        "registered": registered,
        "store_mb": round(size / 1024**2),
        "rss_mb": round(memory),
        "engine_rss_mb": round(engine_memory),
    }
