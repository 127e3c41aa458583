"""The registry as columns, by device index, for the hot path.

A device gets an index when it is first seen; the index is never changed or reused while the process lives. Arrays
are replaced when they grow, so take them from the index for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.model import BOOL, F64, I32, I64, U8, Datum, Device, DeviceState

ToWgs84 = Callable[[F64, F64, Datum], tuple[F64, F64]]
"""(lon, lat, datum) -> (lon, lat) in WGS-84, for arrays of equal length."""

STATES = tuple(DeviceState)
_INACTIVE = frozenset({DeviceState.DISABLED, DeviceState.RETIRED})
_GROWTH = 1024


def unchanged(lon: F64, lat: F64, datum: Datum) -> tuple[F64, F64]:
    """Return WGS-84 coordinates unchanged and others as NaN; the gateway passes a real conversion instead."""
    if datum in (Datum.WGS84, Datum.CGCS2000):
        return lon, lat
    return np.full_like(lon, np.nan), np.full_like(lat, np.nan)


def _inverse(order: list[int]) -> I64:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


class WordList:
    """A growing list of distinct words with stable indices."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._at: dict[str, int] = {}

    def index(self, word: str) -> int:
        """Return the index of a word, which is added if it is new."""
        at = self._at.get(word)
        if at is None:
            at = self._at[word] = len(self.all)
            self.all.append(word)
        return at

    def find(self, word: str) -> int:
        """Return the index of a word; -1 if it was never added."""
        return self._at.get(word, -1)


