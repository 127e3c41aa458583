"""A full or failing disk: commits stop before it tears one, and the server is started again after an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from sensegate import metrics
from sensegate.bus import api, consumer, disk, store_watch, streams
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.clock import SystemClock
from sensegate.config import StoreConfig
from sensegate.errors import StoreFull, Unavailable
from sensegate.model import LogMessage
from tests.bus.devices import engine_in, written
from tests.conftest import eventually
from tests.support.small_disk import SmallDisk, mounted

pytestmark = pytest.mark.live

CONSUMER = {
    "durable_name": "ingest-0",
    "ack_policy": "all",
    "deliver_policy": "all",
    "deliver_subject": "_SG.deliver.x",
    "filter_subject": "$MQTT.msgs.>",
}


async def test_an_error_of_the_disk_means_an_orderly_restart(engine: Engine, log: JetStreamLog, tmp_path: Path) -> None:
    """After a failed write the server takes no more for that stream until it is started again; so we do."""
    before = engine.info.pid
    await log.write([LogMessage("raw.a", b"1")])
    with (tmp_path / "engine" / "nats.log").open("a") as file:
        file.write("[1] 2026/01/01 00:00:00.000000 [ERR] JetStream stream 'SG > LOG' critical write error: write x\n")
    async with asyncio.timeout(60):
        await engine.restarted.wait()
    assert engine.info.pid != before
    assert await written(log, LogMessage("raw.a", b"2")) == 2


async def test_room_is_judged_by_the_reserve(tmp_path: Path) -> None:
    """Free space below the reserve is no room."""
    async with engine_in(tmp_path) as engine:
        assert engine.has_room()
    async with engine_in(tmp_path, store=StoreConfig(disk_reserve_bytes=2**60)) as engine:
        assert not engine.has_room()


async def test_a_disk_without_inodes_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server makes files all the time; free bytes alone are no room."""
    monkeypatch.setattr(disk, "inodes_free", lambda _: 10)
    async with engine_in(tmp_path) as engine:
        assert not engine.has_room()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """64 MiB."""
    with mounted(tmp_path / "disk") as disk:
        yield disk


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
                await log.write([LogMessage("raw.a", os.urandom(500_000)), LogMessage("commit.a", b"%d" % commits)])
                commits += 1
        assert 10 < commits < 100
        assert await log.bounds() == (1, 2 * commits)
        assert small_disk.resize("200m")
        impatient.ticks += 2
        assert await log.write([LogMessage("raw.a", b"x"), LogMessage("commit.a", b"y")]) == 2 * commits + 2
        await client.close()


async def takes_writes(gateway: Client, intake: Client, *, timeout_s: float = 0.3) -> bool:
    """Say whether a book and the broker's store acknowledge a write."""
    try:
        await api.request(gateway, "hours.x", os.urandom(6_000), timeout_s=timeout_s)
        await api.request(intake, "$MQTT.msgs.x", os.urandom(6_000), timeout_s=timeout_s)
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize("watched", [True, False])
async def test_a_disk_full_three_times(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> None:
    """Writes go on when there is room again, though the server's log could not say why they did not.

    Control: with nothing but the words of the log they never do.
    """
    monkeypatch.setattr(store_watch, "PERIOD_S", 0.1 if watched else 1e9)
    monkeypatch.setattr(store_watch, "PATIENCE_S", 0.3)
    store = StoreConfig(disk_reserve_bytes=2 * 1024**2)
    restarts = metrics.RESTARTS.labels("engine store")
    before = restarts._value.get()
    async with engine_in(small_disk.path, store=store) as engine:
        gateway, intake = await engine.connect(User.GATEWAY), await engine.connect(User.INTAKE)
        await streams.ensure_streams(gateway, store)
        await streams.ensure_mqtt_streams(intake, store)
        await consumer.ensure(intake, streams.MQTT_MESSAGES, CONSUMER)
        assert await takes_writes(gateway, intake)
        for _ in range(3):
            with small_disk.full():
                assert not await takes_writes(gateway, intake)
        if watched:
            await eventually(lambda: takes_writes(gateway, intake), 30)
            await eventually(lambda: not engine.warnings())
            assert restarts._value.get() > before
        else:
            assert not any([await takes_writes(gateway, intake) for _ in range(4)])
        await gateway.close()
        await intake.close()


class FakeMonotonic(SystemClock):
    """The machine's clock, with a monotonic time that jumps when told."""

    ticks = 0.0

    def monotonic(self) -> float:
        return self.ticks
