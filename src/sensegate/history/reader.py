"""The history as a caller may read it: within its admission, its masks and its quota."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import msgspec
import numpy as np

from sensegate.authority.scope import Principal
from sensegate.errors import ConfigError, Overloaded, TooMuch
from sensegate.history.aggregates import Aggregate, AggregateRow
from sensegate.history.downsampling import METHODS, Choose
from sensegate.history.query import USUAL_ROWS, HistoryRows, Key, RowOptions
from sensegate.history.tokens import PageTokens
from sensegate.share import projection, records
from sensegate.share.feeds import FeedFilter, FeedSelection
from sensegate.share.quota import read_within_quota
from sensegate.share.records import base_name, channel_of
from sensegate.share.sharing import Sharing

FIELDS = tuple(field for field in projection.FIELDS if field != "cursor")
"""Fields of a record of the history; a cursor leads to the log, which no longer holds it."""
_FEATURE_FIELDS = tuple(field for field in FIELDS if field not in {"id", "lon", "lat"})
FORMS = ("json", "ndjson", "csv", "geojson", "msgpack")
CELLS_MAX = 100_000
"""Most rows of an aggregate, gaps included."""


class HistoryRequest(msgspec.Struct, frozen=True):
    """Request for readings of a period of phenomenon time."""

    feed: str
    wanted: FeedFilter
    """Wanted rows, with `begin` and `end`."""
    after: str = ""
    descending: bool = False
    revisions: bool = False
    fields: tuple[str, ...] = ()


class HistoryPage(msgspec.Struct, frozen=True):
    """Answer to a request, encoded."""

    body: bytes
    count: int
    next: str = ""
    grant: str = ""
    searched_from: int | None = None
    """Readings that arrived before it, of devices whose clocks were ahead, may be missing; None: none is."""


class PeriodQueries(Protocol):
    """Queries for readings of a period: of the history, or of the log where there is none."""

    async def searched_from(self, selection: FeedSelection, begin: int) -> int | None:
        """Return the time of arrival from which readings of a period are searched for; None: there is none before."""
        ...

    async def rows(
        self,
        selection: FeedSelection,
        begin: int,
        end: int,
        limit: int,
        options: RowOptions = USUAL_ROWS,
    ) -> tuple[list[HistoryRows], Key | None]:
        """Return rows in the order of their time, and the key to continue after."""
        ...

    async def samples(
        self, selection: FeedSelection, begin: int, end: int, points: int, choose: Choose
    ) -> list[HistoryRows]:
        """Return at most `points` numbers of each series."""
        ...

    async def aggregate(self, selection: FeedSelection, begin: int, end: int, wanted: Aggregate) -> list[AggregateRow]:
        """Return the values of each group and window that has readings."""
        ...


class HistoryReader:
    """Admits, reads, masks and encodes."""

    def __init__(self, queries: PeriodQueries, sharing: Sharing, drop: Callable[[str], Awaitable[int]]) -> None:
        self.queries = queries
        self.drop = drop
        """Division -> deletes its history."""
        self._sharing = sharing
        self._tokens = PageTokens(sharing.server.masks.derived_key("pages of the history"))

    async def page(self, principal: Principal, request: HistoryRequest, *, form: str, limit: int) -> HistoryPage:
        """Return readings in the order of their phenomenon time, within the quota of the grant.

        Raises:
            NotFound, PermissionDenied: as `Grants.admit`.
            ConfigError: `after` is not of a page of this feed.
            TooMuch, Overloaded, Unavailable: as `HistoryQueries.rows`.
        """
        admission = self._sharing.admit(principal, request.feed, request.wanted, "http", form)
        begin, end = _period(request.wanted)
        after = self._tokens.open(request.after, request.feed)

        async def read(most: int) -> HistoryPage:
            if admission.selection is None:
                return HistoryPage(_body([], form, request.fields, ""), 0, grant=admission.grant_id)
            parts, key = await self.queries.rows(
                admission.selection,
                begin,
                end,
                most,
                RowOptions(after, request.descending, request.revisions),
            )
            name = self._tokens.seal(key, request.feed)
            count = sum(len(part.rows) for part in parts)
            since = await self.queries.searched_from(admission.selection, begin)
            return HistoryPage(_body(parts, form, request.fields, name), count, name, admission.grant_id, since)

        return await read_within_quota(admission.quota, limit, read)

    async def samples(
        self, principal: Principal, request: HistoryRequest, *, form: str, points: int, method: str
    ) -> HistoryPage:
        """Return at most `points` readings of each series for a plot; `method`: of `downsampling.METHODS`.

        Raises:
            TooMuch: it has more than `CELLS_MAX` rows, or as `page`.
            NotFound, PermissionDenied, Overloaded, Unavailable: as `page`.
        """
        admission = self._sharing.admit(principal, request.feed, request.wanted, "http", form)
        begin, end = _period(request.wanted)

        async def read(most: int) -> HistoryPage:
            parts, since = list[HistoryRows](), None
            if admission.selection is not None:
                since = await self.queries.searched_from(admission.selection, begin)
                parts = await self.queries.samples(admission.selection, begin, end, points, METHODS[method])
            count = sum(len(part.rows) for part in parts)
            _demand_room(count, most, admission.grant_id)
            return HistoryPage(_body(parts, form, request.fields, ""), count, "", admission.grant_id, since)

        return await read_within_quota(admission.quota, CELLS_MAX, read)

    async def aggregate(
        self, principal: Principal, feed: str, wanted: FeedFilter, aggregate: Aggregate, *, form: str, gaps: bool
    ) -> HistoryPage:
        """Return aggregates by window; `gaps`: windows without readings too, with nothing but their times.

        Raises:
            TooMuch: it has more than `CELLS_MAX` rows, or as `page`.
            NotFound, PermissionDenied, Overloaded, Unavailable: as `page`.
        """
        admission = self._sharing.admit(principal, feed, wanted, "http", form)
        begin, end = _period(wanted)

        async def read(most: int) -> HistoryPage:
            rows: list[AggregateRow] = []
            if admission.selection is not None:
                rows = await self.queries.aggregate(admission.selection, begin, end, aggregate)
            if gaps:
                rows = _with_gaps(rows, aggregate)
            _demand_room(len(rows), most, admission.grant_id)
            return HistoryPage(_aggregate_body(rows, aggregate, form), len(rows), grant=admission.grant_id)

        return await read_within_quota(admission.quota, CELLS_MAX, read)


def _demand_room(count: int, most: int, grant: str) -> None:
    """Return if an answer, which is not to be cut, may have so many rows. Raises `TooMuch`, `Overloaded`."""
    if count > CELLS_MAX:
        raise TooMuch(f"the answer has {count} rows; give a longer window, fewer points or fewer devices")
    if count > most:
        raise Overloaded(f"grant {grant}: {count} rows exceed the {most} that are left; ask for fewer")


def _period(wanted: FeedFilter) -> tuple[int, int]:
    if wanted.begin is None or wanted.end is None:
        raise ConfigError("is missing", key="from", remedy="give the earliest phenomenon time, such as 24h")
    return wanted.begin, wanted.end


def _body(parts: list[HistoryRows], form: str, fields: tuple[str, ...], following: str) -> bytes:
    if form == "msgpack":
        places = np.concatenate([np.zeros(0, np.int64), *(part.order for part in parts)])
        return records.columns([records.RowSlice(part.batch, part.rows, 0, 0) for part in parts], following, places)
    chosen = fields or (_FEATURE_FIELDS if form == "geojson" else FIELDS)
    placed: list[tuple[int, str]] = []
    for part in parts:
        lines = projection.lines(records.RowSlice(part.batch, part.rows, 0, 0), "", form, chosen)
        placed += zip(part.order.tolist(), lines, strict=True)
    lines = [line for _, line in sorted(placed)]
    match form:
        case "csv":
            return "".join(f"{line}\r\n" for line in (",".join(chosen), *lines)).encode()
        case "ndjson":
            return "".join(f"{line}\n" for line in lines).encode()
        case "geojson":
            return f'{{"type":"FeatureCollection","features":[{",".join(lines)}],"next":"{following}"}}'.encode()
    return f'{{"records":[{",".join(lines)}],"next":"{following}"}}'.encode()


def _with_gaps(rows: list[AggregateRow], wanted: Aggregate) -> list[AggregateRow]:
    """Return the rows with one for each window of each group; of those without readings all values are None."""
    known = {(row.key, row.start): row for row in rows}
    groups = sorted({row.key for row in rows})
    starts = wanted.windows.starts
    if len(groups) * len(starts) > CELLS_MAX:
        raise TooMuch(
            f"the answer has {len(groups)} groups of {len(starts)} windows; give a longer window, fewer devices or "
            "gaps=omit"
        )
    nothing = tuple(0.0 if function == "count" else None for function in wanted.functions)
    return [known.get((group, start)) or AggregateRow(group, start, nothing) for group in groups for start in starts]


def _aggregate_body(rows: list[AggregateRow], wanted: Aggregate, form: str) -> bytes:
    ends = dict(zip(wanted.windows.starts, wanted.windows.ends(), strict=True))
    columns = ("property", "channel", *wanted.by, "start", "end", *wanted.functions)
    table = list(_cells(rows, ends, wanted))
    if form == "csv":
        lines = [",".join(map(_csv_cell, row)) for row in table]
        return "".join(f"{line}\r\n" for line in (",".join(columns), *lines)).encode()
    return msgspec.json.encode({"rows": [dict(zip(columns, row, strict=True)) for row in table]})


def _csv_cell(cell: str | float | None) -> str:
    return "" if cell is None else records.csv_cell(cell) if isinstance(cell, str) else str(cell)


def _cells(
    rows: list[AggregateRow], ends: dict[int, int], wanted: Aggregate
) -> Iterator[tuple[str | float | None, ...]]:
    times = [time for row in rows for time in (row.start, ends.get(row.start, row.start + wanted.windows.step))]
    texts = records.iso(np.array(times, np.int64))
    for place, row in enumerate(rows):
        values = [
            int(value) if function == "count" and value is not None else value
            for function, value in zip(wanted.functions, row.values, strict=True)
        ]
        name, *by = row.key
        yield (base_name(name), channel_of(name), *by, texts[2 * place], texts[2 * place + 1], *values)
