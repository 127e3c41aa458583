"""Counts of the four quality indicators by device and hour, as columns."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import F64, I32, I64, U32

HOURS_MAX = 48
"""Age in hours up to which a reading still counts; also the most hours that one gap is spread over."""


class IndicatorCounts(msgspec.Struct, frozen=True, eq=False):
    """Counts by device and hour, as columns.

    Rows of the same (device, hour) from different calls of `drain` are merged: counts are summed; `expected`, `longest`
    and `span` take the maximum.
    """

    device: I32
    hour: I64
    """Hours since 1970-01-01T00:00:00Z, by phenomenon time."""
    received: U32
    doubted: U32
    wrong: U32
    """Including rejected values."""
    rejected: U32
    gaps: U32
    silent: I64
    """µs."""
    longest: I64
    """Longest gap that ended or lasted in the hour, counted from its last message, µs."""
    expected: F64
    """Readings expected in the hour; 0: no interval is declared."""
    span: I64
    """Part of the hour for which the device has been known, µs."""

    def __len__(self) -> int:
        return len(self.device)

    @property
    def authenticity(self) -> F64:
        """Share of readings that are authenticated and fresh."""
        return 1.0 - _ratio(self.doubted, self.received)

    @property
    def accuracy(self) -> F64:
        """Share of values that pass range, step, type and unit checks."""
        return 1.0 - _ratio(self.wrong, self.received.astype(np.int64) + self.rejected)

    @property
    def continuity(self) -> F64:
        """Share of the time in which the device was not silent."""
        known = np.where(self.expected > 0, self.span, 0)
        return np.clip(1.0 - _ratio(self.silent, known), 0.0, 1.0)

    @property
    def completeness(self) -> F64:
        """Share of the expected readings that arrived."""
        return np.minimum(_ratio(self.received, self.expected), 1.0)


def _ratio(part: U32 | I64 | F64, whole: U32 | I64 | F64) -> F64:
    out: F64 = np.full(len(part), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
