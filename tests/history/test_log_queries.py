"""Without a history the days of the log are answered, as the history would, and errors say what to install."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.bus.names import READINGS
from sensegate.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, FakeClock
from sensegate.errors import ConfigError, NotFound, TooMuch
from sensegate.history import log_queries
from sensegate.history.log_queries import LogQueries
from sensegate.history.reader import FORMS, HistoryReader, HistoryRequest
from sensegate.model import LogMessage
from sensegate.share import reader as share_reader
from sensegate.share.feeds import Circle, FeedFilter
from sensegate.share.reader import EntryRange, LogReader
from tests.history.made import KEEP_ALL
from tests.history.past import EVERYTHING, MASK, PLACES, READER, Past
from tests.share.made import NOW, make_batch
from tests.support.memory_sharing import sharing_in_memory


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[tuple[Past, HistoryReader]]:
    """A log with late readings and revisions, its history, and a reader that has the log only."""
    made = Past(tmp_path)
    await made.sharing.open()
    made.following = asyncio.create_task(made.sink.run())
    tasks = [made.following, asyncio.create_task(made.sharing.reader.run(0))]
    rows = [
        (place, name, float(place + number))
        for number in range(12)
        for place in range(len(PLACES))
        for name in ("pm2_5", "air_temperature#2")
    ]
    batches = [make_batch(rows, places=PLACES, start=NOW + hour * HOUR_US) for hour in (0, 1, 3, 2)]
    once, twice = (
        make_batch([(0, "pm2_5", value)], places=PLACES, start=NOW, revision=np.array([number], np.uint8))
        for number, value in ((1, 111.0), (2, 222.0))
    )
    await made.write(*batches, once, twice)
    queries = LogQueries(made.sharing.reader, made.sharing.server.masks, KEEP_ALL)
    yield made, HistoryReader(queries, made.sharing, made.sink.drop)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def records_of(reader: HistoryReader, wanted: FeedFilter, limit: int, **more: Any) -> list[dict[str, Any]]:
    """Return the readings of a request, page after page."""
    records: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await reader.page(READER, HistoryRequest("all", wanted, after, **more), form="json", limit=limit)
        records += [
            {name: value for name, value in record.items() if name != "channel" or value}
            for record in json.loads(page.body)["records"]
        ]
        if not (after := page.next):
            return records


@pytest.mark.parametrize("mask", [None, MASK])
async def test_the_log_answers_as_the_history(past: tuple[Past, HistoryReader], mask: Any) -> None:
    """The same records in the same order: pages, both directions, revisions, conditions, plots, masks."""
    made, of_log = past
    if mask:
        await made.grant(mask=mask)
    for wanted, limit, more in (
        (EVERYTHING, 1_000, {}),
        (EVERYTHING, 37, {"descending": True}),
        (EVERYTHING, 37, {"revisions": True}),
        (replace(EVERYTHING, begin=NOW + HOUR_US, end=NOW + 2 * HOUR_US, devices=("d-1", "d-2")), 11, {}),
        (replace(EVERYTHING, near=Circle(113.1, 23.0, 11_000)), 100, {}),
        (replace(EVERYTHING, begin=NOW - 3 * DAY_US, end=NOW - 2 * DAY_US), 10, {}),
    ):
        expected = await records_of(made.history, wanted, limit, **more)
        assert await records_of(of_log, wanted, limit, **more) == expected, (wanted, more)
        assert bool(expected) or (wanted.end or 0) < NOW or (mask and (wanted.devices or wanted.near))
    for method in ("minmax", "lttb"):
        pages = [
            await reader.samples(READER, HistoryRequest("all", EVERYTHING), form="json", points=10, method=method)
            for reader in (made.history, of_log)
        ]
        assert pages[0].count == pages[1].count > 0
        first, second = ({record["id"] for record in json.loads(page.body)["records"]} for page in pages)
        # Among equal masked values and times either one may be kept.
        assert mask or first == second


async def test_every_form_is_answered(past: tuple[Past, HistoryReader]) -> None:
    """As by the history."""
    for form in FORMS:
        page = await past[1].page(READER, HistoryRequest("all", EVERYTHING), form=form, limit=50)
        assert page.count == 50


async def test_what_the_log_cannot_answer(past: tuple[Past, HistoryReader], monkeypatch: pytest.MonkeyPatch) -> None:
    """Aggregates, a period before the log's first entry, and too much: errors with what to install or to narrow."""
    made, of_log = past
    queries = of_log.queries
    with pytest.raises(NotFound, match=r"sensegate\[history\]"):
        await queries.aggregate(None, 0, 1, None)  # type: ignore[arg-type] # it looks at none of them
    monkeypatch.setattr(queries, "_config", replace(KEEP_ALL, query_rows_max=1_000))
    assert await records_of(of_log, replace(EVERYTHING, end=NOW + HOUR_US), 1_000)
    monkeypatch.setattr(queries, "_config", replace(KEEP_ALL, query_rows_max=10))
    with pytest.raises(TooMuch, match="shorter period"):
        await records_of(of_log, EVERYTHING, 5)
    monkeypatch.undo()
    first, _ = await made.log.bounds()
    entries = await made.log.fetch(0, limit=1)
    assert entries[0].subject.startswith(READINGS)
    monkeypatch.setattr(made.log, "bounds", lambda: _expired(first + 1, entries[0].sequence + 5))
    with pytest.raises(ConfigError, match=r"from: .*install sensegate\[history\]"):
        await records_of(of_log, EVERYTHING, 5)


