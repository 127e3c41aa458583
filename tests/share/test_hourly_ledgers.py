"""The books: each ledger is counted once, whatever dies when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from nats.aio.client import Client

from sensegate.bus.contract import Log
from sensegate.bus.ledger import ENTRY_HOURS_MAX, Ledger
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import Unavailable
from sensegate.model import LogEntry, LogMessage
from sensegate.share import hourly_ledgers
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.reader import LogReader
from tests.conftest import eventually
from tests.share.made import NOW

HOUR = NOW // HOUR_US


def entry(sequence: int, *counts: tuple[int, str, int], node: str = "4401-0") -> LogEntry:
    """Return a ledger entry of (hour, kind, count)."""
    ledger = Ledger()
    for hour, kind, count in counts:
        ledger.add(hour, "gz-1", "mqtt", kind, count)
    return LogEntry(sequence, f"ledger.{node}", ledger.encode(), NOW)


async def opened(hours: Log, clock: FakeClock, epoch: str = "e1") -> tuple[HourlyLedgers, int]:
    """Return books as a new process would open them, and where they go on."""
    books = HourlyLedgers(hours, clock)
    return books, await books.open(epoch)


async def test_sums_by_node_and_hour(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Partitions of a node and spans of the uplink add up under the node."""
    books, at = await opened(memory_log, clock)
    assert at == 0
    books.add(entry(3, (HOUR, "messages", 5), (HOUR - 1, "messages", 2)))
    books.add(entry(7, (HOUR, "messages", 1), node="4401-1"))
    books.add(entry(9, (HOUR, "messages", 10), node="4403"))
    assert books.nodes(HOUR) == ["4401", "4403"]
    assert books.total("4401", HOUR).totals() == {"messages": 6}
    assert books.total("4401", HOUR - 1).totals() == {"messages": 8}
    assert books.total("4403", HOUR).totals() == {"messages": 10}
    assert books.total("4404", HOUR).totals() == {}


