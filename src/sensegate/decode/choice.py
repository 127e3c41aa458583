"""Choice of the version of a profile for a device: the part of a release history that decoding needs."""

from __future__ import annotations

from typing import Protocol

import msgspec
import xxhash

from sensegate.model import Device

EVERY_DEVICE = (1 << 64) - 1
"""Greatest result of `draw`."""


class Area(Protocol):
    """A division with all below it, of all departments or of one."""

    @property
    def division(self) -> str:
        """Short form of its code."""

    def covers(self, division: str, department: str = "") -> bool:
        """Return whether a device of this division and department lies in the area."""


class VersionChoice(msgspec.Struct, frozen=True):
    """A version that some devices have instead of the folder's."""

    profile: str
    number: int
    digest: str
    target: Area
    whole: bool = True
    """True: it applies to every device of this gateway that no other choice picks."""
    devices: frozenset[str] = frozenset()
    below: int = EVERY_DEVICE
    trial: bool = False
    """True if the version is a canary."""

    @property
    def name(self) -> str:
        """``vendor/model@number``."""
        return f"{self.profile}@{self.number}"

    def picks(self, device: Device | None) -> bool:
        """Return whether a device (for messages of many devices: their gateway) has this version; None: no device."""
        if self.whole:
            return True
        if device is None or not self.target.covers(device.division, device.department):
            return False
        if self.devices:
            return device.id in self.devices
        return draw(self.name, device.id) <= self.below


def draw(name: str, device: str) -> int:
    """Return a device's stable draw for a version (``vendor/model@number``): 0 to 2^64 - 1, equal in every process."""
    return xxhash.xxh3_64_intdigest(f"{name}\n{device}".encode())
