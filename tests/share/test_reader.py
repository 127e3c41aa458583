"""The reader: bounded ring, shared pages, exact judgement of cursors that are too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sensegate import metrics
from sensegate.bus.memory import MemoryLog
from sensegate.bus.timelines import Timelines
from sensegate.bus.unreadable import UNREADABLE
from sensegate.clock import FakeClock
from sensegate.errors import Gone, Unavailable
from sensegate.model import LogEntry, LogMessage
from sensegate.share import cursor, reader
from sensegate.share.cursor import BadCursor
from sensegate.share.delivery import FeedServer, PageOptions, RecordEncoding
from sensegate.share.feeds import ALL_FEED, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.reader import LogReader
from tests.share.made import NOW, make_batch, members

HOUR_S = 3_600
FOREVER_S = 1e6


class CountedLog(MemoryLog):
    """A log that counts how often it is fetched from, and can be away."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, epoch="e1")
        self.fetched: list[int] = []
        self.away = False

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        self.fetched.append(after)
        if self.away:
            raise Unavailable("away")
        await asyncio.sleep(0)
        return await super().fetch(after, limit=limit, max_bytes=max_bytes)


@asynccontextmanager
async def following(
    log: MemoryLog, clock: FakeClock, after: int | None = None, **limits: Any
) -> AsyncIterator[LogReader]:
    """Run a reader."""
    made = LogReader(log, clock, **limits)
    task = asyncio.create_task(made.run(after))
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def commit(log: MemoryLog, value: float = 1.0, rows: int = 3) -> int:
    """Write one commit; return the sequence of its readings."""
    return await log.write(members(make_batch([(0, "pm2_5", value)] * rows))) - 2


def memory_place(sequence: int, stored: int, row: int = cursor.END) -> cursor.Cursor:
    """Return a cursor of `memory_log`."""
    return cursor.after(Timelines.in_memory("e1").timeline_at(sequence), sequence, stored, row)


async def until_live(made: LogReader) -> None:
    """Return once the reader follows the end."""
    async with asyncio.timeout(30):
        while not made._live:
            await asyncio.sleep(0)


# ── cursors that are too old ──────────────────────────────────────────────────────────────────────────


async def test_a_cursor_of_another_log_is_gone(memory_log: MemoryLog, clock: FakeClock) -> None:
    """410 with the first cursor that is valid here."""
    await commit(memory_log)
    made = LogReader(memory_log, clock)
    with pytest.raises(Gone) as gone:
        await made.resume(str(cursor.after(b"absent", 1, NOW)))
    assert (await made.resume(gone.value.first)).sequence == 0


async def test_a_cursor_behind_the_retention_is_gone(memory_log: MemoryLog, clock: FakeClock) -> None:
    """While all readings after it are there it is good; once one has expired it is 410; `first` misses nothing."""
    first = await commit(memory_log, 1.0)
    place = str(memory_place(first, clock.now(), 0))
    await clock.advance(2 * HOUR_S)
    second = await commit(memory_log, 2.0)
    made = LogReader(memory_log, clock)
    await clock.advance(165.9 * HOUR_S)
    assert (await made.resume(place)).sequence == first
    await clock.advance(0.5 * HOUR_S)
    with pytest.raises(Gone) as gone:
        await made.resume(place)
    after = await made.resume(gone.value.first)
    span = await made.read(after.sequence)
    assert [slot.sequence for slot in span.entries] == [second]


