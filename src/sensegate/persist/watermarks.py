"""Watermarks of each series, by the persistent number of the series; numbering of series."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import BOOL, I64, U32, U64

NEVER = np.iinfo(np.int64).min
COLUMNS = ("highest_key", "future_key", "latest_time", "reference_bits", "reference_time")


class WatermarkState(msgspec.Struct, frozen=True, eq=False):
    """Copy of the watermarks of all series, or of those that changed since the copy before."""

    series: int
    """Number of series."""
    columns: list[I64]
    numbers: I64 | None = None
    """Numbers of the series of `columns`; None: all."""


class Watermarks:
    """Columns by series number; the arrays are replaced when they grow."""

    highest_key: I64
    """Greatest accepted key that is not of the future: greater ones are new, except up to `future_key`."""
    future_key: I64
    """Greatest accepted key of a future time: up to it the dedup index must be searched."""
    latest_time: I64
    """Latest phenomenon time that is not of the future: earlier ones are out of order."""
    reference_bits: I64
    """Value with which the next one is compared, where the profile asks for report by exception."""
    reference_time: I64

    def __init__(self) -> None:
        for name in COLUMNS:
            setattr(self, name, np.full(1024, NEVER, np.int64))
        self._changed: BOOL = np.zeros(1024, np.bool_)

    def reserve(self, count: int) -> None:
        """Grow the columns for the numbers below `count`."""
        if count <= len(self.highest_key):
            return
        size = max(count, len(self.highest_key) * 3 // 2)
        for name in COLUMNS:
            column = np.full(size, NEVER, np.int64)
            column[: len(self.highest_key)] = getattr(self, name)
            setattr(self, f"_{name}", column)
        for name in COLUMNS:
            setattr(self, name, getattr(self, f"_{name}"))
            delattr(self, f"_{name}")
        self._changed = np.append(self._changed, np.zeros(size - len(self._changed), np.bool_))

    def mark_changed(self, number: U32) -> None:
        """Mark series as changed, so that the next `take_state` returns them."""
        self._changed[number] = True

    def forget_times_after(self, latest: int, count: int) -> None:
        """Forget the latest time and the reference of the series below `count` where they lie after a time (µs)."""
        late = self.latest_time[:count] > latest
        referred = self.reference_time[:count] > latest
        self.latest_time[:count][late] = NEVER
        for column in (self.reference_bits, self.reference_time):
            column[:count][referred] = NEVER
        self._changed[:count] |= late | referred

    def copy(self, count: int) -> list[I64]:
        """Return copies of the columns for the numbers below `count`."""
        return [getattr(self, name)[:count].copy() for name in COLUMNS]

    def take_state(self, count: int, *, whole: bool) -> WatermarkState:
        """Return a copy of the watermarks below `count`: of all, or of those changed since the last call."""
        numbers = np.flatnonzero(self._changed[:count])
        self._changed[:count] = False
        if whole:
            return WatermarkState(count, self.copy(count))
        return WatermarkState(count, [getattr(self, name)[numbers] for name in COLUMNS], numbers)

    def restore(self, columns: list[I64]) -> None:
        """Load the columns returned by `copy`."""
        self.reserve(len(columns[0]))
        for name, column in zip(COLUMNS, columns, strict=True):
            getattr(self, name)[: len(column)] = column

    @property
    def reference_values(self) -> U64:
        """`reference_bits` as unsigned integers."""
        return self.reference_bits.view(np.uint64)


class SeriesNames:
    """Persistent numbers of series (device id, property, channel, kind of identity), in order of appearance."""

    def __init__(self, words: list[str] | None = None) -> None:
        self.names: list[str] = words or []
        self._number = {word: number for number, word in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def number(self, device: str, variable: tuple[str, str], kind: int) -> int:
        """Return the number of a series, assigning one if it is new."""
        word = f"{device}\n{variable[0]}\n{variable[1]}\n{kind}"
        number = self._number.get(word)
        if number is None:
            number = self._number[word] = len(self.names)
            self.names.append(word)
        return number
