"""What every `bus.contract.Log` promises; the fake and the real one pass the same suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.bus import streams
from sensegate.bus.contract import Log
from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.config import EngineConfig, StoreConfig
from sensegate.errors import EngineError, Fenced, StoreFull
from sensegate.model import LogMessage

MIB = 1024**2


@pytest.fixture(params=["memory", pytest.param("jetstream", marks=pytest.mark.live)])
async def any_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    """An empty log with room for 4 MiB."""
    if request.param == "memory":
        yield MemoryLog(bytes_max=4 * MIB)
        return
    store = StoreConfig(log_bytes=4 * MIB, intake_bytes=MIB, ledger_bytes=MIB, registry_bytes=MIB)
    async with Engine(EngineConfig(), store, tmp_path, name="4401") as engine:
        client = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(client, store)
        log = JetStreamLog(client)
        await log.open()
        yield log
        await log.close()
        await client.close()


def commit(number: int, *, expect: int | None = None, readings: int = 2) -> list[LogMessage]:
    """A commit as `persist` makes it: some readings, then the record that replaces the last."""
    record = LogMessage("commit.4401-0", b"commit %d" % number, rollup=True, expect=expect)
    return [*(LogMessage("readings.4401.440106.1", b"%d" % number, ttl_h=168) for _ in range(readings)), record]


async def test_an_empty_log_has_nothing(any_log: Log) -> None:
    """Bounds of an empty log are (last + 1, last); nothing is last, fetched or waited for."""
    assert await any_log.bounds() == (1, 0)
    assert await any_log.fetch(0) == []
    assert await any_log.last("commit.4401-0") is None
    assert await any_log.sequence_at(0) == 1
    assert not await any_log.changed(0, 0.01)
    assert any_log.epoch


async def test_an_entry_says_how_it_was_written(any_log: Log) -> None:
    """Its lifetime, whether it replaced others, and whether its write ends with it: a copy of the log needs these."""
    await any_log.write(commit(1))
    await any_log.write([LogMessage("seen.4401-0", b"", ttl_h=27)])
    last = await any_log.last("commit.4401-0")
    assert [(entry.ttl_h, entry.rollup, entry.ends_write) for entry in await any_log.fetch(0)] == [
        (168, False, False),
        (168, False, False),
        (0, True, True),
        (27, False, True),
    ]
    assert last is not None
    assert (last.ttl_h, last.rollup, last.ends_write) == (0, True, True)


async def test_members_are_consecutive_and_the_last_is_told(any_log: Log) -> None:
    """`write` returns the sequence of the last member; the members have those before it, in order."""
    assert await any_log.write(commit(1)) == 3
    assert await any_log.write(commit(2)) == 6
    entries = await any_log.fetch(0)
    assert [(entry.sequence, entry.payload) for entry in entries] == [
        (1, b"1"),
        (2, b"1"),
        (4, b"2"),
        (5, b"2"),
        (6, b"commit 2"),
    ]
    assert await any_log.bounds() == (1, 6)
    assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)


async def test_a_rollup_replaces_earlier_messages_of_its_subject(any_log: Log) -> None:
    """Only the last commit record stays; other partitions' records are untouched."""
    await any_log.write([LogMessage("commit.4401-1", b"other", rollup=True)])
    for number in range(3):
        await any_log.write(commit(number))
    last = await any_log.last("commit.4401-0")
    assert last is not None
    assert last.payload == b"commit 2"
    assert [entry.payload for entry in await any_log.fetch(0) if entry.subject.startswith("commit.")] == [
        b"other",
        b"commit 2",
    ]


async def test_a_wrong_expectation_refuses_the_whole_batch(any_log: Log) -> None:
    """A replaced worker writes nothing, whichever member carries the expectation."""
    last = await any_log.write(commit(1, expect=0))
    with pytest.raises(Fenced):
        await any_log.write(commit(2, expect=last - 1))
    with pytest.raises(Fenced):
        await any_log.write([LogMessage("commit.4401-0", b"", expect=0), LogMessage("raw.4401-0", b"x")])
    with pytest.raises(Fenced):
        await any_log.write(
            [LogMessage("raw.4401-0", b"x"), LogMessage("commit.none", b"", expect=7), *commit(3, expect=last)]
        )
    assert await any_log.bounds() == (1, last)
    assert await any_log.write(commit(2, expect=last)) == last + 3


async def test_expectations_of_several_subjects_hold_together(any_log: Log) -> None:
    """Two lanes' records in one batch, each with its own expectation."""

    def lanes(live: int, backlog: int) -> list[LogMessage]:
        return [
            LogMessage("commit.4403.live", b"live", rollup=True, expect=live),
            LogMessage("commit.4403.backlog", b"backlog", rollup=True, expect=backlog),
        ]

    assert await any_log.write(lanes(0, 0)) == 2
    with pytest.raises(Fenced):
        await any_log.write(lanes(1, 1))
    assert await any_log.write(lanes(1, 2)) == 4


async def test_a_full_log_refuses_the_whole_batch(any_log: Log) -> None:
    """Nothing of a batch that does not fit is stored, and nothing older is forgotten."""
    block = [LogMessage("raw.4401-0", b"x" * (MIB // 2), ttl_h=72) for _ in range(3)]
    await any_log.write([*block, *commit(1)])
    await any_log.write([*block, *commit(2)])
    bounds = await any_log.bounds()
    with pytest.raises(StoreFull):
        await any_log.write([*block, *commit(3)])
    assert await any_log.bounds() == bounds
    last = await any_log.last("commit.4401-0")
    assert last is not None
    assert last.payload == b"commit 2"


async def test_fetch_is_bounded_and_goes_on(any_log: Log) -> None:
    """Pages by number and by bytes give everything once; a message larger than `max_bytes` still comes, alone."""
    for number in range(20):
        await any_log.write(commit(number, readings=5))
    whole = await any_log.fetch(0, limit=1000)
    assert len(whole) == 101
    for limits in ({"limit": 7}, {"limit": 1000, "max_bytes": 1}, {"limit": 1000, "max_bytes": 20}):
        results, after = [], 0
        while page := await any_log.fetch(after, **limits):
            assert len(page) <= limits["limit"]
            results += page
            after = page[-1].sequence
        assert results == whole


async def test_sequence_at_finds_the_first_at_or_after_a_time(any_log: Log) -> None:
    """By time of storing; beyond the end it is last + 1."""
    await any_log.write(commit(1))
    entries = await any_log.fetch(0)
    assert await any_log.sequence_at(entries[0].time) == 1
    assert await any_log.sequence_at(0) == 1
    assert await any_log.sequence_at(entries[-1].time + 60_000_000) == 4
    year_2300 = 10_413_792_000_000_000
    for time, sequence in ((-(2**62), 1), (-1, 1), (year_2300, 4), (2**62, 4)):
        assert await any_log.sequence_at(time) == sequence, "of any year"


async def test_changed_wakes_on_a_write(any_log: Log) -> None:
    """A waiter returns as soon as there is an entry after its place, at once if there is one already."""
    waiter = asyncio.create_task(any_log.changed(0, 600.0))
    await any_log.write(commit(1))
    async with asyncio.timeout(60):
        assert await waiter
        assert await any_log.changed(2, 600.0)
    assert not await any_log.changed(3, 0.01)


async def test_an_empty_commit_is_a_mistake(any_log: Log) -> None:
    """There is no batch of nothing."""
    with pytest.raises(EngineError):
        await any_log.write([])
