"""The edges of numbers: whatever value at whatever time becomes a reading or a rejection, and numpy warns of none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.config import TimeConfig
from sensegate.model import Datum, Fields, Spec
from sensegate.normalise.clocks import REPRESENTABLE
from sensegate.normalise.counters import classify_drops, deltas, totals
from sensegate.quantities.coordinates import wgs84
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.quality import TimeQuality
from tests.normalise.rows import NOW, Bench

MAX = 1.7976931348623157e308
EDGES = (
    0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.0**53, 2.0**63, -(2.0**63), 1e15, 1e305, -1e305, MAX, -MAX, math.nan,
    math.inf, -math.inf, 90.0, -90.0, 180.0, -180.0, 360.0, 65_535.0, 65_536.0, 4_294_967_295.0,
)  # fmt: skip
HOUR = 3_600_000_000
DAY = 24 * HOUR
OLDEST = 946_684_800_000_000
TIMES = (
    NOW, NOW - 1, NOW + 1, NOW - 8 * HOUR, NOW + 8 * HOUR, NOW - DAY, NOW + DAY, NOW - 3650 * DAY, NOW + 3650 * DAY,
    OLDEST, OLDEST - 1, 0, -1, 1, *REPRESENTABLE, REPRESENTABLE[0] - 1, REPRESENTABLE[1] + 1, -(2**63) + 1, 2**63 - 1,
)  # fmt: skip
SPECS = [
    *(Spec(profile="t/t@1", name=row.name, property=row.name) for row in PROPERTIES.rows),
    Spec(profile="t/t@1", name="large", property="energy", scale=1e300),
    Spec(profile="t/t@1", name="small", property="energy", scale=1e-300, offset=-1e300),
    Spec(profile="t/t@1", name="counter", property="energy", step=1.0, modulus=65_536.0),
    *(
        Spec(profile="t/t@1", name=f"{name} {datum}", property=name, datum=datum, channel=datum.value)
        for datum in (Datum.GCJ02, Datum.BD09)
        for name in ("longitude", "latitude")
    ),
]
ROWS = st.lists(
    st.tuples(
        st.integers(0, len(SPECS) - 1) | st.integers(len(SPECS) - 7, len(SPECS) - 1),
        st.sampled_from(EDGES) | st.floats(),
        st.sampled_from(TIMES) | st.integers(*REPRESENTABLE) | st.integers(NOW - DAY, NOW + HOUR),
        st.integers(0, 2),
        st.sampled_from(list(TimeQuality)),
        st.booleans(),
    ),
    max_size=40,
)


def fields_of(rows: list[tuple[int, float, int, int, TimeQuality, bool]]) -> Fields:
    time = np.array([row[2] for row in rows], np.int64)
    return Fields(
        message=np.arange(len(rows), dtype=np.int32) // 3,
        device=np.array([row[3] for row in rows], np.int32),
        spec=np.array([row[0] for row in rows], np.int32),
        value=np.array([row[1] for row in rows], np.float64),
        text={at: "on" for at, row in enumerate(rows) if row[5]},
        time=time,
        time_quality=np.array([row[4] for row in rows], np.uint8),
        key=time,
        path=np.zeros(len(rows), np.uint16),
        override_scale={at: (1e300, 1e300) for at, row in enumerate(rows) if row[3] == 2 and not row[5]},
    )


@settings(max_examples=settings().max_examples * 4)
@given(batches=st.lists(ROWS, min_size=1, max_size=3), off=st.booleans())
def test_every_edge_is_a_reading_or_a_rejection(
    *, batches: list[list[tuple[int, float, int, int, TimeQuality, bool]]], off: bool
) -> None:
    """Over several batches, as what was remembered of one judges the next; our own clock right or off."""
    bench = Bench(SPECS, TimeConfig())
    bench.normaliser.clocks.own_clock_off = off
    for rows in batches:
        fields = fields_of(rows)
        received = np.full(len(rows), NOW, np.int64)
        readings, rejected = bench.normaliser.normalise(fields, received)
        assert len(readings) + len(rejected) == len(rows)
        number = [row for row in range(len(readings)) if row not in readings.text]
        assert np.isfinite(readings.value[number]).all()
        low, high = REPRESENTABLE if off else (OLDEST, REPRESENTABLE[1])
        assert ((readings.time >= low) & (readings.time <= high)).all()


@given(
    st.sampled_from(EDGES) | st.floats(-181, 181), st.sampled_from(EDGES) | st.floats(-91, 91), st.sampled_from(Datum)
)
def test_any_place_in_any_datum(lon: float, lat: float, datum: Datum) -> None:
    """Poles, the date line, the box's edges, no number at all: the place itself, or one within two kilometres."""
    values = [float(item) for item in wgs84(lon, lat, datum)]
    for was, now in zip((lon, lat), values, strict=True):
        assert now == was or abs(now - was) < 0.05 or (math.isnan(was) and math.isnan(now))


VALUES = st.lists(st.sampled_from(EDGES) | st.floats(0, 1e6) | st.integers(0, 65_535).map(float), max_size=20)


@given(VALUES, st.sampled_from([0.0, 1.0, 65_536.0, 2.0**64, MAX]), st.sampled_from([math.inf, 0.0, 1.0, MAX]))
def test_any_counter_is_counted(values: list[float], modulus: float, most: float) -> None:
    """Whatever it shows: as many differences as readings, and no roll-over where there is no end."""
    shown = np.array(values, np.float64)
    assert len(deltas(shown, modulus, most)) == len(totals(shown, modulus, most)) == len(values)
    kinds = classify_drops(shown[:-1], shown[1:], np.full(max(len(shown) - 1, 0), modulus), most)
    assert not (kinds == 1).any() or modulus > 0


@pytest.mark.parametrize("modulus", [256.0, 65_536.0, 4_294_967_296.0])
def test_a_counter_at_its_end(modulus: float) -> None:
    """From the last number to the first is one step."""
    assert deltas(np.array([modulus - 1, 0.0]), modulus)[1:].tolist() == [1.0]
