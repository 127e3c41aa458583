"""Files of watermarks in a checkpoint: ``state-N`` has all series, ``changes-N`` those that changed since the last one.

A file: xxh3 (8 bytes), number of series (8), a bit for each column of `watermarks.COLUMNS` that has a value (8), these
columns, and, in ``changes-N``, the numbers of the series (4 bytes each). A state is a ``state-N`` and the changes after
it in their order, as the manifest names them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import xxhash

from sensegate.model import I64, U32
from sensegate.persist.sorted_runs import DamagedFile
from sensegate.persist.watermarks import COLUMNS, NEVER, WatermarkState

CHANGES_MAX = 64
"""Most files of changes after a whole state."""
CHANGES_PER_SERIES = 4
"""A whole state is written once the changes after the last one are so many per series."""
_HEADER_BYTES = 24


class ChangedSeries(msgspec.Struct, frozen=True):
    """A file of changes, as the manifest names it."""

    name: str
    rows: int


def is_whole_due(changes: list[ChangedSeries], series: int) -> bool:
    """Return whether a whole state costs less than the changes after the last one, and those that follow."""
    return len(changes) >= CHANGES_MAX or sum(part.rows for part in changes) > CHANGES_PER_SERIES * series


def encode_state(state: WatermarkState) -> bytes:
    """Return the content of a file: whole where `numbers` is None."""
    used = [bool((column != NEVER).any()) for column in state.columns]
    mask = sum(1 << at for at, is_used in enumerate(used) if is_used)
    body = np.array([len(state.columns[0]), mask], np.int64).tobytes()
    body += b"".join(column.tobytes() for column, is_used in zip(state.columns, used, strict=True) if is_used)
    if state.numbers is not None:
        body += state.numbers.astype(np.uint32).tobytes()
    return xxhash.xxh3_64_digest(body) + body


def _read(path: Path, series: int, *, whole: bool) -> tuple[list[I64], U32 | None]:
    raw = path.read_bytes()
    if len(raw) < _HEADER_BYTES or xxhash.xxh3_64_digest(memoryview(raw)[8:]) != raw[:8]:
        raise DamagedFile(path.name, "its checksum is wrong")
    rows, mask = (int(word) for word in np.frombuffer(raw, np.int64, 2, 8))
    used = [at for at in range(len(COLUMNS)) if mask >> at & 1]
    if not 0 <= rows <= series or len(raw) != _HEADER_BYTES + rows * (8 * len(used) + (0 if whole else 4)):
        raise DamagedFile(path.name, f"it is not a state of {series} series")
    columns = [np.full(rows, NEVER, np.int64) for _ in COLUMNS]
    for place, at in enumerate(used):
        columns[at] = np.frombuffer(raw, np.int64, rows, _HEADER_BYTES + place * rows * 8)
    if whole:
        return columns, None
    numbers: U32 = np.frombuffer(raw, np.uint32, rows, _HEADER_BYTES + len(used) * rows * 8)
    if rows and int(numbers.max()) >= series:
        raise DamagedFile(path.name, f"it has more than {series} series")
    return columns, numbers


def read_state(directory: Path, state: str, changes: list[ChangedSeries], series: int) -> list[I64]:
    """Return the watermarks of `series` series from a whole state and the changes after it.

    Raises:
        DamagedFile: a file is corrupt.
        OSError: it cannot be read.
    """
    whole, _ = _read(directory / state, series, whole=True)
    columns = [np.full(series, NEVER, np.int64) for _ in COLUMNS]
    for column, first in zip(columns, whole, strict=True):
        column[: len(first)] = first
    for part in changes:
        values, numbers = _read(directory / part.name, series, whole=False)
        for column, changed in zip(columns, values, strict=True):
            column[numbers] = changed
    return columns
