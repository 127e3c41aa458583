"""The last value of every series that a caller gets of a feed: as pages, and as a stream of changes.

Series are chosen on the columns of `LastValues` as far as nothing is masked there, then masked, then filtered by the
request, as for records. A page names the cursor of the log up to which its values hold: whoever reads the records
after it misses no change.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import msgspec
import numpy as np

from sensegate.authority.scope import Principal
from sensegate.bus.batch import Batch
from sensegate.clock import MINUTE_US
from sensegate.errors import Gone
from sensegate.model import BOOL, F64, I64
from sensegate.share import projection, records, scans
from sensegate.share.cursor import row_text
from sensegate.share.delivery import Events, RecordEncoding
from sensegate.share.feeds import READING, FeedFilter, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.last_values import LastValues, SeriesView
from sensegate.share.masks import DEVICE, PLACE, Mask, hidden_rows, snap_to_grid
from sensegate.share.matching import SECONDARY, distance_m, filtered_rows, is_inside
from sensegate.share.quota import read_within_quota
from sensegate.share.sharing import Sharing, demand_volume

FORMS: tuple[RecordEncoding, ...] = (
    RecordEncoding.JSON,
    RecordEncoding.NDJSON,
    RecordEncoding.CSV,
    RecordEncoding.GEOJSON,
    RecordEncoding.MSGPACK,
)
"""Forms of last values."""
_SEARCHED = 16_384
"""Series that are compared with a selection at a time; other tasks run in between."""
_CHUNK = 2_000
"""Series that are masked at a time; other tasks run between chunks."""
_BLOCK = 500
"""Most records of one event block."""
_RECHECK_S = 1.0


class LatestRequest(msgspec.Struct, frozen=True):
    """Request for the last values of a feed."""

    feed: str
    wanted: FeedFilter = FeedFilter()
    after: str = ""
    """`next` of the previous page; empty: the first page."""
    fields: tuple[str, ...] = ()


class LatestPage(msgspec.Struct, frozen=True):
    """Page of last values."""

    body: bytes
    count: int
    next: str
    """Start of the next page; empty: this is the last page."""
    cursor: str
    """Cursor of the log up to which the values hold."""
    grant: str = ""


class MaskedValues(msgspec.Struct, frozen=True, eq=False):
    """Masked last values of one node and partition that match a request."""

    batch: Batch
    rows: I64
    number: I64
    entry: I64
    row: I64


class LatestReader:
    """Reads last values within the caller's admission."""

    def __init__(self, values: LastValues, sharing: Sharing) -> None:
        self.values = values
        self._sharing = sharing
        self._secret = os.urandom(32)
        """Key that hides the series numbers in page tokens: they are local to this process and reveal their count."""

    # ── pages ─────────────────────────────────────────────────────────────────────────────────────────

    async def page(self, principal: Principal, request: LatestRequest, *, form: str, limit: int) -> LatestPage:
        """Return last values, within the quota of the grant.

        Raises:
            NotFound, PermissionDenied: as `Grants.admit`.
            Gone: `after` is of a previous run of the gateway.
            Overloaded: the quota permits nothing now.
        """
        admission = self._sharing.admit(principal, request.feed, request.wanted, "http", form)
        first = self._number_of(request.after)
        await self._sharing.reader.catch_up()

        async def read(most: int) -> LatestPage:
            cursor = str(self._sharing.reader.position)
            parts, following = await self._parts(admission.selection, first, most)
            name = "" if following is None else self._name_of(following)
            body = self._body(parts, RecordEncoding(form), request.fields, name, cursor)
            return LatestPage(body, sum(len(part.rows) for part in parts), name, cursor, admission.grant_id)

        return await read_within_quota(admission.quota, limit, read)

    async def _parts(
        self, selection: FeedSelection | None, first: int, most: int
    ) -> tuple[list[MaskedValues], int | None]:
        """Return matching values from a series number on, and the number of the next series; None: there is none."""
        parts: list[MaskedValues] = []
        if selection is None or not includes_readings(selection):
            return parts, None
        room, end = most, len(self.values)
        pending = np.zeros(0, np.int64)
        for start in range(first, end, _SEARCHED):
            if start > first:
                await asyncio.sleep(0)
            searched = np.arange(start, min(start + _SEARCHED, end))
            numbers = self.matching_series(selection, searched)
            scans.add(len(searched) - len(numbers))
            pending = np.concatenate([pending, numbers])
            while len(pending) > room or (start + _SEARCHED >= end and len(pending)):
                chunk, pending = np.split(pending, [min(_CHUNK, room + 1)])
                matching = list(self.masked(selection, chunk))
                count = sum(len(part.rows) for part in matching)
                if count > room:
                    # The parts of several nodes interleave: cut at one number for all.
                    last = np.sort(np.concatenate([part.number for part in matching]))[room]
                    parts += [cut for part in matching if len((cut := _before(part, int(last))).rows)]
                    return parts, int(last)
                parts += matching
                room -= count
                await asyncio.sleep(0)
        return parts, None

    def matching_series(self, selection: FeedSelection, numbers: I64) -> I64:
        """Return the series, of those given, that may match: conditions on what is not masked, and on the area."""
        view = self.values.view()
        # What leaves the fewest comes first: a condition reads a row of memory for each series that is left.
        if selection.devices:
            numbers = numbers[np.isin(view.device[numbers], self._device_numbers(selection.devices))]
        if selection.masked_filter.devices and DEVICE not in selection.mask.hash:
            numbers = numbers[np.isin(view.device[numbers], self._device_numbers(selection.masked_filter.devices))]
        if selection.properties:
            wanted = _admitted(self.values.properties, lambda name: records.base_name(name) in selection.properties)
            numbers = numbers[wanted[view.property[numbers]]]
        numbers = numbers[view.grade[numbers] <= selection.grade_max]
        conditions: list[tuple[str, Callable[[str], bool]]] = []
        if selection.divisions:
            conditions.append(("division", lambda code: code.startswith(selection.divisions)))
        if selection.departments:
            conditions.append(("department", selection.departments.__contains__))
        if selection.domains:
            conditions.append(("domain", selection.domains.__contains__))
        for column, admits in conditions:
            numbers = numbers[_admitted(self.values.words(column), admits)[getattr(view, column)[numbers]]]
        if not selection.secondary_sources:
            numbers = numbers[(view.flags[numbers] & SECONDARY) == 0]
        return _in_area(view, numbers, selection.masked_filter, selection.mask)

    def _device_numbers(self, devices: Sequence[str]) -> list[int]:
        return [number for device in devices for number in self.values.device_numbers(device)]

    def masked(self, selection: FeedSelection, numbers: I64) -> Iterator[MaskedValues]:
        """Yield the masked values of series, without those that the mask or the filter of the request leaves out."""
        masks = self._sharing.server.masks
        scans.add(len(numbers))
        for last in self.values.batches(numbers):
            rows = np.arange(len(last.batch))
            batch = last.batch
            if selection.mask:
                rows = rows[~hidden_rows(batch, selection.mask)]
                batch = masks.apply(batch, selection.mask)
            if selection.masked_filter != FeedFilter():
                rows = filtered_rows(batch, rows, selection.masked_filter)
            if len(rows):
                yield MaskedValues(batch, rows, last.number[rows], last.entry[rows], last.row[rows].astype(np.int64))

    def _body(
        self, parts: list[MaskedValues], form: RecordEncoding, fields: tuple[str, ...], following: str, cursor: str
    ) -> bytes:
        if form is RecordEncoding.MSGPACK:
            return records.columns([records.RowSlice(part.batch, part.rows, 0, 0) for part in parts], following)
        lines = [line for part in parts for line in self._lines(part, form, fields)]
        match form:
            case RecordEncoding.CSV:
                header = ",".join(fields) or records.CSV_COLUMNS
                return "".join(f"{line}\r\n" for line in (header, *lines)).encode()
            case RecordEncoding.NDJSON:
                return "".join(f"{line}\n" for line in lines).encode()
            case RecordEncoding.GEOJSON:
                head = '{"type":"FeatureCollection","features":['
                return f'{head}{",".join(lines)}],"next":"{following}","cursor":"{cursor}"}}'.encode()
        return f'{{"records":[{",".join(lines)}],"next":"{following}","cursor":"{cursor}"}}'.encode()

    def _lines(self, part: MaskedValues, form: RecordEncoding, fields: tuple[str, ...]) -> list[str]:
        after = self._sharing.reader.after
        # An entry is stored after its readings arrived: what they tell here is never too late for a cursor.
        minutes = (part.batch.received[part.rows] // MINUTE_US).tolist()
        entries = [*zip(part.entry.tolist(), minutes, strict=True)]
        prefixes = {place: after(place[0], place[1] * MINUTE_US).prefix for place in set(entries)}
        cursors = [prefixes[place] + row_text(row) for place, row in zip(entries, part.row.tolist(), strict=True)]
        return projection.lines(records.RowSlice(part.batch, part.rows, 0, 0), "", form, fields, cursors)

    def _name_of(self, number: int) -> str:
        """Return the name of the page that starts with a series."""
        key = int.from_bytes(self._secret[:8], "big")
        text = f"{number ^ key:016x}"
        return text + self._seal(text)

    def _seal(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=8).hexdigest()

    def _number_of(self, name: str) -> int:
        """Return the first series of a page. Raises `Gone`."""
        if not name:
            return 0
        text = name[:16]
        if (
            not name.isascii()
            or hashlib.blake2b(text.encode(), key=self._secret, digest_size=8).hexdigest() != name[16:]
        ):
            raise Gone("after: is not of this run of the gateway; start without it", first="")
        return int(text, 16) ^ int.from_bytes(self._secret[:8], "big")

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────

    async def open_stream(
        self,
        current_principal: Callable[[], Principal],
        request: LatestRequest,
        *,
        heartbeat_s: float,
        interval_s: float,
    ) -> AsyncGenerator[Events, None]:
        """Return the last values as server-sent events: all first, then those that changed.

        A value that changes several times in `interval_s`, or faster than the subscriber or its quota takes it, is
        sent once, as it is then. `current_principal` as in `Sharing.open_stream`.

        Raises:
            NotFound, PermissionDenied, Overloaded: before the first event.
        """

        def admit() -> Admission:
            return self._sharing.admit(current_principal(), request.feed, request.wanted, "sse", RecordEncoding.JSON)

        demand_volume(admit())
        return self._stream(admit, request.fields, heartbeat_s, interval_s)

    async def _stream(
        self, admit: Callable[[], Admission], fields: tuple[str, ...], heartbeat_s: float, interval_s: float
    ) -> AsyncGenerator[Events, None]:
        loop = asyncio.get_running_loop()
        admission, change, checked, sent = admit(), self.values.change, loop.time(), loop.time()
        pending = np.arange(len(self.values))
        while True:
            while len(pending):
                events, taken = self._events(admission, pending[:_BLOCK], fields)
                pending = pending[taken:]
                if events is not None:
                    yield events
                    sent = loop.time()
                elif not taken:
                    await asyncio.sleep(0.1)  # the rate of the grant permits nothing now
                    break
                await asyncio.sleep(0)
                if loop.time() - checked >= _RECHECK_S:
                    # Also while many values wait: what is left is sent by the terms as they are now.
                    before, admission, checked = admission, admit(), loop.time()
                    if admission.selection != before.selection:
                        pending = np.arange(len(self.values))
            began = loop.time()
            try:
                async with asyncio.timeout(min(_RECHECK_S, heartbeat_s)):
                    await self.values.wait_changed(change)
                await asyncio.sleep(max(0.0, interval_s - (loop.time() - began)))
            except TimeoutError:
                pass
            if loop.time() - sent >= heartbeat_s:
                yield Events(b": heartbeat\n\n", 0)
                sent = loop.time()
            before, admission, checked = admission, admit(), loop.time()
            changed = self.values.changed_since(change)
            change = self.values.change
            if admission.selection != before.selection:
                changed = np.arange(len(self.values))
            pending = np.union1d(pending, changed)

    def _events(self, admission: Admission, numbers: I64, fields: tuple[str, ...]) -> tuple[Events | None, int]:
        """Return the values of series as events, and how many of the series are done.

        Raises:
            Overloaded: the monthly volume of the grant is used up.
        """
        selection, quota = admission.selection, admission.quota
        if selection is None or not includes_readings(selection):
            return None, len(numbers)
        room = len(numbers) if quota is None else quota.available(len(numbers))
        if not room:
            return None, 0
        taken = numbers[:room]
        matching = self.matching_series(selection, taken)
        scans.add(len(taken) - len(matching))
        parts = list(self.masked(selection, matching))
        lines = [line for part in parts for line in self._lines(part, RecordEncoding.JSON, fields)]
        if not lines:
            return None, len(taken)
        if quota is not None:
            quota.consume(len(lines))
        body = "".join(f"data: {line}\n\n" for line in lines).encode()
        return Events(body, len(lines), admission.grant_id), len(taken)


def includes_readings(selection: FeedSelection) -> bool:
    """Return whether a selection contains readings."""
    return not selection.kinds or READING in selection.kinds


def _admitted(words: list[str], admits: Callable[[str], bool]) -> BOOL:
    """Return for each word of a table whether it is admitted."""
    return np.fromiter(map(admits, words), np.bool_, len(words))


def _in_area(view: SeriesView, numbers: I64, wanted: FeedFilter, mask: Mask) -> I64:
    """Return the series whose masked position lies in the area of a filter."""
    if wanted.bbox is None and wanted.near is None:
        return numbers
    if PLACE in mask.drop:
        return numbers[:0]
    lon: F64 = view.lon[numbers]
    lat: F64 = view.lat[numbers]
    if mask.grid_m:
        lon, lat = snap_to_grid(lon, lat, mask.grid_m)
    inside = np.ones(len(numbers), np.bool_)
    if wanted.bbox is not None:
        inside &= is_inside(lon, lat, wanted.bbox)
    if wanted.near is not None:
        inside &= distance_m(lon, lat, wanted.near) <= wanted.near.metres
    return numbers[inside]


def _before(part: MaskedValues, number: int) -> MaskedValues:
    """Return the rows of a part whose series come before a number."""
    kept = part.number < number
    return MaskedValues(part.batch, part.rows[kept], part.number[kept], part.entry[kept], part.row[kept])
