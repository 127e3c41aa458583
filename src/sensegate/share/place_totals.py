"""Counts of the hourly ledgers by place, so that a view of a county does not read the counts of every device.

The sums of an hour are kept until the hour or the registry changes. Of a large city one hour takes tens of
milliseconds; while both change all the time, the sums are renewed so seldom that this takes a twentieth of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from sensegate.bus.ledger import Ledger
from sensegate.clock import Clock
from sensegate.model import I64

if TYPE_CHECKING:
    from sensegate.share.hourly_ledgers import HourlyLedgers

Counts = Mapping[str, int]
Place = tuple[str, str]
"""(division, department)."""
UNKNOWN: Place = ("", "")
"""Place of counts of devices that are unknown here and have no place in the ledger."""
_AGE_FACTOR = 20.0
"""Sums that have changed are renewed after so many times what it takes to make them."""


class DevicePlaceSource(msgspec.Struct, frozen=True, eq=False):
    """Where devices are registered."""

    places_of: Callable[[Sequence[str]], tuple[I64, Sequence[Place]]]
    """Devices -> number of the place of each (-1: it is not registered), and the places. Called in a thread."""
    version: Callable[[], int]
    """Returns a number that changes with every entry."""


class _HourSums(msgspec.Struct, frozen=True, eq=False):
    stamp: int
    version: int
    made: float
    took_s: float
    counts: Mapping[Place, Counts]


class PlaceTotals:
    """Counts by place and kind of each node and hour."""

    def __init__(self, ledgers: HourlyLedgers, clock: Clock) -> None:
        self._ledgers = ledgers
        self._clock = clock
        self._sums: dict[tuple[str, int], _HourSums] = {}
        self._making = asyncio.Lock()

    async def of(
        self, registry: DevicePlaceSource, node: str, since_hour: int, before_hour: int | None = None
    ) -> dict[int, Mapping[Place, Counts]]:
        """Return hour -> counts by place and kind of a node, in and after an hour, and before another one."""
        hours = self._ledgers.hours(node, since_hour, before_hour)
        async with self._making:
            return {hour: await self._hour(registry, node, hour) for hour in hours}

    async def _hour(self, registry: DevicePlaceSource, node: str, hour: int) -> Mapping[Place, Counts]:
        stamp, version, now = self._ledgers.stamp(node, hour), registry.version(), self._clock.monotonic()
        known = self._sums.get((node, hour))
        if known and (
            (known.stamp, known.version) == (stamp, version) or now - known.made < _AGE_FACTOR * known.took_s
        ):
            return known.counts
        read = self._ledgers.reader_of(node, hour)
        counts = await asyncio.to_thread(_sum, read, registry.places_of)
        made = self._clock.monotonic()
        self._sums[node, hour] = _HourSums(stamp, version, made, made - now, counts)
        if len(self._sums) > len(self._ledgers):
            self._sums = {key: sums for key, sums in self._sums.items() if key in self._ledgers}
        return counts


def _sum(
    read: Callable[[], Ledger], places_of: Callable[[Sequence[str]], tuple[I64, Sequence[Place]]]
) -> Mapping[Place, Counts]:
    ledger = read()
    devices, _, kinds = ledger.names()
    place, places = places_of(devices)
    numbers = {name: number for number, name in enumerate(places)}
    for at in np.flatnonzero(place < 0).tolist():
        place[at] = numbers.setdefault(_recorded(ledger, devices[at]), len(numbers))
    kind, device, count = ledger.cells()
    sums = np.bincount(place[device] * len(kinds) + kind, weights=count, minlength=len(numbers) * len(kinds))
    rows = sums.astype(np.int64).reshape(len(numbers), len(kinds)).tolist()
    return {
        name: {word: count for word, count in zip(kinds, row, strict=True) if count}
        for name, row in zip(numbers, rows, strict=True)
        if any(row)
    }


def _recorded(ledger: Ledger, device: str) -> Place:
    recorded = ledger.place_of(device)
    return recorded if recorded[0] else UNKNOWN
