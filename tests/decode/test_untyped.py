"""Elements that say what they are, times of several members, and values that come as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sensegate.authoring.examples import parse_micros
from sensegate.decode import Decoder
from sensegate.errors import ProfileError
from sensegate.model import IdentityKind, Message, RejectReason
from sensegate.quantities.quality import TimeQuality
from tests.decode.decoding import NOW, all_values, run, same, values

Make = Callable[..., Decoder]
HEAD = '  - topics: ["acme/{device}"]\n'


def messages(*payloads: Any) -> list[Message]:
    """Return messages of JSON, forty of each."""
    return [Message("acme/d1", json.dumps(payload).encode(), NOW, 1) for payload in payloads for _ in range(40)]


# ── where, of a reading ──────────────────────────────────────────────────────────────────────────────

POINTS = (
    HEAD + "    each: .\n    readings:\n"
    "      - {field: v, where: {m: temp}, property: air_temperature}\n"
    "      - {field: v, where: {m: [hum, rh]}, property: relative_humidity}\n"
    "      - {field: v, where: {m: power, t.phase: '{channel}'}, channels: [a, b], property: active_power}\n"
)


def test_a_reading_holds_only_in_elements_that_meet_it(make: Make) -> None:
    """One field means what the element says it means; elements that nobody described hold nothing."""
    decoder = make(POINTS)
    message = [
        {"m": "temp", "v": 21.5},
        {"m": "rh", "v": 60},
        {"m": "power", "t": {"phase": "b"}, "v": 5},
        {"m": "power", "t": {"phase": "c"}, "v": 6},
        {"m": "power", "v": 7},
        {"m": "temp", "v": 22.5},
    ]
    assert sorted(all_values(decoder, run(decoder, message))) == [
        ("v[m=hum|rh]", 60.0),
        ("v[m=power][t.phase=b]", 5.0),
        ("v[m=temp]", 21.5),
        ("v[m=temp]", 22.5),
    ]
    assert {spec.channel for spec in decoder.profiles.specs if spec.property == "active_power"} == {"a", "b"}


def test_what_decides_is_part_of_the_shape(make: Make) -> None:
    """A plan learned from one kind of element is not used for another of the same form."""
    decoder = make(POINTS)
    batch = messages([{"m": "temp", "v": 1}], [{"m": "hum", "v": 2}], [{"m": "none", "v": 3}])
    decoder.decode(batch)
    fields = decoder.decode(batch)
    same(fields, decoder.decode_row_by_row(batch))
    assert decoder.plans.plans
    assert [decoder.profiles.specs[spec].property for spec in fields.spec[[0, 40]]] == [
        "air_temperature",
        "relative_humidity",
    ]


@pytest.mark.parametrize(
    ("readings", "error"),
    [
        ("      - {field: v, where: {m: a}, property: state}\n" * 2, r"readings\[1\]: 'v\[m=a\]' occurs twice"),
        ("      - {field: v, where: {m: '{channel}'}, property: state}\n", "{channel} and `channels` belong together"),
    ],
)
def test_conditions_must_tell_readings_apart(make: Make, readings: str, error: str) -> None:
    """Two readings of one field and one condition are one too many."""
    with pytest.raises(ProfileError, match=error):
        make(HEAD + "    readings:\n" + readings)


# ── times ────────────────────────────────────────────────────────────────────────────────────────────

TIMED = "    readings:\n      - {field: t, property: air_temperature}\n"


def test_a_time_is_joined_of_several_members(make: Make) -> None:
    """Numbers and text, in the order of `join`, by blanks; both paths agree."""
    decoder = make(HEAD + '    time: {join: [year, month, day, hour], format: "%Y %m %d %H"}\n' + TIMED)
    payloads = [
        {"year": 2016, "month": 2, "day": 29, "hour": 7, "t": 1},
        {"year": "2016", "month": "03", "day": "1", "hour": "23", "t": 1},
        {"year": 2016, "month": 13, "day": 1, "hour": 0, "t": 1},
        {"year": 2016, "month": 1, "day": 1, "hour": None, "t": 1},
        {"year": 2016, "month": 1, "day": 1, "t": 1},
        {"year": True, "month": 1, "day": 1, "hour": 1, "t": 1},
        {"year": [2016], "month": 1, "day": 1, "hour": 1, "t": 1},
    ]
    batch = messages(*payloads)
    decoder.decode(batch)
    fields = decoder.decode(batch)
    same(fields, decoder.decode_row_by_row(batch))
    assert decoder.plans.plans
    assert fields.time[[0, 40, 80, 120]].tolist() == [
        parse_micros("2016-02-29T07:00:00+08:00"),
        parse_micros("2016-03-01T23:00:00+08:00"),
        NOW,
        NOW,
    ]
    assert {value.reason for value in fields.rejected} == {RejectReason.BAD_TIME}
    assert {value.message // 40 for value in fields.rejected} == {2, 5, 6}


def test_date_and_time_of_day(make: Make) -> None:
    """Two members joined are ISO 8601 with a blank."""
    decoder = make(HEAD + "    time: {join: [date, time]}\n" + TIMED)
    fields = run(decoder, {"date": "2026-01-01", "time": "08:00:00", "t": 1})
    assert fields.time[0] == parse_micros("2026-01-01T00:00:00Z")
    assert fields.time_quality[0] == TimeQuality.ASSUMED_ZONE


@pytest.mark.parametrize("part", ["", ", stamp: start, period_s: 3600"])
def test_a_clock_that_is_not_set_means_the_arrival(make: Make, part: str) -> None:
    """Such a time identifies nothing, even where times are shifted."""
    decoder = make(
        HEAD + f"    time: {{field: ts, format: epoch_s, missing: [0, now]{part}}}\n    sequence: n\n" + TIMED
    )
    batch = messages(*({"ts": ts, "n": 5, "t": 1} for ts in (0, "0", "now", 1_767_225_000, False)))
    decoder.decode(batch)
    fields = decoder.decode(batch)
    same(fields, decoder.decode_row_by_row(batch))
    shift = 3_600_000_000 if part else 0
    assert fields.time[[0, 40, 80, 120]].tolist() == [NOW, NOW, NOW, 1_767_225_000_000_000 + shift]
    kinds = [decoder.profiles.specs[spec].identity for spec in fields.spec[[0, 40, 80, 120]]]
    assert kinds == [IdentityKind.SEQUENCE] * 3 + [IdentityKind.TIME]
    assert {value.message // 40 for value in fields.rejected} == {4}


@pytest.mark.parametrize(
    ("time", "error"),
    [("{join: [a, b], field: c}", r"messages\[0\]\.time\.join: give `join` or `field`"), ("{missing: [0]}", "no path")],
)
def test_a_time_is_joined_or_found(make: Make, time: str, error: str) -> None:
    """Both at once mean nothing."""
    with pytest.raises(ProfileError, match=error):
        make(HEAD + f"    time: {time}\n" + TIMED)


# ── values that come as text ─────────────────────────────────────────────────────────────────────────


def test_text_is_what_the_property_says(make: Make) -> None:
    """In CSV a number is a number, a boolean a boolean, and a version stays text; sentinels count by their value."""
    decoder = make(
        HEAD + "    csv: {}\n    each: .\n    where: {'[0].kind': 3}\n    readings:\n"
        "      - {field: t, property: air_temperature, missing: [-9999]}\n"
        "      - {field: h, property: relative_humidity, missing: [NA]}\n"
        "      - {field: wet, property: water_leak}\n"
        "      - {field: open, property: cover_open, words: {0: false, 1: true, x: true}}\n"
        "      - {field: fw, property: firmware}\n"
        "      - {field: wd, property: wind_direction, words: {N: 0, NE: 45}}\n"
    )
    text = "kind,t,h,wet,open,fw,wd\n3,21.5,60,true,1,1.10,NE\n3,-9999.0,NA,0,x,2,N\n"
    fields = run(decoder, text.encode())
    rows = all_values(decoder, fields)
    assert [row for row in rows if row[0] != "fw"] == [
        ("t", 21.5), ("h", 60.0), ("wet", 1.0), ("open", 1.0), ("wd", 45.0),
        ("wet", 0.0), ("open", 1.0), ("wd", 0.0),
    ]  # fmt: skip
    assert [fields.text[row] for row in sorted(fields.text)][:2] == ["1.10", "2"]
    assert fields.ignored == 80
    bad = run(decoder, b"kind,t,h,wet,open,fw,wd\n3,warm,nan,maybe,2,,SW\n")
    assert {value.field: value.reason for value in bad.rejected} == {
        "t": RejectReason.WRONG_TYPE,
        "h": RejectReason.NOT_FINITE,
        "wet": RejectReason.WRONG_TYPE,
        "open": RejectReason.ENUMERATION,
        "wd": RejectReason.ENUMERATION,
    }
    assert run(decoder, b"kind,t\n4,21\n").quarantined


def test_numbers_in_text_where_json_has_them(make: Make) -> None:
    """Asked for, JSON's text is read so too; not asked for, it is of the wrong type."""
    decoder = make(
        HEAD + "    readings:\n      - {field: a, property: air_temperature, text_numbers: true, missing: [-999]}\n"
        "      - {field: b, property: air_temperature, channel: b}\n"
    )
    assert values(decoder, run(decoder, {"a": "21.5"})) == {"a": 21.5}
    fields = run(decoder, {"a": "-999.0", "b": "1"})
    assert fields.ignored == 40
    assert {value.reason for value in fields.rejected} == {RejectReason.WRONG_TYPE}
