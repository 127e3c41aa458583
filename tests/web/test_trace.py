"""A record is searched for near the end of the log first; its trace tells of consumers what their list does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from sensegate.authority.scope import Role
from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import DAY_US, FakeClock
from sensegate.model import LogEntry, LogMessage
from tests.share.made import NOW, make_batch
from tests.web.serving import Gateway, serving

ENTRIES = 720
"""Two minutes apart: a day."""


async def fill(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fill the log with the spans of a node over a day; return a list to which each later read adds its sequences."""
    clock = FakeClock(NOW)
    filled = MemoryLog(clock)
    for number in range(ENTRIES):
        batch = make_batch([(0, "pm2_5", float(number))], start=clock.now(), seq=np.array([number + 10_000], np.uint64))
        await filled.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])
        await clock.advance(120.0)
    read: list[int] = []

    async def counted(after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        entries = await filled.fetch(after, limit=min(limit, 10), max_bytes=max_bytes)
        read.extend(entry.sequence for entry in entries)
        return entries

    monkeypatch.setattr(gateway.log, "fetch", counted)
    for name in ("bounds", "sequence_at"):
        monkeypatch.setattr(gateway.log, name, getattr(filled, name))
    return read


async def test_a_fresh_record_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id of a node, or by device and time: a few entries are read, not the day before."""
    async with serving(clock=FakeClock(NOW + DAY_US)) as gateway:
        read, token = await fill(gateway, monkeypatch), await gateway.token()

        async def trace(expect: int = 200, **query: str) -> tuple[Any, int]:
            read.clear()
            _, body, _ = await gateway.ask("GET", "/api/v1/trace", token, params=query, expect=expect)
            return body, len(set(read))

        for age, most in ((1, 60), (20, 180), (700, ENTRIES)):
            number = ENTRIES - age
            record = f"4401-0-{number + 10_000:014d}-0"
            body, count = await trace(record=record)
            assert body["record"] == record
            assert count <= most
            stamp = datetime.fromtimestamp(NOW // 1_000_000 + number * 120, UTC).isoformat()
            body, count = await trace(device="gz-air-1", time=stamp)
            assert body["record"] == record
            assert count <= 30, "its time says where it is"
        _, count = await trace(404, record="4401-0-00000000000001-7")
        assert count == ENTRIES, "a day is searched"
        _, count = await trace(404, record="4401-0-00000000000001-7", since="1h")
        assert count <= 40


async def test_deliveries_are_those_that_the_caller_may_see() -> None:
    """Whoever may read the ledger of a part only is not told who reads what elsewhere."""
    async with serving() as gateway:
        batch = make_batch([(0, "pm2_5", 1.0)])
        sequence = await gateway.log.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])
        consumers = gateway.web.deps.consumers
        consumers.add("stranger", "all", "sse").offset = gateway.reader.after(sequence, 0)
        name = f"4401-0-{sequence:014d}-0"
        for where, expected in (("44", 1), (batch.origins.division[0], 0)):
            token = await gateway.token(Role.AUDITOR, where)
            _, body, _ = await gateway.ask("GET", f"/api/v1/trace?record={name}", token, expect=200)
            deliveries = [step for step in body["steps"] if step["step"] == "delivery"]
            assert len(deliveries) == expected