async def test_a_restart_counts_nothing_twice(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Sums and position are one write: what was not written comes again, what was written is not taken again."""
    books, _ = await opened(memory_log, clock)
    entries = [entry(number, (HOUR, "messages", number)) for number in (1, 2, 3)]
    books.add(entries[0])
    books.add(entries[1])
    await books.flush()
    books.add(entries[2])
    reopened, at = await opened(memory_log, clock)
    assert at == 2
    for record in entries:
        reopened.add(record)
    assert reopened.total("4401", HOUR).totals() == {"messages": 6}
    await reopened.flush()
    third, at = await opened(memory_log, clock)
    assert (at, third.total("4401", HOUR).totals()) == (3, {"messages": 6})


async def test_a_log_that_has_lost_its_end_is_counted_on_from_there(memory_log: MemoryLog, clock: FakeClock) -> None:
    """The books came further than the log goes now: what follows it is new and counts, whatever its sequence."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(9, (HOUR, "messages", 5)))
    await books.flush()
    reopened = HourlyLedgers(memory_log, clock)
    assert await reopened.open("e1", 4) == 4
    reopened.add(entry(6, (HOUR, "messages", 1)))
    assert reopened.total("4401", HOUR).totals() == {"messages": 6}
    assert await HourlyLedgers(memory_log, clock).open("e1", 9) == 9


@pytest.mark.parametrize("written", [True, False])
async def test_a_write_with_unknown_outcome(memory_log: MemoryLog, clock: FakeClock, *, written: bool) -> None:
    """Whether it was there or not: the next write holds everything once."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(1, (HOUR, "messages", 5)))
    await books.flush()
    books.add(entry(2, (HOUR, "messages", 7)))
    memory_log.fail_next_write(written=written)
    with pytest.raises(Unavailable):
        await books.flush()
    books.add(entry(3, (HOUR, "messages", 1)))
    await books.flush()
    await books.flush()
    reopened, at = await opened(memory_log, clock)
    assert (at, reopened.total("4401", HOUR).totals()) == (3, {"messages": 13})


async def test_counts_that_come_while_writing_are_not_forgotten(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A ledger taken during a flush belongs to the next one."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(1, (HOUR, "messages", 5)))
    flushing = asyncio.create_task(books.flush())
    await asyncio.sleep(0)
    books.add(entry(2, (HOUR, "messages", 1)))
    await flushing
    await books.flush()
    reopened, at = await opened(memory_log, clock)
    assert (at, reopened.total("4401", HOUR).totals()) == (2, {"messages": 6})


async def test_a_flush_that_is_cancelled_forgets_nothing(memory_log: MemoryLog, clock: FakeClock) -> None:
    """The books' task is cancelled with its group and started again in the same process."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(1, (HOUR, "messages", 5)))
    flushing = asyncio.create_task(books.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert flushing.cancelled()
    books.add(entry(2, (HOUR - 1, "messages", 1)))
    await books.flush()
    reopened, at = await opened(memory_log, clock)
    assert (at, reopened.total("4401", HOUR - 1).totals()) == (2, {"messages": 6})


async def test_many_hours_are_packed_and_old_ones_go(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A few hours are open; hours before the window leave memory once they are written."""
    books, _ = await opened(memory_log, clock)
    for number in range(60):
        books.add(entry(number + 1, (HOUR - number, "messages", 1)))
    assert len(books._open) <= 32
    assert books.total("4401", HOUR - 59).totals() == {"messages": 60}
    await books.flush()
    assert {hour for _, hour in books._open} <= {HOUR}
    assert books.total("4401", 0).totals() == {"messages": 49}
    reopened, _ = await opened(memory_log, clock)
    assert reopened.total("4401", HOUR - 48).totals() == {"messages": 49}


async def test_what_comes_late_is_added_to_what_was_written(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A node that was cut for days brings the rest of an hour that has left memory: nothing of before is replaced."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(1, (HOUR, "messages", 5)))
    await books.flush()
    await clock.advance(60 * 3_600)
    books.add(entry(2, (HOUR + 60, "messages", 1)))
    await books.flush()  # forgets the old hour
    assert books.total("4401", HOUR).totals() == {"messages": 1}
    for number in (3, 4):
        books.add(entry(number, (HOUR, "messages", 2)))
        await books.flush()
    books.add(entry(5, (HOUR, "messages", 2)))
    memory_log.fail_next_write(written=True)
    with pytest.raises(Unavailable):
        await books.flush()
    await books.flush()
    await books.flush()
    reopened = HourlyLedgers(memory_log, clock, window_h=96)  # such that the old hour is at hand
    await reopened.open("e1")
    assert reopened.total("4401", HOUR).totals() == {"messages": 12}


async def test_a_late_hour_that_comes_during_a_write_is_merged_too(clock: FakeClock) -> None:
    """While the stored sum of another one is read: its own is not replaced by the new counts alone."""

    class Slow(MemoryLog):
        meanwhile: LogEntry | None = None

        async def last(self, subject: str) -> LogEntry | None:
            entry, self.meanwhile = self.meanwhile, None
            if entry is not None:
                books.add(entry)
            return await super().last(subject)

    log = Slow(clock)
    books, _ = await opened(log, clock)
    books.add(entry(1, (HOUR, "messages", 5), (HOUR + 1, "messages", 7)))
    await books.flush()
    await clock.advance(60 * 3_600)
    books.add(entry(2, (HOUR + 60, "messages", 1)))
    await books.flush()  # forgets the old hours
    books.add(entry(3, (HOUR + 1, "messages", 1)))
    log.meanwhile = entry(4, (HOUR, "messages", 1))
    await books.flush()
    await books.flush()
    reopened = HourlyLedgers(log, clock, window_h=96)
    assert await reopened.open("e1") == 4
    assert [reopened.total("4401", hour, hour + 1).totals() for hour in (HOUR, HOUR + 1)] == [
        {"messages": 6},
        {"messages": 8},
    ]


async def test_hours_far_ahead_leave_memory_and_are_added_up_all_the_same(
    memory_log: MemoryLog, clock: FakeClock
) -> None:
    """A node whose clock is wrong names hours of years to come, which would stay for so long; none is counted anew."""
    books, _ = await opened(memory_log, clock)
    far = HOUR + 100
    for number in range(20):
        books.add(entry(2 * number + 1, (far + number, "messages", 5)))
        await books.flush()
        books.add(entry(2 * number + 2, (far + number, "messages", 1), (HOUR, "messages", 1)))
        await books.flush()
    assert [*books] == [("4401", HOUR)]
    assert [*(await opened(memory_log, clock))[0]] == [("4401", HOUR)]
    await clock.advance(60 * 3_600)
    books.add(entry(50, (far, "messages", 1)))
    await books.flush()
    reopened, _ = await opened(memory_log, clock)
    assert reopened.total("4401", far, far + 1).totals() == {"messages": 7}


async def test_a_ledger_of_very_many_hours_is_passed_by_loudly(memory_log: MemoryLog, clock: FakeClock) -> None:
    """It would not fit into one write, without which no later counts are written either."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(1, *((hour, "messages", 1) for hour in range(HOUR, HOUR + ENTRY_HOURS_MAX + 1))))
    books.add(entry(2, (HOUR, "messages", 2)))
    await books.flush()
    assert books.total("4401", 0).totals() == {"messages": 2}
    books.add(entry(3, *((hour, "messages", 1) for hour in range(HOUR - ENTRY_HOURS_MAX, HOUR))))
    assert books.total("4401", 0).totals() == {"messages": 2 + ENTRY_HOURS_MAX}


class Measured(MemoryLog):
    """A stream whose largest write is known."""

    largest = 0

    async def write(self, messages: Sequence[LogMessage]) -> int:
        self.largest = max(self.largest, len(messages))
        return await super().write(messages)


async def test_a_long_log_is_counted_in_several_writes(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """More node-hours than one write may hold, e.g. after a promotion: each count once, also where a write fails."""
    monkeypatch.setattr(hourly_ledgers, "_CHANGED_MAX", 10)
    log, hours = MemoryLog(clock, epoch="e1"), Measured(clock)

    async def write(number: int) -> None:
        payload = entry(0, (HOUR - number % 40, "messages", 1), (HOUR - number % 7, "values", 1)).payload
        await log.write([LogMessage("raw.x", b""), LogMessage(f"ledger.{4401 + number % 3}-0", payload)])

    for number in range(100):
        await write(number)
    books = HourlyLedgers(hours, clock)
    reader = LogReader(log, clock)
    books.attach(reader)
    task = asyncio.create_task(reader.run(await books.open("e1")))
    try:
        await eventually(lambda: reader.end == 200)
        hours.fail_next_write(written=True)
        with pytest.raises(Unavailable):
            await books.flush()
        for number in range(100, 150):
            await write(number)
        await eventually(lambda: reader.end == 300)
        await books.flush()
        await write(150)
        await eventually(lambda: reader.end == 302)
        await books.flush()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert hours.largest <= 13, "the hours of one ledger more, and the position"
    reopened = HourlyLedgers(hours, clock)
    assert await reopened.open("e1") == 302
    sums = [reopened.total(node, 0).totals() for node in ("4401", "4402", "4403")]
    assert sums == [{"messages": count, "values": count} for count in (51, 50, 50)]
    assert sums == [books.total(node, 0).totals() for node in ("4401", "4402", "4403")]


async def test_totals_are_those_of_the_ledgers(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Totals once asked for are kept up to date: by what comes, packed or late, and after a restart."""
    books, _ = await opened(memory_log, clock)

    def check(books: HourlyLedgers) -> None:
        for node in ("4401", "4403"):
            sums: dict[str, int] = {}
            for counts in books.totals(node, 0).values():
                for kind, count in counts.items():
                    sums[kind] = sums.get(kind, 0) + count
            assert sums == books.total(node, 0).totals()

    check(books)
    for number in range(40):
        books.add(entry(2 * number + 1, (HOUR - number, "messages", 5), (HOUR - number // 2, "values", 2)))
        books.add(entry(2 * number + 2, (HOUR - 1, "messages", 1), node="4403"))
        check(books)
    assert books.totals("4401", HOUR - 1, HOUR) == {HOUR - 1: {"messages": 5, "values": 4}}
    await books.flush()
    check(books)
    await clock.advance(60 * 3_600)
    books.add(entry(100, (HOUR + 60, "messages", 1)))
    await books.flush()
    check(books)
    books.add(entry(101, (HOUR, "messages", 2)))
    check(books)
    await books.flush()  # merges what was stored of the old hour
    check(books)
    reopened = HourlyLedgers(memory_log, clock, window_h=96)
    await reopened.open("e1")
    check(reopened)


async def test_an_hour_of_very_many_devices_is_several_entries(memory_log: MemoryLog, clock: FakeClock) -> None:
    """They are written together, added up when they are read, and replaced as one."""
    whole = Ledger()
    for number in range(50):
        whole.add(HOUR, f"gz-{number * 7919:05}", "mqtt", "messages", number + 1)
    whole.set_places(["gz-00000"], ["440106/eco"])
    books = HourlyLedgers(memory_log, clock, payload_bytes_max=300)
    await books.open("e1")
    for sequence in (1, 2):
        books.add(LogEntry(sequence, "ledger.4401-0", whole.encode(), NOW))
        await books.flush()
        subjects = [entry.subject for entry in await memory_log.fetch(0)]
        assert len(subjects) == len(set(subjects)) > 3
        reopened, at = await opened(memory_log, clock)
        assert at == sequence
        sums = reopened.total("4401", HOUR)
        assert sums.totals() == {"messages": sequence * 1275}
        assert {row.device: row.count for row in sums.rows()} == {
            f"gz-{number * 7919:05}": sequence * (number + 1) for number in range(50)
        }
        assert sums.place_of("gz-00000") == ("440106", "eco")
    roomy = HourlyLedgers(memory_log, clock)
    await roomy.open("e1")
    roomy.add(entry(3, (HOUR, "messages", 1)))
    await roomy.flush()  # one entry holds it all again, what it was in before is empty
    reopened, _ = await opened(memory_log, clock)
    assert reopened.total("4401", HOUR).totals() == {"messages": 2551}


async def test_another_log_starts_anew(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Positions of another life of LOG do not compare; the sums of before stay."""
    books, _ = await opened(memory_log, clock)
    books.add(entry(50, (HOUR, "messages", 5)))
    await books.flush()
    reopened, at = await opened(memory_log, clock, epoch="e2")
    assert at == 0
    reopened.add(entry(1, (HOUR, "messages", 2)))
    assert reopened.total("4401", HOUR).totals() == {"messages": 7}


async def test_damage_is_passed_by_loudly(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A ledger that cannot be read does not stop the others."""
    books, _ = await opened(memory_log, clock)
    books.add(LogEntry(1, "ledger.4401-0", b"damaged", NOW))
    books.add(entry(2, (HOUR, "messages", 2)))
    assert books.total("4401", HOUR).totals() == {"messages": 2}


@pytest.mark.live
async def test_on_the_real_stream(gateway: Client, fake_clock: FakeClock) -> None:
    """The stream LEDGER takes sums and position in one write and gives them back to the next process."""
    for number, expected in ((2, 0), (4, 2)):
        hours = JetStreamLog(gateway, stream="LEDGER")
        await hours.open()
        books, at = await opened(hours, fake_clock)
        assert at == expected
        books.add(entry(number, (HOUR, "messages", number), (HOUR - 1, "messages", 1)))
        books.add(entry(number, (HOUR, "messages", 100)))
        await books.flush()
        assert books.total("4401", HOUR - 1).totals()["messages"] == {2: 3, 4: 8}[number]
        await hours.close()
