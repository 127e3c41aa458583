"""The registry as columns: what the hot path reads of devices, by index.

An index is given to a device when it is first seen and never moves or is given again while the process lives. Arrays
are replaced when they grow, so take them from the index for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.model import BOOL, F64, I32, I64, U8, Datum, Device, DeviceState

ToWgs84 = Callable[[F64, F64, Datum], tuple[F64, F64]]
"""(lon, lat, datum) -> (lon, lat) in WGS-84, for arrays of one length."""

STATES = tuple(DeviceState)
_OFF = frozenset({DeviceState.DISABLED, DeviceState.RETIRED})
_GROWTH = 1024


def unchanged(lon: F64, lat: F64, datum: Datum) -> tuple[F64, F64]:
    """Return places as they are; the product hands in `place.wgs84`."""
    if datum in (Datum.WGS84, Datum.CGCS2000):
        return lon, lat
    return np.full_like(lon, np.nan), np.full_like(lat, np.nan)


class WordList:
    """A list of distinct words; each keeps its place."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._at: dict[str, int] = {}

    def index(self, word: str) -> int:
        """Return the word's place, giving it one when it is new."""
        at = self._at.get(word)
        if at is None:
            at = self._at[word] = len(self.all)
            self.all.append(word)
        return at

    def find(self, word: str) -> int:
        """Return the word's place; -1 when it was never seen."""
        return self._at.get(word, -1)


class DeviceIndex:
    """Columns over all devices ever seen by this process."""

    def __init__(self, divisions: Divisions, to_wgs84: ToWgs84) -> None:
        self._table = divisions
        self._to_wgs84 = to_wgs84
        self._region_at: dict[tuple[str, str], int] = {}
        self.regions: list[tuple[str, str]] = []
        """(city, county) as on the log's subjects."""
        self.divisions, self.departments, self.domains, self.profiles = WordList(), WordList(), WordList(), WordList()
        self.ids: list[str] = []
        self.names: dict[str, int] = {}
        """Canonical id or alias -> index."""
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
        self.enabled: BOOL = grown("enabled", np.bool_, 0)
        self.region: I32 = grown("region", np.int32, 0)
        self.division: I32 = grown("division", np.int32, 0)
        self.department: I32 = grown("department", np.int32, 0)
        self.domain: I32 = grown("domain", np.int32, 0)
        self.profile: I32 = grown("profile", np.int32, 0)
        self.lon: F64 = grown("lon", np.float64, np.nan)
        self.lat: F64 = grown("lat", np.float64, np.nan)
        self.interval_s: F64 = grown("interval_s", np.float64, 0)
        self.last_seen: I64 = grown("seen", np.int64, 0)

    def __len__(self) -> int:
        return len(self.ids)

    def reserve(self, more: int) -> None:
        """Make room for `more` devices at once."""
        if len(self.ids) + more > len(self.grade):
            self._allocate(max(len(self.ids) + more, len(self.grade) * 3 // 2) + _GROWTH)

    def slot(self, name: str) -> int:
        """Return the index of a canonical id, giving it one when it is new."""
        at = self.names.get(name, -1)
        if at >= 0 and self.ids[at] == name:
            return at
        self.reserve(1)
        at = len(self.ids)
        self.ids.append(name)
        # An id takes precedence over another's alias; registration refuses both, two processes at once may not.
        self.names[name] = at
        return at

    def find_id(self, name: str) -> int:
        """Return the index of a canonical id; -1 when it is none, though it may be an alias."""
        at = self.names.get(name, -1)
        return at if at >= 0 and self.ids[at] == name else -1

    def put(self, at: int, device: Device) -> None:
        """Write all columns of a device but its place (see `place`)."""
        place = self.divisions.find(device.division)
        if place < 0:
            place = self.divisions.index(device.division)
        region = self._table.region_of(device.division)
        where = self._region_at.get(region)
        if where is None:
            where = self._region_at[region] = len(self.regions)
            self.regions.append(region)
        self.region[at] = where
        self.division[at] = place
        self.department[at] = self.departments.index(device.department)
        self.domain[at] = self.domains.index(device.domain)
        self.profile[at] = self.profiles.index(device.profile)
        self.grade[at] = device.grade
        self.state[at] = STATES.index(device.state)
        self.enabled[at] = device.state not in _OFF
        self.interval_s[at] = device.interval_s

    def place(self, where: Sequence[int], devices: Sequence[Device]) -> None:
        """Write the places of devices, converted to WGS-84; NaN where there is none."""
        at = np.asarray(where, np.int64)
        lon = np.array([np.nan if device.lon is None else device.lon for device in devices])
        lat = np.array([np.nan if device.lat is None else device.lat for device in devices])
        datums = np.array([device.datum.value for device in devices])
        for datum in np.unique(datums):
            rows = datums == datum
            self.lon[at[rows]], self.lat[at[rows]] = self._to_wgs84(lon[rows], lat[rows], Datum(datum))

    def alias(self, at: int, old: str, new: str) -> bool:
        """Replace the alias of a device; False where the new one is another's already and so is not taken."""
        if old and old != new and self.names.get(old) == at and self.ids[at] != old:
            del self.names[old]
        if not new or new == self.ids[at]:
            return True
        return self.names.setdefault(new, at) == at

    def clear(self, at: int) -> None:
        """Forget a deleted device; its index stays taken."""
        self.enabled[at] = False
        self.state[at] = STATES.index(DeviceState.RETIRED)
        self.lon[at] = self.lat[at] = np.nan

    def observe(self, at: I32, received: I64) -> None:
        """Note when devices were last heard (µs); a column of indices and one of times."""
        np.maximum.at(self.last_seen, at, received)
