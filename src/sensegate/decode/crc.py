"""Check values by name: CRCs of the reveng catalogue, and the sums and XORs that devices use in their place.

Names are as the catalogue writes them (``CRC-16/MODBUS``, ``CRC-8/MAXIM-DOW``), with its aliases
(``CRC-16/CCITT-FALSE``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache, reduce
from operator import xor
from typing import NamedTuple

import anycrc


class Check(NamedTuple):
    """How a check value is computed."""

    name: str
    bits: int
    """Width of the value."""
    of: Callable[[bytes], int]
    """Bytes to their check value."""

    @property
    def size(self) -> int:
        """Bytes that the value takes in a frame."""
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
    """Return a name without what its spellings differ in: CRC-16/MODBUS, crc16-modbus."""
    return "".join(c for c in name.upper() if c.isalnum())


@cache
def _catalogue() -> dict[str, str]:
    """Return key of a name -> the library's own name."""
    names = {_key(name): name for name in anycrc.models}
    return names | {_key(alias): name for alias, name in anycrc.aliases.items() if _key(alias) not in names}


def check(name: str) -> Check:
    """Return the check of a name.

    Raises:
        ValueError: if there is none; the message names the nearest.
    """
    key = _key(name)
    if key in _SUMS:
        return Check(name, *_SUMS[key])
    found = _catalogue().get(key)
    if found is None:
        near = difflib.get_close_matches(key, [*_SUMS, *_catalogue()], n=1, cutoff=0.5)
        known = (_catalogue().get(near[0]) or near[0].lower()) if near else ""
        raise ValueError(f"did you mean '{known}'?" if known else "a name of the reveng catalogue, sum8, lrc8 or xor8")
    return Check(name, anycrc.models[found].width, anycrc.Model(found).calc)