async def test_one_who_reads_on_too_slowly_is_told(
    memory_log: MemoryLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open stream, or pages of a subscriber that is pushed to, skip nothing in silence when expiry overtakes them.

    What is in memory still is given all the same.
    """
    monkeypatch.setattr(reader, "_PAGE_ENTRIES", 3)
    for value in (1.0, 2.0, 3.0, 4.0):
        await commit(memory_log, value, 1)
        await clock.advance(HOUR_S)
    everything = FeedSelection(grade_max=3)

    async def read(serving: FeedServer, place: cursor.Cursor, values: list[float]) -> cursor.Cursor:
        page = await serving.page(everything, place, RecordEncoding.NDJSON, 1, 0.0, PageOptions(exact=True))
        values += [msgspec.json.decode(line)["value"] for line in page.body.splitlines()]
        return cursor.parse(page.next)

    async with following(memory_log, clock, 0) as roomy, following(memory_log, clock, 0, ring_bytes_max=1) as small:
        await until_live(roomy)
        await until_live(small)
        values: list[float] = []
        places = [await read(FeedServer(made), await made.first(), values) for made in (roomy, small)]
        stream = FeedServer(small).stream(lambda: Admission(ALL_FEED, everything), await small.first(), heartbeat_s=1.0)
        assert b'"value":1.0' in (await anext(stream)).body
        await clock.advance(166.5 * HOUR_S)
        await read(FeedServer(roomy), places[0], values)
        assert values == [1.0, 1.0, 2.0]
        with pytest.raises(Gone):
            await read(FeedServer(small), places[1], values)
        with pytest.raises(Gone):
            await anext(stream)


async def test_raw_expires_earlier_and_takes_no_cursor_with_it(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Holes of raw messages and replaced commit records are no loss of readings."""
    start = str(await LogReader(memory_log, clock).first())
    for _ in range(3):
        await commit(memory_log)
        await clock.advance(20 * HOUR_S)
    assert (await memory_log.bounds())[0] == 1
    await clock.advance(60 * HOUR_S)
    assert (await memory_log.bounds())[0] == 2
    made = LogReader(memory_log, clock)
    assert (await made.resume(start)).sequence == 0


async def test_a_quiet_log_keeps_its_last_cursor(memory_log: MemoryLog, clock: FakeClock) -> None:
    """`next` of the last page stays good for ever: nothing was stored after it.

    A record's own cursor cannot tell the rest of its commit from readings that have expired: 410, and `first` is good.
    """
    await commit(memory_log)
    last = (await memory_log.bounds())[1]
    await clock.advance(1_000 * HOUR_S)
    made = LogReader(memory_log, clock)
    assert (await made.resume(str(memory_place(last, NOW)))).sequence == last
    with pytest.raises(Gone) as gone:
        await made.resume(str(memory_place(last - 2, NOW, 2)))
    await made.resume(gone.value.first)


async def test_a_cursor_from_the_future_is_bad(memory_log: MemoryLog, clock: FakeClock) -> None:
    """It lies after the end: not ours."""
    await commit(memory_log)
    with pytest.raises(BadCursor):
        await LogReader(memory_log, clock).resume(str(memory_place(99, NOW)))


class HeldLog(MemoryLog):
    """A log of which no entry is visible, as of an active centre before its standby has asked again."""

    settled = True

    @property
    def is_settled(self) -> bool:
        return self.settled

    async def bounds(self) -> tuple[int, int]:
        first, _ = await super().bounds()
        return first, first - 1


async def test_a_cursor_of_what_is_stored_and_not_yet_visible_is_good(clock: FakeClock) -> None:
    """An active centre that was restarted does not know what was confirmed: a subscriber waits, and is not refused."""
    log = HeldLog(clock, epoch="e1")
    await commit(log)
    last = await log.stored_end()
    made = LogReader(log, clock)
    assert (await made.resume(str(memory_place(last, NOW)))).sequence == last
    with pytest.raises(BadCursor):
        await made.resume(str(memory_place(last + 1, NOW)))


async def test_a_centre_that_has_not_heard_the_other_judges_no_cursor_that_it_does_not_know(clock: FakeClock) -> None:
    """The other one may be active in a later term: the subscriber is told to try again, not that records are lost."""
    log = HeldLog(clock, epoch="e1")
    await commit(log)
    made = LogReader(log, clock)
    elsewhere = cursor.after(Timelines.in_memory("e2").timeline_at(1), 1, NOW)
    later = memory_place(await log.stored_end() + 1, NOW)
    log.settled = False
    for position in (elsewhere, later):
        with pytest.raises(Unavailable, match="has not heard the other one"):
            await made.resume(str(position))
    log.settled = True
    with pytest.raises(Gone):
        await made.resume(str(elsewhere))


async def test_a_clock_that_is_set_back_spoils_no_cursor(memory_log: MemoryLog, clock: FakeClock) -> None:
    """What was stored before by a clock that was ahead is no sign of another log."""
    await commit(memory_log)
    clock._now -= HOUR_S * 1_000_000
    last = await memory_log.write(
        [LogMessage("ledger.4401-0", b"x", 168), LogMessage("commit.4401-0", b"{}", rollup=True)]
    )
    async with following(memory_log, clock, 0) as made:
        await until_live(made)
        for place in (memory_place(last, clock.now()), await made.since(clock.now()), await made.first()):
            assert await made.resume(str(place)) == place


async def test_first_is_not_about_to_expire(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A start that would be overtaken by expiry within minutes is not offered."""
    await commit(memory_log)
    await clock.advance(HOUR_S)
    second = await commit(memory_log)
    await clock.advance(167 * HOUR_S - 60)
    made = LogReader(memory_log, clock)
    assert (await made.first()).sequence == second - 1


# ── ring and pages ────────────────────────────────────────────────────────────────────────────────────


async def test_live_entries_come_from_the_ring(clock: FakeClock) -> None:
    """Many readers of the same live entries cost one fetch and one decoding."""
    log = CountedLog(clock)
    async with following(log, clock) as made:
        await until_live(made)
        sequence = await commit(log)
        assert await made.wait(0, 5)
        spans = [await made.read(0) for _ in range(10)]
        assert len({id(span.entries[0].batch) for span in spans}) == 1
        assert spans[0].entries[0].sequence == sequence
        fetched = len(log.fetched)
        await made.read(0)
        assert len(log.fetched) == fetched


async def test_at_the_end_of_the_log_each_commit_costs_one_fetch(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short page ends at the end of the log: the reader waits for the next commit, and does not ask again.

    Of a page that its limits may have cut, the rest is fetched at once.
    """
    log = CountedLog(clock)
    async with following(log, clock) as made:
        await until_live(made)
        for _ in range(5):
            before = len(log.fetched)
            end = await commit(log) + 2
            assert await made.wait(end - 1, 5)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (made.end, len(log.fetched) - before) == (end, 1)
        monkeypatch.setattr(reader, "_PAGE_ENTRIES", 2)
        end = await commit(log) + 2
        assert await made.wait(end - 1, 5)


async def test_what_open_streams_have_not_delivered_is_known(clock: FakeClock) -> None:
    """A stream counts while it needs processor time, not while its consumer has the events or where none is open."""
    log = CountedLog(clock)
    end = await commit(log) + 2
    async with following(log, clock, 0) as made:
        await until_live(made)
        serving = FeedServer(made)
        assert serving.has_delivered(end + 100)
        admission = Admission(ALL_FEED, FeedSelection(grade_max=3))
        stream = serving.stream(lambda: admission, memory_place(end, NOW), heartbeat_s=FOREVER_S)
        waiting = asyncio.create_task(anext(stream))
        async with asyncio.timeout(30):
            while serving.has_delivered(end + 1):
                await asyncio.sleep(0)
        assert serving.has_delivered(end)
        later = await commit(log) + 2
        assert (await asyncio.wait_for(waiting, 30)).count == 3
        assert serving.has_delivered(later + 100)
        await stream.aclose()


class SlowLog(MemoryLog):
    """A log whose entries after a sequence are stored and not yet read here, or not yet visible."""

    def __init__(self, clock: FakeClock, *, hides: bool) -> None:
        super().__init__(clock, epoch="e1")
        self.hides = hides
        self.held_at: int | None = None

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        entries = await super().fetch(after, limit=limit, max_bytes=max_bytes)
        return [entry for entry in entries if self.held_at is None or entry.sequence <= self.held_at]

    async def bounds(self) -> tuple[int, int]:
        first, last = await super().bounds()
        return first, last if self.held_at is None or not self.hides else min(last, self.held_at)

    async def changed(self, after: int, timeout_s: float) -> bool:
        await asyncio.sleep(0)
        return await super().changed(after, timeout_s)


@pytest.mark.parametrize("hides", [False, True])
async def test_what_is_stored_and_not_yet_read_is_not_left_out(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, *, hides: bool
) -> None:
    """A request up to a time is complete only once all that was stored before it is read."""
    monkeypatch.setattr("sensegate.share.delivery._CATCH_UP_S", 0.01)
    log = SlowLog(clock, hides=hides)
    selection = FeedSelection(grade_max=3)
    async with following(log, clock) as made:
        await until_live(made)
        serving = FeedServer(made)
        log.held_at = 0
        await commit(log)
        await clock.advance(1)
        options, start = PageOptions(until=clock.now()), memory_place(0, NOW)
        page = await serving.page(selection, start, RecordEncoding.JSON, 10, 0.0, options)
        assert (page.count, page.next) == (0, str(start))
        log.held_at = None
        await made.wait(2, 30)
        page = await serving.page(selection, cursor.parse(page.next), RecordEncoding.JSON, 10, 0.0, options)
        assert page.count == 3
        page = await serving.page(selection, cursor.parse(page.next), RecordEncoding.JSON, 10, 0.0, options)
        assert (page.count, page.next) == (0, "")


async def test_a_page_back_has_what_is_stored_and_not_yet_read(clock: FakeClock) -> None:
    """A reader that lags behind costs a page of the newest records none of them, which no later page would have."""
    log = MemoryLog(clock, epoch="e1")
    for value in (1.0, 2.0):
        await commit(log, value, 1)
    async with following(log, clock, 0) as made:
        await until_live(made)
    # It has stopped, as one that gets no processor time.
    for value in (3.0, 4.0):
        await commit(log, value, 1)
    _, last = await log.bounds()
    assert made.end < last, "negative control"
    everything = FeedSelection(grade_max=3)
    page = await FeedServer(made).page_back(everything, made.after(last, 0), RecordEncoding.JSON, 3)
    records = msgspec.json.decode(page.body)["records"]
    assert [record["value"] for record in records] == [4.0, 3.0, 2.0]
    page = await FeedServer(made).page_back(everything, cursor.parse(page.next), RecordEncoding.JSON, 3)
    assert [record["value"] for record in msgspec.json.decode(page.body)["records"]] == [1.0]


async def test_the_ring_is_bounded_and_history_fills_in(clock: FakeClock) -> None:
    """What the ring has let go comes from the log; nothing is missing in between."""
    log = CountedLog(clock)
    async with following(log, clock, ring_bytes_max=20_000) as made:
        await until_live(made)
        written = [await commit(log, float(number)) for number in range(60)]
        assert await made.wait(written[-1], 5)
        assert made._ring_bytes <= 20_000
        assert made._ring_start > written[0]
        results, at = [], 0
        while (span := await made.read(at)).end > at:
            results += [slot.sequence for slot in span.entries]
            at = span.end
        assert results == written


async def test_equal_readers_of_history_share_a_fetch(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of history are fetched once for all who ask for them at about the same time."""
    monkeypatch.setattr(reader, "_PAGE_ENTRIES", 8)
    log = CountedLog(clock)
    for number in range(10):
        await commit(log, float(number))
    made = LogReader(log, clock)
    spans = await asyncio.gather(*(made.read(0) for _ in range(50)))
    assert len({id(span) for span in spans}) == 1
    await made.read(0)
    assert log.fetched == [0]


async def test_a_reader_that_is_begun_anew_gives_nothing_twice(clock: FakeClock) -> None:
    """Its task is cancelled with its group and started again in the same process."""
    log = CountedLog(clock)
    made = LogReader(log, clock)
    for _ in range(2):
        task = asyncio.create_task(made.run(0))
        sequence = await commit(log)
        async with asyncio.timeout(30):
            while made.end < sequence or not made._live:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    sequences = [slot.sequence for slot in (await made.read(0)).entries]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == 2


async def test_a_lost_log_is_waited_out(clock: FakeClock) -> None:
    """While the log is away nothing is read and nothing is skipped; then it goes on."""
    log = CountedLog(clock)
    async with following(log, clock) as made:
        await until_live(made)
        log.away = True
        sequence = await commit(log)
        async with asyncio.timeout(30):
            while made._live:
                await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await made.read(0)
        log.away = False
        await clock.advance(1)
        assert await made.wait(0, 5)
        assert [slot.sequence for slot in (await made.read(0)).entries] == [sequence]


async def test_an_entry_that_cannot_be_read_is_passed_over_and_told(memory_log: MemoryLog, clock: FakeClock) -> None:
    """It gives no row and ends no feed; it is counted and remembered with its sequence."""
    UNREADABLE.remove(1)
    await memory_log.write([LogMessage("readings.4401.440106.1", b"damaged", 168)])
    before = metrics.REGISTRY.get_sample_value("sensegate_log_unreadable_total", {"reader": "feed"}) or 0
    span = await LogReader(memory_log, clock).read(0)
    assert len(span.entries[0].batch) == 0
    assert metrics.REGISTRY.get_sample_value("sensegate_log_unreadable_total", {"reader": "feed"}) == before + 1
    (entry,) = [entry for entry in UNREADABLE.all() if entry.subject == "readings.4401.440106.1"]
    assert (entry.sequence, entry.readers) == (1, ("feed",))
    UNREADABLE.remove(1)


async def test_ledgers_are_handed_on_from_the_place_asked_for(clock: FakeClock) -> None:
    """Each ledger entry after the place, once, in order."""
    log = CountedLog(clock)
    for number in range(4):
        await commit(log, float(number))
    results: list[int] = []
    made = LogReader(log, clock)
    made.on_ledger.append(lambda entry: results.append(entry.sequence))
    task = asyncio.create_task(made.run(4))
    await until_live(made)
    assert results == [7, 11, 15]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
