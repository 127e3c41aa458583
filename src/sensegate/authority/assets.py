"""One authoritative source for each asset and property (「一數一源」); secondary sources are compared with it.

Devices name the asset that they measure. For each property one of them is the authority: the first by (not registered
as `secondary`, id). Readings of the others are kept, flagged `secondary`, compared with the authority's, and in no feed
that does not ask for them; they never fill its gaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.device_table import StoredDevice
from sensegate.authority.devices import Devices
from sensegate.model import BOOL, Device, Readings
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.quality import Flag

APART_US = 900_000_000
"""Values further apart in time are not compared."""
TOLERANCE = 0.02
"""Tolerated deviation as a share of the authority's value; at least the property's resolution."""
_SECONDARY = np.uint32(Flag.SECONDARY)

_log = structlog.get_logger(__name__)


class SourceDeviation(msgspec.Struct, frozen=True):
    """The deviation of a secondary source from the authority since this process started."""

    asset: str
    property: str
    authority: str
    secondary: str
    compared: int = 0
    different: int = 0
    """Comparisons beyond the tolerance; for texts: not equal."""
    mean: float = 0.0
    """Mean of the absolute differences."""
    max: float = 0.0
    time: int = 0
    """Time of the last comparison, µs UTC."""
    value: str = ""
    """Value of the authority at that time."""
    secondary_value: str = ""


class _LastValue(msgspec.Struct):
    time: int
    value: float
    text: str = ""


class Assets:
    """The sources of each asset, by the registry and by what is received."""

    def __init__(self, devices: Devices, measures: Callable[[str], frozenset[str]]) -> None:
        """`measures` returns the properties of a profile; empty: known only from received readings."""
        self._devices = devices
        self._measures = measures
        self._by_asset: dict[str, set[int]] = defaultdict(set)
        self._asset: dict[int, str] = {}
        self._rivals: BOOL = np.zeros(0, np.bool_)
        """True if another device names the same asset, by device index."""
        self._authorities: dict[tuple[str, int], int] = {}
        self._heard: dict[tuple[int, int], _LastValue] = {}
        """(device, property) -> the last value."""
        self._differences: dict[tuple[str, int, int], SourceDeviation] = {}
        for at in range(len(devices)):
            if devices.is_present(devices.id(at)):
                self._put(at, devices.record(at).asset)
        devices.on_change.append(self._changed)

    # ── sources ─────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, at: int, before: StoredDevice | None, after: StoredDevice | None) -> None:
        self._authorities.clear()
        if before is not None and before.device.asset:
            self._by_asset[before.device.asset].discard(at)
            self._count(before.device.asset)
        self._put(at, after.device.asset if after else "")

    def _put(self, at: int, asset: str) -> None:
        if at >= len(self._rivals):
            grown = np.zeros(max(1_024, at + 1, 2 * len(self._rivals)), np.bool_)
            grown[: len(self._rivals)] = self._rivals
            self._rivals = grown
        self._rivals[at] = False
        self._asset.pop(at, None)
        if asset:
            self._asset[at] = asset
            self._by_asset[asset].add(at)
            self._count(asset)

    def _count(self, asset: str) -> None:
        members = self._by_asset[asset]
        for member in members:
            self._rivals[member] = len(members) > 1

    def authority(self, asset: str, name: str) -> int:
        """Return the index of the authority for a property of an asset; -1: no device measures it."""
        key = (asset, PROPERTIES.find(name))
        if (known := self._authorities.get(key)) is not None:
            return known
        ranked = [
            (device.secondary, device.id, at)
            for at in self._by_asset.get(asset, ())
            if self._devices.enabled[at] and self._measuring(device := self._devices.record(at), at, name)
        ]
        authority = self._authorities[key] = min(ranked)[2] if ranked else -1
        return authority

    def _measuring(self, device: Device, at: int, name: str) -> bool:
        return name in self._measures(device.profile) or (at, PROPERTIES.find(name)) in self._heard

    def current_authority(self, device: Device) -> str:
        """Return the device that is the authority of a new device's asset so far; empty: there is none."""
        members = self._by_asset.get(device.asset, ()) if device.asset else ()
        others = [self._devices.record(at) for at in members if self._devices.enabled[at]]
        names = self._measures(device.profile)
        rivals = [
            other
            for other in others
            if other.id != device.id
            and not other.secondary
            and (not names or not (theirs := self._measures(other.profile)) or names & theirs)
        ]
        return min((rival.id for rival in rivals), default="")

    # ── marking and comparing ─────────────────────────────────────────────────────────────────────────

    def mark(self, readings: Readings, *, compare: bool = True) -> None:
        """Flag the rows of secondary sources, and compare them with the last values of their authorities."""
        if not self._rivals.any() or not len(readings):
            return
        known = (readings.device >= 0) & (readings.device < len(self._rivals))
        rows = np.flatnonzero(known & self._rivals[np.where(known, readings.device, 0)])
        for row in rows.tolist():
            at, index = int(readings.device[row]), int(readings.property[row])
            asset = self._asset[at]
            last = _LastValue(int(readings.time[row]), float(readings.value[row]), readings.text.get(row, ""))
            if first := (at, index) not in self._heard:
                self._authorities.pop((asset, index), None)
            self._heard[at, index] = last
            name = PROPERTIES[index].name
            source = self.authority(asset, name)
            if source in {at, -1}:
                continue
            readings.flags[row] |= _SECONDARY
            if first:
                _log.info("secondary source of an asset", asset=asset, property=name, device=self._devices.id(at))
            theirs = self._heard.get((source, index))
            if compare and theirs is not None and abs(theirs.time - last.time) <= APART_US:
                self._compare((asset, index, at), source, theirs, last)

    def _compare(self, key: tuple[str, int, int], source: int, theirs: _LastValue, ours: _LastValue) -> None:
        asset, index, at = key
        row = PROPERTIES[index]
        before = self._differences.get(key)
        authority = self._devices.id(source)
        if before is None or before.authority != authority:
            before = SourceDeviation(asset, row.name, authority, self._devices.id(at))
        if ours.text or theirs.text:
            difference, different = float(ours.text != theirs.text), ours.text != theirs.text
        else:
            difference = abs(ours.value - theirs.value)
            different = not difference <= max(row.resolution, TOLERANCE * abs(theirs.value))
        count = before.compared + 1
        metrics.SECONDARY_COMPARED.inc()
        if different:
            metrics.SECONDARY_DIFFERENT.inc()
        self._differences[key] = msgspec.structs.replace(
            before,
            compared=count,
            different=before.different + different,
            mean=before.mean + (difference - before.mean) / count,
            max=max(before.max, difference),
            time=ours.time,
            value=theirs.text or f"{theirs.value:g}",
            secondary_value=ours.text or f"{ours.value:g}",
        )

    def deviations(self) -> list[SourceDeviation]:
        """Return all deviations, by asset, property and secondary source."""
        return sorted(
            self._differences.values(), key=lambda deviation: (deviation.asset, deviation.property, deviation.secondary)
        )