class DeviceIndex:
    """Columns over all devices seen by this process."""

    def __init__(self, divisions: Divisions, to_wgs84: ToWgs84) -> None:
        self._table = divisions
        self._to_wgs84 = to_wgs84
        self.divisions, self.departments, self.domains, self.profiles = WordList(), WordList(), WordList(), WordList()
        self.cities = WordList()
        """Cities as on the log's subjects."""
        self.gateways = WordList()
        self.gateways.index("")
        self.ids: list[str] = []
        self.names: dict[str, int] = {}
        """Canonical id or alias -> index."""
        self._extents: F64 = np.empty((0, 4))
        """Extent of each division, by its index."""
        self._rank: I64 = np.empty(0, np.int64)
        self._sorted_apart = 0
        self._allocate(0)

    def _allocate(self, size: int) -> None:
        def grown(name: str, kind: type[np.generic], fill: float) -> np.ndarray:
            new = np.full(size, fill, kind)
            old = getattr(self, name, None)
            if old is not None:
                new[: len(old)] = old
            return new

        self.grade: U8 = grown("grade", np.uint8, 0)
        self.state: U8 = grown("state", np.uint8, 0)
        self.present: BOOL = grown("present", np.bool_, 0)
        self.enabled: BOOL = grown("enabled", np.bool_, 0)
        self.has_name: BOOL = grown("has_name", np.bool_, 0)
        self.has_owner: BOOL = grown("has_owner", np.bool_, 0)
        self.has_asset: BOOL = grown("has_asset", np.bool_, 0)
        self.city: I32 = grown("city", np.int32, 0)
        self.division: I32 = grown("division", np.int32, 0)
        self.department: I32 = grown("department", np.int32, 0)
        self.domain: I32 = grown("domain", np.int32, 0)
        self.profile: I32 = grown("profile", np.int32, 0)
        self.gateway: I32 = grown("gateway", np.int32, 0)
        self.lon: F64 = grown("lon", np.float64, np.nan)
        self.lat: F64 = grown("lat", np.float64, np.nan)
        self.interval_s: F64 = grown("interval_s", np.float64, 0)
        self.last_seen: I64 = grown("last_seen", np.int64, 0)

    def __len__(self) -> int:
        return len(self.ids)

    def reserve(self, more: int) -> None:
        """Allocate room for `more` devices."""
        if len(self.ids) + more > len(self.grade):
            self._allocate(max(len(self.ids) + more, len(self.grade) * 3 // 2) + _GROWTH)

    def slot(self, name: str) -> int:
        """Return the index of a canonical id, which is assigned if it is new."""
        at = self.names.get(name, -1)
        if at >= 0 and self.ids[at] == name:
            return at
        self.reserve(1)
        at = len(self.ids)
        self.ids.append(name)
        # An id takes precedence over an alias of another device; two processes may have registered both at once.
        self.names[name] = at
        return at

    def ranks(self, devices: I64) -> I64:
        """Return numbers that are in the order of the ids of these devices; for one thread at a time.

        The devices, in ascending order, are ranked among all known ones, or, while a newer one has no rank yet, among
        themselves: sorting all again pays only after as many have been sorted so.
        """
        if len(devices) and int(devices[-1]) >= len(self._rank):
            ids = self.ids
            if self._sorted_apart + len(devices) < len(ids):
                self._sorted_apart += len(devices)
                names = list(map(ids.__getitem__, devices.tolist()))
                return _inverse(sorted(range(len(names)), key=names.__getitem__))
            self._sorted_apart = 0
            ranked = np.argsort(self._rank).tolist()  # nearly sorted already, which makes the sort cheap
            self._rank = _inverse(sorted([*ranked, *range(len(ranked), len(ids))], key=ids.__getitem__))
        return self._rank[devices]

    def find_id(self, name: str) -> int:
        """Return the index of a canonical id; -1 if there is none, even if it is an alias."""
        at = self.names.get(name, -1)
        return at if at >= 0 and self.ids[at] == name else -1

    def put(self, at: int, device: Device) -> None:
        """Write all columns of a device except its coordinates (see `place`)."""
        division = self.divisions.find(device.division)
        if division < 0:
            division = self.divisions.index(device.division)
        self.city[at] = self.cities.index(self._table.city_of(device.division))
        self.division[at] = division
        self.department[at] = self.departments.index(device.department)
        self.domain[at] = self.domains.index(device.domain)
        self.profile[at] = self.profiles.index(device.profile)
        self.gateway[at] = self.gateways.index(device.gateway)
        self.grade[at] = device.grade
        self.state[at] = STATES.index(device.state)
        self.present[at] = True
        self.enabled[at] = device.state not in _INACTIVE
        self.has_name[at], self.has_owner[at] = bool(device.name), bool(device.owner)
        self.has_asset[at] = bool(device.asset)
        self.interval_s[at] = device.interval_s

    def extents(self, device: I32) -> F64:
        """Return west, south, east and north of the division of each device; NaN where it is not known."""
        known = len(self._extents)
        if known < len(self.divisions.all):
            more = [self._table.extent(code) for code in self.divisions.all[known:]]
            rows = [(e.west, e.south, e.east, e.north) if e else (np.nan,) * 4 for e in more]
            self._extents = np.concatenate([self._extents, np.array(rows, np.float64)])
        extents: F64 = self._extents[self.division[device]]
        return extents

    def place(self, indices: Sequence[int], devices: Sequence[Device]) -> None:
        """Write the coordinates of devices, converted to WGS-84; NaN without coordinates."""
        at = np.asarray(indices, np.int64)
        lon = np.array([np.nan if device.lon is None else device.lon for device in devices])
        lat = np.array([np.nan if device.lat is None else device.lat for device in devices])
        datums = np.array([device.datum.value for device in devices])
        for datum in np.unique(datums):
            rows = datums == datum
            self.lon[at[rows]], self.lat[at[rows]] = self._to_wgs84(lon[rows], lat[rows], Datum(datum))

    def alias(self, at: int, old: str, new: str) -> bool:
        """Replace the alias of a device; return False if the new alias belongs to another device and is ignored."""
        if old and old != new and self.names.get(old) == at and self.ids[at] != old:
            del self.names[old]
        if not new or new == self.ids[at]:
            return True
        return self.names.setdefault(new, at) == at

    def clear(self, at: int) -> None:
        """Clear the columns of a deleted device; its index is not reused."""
        self.present[at] = self.enabled[at] = False
        self.state[at] = STATES.index(DeviceState.RETIRED)
        self.lon[at] = self.lat[at] = np.nan

    def observe(self, at: I32, received: I64) -> None:
        """Update the time (µs) of the last message of devices; a column of indices and one of times."""
        np.maximum.at(self.last_seen, at, received)
