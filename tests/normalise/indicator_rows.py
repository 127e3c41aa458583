"""Readings by the minute, and the indicators that come of them."""

from __future__ import annotations

import numpy as np

from sensegate.clock import HOUR_US
from sensegate.normalise import indicators as module
from sensegate.normalise.indicators import Indicators
from sensegate.quantities.indicator_counts import IndicatorCounts
from tests.normalise.rows import NOW, TEMP, Bench, Row, fields_of

START = NOW // HOUR_US
"""The hour that begins at NOW."""


class Counted(Bench):
    """A normaliser whose readings are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.indicators = Indicators(self.series)

    def add(self, *rows: Row, keep: list[bool] | None = None, proved: list[bool] | None = None) -> None:
        """Normalise and count one batch."""
        fields, received, _ = fields_of(rows)
        readings, rejected = self.normaliser.normalise(fields, received)
        self.indicators.count(
            self.normaliser.table,
            readings,
            rejected,
            keep=None if keep is None else np.array(keep),
            proved=None if proved is None else np.array(proved),
            received=received,
        )

    def take(self, hours: float, *, final: bool = False) -> IndicatorCounts:
        """Take at some hours after NOW, with the grace gone by."""
        return self.indicators.drain(NOW + round(hours * HOUR_US) + module.GRACE, final=final)


def row_of(indicators: IndicatorCounts, device: int, hour: int = 0) -> dict[str, float]:
    """Return the counts and indicators of one device and hour (counted from START)."""
    at = np.flatnonzero((indicators.device == device) & (indicators.hour == START + hour))
    assert len(at) == 1, f"{len(at)} rows for device {device}, hour {hour}"
    names = (*IndicatorCounts.__struct_fields__, "authenticity", "accuracy", "continuity", "completeness")
    return {name: float(getattr(indicators, name)[at[0]]) for name in names}


def minutes(*, device: int = 0, first: int = 0, last: int = 60, spec: int = TEMP) -> list[Row]:
    """Return one reading a minute."""
    return [Row(20.0 + minute % 7, spec, device, time=minute * 60.0) for minute in range(first, last)]
