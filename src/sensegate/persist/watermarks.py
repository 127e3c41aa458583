"""What is remembered of each series: a row of five numbers, by the series' lasting number."""

from __future__ import annotations

import numpy as np

from sensegate.model import I64, U64

NEVER = np.iinfo(np.int64).min
COLUMNS = ("mark", "ahead", "last", "lead_bits", "lead_time")


class Marks:
    """Columns over the series; arrays are replaced when they grow."""

    mark: I64
    """Greatest key kept and not of the future: a greater one was not seen, unless `ahead` says so."""
    ahead: I64
    """Greatest key kept with a stamp of the future: up to it the index must be asked."""
    last: I64
    """Latest phenomenon time, not of the future: an earlier one is out of order."""
    lead_bits: I64
    """Value with which the next is compared, where the profile asks for report by exception."""
    lead_time: I64

    def __init__(self) -> None:
        for name in COLUMNS:
            setattr(self, name, np.full(1024, NEVER, np.int64))

    def reserve(self, count: int) -> None:
        """Make room for the numbers below `count`."""
        if count <= len(self.mark):
            return
        size = max(count, len(self.mark) * 3 // 2)
        for name in COLUMNS:
            column = np.full(size, NEVER, np.int64)
            column[: len(self.mark)] = getattr(self, name)
            setattr(self, f"_{name}", column)
        for name in COLUMNS:
            setattr(self, name, getattr(self, f"_{name}"))
            delattr(self, f"_{name}")

    def copy(self, count: int) -> list[I64]:
        """Return the columns of the numbers below `count`, as they are now."""
        return [getattr(self, name)[:count].copy() for name in COLUMNS]

    def restore(self, columns: list[I64]) -> None:
        """Take over what `copy` gave."""
        self.reserve(len(columns[0]))
        for name, column in zip(COLUMNS, columns, strict=True):
            getattr(self, name)[: len(column)] = column

    @property
    def lead(self) -> U64:
        """`lead_bits` as bits."""
        return self.lead_bits.view(np.uint64)


class Names:
    """Lasting numbers of series: (device id, property, channel, kind of identity), in the order first seen."""

    def __init__(self, words: list[str] | None = None) -> None:
        self.words: list[str] = words or []
        self._number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def number(self, device: str, variable: tuple[str, str], kind: int) -> int:
        """Return the number of a series, a new one if need be."""
        word = f"{device}\n{variable[0]}\n{variable[1]}\n{kind}"
        found = self._number.get(word)
        if found is None:
            found = self._number[word] = len(self.words)
            self.words.append(word)
        return found
