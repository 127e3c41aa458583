"""Elements: lists in lists, members of objects, and what stands around an element."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.decode import Decoder
from sensegate.decode.examples import readings_of
from sensegate.errors import ProfileError
from sensegate.model import Fields, Message
from tests.decode.conftest import Make
from tests.decode.test_decode import same

NESTED = """
  - topics: ["x/{device}"]
    root: site
    each: stations.*.probes
    time: {field: ^.at, format: epoch_s}
    sequence: ^^.n
    readings:
      - {field: t, property: air_temperature, channels: [north, south], where: {^.name: "{channel}"}}
      - {field: h, property: relative_humidity}
"""
TREE = {
    "site": {
        "n": 7,
        "stations": [
            {"name": "north", "at": 1767225600, "probes": [{"t": 1.5}, {"t": 2.5, "h": 40}]},
            {"name": "south", "at": 1767225660, "probes": [{"t": 3.5}]},
            {"name": "empty", "at": 1767225660, "probes": []},
            {"name": "without", "at": 1767225660},
            None,
        ],
    }
}


def rows(machine: Decoder, tree: Any, names: tuple[str, ...] = ("d1",)) -> tuple[Fields, list[tuple[Any, ...]]]:
    fields = machine.decode([Message("x/d1", json.dumps(tree).encode(), 1_767_225_600_000_000, 1)])
    specs = machine.profiles.specs
    seen = readings_of(fields, specs, names)
    channels = [specs[int(spec)].channel for spec in fields.spec]
    return fields, [
        (one.property, channel, one.value, one.time // 1_000_000) for one, channel in zip(seen, channels, strict=True)
    ]


def test_lists_in_lists_see_what_is_around_them(make: Make) -> None:
    """Each probe of each station is an element; its station gives the time and the channel, the site the number."""
    _, seen = rows(make(NESTED), TREE)
    assert seen == [
        ("air_temperature", "north", 1.5, 1767225600),
        ("air_temperature", "north", 2.5, 1767225600),
        ("relative_humidity", "", 40.0, 1767225600),
        ("air_temperature", "south", 3.5, 1767225660),
    ]


def test_a_reading_for_a_word_around_it_is_left_out_elsewhere(make: Make) -> None:
    """A station that the profile does not name gives no reading of that rule (the negative control)."""
    tree = {"site": {"n": 1, "stations": [{"name": "west", "at": 1767225600, "probes": [{"t": 9, "h": 1}]}]}}
    _, seen = rows(make(NESTED), tree)
    assert [one[0] for one in seen] == ["relative_humidity"]


def test_nested_elements_by_plan_are_those_one_by_one(make: Make) -> None:
    """The quick path gives the same rows, also where a list is of another length now and then."""
    machine = make(NESTED)
    other = {"site": {"n": 8, "stations": [{"name": "south", "at": 1767225601, "probes": [{"t": 5}]}]}}
    messages = [
        Message("x/d1", json.dumps(tree).encode(), 1_767_225_600_000_000, 1)
        for tree in [TREE] * 40 + [other] * 40 + [TREE] * 10
    ]
    machine.decode(messages)
    same(machine.decode(messages), machine.decode_slowly(messages))
    assert machine.plans.plans


def test_members_of_objects_within_lists(make: Make) -> None:
    """`.*` at the end is every member of an object; the key of the element around is `^@key`."""
    machine = make("""
  - topics: ["x/{device}"]
    each: floors.*.rooms.*
    readings:
      - {field: t, property: air_temperature, channels: [f1, f2], where: {^@key: "{channel}"}}
""")
    _, seen = rows(
        machine, {"floors": {"f1": {"rooms": {"a": {"t": 20}}}, "f2": {"rooms": {"a": {"t": 21}, "b": {"t": 22}}}}}
    )
    assert [(one[1], one[2]) for one in seen] == [("f1", 20.0), ("f2", 21.0), ("f2", 22.0)]


def test_every_member_is_for_each_only(make: Make) -> None:
    """A path of a reading names one place."""
    with pytest.raises(ProfileError, match="has its place in `each` only"):
        make("""
  - topics: ["x/{device}"]
    readings:
      - {field: a.*.b, property: air_temperature}
""")
