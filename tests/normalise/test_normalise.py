"""The normaliser as a whole: units, types, rejections, and the order of the checks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.config import TimeConfig
from sensegate.errors import ProfileError
from sensegate.model import RejectReason, Spec
from sensegate.normalise.normalise import TEXT_MAX
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.quality import Flag, Quality, TimeQuality
from tests.normalise.rows import FAHRENHEIT, KWH, NOW, SMOKE, STATE, TEMP, TEMP2, Bench, Row, S, fields_of


def test_a_value_comes_out_in_the_canonical_unit() -> None:
    """Scale and offset of the spec, or of the unit that the payload itself named, are applied."""
    readings, rejected = Bench().run(
        Row(70.7, FAHRENHEIT), Row(21.5, TEMP), Row(300.0, FAHRENHEIT, device=1, unit=(1.0, -273.15))
    )
    assert not rejected
    np.testing.assert_allclose(readings.value, [21.5, 21.5, 26.85], rtol=1e-12)
    assert [PROPERTIES[index].name for index in readings.property] == [
        "water_temperature",
        "air_temperature",
        "water_temperature",
    ]
    assert readings.quality.tolist() == [Quality.GOOD] * 3
    assert readings.flags.tolist() == [0, 0, 0]


def test_the_fields_are_not_changed() -> None:
    """The columns handed in stay as they were: they are still needed for raw and for explaining."""
    bench = Bench()
    rows = (Row(70.7, FAHRENHEIT), Row(99.0, TEMP, unit=(2.0, 0.0)), Row(math.nan, TEMP))
    fields, received, _ = fields_of(rows)
    before = fields.value.copy()
    bench.normaliser.normalise(fields, received)
    np.testing.assert_array_equal(fields.value, before)


def test_arrival_follows_the_message() -> None:
    """Each reading carries the arrival of its own message."""
    readings, _ = Bench().run(
        Row(1.0, received=5, message=0), Row(math.nan, received=5, message=0), Row(2.0, TEMP2, received=7, message=1)
    )
    assert ((readings.received - NOW) // S).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(math.nan), RejectReason.NOT_FINITE),
        (Row(math.inf), RejectReason.NOT_FINITE),
        (Row(-math.inf), RejectReason.NOT_FINITE),
        (Row(1e300, unit=(1e300, 0.0)), RejectReason.NOT_FINITE),
        (Row("hot"), RejectReason.WRONG_TYPE),
        (Row(0.5, SMOKE), RejectReason.WRONG_TYPE),
        (Row(2, SMOKE), RejectReason.WRONG_TYPE),
        (Row("yes", SMOKE), RejectReason.WRONG_TYPE),
        (Row(1.0, STATE), RejectReason.WRONG_TYPE),
        (Row("x" * (TEXT_MAX + 1), STATE), RejectReason.TOO_LONG),
        (Row(1.0, time=-900_000_000, received=0), RejectReason.BAD_TIME),
        (Row(1.0, time=87_601 * 3600, received=0), RejectReason.BAD_TIME),
    ],
)
def test_what_can_be_no_reading_is_rejected_with_its_reason(row: Row, reason: RejectReason) -> None:
    """A rejected value names message, device, field and reason; its neighbours in the batch are untouched."""
    readings, rejected = Bench().run(Row(20.0, device=5), row, Row("on", STATE, device=5), Row(21.0, device=6))
    assert [(item.message, item.device, item.reason) for item in rejected] == [(1, 0, reason)]
    assert rejected[0].field in {"temp", "smoke", "state"}
    assert rejected[0].detail
    assert readings.device.tolist() == [5, 5, 6]
    assert readings.text == {1: "on"}
    assert readings.value[[0, 2]].tolist() == [20.0, 21.0]


def test_a_batch_with_nothing_left() -> None:
    """No fields, or only bad ones, give empty columns and no error."""
    assert len(Bench().run()[0]) == 0
    readings, rejected = Bench().run(Row(math.nan), Row(math.nan))
    assert (len(readings), len(rejected)) == (0, 2)
    assert readings.series.shape == (0,)


def test_a_value_out_of_range_is_kept_and_marked() -> None:
    """Outside the physical range is bad, outside the profile's range uncertain; nothing is removed."""
    readings, rejected = Bench().run(Row(55.0), Row(-25.0, device=1), Row(1000.0, device=2), Row(50.0, device=3))
    assert not rejected
    assert readings.quality.tolist() == [
        Quality.UNCERTAIN_RANGE,
        Quality.UNCERTAIN_RANGE,
        Quality.BAD_RANGE,
        Quality.GOOD,
    ]
    assert readings.flags.tolist() == [Flag.RANGE, Flag.RANGE, Flag.RANGE, 0]
    assert readings.value.tolist() == [55.0, -25.0, 1000.0, 50.0]


