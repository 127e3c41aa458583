"""Queries of the history: rows of a selection as batches, and aggregates by window, all on masked columns.

A selection becomes the condition of a scan as far as it concerns what is not masked. Rows are then masked and filtered
by the code that serves the feed. Aggregates of a selection without a mask are computed by the scan itself, from hourly
sums where windows and functions allow it; those of a masked selection from its masked rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate import metrics
from sensegate.bus.columns import Batch, Origins, WordColumn
from sensegate.clock import HOUR_US
from sensegate.config.history import HistoryConfig
from sensegate.errors import Overloaded, TooMuch, Unavailable
from sensegate.history.aggregates import Aggregate, AggregateRow, fits_sums, rows_of, statement, windows_table
from sensegate.history.conditions import Scan, rows_scan, sums_scan
from sensegate.history.downsampling import Choose
from sensegate.history.engine import HistoryEngine
from sensegate.history.promql import BadQuery
from sensegate.history.segment_files import VALUE_SQL
from sensegate.history.segments import Segment
from sensegate.history.sink import HistorySink
from sensegate.share import scans
from sensegate.share.feeds import READING, FeedFilter, FeedSelection
from sensegate.share.masks import Masks, hidden_rows
from sensegate.share.matching import filtered_rows

WAITING_MAX = 16
"""Most queries that wait for others."""
_ORIGIN = ("node", "partition", "device", "division", "department", "domain", "profile", "grade", "lon", "lat")
_ROW = f"time, received, {VALUE_SQL} AS number, text, quality, time_quality, revision, flags, entry, back, idx"
_Integers = NDArray[np.int64]
Key = tuple[int, int, int]
"""(phenomenon time, entry, index): the order of rows."""


class HistoryRows(msgspec.Struct, frozen=True, eq=False):
    """Masked rows of one node and partition."""

    batch: Batch
    rows: _Integers
    order: _Integers
    """Row -> its place among all rows of the answer."""


class RowOptions(msgspec.Struct, frozen=True):
    """Order of rows, and which of them are wanted."""

    after: Key | None = None
    """Key after which to continue."""
    descending: bool = False
    """Latest first."""
    revisions: bool = False
    """Include rows that were revised later."""
    identity: tuple[int, int] | None = None
    """Identity of the records to return: sequence of the first commit, and index."""


USUAL_ROWS = RowOptions()


class HistoryQueries:
    """Runs queries in threads, a few at a time, each within a limit of time."""

    def __init__(self, engine: HistoryEngine, sink: HistorySink, masks: Masks, config: HistoryConfig) -> None:
        self._engine = engine
        self._sink = sink
        self._masks = masks
        self._config = config

    @property
    def end(self) -> int:
        """Last entry of the log that the history covers."""
        return self._sink.store.end

    async def searched_from(self, selection: FeedSelection, begin: int) -> None:
        """Return None: the history is searched by phenomenon time."""

    async def rows(
        self,
        selection: FeedSelection,
        begin: int,
        end: int,
        limit: int,
        options: RowOptions = USUAL_ROWS,
    ) -> tuple[list[HistoryRows], Key | None]:
        """Return rows of a period of phenomenon time in its order, and the key to continue after; None: that is all.

        Args:
            selection: what the caller gets.
            begin: earliest time, µs UTC.
            end: time before which rows are wanted.
            limit: most rows, before the mask and the filter of the request leave some out.
            options: order, and which of the rows.

        Raises:
            TooMuch: it takes too long.
            Overloaded: too many queries wait.
            Unavailable: a file cannot be read.
        """
        begin, end = selection.mask.period_end(begin), selection.mask.period_end(end)
        after, identity = options.after, options.identity
        direction, sign = ("DESC", "<") if options.descending else ("ASC", ">")
        more = f"(time, entry, idx) {sign} ({after[0]}, {after[1]}, {after[2]})" if after else ""
        if identity is not None:
            more = f"entry - back = {identity[0]} AND idx = {identity[1]}"
        order = ", ".join(f"{column} {direction}" for column in ("time", "entry", "idx"))
        async with self._slot():
            files = self._files(selection, begin, end)
            if not files:
                return [], None
            scan = self._rows_scan(selection, files, begin, end, revisions=options.revisions, more=more)
            scan = Scan(f"{scan.sql} ORDER BY {order} LIMIT {limit}", scan.parameters)
            fetched = await self._run(lambda connection: _fetch_few(connection, scan))
        count = len(fetched.time)
        scans.add(count)
        key = fetched.key_of(count - 1) if count == limit else None
        return list(self._masked(fetched, selection)), key

    async def samples(
        self, selection: FeedSelection, begin: int, end: int, points: int, choose: Choose
    ) -> list[HistoryRows]:
        """Return at most `points` numbers of each series, chosen among all of a period. Raises as `rows`."""
        begin, end = selection.mask.period_end(begin), selection.mask.period_end(end)
        async with self._slot():
            files = self._files(selection, begin, end)
            if not files:
                return []
            fetched = await self._fetch_all(self._rows_scan(selection, files, begin, end))
            parts = list(self._masked(fetched, selection))
            return await asyncio.to_thread(lambda: [sampled(part, points, choose) for part in parts])

    async def numbers(self, selection: FeedSelection, begin: int, end: int) -> list[HistoryRows]:
        """Return all numbers of a period, in the order of each series. Raises as `rows`."""
        return await self.samples(selection, begin, end, 1, _every)

    async def full_matches(self, texts: Sequence[str], pattern: str) -> list[bool]:
        """Return which texts match a regular expression of RE2.

        Raises:
            BadQuery: the pattern is none.
            TooMuch, Unavailable: as `rows`.
        """
        table = {"text": np.array(texts or [""], object)}

        def work(connection: Any) -> Any:
            connection.register("texts", table)
            sql = "SELECT regexp_full_match(text, $1) AS is_match FROM texts"
            try:
                return connection.execute(sql, [pattern]).fetchnumpy()
            except self._engine.invalid_input as why:
                problem = str(why).splitlines()[0].removeprefix("Invalid Input Error: ")
                raise BadQuery(f"'{pattern[:80]}' is not a regular expression of RE2: {problem[:200]}") from why

        async with self._slot():
            matches = await self._run(work)
        return [bool(match) for match in matches["is_match"].tolist()][: len(texts)]

    async def _fetch_all(self, scan: Scan) -> _FetchedRows:
        """Return all rows of a scan, in no particular order. Raises `TooMuch`."""
        most = self._config.query_rows_max
        limited = Scan(f"{scan.sql} LIMIT {most + 1}", scan.parameters)
        fetched: _FetchedRows = await self._run(lambda connection: _fetch(connection, limited))
        scans.add(len(fetched.time))
        if len(fetched.time) > most:
            raise TooMuch(f"the query reads more than {most} readings; give a shorter period, or fewer devices")
        return fetched

    async def aggregate(self, selection: FeedSelection, begin: int, end: int, wanted: Aggregate) -> list[AggregateRow]:
        """Return the values of each group and window that has readings. Raises as `rows`."""
        begin, end = selection.mask.period_end(begin), selection.mask.period_end(end)
        async with self._slot():
            files = self._files(selection, begin, end)
            if not files:
                return []
            if selection.mask or selection.masked_filter.bbox or selection.masked_filter.near:
                return await self._aggregate_masked(selection, files, begin, end, wanted)
            windows = wanted.windows
            is_aligned = windows.shift is not None and not (windows.step % HOUR_US or windows.shift % HOUR_US)
            has_sums = is_aligned and not (begin % HOUR_US or end % HOUR_US or any(file.revisions for file in files))
            if has_sums and fits_sums(wanted):
                sums = [self._sink.store.sums_of(file) for file in files]
                scan = sums_scan(selection, sums, begin=begin, end=end)
                sql = statement(scan.sql, wanted, sums=True)
            else:
                scan = self._rows_scan(selection, files, begin, end)
                sql = statement(f"SELECT *, {VALUE_SQL} AS number FROM ({scan.sql})", wanted)

            def work(connection: Any) -> Any:
                connection.register("windows", windows_table(wanted))
                return connection.execute(sql, scan.parameters).fetchnumpy()

            fetched = await self._run(work)
        scans.add(int(fetched["scanned"].sum()))
        return rows_of(fetched, wanted)

    async def _aggregate_masked(
        self, selection: FeedSelection, files: list[Segment], begin: int, end: int, wanted: Aggregate
    ) -> list[AggregateRow]:
        fetched = await self._fetch_all(self._rows_scan(selection, files, begin, end))
        tables = await asyncio.to_thread(lambda: _tables(list(self._masked(fetched, selection))))
        sql = statement(_MASKED_SQL, wanted)

        def work(connection: Any) -> Any:
            for name, columns in {**tables, "windows": windows_table(wanted)}.items():
                connection.register(name, columns)
            return connection.execute(sql).fetchnumpy()

        return rows_of(await self._run(work), wanted)

    # ── scans ─────────────────────────────────────────────────────────────────────────────────────────

    def _files(self, selection: FeedSelection, begin: int, end: int) -> list[Segment]:
        """Return the segments that may hold rows of a selection."""
        if selection.kinds and READING not in selection.kinds:
            return []
        files = [
            segment
            for segment in self._sink.store.segments
            if segment.rows and segment.time_max >= begin and segment.time_min < end
        ]
        metrics.HISTORY_ROWS_READ.inc(sum(segment.rows for segment in files))
        return files

    def _rows_scan(
        self,
        selection: FeedSelection,
        files: list[Segment],
        begin: int,
        end: int,
        *,
        revisions: bool = False,
        more: str = "",
    ) -> Scan:
        file_of = self._sink.store.file_of
        revised = [] if revisions else [file_of(segment) for segment in files if segment.revisions]
        names = [file_of(segment) for segment in files]
        return rows_scan(selection, names, revised, begin=begin, end=end, more=more)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._sink.waiting >= WAITING_MAX:
            raise Overloaded("too many queries of the history wait; try again")
        async with self._sink.reading():
            yield

    async def _run(self, work: Callable[[Any], Any]) -> Any:
        """Run a query in a thread; end it when it takes too long, or when the caller has gone."""
        connection = self._engine.cursor()

        def guarded() -> Any:
            try:
                return work(connection)
            except self._engine.interrupted:
                return None
            except self._engine.failed as why:
                raise Unavailable(f"history: {str(why).splitlines()[0][:300]}") from why
            finally:
                connection.close()

        running = asyncio.ensure_future(asyncio.to_thread(guarded))
        try:
            async with asyncio.timeout(self._config.query_timeout_s):
                fetched = await asyncio.shield(running)
        except (TimeoutError, asyncio.CancelledError) as why:
            with contextlib.suppress(self._engine.failed):  # it may be closed by now
                connection.interrupt()
            await asyncio.wait((running,))
            if isinstance(why, TimeoutError):
                limit = self._config.query_timeout_s
                raise TooMuch(
                    f"the query takes more than {limit:g} s; give a shorter period or a longer window"
                ) from None
            raise
        if fetched is None:
            raise TooMuch("the query was ended; give a shorter period or a longer window")
        return fetched

    def _masked(self, fetched: _FetchedRows, selection: FeedSelection) -> Iterator[HistoryRows]:
        """Yield rows masked, without those that the mask or the filter of the request leaves out."""
        for batch, order in fetched.batches():
            rows = np.arange(len(batch))
            masked = batch
            if selection.mask:
                rows = rows[~hidden_rows(batch, selection.mask)]
                masked = self._masks.apply(batch, selection.mask)
            if selection.masked_filter != FeedFilter():
                rows = filtered_rows(masked, rows, selection.masked_filter)
            yield HistoryRows(masked, rows, order[rows])


class _FetchedRows(msgspec.Struct, frozen=True, eq=False):
    """Rows as columns, with the table of their origins and that of their properties."""

    columns: dict[str, Any]
    origins: dict[str, Any]
    properties: list[str]

    @property
    def time(self) -> _Integers:
        time: _Integers = self.columns["time"]
        return time

    def key_of(self, row: int) -> Key:
        """Return the key of a row."""
        time, entry, index = (int(self.columns[name][row]) for name in ("time", "entry", "idx"))
        return time, entry, index

    def batches(self) -> Iterator[tuple[Batch, _Integers]]:
        """Yield a batch for each node and partition, with the places of its rows."""
        table = self.origins
        pairs = [*zip(table["node"].tolist(), table["partition"].tolist(), strict=True)]
        for node, partition in sorted(set(pairs)):
            of_pair = np.array([pair == (node, partition) for pair in pairs], np.bool_)
            order = np.flatnonzero(of_pair[self.columns["origin"]])
            if len(order):
                yield self._batch(node, partition, order), order

    def _batch(self, node: str, partition: int, order: _Integers) -> Batch:
        columns = {name: column[order] for name, column in self.columns.items()}
        table = self.origins
        texts = np.ma.getmaskarray(columns["text"])
        return Batch(
            node,
            partition,
            Origins(
                table["device"].tolist(),
                WordColumn.of(table["division"].tolist()),
                WordColumn.of(table["department"].tolist()),
                WordColumn.of(table["domain"].tolist()),
                WordColumn.of(table["profile"].tolist()),
                table["lon"],
                table["lat"],
                table["grade"].astype(np.uint8),
            ),
            self.properties,
            columns["origin"].astype(np.uint32),
            columns["property"].astype(np.uint16),
            columns["time"],
            columns["received"] * 1_000,
            np.ma.filled(columns["number"], np.nan),
            {int(row): str(columns["text"][row]) for row in np.flatnonzero(~texts)},
            columns["quality"].astype(np.uint8),
            columns["flags"].astype(np.uint32),
            columns["time_quality"].astype(np.uint8),
            columns["revision"].astype(np.uint8),
            columns["entry"] - columns["back"],
            columns["idx"].astype(np.uint32),
        )


def _fetch_few(connection: Any, scan: Scan) -> _FetchedRows:
    """Return the rows of a scan in its order; for as many as a page has, cheaper than `_fetch`."""
    columns = connection.execute(
        f"SELECT {', '.join(_ORIGIN)}, property, {_ROW} FROM ({scan.sql})", scan.parameters
    ).fetchnumpy()
    keys = zip(*(columns.pop(name).tolist() for name in _ORIGIN), strict=True)
    places: dict[tuple[Any, ...], int] = {}
    origins: list[tuple[Any, ...]] = []
    numbers = []
    for key in keys:
        number = places.setdefault(key, len(places))
        if number == len(origins):
            origins.append(key)
        numbers.append(number)
    names: dict[str, int] = {}
    columns["property"] = np.array([names.setdefault(name, len(names)) for name in columns["property"]], np.int64)
    columns["origin"] = np.array(numbers, np.int64)
    table = {name: np.array([key[place] for key in origins], object) for place, name in enumerate(_ORIGIN)}
    for name, kind in (("lon", np.float64), ("lat", np.float64), ("grade", np.uint8), ("partition", np.int64)):
        table[name] = table[name].astype(kind)
    return _FetchedRows(columns, table, list(names))


def _fetch(connection: Any, scan: Scan) -> _FetchedRows:
    """Return the rows of a scan, in no particular order."""
    key = ", ".join(_ORIGIN)
    connection.execute(
        f"CREATE TEMP TABLE fetched AS SELECT {key}, property, {_ROW} FROM ({scan.sql})", scan.parameters
    )
    try:
        for table, distinct in (("origins", key), ("names", "property")):
            connection.execute(
                f"CREATE TEMP TABLE {table} AS SELECT *, row_number() OVER (ORDER BY {distinct}) - 1 AS id "
                f"FROM (SELECT DISTINCT {distinct} FROM fetched)"
            )
        rows = "time, received, number, text, quality, time_quality, revision, flags, entry, back, idx"
        # An unknown position is NULL, which equals nothing.
        join = " AND ".join(f"f.{name} IS NOT DISTINCT FROM o.{name}" for name in _ORIGIN)
        columns = connection.execute(
            f"SELECT {rows}, o.id AS origin, n.id AS property FROM fetched f JOIN origins o ON {join} "
            f"JOIN names n ON f.property = n.property"
        ).fetchnumpy()
        origins = connection.execute("SELECT * FROM origins ORDER BY id").fetchnumpy()
        for name in ("lon", "lat"):
            origins[name] = np.ma.filled(origins[name], np.nan)
        names = connection.execute("SELECT property FROM names ORDER BY id").fetchnumpy()["property"].tolist()
    finally:
        for table in ("fetched", "origins", "names"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    return _FetchedRows(columns, origins, names)


def _every(time: Any, _value: Any, _points: int) -> Any:
    return np.arange(len(time))


def sampled(part: HistoryRows, points: int, choose: Choose) -> HistoryRows:
    """Return those of the rows that a plot needs of each series, in the order of time."""
    batch = part.batch
    rows = part.rows[np.isfinite(batch.value[part.rows])]
    devices: dict[str, int] = {}
    numbers = np.array([devices.setdefault(device, len(devices)) for device in batch.origins.device], np.int64)
    series = numbers[batch.origin[rows]] * (len(batch.properties) + 1) + batch.property[rows]
    rows = rows[np.lexsort((batch.time[rows], series))]
    series = np.sort(series, kind="stable")
    begins = [*np.flatnonzero(np.append(np.True_, series[1:] != series[:-1])).tolist(), len(rows)] if len(rows) else [0]
    kept = [
        rows[begin:end][choose(batch.time[rows[begin:end]], batch.value[rows[begin:end]], points)]
        for begin, end in itertools.pairwise(begins)
    ]
    chosen = np.concatenate([rows[:0], *kept])
    return HistoryRows(batch, chosen, batch.time[chosen])


_MASKED_SQL = """
SELECT p.property, o.device, o.division, r.time, r.quality,
    CASE WHEN isnan(r.number) THEN NULL ELSE r.number END AS number
FROM masked r JOIN masked_origins o ON r.origin = o.id JOIN masked_properties p ON r.property = p.id
"""


def _tables(parts: list[HistoryRows]) -> dict[str, dict[str, Any]]:
    """Return masked rows as tables."""
    rows: dict[str, list[Any]] = {name: [] for name in ("origin", "property", "time", "quality", "number")}
    devices: list[str] = []
    divisions: list[str] = []
    names: list[str] = []
    for part in parts:
        batch = part.batch
        rows["origin"].append(batch.origin[part.rows].astype(np.int64) + len(devices))
        rows["property"].append(batch.property[part.rows].astype(np.int64) + len(names))
        rows["time"].append(batch.time[part.rows])
        rows["quality"].append(batch.quality[part.rows])
        rows["number"].append(batch.value[part.rows])
        devices += batch.origins.device
        divisions += batch.origins.division.tolist()
        names += batch.properties
    return {
        "masked": {name: np.concatenate(columns) if columns else np.zeros(0) for name, columns in rows.items()},
        "masked_origins": {
            "id": np.arange(len(devices)),
            "device": np.array(devices, object),
            "division": np.array(divisions, object),
        },
        "masked_properties": {"id": np.arange(len(names)), "property": np.array(names, object)},
    }
