"""Means of the four quality indicators over hours and devices, from columns."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from sensegate.model import BOOL, F64, I64, QualityHour

INDICATORS = ("authenticity", "accuracy", "continuity", "completeness")


class MeanIndicators(msgspec.Struct, frozen=True):
    """Means over hours of devices: 0 to 1, or None where an indicator was defined in no hour."""

    devices: int
    """Devices that were judged in an hour at least."""
    hours: int
    """Hours of devices."""
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


class DeviceIndicatorSums:
    """Sums over hours, by device index."""

    def __init__(self, size: int) -> None:
        """Begin with nothing for `size` devices."""
        self.size = size
        self.hours: I64 = np.zeros(size, np.int64)
        self.received: I64 = np.zeros(size, np.int64)
        self._sums: dict[str, F64] = {name: np.zeros(size) for name in INDICATORS}
        self._counts: dict[str, I64] = {name: np.zeros(size, np.int64) for name in INDICATORS}

    @classmethod
    def of(cls, size: int, hours: Iterable[QualityHour]) -> DeviceIndicatorSums:
        """Return the sums of some hours over the devices with an index below `size`."""
        sums = cls(size)
        for hour in hours:
            sums.add(hour)
        return sums

    def add(self, hour: QualityHour) -> None:
        """Add the indicators of an hour."""
        # The devices of an hour ascend, each once: what is beyond the size was registered meanwhile.
        end = int(np.searchsorted(hour.device, self.size))
        device = hour.device[:end]
        self.hours[device] += 1
        self.received[device] += hour.received[:end]
        for name in INDICATORS:
            values: F64 = getattr(hour, name)[:end]
            known = ~np.isnan(values)
            self._sums[name][device] += np.where(known, values, 0.0)
            self._counts[name][device] += known

    def means(self, selected: BOOL) -> MeanIndicators:
        """Return the means over the devices of a mask."""
        return self.means_by(np.zeros(self.size, np.int64), selected, 1)[0]

    def means_by(self, group: I64, selected: BOOL, groups: int) -> list[MeanIndicators]:
        """Return the means of each group of the devices of a mask; `group` has the number of each device's group."""
        judged = np.flatnonzero(selected & (self.hours > 0))
        member = group[judged]

        def summed(column: I64 | F64) -> list[float]:
            sums: list[float] = np.bincount(member, weights=column[judged], minlength=groups).tolist()
            return sums

        means: list[list[float | None]] = []
        for name in INDICATORS:
            pairs = zip(summed(self._sums[name]), summed(self._counts[name]), strict=True)
            means.append([round(total / count, 4) if count else None for total, count in pairs])
        devices = np.bincount(member, minlength=groups).tolist()
        return [
            MeanIndicators(count, int(hours), int(received), *values)
            for count, hours, received, *values in zip(
                devices, summed(self.hours), summed(self.received), *means, strict=True
            )
        ]
