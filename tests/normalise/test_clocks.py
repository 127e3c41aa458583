"""Time: late, stale, future, and devices that are off by a time zone."""

from __future__ import annotations

import numpy as np
import pytest

from sensegate.config import TimeConfig
from sensegate.errors import ConfigError
from sensegate.model import I32
from sensegate.normalise.clocks import DeviceAgreement, TimeChecks
from sensegate.quantities.quality import Flag, Quality, TimeQuality
from tests.normalise.rows import NOW, Bench, Row, S

HOUR = 3600.0


def agreement_of(bench: Bench, now: int, gateway: I32) -> DeviceAgreement:
    """Return how far devices agree whose interval is not known, where no others are registered."""
    size = len(gateway)
    return bench.normaliser.clocks.agreement(now, gateway, np.zeros(size, np.bool_), np.zeros(size))


@pytest.mark.parametrize(
    ("time", "flags", "quality"),
    [
        (0.0, Flag(0), Quality.GOOD),
        (-300.0, Flag(0), Quality.GOOD),
        (-301.0, Flag.LATE, Quality.GOOD),
        (-24 * HOUR, Flag.LATE, Quality.GOOD),
        (-24 * HOUR - 1, Flag.LATE | Flag.STALE, Quality.GOOD),
        (300.0, Flag(0), Quality.GOOD),
        (301.0, Flag.FUTURE, Quality.UNCERTAIN_CLOCK),
        (365 * 24 * HOUR, Flag.FUTURE, Quality.UNCERTAIN_CLOCK),
    ],
)
def test_time_against_arrival(time: float, flags: Flag, quality: Quality) -> None:
    """Late and stale readings are good and marked; a reading from the future is uncertain and marked."""
    readings, rejected = Bench().run(Row(20.0, time=time, received=0), Row(20.0, device=1))
    assert not rejected
    assert readings.flags.tolist() == [flags, 0]
    assert readings.quality.tolist() == [quality, 0]


def test_a_time_zone_taken_for_another_is_recognised() -> None:
    """A device whose lag stays at eight hours for ten minutes is marked `clock`; the others are not."""
    bench = Bench()
    results = []
    for minute in range(15):
        arrival = minute * 60.0
        flags = bench.flags(
            Row(20.0, time=arrival - 8 * HOUR, received=arrival),
            Row(20.0, device=1, time=arrival, received=arrival),
        )
        results.append(bool(flags[0] & Flag.CLOCK))
        assert flags[0] & Flag.LATE
        assert flags[1] == 0
    assert results == [False] * 10 + [True] * 5
    assert bench.run(Row(20.0, time=900 - 8 * HOUR, received=900.0))[0].quality.tolist() == [Quality.UNCERTAIN_CLOCK]
    # Set right: no more marks, and the next shift has to prove itself anew.
    assert bench.flags(Row(20.0, time=960.0)) == [0]
    assert bench.flags(Row(20.0, time=1020 - 8 * HOUR, received=1020.0)) == [Flag.LATE]


def test_ahead_by_a_time_zone_is_recognised_too() -> None:
    """Local time sent as UTC is eight hours ahead: future at once, `clock` once it is steady."""
    bench = Bench()
    assert bench.flags(Row(20.0, time=8 * HOUR, received=0)) == [Flag.FUTURE]
    assert bench.flags(Row(20.0, time=8 * HOUR + 601, received=601)) == [Flag.FUTURE | Flag.CLOCK]


def test_a_backlog_that_passes_through_eight_hours_is_only_late() -> None:
    """Draining a night's backlog is no shift, though some readings are eight hours old."""
    bench = Bench()
    rows = [Row(20.0, time=-(9 - n / 60) * HOUR, received=n * 1.0) for n in range(9 * 60)]
    assert {int(flag) & int(Flag.CLOCK) for flag in bench.flags(*rows)} == {0}


def test_devices_agree_where_their_steady_lags_lie_together() -> None:
    """A device counts once it was steady for a minute; one with another lag is heard and does not agree."""
    bench = Bench()
    gateway = np.zeros(20, np.int32)
    for second in (0.0, 90.0):
        for device in range(5):
            bench.run(Row(20.0, device=device, time=second - 90.0 + device, received=second))
        bench.run(Row(20.0, device=5, time=1e6 + second, received=second))
        agreement = agreement_of(bench, NOW + round(second) * S, gateway)
        assert agreement == ((0, 6, 0.0) if not second else (5, 6, -88.0))
    assert bench.normaliser.clocks.device_lag(5) == -1e6
    assert bench.normaliser.clocks.device_lag(99) is None
    assert agreement_of(bench, NOW + 4_000 * S, gateway) == (0, 0, 0.0)


def test_devices_behind_one_gateway_are_one_witness() -> None:
    """A network server that delivers its queue late makes all its devices late by the same."""
    bench = Bench()
    for second in (0.0, 90.0):
        for device in range(9):
            bench.run(Row(20.0, device=device, time=second - 7_200.0, received=second))
    gateway = np.array([1] * 8 + [0], np.int32)
    assert agreement_of(bench, NOW + 90 * S, gateway)[:2] == (2, 2)
    assert agreement_of(bench, NOW + 90 * S, np.zeros(9, np.int32))[:2] == (9, 9)


def test_a_backlog_is_no_evidence() -> None:
    """A device whose lag shrinks while it sends what it has kept is never steady."""
    bench = Bench()
    for minute in range(30):
        bench.run(Row(20.0, time=-86_400.0 + minute * 3_000.0, received=minute * 60.0))
    assert agreement_of(bench, NOW + 1_740 * S, np.zeros(1, np.int32))[:2] == (0, 1)


def test_devices_without_a_clock_say_nothing_of_ours() -> None:
    """Where the time is that of arrival, the lag means nothing."""
    bench = Bench()
    for second in (0.0, 90.0):
        for device in range(9):
            bench.run(Row(20.0, device=device, time=second, time_quality=TimeQuality.RECEIVED))
    assert agreement_of(bench, NOW + 90 * S, np.zeros(9, np.int32)).heard == 0


@pytest.mark.parametrize("oldest", ["yesterday", "2000-01-01T00:00:00"])
def test_a_wrong_oldest_is_a_configuration_error(oldest: str) -> None:
    """The limit must be a time with a zone."""
    with pytest.raises(ConfigError, match=r"time\.oldest"):
        TimeChecks(TimeConfig(oldest=oldest))
