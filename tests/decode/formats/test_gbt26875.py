"""GB/T 26875.3 as a format: objects, states, times.

The frames with dates of 2012 are worked examples of a public description of the standard; their sums were made there.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.gbt26875 import COMPONENT_STATES, OBJECTS, SYSTEM_STATES, parse
from sensegate.errors import Rejected
from sensegate.frames import gbt26875
from sensegate.model import QuarantineReason
from tests.frames.made import TIME, fire

AT = "2012-09-26T09:58:02"
UP = "40 40 01 00 01 01 20 3A 09 1A 09 0C 79 03 00 00 00 00 38 5B 01 00 00 00 "
"""Device 0379 to centre 15B38."""


def refusal(frame: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse(frame)
    return caught.value


def example(text: str) -> Any:
    return parse(bytes.fromhex(text))


def test_a_smoke_detector_reports_fire() -> None:
    """System 1 of the fire alarm, smoke detector (40), zone 10, place 2: fire."""
    tree = example(UP + "30 00 02 02 01 01 01 28 0A 00 02 00 02 00" + " 20" * 30 + " 00 02 3A 09 1A 09 0C 46 23 23")
    assert (tree["source"], tree["target"], tree["command"], tree["type"]) == ("000000000379", "000000015B38", 2, 2)
    (element,) = tree["objects"]
    assert element["device"] == "000000000379-1-1-10-2"
    assert (element["kind"], element["component_type"], element["time"], element["text"]) == ("component", 40, AT, "")
    assert element["state"] == dict.fromkeys(COMPONENT_STATES, False) | {"fire": True}


def test_the_transmission_device_has_lost_the_mains() -> None:
    """Type 21, bit 3."""
    tree = example(UP + "09 00 02 15 01 08 02 3A 09 1A 09 0C 42 23 23")
    (element,) = tree["objects"]
    assert (element["device"], element["kind"], element["time"]) == ("000000000379", "device", AT)
    assert [name for name, on in element["state"].items() if on] == ["mains_fault"]


def test_the_guard_answers() -> None:
    """Type 24, bit 5: the answer to the centre's question whether someone is there."""
    tree = example(UP + "0A 00 02 18 01 20 01 02 3A 09 1A 09 0C 5F 23 23")
    (element,) = tree["objects"]
    assert [name for name, on in element["operation"].items() if on] == ["answered"]
    assert (element["operator"], element["time"]) == (1, AT)


def test_version_and_clock() -> None:
    """Types 25 and 28."""
    version = example(UP + "04 00 02 19 01 01 01 C7 23 23")
    assert version["objects"][0]["text"] == "1.1"
    clock = example(UP + "08 00 02 1C 01 02 3A 09 1A 09 0C 40 23 23")
    assert clock["objects"][0]["time"] == AT


def test_questions_of_a_centre_hold_no_objects() -> None:
    """What a centre sends down is told by its type; nothing of ours is in it."""
    tree = example("40 40 01 00 01 01 20 3A 09 1A 09 0C 38 5B 01 00 00 00 79 03 00 00 00 00 03 00 04 51 01 00 FE 23 23")
    assert (tree["command"], tree["type"], tree["objects"]) == (4, 0x51, [])


def test_confirmations_and_heartbeats_are_empty() -> None:
    """No data unit at all."""
    tree = example("40 40 01 00 01 01 23 3A 09 1A 09 0C 38 5B 01 00 00 00 79 03 00 00 00 00 00 00 03 AB 23 23")
    assert (tree["command"], tree["type"], tree["objects"]) == (3, None, [])


def test_states_of_systems() -> None:
    """Type 1: every bit by its name, several objects in a frame."""
    objects = [bytes([1, number]) + (1 << number).to_bytes(2, "little") + TIME for number in range(14)]
    result = parse(fire(1, objects))["objects"]
    assert [item["device"] for item in result] == [f"000000000379-1-{number}" for number in range(14)]
    assert [[name for name, on in item["state"].items() if on] for item in result] == [[name] for name in SYSTEM_STATES]


