"""Small batches, written as rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sensegate.clock import FakeClock
from sensegate.config import TimeConfig
from sensegate.model import Fields, Readings, RejectedValue, Spec
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.quality import Flag, Quality, TimeQuality
from sensegate.quantities.series import SeriesIndex

NOW = 1_767_225_600_000_000
S = 1_000_000

SPECS = (
    Spec(profile="t/t@1", name="temp", property="air_temperature", low=-20, high=50, interval_s=60),
    Spec(profile="t/t@1", name="temp2", property="air_temperature", channel="2", interval_s=60),
    Spec(profile="t/t@1", name="fahrenheit", property="water_temperature", scale=5 / 9, offset=-160 / 9),
    Spec(profile="t/t@1", name="smoke", property="smoke", alarm=True),
    Spec(profile="t/t@1", name="state", property="state"),
    Spec(profile="t/t@1", name="kwh", property="energy", step=10.0),
)
TEMP, TEMP2, FAHRENHEIT, SMOKE, STATE, KWH = range(6)


class Row(msgspec.Struct, frozen=True):
    """One field of one message; times in seconds from `NOW`."""

    value: float | str
    spec: int = TEMP
    device: int = 0
    time: float = 0.0
    received: float | None = None
    """None: at its time, but not before now."""
    message: int | None = None
    """None: a message of its own."""
    time_quality: TimeQuality = TimeQuality.DEVICE
    best_effort: bool = False
    unit: tuple[float, float] | None = None
    quality: Quality | None = None


def fields_of(rows: Sequence[Row]) -> tuple[Fields, np.ndarray, np.ndarray]:
    """Return the columns, the arrival of each message, and which came at best effort."""
    message = [number if row.message is None else row.message for number, row in enumerate(rows)]
    received = np.full(max(message, default=-1) + 1, NOW, np.int64)
    best_effort = np.zeros(len(received), np.bool_)
    for number, row in zip(message, rows, strict=True):
        received[number] = NOW + round((max(row.time, 0.0) if row.received is None else row.received) * S)
        best_effort[number] = row.best_effort
    time = np.array([NOW + round(row.time * S) for row in rows], np.int64)
    fields = Fields(
        message=np.array(message, np.int32),
        device=np.array([row.device for row in rows], np.int32),
        spec=np.array([row.spec for row in rows], np.int32),
        value=np.array([np.nan if isinstance(row.value, str) else row.value for row in rows], np.float64),
        text={number: row.value for number, row in enumerate(rows) if isinstance(row.value, str)},
        time=time,
        time_quality=np.array([row.time_quality for row in rows], np.uint8),
        key=time,
        path=np.zeros(len(rows), np.uint16),
        override_scale={number: row.unit for number, row in enumerate(rows) if row.unit is not None},
        source_quality={number: int(row.quality) for number, row in enumerate(rows) if row.quality is not None},
    )
    return fields, received, best_effort


class Bench:
    """A normaliser with its series, fed with rows."""

    def __init__(self, specs: Sequence[Spec] = SPECS, config: TimeConfig | None = None) -> None:
        self.clock = FakeClock(NOW)
        self.series = SeriesIndex()
        self.normaliser = Normaliser(specs, series=self.series, clock=self.clock, time=config)

    def run(self, *rows: Row) -> tuple[Readings, list[RejectedValue]]:
        """Return readings and rejections of one batch."""
        fields, received, best_effort = fields_of(rows)
        return self.normaliser.normalise(fields, received, best_effort)

    def flags(self, *rows: Row) -> list[Flag]:
        """Return the flags of one batch's readings."""
        return [Flag(int(flags)) for flags in self.run(*rows)[0].flags]
