"""Aggregates by window: which functions there are, and their SQL over rows or over hourly sums."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np

from sensegate.history.windows import Windows

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9])?)")
DIMENSIONS = ("device", "division")
"""Keys by which an aggregate may be grouped, beside the property."""
_FROM_SUMS = {
    "count": "sum(n)",
    "min": "min(least)",
    "max": "max(most)",
    "mean": "sum(total) / sum(numbers)",
    "sum": "sum(total)",
    "last": "arg_max(last, last_time)",
    "good": "sum(good) / sum(n)",
}
_FROM_ROWS = {
    "count": "count(*)",
    "min": "min(number)",
    "max": "max(number)",
    "mean": "avg(number)",
    "sum": "sum(number)",
    "first": "arg_min(number, time)",
    "last": "arg_max(number, time)",
    "stddev": "stddev_samp(number)",
    "median": "median(number)",
    "good": "count(*) FILTER (quality = 0) / count(*)",
}
FUNCTIONS = tuple(_FROM_ROWS)
"""Functions, beside percentiles ``p0`` to ``p99.9``; `good`: the share of readings of good quality."""


class Aggregate(msgspec.Struct, frozen=True):
    """The aggregate functions that are computed for each window."""

    functions: tuple[str, ...]
    by: tuple[str, ...]
    """Key of `DIMENSIONS`; each property is aggregated apart."""
    windows: Windows


class AggregateRow(msgspec.Struct, frozen=True):
    """Values of one group in one window."""

    key: tuple[str, ...]
    """Property (``name`` or ``name#channel``), then the values of `Aggregate.by`."""
    start: int
    values: tuple[float | None, ...]


_SCANNED = "count(*) AS scanned"
"""Rows of the source in a group: readings, or hourly sums."""


def is_function(name: str) -> bool:
    """Return whether there is a function of a name."""
    return name in _FROM_ROWS or _PERCENTILE.fullmatch(name) is not None


def fits_sums(wanted: Aggregate) -> bool:
    """Return whether hourly sums hold all that the functions need."""
    return all(function in _FROM_SUMS for function in wanted.functions)


def statement(source: str, wanted: Aggregate, *, sums: bool = False) -> str:
    """Return the SQL that aggregates a source; one without equally spaced windows reads the table ``windows``."""
    functions = _FROM_SUMS if sums else _FROM_ROWS
    columns = ["property", *wanted.by]
    for number, function in enumerate(wanted.functions):
        percentile = _PERCENTILE.fullmatch(function)
        text = f"quantile_cont(number, {float(percentile[1]) / 100})" if percentile else functions[function]
        columns.append(f"({text})::DOUBLE AS v{number}")
    windows = wanted.windows
    if windows.shift is None:
        return (
            f"SELECT {', '.join(columns)}, w.start AS start, {_SCANNED} FROM ({source}) AS rows ASOF JOIN windows AS w "
            "ON rows.time >= w.start GROUP BY ALL ORDER BY ALL"
        )
    shift, step = windows.shift, windows.step
    start = f"time - (((time - {shift}) % {step}) + {step}) % {step} AS start"
    return f"SELECT {', '.join(columns)}, {start}, {_SCANNED} FROM ({source}) AS rows GROUP BY ALL ORDER BY ALL"


def windows_table(wanted: Aggregate) -> dict[str, Any]:
    """Return the starts of the windows as a table."""
    return {"start": np.array(wanted.windows.starts, np.int64)}


def rows_of(columns: Any, wanted: Aggregate) -> list[AggregateRow]:
    """Return the result of `statement` as rows."""
    keys = zip(*(columns[name].tolist() for name in ("property", *wanted.by)), strict=True)
    values = [_optional(columns[f"v{number}"]) for number in range(len(wanted.functions))]
    table = zip(keys, columns["start"].tolist(), zip(*values, strict=True), strict=True)
    return [AggregateRow(key, start, row) for key, start, row in table]


def _optional(column: Any) -> list[float | None]:
    known = np.isfinite(np.ma.filled(column, np.nan))
    return [value if is_known else None for value, is_known in zip(column.tolist(), known.tolist(), strict=True)]
