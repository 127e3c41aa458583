"""Hourly sums of the quality indicators, by city: a node reports them, its centre checks and keeps them.

Only sums cross the border: no device, no reading and no place below the city.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Annotated

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.clock import HOUR_US, Clock
from sensegate.model import BOOL, F64, I32
from sensegate.quantities.indicator_counts import HOURS_MAX, IndicatorCounts

INDICATORS = ("authenticity", "accuracy", "continuity", "completeness")
"""Order of the sums and counts of a row."""
ROWS_MAX = 512
"""Most rows of a report."""
CITY_DIGITS = 4
HOURS_AT_ONCE = 6
"""Most hours that are summed at once: each takes some milliseconds with 100,000 devices."""
REFRESH_S = 30.0
"""Time for which the sums of a report are sent unchanged."""
AHEAD_HOURS = 1
"""Hours by which a node's clock may be ahead."""
DEVICES_MAX = 10_000_000

_Hour = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=DEVICES_MAX)]
_Sum = Annotated[float, msgspec.Meta(ge=0, le=DEVICES_MAX)]
_SLACK = 1e-6


class HourIndicators(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Sums of the indicators of the devices of one city in one hour."""

    hour: _Hour
    """Hours since 1970-01-01T00:00:00Z."""
    division: Annotated[str, msgspec.Meta(pattern=r"^\d{2}(\d{2})?$")]
    """Code of the city; of the province where a device belongs to no city."""
    devices: _Count
    """Devices that were judged."""
    received: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    sums: tuple[_Sum, _Sum, _Sum, _Sum]
    """Sum over the devices, each 0 to 1, for each of `INDICATORS`."""
    counts: tuple[_Count, _Count, _Count, _Count]
    """Number of devices for which each of `INDICATORS` is defined."""

    @property
    def is_possible(self) -> bool:
        """Return whether the numbers can be those of so many devices. NaN is not possible."""
        return all(
            value <= count + _SLACK and count <= self.devices
            for value, count in zip(self.sums, self.counts, strict=True)
        )


def hour_sums(hour: int, counts: IndicatorCounts, city: I32, codes: Collection[str]) -> list[HourIndicators]:
    """Return the sums of an hour by city.

    Args:
        hour: hours since 1970-01-01T00:00:00Z.
        counts: its counts by device.
        city: index of each device -> index in `codes`.
        codes: codes of cities.
    """
    place = city[counts.device]
    size = len(codes)
    devices = np.bincount(place, minlength=size)
    received = np.bincount(place, weights=counts.received, minlength=size)
    sums, known = np.zeros((size, 4), np.float64), np.zeros((size, 4), np.int64)
    for column, name in enumerate(INDICATORS):
        values: F64 = getattr(counts, name)
        defined: BOOL = ~np.isnan(values)
        sums[:, column] = np.bincount(place[defined], weights=values[defined], minlength=size)
        known[:, column] = np.bincount(place[defined], minlength=size)
    return [
        HourIndicators(
            hour,
            code,
            int(devices[at]),
            int(received[at]),
            tuple(np.round(sums[at], 4).tolist()),
            tuple(known[at].tolist()),
        )
        for at, code in enumerate(codes)
        if devices[at]
    ]


CountsAfter = Callable[[int, int], Sequence[tuple[int, IndicatorCounts]]]
"""(hour, most hours) -> (hour, its counts) of the next hours after it, oldest first."""


class IndicatorSums:
    """The hourly sums of this gateway's own devices."""

    def __init__(self, counts_after: CountsAfter, devices: Devices, clock: Clock) -> None:
        self._counts_after = counts_after
        self._devices = devices
        self._clock = clock
        self._rows: tuple[HourIndicators, ...] = ()
        self._after = -1
        self._made_at = float("-inf")

    def after(self, hour: int) -> tuple[HourIndicators, ...]:
        """Return the sums of the next hours after one, oldest first; computed twice a minute at most."""
        now = self._clock.monotonic()
        if hour < self._after or now - self._made_at >= REFRESH_S:
            index = self._devices.index
            self._rows = tuple(
                row
                for number, counts in self._counts_after(hour, HOURS_AT_ONCE)
                for row in hour_sums(number, counts, index.city, index.cities.all)
            )
            self._after, self._made_at = hour, now
        return tuple(row for row in self._rows if row.hour > hour)[:ROWS_MAX]


def unacceptable(row: HourIndicators, areas: Collection[str], now: int) -> str:
    """Return why a node's row is not taken; empty: it is.

    Args:
        row: the row.
        areas: divisions for which the node may speak.
        now: µs UTC of the centre's clock.
    """
    present = now // HOUR_US
    if not present - HOURS_MAX - 1 <= row.hour <= present + AHEAD_HOURS:
        return "an hour that is too old or to come"
    if not any(row.division.startswith(area) or row.division == area[:CITY_DIGITS] for area in areas):
        return f"city {row.division}, which is none of its areas"
    return "" if row.is_possible else "sums that so many devices cannot have"
