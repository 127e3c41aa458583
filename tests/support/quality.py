"""Quality indicators as columns, made of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from sensegate.model import QualityHour, QualityRow
from sensegate.quantities.indicator_sums import INDICATORS


def hours_of(rows: Iterable[QualityRow], find: Callable[[str], int]) -> list[QualityHour]:
    """Return rows as columns of hours, the newest first; `find` returns the index of a device."""
    by_hour: dict[int, list[tuple[int, QualityRow]]] = {}
    for row in rows:
        by_hour.setdefault(row.hour, []).append((find(row.device), row))
    hours = []
    for hour, members in sorted(by_hour.items(), reverse=True):
        members.sort(key=lambda member: member[0])
        columns = {
            name: np.array([np.nan if getattr(row, name) is None else getattr(row, name) for _, row in members], float)
            for name in INDICATORS
        }
        device = np.array([at for at, _ in members], np.int32)
        received = np.array([row.received for _, row in members], np.uint32)
        hours.append(QualityHour(hour, device, received, **columns))
    return hours
