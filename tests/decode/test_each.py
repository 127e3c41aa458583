"""Elements: lists in lists, members of objects, and what stands around an element."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.examples import readings_of
from sensegate.decode import Decoder
from sensegate.errors import ProfileError
from sensegate.model import Fields, Message
from tests.decode.decoding import same
from tests.support.profiles import Make

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
    readings = readings_of(fields, specs, names)
    channels = [specs[int(spec)].channel for spec in fields.spec]
    return fields, [
        (item.property, channel, item.value, item.time // 1_000_000)
        for item, channel in zip(readings, channels, strict=True)
    ]


def test_lists_in_lists_see_what_is_around_them(make: Make) -> None:
    """Each probe of each station is an element; its station gives the time and the channel, the site the number."""
    _, records = rows(make(NESTED), TREE)
    assert records == [
        ("air_temperature", "north", 1.5, 1767225600),
        ("air_temperature", "north", 2.5, 1767225600),
        ("relative_humidity", "", 40.0, 1767225600),
        ("air_temperature", "south", 3.5, 1767225660),
    ]


def test_a_reading_for_a_word_around_it_is_left_out_elsewhere(make: Make) -> None:
    """A station that the profile does not name gives no reading of that rule (the negative control)."""
    tree = {"site": {"n": 1, "stations": [{"name": "west", "at": 1767225600, "probes": [{"t": 9, "h": 1}]}]}}
    _, records = rows(make(NESTED), tree)
    assert [reading[0] for reading in records] == ["relative_humidity"]


def test_nested_elements_by_plan_are_those_one_by_one(make: Make) -> None:
    """The quick path gives the same rows, also where a list is of another length now and then."""
    machine = make(NESTED)
    other = {"site": {"n": 8, "stations": [{"name": "south", "at": 1767225601, "probes": [{"t": 5}]}]}}
    messages = [
        Message("x/d1", json.dumps(tree).encode(), 1_767_225_600_000_000, 1)
        for tree in [TREE] * 40 + [other] * 40 + [TREE] * 10
    ]
    machine.decode(messages)
    same(machine.decode(messages), machine.decode_row_by_row(messages))
    assert machine.plans.plans


def test_members_of_objects_within_lists(make: Make) -> None:
    """`.*` at the end is every member of an object; the key of the element around is `^@key`."""
    machine = make("""
  - topics: ["x/{device}"]
    each: floors.*.rooms.*
    readings:
      - {field: t, property: air_temperature, channels: [f1, f2], where: {^@key: "{channel}"}}
""")
    _, records = rows(
        machine, {"floors": {"f1": {"rooms": {"a": {"t": 20}}}, "f2": {"rooms": {"a": {"t": 21}, "b": {"t": 22}}}}}
    )
    assert [(reading[1], reading[2]) for reading in records] == [("f1", 20.0), ("f2", 21.0), ("f2", 22.0)]


def test_every_member_is_for_each_only(make: Make) -> None:
    """A path of a reading names one place."""
    with pytest.raises(ProfileError, match="is allowed in `each` only"):
        make("""
  - topics: ["x/{device}"]
    readings:
      - {field: a.*.b, property: air_temperature}
""")


SEVERAL = """
  - topics: ["x/{device}"]
    time: {fields: [at, $.at], format: epoch_s}
    readings:
      - {field: uptime, property: uptime}
      - {each: relays, field: "on", property: switched_on, channels: ["0", "1"], where: {n: "{channel}"}}
      - {each: meters, field: w, property: active_power}
      - {each: samples.*.t, field: ".", property: air_temperature}
"""


def test_several_lists_in_one_message(make: Make) -> None:
    """A reading may have a list of its own; its time is its element's, or the message's."""
    tree = {
        "at": 1767225600,
        "uptime": 5,
        "relays": [{"n": "0", "on": True}, {"n": "1", "on": False}],
        "meters": [{"w": 7, "at": 1767225601}, {"w": 8, "at": 1767225602}],
        "samples": [{"t": [1, 2]}, {"t": [3]}],
    }
    _, records = rows(make(SEVERAL), tree)
    assert records == [
        ("uptime", "", 5.0, 1767225600),
        ("switched_on", "0", True, 1767225600),
        ("switched_on", "1", False, 1767225600),
        ("active_power", "", 7.0, 1767225601),
        ("active_power", "", 8.0, 1767225602),
        ("air_temperature", "", 1.0, 1767225600),
        ("air_temperature", "", 2.0, 1767225600),
        ("air_temperature", "", 3.0, 1767225600),
    ]


def test_several_lists_by_plan_are_those_one_by_one(make: Make) -> None:
    """The quick path, with lists of several lengths."""
    machine = make(SEVERAL)
    trees = [
        {"at": 1767225600 + at, "uptime": at, "relays": [{"n": "0", "on": True}], "meters": [{"w": at}] * (1 + at % 2)}
        for at in range(80)
    ]
    messages = [Message("x/d1", json.dumps(tree).encode(), 1_767_225_600_000_000, 1) for tree in trees]
    machine.decode(messages)
    same(machine.decode(messages), machine.decode_row_by_row(messages))
    assert machine.plans.plans


def test_a_list_is_for_readings_by_path_only(make: Make) -> None:
    """Elements that name themselves are distinguished by it."""
    with pytest.raises(ProfileError, match="distinguished by it"):
        make("""
  - topics: ["x/{device}"]
    each: .
    named: {name: n, value: [v]}
    readings:
      - {field: t, each: a, property: air_temperature}
""")
