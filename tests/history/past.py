"""A log, its history and a reader, for the tests of queries."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import DAY_US, SystemClock
from sensegate.history.aggregates import Aggregate
from sensegate.history.engine import HistoryEngine
from sensegate.history.query import HistoryQueries
from sensegate.history.reader import HistoryReader, HistoryRequest
from sensegate.history.sink import HistorySink
from sensegate.history.windows import Windows
from sensegate.model import LogMessage
from sensegate.share.feeds import FeedFilter
from sensegate.share.masks import Mask, Rounding
from sensegate.share.reader import LogReader
from sensegate.share.sharing import FeedRequest
from tests.history.made import KEEP_ALL, open_store
from tests.share.made import NOW, Place, grant_record
from tests.support.memory_sharing import sharing_in_memory

READER = Principal("reader", Role.SUBSCRIBER, scope("44"))
PLACES = [
    *(
        Place(f"d-{number}", "440106" if number % 2 else "440304", lon=113 + number / 10, lat=23.0)
        for number in range(5)
    ),
    Place("d-5", "440106", lon=math.nan, lat=math.nan),
]
EVERYTHING = FeedFilter(begin=NOW - DAY_US, end=NOW + 3 * DAY_US)
MASK = Mask(
    drop=("air_temperature",),
    round=(Rounding("pm2_5", 10.0),),
    hash=("device",),
    grid_m=50_000.0,
    time_s=7_200,
    division_digits=4,
    key="k",
)


class Past:
    """A log, its history, and a reader with grants."""

    following: asyncio.Task[None]

    def __init__(self, directory: Path) -> None:
        clock = SystemClock()
        self.log = MemoryLog(clock, epoch="e1")
        self.store = open_store(directory, self.log)
        self.sharing = sharing_in_memory(LogReader(self.log, clock), clock)
        self.sink = HistorySink(self.log, self.store, KEEP_ALL, clock)
        engine = HistoryEngine(directory / "scratch", memory_bytes=128 * 1024**2, threads=1)
        self.queries = HistoryQueries(engine, self.sink, self.sharing.server.masks, KEEP_ALL)
        self.history = HistoryReader(self.queries, self.sharing, self.sink.drop)

    async def write(self, *batches: Any) -> None:
        """Commit batches, and have them in the history."""
        for batch in batches:
            last = await self.log.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])
        async with asyncio.timeout(60):
            while self.store.end < last:
                await asyncio.sleep(0.005)

    async def grant(self, **more: Any) -> None:
        """Give the reader a grant for everything."""
        grant = grant_record(
            {"id": "g0123456789abcdef", "feed": "all", "subscriber": "reader", "expires": 2**62, **more}
        )
        before = self.sharing.grants.find(grant.id)
        await self.sharing.grants.records.put(grant.id, grant, expected=before.revision if before else 0)

    async def records(self, wanted: FeedFilter = EVERYTHING, **more: Any) -> list[dict[str, Any]]:
        """Return the readings of a request, page after page."""
        limit, records, after = more.pop("limit", 1_000), list[dict[str, Any]](), ""
        for _ in range(1_000):
            request = HistoryRequest("all", wanted, after, **more)
            page = await self.history.page(READER, request, form="json", limit=limit)
            records += json.loads(page.body)["records"]
            after = page.next
            if not after:
                return records
        raise AssertionError("the pages do not end")

    async def feed(self) -> list[dict[str, Any]]:
        """Return the records of the log, as the feed gives them, in the order of the history."""
        page = await self.sharing.page(READER, FeedRequest("all"), form="json", limit=10_000, wait_s=0.0)
        records: list[dict[str, Any]] = json.loads(page.body)["records"]
        for record in records:
            del record["cursor"]
        return sorted(records, key=lambda record: (record["time"], record["id"]))

    async def aggregate(
        self,
        window: int,
        functions: tuple[str, ...],
        by: tuple[str, ...] = (),
        wanted: FeedFilter = EVERYTHING,
        zone: str = "UTC",
        *,
        gaps: bool = False,
    ) -> list[dict[str, Any]]:
        """Return aggregates."""
        assert wanted.begin is not None
        assert wanted.end is not None
        aggregate = Aggregate(functions, by, Windows.of(wanted.begin, wanted.end, window, zone))
        page = await self.history.aggregate(READER, "all", wanted, aggregate, form="json", gaps=gaps)
        rows: list[dict[str, Any]] = json.loads(page.body)["rows"]
        assert page.count == len(rows)
        return rows
