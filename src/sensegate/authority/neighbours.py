"""Detection of nearby devices of different owners that measure the same.

It only warns (「一家建設、全省共用」): the existing device could be shared instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Action, Principal, Scope, allows
from sensegate.model import F64, Device

METRES_PER_DEGREE = 111_320.0
PAIRS_MAX = 10_000
CELL_MAX = 200
"""Most devices of a grid cell that are compared; a building may hold thousands."""


class NearbyPair(msgspec.Struct, frozen=True):
    """Two nearby devices that measure the same."""

    device: str
    other: str
    """Empty if the device is outside the caller's scope."""
    metres: float
    same: str
    """Property that both measure, or their common profile or domain."""
    division: str
    """Division of the other device."""
    owner: str
    other_owner: str
    """Empty if `other` is."""


def owner_of(device: Device) -> str:
    """Return the owner of a device, else its department; empty if neither is given."""
    return device.owner or device.department


class Neighbours:
    """Search for nearby devices in the registry."""

    def __init__(self, devices: Devices, measures: Callable[[str], frozenset[str]], *, near_m: float) -> None:
        """`measures` returns the properties of a profile, without housekeeping ones; empty: unknown."""
        self._devices = devices
        self._measures = measures
        self._near_m = near_m

    def near(self, device_id: str, by: Principal) -> list[NearbyPair]:
        """Return the devices near a device, the nearest first."""
        devices = self._devices
        at = devices.find(device_id)
        if at < 0 or not self._near_m or np.isnan(devices.lon[at]):
            return []
        size = len(devices)
        lon, lat = devices.lon[:size], devices.lat[:size]
        metres = distance(lon, lat, float(devices.lon[at]), float(devices.lat[at]))
        near = np.flatnonzero((metres <= self._near_m) & devices.enabled[:size])
        pairs = [self._pair(at, int(neighbour), float(metres[neighbour]), by) for neighbour in near if neighbour != at]
        return sorted((pair for pair in pairs if pair), key=lambda pair: pair.metres)[:20]

    def all(self, scope: Scope, by: Principal) -> list[NearbyPair]:
        """Return all pairs with a device in a scope, each pair once."""
        if not self._near_m:
            return []
        return [pair for at, other, metres in self._candidates(scope) if (pair := self._pair(at, other, metres, by))][
            :PAIRS_MAX
        ]

    def _candidates(self, scope: Scope) -> Iterator[tuple[int, int, float]]:
        devices = self._devices
        size = len(devices)
        lon, lat = devices.lon[:size], devices.lat[:size]
        located = np.flatnonzero(~np.isnan(lon) & devices.enabled[:size])
        height = self._near_m / METRES_PER_DEGREE
        cells: dict[tuple[int, int], list[int]] = defaultdict(list)
        for at in located.tolist():
            row = int(lat[at] // height)
            cells[row, int(lon[at] // _cell_width(row, height))].append(at)
        count = 0
        for at in located.tolist():
            middle = int(lat[at] // height)
            around = [
                (row, int(lon[at] // _cell_width(row, height)) + step)
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
                    # Records are decoded only for nearby pairs, because most devices have no neighbour.
                    ours, theirs = devices.record(at), devices.record(other)
                    listed = other < at and scope.covers(theirs.division, theirs.department)
                    if not listed and scope.covers(ours.division, ours.department):
                        yield at, other, metres
                        count += 1
                        if count >= PAIRS_MAX * 10:
                            return

    def _pair(self, at: int, other: int, metres: float, by: Principal) -> NearbyPair | None:
        ours, theirs = self._devices.record(at), self._devices.record(other)
        our_owner, their_owner = owner_of(ours), owner_of(theirs)
        same = self.common_measure(ours, theirs)
        if not our_owner or not their_owner or our_owner == their_owner or not same:
            return None
        visible = allows(by, Action.READ_REGISTRY, theirs.division, theirs.department)
        return NearbyPair(
            ours.id,
            theirs.id if visible else "",
            round(metres, 1),
            same,
            theirs.division,
            our_owner,
            their_owner if visible else "",
        )

    def common_measure(self, ours: Device, theirs: Device) -> str:
        """Return the property, profile or domain that two devices have in common; empty if there is none."""
        if both := self._measures(ours.profile) & self._measures(theirs.profile):
            return min(both)
        if ours.profile == theirs.profile:
            return ours.profile
        known = self._measures(ours.profile) and self._measures(theirs.profile)
        return ours.domain if ours.domain and ours.domain == theirs.domain and not known else ""


def distance(lon: F64, lat: F64, east: float, north: float) -> F64:
    """Return the distances to a point in metres; accurate to 0.1 % for short distances."""
    across = (lon - east) * np.cos(np.radians(north))
    metres: F64 = np.hypot(across, lat - north) * METRES_PER_DEGREE
    return metres


def _cell_width(row: int, height: float) -> float:
    """Return the width of the cells of a row in degrees, so that they are at least as wide as high on the ground."""
    edge = min(89.0, (abs(row) + 1) * height)
    return height / max(0.01, float(np.cos(np.radians(edge))))