@pytest.mark.parametrize(
    ("number", "raw", "name", "unit", "value"),
    [
        (1, 7, "count", "1", 7),
        (2, 325, "height", "m", 3.25),
        (3, -15, "temperature", "Cel", -1.5),
        (4, 3, "pressure_mpa", "MPa", 0.3),
        (5, 3501, "pressure", "kPa", 350.1),
        (6, 200, "gas", "%", 20.0),
        (8, 2205, "voltage", "V", 220.5),
        (9, 33, "current", "A", 3.3),
        (10, 151, "flow", "L/s", 15.1),
        (12, 3, "air_speed", "m/s", 3),
        (200, 5, "type_200", "1", 5),
    ],
)
def test_analogue_values(number: int, raw: int, name: str, unit: str, value: float) -> None:
    """Type 3: signed, low byte first, in the steps of table 7."""
    head = bytes([11, 1, 91]) + (3).to_bytes(2, "little") + (4).to_bytes(2, "little")
    sent = head + bytes([number]) + raw.to_bytes(2, "little", signed=True) + TIME
    (result,) = parse(fire(3, [sent]))["objects"]
    assert (result["analogue"], result["unit"], result["value"]) == (name, unit, value)
    assert result["device"] == "000000000379-11-1-3-4"


def test_texts_are_gb_18030() -> None:
    """A component's description, filled up with zeros."""
    text = "三楼走廊".encode("gb18030").ljust(31, b"\0")
    sent = bytes([1, 1, 40, 10, 0, 2, 0]) + (3).to_bytes(2, "little") + text + TIME
    assert parse(fire(2, [sent]))["objects"][0]["text"] == "三楼走廊"


def test_a_wrong_sum_is_refused_by_its_own_reason() -> None:
    """Whatever byte of the frame is wrong."""
    frame = bytearray(fire(21, [b"\x08" + TIME]))
    for at in (2, 6, 12, 27, -3):
        spoilt = (
            bytes(frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :])
            if at > 0
            else bytes(frame[:-3] + bytes([frame[-3] ^ 1]) + frame[-2:])
        )
        assert refusal(spoilt).reason == QuarantineReason.CRC_FAIL


def test_objects_that_do_not_fill_the_unit() -> None:
    """Fewer or more bytes than the objects need: malformed."""
    assert "truncated" in refusal(fire(21, [b"\x08"])).detail
    assert "after the last" in refusal(fire(21, [b"\x08" + TIME + b"\0"])).detail
    assert refusal(b"@@##").reason == QuarantineReason.MALFORMED


def test_a_time_that_is_none_is_null() -> None:
    """Month 13: the object is dated by its arrival."""
    assert parse(fire(21, [b"\x08" + bytes([0, 0, 0, 1, 13, 26])]))["objects"][0]["time"] is None


@given(st.sampled_from(sorted(OBJECTS)), st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4))
def test_any_objects_are_read_or_refused(number: int, objects: list[bytes]) -> None:
    """Every type on any bytes."""
    with contextlib.suppress(Rejected):
        parse(fire(number, objects))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_tree_or_refused(payload: bytes) -> None:
    """Alone and between the right marks."""
    for frame in (payload, b"@@" + payload + b"##"):
        with contextlib.suppress(Rejected):
            parse(frame)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**14 - 1)), min_size=1, max_size=20)
)
def test_what_is_written_is_read(systems: list[tuple[int, int, int]]) -> None:
    """System states come back bit by bit."""
    objects = [bytes([kind, at]) + word.to_bytes(2, "little") + TIME for kind, at, word in systems]
    result = parse(fire(1, objects))["objects"]
    assert [sum(on << bit for bit, on in enumerate(item["state"].values())) for item in result] == [
        word for _, _, word in systems
    ]


def test_answers_are_the_standards() -> None:
    """Confirmation and rejection of a report, byte for byte."""
    from datetime import datetime

    unit = gbt26875.parse(fire(21, [b"\x08" + TIME]))
    now = datetime(2012, 9, 26, 9, 58, 35)  # noqa: DTZ001 - the centre's local time
    confirmed = "40400100010123 3A091A090C 385B01000000 790300000000 0000 03 AB 2323"
    assert gbt26875.build_answer(unit, now) == bytes.fromhex(confirmed)
    rejected = confirmed.replace("03 AB", "06 AE")
    assert gbt26875.build_answer(unit, now, gbt26875.REJECT) == bytes.fromhex(rejected)