async def _expired(first: int, last: int) -> tuple[int, int]:
    return first, last


class CountedReader(LogReader):
    """A reader that notes where each read starts; a read after `reads_max` of them hangs."""

    starts: list[int]
    reads_max = 100

    async def read(self, after: int) -> EntryRange:
        self.starts.append(after)
        if len(self.starts) > self.reads_max:
            await asyncio.Event().wait()
        return await super().read(after)


class Minutes:
    """A log of readings that arrived one after another."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.log = MemoryLog(self.clock)
        self.reader = CountedReader(self.log, self.clock)
        self.reader.starts = []

    async def write(self, ahead: int = 0) -> None:
        """Commit a reading whose time is ahead of its arrival."""
        batch = make_batch([(0, "pm2_5", float(ahead))], places=PLACES, start=self.clock.now() + ahead)
        await self.log.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])

    async def reader_of_history(self, **limits: Any) -> HistoryReader:
        """Return a reader that has the log only."""
        sharing = sharing_in_memory(self.reader, self.clock)
        await sharing.open()
        queries = LogQueries(self.reader, sharing.server.masks, replace(KEEP_ALL, **limits))

        async def drop(_division: str) -> int:
            return 0

        return HistoryReader(queries, sharing, drop)


async def test_a_short_period_reads_little_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the day before it; what a clock that is far ahead may have put there is missing, and the answer says so."""
    monkeypatch.setattr(share_reader, "_CATCH_UP_S", 0.0)
    made = Minutes()
    await made.write(ahead=HOUR_US)
    for number in range(360):
        await made.write(ahead=4 * MINUTE_US if number == 340 else 0)
        await made.clock.advance(10.0)
    of_log = await made.reader_of_history()
    begin = NOW + HOUR_US - MINUTE_US
    request = HistoryRequest("all", FeedFilter(begin=begin, end=begin + 10 * MINUTE_US))
    for entries, aheads, searched_from in (
        (4_096, [4 * MINUTE_US, HOUR_US], None),
        (10, [4 * MINUTE_US], begin - 5 * MINUTE_US - 100_000_000),
    ):
        monkeypatch.setattr(log_queries, "_AHEAD_ENTRIES", entries)
        made.reader.starts.clear()
        page = await of_log.page(READER, request, form="json", limit=1_000)
        values = [record["value"] for record in json.loads(page.body)["records"]]
        assert sorted(value for value in values if value) == aheads
        assert len(values) - len(aheads) == 6, "control: those of right clocks"
        assert page.searched_from == searched_from
        assert (await of_log.samples(READER, request, form="json", points=100, method="minmax")).searched_from == (
            searched_from
        )
        assert made.reader.starts[0] == (0 if searched_from is None else 361 - 6 - 30 - 10)


async def test_too_much_says_from_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `from` that is then answered in the same time; without one in the period only what to install."""
    monkeypatch.setattr(share_reader, "_CATCH_UP_S", 0.0)
    monkeypatch.setattr(share_reader, "_PAGE_ENTRIES", 50)
    monkeypatch.setattr(log_queries, "_AHEAD_ENTRIES", 10)
    made = Minutes()
    for _ in range(300):
        await made.write()
        await made.clock.advance(10.0)
    of_log = await made.reader_of_history(query_timeout_s=0.5)
    made.reader.reads_max, end = 2, made.clock.now()
    with pytest.raises(TooMuch, match=r"give a `from` after 2026-01-01T00:48:10\.000000Z, or set history") as refused:
        await of_log.page(READER, HistoryRequest("all", FeedFilter(begin=NOW, end=end)), form="json", limit=5)
    assert "give a later" not in str(refused.value)
    made.reader.starts.clear()
    made.reader.reads_max = 3  # the third is empty
    later = FeedFilter(begin=NOW + 2_890 * SECOND_US, end=end)
    page = await of_log.page(READER, HistoryRequest("all", later), form="json", limit=1_000)
    assert page.count == 11
    made.reader.starts.clear()
    made.reader.reads_max = 0
    with pytest.raises(TooMuch, match=r"in 0\.5 s; set history\.enabled"):
        await of_log.page(READER, HistoryRequest("all", later), form="json", limit=5)