def test_a_profile_cannot_widen_the_physical_range() -> None:
    """A spec's range only narrows that of its property."""
    bench = Bench([Spec(profile="t/t@1", name="rh", property="relative_humidity", low=-50, high=500)])
    readings, _ = bench.run(Row(150.0), Row(-1.0), Row(100.0))
    assert readings.quality.tolist() == [Quality.BAD_RANGE, Quality.BAD_RANGE, Quality.GOOD]


def test_flags_that_come_with_the_message() -> None:
    """Alarms of the profile and best effort of the message are flags of the reading."""
    assert Bench().flags(Row(1, SMOKE), Row(20.0, best_effort=True), Row(0, SMOKE, device=1, best_effort=True)) == [
        Flag.ALARM,
        Flag.BEST_EFFORT,
        Flag.ALARM | Flag.BEST_EFFORT,
    ]


def test_the_source_s_own_quality_is_kept() -> None:
    """A code that the device gave stays unless a check finds worse; a rejection beside it does not shift it."""
    readings, _ = Bench().run(
        Row(math.nan),
        Row(20.0, device=1, quality=Quality.UNCERTAIN_CALIBRATION),
        Row(55.0, device=2, quality=Quality.UNCERTAIN_MAINTENANCE),
        Row(1000.0, device=3, quality=Quality.UNCERTAIN_CALIBRATION),
        Row(1000.0, device=4, quality=Quality.BAD_SENSOR),
    )
    assert readings.quality.tolist() == [
        Quality.UNCERTAIN_CALIBRATION,
        Quality.UNCERTAIN_MAINTENANCE,
        Quality.BAD_RANGE,
        Quality.BAD_SENSOR,
    ]


def test_the_first_check_gives_the_code_and_every_check_its_flag() -> None:
    """Order: range, step, stuck, clock. A reading that fails two has both flags and the code of the first."""
    bench = Bench([Spec(profile="t/t@1", name="t", property="air_temperature", step=1.0)])
    bench.run(Row(20.0))
    readings, _ = bench.run(Row(40.0, time=10))
    assert (readings.quality[0], readings.flags[0]) == (Quality.UNCERTAIN_STEP, Flag.STEP)
    readings, _ = bench.run(Row(1000.0, time=400, received=0))
    assert (readings.quality[0], readings.flags[0]) == (Quality.BAD_RANGE, Flag.RANGE | Flag.FUTURE)


def test_two_probes_do_not_disturb_each_other() -> None:
    """Channels are series of their own: neighbours of different probes are no step."""
    bench = Bench()
    for second in range(5):
        readings, _ = bench.run(Row(10.0, TEMP, time=second), Row(30.0, TEMP2, time=second))
        assert readings.flags.tolist() == [0, 0]
        assert readings.series[0] != readings.series[1]


def test_other_profiles_come_into_force_and_the_past_stays() -> None:
    """After `apply_specs` the same series goes on, whatever its spec's new index; a wrong spec leaves all as it was."""
    bench = Bench()
    bench.run(Row(20.0))
    with pytest.raises(ProfileError, match="air_temperature"):
        bench.normaliser.apply_specs([Spec(profile="t/t@2", name="x", property="air_temprature")])
    assert bench.flags(Row(20.1, time=1)) == [Flag(0)]
    bench.normaliser.apply_specs([Spec(profile="t/t@2", name="state", property="state"), *bench.normaliser.table.specs])
    assert bench.flags(Row(45.0, spec=1, time=2)) == [Flag.STEP]


