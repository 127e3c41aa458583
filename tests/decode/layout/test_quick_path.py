"""The quick path of layouts gives the rows of the general path, for any frames, to the last bit."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.paths import render
from sensegate.model import Fields, Message
from tests.decode.decoding import same
from tests.decode.layout.made import Made, frames, layout
from tests.support.profiles import Make

NOW = 1_767_225_600_000_000
MANY = settings().max_examples * 6 // 10
"""Each of these examples decodes some hundred messages."""

RULES = """
  - label: measurements
    topics: ["m/{device}"]
    binary: &layout
      endian: little
      read:
        - {name: kind, type: u8}
        - {name: n, type: u8}
        - switch: kind
          cases:
            1:
              - {name: at, type: u32}
              - {name: t, type: s16}
              - {name: h, type: u8}
              - {name: door, type: u8}
              - {name: p, type: f32}
              - {name: e, type: bcd16}
              - {when: n & 1, read: [{name: ratio, value: t / h}]}
            2:
              - repeat: n
                name: history
                read: [{name: t, type: s16}, {name: age, value: $index * 60}]
            3:
              - tlv: u8
                cases:
                  1: [{name: t, type: s16}]
                  2: [{name: h, type: u8}]
                  3: [{name: mode, type: ascii, size: 2}]
            4: [{name: raw, type: bytes, size: 2}]
    where: {kind: [1, 3, 4]}
    time: {field: at, format: epoch_s}
    sequence: n
    readings:
      - {field: t, property: air_temperature, scale: 0.1, missing: [-32768]}
      - {field: h, property: relative_humidity, missing: [255, 254]}
      - {field: door, property: door_open, words: {0: false, 1: true}}
      - {field: p, property: air_pressure}
      - {field: e, property: voltage, missing: ["ffff"]}
      - {field: ratio, property: illuminance}
      - {field: mode, property: state}
      - {field: "raw[0]", property: co2}
  - label: history
    topics: ["m/{device}"]
    binary: *layout
    where: {kind: 2}
    each: history
    time: {field: age, format: age_s}
    readings: [{field: t, property: air_temperature, scale: 0.1}]
"""


def some_frame(r: random.Random) -> bytes:
    """Return a frame of one of the kinds, whole or damaged."""
    kind, n = r.choice([1, 1, 1, 2, 3, 4, 5]), r.randrange(4)
    body = b""
    if kind == 1:
        nan = r.choice([1013.25] * 6 + [float("nan"), float("inf")])
        bcd = r.choice([b"\x21\x03", b"\xff\xff", b"\x0a\x00"])
        door = r.choice([0, 1, 1, 7])
        body = (
            struct.pack(
                "<IhBBf", NOW // 10**6 - r.randrange(9), r.choice([215, -32768]), r.choice([0, 60, 255]), door, nan
            )
            + bcd
        )
    elif kind == 2:
        body = b"".join(struct.pack("<h", r.randrange(-400, 400)) for _ in range(n))
    elif kind == 3:
        tags = r.sample([b"\x01\xd7\x00", b"\x02\x3c", b"\x03on", b"\x03\xff\xff", b"\x02\x3d"], r.randrange(1, 4))
        body = b"".join(tags)
    elif kind == 4:
        body = b"\x01\x02"
    frame = bytes([kind, n]) + body
    return r.choice([frame] * 8 + [frame[:-1], frame + b"\0", b""])


def check(machine: Decoder, messages: list[Message], rounds: int = 3) -> Fields:
    """Return the rows of the last round, each compared with the general path."""
    fields = machine.decode(messages)
    for _ in range(rounds):
        fields = machine.decode(messages)
        same(fields, machine.decode_row_by_row(messages))
    return fields


def test_mixed_frames_give_the_same_by_both_paths(make: Make) -> None:
    """Two rules over one layout, all branches, sentinels, words, NaN, wrong BCD, damage: equal, and mostly by plan."""
    r = random.Random(11)
    machine = make(RULES, *[f"d{at}" for at in range(7)])
    messages = [Message(f"m/d{at % 7}", some_frame(r), NOW + at, at) for at in range(3_000)]
    fields = check(machine, messages)
    assert machine.plans.count > 10
    assert len(fields) > 3_000
    assert {value.reason.value for value in fields.rejected} >= {"not_finite", "wrong_type", "enumeration"}
    assert {refusal.reason.value for refusal in fields.quarantined} >= {"malformed", "schema"}
    assert fields.ignored > 100


def test_rules_over_one_layout_share_its_parse(make: Make) -> None:
    """The layout of an anchor is compiled once, and a message is parsed once for all rules."""
    machine = make(RULES)
    rule, other = machine.profiles.find("acme/x").rules  # type: ignore[union-attr] # it was loaded
    assert rule.parse is other.parse


OTHERS = """
  - topics: ["m/{device}"]
    binary: {read: [{type: u8, equals: 1}, {name: t, type: u8}, {name: n, type: u8}]}
    where: {n: [0, 1, 2, 3]}
    readings: [{field: t, property: air_temperature}]
  - topics: ["m/{device}"]
    binary: {read: [{type: u8, equals: 2}, {name: h, type: u8}, {skip: 1}]}
    readings: [{field: h, property: relative_humidity}]
  - topics: ["m/{device}"]
    binary: {read: [{type: u8}, {name: c, type: u8}, {skip: 1}]}
    readings: [{field: c, property: co2}]
