"""Range, step and stuck value, against a plain model of the rules."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.model import Datum, Fields, RejectReason, Spec
from sensegate.normalise.checks import STUCK_READINGS
from sensegate.quantities.quality import Flag, Quality
from tests.normalise.rows import KWH, NOW, Bench, Row
from tests.support.coordinates import wgs84_to_gcj02

HOUR = 3600.0


def test_a_leap_between_neighbours_is_marked_both_ways() -> None:
    """A spike is a step up and a step down; what moves slowly is not marked."""
    assert Bench().flags(*(Row(value, time=60.0 * n) for n, value in enumerate([20, 21, 35, 21, 22]))) == [
        0,
        0,
        Flag.STEP,
        Flag.STEP,
        0,
    ]


def test_neighbours_far_apart_are_not_compared() -> None:
    """After three declared intervals without a reading there is no neighbour."""
    bench = Bench()
    assert bench.flags(Row(20.0)) == [0]
    assert bench.flags(Row(40.0, time=181.0)) == [0]
    assert bench.flags(Row(20.0, time=361.0)) == [Flag.STEP]


def test_a_counter_may_fall_but_not_leap() -> None:
    """A reset of a counter is marked and good; a leap upwards is a step, and so is a small way back."""
    bench = Bench()
    rows = [Row(value, KWH, time=60.0 * n) for n, value in enumerate([900, 905, 3, 8, 500, 498])]
    readings, _ = bench.run(*rows)
    assert readings.flags.tolist() == [0, 0, Flag.RESET, 0, Flag.STEP, Flag.STEP]
    assert readings.quality.tolist() == [0, 0, 0, 0, Quality.UNCERTAIN_STEP, Quality.UNCERTAIN_STEP]


PULSES = Spec(profile="t/t@1", name="n", property="rainfall_total", scale=0.2, modulus=65_536 * 0.2, step=50.0)


def test_a_roll_over_is_told_from_a_reset() -> None:
    """A counter of 16 bits: over its end it counted on, from the middle it was reset; both are good."""
    bench = Bench([PULSES])
    rows = [Row(value, 0, time=60.0 * n) for n, value in enumerate([65_530, 4, 40_000, 40_010, 3])]
    readings, _ = bench.run(*rows)
    assert readings.flags.tolist() == [0, Flag.ROLLOVER, Flag.STEP, 0, Flag.RESET]


def test_a_roll_over_is_known_after_a_long_silence() -> None:
    """What happened to a counter is told from two values, however far apart."""
    assert Bench([PULSES]).flags(Row(65_530, 0), Row(4, 0, time=6 * HOUR)) == [0, Flag.ROLLOVER]


PM = Spec(profile="t/t@1", name="pm", property="pm2_5", interval_s=60)


@pytest.mark.parametrize("size", [0.035, 0.21])
def test_a_series_a_thousand_times_too_small_is_marked(size: float) -> None:
    """Milligrams taken for micrograms are in range, but nobody has such clean air twelve times running."""
    flags = Bench([PM]).flags(*(Row(size + 0.001 * n, 0, time=60.0 * n) for n in range(15)))
    assert flags == [0] * 11 + [Flag.UNIT] * 4


def test_a_series_a_thousand_times_too_large_is_marked_too() -> None:
    """Nanograms taken for micrograms are out of range anyway; the mark says why."""
    flags = Bench([PM]).flags(*(Row(75_600 + n, 0, time=60.0 * n) for n in range(13)))
    assert flags == [Flag.RANGE] * 11 + [Flag.RANGE | Flag.UNIT] * 2


def test_clean_air_is_no_wrong_unit() -> None:
    """Zeros say nothing either way; one usual reading begins the count anew."""
    values = [0.2, 0.0, 0.1] * 5 + [0.9] + [0.2] * 11
    assert Bench([PM]).flags(*(Row(value, 0, time=60.0 * n) for n, value in enumerate(values))) == [0] * len(values)


def test_the_count_goes_on_from_batch_to_batch() -> None:
    """One reading a batch is counted like twelve in one; another device has a count of its own."""
    bench = Bench([PM])
    rows = [
        bench.flags(Row(0.03 + n / 1000, 0, time=60.0 * n), Row(30.0, 0, device=1, time=60.0 * n)) for n in range(13)
    ]
    assert rows == [[0, 0]] * 11 + [[Flag.UNIT, 0]] * 2


GCJ = [
    Spec(profile="t/t@1", name="lon", property="longitude", datum=Datum.GCJ02),
    Spec(profile="t/t@1", name="lat", property="latitude", datum=Datum.GCJ02),
]


def test_coordinates_are_shifted_in_pairs() -> None:
    """A longitude goes with the latitude of its message, whichever comes first; alone it becomes no reading."""
    lon, lat = wgs84_to_gcj02(np.array([113.32]), np.array([23.11]))
    east, north = float(lon[0]), float(lat[0])
    rows = [
        Row(east, 0, message=0), Row(north, 1, message=0), Row(north, 1, message=1), Row(east, 0, message=1),
        Row(east, 0, message=2),
    ]  # fmt: skip
    readings, rejected = Bench(GCJ).run(*rows)
    assert readings.value.tolist() == pytest.approx([113.32, 23.11, 23.11, 113.32], abs=1e-9)
    assert [(item.message, item.reason, item.detail) for item in rejected] == [
        (2, RejectReason.NOT_FINITE, "without its partner it cannot be converted from gcj02 to WGS-84")
    ]


def test_a_value_out_of_range_is_no_neighbour() -> None:
    """The reading after a broken one is compared with the last believable one."""
    assert Bench().flags(*(Row(value, time=60.0 * n) for n, value in enumerate([20, -9999, 21]))) == [
        0,
        Flag.RANGE,
        0,
    ]


def test_a_reading_from_the_future_is_no_neighbour() -> None:
    """One wrong stamp years ahead does not blind the checks until then."""
    bench = Bench()
    bench.run(Row(20.0))
    assert bench.flags(Row(20.0, time=9 * 24 * HOUR, received=0)) == [Flag.FUTURE]
    assert bench.flags(Row(40.0, time=60.0)) == [Flag.STEP]


async def test_a_past_from_after_now_is_forgotten() -> None:
    """If our clock was ahead and has been set back, the checks go on instead of waiting for that time."""
    bench = Bench()
    await bench.clock.advance(30 * 24 * HOUR)
    bench.run(Row(20.0, time=30 * 24 * HOUR))
    back = Bench()
    back.normaliser._history, back.series = bench.normaliser._history, bench.series
    back.normaliser.series = bench.series
    assert back.flags(Row(40.0), Row(40.1, time=1.0)) == [0, 0]
    assert back.flags(Row(20.0, time=2.0)) == [Flag.STEP]


def test_late_readings_are_compared_among_themselves() -> None:
    """A backlog beside live readings makes no steps of its own, and does not move the past back."""
    bench = Bench()
    bench.run(Row(20.0, time=0.0))
    assert bench.flags(
        Row(40.0, time=-50.0, received=0), Row(20.5, time=10.0, message=0), Row(41.0, time=-40.0, message=0)
    ) == [0, 0, 0]
    assert bench.flags(Row(40.0, time=20.0)) == [Flag.STEP]


def test_a_stuck_value_is_marked_after_its_time() -> None:
    """Air temperature that did not move for a day over many readings is doubtful; once it moves it is good again."""
    bench = Bench()
    flags = bench.flags(*(Row(20.0, time=(n - 30) * HOUR, received=(n - 30) * HOUR) for n in range(27)))
    assert [bool(flag & Flag.STUCK) for flag in flags] == [False] * 24 + [True] * 3
    readings, _ = bench.run(Row(20.0, time=0.0), Row(20.1, time=1.0))
    assert [Flag(int(flag)) for flag in readings.flags] == [Flag.STUCK, Flag(0)]
    assert readings.quality.tolist() == [Quality.UNCERTAIN_STUCK, Quality.GOOD]


def test_few_readings_are_not_stuck() -> None:
    """Two equal readings a day apart prove nothing."""
    rows = [Row(20.0, time=(n - 5) * 24 * HOUR, received=(n - 5) * 24 * HOUR) for n in range(STUCK_READINGS - 1)]
    assert not any(flag & Flag.STUCK for flag in Bench().flags(*rows))


def test_what_rests_by_nature_is_never_stuck() -> None:
    """A meter that does not count and a lamp that stays on are no faults."""
    rows = [Row(5.0, KWH, time=(n - 100) * HOUR, received=(n - 100) * HOUR) for n in range(90)]
    assert not any(flag & Flag.STUCK for flag in Bench().flags(*rows))


class Known(msgspec.Struct):
    """What the model knows of a series: its newest reading, and since when and how often it is alike."""

    time: int
    value: float
    since: int
    alike: int


STEP, GAP, STUCK = 10.0, 180 * 1_000_000, 24 * 3600 * 1_000_000


def judge(known: Known | None, rows: list[tuple[int, float]]) -> tuple[list[Flag], Known]:
    """Judge the rows of one series of one batch, in order of time; the rules of `checks` in plain words."""
    flags, last = [], None
    for time, value in rows:
        neighbour = last
        if known is not None and (last is None or last.time < known.time <= time):
            neighbour = known
        flag = Flag(0)
        if neighbour is None or time < neighbour.time:
            now = Known(time, value, time, 1)
        else:
            apart = time - neighbour.time
            if 0 < apart <= GAP and abs(value - neighbour.value) > STEP:
                flag |= Flag.STEP
            alike = value == neighbour.value
            now = Known(time, value, neighbour.since, neighbour.alike + 1) if alike else Known(time, value, time, 1)
            if time - now.since >= STUCK and now.alike >= STUCK_READINGS:
                flag |= Flag.STUCK
        flags.append(flag)
        last = now
    assert last is not None
    return flags, last if known is None or last.time > known.time else known


MINUTES = st.integers(-40 * 60, 0).map(lambda minute: minute * 60.0)
BATCHES = st.lists(
    st.lists(
        st.builds(
            Row,
            value=st.sampled_from([15.0, 20.0, 20.0, 20.0, 29.0, 31.0]),
            spec=st.sampled_from([0, 1]),
            device=st.integers(0, 1),
            time=st.one_of(MINUTES, MINUTES, st.sampled_from([-180.0, -120.0, -60.0, 0.0])),
        ),
        min_size=1,
        max_size=12,
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=settings().max_examples * 6)
@given(BATCHES)
def test_columns_are_judged_as_the_plain_model_does(batches: list[list[Row]]) -> None:
    """In whatever order times come, numpy marks exactly what the rules in plain words mark."""
    bench = Bench()
    known: dict[tuple[int, int], Known] = {}
    for rows in batches:
        got = [flag & (Flag.STEP | Flag.STUCK) for flag in bench.flags(*rows)]
        wanted = [Flag(0)] * len(rows)
        for key in {(row.device, row.spec) for row in rows}:
            places = [n for n, row in enumerate(rows) if (row.device, row.spec) == key]
            places.sort(key=lambda n: rows[n].time)
            series = [(NOW + round(rows[n].time * 1e6), float(rows[n].value)) for n in places]
            flags, known[key] = judge(known.get(key), series)
            for place, flag in zip(places, flags, strict=True):
                wanted[place] = flag
        assert got == wanted


@given(st.lists(st.lists(MINUTES, min_size=1, max_size=20).map(sorted), min_size=1, max_size=4))
def test_a_resting_series_is_stuck_as_the_model_says(batches: list[list[float]]) -> None:
    """A value that never moves: the mark comes and stays exactly when the model says so."""
    bench, known = Bench(), None
    for times in batches:
        got = [flag & Flag.STUCK for flag in bench.flags(*(Row(20.0, time=time) for time in times))]
        wanted, known = judge(known, [(NOW + round(time * 1e6), 20.0) for time in times])
        assert got == [flag & Flag.STUCK for flag in wanted]


def test_the_past_costs_little() -> None:
    """At most 64 bytes a series with the numbering, at a hundred thousand series."""
    bench = Bench([Spec(profile="t/t@1", name="t", property="air_temperature")])
    count = 100_000
    column = np.arange(count, dtype=np.int32)
    time = np.full(count, NOW, np.int64)
    fields = Fields(
        message=column,
        device=column,
        spec=np.zeros(count, np.int32),
        value=np.full(count, 20.0),
        text={},
        time=time,
        time_quality=np.zeros(count, np.uint8),
        key=time,
        path=np.zeros(count, np.uint16),
    )
    bench.normaliser.normalise(fields, time)
    assert (bench.normaliser._history.nbytes + bench.series.nbytes) / count <= 64


@pytest.mark.parametrize(("value", "quality"), [(20.0, 0), (51.0, Quality.UNCERTAIN_RANGE), (71.0, Quality.BAD_RANGE)])
def test_range_limits(value: float, quality: int) -> None:
    """Limits themselves are in range."""
    assert Bench().run(Row(value))[0].quality.tolist() == [quality]
    assert Bench().run(Row(50.0), Row(-20.0, device=1))[0].quality.tolist() == [0, 0]
