"""Devices registered in divisions of Guangdong, and whether their coordinates bear the flag."""

from __future__ import annotations

import math

import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.clock import FakeClock
from sensegate.model import F64, I32, Spec
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.quality import Flag
from sensegate.quantities.series import SeriesIndex
from tests.normalise.rows import NOW, Row, fields_of

SPECS = (
    Spec(profile="t/t@1", name="lon", property="longitude"),
    Spec(profile="t/t@1", name="lat", property="latitude"),
    Spec(profile="t/t@1", name="t", property="air_temperature"),
)
DIVISIONS = ("440106", "440106003", "44", "4419")
"""Tianhe, a town of it, the province, Dongguan, which has no counties; another device's is not known."""


class Places:
    """Where the devices of these tests are registered."""

    def extents(self, device: I32) -> F64:
        table = Divisions.load()
        boxes = [table.extent(DIVISIONS[at]) if at < len(DIVISIONS) else None for at in device.tolist()]
        return np.array([(e.west, e.south, e.east, e.north) if e else (math.nan,) * 4 for e in boxes])

    def id(self, index: int) -> str:
        return f"d{index}"


def flags(device: int, lon: float, lat: float) -> list[bool]:
    """Return whether longitude, latitude and a temperature are flagged."""
    normaliser = Normaliser(SPECS, series=SeriesIndex(), clock=FakeClock(NOW), places=Places())
    rows = [Row(lon, 0, device, message=0), Row(lat, 1, device, message=0), Row(20.0, 2, device, message=0)]
    fields, received, _ = fields_of(rows)
    return [bool(flag & Flag.PLACE) for flag in normaliser.normalise(fields, received)[0].flags]
