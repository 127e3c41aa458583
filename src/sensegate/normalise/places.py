"""Check of coordinates in readings against the extent of the division in which their device is registered."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import structlog

from sensegate.model import F64, I32, U32
from sensegate.normalise.table import PLACE_AXES, SpecTable
from sensegate.quantities.quality import Flag

REPORTED_MAX: Final = 1_024
"""Greatest number of devices whose swapped coordinates are reported in the log of a process."""

_log = structlog.get_logger("normalise.places")


class DevicePlaces(Protocol):
    """Registered places of devices."""

    def extents(self, device: I32) -> F64:
        """Return west, south, east and north of each device's division; NaN where they are not known."""
        ...

    def id(self, index: int) -> str:
        """Return the id of a device."""
        ...


class PlaceCheck:
    """Marks coordinates outside their device's division; swapped ones are reported once for each device."""

    def __init__(self, places: DevicePlaces | None) -> None:
        self._places = places
        self._reported: set[int] = set()

    def mark(self, table: SpecTable, device: I32, spec: I32, value: F64, flags: U32) -> None:
        """Flag the longitudes and latitudes that lie outside."""
        if self._places is None:
            return
        axis = table.place_axis.take(spec)
        rows = np.flatnonzero(axis)
        if not rows.size:
            return
        is_latitude = axis[rows] == PLACE_AXES["latitude"]
        west, south, east, north = self._places.extents(device[rows]).T
        low, high = np.where(is_latitude, south, west), np.where(is_latitude, north, east)
        coordinate = value[rows]
        outside = (coordinate < low) | (coordinate > high)
        if not outside.any():
            return
        flags[rows[outside]] |= np.uint32(Flag.PLACE)
        other_low, other_high = np.where(is_latitude, west, south), np.where(is_latitude, east, north)
        swapped = outside & (coordinate >= other_low) & (coordinate <= other_high)
        for row in np.flatnonzero(swapped).tolist():
            self._report(int(device[rows[row]]), float(coordinate[row]), is_latitude=bool(is_latitude[row]))

    def _report(self, device: int, coordinate: float, *, is_latitude: bool) -> None:
        if self._places is None or device in self._reported or len(self._reported) >= REPORTED_MAX:
            return
        self._reported.add(device)
        sent, intended = ("latitude", "longitude") if is_latitude else ("longitude", "latitude")
        _log.warning(
            "coordinates look swapped",
            device=self._places.id(device),
            reason=f"the {sent} {coordinate:g} is outside of its division and would be a {intended} in it",
            remedy="swap the fields of `longitude` and `latitude` in its profile, or their values at the device",
        )
