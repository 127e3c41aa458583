"""One source for each asset and property (「一數一源」): a second one is a shadow, and where it differs is reported.

Devices name the asset that they measure. For each property one of them is the authority: the first by (not registered
as `shadow`, id). Readings of the others are kept, marked `secondary`, compared with the authority's, and are in no feed
that does not ask for them; they never fill its gaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.devices import Devices, Stored
from sensegate.model import BOOL, Device, Readings
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.quality import Flag

APART_US = 900_000_000
"""Values farther apart in time than this are not compared."""
TOLERANCE = 0.02
"""So much of the authority's value, or the property's resolution, may a shadow be off."""
_SHADOW = np.uint32(Flag.SECONDARY)

_log = structlog.get_logger(__name__)


class Difference(msgspec.Struct, frozen=True):
    """How a shadow compares with the authority since this process started."""

    asset: str
    property: str
    authority: str
    shadow: str
    compared: int = 0
    different: int = 0
    """By more than the tolerance; for words: not the same one."""
    mean: float = 0.0
    """Of the differences, without their sign."""
    greatest: float = 0.0
    time: int = 0
    """Of the last one, µs UTC."""
    value: str = ""
    """Of the authority then."""
    shadow_value: str = ""


class _Last(msgspec.Struct):
    time: int
    value: float
    text: str = ""


class Assets:
    """Who measures which asset, as the registry says and as it is heard."""

    def __init__(self, devices: Devices, measures: Callable[[str], frozenset[str]]) -> None:
        """`measures` returns the properties of a profile; empty: known only once it is heard."""
        self._devices = devices
        self._measures = measures
        self._of: dict[str, set[int]] = defaultdict(set)
        self._asset: dict[int, str] = {}
        self._rivals: BOOL = np.zeros(0, np.bool_)
        """By device: whether another one names its asset, too."""
        self._known: dict[tuple[str, int], int] = {}
        self._heard: dict[tuple[int, int], _Last] = {}
        """(device, property) -> the last value."""
        self._differences: dict[tuple[str, int, int], Difference] = {}
        for at in range(len(devices)):
            if devices.is_present(devices.id(at)):
                self._put(at, devices.record(at).asset)
        devices.on_change.append(self._changed)

    # ── who ───────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, at: int, before: Stored | None, after: Stored | None) -> None:
        self._known.clear()
        if before is not None and before.device.asset:
            self._of[before.device.asset].discard(at)
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
            self._of[asset].add(at)
            self._count(asset)

    def _count(self, asset: str) -> None:
        members = self._of[asset]
        for member in members:
            self._rivals[member] = len(members) > 1

    def authority(self, asset: str, name: str) -> int:
        """Return the index of the device that is the source of a property of an asset; -1: none measures it."""
        key = (asset, PROPERTIES.find(name))
        if (known := self._known.get(key)) is not None:
            return known
        ranked = [
            (device.shadow, device.id, at)
            for at in self._of.get(asset, ())
            if self._devices.enabled[at] and self._measuring(device := self._devices.record(at), at, name)
        ]
        found = self._known[key] = min(ranked)[2] if ranked else -1
        return found

    def _measuring(self, device: Device, at: int, name: str) -> bool:
        return name in self._measures(device.profile) or (at, PROPERTIES.find(name)) in self._heard

    def before(self, device: Device) -> str:
        """Return the device that has been the source of an asset for which another is registered; empty: none has."""
        others = [self._devices.record(at) for at in self._of.get(device.asset, ())] if device.asset else []
        names = self._measures(device.profile)
        rivals = [
            other
            for other in others
            if other.id != device.id
            and not other.shadow
            and (not names or not (theirs := self._measures(other.profile)) or names & theirs)
        ]
        return min((rival.id for rival in rivals), default="")

    # ── marking and comparing ─────────────────────────────────────────────────────────────────────────

    def mark(self, readings: Readings, *, compare: bool = True) -> None:
        """Mark the rows of shadows, and hold them against the last values of their authorities."""
        if not self._rivals.any() or not len(readings):
            return
        known = (readings.device >= 0) & (readings.device < len(self._rivals))
        rows = np.flatnonzero(known & self._rivals[np.where(known, readings.device, 0)])
        for row in rows.tolist():
            at, index = int(readings.device[row]), int(readings.property[row])
            asset = self._asset[at]
            last = _Last(int(readings.time[row]), float(readings.value[row]), readings.text.get(row, ""))
            if first := (at, index) not in self._heard:
                self._known.pop((asset, index), None)
            self._heard[at, index] = last
            name = PROPERTIES[index].name
            source = self.authority(asset, name)
            if source in {at, -1}:
                continue
            readings.flags[row] |= _SHADOW
            if first:
                _log.info(
                    "a second source of an asset is a shadow", asset=asset, property=name, device=self._devices.id(at)
                )
            theirs = self._heard.get((source, index))
            if compare and theirs is not None and abs(theirs.time - last.time) <= APART_US:
                self._compare((asset, index, at), source, theirs, last)

    def _compare(self, key: tuple[str, int, int], source: int, theirs: _Last, ours: _Last) -> None:
        asset, index, at = key
        row = PROPERTIES[index]
        before = self._differences.get(key)
        authority = self._devices.id(source)
        if before is None or before.authority != authority:
            before = Difference(asset, row.name, authority, self._devices.id(at))
        if ours.text or theirs.text:
            off, different = float(ours.text != theirs.text), ours.text != theirs.text
        else:
            off = abs(ours.value - theirs.value)
            different = not off <= max(row.resolution, TOLERANCE * abs(theirs.value))
        count = before.compared + 1
        metrics.SECONDARY_COMPARED.inc()
        if different:
            metrics.SECONDARY_DIFFERENT.inc()
        self._differences[key] = msgspec.structs.replace(
            before,
            compared=count,
            different=before.different + different,
            mean=before.mean + (off - before.mean) / count,
            greatest=max(before.greatest, off),
            time=ours.time,
            value=theirs.text or f"{theirs.value:g}",
            shadow_value=ours.text or f"{ours.value:g}",
        )

    def differences(self) -> list[Difference]:
        """Return all comparisons, by asset, property and shadow."""
        return sorted(self._differences.values(), key=lambda one: (one.asset, one.property, one.shadow))
