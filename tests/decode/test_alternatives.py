"""Alternatives: one value as two readings, the first time that is one, the rule whose device's name is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from sensegate.decode import Decoder
from sensegate.decode.envelope import READERS
from sensegate.decode.layout.runtime import from_hex
from sensegate.decode.times import BAD, TimeReader
from sensegate.errors import ProfileError
from sensegate.model import Message, QuarantineReason
from sensegate.quantities.quality import TimeQuality
from tests.decode.decoding import NOW, all_values, run, values

Make = Callable[..., Decoder]
HEAD = '  - topics: ["acme/{device}"]\n'


def at(text: str) -> int:
    """Return a time as µs UTC."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def test_one_value_is_two_readings(make: Make) -> None:
    """A field may be named twice, for two properties or channels; the same reading twice is refused."""
    two = "      - {field: v, property: battery_voltage, unit: V}\n      - {field: v, property: voltage, unit: mV}\n"
    decoder = make(f"{HEAD}    readings:\n{two}")
    assert all_values(decoder, run(decoder, {"v": 3.5})) == [("v", 3.5), ("v", 3.5)]
    with pytest.raises(ProfileError, match="occurs twice"):
        make(f"{HEAD}    readings:\n{two}{two}")


TIMES = f"{HEAD}    time: {{fields: [t1, t2, t3]}}\n    readings: [{{field: a, property: air_temperature}}]\n"


@pytest.mark.parametrize(
    ("members", "time"),
    [
        ({"t1": "2026-01-01T01:00:00Z", "t2": "2026-01-01T02:00:00Z"}, "2026-01-01T01:00:00Z"),
        ({"t1": "never", "t2": "2026-01-01T02:00:00Z"}, "2026-01-01T02:00:00Z"),
        ({"t1": None, "t2": "", "t3": "2026-01-01T03:00:00Z"}, "2026-01-01T03:00:00Z"),
        ({"t1": {"no": 1}, "t2": "2026-01-01T02:00:00Z"}, "2026-01-01T02:00:00Z"),
        ({"t1": "never", "t2": "soon"}, ""),
    ],
)
def test_the_first_time_that_is_one_applies(make: Make, members: dict[str, object], time: str) -> None:
    """A member that is present and no time is passed over; only if none can be read the values are rejected."""
    fields = run(make(TIMES), {"a": 1, **members})
    assert {int(value) for value in fields.time} == ({at(time)} if time else set())
    assert len(fields.rejected) == (0 if time else 40)


def test_times_that_are_none_now_and_then(make: Make) -> None:
    """Messages of one shape, each dated by what can be read in it, by either path."""
    payloads = [
        {"a": 1, "t1": "2026-01-01T01:00:00Z", "t2": "2026-01-01T02:00:00Z"},
        {"a": 1, "t1": "never", "t2": "2026-01-01T02:00:00Z"},
    ]
    for order in (payloads, payloads[::-1]):
        fields = run(make(TIMES), *order)
        expected = [at(f"2026-01-01T0{2 if item['t1'] == 'never' else 1}:00:00Z") for item in order for _ in range(40)]
        assert fields.time.tolist() == expected


def test_a_missing_name_leaves_the_message_to_the_next_rule(make: Make) -> None:
    """A rule that finds no device's name is passed over; without another one its refusal is told."""
    rule = '  - topics: ["acme/{{gateway}}"]\n    device: {{field: {}}}\n    readings: [{{field: a, property: {}}}]\n'
    named, other = rule.format("id", "air_temperature"), rule.format("serial", "dew_point")
    decoder = make(named + other)
    for name in (None, "", {"x": 1}):
        fields = run(decoder, {"a": 1, "id": name, "serial": "d1"})
        assert values(decoder, fields) == {"a": 1.0}
        assert {decoder.profiles.specs[spec].property for spec in fields.spec} == {"dew_point"}
    fields = make(named).decode([Message("acme/d1", b'{"a":1}', NOW, 1)])
    assert [(refused.reason, "name is missing" in refused.detail) for refused in fields.quarantined] == [
        (QuarantineReason.SCHEMA, True)
    ]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-01-01T00:00:00Z/2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("2026-01-01T00:00:00Z/PT1H", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("PT90M/2026-01-01T01:30:00Z", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ("2026-01-01T08:00:00+08:00/P1DT0.5S", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00.5Z"),
        ("2026-01-01T08:00+08:00/09:00", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("2026-01-01T08:00:00/02T08:00:00", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("2026-01-01T00:00:00Z/P2W", "2026-01-01T00:00:00Z", "2026-01-15T00:00:00Z"),
    ],
)
def test_an_interval_is_one_of_its_ends(text: str, start: str, end: str) -> None:
    """`interval` says which end of an ISO 8601 interval is the time; the end, unless it says so."""
    for key, expected in (("start", start), ("end", end)):
        assert TimeReader(interval=key).parse(text, NOW)[0] == at(expected)
    assert TimeReader().parse(text, NOW)[0] == at(end)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00Z/", "/2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z/2026-01-01T00:00:00Z", "PT1H/PT1H", "/",
        "2026-01-01T00:00:00Z/P", "2026-01-01T00:00:00Z/PT", "2026-01-01T00:00:00Z/P1Y", "a/b",
        "2026-01-01T00:00:00Z/PT1H/PT1H",
    ],
)  # fmt: skip
def test_what_is_no_interval_is_no_time(text: str) -> None:
    """Half an interval, one that ends before it starts, calendar years."""
    assert TimeReader().parse(text, NOW) == (BAD, TimeQuality.RECEIVED)


@pytest.mark.parametrize("text", ["0xCE29", "0Xce29", " 0xce 29", "ce29"])
def test_hexadecimal_text_may_begin_with_0x(text: str) -> None:
    """In an envelope and as the whole payload."""
    assert READERS["hex"](text) == from_hex(text.encode()) == b"\xce\x29"
