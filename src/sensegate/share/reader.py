"""One reader of the log per process, for all feeds.

It follows the log, keeps recent entries of readings and observations in a ring bounded by bytes, and decodes each of
them at most once, when the first subscriber wants it; entries of the ledger it hands to the books. What lies before the
ring is fetched in pages that equal readers share. Filtering is done on columns by those who ask (`delivery.py`): the
server's filters are slow on history.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from sensegate.bus import columns
from sensegate.bus.batch import EMPTY
from sensegate.bus.names import ROW_PREFIXES
from sensegate.bus.unreadable import read_rows
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Gone, Unavailable
from sensegate.model import LogEntry
from sensegate.ports import Log
from sensegate.share import cursor
from sensegate.share.cursor import END, BadCursor, Cursor

_PAGE_ENTRIES = 512
_PAGE_BYTES = 4_194_304
_CHANGED_S = 5.0
_RETRY_S = 0.5
_SLACK_US = 300_000_000
"""What expires within this is not offered as a start: a subscriber who begins there could be overtaken by expiry."""
_DECODED_FACTOR = 12
"""Bytes of a decoded batch per byte of its payload, for the bound of the ring (columns compress well)."""

_log = structlog.get_logger(__name__)


class Slot:
    """One entry of readings: as stored, decoded when first asked for."""

    __slots__ = ("_batch", "_entry", "sequence", "size", "stored", "subject")

    def __init__(self, entry: LogEntry) -> None:
        self.sequence = entry.sequence
        self.subject = entry.subject
        self.stored = entry.time
        self.size = len(entry.payload) * _DECODED_FACTOR
        self._entry: LogEntry | None = entry
        self._batch: columns.Batch | None = None

    @property
    def batch(self) -> columns.Batch:
        """The entry's columns; no row where it cannot be read: whoever reads on must come past it."""
        if self._batch is None:
            assert self._entry is not None  # noqa: S101 - one of the two is always there
            found = read_rows(self._entry, "feed")
            self._batch = EMPTY if found is None else _named(found.without_local())
            self._entry = None
        return self._batch


def _named(batch: columns.Batch) -> columns.Batch:
    """Return a batch with its channels in the names of its properties, ``name#channel``: so records tell them."""
    if not batch.channels:
        return batch
    names = [f"{name}#{channel}" if channel else name for name, channel in batch.variables()]
    return msgspec.structs.replace(batch, properties=names, channels=[])


class Span(msgspec.Struct, frozen=True, eq=False):
    """Entries of readings that follow a sequence, without gap up to `end`."""

    slots: Sequence[Slot]
    end: int
    """Last sequence looked at; equal to the one asked after when the log ends there."""
    stored: int
    """When that entry was stored, µs."""


