"""Queries of a gateway without a history: readings of the days that the log still holds, by their own time.

It scans the log, so it is for a page or a plot now and then; aggregates need the history. Readings of a period lie in
the log after its beginning, except those of devices whose clocks are ahead. All are found that arrived at most
`_AHEAD_US` before it, and those of a whole day before it if that is at most `_AHEAD_ENTRIES`; `searched_from` tells.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.bus.batch import Batch, concat
from sensegate.bus.names import OBSERVATIONS, READINGS
from sensegate.clock import DAY_US
from sensegate.config import TimeConfig
from sensegate.config.history import HistoryConfig
from sensegate.errors import ConfigError, NotFound, TooMuch
from sensegate.history.aggregates import Aggregate, AggregateRow
from sensegate.history.downsampling import Choose
from sensegate.history.query import USUAL_ROWS, HistoryRows, Key, RowOptions, sampled
from sensegate.share.feeds import OBSERVATION, READING, FeedFilter, FeedSelection
from sensegate.share.masks import Masks
from sensegate.share.matching import filtered_rows, matches
from sensegate.share.reader import LogReader, RowsEntry, named_rows
from sensegate.share.records import iso

REMEDY = "set history.enabled and install sensegate[history]"
_AHEAD_MAX_US = DAY_US
"""Clocks of devices are ahead of ours by at most this."""
_AHEAD_US = round(TimeConfig().future_s * 1e6)
"""Readings that are ahead by more are marked ``future``, and are few."""
_AHEAD_ENTRIES = 4_096
"""Entries before those that are searched for readings that are ahead by more: about a second."""
_Integers = NDArray[np.int64]
_ReadingKey = tuple[str, str, str, int]
"""(node, device, property, time)."""


class _Slice(msgspec.Struct, frozen=True, eq=False):
    """Rows of an entry of the log that a selection contains, in a period."""

    entry: RowsEntry
    rows: _Integers


class _Progress:
    """Progress of a scan, for the advice of one that took too long."""

    __slots__ = ("position", "start")

    def __init__(self, start: int) -> None:
        self.start = self.position = start


class LogQueries:
    """Reads rows of a period from the log; each query is bounded in rows and time."""

    def __init__(self, reader: LogReader, masks: Masks, config: HistoryConfig) -> None:
        self._reader = reader
        self._masks = masks
        self._config = config
        self._slots = asyncio.Semaphore(config.queries_max)

    async def searched_from(self, selection: FeedSelection, begin: int) -> int | None:
        """Return the time of arrival from which readings of a period are searched for; None: there is none before.

        Raises:
            Unavailable: the log does not answer.
        """
        position, is_whole = await self._start(selection.mask.period_end(begin), READINGS)
        if is_whole:
            return None
        entries = await self._reader.log.fetch(position, limit=1)
        return entries[0].time if entries else None

    async def rows(
        self,
        selection: FeedSelection,
        begin: int,
        end: int,
        limit: int,
        options: RowOptions = USUAL_ROWS,
    ) -> tuple[list[HistoryRows], Key | None]:
        """Return rows of a period in the order of their time, as `HistoryQueries.rows`.

        Raises:
            ConfigError: readings of the period have expired.
            TooMuch: it reads too many readings, or takes too long.
            Unavailable: the log does not answer.
        """
        slices = await self._slices(selection, begin, end, revisions=options.revisions)
        if not slices:
            return [], None
        after, descending = options.after, options.descending
        time = np.concatenate([part.entry.batch.time[part.rows] for part in slices])
        sequence = np.concatenate([np.full(len(part.rows), part.entry.sequence) for part in slices])
        index = np.concatenate([part.entry.batch.index[part.rows].astype(np.int64) for part in slices])
        row = np.concatenate([part.rows for part in slices])
        owner = np.repeat(np.arange(len(slices)), [len(part.rows) for part in slices])
        order = np.lexsort((index, sequence, time))
        if descending:
            order = order[::-1]
        if after is not None:
            is_later = (time > after[0]) | (
                (time == after[0]) & ((sequence > after[1]) | ((sequence == after[1]) & (index > after[2])))
            )
            is_same = (time == after[0]) & (sequence == after[1]) & (index == after[2])
            is_beyond = ~(is_later | is_same) if descending else is_later
            order = order[is_beyond[order]]
        order = order[:limit]
        parts = []
        for place in np.unique(owner[order]).tolist():
            chosen = np.flatnonzero(owner[order] == place)
            parts.append(self._masked(slices[place].entry, selection, row[order][chosen], chosen))
        if len(order) < limit:
            return parts, None
        last = order[-1]
        return parts, (int(time[last]), int(sequence[last]), int(index[last]))

    async def samples(
        self, selection: FeedSelection, begin: int, end: int, points: int, choose: Choose
    ) -> list[HistoryRows]:
        """Return at most `points` numbers of each series, chosen among all of a period. Raises as `rows`."""
        slices = await self._slices(selection, begin, end)
        parts = [self._masked(part.entry, selection, part.rows, part.rows) for part in slices]
        return await asyncio.to_thread(lambda: [sampled(part, points, choose) for part in _joined(parts)])

    async def observations(self, selection: FeedSelection, begin: int, end: int) -> list[HistoryRows]:
        """Return the observations of cameras of a period, in no particular order. Raises as `rows`."""
        slices = await self._slices(selection, begin, end, revisions=True, kind=OBSERVATION)
        return [self._masked(part.entry, selection, part.rows, part.rows) for part in slices]

    async def aggregate(self, selection: FeedSelection, begin: int, end: int, wanted: Aggregate) -> list[AggregateRow]:  # noqa: ARG002 - as `PeriodQueries` has it
        """Refuse: without a history there are no aggregates. Raises `NotFound`."""
        raise NotFound(f"this gateway keeps no history, which aggregates need; {REMEDY}")

    async def _slices(
        self, selection: FeedSelection, begin: int, end: int, *, revisions: bool = False, kind: str = READING
    ) -> list[_Slice]:
        """Return the rows of a period, without those that were revised unless `revisions`. Raises as `rows`."""
        begin, end = selection.mask.period_end(begin), selection.mask.period_end(end)
        if selection.kinds and kind not in selection.kinds:
            return []
        await self._demand_held(begin)
        await self._reader.catch_up()
        subject = OBSERVATIONS if kind == OBSERVATION else READINGS
        progress = _Progress((await self._start(begin, subject))[0])
        try:
            async with self._slots, asyncio.timeout(self._config.query_timeout_s):
                slices, revised = await self._scan(selection, begin, end, subject, progress)
        except TimeoutError:
            limit_s, later = self._config.query_timeout_s, await self._readable_from(progress, end, subject)
            advice = f"give a `from` after {iso(np.array([later]))[0]}, or {REMEDY}" if later else REMEDY
            raise TooMuch(f"the log holds too much to read in {limit_s:g} s; {advice}") from None
        return slices if revisions or not revised else [*_last_revisions(slices, revised)]

    async def _start(self, begin: int, subject: str) -> tuple[int, bool]:
        """Return the sequence after which a period is searched for, and whether nothing of it can lie before."""
        first = (await self._reader.since(max(begin - _AHEAD_MAX_US, 0))).sequence
        if subject == OBSERVATIONS:
            return first, True  # counts have no place to say that some are missing
        near = (await self._reader.since(max(begin - _AHEAD_US, 0))).sequence
        start = max(first, near - _AHEAD_ENTRIES)
        return start, start == first

    async def _readable_from(self, progress: _Progress, end: int, subject: str) -> int | None:
        """Return a beginning from which half of what was read in time is read; None: there is none before `end`."""
        if subject == OBSERVATIONS:
            return None
        _, last = await self._reader.log.bounds()
        wanted = last - (progress.position - progress.start) // 2 + _AHEAD_ENTRIES
        entries = await self._reader.log.fetch(wanted - 1, limit=1) if wanted <= last else []
        later = entries[0].time + _AHEAD_US if entries else end
        return later if later < end else None

    async def _scan(
        self, selection: FeedSelection, begin: int, end: int, subject: str, progress: _Progress
    ) -> tuple[list[_Slice], dict[_ReadingKey, int]]:
        """Return the rows of a period on a subject, and the last revision of each reading in it that was revised."""
        slices: list[_Slice] = []
        revised: dict[_ReadingKey, int] = {}
        position, count, most = progress.start, 0, self._config.query_rows_max
        while True:
            span = await self._reader.read(position)
            for entry in span.entries:
                progress.position = entry.sequence
                if not entry.subject.startswith(f"{subject}."):
                    continue
                batch = entry.batch
                in_period = (batch.time >= begin) & (batch.time < end)
                for row in np.flatnonzero(in_period & (batch.revision > 0)).tolist():
                    key = _key_of(batch, row)
                    revised[key] = max(revised.get(key, 0), int(batch.revision[row]))
                rows = matches(batch, selection)
                rows = rows[in_period[rows]]
                if len(rows):
                    slices.append(_Slice(entry, rows))
                    count += len(rows)
                if count > most:
                    raise TooMuch(f"the query reads more than {most} readings; give a shorter period, or fewer devices")
                await asyncio.sleep(0)
            if span.end <= position:
                return slices, revised
            progress.position = position = span.end

    async def _demand_held(self, begin: int) -> None:
        """Return if the log holds all readings of a period. Raises `ConfigError`."""
        first, _ = await self._reader.log.bounds()
        held = await self._reader.log.fetch(first - 1, limit=1) if first > 1 else []
        if held and begin < held[0].time:
            raise ConfigError(
                f"lies before {iso(np.array([held[0].time]))[0]}, where the log begins",
                key="from",
                remedy=f"give a later time; for more than the log holds {REMEDY}",
            )

    def _masked(self, entry: RowsEntry, selection: FeedSelection, rows: _Integers, order: _Integers) -> HistoryRows:
        """Return rows masked, without those that the filter of the request leaves out."""
        batch = self._masks.masked(entry.batch, entry.sequence, selection.mask)
        if selection.masked_filter == FeedFilter():
            return HistoryRows(batch, rows, order)
        is_kept = np.isin(rows, filtered_rows(batch, np.sort(rows), selection.masked_filter))
        return HistoryRows(batch, rows[is_kept], order[is_kept])


def _key_of(batch: Batch, row: int) -> _ReadingKey:
    device = batch.origins.device[int(batch.origin[row])]
    return batch.node, device, batch.properties[int(batch.property[row])], int(batch.time[row])


def _last_revisions(slices: Iterable[_Slice], revised: dict[_ReadingKey, int]) -> Iterable[_Slice]:
    """Yield the slices without rows that have a later revision."""
    times = np.array(sorted({time for *_, time in revised}), np.int64)
    for part in slices:
        batch = part.entry.batch
        is_last = np.ones(len(part.rows), np.bool_)
        for place in np.flatnonzero(np.isin(batch.time[part.rows], times)).tolist():
            row = int(part.rows[place])
            is_last[place] = int(batch.revision[row]) >= revised.get(_key_of(batch, row), 0)
        if is_last.any():
            yield _Slice(part.entry, part.rows[is_last])


def _joined(parts: Sequence[HistoryRows]) -> Iterable[HistoryRows]:
    """Yield the rows of each node and partition as one batch."""
    groups: dict[tuple[str, int], list[Batch]] = defaultdict(list)
    for part in parts:
        groups[part.batch.node, part.batch.partition].append(part.batch.take(part.rows))
    for batches in groups.values():
        batch = named_rows(concat(batches))
        yield HistoryRows(batch, np.arange(len(batch)), batch.time)
