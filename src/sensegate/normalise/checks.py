"""Checks of values, in the order range, rate of change, stuck value. All mark; none removes.

* range: outside the physical limits of the property is bad; outside the profile's narrower range is uncertain.
* step: further from the neighbour before it than is credible, both close enough in time to be compared. A counter
  that falls rolled over or was reset (`counters`), which is marked and good; it may not leap, nor go back a little.
* stuck: not moved at all for the property's `stuck_h`, over at least six readings.
* unit: twelve readings in a row a thousand times too large or too small to be usual (mg taken for ug).

A value out of range, or one from the future, is no neighbour to others. The past of a series is kept in arrays
indexed by its number: 26 bytes a series.
"""

from __future__ import annotations

import numpy as np

from sensegate.model import BOOL, F64, I32, I64, U8, U16, U32
from sensegate.normalise.counters import Fall, fall
from sensegate.normalise.table import SpecTable
from sensegate.quantities.quality import BAD_FROM, Flag, Quality
from sensegate.radix import order_of

STUCK_READINGS = 6
ODD_READINGS = 12
"""So many readings in a row make an unlikely unit likely."""
_LONG_AGO = -(1 << 61)


def grade(quality: U8, rows: I64, code: Quality) -> None:
    """Give rows a code where it is of a worse class than the one they have; of two in a class the first stays."""
    now = quality[rows]
    better = now == Quality.GOOD if code < BAD_FROM else now < BAD_FROM
    quality[rows[better]] = code


def check_range(table: SpecTable, spec: I32, value: F64, flags: U32, quality: U8) -> BOOL | None:
    """Mark values out of range; return True for them, None when there is none. NaN (text) is never out of range."""
    out: BOOL = (value < table.low.take(spec)) | (value > table.high.take(spec))
    rows = np.flatnonzero(out)
    if not rows.size:
        return None
    flags[rows] |= np.uint32(Flag.RANGE)
    which, said = spec[rows], value[rows]
    physical = (said < table.physical_low[which]) | (said > table.physical_high[which])
    grade(quality, rows[physical], Quality.BAD_RANGE)
    grade(quality, rows[~physical], Quality.UNCERTAIN_RANGE)
    return out


