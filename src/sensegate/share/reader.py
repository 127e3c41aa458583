"""Reader of the log, one per process, shared by all feeds.

It follows the log, holds recent entries of readings and observations in a ring bounded by bytes, and decodes each at
most once, when the first subscriber needs it; ledger entries go to the hourly ledgers. Older entries are fetched in
pages that concurrent subscribers share. Filtering is done on columns by `delivery.py`, since the server's filters are
slow on history.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from sensegate.bus import columns
from sensegate.bus.batch import EMPTY
from sensegate.bus.contract import Log
from sensegate.bus.names import SHARED_PREFIXES
from sensegate.bus.unreadable import read_rows
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Gone, Unavailable
from sensegate.model import LogEntry
from sensegate.share import cursor
from sensegate.share.cursor import END, BadCursor, Cursor

_PAGE_ENTRIES = 512
_PAGE_BYTES = 4_194_304
_BACK_ENTRIES = 128
"""Entries that are read together towards the start of the log; a commit has four or more."""
_CHANGED_S = 5.0
_RETRY_S = 0.5
_CATCH_UP_S = 1.0
_SLACK_US = 300_000_000
"""Records that expire within this are not offered as a start: expiry could overtake a subscriber that begins there."""
_DECODED_FACTOR = 12
"""Estimated bytes of a decoded batch per byte of its payload, for the bound of the ring."""

_log = structlog.get_logger(__name__)


class RowsEntry:
    """LogEntry of readings or observations, decoded when first needed."""

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
        """Columns of the entry; empty if it cannot be read, so that readers can continue after it."""
        if self._batch is None:
            assert self._entry is not None  # noqa: S101 - one of the two is always set
            batch = read_rows(self._entry, "feed")
            self._batch = EMPTY if batch is None else named_rows(batch.without_local())
            self._entry = None
        return self._batch


def named_rows(batch: columns.Batch) -> columns.Batch:
    """Return a batch with its channels in the names of its properties, ``name#channel``, as records need them."""
    if not batch.channels:
        return batch
    names = [f"{name}#{channel}" if channel else name for name, channel in batch.variables()]
    return msgspec.structs.replace(batch, properties=names, channels=[])


def _fills_page(entries: Sequence[LogEntry]) -> bool:
    """Return whether a page may have been cut by its limits; a shorter one ends at the end of the log."""
    return len(entries) >= _PAGE_ENTRIES or sum(len(entry.payload) for entry in entries) >= _PAGE_BYTES // 2


class EntryRange(msgspec.Struct, frozen=True, eq=False):
    """Entries of readings and observations after a sequence, complete up to `end`."""

    entries: Sequence[RowsEntry]
    end: int
    """Last sequence covered; the requested one if the log ends there."""
    stored: int
    """Time when the entry at `end` was stored, µs UTC."""


class LogObserver(Protocol):
    """Hears of entries of readings and observations while the reader follows the log."""

    def index_from(self, after: int) -> None:
        """Hear that `index_entry` is called with every entry after a sequence."""
        ...

    def index_entry(self, entry: LogEntry) -> None:
        """Hear of an entry, in the order of the log; one may come again."""
        ...