def test_own_clock_off_rejects_and_judges_nothing_by_time() -> None:
    """While our own clock is off everything is marked `clock`, and even absurd times are kept."""
    bench = Bench()
    bench.normaliser.clocks.own_clock_off = True
    readings, rejected = bench.run(
        Row(20.0, time=-900_000_000, received=0),
        Row(20.0, time=-100_000, received=0, device=1),
        Row(20.0, time=1_000_000, received=0, device=2),
        Row(20.0, device=3, time_quality=TimeQuality.RECEIVED),
    )
    assert not rejected
    assert readings.flags.tolist() == [Flag.CLOCK] * 4
    assert readings.quality.tolist() == [0, 0, 0, Quality.UNCERTAIN_CLOCK]
    bench.normaliser.clocks.own_clock_off = False
    assert bench.flags(Row(20.0, device=9)) == [Flag(0)]


def test_a_time_that_cannot_be_written_is_rejected_even_then() -> None:
    """Years beyond 9999 have no ISO form: such a value is rejected whatever our clock."""
    bench = Bench()
    bench.normaliser.clocks.own_clock_off = True
    assert [item.reason for item in bench.run(Row(20.0, time=3e11, received=0))[1]] == [RejectReason.BAD_TIME]


ROWS = st.lists(
    st.builds(
        Row,
        value=st.sampled_from([1.0, 20.0, 20.0, 20.5, 31.0, 49.0, 51.0, 200.0, math.nan]),
        spec=st.sampled_from([TEMP, TEMP2, KWH]),
        device=st.integers(0, 2),
        time=st.just(0.0),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(ROWS, st.integers(0, 40))
def test_how_the_batches_are_cut_does_not_matter(rows: list[Row], cut: int) -> None:
    """In order of time, one batch and the same rows in two batches are judged alike."""
    rows = [
        Row(row.value, row.spec, row.device, time=60.0 * number, received=60.0 * number)
        for number, row in enumerate(rows)
    ]
    config = TimeConfig(future_s=1e6)
    whole, rejected = Bench(config=config).run(*rows)
    pieces = Bench(config=config)
    first, second = pieces.run(*rows[:cut]), pieces.run(*rows[cut:])
    assert len(rejected) == len(first[1]) + len(second[1])
    for name in ("device", "property", "value", "quality", "flags"):
        both = np.concatenate([getattr(first[0], name), getattr(second[0], name)])
        np.testing.assert_array_equal(both, getattr(whole, name))


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Row,
            value=st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=5)),
            spec=st.integers(0, 5),
            device=st.integers(0, 3),
            time=st.floats(-2e9, 2e9),
            received=st.floats(0, 1e6),
            time_quality=st.sampled_from(list(TimeQuality)),
        ),
        max_size=30,
    )
)
def test_every_field_becomes_a_reading_or_a_rejection(rows: list[Row]) -> None:
    """Whatever comes, rows in = readings + rejections, and every reading is finite and of its type."""
    readings, rejected = Bench().run(*rows)
    assert len(readings) + len(rejected) == len(rows)
    numeric = np.ones(len(readings), np.bool_)
    numeric[list(readings.text)] = False
    assert np.isfinite(readings.value[numeric]).all()
    smoke = readings.spec == SMOKE
    assert np.isin(readings.value[smoke], [0, 1]).all()
    assert set(readings.text) == set(np.flatnonzero(readings.spec == STATE).tolist())
    assert (np.diff(readings.message) > 0).all()


def test_values_are_without_the_noise_of_binary_arithmetic() -> None:
    """39 steps of 0.1 are 3.9, a single-precision 2.885 is 2.885, a stated unit converts to its decimal."""
    specs = (
        Spec(profile="t/t@1", name="steps", property="air_temperature", scale=0.1),
        Spec(profile="t/t@1", name="plain", property="air_temperature", channel="2"),
    )
    sent = [Row(39.0, 0), Row(2.8849999904632568, 1), Row(39 * 0.1, 1), Row(70.7, 1, unit=(5 / 9, -160 / 9))]
    readings, _ = Bench(specs).run(*sent)
    assert readings.value.tolist() == [3.9, 2.885, 3.9, 21.5]
