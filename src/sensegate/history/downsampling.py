"""Downsampling of a series for a plot: so few of its readings that the line still looks the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Choose = Callable[[Any, Any, int], Any]
"""(times ascending, values, number of points) -> places of the readings that are kept, ascending."""


def min_max(time: Any, value: Any, points: int) -> Any:
    """Keep the least and the greatest reading of equal spans of time, so that no peak is lost."""
    if len(time) <= points:
        return np.arange(len(time))
    spans = max(1, points // 2)
    edges = np.linspace(float(time[0]), float(time[-1]), spans + 1)[1:-1]
    span = np.searchsorted(edges, time.astype(np.float64), side="right")
    order = np.lexsort((value, span))
    begins = np.flatnonzero(np.append(np.True_, span[order][1:] != span[order][:-1]))
    ends = np.append(begins[1:], len(order)) - 1
    return np.unique(np.concatenate([order[begins], order[ends]]))


def largest_triangles(time: Any, value: Any, points: int) -> Any:
    """Keep the reading of each bucket that spans the largest triangle with its neighbours (LTTB, Steinarsson 2013)."""
    count = len(time)
    if count <= points or points < 3:
        return np.arange(count) if count <= points else np.unique([0, count - 1])
    x, y = time.astype(np.float64), value.astype(np.float64)
    edges = np.linspace(1, count - 1, points - 1).astype(np.int64)
    chosen = [0]
    for number in range(points - 2):
        begin, end = int(edges[number]), max(int(edges[number + 1]), int(edges[number]) + 1)
        following = slice(end, int(edges[number + 2]) if number + 2 < len(edges) else count)
        mean_x, mean_y = (x[following].mean(), y[following].mean()) if following.start < count else (x[-1], y[-1])
        at = chosen[-1]
        areas = np.abs((x[at] - mean_x) * (y[begin:end] - y[at]) - (x[at] - x[begin:end]) * (mean_y - y[at]))
        chosen.append(begin + int(np.argmax(areas)))
    return np.unique([*chosen, count - 1])


METHODS: dict[str, Choose] = {"minmax": min_max, "lttb": largest_triangles}
"""Name of a method -> the rows that it keeps of a series."""