class LogReader:
    """Ring of recent entries and cache of older ones; `wait` requires that `run` is running."""

    def __init__(
        self,
        source: Log,
        clock: Clock,
        *,
        observers: Sequence[LogObserver] = (),
        readings_ttl_h: int = 168,
        ring_bytes_max: int = 67_108_864,
        pages_max: int = 6,
    ) -> None:
        self.log = source
        self._clock = clock
        self._ttl_us = readings_ttl_h * HOUR_US
        self._ring: deque[RowsEntry] = deque()
        self._ring_bytes = 0
        self._ring_bytes_max = ring_bytes_max
        self._ring_start = 0
        """The ring holds every entry of readings and observations in (start, end]."""
        self._end = 0
        self._end_stored = 0
        self._live = False
        """True if the end of the log was reached since the connection was last lost."""
        self.on_ledger: list[Callable[[LogEntry], None]] = []
        """Called with each ledger entry after the sequence at which `run` started, in order."""
        self.on_rows: list[Callable[[RowsEntry], None]] = []
        """Called with each entry of readings or observations, in order; one may come again."""
        self._observers = observers
        self._change: asyncio.Future[None] | None = None
        self._pages_max = pages_max
        self._pages: OrderedDict[int, EntryRange] = OrderedDict()
        self._fetching: dict[int, asyncio.Task[EntryRange]] = {}

    @property
    def end(self) -> int:
        """Last sequence read."""
        return self._end

    @property
    def position(self) -> Cursor:
        """Cursor after the last entry read."""
        return self.after(self._end, self._end_stored)

    # ── following ─────────────────────────────────────────────────────────────────────────────────────

    async def run(self, after: int | None = None) -> None:
        """Follow the log after a sequence (None: its end) until cancelled; survives lost connections."""
        started = False
        while True:
            try:
                if not started:
                    self._ring_start = self._end = (await self.log.bounds())[1] if after is None else after
                    # On a restart of this task entries read before are read again.
                    self._ring.clear()
                    self._ring_bytes, self._live, started = 0, False, True
                    for observer in self._observers:
                        observer.index_from(self._end)
                await self._follow()
            except Unavailable as why:
                self._live = False
                _log.warning("reader waits for the log", reason=str(why))
                await self._clock.sleep(_RETRY_S)

    async def _follow(self) -> None:
        while True:
            entries = await self.log.fetch(self._end, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
            if entries:
                self._append(entries)
                self._wake()
                await asyncio.sleep(0)
                if not self._live or _fills_page(entries):
                    continue
            elif not self._live:
                self._live = True
                self._wake()
            await self.log.changed(self._end, _CHANGED_S)

    def _append(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            if entry.subject.startswith(SHARED_PREFIXES):
                slot = RowsEntry(entry)
                self._ring.append(slot)
                self._ring_bytes += slot.size
                for observer in self._observers:
                    observer.index_entry(entry)
                for take in self.on_rows:
                    take(slot)
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

    async def read(self, after: int) -> EntryRange:
        """Return the entries after a sequence; `end` equals `after` at the end of the log.

        Raises:
            Unavailable: the log does not answer.
        """
        if self.is_in_memory(after):
            if after >= self._end:
                return EntryRange((), after, self._end_stored)
            return EntryRange(self._after(after), self._end, self._end_stored)
        return await self._page(after)

    async def read_back(self, before: int) -> EntryRange:
        """Return some entries before a sequence, newest first, complete down to `end`; `end` is 0 at the start.

        Raises:
            Unavailable: the log does not answer.
        """
        first, last = await self.log.bounds()
        before = min(before, last + 1)
        if before <= first:
            return EntryRange((), 0, 0)
        # Aligned, so that callers at different places share the cached pages.
        start = max((before - 2) // _BACK_ENTRIES * _BACK_ENTRIES, first - 1)
        position, stored, entries = start, self._clock.now(), list[RowsEntry]()
        while position < before - 1:
            span = await self.read(position)
            if span.end <= position:
                # The log has more than was read here so far: a page back is not repeated for what it left out.
                span = await self._page(position)
            if span.end <= position:
                break
            entries += [entry for entry in span.entries if entry.sequence < before]
            # An upper bound for the entries before `start`: the time of the oldest entry after it.
            stored = min(stored, entries[0].stored if entries else span.stored)
            position = span.end
        return EntryRange(entries[::-1], start if start >= first else 0, stored)

    def is_past(self, time: int | None) -> bool:
        """Return whether no entry can be stored before a time (µs UTC) any more; False for None."""
        return time is not None and self._clock.now() >= time

    def is_in_memory(self, after: int) -> bool:
        """Return whether all entries after a sequence are in memory, where they do not expire."""
        return self._live and self._ring_start <= after

    def _after(self, sequence: int) -> list[RowsEntry]:
        following: list[RowsEntry] = []
        for slot in reversed(self._ring):
            if slot.sequence <= sequence:
                break
            following.append(slot)
        following.reverse()
        return following

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

    async def catch_up(self) -> None:
        """Return when all that the log holds now is read, or after `_CATCH_UP_S`.

        Records that a caller knows to be committed must be found, even if they are not read here yet.
        """
        _, last = await self.log.bounds()
        await self.wait(last - 1, _CATCH_UP_S)

    async def log_is_ahead(self, sequence: int) -> bool:
        """Return whether the log has entries after a sequence, read by this reader or not."""
        return (await self.log.bounds())[1] > sequence

    async def is_at_end(self, sequence: int) -> bool:
        """Return whether the log has stored nothing after a sequence, also nothing that may not be read yet."""
        return await self.log.stored_end() <= sequence

    async def _page(self, after: int) -> EntryRange:
        if (known := self._pages.get(after)) is not None:
            self._pages.move_to_end(after)
            return known
        task = self._fetching.get(after)
        if task is None:
            task = asyncio.create_task(self._fetch(after), name=f"history after {after}")
            self._fetching[after] = task
            task.add_done_callback(lambda _: self._fetching.pop(after, None))
        return await asyncio.shield(task)

    async def _fetch(self, after: int) -> EntryRange:
        entries = await self.log.fetch(after, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
        if not entries:
            return EntryRange((), after, self._clock.now())
        slots = [RowsEntry(entry) for entry in entries if entry.subject.startswith(SHARED_PREFIXES)]
        span = EntryRange(slots, entries[-1].sequence, entries[-1].time)
        if _fills_page(entries):
            # A short page ends at the end of the log and would grow: it is not cached.
            self._pages[after] = span
            while len(self._pages) > self._pages_max:
                self._pages.popitem(last=False)
        return span

    # ── cursors ─────────────────────────────────────────────────────────────────────────────────────

    def after(self, sequence: int, stored: int, row: int = END) -> Cursor:
        """Return the cursor after a row of an entry stored at `stored` (µs)."""
        return cursor.after(self.log.timelines.timeline_at(sequence), sequence, stored, row)

    async def first(self) -> Cursor:
        """Return the cursor before the oldest record that does not expire within `_SLACK_US`."""
        first, _ = await self.log.bounds()
        entries = await self.log.fetch(first - 1, limit=1)
        retained_from = self._clock.now() - self._ttl_us + min(_SLACK_US, self._ttl_us // 10)
        if entries and entries[0].time < retained_from:
            return await self.since(retained_from)
        return self.after(first - 1, entries[0].time if entries else self._clock.now())

    async def since(self, time: int) -> Cursor:
        """Return the cursor before the first entry stored at or after `time` (µs), or at the end of the log."""
        time = max(time, 0)  # a masked time may begin before the year 1, which the log does not know
        stored = min(time, max(self._clock.now(), self._end_stored))
        return self.after(await self.log.sequence_at(time) - 1, stored)

    async def resume(self, text: str) -> Cursor:
        """Return the cursor of a text if all records after it are still stored.

        Raises:
            BadCursor: it is not a cursor, or lies after the end of the log.
            Unavailable: this log does not know the cursor, and another centre may have the log that it is of.
            Gone: the log does not hold the records before it, or records after it have expired; `first` is the cursor
                from which the subscriber misses as little as possible.
        """
        position = cursor.parse(text)
        await self.demand_same_history(position)
        # A centre that has just started does not know yet what its standby has confirmed: what it delivered before is
        # stored and not yet visible again.
        if position.sequence > self._end and position.sequence > await self.log.stored_end():
            self._demand_settled()
            raise BadCursor("the cursor lies after the end of the log")
        await self.demand_retained(position)
        return position

    async def demand_same_history(self, position: Cursor) -> None:
        """Return if the log still holds the records up to a cursor unchanged. Raises `Gone`, `Unavailable`."""
        timelines = self.log.timelines
        agreed = timelines.diverged_at(position.timeline)
        if agreed is not None and position.sequence <= agreed:
            return
        if agreed is None:
            self._demand_settled()
            reason = "the cursor is of another log, or of records that this log has lost"
            agreed = min(timelines.resume_after(position.timeline, cursor.stored_before(position)), position.sequence)
        else:
            reason = "the log has lost the records before the cursor and holds others in their position"
        raise Gone(f"{reason}; continue from `first`", first=str(await self._first_after(agreed)))

    def _demand_settled(self) -> None:
        """Return if this is the log that readers follow. Raises `Unavailable` where another centre may have it."""
        if not self.log.is_settled:
            raise Unavailable("this centre has just started and has not heard the other one yet; try again, or there")

    async def _first_after(self, sequence: int) -> Cursor:
        """Return the cursor after a sequence, or after all records that have expired or soon will."""
        first = await self.first()
        if sequence <= first.sequence:
            return first
        entries = await self.log.fetch(sequence, limit=1)
        return self.after(sequence, entries[0].time if entries else self._clock.now())

    async def demand_retained(self, position: Cursor) -> None:
        """Return if no record after a cursor has expired, as happens to slow subscribers. Raises `Gone`."""
        expired_to = self._clock.now() - self._ttl_us
        if cursor.stored_before(position) > expired_to:
            return
        cut = await self.log.sequence_at(expired_to)
        if position.sequence + 1 < cut and not await self._is_complete(position.sequence, cut):
            raise Gone("readings after the cursor have expired; continue from `first`", first=str(await self.first()))

    async def _is_complete(self, after: int, until: int) -> bool:
        """Return whether every entry between two sequences is still stored, so that none has expired."""
        if until - after > _PAGE_ENTRIES:
            return False
        entries = await self.log.fetch(after, limit=until - after, max_bytes=_PAGE_BYTES)
        present = {entry.sequence for entry in entries}
        return all(sequence in present for sequence in range(after + 1, until))