class Reader:
    """The ring and the pages. `run` must be running for `wait` to see anything."""

    def __init__(
        self,
        source: Log,
        clock: Clock,
        *,
        readings_ttl_h: int = 168,
        ring_bytes_max: int = 67_108_864,
        pages_max: int = 6,
    ) -> None:
        self.log = source
        self._clock = clock
        self._ttl_us = readings_ttl_h * HOUR_US
        self._ring: deque[Slot] = deque()
        self._ring_bytes = 0
        self._ring_bytes_max = ring_bytes_max
        self._ring_start = 0
        """The ring holds every entry of readings in (start, end]."""
        self._end = 0
        self._end_stored = 0
        self._live = False
        """The end of the log has been reached once since the last loss."""
        self.on_ledger: list[Callable[[LogEntry], None]] = []
        """Called with each entry of the ledger that follows the place where `run` began, in order."""
        self.on_rows: list[Callable[[LogEntry], None]] = []
        """The same for each entry of readings and observations."""
        self.on_begin: list[Callable[[int], None]] = []
        """Called with that place, once, before either of them."""
        self._change: asyncio.Future[None] | None = None
        self._pages_max = pages_max
        self._pages: OrderedDict[int, Span] = OrderedDict()
        self._fetching: dict[int, asyncio.Task[Span]] = {}

    @property
    def end(self) -> int:
        """The last sequence that it has seen."""
        return self._end

    # ── following ─────────────────────────────────────────────────────────────────────────────────────

    async def run(self, after: int | None = None) -> None:
        """Follow the log from a sequence on (None: its end) until cancelled. A lost connection is waited out."""
        started = False
        while True:
            try:
                if not started:
                    self._ring_start = self._end = (await self.log.bounds())[1] if after is None else after
                    # Begun anew in a process that goes on: what it had read comes again.
                    self._ring.clear()
                    self._ring_bytes, self._live, started = 0, False, True
                    for begun in self.on_begin:
                        begun(self._end)
                await self._follow()
            except Unavailable as why:
                self._live = False
                _log.warning("reader waits for the log", cause=str(why))
                await self._clock.sleep(_RETRY_S)

    async def _follow(self) -> None:
        while True:
            entries = await self.log.fetch(self._end, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
            if entries:
                self._append(entries)
                self._wake()
                await asyncio.sleep(0)
                continue
            if not self._live:
                self._live = True
                self._wake()
            await self.log.changed(self._end, _CHANGED_S)

    def _append(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            if entry.subject.startswith(ROW_PREFIXES):
                slot = Slot(entry)
                self._ring.append(slot)
                self._ring_bytes += slot.size
                for listener in self.on_rows:
                    listener(entry)
            elif entry.subject.startswith(("ledger.", "carried.")):
                for listener in self.on_ledger:
                    listener(entry)
        self._end, self._end_stored = entries[-1].sequence, entries[-1].time
        while self._ring_bytes > self._ring_bytes_max and self._ring:
            oldest = self._ring.popleft()
            self._ring_bytes -= oldest.size
            self._ring_start = oldest.sequence

    def _wake(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
        self._change = None

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────

    async def read(self, after: int) -> Span:
        """Return what follows a sequence; its `end` is `after` at the end of the log.

        Raises:
            Unavailable: the log does not answer.
        """
        if self.holds(after):
            if after >= self._end:
                return Span((), after, self._end_stored)
            return Span(self._after(after), self._end, self._end_stored)
        return await self._page(after)

    def holds(self, after: int) -> bool:
        """Return whether all that follows a sequence is in memory: expiry takes nothing from there."""
        return self._live and self._ring_start <= after

    def _after(self, sequence: int) -> list[Slot]:
        found: list[Slot] = []
        for slot in reversed(self._ring):
            if slot.sequence <= sequence:
                break
            found.append(slot)
        found.reverse()
        return found

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Return True once the log has an entry after `after`, False after `timeout_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            if self._live and self._end > after:
                return True
            remaining = until - loop.time()
            if remaining <= 0:
                return False
            if self._change is None:
                self._change = loop.create_future()
            await asyncio.wait((self._change,), timeout=remaining)

    async def behind(self, sequence: int) -> bool:
        """Return whether the log itself has something after a sequence."""
        return (await self.log.bounds())[1] > sequence

    async def _page(self, after: int) -> Span:
        if (known := self._pages.get(after)) is not None:
            self._pages.move_to_end(after)
            return known
        task = self._fetching.get(after)
        if task is None:
            task = asyncio.create_task(self._fetch(after), name=f"history after {after}")
            self._fetching[after] = task
            task.add_done_callback(lambda _: self._fetching.pop(after, None))
        return await asyncio.shield(task)

    async def _fetch(self, after: int) -> Span:
        entries = await self.log.fetch(after, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
        if not entries:
            return Span((), after, self._clock.now())
        slots = [Slot(entry) for entry in entries if entry.subject.startswith(ROW_PREFIXES)]
        span = Span(slots, entries[-1].sequence, entries[-1].time)
        if len(entries) == _PAGE_ENTRIES or sum(len(entry.payload) for entry in entries) >= _PAGE_BYTES // 2:
            # A short page ends at the log's end and will grow: it is not kept.
            self._pages[after] = span
            while len(self._pages) > self._pages_max:
                self._pages.popitem(last=False)
        return span

    # ── places ────────────────────────────────────────────────────────────────────────────────────────

    def after(self, sequence: int, stored: int, row: int = END) -> Cursor:
        """Return the cursor after a row of an entry stored at `stored` (µs)."""
        return cursor.after(self.log.timelines.timeline_at(sequence), sequence, stored, row)

    async def first(self) -> Cursor:
        """Return the cursor before everything that is kept and will not expire within `_SLACK_US`."""
        first, _ = await self.log.bounds()
        entries = await self.log.fetch(first - 1, limit=1)
        kept_from = self._clock.now() - self._ttl_us + min(_SLACK_US, self._ttl_us // 10)
        if entries and entries[0].time < kept_from:
            return await self.since(kept_from)
        return self.after(first - 1, entries[0].time if entries else self._clock.now())

    async def since(self, time: int) -> Cursor:
        """Return the cursor before the first entry stored at or after `time` (µs), or at the end of the log."""
        stored = min(time, max(self._clock.now(), self._end_stored))
        return self.after(await self.log.sequence_at(time) - 1, stored)

    async def resume(self, text: str) -> Cursor:
        """Return the cursor of a text if everything after it is still there.

        Raises:
            BadCursor: it is none, or lies after the end of the log.
            Gone: the log does not hold the records that it stands after, or readings after it have expired; `first`
                is the place from which what it has not seen is read.
        """
        place = cursor.parse(text)
        await self.demand_same(place)
        if place.sequence > self._end and place.sequence > (await self.log.bounds())[1]:
            raise BadCursor("the cursor lies after the end of the log")
        await self.demand_kept(place)
        return place

    async def demand_same(self, place: Cursor) -> None:
        """Return if the log still holds what it held up to a place. Raises `Gone`, `Unavailable`."""
        timelines = self.log.timelines
        agreed = timelines.diverged_at(place.timeline)
        if agreed is not None and place.sequence <= agreed:
            return
        if agreed is None:
            what = "the cursor is of another log, or of records that this log has lost"
            agreed = min(timelines.resume_after(place.timeline, cursor.stored_before(place)), place.sequence)
        else:
            what = "the log has lost the records before the cursor and holds others in their place"
        raise Gone(f"{what}; read on from `first`", first=str(await self._first_after(agreed)))

    async def _first_after(self, sequence: int) -> Cursor:
        """Return the cursor after a sequence, or after all that has expired or soon will."""
        first = await self.first()
        if sequence <= first.sequence:
            return first
        entries = await self.log.fetch(sequence, limit=1)
        return self.after(sequence, entries[0].time if entries else self._clock.now())

    async def demand_kept(self, place: Cursor) -> None:
        """Return if nothing has expired after a place: one who reads on slowly is overtaken there. Raises `Gone`."""
        expired_to = self._clock.now() - self._ttl_us
        if cursor.stored_before(place) > expired_to:
            return
        cut = await self.log.sequence_at(expired_to)
        if place.sequence + 1 < cut and not await self._whole(place.sequence, cut):
            raise Gone("readings after the cursor have expired; read on from `first`", first=str(await self.first()))

    async def _whole(self, after: int, until: int) -> bool:
        """Return whether every entry between two sequences is still there: nothing expired, so nothing is missed."""
        if until - after > _PAGE_ENTRIES:
            return False
        entries = await self.log.fetch(after, limit=until - after, max_bytes=_PAGE_BYTES)
        present = {entry.sequence for entry in entries}
        return all(sequence in present for sequence in range(after + 1, until))
