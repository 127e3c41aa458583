"""Value checks in the order range, rate of change, stuck value, unit. A check marks a reading and never removes it.

* range: outside the physical limits of the property is bad; outside the profile's narrower range is uncertain.
* step: changed more since the preceding neighbour than is credible, both close enough in time to be compared. A
  counter that falls has rolled over or was reset (`counters`), which is flagged but good; it must neither jump nor
  decrease slightly.
* stuck: unchanged for the property's `stuck_h`, over at least six readings.
* unit: twelve consecutive readings a thousand times too large or too small to be usual (mg taken for ug).

A value out of range, or one from the future, is not compared with others. The history of a series is kept in arrays
indexed by its number: 31 bytes a series.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sensegate.model import BOOL, F64, I32, I64, U8, U16, U32
from sensegate.normalise.counters import CounterDrop, classify_drops
from sensegate.normalise.table import SpecTable
from sensegate.quantities.quality import BAD_FROM, Flag, Quality
from sensegate.quantities.sorting import radix_argsort

STUCK_READINGS = 6
UNIT_READINGS = 12
"""Number of consecutive implausible readings that make the unit suspect."""
_LONG_AGO = -(1 << 61)


class CheckedBatch(NamedTuple):
    """Columns of a batch of readings under check; the checks change `flags` and `quality` in place."""

    spec: I32
    series: I32
    time: I64
    value: F64
    flags: U32
    quality: U8


def downgrade(quality: U8, rows: I64, code: Quality) -> None:
    """Set `code` on rows that have a better class; a row already in the same class keeps its first code."""
    now = quality[rows]
    better = now == Quality.GOOD if code < BAD_FROM else now < BAD_FROM
    quality[rows[better]] = code


def check_range(table: SpecTable, spec: I32, value: F64, flags: U32, quality: U8) -> BOOL | None:
    """Flag values out of range; return True for them, None if there are none. NaN (text) is never out of range."""
    out: BOOL = (value < table.low.take(spec)) | (value > table.high.take(spec))
    rows = np.flatnonzero(out)
    if not rows.size:
        return None
    flags[rows] |= np.uint32(Flag.RANGE)
    specs, values = spec[rows], value[rows]
    physical = (values < table.physical_low[specs]) | (values > table.physical_high[specs])
    downgrade(quality, rows[physical], Quality.BAD_RANGE)
    downgrade(quality, rows[~physical], Quality.UNCERTAIN_RANGE)
    return out


class SeriesHistory:
    """Last value of each compared series, and how long it has been unchanged."""

    def __init__(self) -> None:
        self._time: I64 = np.zeros(0, np.int64)
        self._value: F64 = np.zeros(0, np.float64)
        self._since: I64 = np.zeros(0, np.int64)
        self._equal: U16 = np.zeros(0, np.uint16)
        self._last_row: I32 = np.zeros(0, np.int32)
        """Used within a check: the last row of each series in the batch."""
        self._repeats: BOOL = np.zeros(0, np.bool_)
        """Used within a check: whether a series has several rows."""

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        columns = (self._time, self._value, self._since, self._equal, self._last_row, self._repeats)
        return sum(column.nbytes for column in columns)

    def check(
        self,
        table: SpecTable,
        batch: CheckedBatch,
        rows: I64,
        *,
        latest: int,
    ) -> None:
        """Flag steps and stuck values among `rows` and remember the last value of each series.

        Rows of one series are compared in the order of their time, the first with the remembered value. Values
        remembered from after `latest` (the gateway's clock was ahead then) are discarded.
        """
        self._grow(int(batch.series.max()) + 1)
        single = self._is_single(batch.series[rows])
        if single is None:
            self._check_single(table, batch, rows, latest=latest)
            return
        if 2 * np.count_nonzero(single) > len(single):
            self._check_single(table, batch, rows[single], latest=latest)
            rows = rows[~single]
        self._check_runs(table, batch, rows, latest=latest)

    def _is_single(self, number: I32) -> BOOL | None:
        """Return True for each row whose series has no other row; None: all."""
        row = np.arange(len(number), dtype=np.int32)
        self._last_row[number] = row
        is_last = self._last_row[number] == row
        if is_last.all():
            return None
        repeated = number[~is_last]
        self._repeats[repeated] = True
        single: BOOL = ~self._repeats[number]
        self._repeats[repeated] = False
        return single

    def _check_single(self, table: SpecTable, batch: CheckedBatch, row: I64, *, latest: int) -> None:
        """Check rows each of another series; nothing has to be sorted."""
        spec, series, time, value, flags, quality = batch
        number, when, values, specs = series[row], time[row], value[row], spec[row]
        before, earlier = self._value[number], self._time[number]
        earlier[earlier > latest] = _LONG_AGO
        elapsed = when - earlier
        _mark_steps(table, _Neighbours(row, specs, before, values, elapsed), flags, quality)
        begins = (values != before) | (elapsed < 0) | (earlier == _LONG_AGO)
        since = np.where(begins, when, self._since[number])
        equal = np.where(begins, np.uint16(1), self._equal[number] + np.uint16(1))
        often = np.flatnonzero(equal >= STUCK_READINGS)
        if often.size:
            at = row[often[when[often] - since[often] >= table.stuck.take(specs[often])]]
            flags[at] |= np.uint32(Flag.STUCK)
            downgrade(quality, at, Quality.UNCERTAIN_STUCK)
        newer = when > earlier
        if not newer.all():
            number, when, values = number[newer], when[newer], values[newer]
            since, equal = since[newer], equal[newer]
        self._time[number], self._value[number], self._since[number] = when, values, since
        self._equal[number] = np.minimum(equal, np.iinfo(np.uint16).max - 1)

    def _check_runs(self, table: SpecTable, batch: CheckedBatch, rows: I64, *, latest: int) -> None:
        """Check rows of which several are of one series."""
        spec, series, time, value, flags, quality = batch
        row = _by_series_and_time(rows, series, time)
        number, when, values, specs = series[row], time[row], value[row], spec[row]
        first = _is_first(number)
        heads = np.flatnonzero(first)
        known_time = self._time[number[heads]]
        known_time[known_time > latest] = _LONG_AGO

        before, earlier = np.empty_like(values), np.empty_like(when)
        before[1:], earlier[1:] = values[:-1], when[:-1]
        before[heads], earlier[heads] = self._value[number[heads]], known_time
        overtaken = None
        if (when[heads] < known_time).any():
            # Some rows are late: the first row newer than the remembered value has that value as its neighbour.
            known = known_time[np.cumsum(first) - 1]
            overtaken = ~first & (earlier < known) & (when >= known)
            before[overtaken], earlier[overtaken] = self._value[number[overtaken]], known[overtaken]
        elapsed = when - earlier
        _mark_steps(table, _Neighbours(row, specs, before, values, elapsed), flags, quality)

        # A run is a sequence of equal values; it begins where the value changes or where no history is known.
        begins = (values != before) | (elapsed < 0) | (earlier == _LONG_AGO)
        starts = begins | first
        if overtaken is not None:
            starts |= overtaken
        start = np.flatnonzero(starts)
        run = np.cumsum(starts) - 1
        goes_on = ~begins[start]
        since = np.where(goes_on, self._since[number[start]], when[start])[run]
        equal = np.arange(len(row)) - start[run] + np.where(goes_on, self._equal[number[start]] + 1, 1)[run]
        at = np.flatnonzero((when - since >= table.stuck.take(specs)) & (equal >= STUCK_READINGS))
        if at.size:
            flags[row[at]] |= np.uint32(Flag.STUCK)
            downgrade(quality, row[at], Quality.UNCERTAIN_STUCK)

        tails = np.append(heads[1:] - 1, len(row) - 1)
        tails = tails[when[tails] > known_time]
        last = number[tails]
        self._time[last], self._value[last], self._since[last] = when[tails], values[tails], since[tails]
        self._equal[last] = np.minimum(equal[tails], np.iinfo(np.uint16).max - 1)

    def forget(self, series: I64) -> None:
        """Discard the history of these series."""
        self._time[series[series < len(self._time)]] = _LONG_AGO

    def _grow(self, size: int) -> None:
        have = len(self._time)
        if size <= have:
            return
        size = max(size, have * 3 // 2, 1024)
        fills = {"_time": _LONG_AGO, "_value": np.nan, "_since": 0, "_equal": 0, "_last_row": 0, "_repeats": False}
        for name, fill in fills.items():
            old = getattr(self, name)
            grown = np.full(size, fill, old.dtype)
            grown[:have] = old
            setattr(self, name, grown)


class _Neighbours(NamedTuple):
    """Readings with the values before them in their series."""

    row: I64
    spec: I32
    before: F64
    """NaN: none is known."""
    value: F64
    elapsed: I64


def _mark_steps(table: SpecTable, neighbours: _Neighbours, flags: U32, quality: U8) -> None:
    """Flag values that changed more since the one before than is credible, and counters that fell."""
    row, specs, before, values, elapsed = neighbours
    change = values - before
    counts = np.flatnonzero(table.counter.take(specs) & (change < 0) & (elapsed > 0))
    if counts.size:
        close = elapsed[counts] <= table.gap.take(specs[counts])
        greatest_step = np.where(close, table.step.take(specs[counts]), np.inf)
        change[counts] = _mark_drops(
            table, specs[counts], before[counts], values[counts], greatest_step, row[counts], flags
        )
    great = np.flatnonzero(np.abs(change) > table.step.take(specs))
    at = great[(elapsed[great] > 0) & (elapsed[great] <= table.gap.take(specs[great]))]
    if counts.size:
        at = np.union1d(at, counts[change[counts] < 0])
    if at.size:
        flags[row[at]] |= np.uint32(Flag.STEP)
        downgrade(quality, row[at], Quality.UNCERTAIN_STEP)


def _mark_drops(table: SpecTable, specs: I32, before: F64, values: F64, advance_max: F64, row: I64, flags: U32) -> F64:
    """Flag roll-overs and resets of counters that fell; return the credited change of each."""
    modulus = table.modulus.take(specs)
    kind = classify_drops(before, values, modulus, advance_max)
    over, was_reset = kind == CounterDrop.ROLLOVER, kind == CounterDrop.RESET
    flags[row[over]] |= np.uint32(Flag.ROLLOVER)
    flags[row[was_reset]] |= np.uint32(Flag.RESET)
    moved: F64 = np.where(over, values + modulus - before, np.where(was_reset, 0.0, values - before))
    return moved


class UnitPlausibility:
    """Number of consecutive readings of each series whose magnitude suggests a wrong unit; one byte a series."""

    def __init__(self) -> None:
        self._implausible: U8 = np.zeros(0, np.uint8)

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return self._implausible.nbytes

    def check(self, table: SpecTable, batch: CheckedBatch) -> None:
        """Flag the readings of series whose unit was implausible `UNIT_READINGS` times in a row; 0 is ignored."""
        spec, series, time, value, flags, quality = batch
        rows = np.flatnonzero(table.usual.take(spec) & (value != 0))
        if not rows.size:
            return
        specs, size = spec[rows], np.abs(value[rows])
        low, high = table.usual_low.take(specs), table.usual_high.take(specs)
        less = (size < low) & (size >= low / 1000) & (size <= high / 1000)
        more = (size > high) & (size / 1000 >= low) & (size / 1000 <= high)
        implausible = less | more
        top = int(series[rows].max()) + 1
        if top > len(self._implausible):
            self._implausible = np.concatenate(
                [self._implausible, np.zeros(max(top, 1024) - len(self._implausible), np.uint8)]
            )
        if not implausible.any() and not self._implausible[series[rows]].any():
            return
        row = _by_series_and_time(rows, series, time)
        place = np.empty(len(flags), np.int64)
        place[rows] = np.arange(len(rows))
        implausible = implausible[place[row]]
        number = series[row]
        first = _is_first(number)
        begins = first.copy()
        begins[1:] |= implausible[1:] != implausible[:-1]
        start = np.flatnonzero(begins)
        run = np.cumsum(begins) - 1
        before = np.where(first[start], self._implausible[number[start]], 0)
        length = np.where(implausible, np.arange(len(row)) - start[run] + 1 + before[run], 0)
        marked = row[length >= UNIT_READINGS]
        flags[marked] |= np.uint32(Flag.UNIT)
        downgrade(quality, marked, Quality.UNCERTAIN)
        tails = np.append(np.flatnonzero(first)[1:] - 1, len(row) - 1)
        self._implausible[number[tails]] = np.minimum(length[tails], 255)


def _by_series_and_time(rows: I64, series: I32, time: I64) -> I64:
    """Return the rows ordered by (series, time); rows of the same time keep their order of arrival."""
    row = rows[radix_argsort(series[rows])]
    number, when = series[row], time[row]
    if ((number[1:] == number[:-1]) & (when[1:] < when[:-1])).any():
        row = row[np.lexsort((when, number))]
    return row


def _is_first(number: I32) -> BOOL:
    """Return True for each row that is the first of its series, for rows ordered by series."""
    first = np.empty(len(number), np.bool_)
    first[0] = True
    np.not_equal(number[1:], number[:-1], out=first[1:])
    return first
