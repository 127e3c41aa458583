"""The sink: follows the log with the cursor that its own segments are, and writes, merges and expires them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from sensegate import metrics
from sensegate.bus.batch import Batch
from sensegate.bus.contract import Log
from sensegate.bus.names import READINGS
from sensegate.bus.unreadable import read_rows
from sensegate.clock import DAY_US, Clock
from sensegate.config.history import HistoryConfig
from sensegate.errors import Unavailable
from sensegate.history.segments import SegmentStore
from sensegate.share.reader import named_rows

ROWS_MAX = 2_000_000
"""Rows that are held in memory before they are written, 50 bytes each: files as large as merging makes them."""
FETCH_ENTRIES = 500
_RETAIN_S = 3_600.0
_RETRY_S = 5.0

Result = TypeVar("Result")

_log = structlog.get_logger("history")


class HistorySink:
    """Writes the history; `run` until cancelled."""

    def __init__(self, log: Log, store: SegmentStore, config: HistoryConfig, clock: Clock) -> None:
        self.store = store
        self._source = log
        self._config = config
        self._clock = clock
        self._readers = asyncio.Semaphore(config.queries_max)
        self._waiting = 0
        self._exclusive = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._after = 0
        """Sequence after which the next segment begins."""
        self._problem = ""
        self._gap = ""
        self._retained = -_RETAIN_S

    def warnings(self) -> list[str]:
        """Return warnings of a lag, and of missing rows."""
        return [*filter(None, (self._problem, self._gap))]

    @property
    def waiting(self) -> int:
        """Number of queries that wait for others."""
        return self._waiting

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Keep the present files while a query reads them."""
        self._waiting += 1
        try:
            await self._readers.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._readers.release()

    async def run(self) -> None:
        """Follow the log until cancelled; survives a full disk and a log that is away."""
        while True:
            try:
                await self._exclusively(lambda: self.store.open(self._source.timelines, self._source.epoch))
                await self._follow()
            except Unavailable as why:
                self._problem = str(why)
                _log.warning("history waits", reason=str(why))
                await self._clock.sleep(_RETRY_S)

    async def _follow(self) -> None:
        position = await self._begin()
        parts: list[tuple[int, Batch]] = []
        rows, due = 0, self._clock.monotonic() + self._config.flush_s
        while True:
            entries = await self._source.fetch(position, limit=FETCH_ENTRIES)
            if entries:
                parts += await asyncio.to_thread(_decoded, entries)
                rows = sum(len(batch) for _, batch in parts)
                position = entries[-1].sequence
                metrics.HISTORY_LAG.set(self._clock.now() / 1e6 - entries[-1].time / 1e6)
            if rows >= ROWS_MAX or self._clock.monotonic() >= due:
                await self.flush(position, parts)
                parts, rows, due = [], 0, self._clock.monotonic() + self._config.flush_s
            elif not entries:
                await self._source.changed(position, max(0.05, min(5.0, due - self._clock.monotonic())))

    async def _begin(self) -> int:
        """Return the sequence to continue after; readings that expired meanwhile are missing for good."""
        first, _ = await self._source.bounds()
        end = self.store.end
        if end and first > end + 1:
            self._gap = f"history: entries {end + 1} to {first - 1} of the log expired before they were written"
            _log.error("history has a gap", first=end + 1, last=first - 1)
        self._after = max(end, first - 1)
        return self._after

    async def flush(self, position: int, parts: list[tuple[int, Batch]]) -> None:
        """Write the rows read up to a sequence, and merge segments that have become many. Raises `Unavailable`."""
        store, source = self.store, self._source
        if parts:
            timeline = source.timelines.timeline_at(position)
            rows = await self._work(lambda: store.append(self._after, position, timeline, source.epoch, parts))
            metrics.HISTORY_ROWS.inc(rows)
            self._after = max(self._after, store.end)
        while await self._work(store.merge):
            pass
        if self._clock.monotonic() - self._retained >= _RETAIN_S:
            await self.retain()
            self._retained = self._clock.monotonic()
        if store.has_obsolete:
            await self._exclusively(store.delete_obsolete)
        metrics.HISTORY_SEGMENTS.set(len(store.segments))
        self._problem = ""

    async def retain(self) -> None:
        """Delete segments past their retention."""
        now, config = self._clock.now(), self._config
        limits = [round(now - days * DAY_US) for days in (config.retention_days, config.grade3_retention_days)]
        changed = await self._exclusively(lambda: self.store.retain(*limits))
        if changed:
            _log.info("history expired", segments=changed)

    async def drop(self, division: str) -> int:
        """Delete the history of a division; return the number of files that had some of it.

        Readings that the log holds by now, but no file yet, are not written either. Raises `Unavailable`.
        """
        _, last = await self._source.bounds()
        timeline = self._source.timelines.timeline_at(last)
        return await self._exclusively(lambda: self.store.drop(division, last, timeline))

    async def _exclusively(self, work: Callable[[], object]) -> int:
        """Do what must not happen while files are read."""
        async with self._exclusive:
            taken = 0
            try:
                for _ in range(self._config.queries_max):
                    await self._readers.acquire()
                    taken += 1
                result = await self._work(work)
            finally:
                for _ in range(taken):
                    self._readers.release()
        return result if isinstance(result, int) else 0

    async def _work(self, work: Callable[[], Result]) -> Result:
        """Run in a thread to its end, also when cancelled: files are written by one thread at a time."""
        async with self._writing:
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait((running,))
                raise


def _decoded(entries: Sequence[Any]) -> list[tuple[int, Batch]]:
    """Return the readings of entries; observations of cameras stay in the store, which is encrypted for them."""
    return [
        (entry.sequence, named_rows(batch.without_local()))
        for entry in entries
        if entry.subject.startswith(f"{READINGS}.") and (batch := read_rows(entry, "history")) is not None
    ]
