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
"""Age from which on changed sums are computed again, in multiples of the time that this takes."""
_PAUSE_FACTOR = 3.0
_SLOW_S = 0.01
"""Duration of summing from which on a request gets older sums instead of waiting."""


class DevicePlaceSource(msgspec.Struct, frozen=True, eq=False):
    """Source of the places of devices."""

    places_of: Callable[[Sequence[str]], tuple[I64, Sequence[Place]]]
    """Devices -> number of the place of each (-1: it is not registered), and the places. Called in a thread."""
    version: Callable[[], int]
    """Returns a number that changes with every entry."""


def _no_places(devices: Sequence[str]) -> tuple[I64, Sequence[Place]]:
    return np.full(len(devices), -1, np.int64), ()


UNREGISTERED = DevicePlaceSource(_no_places, lambda: 0)
"""Without a registry: devices are where the ledgers say."""


class _HourSums(msgspec.Struct, frozen=True, eq=False):
    stamp: int
    version: int
    made_at: float
    duration_s: float
    counts: Mapping[Place, Counts]


class PlaceTotals:
    """Counts by place and kind of each node and hour."""

    def __init__(self, ledgers: HourlyLedgers, clock: Clock, source: DevicePlaceSource) -> None:
        self._ledgers = ledgers
        self._clock = clock
        self._source = source
        self._sums: dict[tuple[str, int], _HourSums] = {}
        self._making = asyncio.Lock()
        self._stale: dict[tuple[str, int], None] = {}
        self._has_stale = asyncio.Event()

    async def of(self, node: str, since_hour: int, before_hour: int | None = None) -> dict[int, Mapping[Place, Counts]]:
        """Return hour -> counts by place and kind of a node, in and after an hour, and before another one."""
        hours = self._ledgers.hours(node, since_hour, before_hour)
        async with self._making:
            return {hour: await self._hour(node, hour) for hour in hours}

    async def _hour(self, node: str, hour: int) -> Mapping[Place, Counts]:
        stamp, version, now = self._ledgers.stamp(node, hour), self._source.version(), self._clock.monotonic()
        known = self._sums.get((node, hour))
        if known:
            if (known.stamp, known.version) == (stamp, version) or now - known.made_at < _AGE_FACTOR * known.duration_s:
                return known.counts
            if known.stamp == stamp and known.duration_s > _SLOW_S:
                # Only the registry has changed: the hour is summed again when nobody waits for it.
                self.expect(node, hour)
                return known.counts
        return await self._renew(node, hour)

    async def _renew(self, node: str, hour: int) -> Mapping[Place, Counts]:
        stamp, version, now = self._ledgers.stamp(node, hour), self._source.version(), self._clock.monotonic()
        read = self._ledgers.reader_of(node, hour)
        counts = await asyncio.to_thread(_sum, read, self._source.places_of)
        made_at = self._clock.monotonic()
        self._sums[node, hour] = _HourSums(stamp, version, made_at, made_at - now, counts)
        if len(self._sums) > len(self._ledgers):
            self._sums = {key: sums for key, sums in self._sums.items() if key in self._ledgers}
        return counts

    def totals(self, node: str, hour: int) -> dict[str, int]:
        """Return the counts by kind over all places of an hour that was summed and has not changed since; else none."""
        known, totals = self._sums.get((node, hour)), dict[str, int]()
        if known and known.stamp == self._ledgers.stamp(node, hour):
            for counts in known.counts.values():
                for kind, count in counts.items():
                    totals[kind] = totals.get(kind, 0) + count
        return totals

    def expect(self, node: str, hour: int) -> None:
        """Schedule the sums of an hour for `run`, so that no request has to compute them."""
        self._stale[node, hour] = None
        self._has_stale.set()

    async def run(self, first_hour: int) -> None:
        """Sum the hours from `first_hour` on, the newest first, and those that are stale, until cancelled."""
        for node, hour in sorted(self._ledgers, key=lambda key: -key[1]):
            if hour >= first_hour and (node, hour) not in self._sums:
                await self._renew_aside(node, hour)
        while True:
            await self._has_stale.wait()
            self._has_stale.clear()
            while self._stale:
                node, hour = next(iter(self._stale))
                del self._stale[node, hour]
                if (node, hour) not in self._ledgers:
                    continue
                await self._renew_aside(node, hour)

    async def _renew_aside(self, node: str, hour: int) -> None:
        """Sum an hour, then leave the processor to others."""
        async with self._making:
            await self._renew(node, hour)
        sums = self._sums.get((node, hour))
        if sums and sums.duration_s:
            await self._clock.sleep(_PAUSE_FACTOR * sums.duration_s)


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