"""


def test_several_layouts_on_one_topic_each_have_plans(make: Make) -> None:
    """What one layout refuses the next may take; a frame that a layout takes, and its `where` does not, has no plan."""
    machine = make(OTHERS, "d1")
    messages = [Message("m/d1", bytes([1 + at % 4, at % 50, at % 5]), NOW + at, at) for at in range(400)]
    fields = check(machine, messages)
    assert len(fields) == 400
    # four by the value of `n`, one for the second layout, one for the third; n = 4 goes the general way
    assert machine.plans.count == 6


BETWEEN = """
  - topics: ["m/{device}"]
    binary: &first {read: [{name: k, type: u8}, {name: x, type: u8}]}
    where: {k: 1}
    readings: [{field: x, property: air_temperature}]
  - topics: ["m/{device}"]
    binary: {read: [{type: u8}, {name: h, type: u8, equals: [0, 1, 2, 3]}]}
    readings: [{field: h, property: relative_humidity}]
  - topics: ["m/{device}"]
    binary: *first
    readings: [{field: x, property: co2}]
"""


def test_another_layout_between_two_rules_of_one_is_asked(make: Make) -> None:
    """The last rule holds only where the layout before it refuses the frame: no plan says so."""
    machine = make(BETWEEN, "d1")
    messages = [Message("m/d1", bytes([1 + at % 2, at % 7]), NOW + at, at) for at in range(400)]
    fields = check(machine, messages)
    assert len(fields) == 400
    assert machine.plans.count == 1


def profile_of(made: Made, folder: Path) -> ProfileSet:
    """Return a profile with a reading for each scalar that a plan could take, as YAML would have it."""
    compiled = layout(read=made.steps)
    readings = []
    for index, pointer in enumerate(compiled.pointers(made.data, None)):
        property_ = ["air_temperature", "state", "door_open"][index % 3]
        readings.append({"field": render(pointer), "property": property_, "channel": f"c{index}"})
    rule = {"topics": ["m/{device}"], "binary": {"read": made.steps}, "readings": readings}
    text = {
        "profile": "acme/x",
        "version": 1,
        "label": {"zh": "x", "en": "x"},
        "source": "this test",
        "messages": [rule],
    }
    (folder / "acme").mkdir(exist_ok=True)
    (folder / "acme" / "x.yaml").write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
    return ProfileSet.load([folder])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one profile at a time."""
    return tmp_path_factory.mktemp("layouts")


@settings(max_examples=MANY)
@given(made=frames(), data=st.data())
def test_any_layout_gives_the_same_by_both_paths(made: Made, data: st.DataObject, folder: Path) -> None:
    """Frames of any layout, whole and changed, with numbers, words and texts read as everything."""
    if not layout(read=made.steps).pointers(made.data, None):
        return
    profiles = profile_of(made, folder)
    changed = [made.data] * 6
    for _ in range(6):
        some = data.draw(st.binary(min_size=1, max_size=4))
        at = data.draw(st.integers(0, len(made.data)))
        changed.append(made.data[:at] + some + made.data[at + len(some) :])
    machine = Decoder(profiles, NamedDevices(["d1"], "acme/x"))
    check(machine, [Message("m/d1", frame, NOW + index, index) for index, frame in enumerate(changed * 6)], rounds=1)


def test_the_tests_would_see_a_difference(make: Make) -> None:
    """Negative control: a plan that reads one value from its neighbour's place does not pass."""
    machine = make(RULES, "d1")
    messages = [Message("m/d1", bytes.fromhex("0300 01d700 023c"), NOW + at, at) for at in range(50)]
    machine.decode(messages)
    (reader,) = [known for known in machine.plans.readers._known.values() if known is not None]
    (plans,) = reader._deciding.values()
    (plan,) = plans[0].plans.values()
    assert plan._pure is not None
    plan._pure = plan._pure._replace(get=lambda values: (values[3], values[2]))
    fields = machine.decode(messages)
    with pytest.raises(AssertionError):
        same(fields, machine.decode_row_by_row(messages))
