"""A feed as pages and as a stream: history first, then live, with one cursor, for every form.

Each entry of the log is cut to a selection and encoded once per form; equal subscribers share the bytes. A slow
subscriber holds no queue here: it is the log that waits for it, and its cursor says where.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from functools import partial

import msgspec
import numpy as np

from sensegate.bus.columns import Batch, WordColumn
from sensegate.model import BOOL, I64
from sensegate.quantities.quality import Flag
from sensegate.share import parquet, records, senml
from sensegate.share.cursor import END, Cursor, row_text
from sensegate.share.feeds import Selection, Wanted
from sensegate.share.grants import Admission
from sensegate.share.masks import Masks, hidden
from sensegate.share.reader import Reader, Slot

_SHADOW = np.uint32(Flag.SECONDARY)
BLOCK_ROWS = 1_000
"""Rows encoded at one go; between blocks other tasks get their turn."""
_SETS_MAX, _SET_ROWS_MAX = 4_096, 2_000_000
"""How many sets of matching rows are remembered, and how many rows in all (8 bytes each)."""
_SCAN_S = 10.0
"""An answer that has found nothing says so after this and leaves its cursor further on."""
_BEHIND_S = 1.0
_BEATS_PER_CURSOR = 40
_TURN_S = 0.004
"""All streams together work so long before the rest of the process gets its turn: the ingest's turns are as long."""
_RECHECK_S = 1.0
"""An open stream asks so often whether it may still go on."""


