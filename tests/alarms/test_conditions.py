"""Conditions over readings: hysteresis, duration, change, gap; late data and readings without trust open nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from sensegate.alarms.conditions import ReadingConditions
from sensegate.alarms.records import Alarm, AlarmKey
from sensegate.alarms.rules import AlarmKind, AlarmRule, check_rule
from sensegate.authority.scope import Scope
from sensegate.errors import ConfigError
from sensegate.quantities.quality import Flag, Quality
from tests.share.made import DEVICES, NOW, make_batch

RULE = AlarmRule(name="r", kind=AlarmKind.THRESHOLD, property="pm2_5", above=75.0, margin=10.0)


class Judge:
    """Conditions with one rule, and the alarms that they opened."""

    def __init__(self, rule: AlarmRule) -> None:
        self.alarms: dict[AlarmKey, Alarm] = {}
        self.conditions = ReadingConditions(self.alarms.get, lambda _device, _profile: 60.0)
        self.conditions.use([rule], [])
        self.entry = 0

    def judge(self, value: float | str, second: float, *, device: int = 0, name: str = "pm2_5", **more: Any) -> str:
        """Judge one reading; return ``opens``, ``closes`` or nothing."""
        self.entry += 1
        late_s = more.pop("late_s", 0.0)
        batch = make_batch([(device, name, value)], start=NOW + round(second * 1e6))
        batch = msgspec.structs.replace(batch, received=batch.time + round(late_s * 1e6), **more)
        result = self.conditions.judge(batch, self.entry)
        assert len(result) <= 1
        return "" if not result else "opens" if result[0].opens else "closes"


def judged(rule: AlarmRule, *readings: tuple[float | str, float], **more: Any) -> list[str]:
    """Return what each of some readings (value, second) does."""
    judge = Judge(rule)
    return [judge.judge(value, second, **more) for value, second in readings]


def test_a_threshold_closes_by_hysteresis() -> None:
    """A value that trembles at the limit opens one alarm; it closes below the limit minus the margin."""
    values = [70.0, 76.0, 74.0, 76.0, 66.0, 65.0, 64.0, 76.0]
    assert judged(RULE, *((value, second) for second, value in enumerate(values))) == [
        "", "opens", "", "", "", "closes", "", "opens",
    ]  # fmt: skip


def test_without_a_margin_each_crossing_is_an_alarm() -> None:
    """Control: it is the margin that keeps the alarm open."""
    rule = msgspec.structs.replace(RULE, margin=0.0)
    values = [76.0, 74.0, 76.0, 74.0]
    assert judged(rule, *((value, second) for second, value in enumerate(values))) == [
        "opens", "closes", "opens", "closes",
    ]  # fmt: skip


def test_a_value_must_be_out_for_long_enough() -> None:
    """One that comes back in between begins anew."""
    rule = msgspec.structs.replace(RULE, for_s=60.0)
    readings = [(80.0, 0.0), (80.0, 50.0), (60.0, 55.0), (80.0, 70.0), (80.0, 129.0), (80.0, 130.0), (80.0, 140.0)]
    assert judged(rule, *readings) == ["", "", "", "", "", "opens", ""]


def test_words_and_booleans() -> None:
    """A state opens at its word and closes at any other."""
    rule = AlarmRule(name="r", kind=AlarmKind.THRESHOLD, property="door_state", equals="open")
    assert judged(rule, ("closed", 0), ("open", 1), ("open", 2), ("closed", 3), name="door_state") == [
        "", "opens", "", "closes",
    ]  # fmt: skip
    rule = AlarmRule(name="r", kind=AlarmKind.THRESHOLD, property="smoke", equals=True)
    assert judged(rule, (0.0, 0), (1.0, 1), (0.0, 2), name="smoke") == ["", "opens", "closes"]


def test_a_change_is_measured_between_consecutive_readings() -> None:
    """It closes with the next reading that is close to the one before; a reading that comes late is passed over."""
    rule = AlarmRule(name="r", kind=AlarmKind.CHANGE, property="pm2_5", by=5.0)
    readings = [(10.0, 0.0), (14.0, 10.0), (20.0, 20.0), (21.0, 30.0), (0.0, 5.0), (22.0, 40.0)]
    assert judged(rule, *readings) == ["", "", "opens", "closes", "", ""]


def test_a_gap_is_longer_than_three_intervals() -> None:
    """The device reports every minute."""
    rule = AlarmRule(name="r", kind=AlarmKind.GAP, property="pm2_5")
    assert judged(rule, (1.0, 0.0), (1.0, 60.0), (1.0, 241.0), (1.0, 301.0)) == ["", "", "opens", "closes"]


@pytest.mark.parametrize(
    "more",
    [
        {"late_s": 3_601.0},
        {"quality": np.array([Quality.BAD_SENSOR], np.uint8)},
        {"flags": np.array([Flag.FUTURE], np.uint32)},
        {"flags": np.array([Flag.STALE], np.uint32)},
        {"flags": np.array([Flag.REDECODED], np.uint32)},
    ],
)
def test_what_is_old_or_bad_opens_nothing(more: dict[str, Any]) -> None:
    """A backlog is of the past; a bad value is no evidence."""
    assert judged(RULE, (80.0, 0.0), **more) == [""]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 4),
        ({"place": Scope("440106")}, 3),
        ({"place": Scope("44", "police")}, 1),
        ({"domain": "safety"}, 1),
        ({"device": DEVICES[1].device}, 1),
        ({"profile": "acme/th10"}, 4),
        ({"profile": "acme/other"}, 0),
        ({"channel": ""}, 3),
        ({"channel": "b"}, 1),
    ],
)
def test_a_rule_is_for_a_place_a_profile_a_device_a_channel(changes: dict[str, Any], expected: int) -> None:
    """Each row of an entry is judged for itself."""
    judge = Judge(msgspec.structs.replace(RULE, **changes))
    rows: list[tuple[int, str, float | str]] = [(0, "pm2_5", 80.0), (1, "pm2_5", 80.0), (2, "pm2_5", 80.0)]
    rows += [(3, "pm2_5#b", 80.0), (0, "pm10", 99.0)]
    assert len(judge.conditions.judge(make_batch(rows), 1)) == expected


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"above": None}, "above"),
        ({"below": 80.0}, "above"),
        ({"property": "pm25"}, "property"),
        ({"margin": -1.0}, "margin"),
        ({"for_s": 1e9}, "for_s"),
        ({"kind": AlarmKind.CHANGE}, "by"),
        ({"kind": AlarmKind.QUALITY}, "indicator"),
        ({"kind": AlarmKind.QUALITY, "indicator": "accuracy"}, "below"),
        ({"kind": AlarmKind.DISK, "above": None}, "above"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_its_key(changes: dict[str, Any], key: str) -> None:
    """With the remedy."""
    with pytest.raises(ConfigError) as error:
        check_rule(msgspec.structs.replace(RULE, **changes))
    assert error.value.key == key
