"""Faults of the machine: what stands in the way is one sentence; a flood of connections takes no last descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from sensegate import flow
from sensegate.bus.addresses import GatewayAddresses
from sensegate.clock import SystemClock
from sensegate.config import WebConfig
from sensegate.web.client import GatewayClient
from tests.conftest import eventually
from tests.live.site import config_of, reading

pytestmark = pytest.mark.live
DESCRIPTORS = 260
long = pytest.mark.skipif(not os.environ.get("SENSEGATE_SOAK"), reason="takes long; it runs in make soak")


def config_file(directory: Path) -> Path:
    """Write the configuration of a node, at which one address may take all connections."""
    file = directory / "node.yaml"
    web = WebConfig(connections_per_address_max=WebConfig().connections_max)
    file.write_bytes(msgspec.yaml.encode(config_of(directory / "node", web=web)))
    return file


@contextlib.asynccontextmanager
async def started(file: Path, *, descriptors: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a gateway as a process, with so many descriptors (0: as many as there are)."""
    words = [sys.executable, "-m", "sensegate.cli", "run", str(file)]
    if descriptors:
        words = ["/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "run", *words]
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


def a_file(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


def a_directory(place: Path) -> None:
    place.mkdir(parents=True)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        pytest.param("engine", a_file, "a file stands where a directory must be; move it away", marks=long),
        pytest.param("admin.token", a_directory, "a directory stands where a file must be; move it away", marks=long),
        ("duplicates", a_file, "a file stands where a directory must be; move it away"),
    ],
)
async def test_what_stands_in_the_way(tmp_path: Path, name: str, make: Callable[[Path], None], words: str) -> None:
    """The gateway ends with exit code 2 and one sentence that names the path, and without a traceback."""
    place = tmp_path / "node" / name
    make(place)
    async with started(config_file(tmp_path)) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    last = errors.decode().splitlines()[-1]
    assert process.returncode == 2, errors.decode()
    assert last.startswith(f"sensegate: {place}: ")
    assert last.endswith(words)
    assert b"Traceback" not in errors


@long
async def test_too_few_descriptors_to_begin(tmp_path: Path) -> None:
    """It says so before anything is made."""
    async with started(config_file(tmp_path), descriptors=100) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert "may open 100 files" in errors.decode()
    assert "LimitNOFILE=65536" in errors.decode()
    assert not (tmp_path / "node" / "engine").exists()


async def test_descriptors_used_up(tmp_path: Path) -> None:
    """Idle connections, more than there are descriptors: refused with 503; who is connected is served on."""
    run = tmp_path / "node" / "run.json"
    async with started(config_file(tmp_path), descriptors=DESCRIPTORS) as process:
        await eventually(run.exists, 60)
        addresses = msgspec.json.decode(run.read_bytes(), type=GatewayAddresses)
        admin = (tmp_path / "node" / "admin.token").read_text().strip()
        place = urlsplit(addresses.http)
        async with GatewayClient(addresses.http, admin) as remote:
            await remote.get("/api/v1/me")  # connected from before the flood on
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(socket.socket()) for _ in range(2 * DESCRIPTORS)]
                for flooding in sockets:
                    flooding.settimeout(5)
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(flooding.connect, (place.hostname, place.port))
                made = await remote.post(
                    "/api/v1/devices", {"id": "met-1", "division": "440106", "profile": "sensegate/plain"}
                )
                last = sockets[-1]
                assert b"503 Service Unavailable" in await asyncio.to_thread(last.recv, 4096)
                await remote.get("/api/v1/devices")
                assert process.returncode is None
            authorization = aiohttp.encode_basic_auth("met-1", made["password"])
            headers = {"Content-Type": "application/json", "Authorization": authorization}
            url = f"{addresses.http}/api/v1/ingest/met-1"

            async def taken() -> bool:
                with contextlib.suppress(aiohttp.ClientError):
                    async with (
                        aiohttp.ClientSession(headers=headers) as session,
                        session.post(url, data=reading(1)) as answer,
                    ):
                        return answer.status == 202
                return False

            await eventually(taken, 30)
            assert json.loads((await remote.text("/readyz", accept="*/*"))[0])["ready"]
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in errors, errors.decode()


class ShiftedClock(SystemClock):
    """The machine's clock, set to another time."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def now(self) -> int:
        return super().now() + self.ahead_us


async def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """By a day, to the years 2051, 2100 and 2262, and back: the gateway goes on, takes readings, and counts them."""
    clock, config = ShiftedClock(), config_of(tmp_path / "node")
    up: asyncio.Future[GatewayAddresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(flow.run(config, clock=clock, ready=up.set_result), name="gateway")
    addresses = await asyncio.wait_for(asyncio.shield(up), 30)
    admin = (tmp_path / "node" / "admin.token").read_text().strip()
    jumps = [dt.timedelta(hours=26), -dt.timedelta(hours=26)]
    now = dt.datetime.now(dt.UTC)
    jumps += [dt.datetime(year, 3, 1, tzinfo=dt.UTC) - now for year in (2051, 2100, 2262)]
    async with GatewayClient(addresses.http, admin) as remote:
        made = await remote.post("/api/v1/devices", {"id": "met-1", "division": "440106", "profile": "sensegate/plain"})
        authorization = aiohttp.encode_basic_auth("met-1", made["password"])
        headers = {"Content-Type": "application/json", "Authorization": authorization}
        async with aiohttp.ClientSession(headers=headers) as session:
            for number, jump in enumerate([*jumps, dt.timedelta(0)]):
                clock.ahead_us = round(jump.total_seconds() * 1e6)
                at = dt.datetime.fromtimestamp(clock.now() / 1e6, dt.UTC).isoformat()
                async with session.post(f"{addresses.http}/api/v1/ingest/met-1", data=reading(number, at)) as answer:
                    assert answer.status == 202, await answer.text()
                assert not task.done()
        totals = (await remote.get("/api/v1/ledger?since=48h"))["totals"]
        assert totals["messages"] >= 2, totals
        records = (await remote.get("/api/v1/feeds/all/records"))["records"]
        assert 5.0 in [row["value"] for row in records]
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