class Past:
    """The last value of each watched series, and since when it has not moved."""

    def __init__(self) -> None:
        self._time: I64 = np.zeros(0, np.int64)
        self._value: F64 = np.zeros(0, np.float64)
        self._since: I64 = np.zeros(0, np.int64)
        self._alike: U16 = np.zeros(0, np.uint16)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self._time.nbytes + self._value.nbytes + self._since.nbytes + self._alike.nbytes

    def check(
        self,
        table: SpecTable,
        rows: I64,
        *,
        spec: I32,
        series: I32,
        time: I64,
        value: F64,
        latest: int,
        flags: U32,
        quality: U8,
    ) -> None:
        """Mark steps and stuck values among `rows` and remember their last values.

        Rows of one series are compared in the order of their time, the first with what was remembered. What was
        remembered from after `latest` (our clock was ahead then) is forgotten.
        """
        self._grow(int(series.max()) + 1)
        row = _in_order(rows, series, time)
        number, when, said, which = series[row], time[row], value[row], spec[row]
        first = np.empty(len(row), np.bool_)
        first[0] = True
        np.not_equal(number[1:], number[:-1], out=first[1:])
        heads = np.flatnonzero(first)
        known_time = self._time[number[heads]]
        known_time[known_time > latest] = _LONG_AGO

        before, earlier = np.empty_like(said), np.empty_like(when)
        before[1:], earlier[1:] = said[:-1], when[:-1]
        before[heads], earlier[heads] = self._value[number[heads]], known_time
        overtaken = None
        if (when[heads] < known_time).any():
            # Some of these came late: the first that is newer than what we remember has that for its neighbour.
            known = known_time[np.cumsum(first) - 1]
            overtaken = ~first & (earlier < known) & (when >= known)
            before[overtaken], earlier[overtaken] = self._value[number[overtaken]], known[overtaken]
        apart = when - earlier

        change = said - before
        counts = np.flatnonzero(table.counter.take(which) & (change < 0) & (apart > 0))
        if counts.size:
            close = apart[counts] <= table.gap.take(which[counts])
            most = np.where(close, table.step.take(which[counts]), np.inf)
            change[counts] = _fallen(table, which[counts], before[counts], said[counts], most, row[counts], flags)
        leap = np.abs(change) > table.step.take(which)
        leap &= (apart > 0) & (apart <= table.gap.take(which))
        leap[counts] |= change[counts] < 0
        at = np.flatnonzero(leap)
        if at.size:
            flags[row[at]] |= np.uint32(Flag.STEP)
            grade(quality, row[at], Quality.UNCERTAIN_STEP)

        # A run is a stretch of equal values; it begins where the value moves, or where the past is older than told.
        begins = (said != before) | (apart < 0) | (earlier == _LONG_AGO)
        starts = begins | first
        if overtaken is not None:
            starts |= overtaken
        start = np.flatnonzero(starts)
        run = np.cumsum(starts) - 1
        goes_on = ~begins[start]
        since = np.where(goes_on, self._since[number[start]], when[start])[run]
        alike = np.arange(len(row)) - start[run] + np.where(goes_on, self._alike[number[start]] + 1, 1)[run]
        at = np.flatnonzero((when - since >= table.stuck.take(which)) & (alike >= STUCK_READINGS))
        if at.size:
            flags[row[at]] |= np.uint32(Flag.STUCK)
            grade(quality, row[at], Quality.UNCERTAIN_STUCK)

        tails = np.append(heads[1:] - 1, len(row) - 1)
        tails = tails[when[tails] > known_time]
        last = number[tails]
        self._time[last], self._value[last], self._since[last] = when[tails], said[tails], since[tails]
        self._alike[last] = np.minimum(alike[tails], np.iinfo(np.uint16).max - 1)

    def forget(self, series: I64) -> None:
        """Let the next reading of some series be their first."""
        self._time[series[series < len(self._time)]] = _LONG_AGO

    def _grow(self, size: int) -> None:
        have = len(self._time)
        if size <= have:
            return
        size = max(size, have * 3 // 2, 1024)
        for name, fill in (("_time", _LONG_AGO), ("_value", np.nan), ("_since", 0), ("_alike", 0)):
            old = getattr(self, name)
            grown = np.full(size, fill, old.dtype)
            grown[:have] = old
            setattr(self, name, grown)


def _fallen(table: SpecTable, which: I32, before: F64, said: F64, most: F64, row: I64, flags: U32) -> F64:  # noqa: PLR0917
    """Mark roll-overs and resets of counters that fell; return how far each is taken to have moved."""
    modulus = table.modulus.take(which)
    kind = fall(before, said, modulus, most)
    over, anew = kind == Fall.ROLLOVER, kind == Fall.RESET
    flags[row[over]] |= np.uint32(Flag.ROLLOVER)
    flags[row[anew]] |= np.uint32(Flag.RESET)
    moved: F64 = np.where(over, said + modulus - before, np.where(anew, 0.0, said - before))
    return moved


class Usual:
    """How often in a row each series was a thousand times too large or too small to be usual; a byte a series."""

    def __init__(self) -> None:
        self._odd: U8 = np.zeros(0, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes held by the array."""
        return self._odd.nbytes

    def check(
        self, table: SpecTable, *, spec: I32, series: I32, time: I64, value: F64, flags: U32, quality: U8
    ) -> None:
        """Mark readings of series whose unit was unlikely `ODD_READINGS` times in a row; 0 says nothing either way."""
        rows = np.flatnonzero(table.usual.take(spec) & (value != 0))
        if not rows.size:
            return
        which, size = spec[rows], np.abs(value[rows])
        low, high = table.usual_low.take(which), table.usual_high.take(which)
        less = (size < low) & (size >= low / 1000) & (size <= high / 1000)
        more = (size > high) & (size / 1000 >= low) & (size / 1000 <= high)
        odd = less | more
        top = int(series[rows].max()) + 1
        if top > len(self._odd):
            self._odd = np.concatenate([self._odd, np.zeros(max(top, 1024) - len(self._odd), np.uint8)])
        if not odd.any() and not self._odd[series[rows]].any():
            return
        row = _in_order(rows, series, time)
        place = np.empty(len(flags), np.int64)
        place[rows] = np.arange(len(rows))
        odd = odd[place[row]]
        number = series[row]
        first = np.ones(len(row), np.bool_)
        first[1:] = number[1:] != number[:-1]
        begins = first.copy()
        begins[1:] |= odd[1:] != odd[:-1]
        start = np.flatnonzero(begins)
        run = np.cumsum(begins) - 1
        before = np.where(first[start], self._odd[number[start]], 0)
        length = np.where(odd, np.arange(len(row)) - start[run] + 1 + before[run], 0)
        marked = row[length >= ODD_READINGS]
        flags[marked] |= np.uint32(Flag.UNIT)
        grade(quality, marked, Quality.UNCERTAIN)
        tails = np.append(np.flatnonzero(first)[1:] - 1, len(row) - 1)
        self._odd[number[tails]] = np.minimum(length[tails], 255)


def _in_order(rows: I64, series: I32, time: I64) -> I64:
    """Return the rows ordered by (series, time); rows of one time stay in the order in which they came."""
    row = rows[order_of(series[rows])]
    number, when = series[row], time[row]
    if ((number[1:] == number[:-1]) & (when[1:] < when[:-1])).any():
        row = row[np.lexsort((when, number))]
    return row
