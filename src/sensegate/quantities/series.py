"""Numbering of series: a dense number for each device, property and channel.

Steps, stuck values, gaps and duplicates are judged within a series, with arrays indexed by its number. The numbering
is shared by `normalise` and `persist`; it costs about 25 bytes per series and some tens of nanoseconds per row.
"""

from __future__ import annotations

import numpy as np

from sensegate.errors import ConfigError
from sensegate.model import BOOL, I32, I64

VARIABLES_MAX = 1 << 16
"""Greatest number of different (property, channel) pairs."""

_EMPTY = -1
_UNREGISTERED = -2
"""Key of a series whose device is no longer registered: never found, never assigned again."""

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class SeriesIndex:
    """Numbers of (device index, variable), where a variable is a (property name, channel) pair.

    Numbers are assigned in order from 0 and are permanent. Device indices are those of the registry in this process;
    `keys` and `restore` preserve the numbering across a restart. Not thread-safe.
    """

    def __init__(self) -> None:
        self.variables: list[tuple[str, str]] = []
        """(property name, channel) by variable; append-only."""
        self._variable: dict[tuple[str, str], int] = {}
        self._count = 0
        # The last element is a sentinel that equals no key: an empty slot (-1) points to it.
        self._keys: I64 = np.full(1025, _EMPTY, np.int64)
        self._resize(1 << 11)

    def __len__(self) -> int:
        return self._count

    def variable(self, name: str, channel: str = "") -> int:
        """Return the number of a (property name, channel) pair, assigning one if needed.

        Raises:
            ConfigError: if there are more than `VARIABLES_MAX`.
        """
        pair = (name, channel)
        number = self._variable.get(pair)
        if number is None:
            number = len(self.variables)
            if number >= VARIABLES_MAX:
                raise ConfigError(
                    f"there are more than {VARIABLES_MAX} pairs of property and channel", remedy="use fewer channels"
                )
            self._variable[pair] = number
            self.variables.append(pair)
        return number

    def find(self, device: I32, variable: I32) -> I32:
        """Return the series number of each row, -1 if it has none yet."""
        return self._find(_key(device, variable))

    def resolve(self, device: I32, variable: I32) -> I32:
        """Return the series number of each row, assigning the next numbers to new series in the order of their keys."""
        key = _key(device, variable)
        number = self._find(key)
        if number.size and number.min() < 0:
            missing = number < 0
            fresh = np.unique(key[missing])
            first = self._count
            self._append(fresh)
            number[missing] = (first + np.searchsorted(fresh, key[missing])).astype(np.int32)
        return number

    def keys(self) -> tuple[I32, I32]:
        """Return (device index, variable) of every series by number; -1 for a series of an unregistered device."""
        keys = self._keys[: self._count]
        return (keys >> 16).astype(np.int32), np.where(keys < 0, -1, keys & 0xFFFF).astype(np.int32)

    def restore(self, device: I32, variable: I32) -> None:
        """Assign the numbers 0, 1, … to these keys, as returned by `keys`; a negative device leaves its number unused.

        Raises:
            ValueError: if numbers were already assigned, or two keys are equal.
        """
        if self._count:
            raise ValueError("restore needs an empty numbering")
        held = (device >= 0) & (variable >= 0)
        key = np.where(held, _key(device, variable), _UNREGISTERED)
        if len(np.unique(key[held])) != int(held.sum()):
            raise ValueError("two numbers of one series")
        self._append(key)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self._keys.nbytes + self._slots.nbytes

    # ── the table: open addressing; a slot holds a number, which leads to the key ─────────────────────

    def _find(self, key: I64) -> I32:
        slot = self._home_slot(key)
        number = self._slots[slot]
        hit: BOOL = self._keys[number] == key
        if hit.all():
            return number
        # Few rows are left: those outside their home slot, and those not in the table.
        rows = np.flatnonzero(~hit)
        rows = rows[number[rows] >= 0]
        mask = len(self._slots) - 1
        while rows.size:
            slot[rows] = (slot[rows] + 1) & mask
            candidate = self._slots[slot[rows]]
            number[rows] = candidate
            rows = rows[(candidate >= 0) & (self._keys[candidate] != key[rows])]
        return number

    def _append(self, keys: I64) -> None:
        first, count = self._count, self._count + len(keys)
        if count >= len(self._keys):
            grown = np.full(max(count + 1, len(self._keys) * 3 // 2), _EMPTY, np.int64)
            grown[:first] = self._keys[:first]
            self._keys = grown
        self._keys[first:count] = keys
        self._count = count
        if count * 2 > len(self._slots):
            size = len(self._slots)
            while count * 2 > size:
                size *= 2
            self._resize(size)
        else:
            self._insert(first)

    def _resize(self, size: int) -> None:
        self._slots: I32 = np.full(size, _EMPTY, np.int32)
        self._shift = np.uint64(64 - (size.bit_length() - 1))
        self._insert(0)

    def _insert(self, first: int) -> None:
        """Insert the numbers from `first` on; where several want one slot, the last written gets it."""
        number = np.arange(first, self._count, dtype=np.int32)
        number = number[self._keys[first : self._count] >= 0]
        slot = self._home_slot(self._keys[number])
        mask = len(self._slots) - 1
        while number.size:
            free = self._slots[slot] < 0
            self._slots[slot[free]] = number[free]
            lost = self._slots[slot] != number
            number, slot = number[lost], (slot[lost] + 1) & mask

    def _home_slot(self, key: I64) -> I64:
        slot = key.view(np.uint64) * _HASH_FACTOR
        slot ^= slot >> _HALF  # devices and variables are small consecutive numbers: one multiplication clusters them
        slot *= _HASH_FACTOR
        slot >>= self._shift
        return slot.view(np.int64)


def _key(device: I32, variable: I32) -> I64:
    key: I64 = device.astype(np.int64)
    key <<= 16
    key |= variable
    return key
