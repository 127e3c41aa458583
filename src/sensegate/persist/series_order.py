"""Order within the series of a batch: grouping by series, late rows, unchanged rows."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import BOOL, F64, I64, U32, U64
from sensegate.persist.watermarks import NEVER, Watermarks
from sensegate.quantities.sorting import radix_argsort

_ROUNDS = 8
"""Rows per series that are processed vectorised over all series; the rest of a longer series row by row."""


def group_by_series(number: U32, rows: I64 | None = None) -> tuple[I64, I64]:
    """Return (rows ordered by series, then arrival; series of each); `rows`: only these."""
    numbers = number if rows is None else number[rows]
    order = radix_argsort(numbers)
    return order if rows is None else rows[order], numbers[order].astype(np.int64)


def starts(series: I64) -> I64:
    """Return the index of the first row of each series in a column ordered by series."""
    new = np.empty(len(series), np.bool_)
    new[:1] = True
    np.not_equal(series[1:], series[:-1], out=new[1:])
    return np.flatnonzero(new)


def find_late(series: I64, time: I64, last: I64) -> BOOL | None:
    """Return which rows are earlier than a preceding one of their series; None if none is. Updates `last`.

    Rows are ordered by series, then arrival; `last` is the latest time before this batch, by series.
    """
    first = starts(series)
    end = np.append(first[1:], len(series)) - 1
    owner = series[first]
    before = last[owner]
    falls = time[1:] < time[:-1]
    falls &= series[1:] == series[:-1]
    if not falls.any() and not (time[first] < before).any():
        last[owner] = time[end]
        return None
    lowest = int(time.min())
    span = int(time.max()) - lowest
    width = span.bit_length()
    length = end - first + 1
    if width + len(first).bit_length() < 63:
        # One running maximum for all: the rank of the series in the high bits restarts it for each series.
        rank = np.repeat(np.arange(len(first)), length) << width
        most = (np.maximum.accumulate(rank | (time - lowest)) & ((1 << width) - 1)) + lowest
    else:
        most = np.concatenate([np.maximum.accumulate(time[a : b + 1]) for a, b in zip(first, end, strict=True)])
    limit = np.repeat(before, length)
    later = np.ones(len(series), np.bool_)
    later[first] = False
    followers = np.flatnonzero(later)
    limit[followers] = np.maximum(limit[followers], most[followers - 1])
    last[owner] = np.maximum(before, most[end])
    out: BOOL = time < limit
    return out


class ReportByException(msgspec.Struct, frozen=True, eq=False):
    """Rows whose profile asks for report by exception, ordered by series, then arrival."""

    series: I64
    bits: U64
    value: F64
    time: I64
    deadband: F64
    heartbeat: I64


def find_unchanged(rows: ReportByException, marks: Watermarks) -> tuple[BOOL, BOOL]:
    """Return (rows to suppress as unchanged; unchanged rows due as heartbeat); updates the reference values."""
    first = starts(rows.series)
    length = np.diff(np.append(first, len(rows.series)))
    unchanged = np.zeros(len(rows.series), np.bool_)
    heartbeat = np.zeros(len(rows.series), np.bool_)
    for step in range(min(int(length.max()), _ROUNDS)):
        at = first[length > step] + step
        series = rows.series[at]
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(rows.value[at] - marks.reference_values[series].view(np.float64)) <= rows.deadband[at]
        same = (near | (rows.bits[at] == marks.reference_values[series])) & (marks.reference_time[series] != NEVER)
        due = rows.time[at] - marks.reference_time[series] >= rows.heartbeat[at]
        unchanged[at] = same & ~due
        heartbeat[at] = same & due
        leads = at[~unchanged[at]]
        marks.reference_bits[rows.series[leads]] = rows.bits[leads].view(np.int64)
        marks.reference_time[rows.series[leads]] = rows.time[leads]
    for place in np.flatnonzero(length > _ROUNDS).tolist():
        _judge_rest_of_series(
            rows, range(int(first[place]) + _ROUNDS, int(first[place] + length[place])), marks, unchanged, heartbeat
        )
    return unchanged, heartbeat


def _judge_rest_of_series(
    rows: ReportByException, places: range, marks: Watermarks, unchanged: BOOL, heartbeat: BOOL
) -> None:
    """Process the remaining rows of a series; its first rows have set the reference already."""
    series = int(rows.series[places.start])
    lead_bits = int(marks.reference_bits[series])
    lead_value = float(marks.reference_bits[series : series + 1].view(np.float64)[0])
    lead_time = int(marks.reference_time[series])
    cut = slice(places.start, places.stop)
    columns = zip(
        places,
        rows.bits[cut].view(np.int64).tolist(),
        rows.value[cut].tolist(),
        rows.time[cut].tolist(),
        rows.deadband[cut].tolist(),
        rows.heartbeat[cut].tolist(),
        strict=True,
    )
    for place, bits, value, time, deadband, beat in columns:
        if bits == lead_bits or abs(value - lead_value) <= deadband:
            if time - lead_time < beat:
                unchanged[place] = True
                continue
            heartbeat[place] = True
        lead_bits, lead_value, lead_time = bits, value, time
    marks.reference_bits[series], marks.reference_time[series] = lead_bits, lead_time
