"""A full or failing disk: commits stop before it tears one, and the server is started again after an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.clock import SystemClock
from sensegate.config import StoreConfig
from sensegate.errors import StoreFull
from sensegate.model import Member
from tests.bus.devices import engine_in, written


async def test_an_error_of_the_disk_means_an_orderly_restart(engine: Engine, log: JetStreamLog, tmp_path: Path) -> None:
    """After a failed write the server takes no more for that stream until it is started again; so we do."""
    before = engine.info.pid
    await log.write([Member("raw.a", b"1")])
    with (tmp_path / "engine" / "nats.log").open("a") as file:
        file.write("[1] 2026/01/01 00:00:00.000000 [ERR] JetStream stream 'SG > LOG' critical write error: write x\n")
    async with asyncio.timeout(20):
        await engine.restarted.wait()
    assert engine.info.pid != before
    assert await written(log, Member("raw.a", b"2")) == 2


async def test_room_is_judged_by_the_reserve(tmp_path: Path) -> None:
    """Free space below the reserve is no room."""
    async with engine_in(tmp_path) as engine:
        assert engine.has_room()
    async with engine_in(tmp_path, store=StoreConfig(disk_reserve_bytes=2**60)) as engine:
        assert not engine.has_room()


class SmallDisk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: str) -> bool:
        """Mount it, or change its size; say whether that is allowed here."""
        action = f"remount,size={size}" if self.path.is_mount() else f"size={size}"
        command = ["/bin/mount", "-t", "tmpfs", "-o", action, "tmpfs", str(self.path)]
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """64 MiB."""
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk")
    if not disk.resize("64m"):
        pytest.skip("no right to mount a file system")
    yield disk
    subprocess.run(["/bin/umount", str(disk.path)], check=True)


async def test_a_full_disk_tears_nothing_and_heals(small_disk: SmallDisk) -> None:
    """Commits stop before the disk is full, each is whole, and they go on when there is room."""
    store = StoreConfig(disk_reserve_bytes=24 * 1024**2)
    async with engine_in(small_disk.path, store=store) as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, store)
        engine._clock = impatient = FakeMonotonic()
        log = JetStreamLog(client, room=engine.has_room)
        await log.open()
        commits = 0
        with contextlib.suppress(StoreFull):
            for _ in range(100):
                impatient.ticks += 2
                await log.write([Member("raw.a", os.urandom(500_000)), Member("commit.a", b"%d" % commits)])
                commits += 1
        assert 10 < commits < 100
        assert await log.bounds() == (1, 2 * commits)
        assert small_disk.resize("200m")
        impatient.ticks += 2
        assert await log.write([Member("raw.a", b"x"), Member("commit.a", b"y")]) == 2 * commits + 2
        await client.close()


class FakeMonotonic(SystemClock):
    """The machine's clock, with a monotonic time that jumps when told."""

    ticks = 0.0

    def monotonic(self) -> float:
        return self.ticks