class Form(StrEnum):
    """How records are written."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    MSGPACK = "msgpack"
    SENML = "senml"
    PARQUET = "parquet"
    SSE = "sse"


class Page(msgspec.Struct, frozen=True):
    """One answer."""

    body: bytes
    count: int
    next: str
    """Cursor after the last record looked at; reading on from it skips and repeats nothing."""
    grant: str = ""
    """Grant by which it is read; empty: by the scope of the token."""


class Events(msgspec.Struct, frozen=True):
    """A piece of a stream, ready for the wire; without records it is a heartbeat."""

    body: bytes
    count: int
    grant: str = ""


def matches(batch: Batch, selection: Selection) -> I64:
    """Return the rows of a batch that belong to a selection, rising."""
    origins = batch.origins
    wanted = origins.grade <= selection.grade_max
    if selection.divisions:
        wanted &= _among(origins.division, lambda code: code.startswith(selection.divisions))
    if selection.domains:
        wanted &= _among(origins.domain, selection.domains.__contains__)
    if selection.departments:
        wanted &= _among(origins.department, selection.departments.__contains__)
    if selection.devices:
        wanted &= np.fromiter((device in selection.devices for device in origins.device), np.bool_, len(origins))
    mask = wanted[batch.origin]
    if selection.properties:
        named = np.fromiter((records.plain(name) in selection.properties for name in batch.properties), np.bool_)
        mask &= named[batch.property]
    if not selection.shadows:
        mask &= (batch.flags & _SHADOW) == 0
    if selection.mask:
        mask &= ~hidden(batch, selection.mask)
    return np.flatnonzero(mask).astype(np.int64)


def _among(words: WordColumn, admits: Callable[[str], bool]) -> BOOL:
    """Return per entry of a column of words whether its word is admitted."""
    admitted: BOOL = np.fromiter(map(admits, words.table), np.bool_)[words.index]
    return admitted


class Serving:
    """Pages and streams of any selection from one reader."""

    def __init__(
        self,
        reader: Reader,
        *,
        masks: Masks | None = None,
        cache_bytes_max: int = 33_554_432,
        page_max: int = 10_000,
    ) -> None:
        self.reader = reader
        self.masks = masks or Masks(os.urandom(32))
        self.page_max = page_max
        self._cache: OrderedDict[tuple[int, Selection, int, str], _Encoded] = OrderedDict()
        self._rows: OrderedDict[tuple[int, Selection], I64] = OrderedDict()
        self._rows_count = 0
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max
        self._runs: OrderedDict[tuple[int, Selection, int, str], _Run] = OrderedDict()
        self._runs_bytes = 0
        self._bodies: OrderedDict[tuple[Selection | None, Form, Cursor, Cursor], bytes] = OrderedDict()
        self._bodies_bytes = 0
        self._streams = 0
        self._turned = 0.0

    async def _turn(self) -> None:
        """Let others work if it is their turn: after every little step, ours would come too seldom under load."""
        if time.monotonic() - self._turned >= _TURN_S / max(1, self._streams):
            await asyncio.sleep(0)
            self._turned = time.monotonic()

    # ── one page ──────────────────────────────────────────────────────────────────────────────────────

    async def page(
        self,
        selection: Selection | None,
        start: Cursor,
        form: Form,
        limit: int,
        wait_s: float,
        *,
        scan_s: float = _SCAN_S,
        sure: bool = True,
        tight: bool = False,
    ) -> Page:
        """Return at most `limit` records after `start`; with none there, wait up to `wait_s` for the first.

        An empty page means that nothing more was there, unless the log behind `start` is so long that looking
        through it took `scan_s`; `next` has then moved on. Without `sure` the log itself is not asked whether it has
        more than the reader has seen: for one who asks again at once. `tight`: `next` stands just after the last,
        so that the same records, read again, are the same page.

        Raises:
            Unavailable: the log does not answer.
        """
        loop = asyncio.get_running_loop()
        until, scan_until = loop.time() + wait_s, loop.time() + max(wait_s, scan_s)
        place, parts, count, asked = start, list[records.Part](), 0, not sure
        while count < limit:
            span = await self.reader.read(_before(place))
            if span.end > place.sequence and not self.reader.holds(place.sequence):
                await self.reader.demand_kept(place)
            if span.end <= place.sequence and not span.slots:
                if count or not await self.reader.wait(place.sequence, max(until - loop.time(), 0)):
                    if count or asked or not await self.reader.behind(place.sequence):
                        break
                    # What a caller has just seen committed it also finds here.
                    asked = True
                    await self.reader.wait(place.sequence, _BEHIND_S)
                continue
            for slot in span.slots:
                rows = await self._left(slot, selection, place)
                if len(rows):
                    rows = rows[: limit - count]
                    parts.append(records.Part(slot.batch, rows, slot.sequence, slot.stored))
                    count += len(rows)
                    place = self.reader.after(slot.sequence, slot.stored, int(rows[-1]))
                if count == limit:
                    break
            else:
                place = self.reader.after(max(span.end, place.sequence), span.stored)
            if loop.time() > scan_until:
                break
        if parts and tight:
            place = self.reader.after(parts[-1].entry, parts[-1].stored, int(parts[-1].rows[-1]))
        return Page(await self._shared(parts, selection, form, start, place), count, str(place))

    def _prefix(self, part: records.Part) -> str:
        """Return what the cursors of all rows of an entry begin with."""
        return self.reader.after(part.entry, part.stored).prefix

    async def _left(self, slot: Slot, selection: Selection | None, place: Cursor) -> I64:
        """Return the rows of an entry after a place, cut to the selection."""
        if selection is None or not selection.wants_subject(slot.subject):
            return _NONE
        rows = self._matching(slot.batch, slot.sequence, selection)
        if slot.sequence == place.sequence:
            rows = rows[np.searchsorted(rows, place.row, side="right") :]
        await self._turn()
        return rows

    def _matching(self, batch: Batch, entry: int, selection: Selection) -> I64:
        key = (entry, selection)
        rows = self._rows.get(key)
        if rows is not None:
            self._rows.move_to_end(key)
            return rows
        rows = matches(batch, selection)
        if selection.shown != Wanted():
            asked = Selection(selection.shown.divisions, devices=selection.shown.devices)
            rows = rows[np.isin(rows, matches(self.masks.seen(batch, entry, selection.mask), asked))]
        self._rows[key] = rows
        self._rows_count += len(rows)
        while len(self._rows) > 1 and (len(self._rows) > _SETS_MAX or self._rows_count > _SET_ROWS_MAX):
            self._rows_count -= len(self._rows.popitem(last=False)[1])
        return rows

    async def _shared(
        self, parts: list[records.Part], selection: Selection | None, form: Form, start: Cursor, place: Cursor
    ) -> bytes:
        """Return the body of a page; equal subscribers at the same place share its bytes."""
        key = (selection, form, start, place)
        if (known := self._bodies.get(key)) is not None:
            self._bodies.move_to_end(key)
            return known
        body = await self._body(parts, selection, form, str(place))
        if parts and key not in self._bodies:
            self._bodies[key] = body
            self._bodies_bytes += len(body)
            while self._bodies_bytes > self._cache_bytes_max // 2 and len(self._bodies) > 1:
                self._bodies_bytes -= len(self._bodies.popitem(last=False)[1])
        return body

    async def _body(self, parts: list[records.Part], selection: Selection | None, form: Form, following: str) -> bytes:
        if form in {Form.MSGPACK, Form.PARQUET}:
            if selection is not None and selection.mask:
                seen = partial(self.masks.seen, mask=selection.mask)
                parts = [msgspec.structs.replace(part, batch=seen(part.batch, part.entry)) for part in parts]
            if form is Form.PARQUET:
                return await asyncio.to_thread(parquet.encoded, parts, following, self._prefix)
            return records.columns(parts, following)
        lines: list[str] = []
        for part in parts:
            lines += await self._lines(part, selection, form)
        if form is Form.CSV:
            return "".join(f"{line}\r\n" for line in (records.CSV_COLUMNS, *lines)).encode()
        if form is Form.NDJSON:
            return "".join(f"{line}\n" for line in lines).encode()
        if form is Form.SENML:
            return f"[{','.join(lines)}]".encode()
        return f'{{"records":[{",".join(lines)}],"next":"{following}"}}'.encode()

    async def _lines(self, part: records.Part, selection: Selection | None, form: Form) -> list[str]:
        """Return one text per record of a part; its rows are neighbours among those that match the selection."""
        if selection is None:
            return []
        every = self._matching(part.batch, part.entry, selection)
        first = int(np.searchsorted(every, part.rows[0]))
        last = first + len(part.rows)
        lines: list[str] = []
        for number in range(first // BLOCK_ROWS, (last - 1) // BLOCK_ROWS + 1):
            offset = number * BLOCK_ROWS
            block = await self._block(part, selection, form, every, number)
            lines += block.lines[max(first - offset, 0) : last - offset]
        return lines

    async def _block(self, part: records.Part, selection: Selection, form: Form, every: I64, number: int) -> _Encoded:
        """Return a block of an entry's matching rows in a form, encoded by the first who asks."""
        key = (part.entry, selection, number, "json" if form is Form.NDJSON else form.value)
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        rows = every[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
        prefix = self._prefix(part)
        batch = self.masks.seen(part.batch, part.entry, selection.mask)
        if form is Form.CSV:
            lines = records.csv_lines(batch, rows, part.entry, prefix)
        elif form is Form.SENML:
            lines = senml.lines(batch, rows, part.entry, prefix)
        else:
            lines = records.json_lines(batch, rows, part.entry, prefix)
        made = self._cache[key] = _Encoded(lines)
        await self._cached(made)
        return made

    async def _event_block(self, part: records.Part, selection: Selection, every: I64, number: int) -> _Run:
        """Return a block of an entry's matching rows as events, encoded by the first who asks."""
        key = (part.entry, selection, number, Form.SSE.value)
        known = self._runs.get(key)
        if known is not None:
            self._runs.move_to_end(key)
            return known
        rows = every[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
        prefix = self._prefix(part)
        lines = records.json_lines(self.masks.seen(part.batch, part.entry, selection.mask), rows, part.entry, prefix)
        places = [prefix + row_text(row) for row in rows.tolist()]
        made = _Run([f"id: {place}\ndata: {line}\n\n" for place, line in zip(places, lines, strict=True)])
        self._runs[key] = made
        self._runs_bytes += made.size
        while self._runs_bytes > self._cache_bytes_max and len(self._runs) > 1:
            self._runs_bytes -= self._runs.popitem(last=False)[1].size
        await self._turn()
        return made

    async def _cached(self, made: _Encoded) -> None:
        self._cache_bytes += made.size
        while self._cache_bytes > self._cache_bytes_max and len(self._cache) > 1:
            self._cache_bytes -= self._cache.popitem(last=False)[1].size
        await self._turn()

    # ── a stream ──────────────────────────────────────────────────────────────────────────────────────

    async def stream(  # noqa: PLR0912 - one loop: history, then live; the quota, silence, what has changed
        self,
        admit: Callable[[], Admission],
        start: Cursor,
        *,
        heartbeat_s: float,
        at: Callable[[Cursor], None] = lambda _place: None,
    ) -> AsyncGenerator[Events, None]:
        """Yield what follows `start` as server-sent events, for ever; a comment after `heartbeat_s` of silence.

        `admit` is asked at the start and about every second: what it raises (a revoked token or grant, a feed that is
        gone) ends the stream, and what it narrows is narrowed from there on. Nothing is read ahead of the consumer.
        `at` is told how far it is.

        Raises:
            Overloaded: the volume of the grant is used up. A rate is waited for.
        """
        loop = asyncio.get_running_loop()
        place, admission, checked, spoken, beats = start, admit(), loop.time(), loop.time(), 0
        self._streams += 1
        try:
            while True:
                at(place)
                span = await self.reader.read(_before(place))
                if span.end > place.sequence and not self.reader.holds(place.sequence):
                    await self.reader.demand_kept(place)
                if loop.time() - checked >= _RECHECK_S:
                    admission, checked = admit(), loop.time()
                if span.end <= place.sequence and not span.slots:
                    if not await self.reader.wait(place.sequence, min(_RECHECK_S, heartbeat_s)):
                        if loop.time() - spoken >= heartbeat_s:
                            beats, spoken = beats + 1, loop.time()
                            yield _beat(place, beats)
                        admission, checked = admit(), loop.time()
                    continue
                for slot in span.slots:
                    rows = await self._left(slot, admission.selection, place)
                    while len(rows):
                        if events := await self._events(slot, rows, admission):
                            yield events
                            spoken = loop.time()
                            place = self.reader.after(slot.sequence, slot.stored, int(rows[events.count - 1]))
                            at(place)
                            rows = rows[events.count :]
                        elif admission.allowance:
                            await asyncio.sleep(min(_RECHECK_S, max(0.01, admission.allowance.wait_s(1))))
                            if loop.time() - spoken >= heartbeat_s:
                                beats, spoken = beats + 1, loop.time()
                                yield _beat(place, beats)
                        if loop.time() - checked >= _RECHECK_S:
                            before, admission, checked = admission, admit(), loop.time()
                            if admission.selection != before.selection:
                                rows = await self._left(slot, admission.selection, place)
                place = self.reader.after(max(span.end, place.sequence), span.stored)
        finally:
            self._streams -= 1

    async def _events(self, slot: Slot, rows: I64, admission: Admission) -> Events | None:
        """Return the first of these rows as events; a whole block is the same bytes for all equal subscribers.

        None: the rate of the grant lets nothing through now.
        """
        selection, allowance = admission.selection, admission.allowance
        assert selection is not None  # noqa: S101 - nothing matches it otherwise
        every = self._matching(slot.batch, slot.sequence, selection)
        first = int(np.searchsorted(every, rows[0]))
        number = first // BLOCK_ROWS
        part = records.Part(slot.batch, rows, slot.sequence, slot.stored)
        block = await self._event_block(part, selection, every, number)
        begin = first - number * BLOCK_ROWS
        end = min(begin + len(rows), len(block))
        if allowance is not None:
            room = allowance.room(end - begin)
            if not room:
                return None
            end = begin + room
            allowance.take(room)
        return Events(block.cut(begin, end), end - begin, admission.grant_id)


class _Encoded:
    """Records of one block as texts."""

    __slots__ = ("lines", "size")

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.size = sum(map(len, lines)) + 56 * len(lines)


class _Run:
    """Records of one block as one run of bytes: all equal subscribers are sent the same object."""

    __slots__ = ("_ends", "body", "size")

    def __init__(self, lines: list[str]) -> None:
        self.body = "".join(lines).encode()
        lengths = [len(line) for line in lines]
        if sum(lengths) != len(self.body):
            lengths = [len(line.encode()) for line in lines]
        self._ends = np.cumsum([0, *lengths])
        self.size = len(self.body) + self._ends.nbytes

    def __len__(self) -> int:
        return len(self._ends) - 1

    def cut(self, begin: int, end: int) -> bytes:
        """Return some of the records; of all of them the run itself."""
        return self.body[self._ends[begin] : self._ends[end]]


def _beat(place: Cursor, number: int) -> Events:
    """Return a sign of life: a comment, and now and then the cursor, so that a quiet feed need not look back far."""
    return Events(f"id: {place}\n\n".encode() if number % _BEATS_PER_CURSOR == 0 else b": still here\n\n", 0)


def _before(place: Cursor) -> int:
    """Return the sequence to read after: the entry itself comes again if rows of it may be left."""
    return place.sequence if place.row == END else place.sequence - 1


_NONE = np.zeros(0, np.int64)
