"""Quality indicators by device and hour for the last two days, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import zstandard

from sensegate.clock import HOUR_US, Clock
from sensegate.model import QualityHour
from sensegate.normalise.indicators import Indicators
from sensegate.quantities.indicator_counts import HOURS_MAX, IndicatorCounts

COLLECT_S = 15.0
OPEN_HOURS = 1
"""Number of past hours kept as plain columns; older hours are compressed."""


class IndicatorStore:
    """Indicator counts by hour and device."""

    def __init__(self, indicators: Indicators, clock: Clock) -> None:
        self._indicators = indicators
        self._clock = clock
        self._open: dict[int, IndicatorCounts] = {}
        """Hour -> its counts, one row per device."""
        self._packed: dict[int, _Packed] = {}
        """Compressed counts of hours that rarely change any more."""

    async def run(self) -> None:
        """Collect new counts periodically until cancelled."""
        while True:
            await self._clock.sleep(COLLECT_S)
            self.collect()

    def collect(self) -> None:
        """Collect the counts gathered since the last call."""
        # Includes the open hours: an operator who has just installed a station wants to see it immediately.
        taken = self._indicators.drain(self._clock.now(), final=True)
        for hour in set(taken.hour.tolist()):
            rows = taken.hour == hour
            part = IndicatorCounts(**{name: getattr(taken, name)[rows] for name in IndicatorCounts.__struct_fields__})
            known = self._counts(hour)
            self._open[hour] = _summed([known, part] if known else [part])
        now = self._clock.now() // HOUR_US
        for hour in [hour for hour in self._open if hour < now - OPEN_HOURS]:
            self._packed[hour] = _pack(self._open.pop(hour))
        for hour in [hour for hour in self._packed if hour < now - HOURS_MAX]:
            del self._packed[hour]

    def _counts(self, hour: int) -> IndicatorCounts | None:
        """Return the counts of an hour."""
        packed = self._packed.get(hour)
        return _unpack(packed) if packed and hour not in self._open else self._open.get(hour)

    def since(self, time: int) -> Iterator[QualityHour]:
        """Return the indicators of the hours that end after `time` (µs), newest hour first.

        The counts are those of now; each hour is unpacked when the iterator comes to it, possibly in another thread.
        """
        self.collect()
        hours = [hour for hour in sorted({*self._open, *self._packed}, reverse=True) if (hour + 1) * HOUR_US > time]
        parts = [(hour, self._open[hour] if hour in self._open else self._packed[hour]) for hour in hours]
        return (_quality(hour, _unpack(part) if isinstance(part, _Packed) else part) for hour, part in parts)

    def counts_after(self, hour: int, limit: int) -> list[tuple[int, IndicatorCounts]]:
        """Return (hour, its counts) of the next hours after one that have any, oldest first; hours since 1970."""
        self.collect()
        parts: list[tuple[int, IndicatorCounts]] = []
        for number in sorted(number for number in {*self._open, *self._packed} if number > hour):
            # An hour without counts must not take the place of one with.
            if len(parts) < limit and (counts := self._counts(number)):
                parts.append((number, counts))
        return parts


def _quality(hour: int, part: IndicatorCounts) -> QualityHour:
    return QualityHour(
        hour * HOUR_US,
        part.device,
        part.received,
        part.authenticity,
        part.accuracy,
        part.continuity,
        part.completeness,
    )


class _Packed(msgspec.Struct, frozen=True, gc=False):
    """Compressed columns of one hour; the columns are nearly constant."""

    kinds: tuple[str, ...]
    """numpy dtype of each column, in the order of `IndicatorCounts`."""
    columns: tuple[bytes, ...]


def _pack(part: IndicatorCounts) -> _Packed:
    columns = [getattr(part, name) for name in IndicatorCounts.__struct_fields__]
    press = zstandard.ZstdCompressor(1).compress
    return _Packed(tuple(column.dtype.str for column in columns), tuple(press(column.tobytes()) for column in columns))


def _unpack(packed: _Packed) -> IndicatorCounts:
    loosen = zstandard.ZstdDecompressor().decompress
    columns = [np.frombuffer(loosen(column), kind) for kind, column in zip(packed.kinds, packed.columns, strict=True)]
    return IndicatorCounts(*columns)


def _summed(parts: list[IndicatorCounts]) -> IndicatorCounts:
    """Merge counts into one row per device: sums, but the maximum of `expected`, `longest` and `span`."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in IndicatorCounts.__struct_fields__
    }
    devices, place = np.unique(columns["device"], return_inverse=True)
    summed = {"device": devices, "hour": np.full(len(devices), columns["hour"][0], np.int64)}
    for name in ("received", "doubted", "wrong", "rejected", "gaps", "silent"):
        total = np.zeros(len(devices), columns[name].dtype)
        np.add.at(total, place, columns[name])
        summed[name] = total
    for name in ("longest", "expected", "span"):
        greatest = np.zeros(len(devices), columns[name].dtype)
        np.maximum.at(greatest, place, columns[name])
        summed[name] = greatest
    return IndicatorCounts(**summed)
