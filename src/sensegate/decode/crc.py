"""Checksums by name: CRCs of the reveng catalogue, and the sums and XORs that devices use instead.

Names are as in the catalogue (``CRC-16/MODBUS``, ``CRC-8/MAXIM-DOW``), including its aliases (``CRC-16/CCITT-FALSE``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache, reduce
from operator import xor
from typing import NamedTuple

import anycrc


class Checksum(NamedTuple):
    """Parameters of a checksum."""

    name: str
    bits: int
    """Width of the checksum."""
    compute: Callable[[bytes], int]
    """Computes the checksum of bytes."""

    @property
    def size(self) -> int:
        """Bytes of the checksum in a frame."""
        return (self.bits + 7) // 8


def _sum(data: bytes) -> int:
    return sum(data)


_SUMS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "SUM8": (8, lambda data: _sum(data) & 0xFF),
    "SUM16": (16, lambda data: _sum(data) & 0xFFFF),
    "LRC8": (8, lambda data: -_sum(data) & 0xFF),
    "SUM8COMPLEMENT": (8, lambda data: ~_sum(data) & 0xFF),
    "XOR8": (8, lambda data: reduce(xor, data, 0)),
}


def _key(name: str) -> str:
    """Return a name without the differences between spellings: CRC-16/MODBUS, crc16-modbus."""
    return "".join(c for c in name.upper() if c.isalnum())


@cache
def _catalogue() -> dict[str, str]:
    """Return key of a name -> the library's name."""
    names = {_key(name): name for name in anycrc.models}
    return names | {_key(alias): name for alias, name in anycrc.aliases.items() if _key(alias) not in names}


def checksum(name: str) -> Checksum:
    """Return the checksum with a name.

    Raises:
        ValueError: there is none; the message names the closest.
    """
    key = _key(name)
    if key in _SUMS:
        return Checksum(name, *_SUMS[key])
    model = _catalogue().get(key)
    if model is None:
        near = difflib.get_close_matches(key, [*_SUMS, *_catalogue()], n=1, cutoff=0.5)
        known = (_catalogue().get(near[0]) or near[0].lower()) if near else ""
        raise ValueError(f"did you mean '{known}'?" if known else "a name of the reveng catalogue, sum8, lrc8 or xor8")
    return Checksum(name, anycrc.models[model].width, anycrc.Model(model).calc)
