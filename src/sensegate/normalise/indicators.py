"""Four quality indicators of each device and hour: authenticity, accuracy, continuity, completeness.

(真實性、準確性、連續性、完整性.) The definitions follow clause 六(二)2 of 粵府〔2023〕47號 as this project interprets
it:

* **authenticity** = 1 - doubted / received. Doubted are readings whose sender was not authenticated, that are stuck, or
  that are not fresh (flags `stuck`, `future`, `stale`, `clock`).
* **accuracy** = 1 - wrong / (received + rejected). Wrong are readings flagged `range` or `step` or of bad quality, and
  every rejected value (type, unit, dimension, enumeration, not finite, time).
* **continuity** = 1 - silent time / time. A device is silent from one expected interval after its last message on,
  once another half interval has passed. This is judged live: late messages do not restore it.
* **completeness** = received / expected, at most 1. One reading is expected for each interval of each series that the
  device has shown. Late readings count for the hour in which they were measured.

Received readings are those that were stored: duplicates do not count, nor do readings of an hour that ended more than
two days ago. A reading from the future counts, as doubted, for the hour in which it arrived. An indicator is NaN where
it is undefined (no reading, no declared interval). Counts are kept in memory and merged by hour by the caller of
`drain`; after a `kill -9` the counts not yet drained are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.clock import HOUR_US
from sensegate.model import BOOL, F64, I32, I64, U32, Readings, RejectedValue
from sensegate.normalise.table import SpecTable
from sensegate.quantities.indicator_counts import HOURS_MAX, IndicatorCounts
from sensegate.quantities.quality import BAD_FROM, Flag
from sensegate.quantities.series import SeriesIndex
from sensegate.quantities.sorting import radix_argsort

GRACE = 300_000_000
"""Time after the end of an hour at which it is closed, µs."""
GAP_INTERVALS = 1.5
"""Number of expected intervals above which a pause is a gap."""

_DOUBTED = np.uint32(Flag.STUCK | Flag.FUTURE | Flag.STALE | Flag.CLOCK)
_WRONG = np.uint32(Flag.RANGE | Flag.STEP)
_NEVER = -(1 << 61)


class _Hour:
    """Counts of one hour, by device index."""

    COUNTS = ("received", "doubted", "wrong", "rejected", "gaps")
    TIMES = ("silent", "longest")

    def __init__(self, size: int) -> None:
        self.counts = {name: np.zeros(size, np.uint32) for name in self.COUNTS}
        self.times = {name: np.zeros(size, np.int64) for name in self.TIMES}

    def grow(self, size: int) -> None:
        """Make room for device indices below `size`."""
        if size > len(self.counts["received"]):
            self.counts = {name: _grown(column, size) for name, column in self.counts.items()}
            self.times = {name: _grown(column, size) for name, column in self.times.items()}


class Indicators:
    """Counts batches by device and hour; see the module docstring for what is counted."""

    def __init__(self, series: SeriesIndex) -> None:
        self._series = series
        self._hours: dict[int, _Hour] = {}
        self._seen: BOOL = np.zeros(0, np.bool_)
        """Mask of the series that are counted in the rate of their device."""
        self._size = 0
        self._rate: F64 = np.zeros(0, np.float64)
        """Expected readings per hour, by device."""
        self._interval: I64 = np.zeros(0, np.int64)
        """Shortest interval of the series of a device, µs; 0: none."""
        self._first: I64 = np.zeros(0, np.int64)
        self._last: I64 = np.zeros(0, np.int64)
        self._silence_until: I64 = np.zeros(0, np.int64)
        """Time up to which the silence of a device has been counted."""
        self._closed = -1
        """The last hour that was closed."""

    def count(
        self,
        table: SpecTable,
        readings: Readings,
        rejected: Sequence[RejectedValue] = (),
        *,
        keep: BOOL | None = None,
        proved: BOOL | None = None,
        received: I64 | None = None,
    ) -> None:
        """Count one batch, after deduplication.

        Args:
            table: the specs that the readings' `spec` refers to.
            readings: as returned by `Normaliser`.
            rejected: values that did not become a reading; those without a device are not counted here.
            keep: rows that were accepted; None: all.
            proved: per message, whether the sender was authenticated; None: all were.
            received: arrival of each message; needed to place rejected values if the batch has no readings.
        """
        rows = np.arange(len(readings)) if keep is None or keep.all() else np.flatnonzero(keep)
        top = max(
            int(readings.device.max()) if len(readings) else -1, max((value.device for value in rejected), default=-1)
        )
        self._grow(top + 1)
        if rows.size:
            self._learn_rates(table, readings, rows)
            self._count_readings(readings, rows, proved)
        if rejected:
            self._count_rejected(readings, rejected, received)

    def forget_rates(self) -> None:
        """Learn the expected rate of each device again, after profiles have changed."""
        self._seen[:] = False
        self._rate[:] = 0
        self._interval[:] = 0

    def drain(self, now: int, *, final: bool = False) -> IndicatorCounts:
        """Return and discard the counts of hours that have ended; with `final` those of the open hours too.

        The first call after the end of an hour also includes the devices that sent nothing in it.
        """
        closing = (now - GRACE) // HOUR_US - 1
        if self._closed < 0:
            self._closed = min(closing, min(self._hours, default=closing + 1) - 1)
        for hour in range(max(self._closed + 1, closing - HOURS_MAX + 1), closing + 1):
            self._close_hour(hour)
        fresh = range(self._closed + 1, closing + 1)
        self._closed = max(self._closed, closing)
        ended = sorted(hour for hour in self._hours if final or hour <= self._closed)
        return _joined([self._columns(hour, self._hours.pop(hour), whole=hour in fresh) for hour in ended])

    # ── expected rates ─────────────────────────────────────────────────────────────────

    def _learn_rates(self, table: SpecTable, readings: Readings, rows: I64) -> None:
        if len(self._series) > len(self._seen):
            self._seen = _grown(self._seen, max(len(self._series), len(self._seen) * 3 // 2))
        new = ~self._seen[readings.series]
        if not new.any():
            return
        fresh = rows[new[rows]]
        _, at = np.unique(readings.series[fresh], return_index=True)
        fresh = fresh[at]
        self._seen[readings.series[fresh]] = True
        interval, device = table.interval[readings.spec[fresh]], readings.device[fresh]
        declared = interval > 0
        interval, device = interval[declared], device[declared]
        np.add.at(self._rate, device, HOUR_US / interval)
        shortest = np.where(self._interval > 0, self._interval, np.iinfo(np.int64).max)
        np.minimum.at(shortest, device, interval)
        self._interval[device] = shortest[device]

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────

    def _count_readings(self, readings: Readings, rows: I64, proved: BOOL | None) -> None:
        time, flags = readings.time[rows], readings.flags[rows]
        arrival = int(readings.received.max()) // HOUR_US
        if int(time.min()) // HOUR_US < arrival - HOURS_MAX or int(time.max()) // HOUR_US > arrival:
            future = (flags & np.uint32(Flag.FUTURE)) != 0
            time = np.where(future, readings.received[rows], time)
            within = time // HOUR_US >= arrival - HOURS_MAX
            rows, time, flags = rows[within], time[within], flags[within]
            if not rows.size:
                return
        message, device, quality = readings.message[rows], readings.device[rows], readings.quality[rows]
        hour = _hour_of(time)
        # Rows of one message and hour are adjacent: count them together.
        starts = np.flatnonzero((message[1:] != message[:-1]) | (hour[1:] != hour[:-1])) + 1
        starts = np.concatenate([np.zeros(1, np.int64), starts])
        counts = np.diff(starts, append=len(rows)).astype(np.uint32)
        self._add("received", device[starts], hour[starts], counts)

        doubted = (flags & _DOUBTED) != 0
        if proved is not None and not proved.all():
            doubted |= ~proved[message]
        self._add_sparse("doubted", device, hour, doubted)
        self._add_sparse("wrong", device, hour, ((flags & _WRONG) != 0) | (quality >= BAD_FROM))
        live = starts if not doubted.any() else starts[(flags[starts] & np.uint32(Flag.FUTURE)) == 0]
        if live.size:
            self._count_gaps(device[live], time[live])

    def _count_rejected(self, readings: Readings, rejected: Sequence[RejectedValue], received: I64 | None) -> None:
        known = [value for value in rejected if value.device >= 0]
        if not known or (received is None and not len(readings)):
            return
        device = np.array([value.device for value in known], np.int32)
        if received is None:
            hour = np.full(len(known), int(readings.received.max()) // HOUR_US)
        else:
            hour = received[np.array([value.message for value in known])] // HOUR_US
        ones = np.ones(len(known), np.uint32)
        self._add("rejected", device, hour, ones)
        self._add("wrong", device, hour, ones)

    def _count_gaps(self, device: I32, time: I64) -> None:
        """Count the gaps that these messages end; each message by its first row."""
        order = radix_argsort(device)
        device, time = device[order], time[order]
        if ((device[1:] == device[:-1]) & (time[1:] < time[:-1])).any():
            order = np.lexsort((time, device))
            device, time = device[order], time[order]
        head = np.concatenate([np.ones(1, np.bool_), device[1:] != device[:-1]])
        before = self._last[device]
        before[1:] = np.where(head[1:], before[1:], np.maximum(before[1:], time[:-1]))
        interval = self._interval[device]
        gap = (interval > 0) & (before != _NEVER) & (time - before > interval * GAP_INTERVALS)
        if gap.any():
            self._count_silence(device[gap], before[gap], time[gap])
        tail = np.concatenate([device[1:] != device[:-1], np.ones(1, np.bool_)])
        device, time, first = device[tail], time[tail], time[head]
        fresh = self._last[device] == _NEVER
        self._first[device[fresh]] = first[fresh]
        self._last[device] = np.maximum(self._last[device], time)

    def _count_silence(self, device: I32, last: I64, until: I64) -> None:
        """Count the silence of devices from their last message up to `until`, spread over the hours it lasted."""
        due = last + self._interval[device]
        new = self._silence_until[device] < due
        begin = np.maximum(due, self._silence_until[device])
        self._silence_until[device] = until
        first, final = begin // HOUR_US, (until - 1) // HOUR_US
        self._add("gaps", device[new], first[new], np.ones(int(new.sum()), np.uint32))
        first = np.maximum(first, final - HOURS_MAX + 1)
        many = np.maximum(final - first + 1, 0)
        gap = np.repeat(np.arange(len(device)), many)
        hour = np.arange(len(gap)) - np.repeat(np.cumsum(many) - many, many) + first[gap]
        silent = np.minimum(until[gap], (hour + 1) * HOUR_US) - np.maximum(begin[gap], hour * HOUR_US)
        self._add("silent", device[gap], hour, silent)
        self._add("longest", device[gap], hour, (until - last)[gap])

    def _close_hour(self, hour: int) -> None:
        """Count the silence that lasts at the end of an hour, and create the hour."""
        self._hour(hour)
        end = (hour + 1) * HOUR_US
        silent = (self._interval > 0) & (self._last != _NEVER) & (end - self._last > self._interval * GAP_INTERVALS)
        device = np.flatnonzero(silent & (self._silence_until < end)).astype(np.int32)
        if device.size:
            self._count_silence(device, self._last[device], np.full(len(device), end))

    def _add(self, name: str, device: I32, hour: I64, amount: U32 | I64) -> None:
        """Add amounts to a column (for `longest` take the maximum) for any hours."""
        if not len(device):
            return
        low = int(hour.min())
        hours = [low] if low == int(hour.max()) else np.unique(hour).tolist()
        for number in hours:
            table = self._hour(number)
            column = table.counts.get(name, table.times.get(name))
            here = slice(None) if len(hours) == 1 else hour == number
            (np.maximum if name == "longest" else np.add).at(column, device[here], amount[here])  # type: ignore[arg-type] # `name` is in one of the two tables

    def _add_sparse(self, name: str, device: I32, hour: I64, mask: BOOL) -> None:
        rows = np.flatnonzero(mask)
        if rows.size:
            self._add(name, device[rows], hour[rows], np.ones(len(rows), np.uint32))

    def _hour(self, hour: int) -> _Hour:
        table = self._hours.get(hour)
        if table is None:
            table = self._hours[hour] = _Hour(self._size)
            if len(self._hours) > 2 * HOURS_MAX:  # not drained: drop the oldest hour to bound memory
                del self._hours[min(self._hours)]
        table.grow(self._size)
        return table

    def _grow(self, size: int) -> None:
        if size <= self._size:
            return
        self._size = max(size, self._size * 3 // 2, 1024)
        self._rate, self._interval = _grown(self._rate, self._size), _grown(self._interval, self._size)
        self._first = _grown(self._first, self._size, _NEVER)
        self._last = _grown(self._last, self._size, _NEVER)
        self._silence_until = _grown(self._silence_until, self._size, _NEVER)

    # ── output ────────────────────────────────────────────────────────────────────────────────────

    def _columns(self, number: int, hour: _Hour, *, whole: bool) -> IndicatorCounts:
        hour.grow(self._size)
        any_count = np.zeros(self._size, np.bool_)
        for column in (*hour.counts.values(), *hour.times.values()):
            any_count |= column != 0
        end = (number + 1) * HOUR_US
        if whole:
            any_count |= (self._rate > 0) & (self._first != _NEVER) & (self._first < end)
        device = np.flatnonzero(any_count).astype(np.int32)
        span = np.clip(end - self._first[device], 0, HOUR_US)
        # An hour before the device's first message holds late readings: the device existed for all of it.
        span[span == 0] = HOUR_US
        counts, times = hour.counts, hour.times
        return IndicatorCounts(
            device=device,
            hour=np.full(len(device), number, np.int64),
            received=counts["received"][device],
            doubted=counts["doubted"][device],
            wrong=counts["wrong"][device],
            rejected=counts["rejected"][device],
            gaps=counts["gaps"][device],
            silent=times["silent"][device],
            longest=times["longest"][device],
            expected=self._rate[device] * (span / HOUR_US),
            span=span,
        )


_TYPES = {"device": np.int32, "hour": np.int64, "expected": np.float64, "span": np.int64} | dict.fromkeys(
    _Hour.TIMES, np.int64
)


def _joined(parts: list[IndicatorCounts]) -> IndicatorCounts:
    names = IndicatorCounts.__struct_fields__
    empty = {name: np.zeros(0, _TYPES.get(name, np.uint32)) for name in names}
    return IndicatorCounts(
        **{name: np.concatenate([empty[name], *(getattr(part, name) for part in parts)]) for name in names}
    )


def _hour_of(time: I64) -> I64:
    low = int(time.min()) // HOUR_US
    if int(time.max()) // HOUR_US == low:
        return np.broadcast_to(np.int64(low), time.shape)
    return time // HOUR_US


def _grown(column: np.ndarray, size: int, fill: int = 0) -> np.ndarray:
    grown = np.full(size, fill, column.dtype)
    grown[: len(column)] = column
    return grown
