"""What two hundred slots cost."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from sensegate.authority.divisions import Divisions
from sensegate.authority.slots import node_slots
from sensegate.bus.engine import Engine
from sensegate.bus.server_conf import NodeSlots
from sensegate.bus.slots import SPARE_SLOTS, province_slots
from sensegate.clock import SystemClock
from sensegate.config import Config, EngineConfig
from sensegate.tiers.link import NodeLinks
from tests.conftest import SMALL, eventually

SLOTS = 200
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb(pid: int | str = "self") -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1024**2


async def started(directory: Path, slots: tuple[str, ...]) -> tuple[Engine, float]:
    """Return a started server and how long its start took."""
    engine = Engine(EngineConfig(), SMALL, directory, name="44", slots=NodeSlots(names=slots))
    began = time.monotonic()
    await engine.start()
    return engine, time.monotonic() - began


@pytest.mark.slow
async def test_two_hundred_slots_cost_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server with 200 accounts starts as soon as one without; a connection in each costs some megabytes."""
    plain, plain_s = await started(tmp_path / "plain", ())
    plain_mb = resident_mb(plain.info.pid)
    await plain.stop()
    engine, start_s = await started(
        tmp_path / "slots", province_slots(f"{number:04d}" for number in range(1, SLOTS + 1 - SPARE_SLOTS))
    )
    try:
        accounts_mb = resident_mb(engine.info.pid)
        gc.collect()
        before_mb = resident_mb()
        links = NodeLinks(engine.connect_slot, SystemClock())
        links.assign(
            {slot: slot for slot in province_slots(f"{number:04d}" for number in range(1, SLOTS + 1 - SPARE_SLOTS))}
        )
        began = time.monotonic()
        task = asyncio.create_task(links.run())
        await eventually(lambda: len(links.connected) == SLOTS, 30)
        open_s = time.monotonic() - began
        server_mb, ours_mb = resident_mb(engine.info.pid), resident_mb() - before_mb
        began = time.monotonic()
        counts = await engine.connection_counts([f"N_{slot}" for slot in links.connected])
        asked_ms = (time.monotonic() - began) * 1e3
        assert counts == {f"N_{slot}": 1 for slot in links.connected}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await engine.stop()
    with capsys.disabled():
        print(
            f"\n{SLOTS} slots: start {start_s:.2f} s (without {plain_s:.2f} s), "
            f"server {accounts_mb - plain_mb:+.1f} MB; "
            f"{SLOTS} connections: {open_s:.2f} s, server {server_mb - accounts_mb:+.1f} MB, "
            f"ours {ours_mb:+.1f} MB; who is connected: {asked_ms:.1f} ms"
        )
    assert start_s < plain_s + 2
    assert accounts_mb - plain_mb < 40
    assert server_mb - accounts_mb < 40
    assert ours_mb < 40


def test_the_slots_of_a_province() -> None:
    """Each prefecture of the province, each configured node, and the spare ones; a node's server has none."""
    centre = Config(role="centre", division="44", directory="x")
    slots = node_slots(centre)
    assert len([slot for slot in slots if slot.isdigit()]) == 21
    assert len(slots) == 21 + SPARE_SLOTS
    assert all(slot in Divisions.load() for slot in slots if slot.isdigit())
    assert node_slots(Config(role="node", division="4401", directory="x")) == ()
