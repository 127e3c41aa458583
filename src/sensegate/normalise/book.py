"""The indicators of each device and hour, gathered from what `indicators` hands out: the last two days, in memory."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import zstandard

from sensegate.clock import Clock
from sensegate.normalise.indicators import HOUR, HOURS_MAX, Indications, Indicators

TAKE_S = 15.0
OPEN_H = 1
"""So many hours before the present one are kept as columns; older ones packed."""


class DeviceHour(msgspec.Struct, frozen=True, gc=False):
    """One device and hour; an indicator is 0 to 1, None where nothing defines it."""

    device: int
    """Index in the registry."""
    hour: int
    """Its beginning, µs UTC."""
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


class QualityRow(msgspec.Struct, frozen=True):
    """The four indicators of one device and hour, 0 to 1; null where nothing defines one."""

    device: str
    hour: int
    """µs UTC of its beginning."""
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


class QualityBook:
    """Sums by (hour, device)."""

    def __init__(self, indicators: Indicators, clock: Clock) -> None:
        self._indicators = indicators
        self._clock = clock
        self._taken: dict[int, Indications] = {}
        """Hour -> what was taken of it, one row per device."""
        self._packed: dict[int, _Packed] = {}
        """The same of hours of which little comes any more."""

    async def run(self) -> None:
        """Take what was counted, every so often, until cancelled."""
        while True:
            await self._clock.sleep(TAKE_S)
            self.take()

    def take(self) -> None:
        """Take what was counted since the last time."""
        # With the open hours: an operator who has just put up a station wants to see it now.
        taken = self._indicators.take(self._clock.now(), final=True)
        for hour in set(taken.hour.tolist()):
            rows = taken.hour == hour
            part = Indications(**{name: getattr(taken, name)[rows] for name in Indications.__struct_fields__})
            known = self._of(hour)
            self._taken[hour] = _summed([known, part] if known else [part])
        now = self._clock.now() // HOUR
        for hour in [hour for hour in self._taken if hour < now - OPEN_H]:
            self._packed[hour] = _pack(self._taken.pop(hour))
        for hour in [hour for hour in self._packed if hour < now - HOURS_MAX]:
            del self._packed[hour]

    def _of(self, hour: int) -> Indications | None:
        """Return what was taken of an hour."""
        packed = self._packed.get(hour)
        return _unpack(packed) if packed and hour not in self._taken else self._taken.get(hour)

    def since(self, time: int) -> list[DeviceHour]:
        """Return the indicators of the hours that end after `time` (µs), newest hour first."""
        self.take()
        found: list[DeviceHour] = []
        for hour in sorted({*self._taken, *self._packed}, reverse=True):
            if (hour + 1) * HOUR > time and (part := self._of(hour)):
                found += _rows(part, hour * HOUR)
        return found


class _Packed(msgspec.Struct, frozen=True, gc=False):
    """Columns of one hour, compressed: they are nearly constant."""

    kinds: tuple[str, ...]
    """numpy's name of the type of each column, in the order of `Indications`."""
    columns: tuple[bytes, ...]


def _pack(part: Indications) -> _Packed:
    columns = [getattr(part, name) for name in Indications.__struct_fields__]
    press = zstandard.ZstdCompressor(1).compress
    return _Packed(tuple(one.dtype.str for one in columns), tuple(press(one.tobytes()) for one in columns))


def _unpack(packed: _Packed) -> Indications:
    loosen = zstandard.ZstdDecompressor().decompress
    columns = [np.frombuffer(loosen(one), kind) for kind, one in zip(packed.kinds, packed.columns, strict=True)]
    return Indications(*columns)


def _rows(part: Indications, hour: int) -> list[DeviceHour]:
    columns = [
        [None if math.isnan(value) else round(value, 4) for value in column.tolist()]
        for column in (part.authenticity, part.accuracy, part.continuity, part.completeness)
    ]
    return [
        DeviceHour(device, hour, received, *shares)
        for device, received, *shares in zip(part.device.tolist(), part.received.tolist(), *columns, strict=True)
    ]


def _summed(parts: list[Indications]) -> Indications:
    """Return one row per device: counts add up; of `expected`, `longest` and `span` the greatest holds."""
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Indications.__struct_fields__}
    devices, place = np.unique(whole["device"], return_inverse=True)
    summed = {"device": devices, "hour": np.full(len(devices), whole["hour"][0], np.int64)}
    for name in ("received", "doubted", "wrong", "rejected", "gaps", "silent"):
        total = np.zeros(len(devices), whole[name].dtype)
        np.add.at(total, place, whole[name])
        summed[name] = total
    for name in ("longest", "expected", "span"):
        greatest = np.zeros(len(devices), whole[name].dtype)
        np.maximum.at(greatest, place, whole[name])
        summed[name] = greatest
    return Indications(**summed)
