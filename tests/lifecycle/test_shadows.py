"""Shadows: what waits for them is bounded, and they skip the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensegate.authority.scope import scope
from sensegate.bus.memory import MemoryLog
from sensegate.lifecycle import comparisons
from sensegate.lifecycle.comparisons import VersionComparisons
from sensegate.lifecycle.jobs import Jobs
from sensegate.model import Message
from tests.conftest import eventually
from tests.support.release_office import CITY, NAME, Office


class Counted:
    """A comparison that counts."""

    def __init__(self) -> None:
        self.messages = 0

    def add(self, messages: Sequence[Message]) -> None:
        self.messages += len(messages)

    def report(self, most: int = 1_000) -> Any:
        return min(self.messages, most)


async def test_large_messages_wait_within_a_limit_of_bytes(tmp_path: Path) -> None:
    """Messages of a megabyte each would take twenty gigabytes before their number is too large."""
    office = Office(tmp_path)
    await office.released(1)
    await office.proposed(2)
    await office.releases.shadow(NAME, 2, by=CITY, target=scope("4401"))
    shadows = VersionComparisons(
        office.releases,
        Jobs(office.clock),
        MemoryLog(office.clock),
        office.clock,
        partition="4401-0",
        compare=lambda *_: Counted(),
    )
    running = asyncio.create_task(shadows.run())
    await eventually(lambda: shadows._shadow_runs)
    payload = bytes(1024**2)
    fitting = comparisons.WAITING_BYTES_MAX // len(payload)
    for _ in range(2):
        shadows.submit([Message("acme/d1/up", payload, 0, number) for number in range(fitting + 8)])
        assert len(shadows._waiting) == fitting
        while shadows._waiting:
            await asyncio.to_thread(int)
            await office.clock.advance(1)
    assert shadows.shadow(NAME)[1] == 16
    running.cancel()
