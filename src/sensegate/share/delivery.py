"""Pages and streams of a feed: history first, then live, with one cursor, in matching encoding.

Each entry of the log is filtered by a selection and encoded once per form; equal subscribers share the bytes. A slow
subscriber needs no queue here, since the log is its queue and its cursor the position.
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

from sensegate.bus.columns import Batch
from sensegate.model import I64
from sensegate.share import json_records, line_protocol, parquet, projection, records, scans, senml
from sensegate.share.cursor import END, Cursor
from sensegate.share.device_texts import DeviceTexts
from sensegate.share.feeds import FeedFilter, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.masks import Mask, Masks
from sensegate.share.matching import filtered_rows, matches
from sensegate.share.reader import LogReader, RowsEntry

BLOCK_ROWS = 1_000
"""Rows encoded at a time; other tasks run between blocks."""
EVENT_ROWS = 2_000
"""The same for server-sent events, each block of which is written and accounted for: with 1,000 a message of six values
took the gateway 1 to 2 µs longer, more than 2,000 gain nothing."""
_SETS_MAX, _SET_ROWS_MAX = 4_096, 2_000_000
"""Most cached sets of matching rows, and most rows in all of them (8 bytes each)."""
_TEXTS_MAX = 16
"""Most entries of which parts of records are cached."""
_SCAN_S = 10.0
"""Longest scan without a match; the returned cursor has then advanced."""
_CATCH_UP_S = 1.0
_HEARTBEATS_PER_CURSOR = 40
_SLICE_S = 0.004
"""Time slice of all streams together before other tasks run, as long as that of the ingest."""
_RECHECK_S = 1.0
"""Interval of the admission checks of an open stream."""


class RecordEncoding(StrEnum):
    """Encoding of records."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    MSGPACK = "msgpack"
    SENML = "senml"
    LINE = "line"
    """InfluxDB line protocol."""
    PARQUET = "parquet"
    GEOJSON = "geojson"
    SSE = "sse"


class FeedPage(msgspec.Struct, frozen=True):
    """Page of records."""

    body: bytes
    count: int
    next: str
    """Cursor after the last record scanned; continuing there skips and repeats nothing. Empty: nothing can follow."""
    grant: str = ""
    """Grant by which the page is read; empty: by the scope of the token."""


class Events(msgspec.Struct, frozen=True):
    """Part of an event stream, encoded; without records it is a heartbeat."""

    body: bytes
    count: int
    grant: str = ""


class PageOptions(msgspec.Struct, frozen=True):
    """Ways in which a page is read."""

    scan_s: float = _SCAN_S
    """Longest time of a scan that finds nothing."""
    confirm_end: bool = True
    """Ask the log itself whether it has entries that the reader has not read yet; needless for a caller that repeats
    at once."""
    exact: bool = False
    """`next` is the cursor just after the last record, so that the same records, read again, are the same page."""
    until: int | None = None
    """Only entries that were stored before this time (µs UTC); once all of them are scanned, `next` is empty."""
    fields: tuple[str, ...] = ()
    """As in `projection`."""


USUAL_PAGE = PageOptions()


