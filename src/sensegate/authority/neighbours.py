"""Whether somebody else has built the same nearby: devices that measure the same, within some metres, of two owners.

It warns and forbids nothing (「一家建設、全省共用」): what is there already could be shared instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Action, Principal, Scope, allows
from sensegate.model import F64, Device

METRES_A_DEGREE = 111_320.0
PAIRS_MAX = 10_000
CELL_MAX = 200
"""Most devices of one cell that are held against each other: a building full of them is no street corner."""


class NearbyPair(msgspec.Struct, frozen=True):
    """Two devices that look like the same thing built twice."""

    device: str
    other: str
    """Empty where it lies outside of the caller's scope."""
    metres: float
    same: str
    """Property that both measure, or their profile."""
    division: str
    """Of the other."""
    owner: str
    other_owner: str
    """Empty as `other`."""


def owner_of(device: Device) -> str:
    """Return whose it is: its owner, else its department; empty: nobody says."""
    return device.owner or device.department


class Neighbours:
    """Looks for them in the registry."""

    def __init__(self, devices: Devices, measures: Callable[[str], frozenset[str]], *, near_m: float) -> None:
        """`measures` returns the properties of a profile, without housekeeping; empty: not known."""
        self._devices = devices
        self._measures = measures
        self._near_m = near_m

    def near(self, device_id: str, by: Principal) -> list[NearbyPair]:
        """Return what stands near a device, the nearest first."""
        devices = self._devices
        at = devices.find(device_id)
        if at < 0 or not self._near_m or np.isnan(devices.lon[at]):
            return []
        size = len(devices)
        lon, lat = devices.lon[:size], devices.lat[:size]
        metres = distance(lon, lat, float(devices.lon[at]), float(devices.lat[at]))
        near = np.flatnonzero((metres <= self._near_m) & devices.enabled[:size])
        found = [self._pair(at, int(neighbour), float(metres[neighbour]), by) for neighbour in near if neighbour != at]
        return sorted((candidate for candidate in found if candidate), key=lambda one: one.metres)[:20]

    def all(self, scope: Scope, by: Principal) -> list[NearbyPair]:
        """Return all pairs of which one lies in a scope; each once where both do."""
        if not self._near_m:
            return []
        return [pair for at, other, metres in self._candidates(scope) if (pair := self._pair(at, other, metres, by))][
            :PAIRS_MAX
        ]

    def _candidates(self, scope: Scope) -> Iterator[tuple[int, int, float]]:
        devices = self._devices
        size = len(devices)
        lon, lat = devices.lon[:size], devices.lat[:size]
        placed = np.flatnonzero(~np.isnan(lon) & devices.enabled[:size])
        tall = self._near_m / METRES_A_DEGREE
        cells: dict[tuple[int, int], list[int]] = defaultdict(list)
        for at in placed.tolist():
            row = int(lat[at] // tall)
            cells[row, int(lon[at] // _wide(row, tall))].append(at)
        count = 0
        for at in placed.tolist():
            middle = int(lat[at] // tall)
            around = [
                (row, int(lon[at] // _wide(row, tall)) + step)
                for row in (middle - 1, middle, middle + 1)
                for step in (-1, 0, 1)
            ]
            for cell in around:
                for other in cells.get(cell, ())[:CELL_MAX]:
                    if other == at:
                        continue
                    metres = float(distance(lon[other : other + 1], lat[other : other + 1], lon[at], lat[at])[0])
                    if metres > self._near_m:
                        continue
                    # Decoded only where two are near: most stand alone.
                    ours, theirs = devices.record(at), devices.record(other)
                    twice = other < at and scope.covers(theirs.division, theirs.department)
                    if not twice and scope.covers(ours.division, ours.department):
                        yield at, other, metres
                        count += 1
                        if count >= PAIRS_MAX * 10:
                            return

    def _pair(self, at: int, other: int, metres: float, by: Principal) -> NearbyPair | None:
        ours, theirs = self._devices.record(at), self._devices.record(other)
        one, two = owner_of(ours), owner_of(theirs)
        same = self.common_measure(ours, theirs)
        if not one or not two or one == two or not same:
            return None
        seen = allows(by, Action.READ_REGISTRY, theirs.division, theirs.department)
        return NearbyPair(
            ours.id, theirs.id if seen else "", round(metres, 1), same, theirs.division, one, two if seen else ""
        )

    def common_measure(self, ours: Device, theirs: Device) -> str:
        """Return what two devices have in common; empty: nothing."""
        if both := self._measures(ours.profile) & self._measures(theirs.profile):
            return min(both)
        if ours.profile == theirs.profile:
            return ours.profile
        known = self._measures(ours.profile) and self._measures(theirs.profile)
        return ours.domain if ours.domain and ours.domain == theirs.domain and not known else ""


def distance(lon: F64, lat: F64, east: float, north: float) -> F64:
    """Return metres to a place; right within a promille over the few metres that are asked for."""
    across = (lon - east) * np.cos(np.radians(north))
    metres: F64 = np.hypot(across, lat - north) * METRES_A_DEGREE
    return metres


def _wide(row: int, tall: float) -> float:
    """Return the width of the cells of a row, degrees: never narrower than they are tall, on the ground."""
    edge = min(89.0, (abs(row) + 1) * tall)
    return tall / max(0.01, float(np.cos(np.radians(edge))))