class FeedServer:
    """Serves pages and streams of any selection from one reader."""

    def __init__(
        self,
        reader: LogReader,
        *,
        masks: Masks | None = None,
        cache_bytes_max: int = 33_554_432,
        page_max: int = 10_000,
    ) -> None:
        self.reader = reader
        self.masks = masks or Masks(os.urandom(32))
        self.page_max = page_max
        self._cache: OrderedDict[tuple[int, FeedSelection, int, str], _EncodedBlock] = OrderedDict()
        self._rows: OrderedDict[tuple[int, FeedSelection], I64] = OrderedDict()
        self._rows_count = 0
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max
        self._event_blocks: OrderedDict[tuple[int, FeedSelection, int, str], _EventBlock] = OrderedDict()
        self._event_blocks_bytes = 0
        self._texts: OrderedDict[tuple[int, Mask], json_records.RecordTexts] = OrderedDict()
        self._device_texts = DeviceTexts()
        self._bodies: OrderedDict[tuple[FeedSelection | None, _PageEncoding, Cursor, Cursor], bytes] = OrderedDict()
        self._bodies_bytes = 0
        self._streams = 0
        self._delivered: dict[object, int] = {}
        """Open stream -> sequence up to which it has delivered, unless it waits for its consumer or reads history."""
        self._yielded_at = 0.0

    def has_delivered(self, sequence: int) -> bool:
        """Return whether the open streams have delivered the log up to a sequence; True where there is none.

        Streams that wait for a slow consumer or a quota, or read history, do not count: they need no processor time.
        """
        return not self._delivered or min(self.reader.end, *self._delivered.values()) >= sequence

    async def _yield_to_others(self) -> None:
        """Yield to other tasks when the time slice is used up; more often would starve streams under load."""
        if time.monotonic() - self._yielded_at >= _SLICE_S / max(1, self._streams):
            await asyncio.sleep(0)
            self._yielded_at = time.monotonic()

    # ── one page ──────────────────────────────────────────────────────────────────────────────────────

    async def page(
        self,
        selection: FeedSelection | None,
        start: Cursor,
        form: RecordEncoding,
        limit: int,
        wait_s: float,
        options: PageOptions = USUAL_PAGE,
    ) -> FeedPage:
        """Return at most `limit` records after `start`; if there are none, wait up to `wait_s` for the first.

        An empty page means that there are no more records, unless the scan took its time; `next` has then advanced.

        Raises:
            Unavailable: the log does not respond.
        """
        until = options.until
        loop = asyncio.get_running_loop()
        wait_until, scan_until = loop.time() + wait_s, loop.time() + max(wait_s, options.scan_s)
        position, parts, count, confirmed = start, list[records.RowSlice](), 0, not options.confirm_end
        is_complete = False
        while count < limit and not is_complete:
            span = await self.reader.read(_sequence_before(position))
            if span.end > position.sequence and not self.reader.is_in_memory(position.sequence):
                await self.reader.demand_retained(position)
            if span.end <= position.sequence and not span.entries:
                if count or not await self.reader.wait(position.sequence, max(wait_until - loop.time(), 0)):
                    # Before the log is asked: what it stores after that is not stored before `until`.
                    is_past = self.reader.is_past(until)
                    if count or confirmed or not await self.reader.log_is_ahead(position.sequence):
                        is_complete = not count and is_past and await self.reader.is_at_end(position.sequence)
                        break
                    # Records that a caller knows to be committed must be found, even if not read here yet.
                    confirmed = True
                    await self.reader.wait(position.sequence, _CATCH_UP_S)
                continue
            for entry in span.entries:
                if until is not None and entry.stored >= until:
                    is_complete = True
                    break
                rows = await self._remaining_rows(entry, selection, position)
                if len(rows):
                    rows = rows[: limit - count]
                    parts.append(records.RowSlice(entry.batch, rows, entry.sequence, entry.stored))
                    count += len(rows)
                    position = self.reader.after(entry.sequence, entry.stored, int(rows[-1]))
                if count == limit:
                    break
            else:
                position = self.reader.after(max(span.end, position.sequence), span.stored)
                is_complete = until is not None and span.stored >= until
            if loop.time() > scan_until:
                break
        if parts and options.exact:
            position = self.reader.after(parts[-1].entry, parts[-1].stored, int(parts[-1].rows[-1]))
        following = "" if is_complete else str(position)
        encoding = _PageEncoding(form, options.fields, following)
        return FeedPage(await self._cached_body(parts, selection, encoding, start, position), count, following)

    async def page_back(
        self,
        selection: FeedSelection | None,
        start: Cursor,
        form: RecordEncoding,
        limit: int,
        *,
        since: int = 0,
        fields: tuple[str, ...] = (),
    ) -> FeedPage:
        """Return at most `limit` records before `start`, the last to arrive first.

        Only entries that were stored at or after `since` (µs UTC). `next` is the cursor before which to continue;
        empty: no earlier records are left.

        Raises:
            Unavailable: the log does not respond.
        """
        loop = asyncio.get_running_loop()
        scan_until = loop.time() + _SCAN_S
        position, parts, count, is_complete = start, list[records.RowSlice](), 0, False
        while count < limit and not is_complete:
            span = await self.reader.read_back(position.sequence + 1 if position.row else position.sequence)
            for entry in span.entries:
                if entry.stored < since:
                    is_complete = True
                    break
                rows = await self._preceding_rows(entry, selection, position)
                position = self.reader.after(entry.sequence, entry.stored, 0)
                if len(rows):
                    rows = rows[-(limit - count) :]
                    parts.append(records.RowSlice(entry.batch, rows[::-1], entry.sequence, entry.stored))
                    count += len(rows)
                    position = self.reader.after(entry.sequence, entry.stored, int(rows[0]))
                if count == limit:
                    break
            else:
                is_complete = span.end == 0 or span.stored < since
                if not is_complete:
                    # When that entry was stored is not known here; 0 is never too late.
                    position = self.reader.after(span.end, 0, END)
            if loop.time() > scan_until:
                break
        following = "" if is_complete else str(position)
        encoding = _PageEncoding(form, fields, following, backward=True)
        return FeedPage(await self._cached_body(parts, selection, encoding, start, position), count, following)

    async def _preceding_rows(self, entry: RowsEntry, selection: FeedSelection | None, position: Cursor) -> I64:
        """Return the rows of an entry before a cursor that match the selection, ascending."""
        if selection is None or not selection.wants_subject(entry.subject):
            return _NO_ROWS
        scans.add(len(entry.batch))
        rows = self._matching(entry.batch, entry.sequence, selection)
        if entry.sequence == position.sequence:
            rows = rows[: np.searchsorted(rows, position.row)]
        await self._yield_to_others()
        return rows

    def _prefix(self, part: records.RowSlice) -> str:
        """Return the common prefix of the cursors of an entry's rows."""
        return self.reader.after(part.entry, part.stored).prefix

    async def _remaining_rows(self, entry: RowsEntry, selection: FeedSelection | None, position: Cursor) -> I64:
        """Return the rows of an entry after a cursor that match the selection."""
        if selection is None or not selection.wants_subject(entry.subject):
            return _NO_ROWS
        scans.add(len(entry.batch))
        rows = self._matching(entry.batch, entry.sequence, selection)
        if entry.sequence == position.sequence:
            rows = rows[np.searchsorted(rows, position.row, side="right") :]
        await self._yield_to_others()
        return rows

    def _matching(self, batch: Batch, entry: int, selection: FeedSelection) -> I64:
        key = (entry, selection)
        rows = self._rows.get(key)
        if rows is not None:
            self._rows.move_to_end(key)
            return rows
        rows = matches(batch, selection)
        if selection.masked_filter != FeedFilter():
            rows = filtered_rows(self.masks.masked(batch, entry, selection.mask), rows, selection.masked_filter)
        self._rows[key] = rows
        self._rows_count += len(rows)
        while len(self._rows) > 1 and (len(self._rows) > _SETS_MAX or self._rows_count > _SET_ROWS_MAX):
            self._rows_count -= len(self._rows.popitem(last=False)[1])
        return rows

    async def _cached_body(
        self,
        parts: list[records.RowSlice],
        selection: FeedSelection | None,
        encoding: _PageEncoding,
        start: Cursor,
        position: Cursor,
    ) -> bytes:
        """Return the body of a page; equal subscribers at the same cursor share its bytes."""
        key = (selection, encoding, start, position)
        if (known := self._bodies.get(key)) is not None:
            self._bodies.move_to_end(key)
            return known
        body = await self._body(parts, selection, encoding)
        if parts and key not in self._bodies:
            self._bodies[key] = body
            self._bodies_bytes += len(body)
            while self._bodies_bytes > self._cache_bytes_max // 2 and len(self._bodies) > 1:
                self._bodies_bytes -= len(self._bodies.popitem(last=False)[1])
        return body

    async def _body(
        self, parts: list[records.RowSlice], selection: FeedSelection | None, encoding: _PageEncoding
    ) -> bytes:
        form, following = encoding.form, encoding.following
        if form in {RecordEncoding.MSGPACK, RecordEncoding.PARQUET}:
            if selection is not None and selection.mask:
                mask = partial(self.masks.masked, mask=selection.mask)
                parts = [msgspec.structs.replace(part, batch=mask(part.batch, part.entry)) for part in parts]
            if form is RecordEncoding.PARQUET:
                return await asyncio.to_thread(parquet.encode_records, parts, following, self._prefix)
            return records.columns(parts, following)
        lines: list[str] = []
        for part in parts if selection is not None else ():
            assert selection is not None  # noqa: S101 - for the type checker
            if encoding.fields or form is RecordEncoding.GEOJSON:
                lines += await self._projected_lines(part, selection, encoding)
            else:
                lines += await self._lines(part, selection, encoding)
        return _joined(lines, encoding).encode()

    async def _projected_lines(
        self, part: records.RowSlice, selection: FeedSelection, encoding: _PageEncoding
    ) -> list[str]:
        """Return the records of a slice with chosen fields, or as features; in blocks, so that other tasks run."""
        masked = msgspec.structs.replace(part, batch=self.masks.masked(part.batch, part.entry, selection.mask))
        lines: list[str] = []
        for first in range(0, len(part.rows), BLOCK_ROWS):
            block = msgspec.structs.replace(masked, rows=part.rows[first : first + BLOCK_ROWS])
            lines += projection.lines(block, self._prefix(part), encoding.form, encoding.fields)
            await self._yield_to_others()
        return lines

    async def _lines(self, part: records.RowSlice, selection: FeedSelection, encoding: _PageEncoding) -> list[str]:
        """Return the encoded records of a slice, whose rows are contiguous among the matching rows of its entry."""
        matching = self._matching(part.batch, part.entry, selection)
        first = int(np.searchsorted(matching, part.rows[-1 if encoding.backward else 0]))
        last = first + len(part.rows)
        lines: list[str] = []
        for number in range(first // BLOCK_ROWS, (last - 1) // BLOCK_ROWS + 1):
            offset = number * BLOCK_ROWS
            block = await self._block(part, selection, encoding.form, matching, number)
            lines += block.lines[max(first - offset, 0) : last - offset]
        return lines[::-1] if encoding.backward else lines

    async def _block(
        self, part: records.RowSlice, selection: FeedSelection, form: RecordEncoding, matching: I64, number: int
    ) -> _EncodedBlock:
        """Return an encoded block of an entry's matching rows, from the cache if possible."""
        key = (part.entry, selection, number, "json" if form is RecordEncoding.NDJSON else form.value)
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        rows = matching[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
        prefix = self._prefix(part)
        batch = self.masks.masked(part.batch, part.entry, selection.mask)
        if form is RecordEncoding.CSV:
            lines = records.csv_lines(batch, rows, part.entry, prefix)
        elif form is RecordEncoding.SENML:
            lines = senml.lines(batch, rows, part.entry, prefix)
        elif form is RecordEncoding.LINE:
            lines = line_protocol.lines(batch, rows)
        else:
            texts = self._record_texts(batch, part.entry, selection)
            lines = json_records.json_lines(batch, rows, part.entry, prefix, texts)
        block = self._cache[key] = _EncodedBlock(lines)
        await self._account_block(block)
        return block

    async def _event_block(
        self, part: records.RowSlice, selection: FeedSelection, matching: I64, number: int
    ) -> _EventBlock:
        """Return a block of an entry's matching rows as events, from the cache if possible."""
        key = (part.entry, selection, number, RecordEncoding.SSE.value)
        known = self._event_blocks.get(key)
        if known is not None:
            self._event_blocks.move_to_end(key)
            return known
        rows = matching[number * EVENT_ROWS : (number + 1) * EVENT_ROWS]
        prefix = self._prefix(part)
        batch = self.masks.masked(part.batch, part.entry, selection.mask)
        texts = self._record_texts(batch, part.entry, selection)
        block = _EventBlock(json_records.events(batch, rows, part.entry, prefix, texts), len(rows))
        self._event_blocks[key] = block
        self._event_blocks_bytes += block.size
        # A single stream has nobody to share with: memory that is used again at once is still in the processor's cache.
        bytes_max = self._cache_bytes_max if self._streams > 1 else 0
        while self._event_blocks_bytes > bytes_max and len(self._event_blocks) > 1:
            self._event_blocks_bytes -= self._event_blocks.popitem(last=False)[1].size
        await self._yield_to_others()
        return block

    def _record_texts(self, batch: Batch, entry: int, selection: FeedSelection) -> json_records.RecordTexts:
        """Return the cached parts of the records of a masked batch."""
        key = (entry, selection.mask)
        texts = self._texts.pop(key, None) or json_records.RecordTexts(batch, self._device_texts)
        self._texts[key] = texts
        while len(self._texts) > _TEXTS_MAX:
            self._texts.popitem(last=False)
        return texts

    async def _account_block(self, block: _EncodedBlock) -> None:
        self._cache_bytes += block.size
        while self._cache_bytes > self._cache_bytes_max and len(self._cache) > 1:
            self._cache_bytes -= self._cache.popitem(last=False)[1].size
        await self._yield_to_others()

    # ── a stream ──────────────────────────────────────────────────────────────────────────────────────

    async def stream(  # noqa: PLR0912 - one loop: history, live, quota, heartheartbeats, admission
        self,
        admit: Callable[[], Admission],
        start: Cursor,
        *,
        heartbeat_s: float,
        advance: Callable[[Cursor], None] = lambda _cursor: None,
    ) -> AsyncGenerator[Events, None]:
        """Yield the records after `start` as server-sent events; a comment after `heartbeat_s` of silence.

        `admit` is called at the start and about every second: its errors (a revoked token or grant, a deleted feed)
        end the stream, and a narrower admission applies from then on. Nothing is read ahead of the consumer.
        `advance` is called with the cursor as the stream advances.

        Raises:
            Overloaded: the monthly volume of the grant is used up. The rate is waited for.
        """
        loop = asyncio.get_running_loop()
        position, admission, checked, last_sent, heartbeats = start, admit(), loop.time(), loop.time(), 0
        self._streams += 1
        stream = object()
        try:
            while True:
                advance(position)
                span = await self.reader.read(_sequence_before(position))
                if span.end > position.sequence and not self.reader.is_in_memory(position.sequence):
                    await self.reader.demand_retained(position)
                self._note_delivered(stream, position)
                if loop.time() - checked >= _RECHECK_S:
                    admission, checked = admit(), loop.time()
                if span.end <= position.sequence and not span.entries:
                    if not await self.reader.wait(position.sequence, min(_RECHECK_S, heartbeat_s)):
                        if loop.time() - last_sent >= heartbeat_s:
                            heartbeats, last_sent = heartbeats + 1, loop.time()
                            yield _heartbeat(position, heartbeats)
                        admission, checked = admit(), loop.time()
                    continue
                for entry in span.entries:
                    rows = await self._remaining_rows(entry, admission.selection, position)
                    while len(rows):
                        if events := await self._events(entry, rows, admission):
                            self._delivered.pop(stream, None)
                            yield events
                            last_sent = loop.time()
                            position = self.reader.after(entry.sequence, entry.stored, int(rows[events.count - 1]))
                            advance(position)
                            self._note_delivered(stream, position)
                            rows = rows[events.count :]
                        elif admission.quota:
                            self._delivered.pop(stream, None)
                            await asyncio.sleep(min(_RECHECK_S, max(0.01, admission.quota.wait_s(1))))
                            if loop.time() - last_sent >= heartbeat_s:
                                heartbeats, last_sent = heartbeats + 1, loop.time()
                                yield _heartbeat(position, heartbeats)
                        if loop.time() - checked >= _RECHECK_S:
                            before, admission, checked = admission, admit(), loop.time()
                            if admission.selection != before.selection:
                                rows = await self._remaining_rows(entry, admission.selection, position)
                position = self.reader.after(max(span.end, position.sequence), span.stored)
        finally:
            self._streams -= 1
            self._delivered.pop(stream, None)

    def _note_delivered(self, stream: object, position: Cursor) -> None:
        before = _sequence_before(position)
        if self.reader.is_in_memory(before):
            self._delivered[stream] = before
        else:
            self._delivered.pop(stream, None)

    async def _events(self, entry: RowsEntry, rows: I64, admission: Admission) -> Events | None:
        """Return the first of these rows as events; equal subscribers share the bytes of a whole block.

        None: the rate of the grant permits nothing now.
        """
        selection, quota = admission.selection, admission.quota
        assert selection is not None  # noqa: S101 - without a selection no row matches
        matching = self._matching(entry.batch, entry.sequence, selection)
        first = int(np.searchsorted(matching, rows[0]))
        number = first // EVENT_ROWS
        part = records.RowSlice(entry.batch, rows, entry.sequence, entry.stored)
        block = await self._event_block(part, selection, matching, number)
        begin = first - number * EVENT_ROWS
        end = min(begin + len(rows), len(block))
        if quota is not None:
            room = quota.available(end - begin)
            if not room:
                return None
            end = begin + room
            quota.consume(room)
        return Events(block.cut(begin, end), end - begin, admission.grant_id)


class _PageEncoding(msgspec.Struct, frozen=True):
    """Encoding of a page, beside its rows."""

    form: RecordEncoding
    fields: tuple[str, ...] = ()
    """As in `projection`; empty: all."""
    following: str = ""
    """Cursor that the page names as `next`."""
    backward: bool = False
    """True if the rows of each slice descend."""


def _joined(lines: list[str], encoding: _PageEncoding) -> str:
    """Return the body of a page of encoded records."""
    following = encoding.following
    match encoding.form:
        case RecordEncoding.CSV:
            header = ",".join(encoding.fields) or records.CSV_COLUMNS
            return "".join(f"{line}\r\n" for line in (header, *lines))
        case RecordEncoding.NDJSON | RecordEncoding.LINE:
            return "".join(f"{line}\n" for line in lines)
        case RecordEncoding.SENML:
            return f"[{','.join(lines)}]"
        case RecordEncoding.GEOJSON:
            return f'{{"type":"FeatureCollection","features":[{",".join(lines)}],"next":"{following}"}}'
    return f'{{"records":[{",".join(lines)}],"next":"{following}"}}'


class _EncodedBlock:
    """Block of encoded records."""

    __slots__ = ("lines", "size")

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.size = sum(map(len, lines)) + 56 * len(lines)


class _EventBlock:
    """Block of records as server-sent events, one bytes object that equal subscribers share."""

    __slots__ = ("_count", "_ends", "body", "size")

    def __init__(self, body: bytes, count: int) -> None:
        self.body = body
        self._count = count
        self._ends: I64 | None = None
        self.size = len(body) + 8 * count

    def __len__(self) -> int:
        return self._count

    def cut(self, begin: int, end: int) -> bytes:
        """Return the bytes of some of the records."""
        if not begin and end == self._count:
            return self.body
        if self._ends is None:
            # JSON has no line feed: two of them end an event.
            feeds = np.frombuffer(self.body, np.uint8) == ord("\n")
            ends = np.flatnonzero(feeds[1:] & feeds[:-1]) + 2
            self._ends = np.concatenate([[0], ends])
        return self.body[self._ends[begin] : self._ends[end]]


def _heartbeat(position: Cursor, number: int) -> Events:
    """Return a heartbeat: a comment, or periodically the cursor, so that a resumed quiet feed need not scan far."""
    return Events(f"id: {position}\n\n".encode() if number % _HEARTBEATS_PER_CURSOR == 0 else b": heartbeat\n\n", 0)


def _sequence_before(position: Cursor) -> int:
    """Return the sequence after which to read: the entry itself is read again if it may have further rows."""
    return position.sequence if position.row == END else position.sequence - 1


_NO_ROWS = np.zeros(0, np.int64)
