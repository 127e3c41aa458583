"""JT/T 808 as a format: positions, items, batches."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.jtt808 import parse
from sensegate.decode.frame import WarnedObject
from sensegate.errors import Rejected
from sensegate.frames import jtt808
from sensegate.model import QuarantineReason
from tests.frames.made import position, vehicle


def refusal(frame: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse(frame)
    return caught.value


def test_a_position_becomes_a_tree() -> None:
    """Where, how fast, when, and the items that are known by name."""
    items = bytes.fromhex("01 04 00000064 02 02 007D 31 01 0C E1 01 FF")
    tree = parse(vehicle(position(status=0b10011, alarm=0b11, items=items)))
    assert (tree["message"], tree["phone"], tree["version"], tree["late"]) == ("0200", "13800138000", 2013, False)
    (element,) = tree["reports"]
    assert (element["lat"], element["lon"], element["altitude"]) == (23.129163, 113.264435, 21)
    assert (element["speed"], element["heading"], element["time"]) == (36.5, 90, "2026-01-01T08:00:00")
    assert (element["mileage"], element["fuel"], element["satellites"]) == (10.0, 12.5, 12)
    assert element["items"]["E1"] == "FF"
    assert [name for name, on in element["alarms"].items() if on] == ["emergency", "speeding"]
    assert [name for name, on in element["states"].items() if on] == ["ignition", "positioned", "stopped"]


def test_south_and_west_are_negative() -> None:
    """By the bits of the status word."""
    (result,) = parse(vehicle(position(status=0b1111)))["reports"]
    assert (result["lat"], result["lon"]) == (-23.129163, -113.264435)


def test_the_standard_of_2019() -> None:
    """A version byte and ten bytes of phone number."""
    tree = parse(vehicle(position(), phone="00000000013800138000"))
    assert (tree["phone"], tree["version"]) == ("13800138000", 2019)


def test_reports_of_a_blind_area() -> None:
    """0704: several positions, late ones told apart."""
    bodies = [position(at=f"2601010{hour}0000") for hour in (6, 7)]
    body = (2).to_bytes(2) + b"\x01" + b"".join(len(body).to_bytes(2) + body for body in bodies)
    tree = parse(vehicle(body, message=jtt808.LOCATIONS))
    assert [entry["time"] for entry in tree["reports"]] == ["2026-01-01T06:00:00", "2026-01-01T07:00:00"]
    assert tree["late"]
    assert len(parse(vehicle(body[:-1], message=jtt808.LOCATIONS))["reports"]) == 1
    assert len(parse(vehicle(body + b"\0", message=jtt808.LOCATIONS))["reports"]) == 2


def test_other_messages_hold_no_positions() -> None:
    """A heartbeat is known by its number."""
    assert parse(vehicle(b"", message=jtt808.HEARTBEAT))["reports"] == []


def test_a_wrong_check_is_refused_by_its_own_reason() -> None:
    """The exclusive or of all bytes."""
    frame = bytearray(vehicle(position()))
    frame[20] ^= 1
    assert refusal(bytes(frame)).reason == QuarantineReason.CRC_FAIL


def test_what_is_cut_short_is_malformed() -> None:
    """A body shorter than a position."""
    assert refusal(vehicle(bytes(27))).reason == QuarantineReason.MALFORMED
    assert refusal(b"\x7e\x7e").reason == QuarantineReason.MALFORMED


def test_a_position_before_an_item_that_is_cut_short_is_kept() -> None:
    """Position and items before the cut stay; the rest is marked."""
    tree = parse(vehicle(position(items=b"\x01\x04\x00\x00\x00\x64\x30\x01\x11\x31\x09\x01")))
    (report,) = tree["reports"]
    assert (report["mileage"], report["signal"], "satellites" in report) == (10.0, 17, False)
    assert report["lat"] == parse(vehicle(position()))["reports"][0]["lat"]
    assert isinstance(tree, WarnedObject)
    assert tree.warnings == ("item 31 is truncated",)


def test_reports_before_one_that_is_cut_short_are_kept() -> None:
    """0704: the whole reports before the cut stay, and a cut item within one costs that item alone."""
    whole, short = position(), position(items=b"\x01\x04\x00")
    body = b"\x00\x03\x01" + b"".join(len(part).to_bytes(2) + part for part in (whole, short))
    tree = parse(vehicle(body + b"\x00\x20" + bytes(3), message=jtt808.LOCATIONS))
    assert (len(tree["reports"]), tree["late"]) == (2, True)
    assert isinstance(tree, WarnedObject)
    assert tree.warnings == ("item 01 is truncated", "3 reports announced, truncated after 2")
    assert refusal(vehicle(b"\x00\x02\x01\x00\x20" + bytes(9), message=jtt808.LOCATIONS)).reason == (
        QuarantineReason.MALFORMED
    )


def test_a_time_that_is_none_stays_as_it_is() -> None:
    """Its values are rejected by name, not dated by guess."""
    assert parse(vehicle(position(at="261301080000")))["reports"][0]["time"] == "261301080000"


@given(st.integers(-90_000_000, 90_000_000), st.integers(-180_000_000, 180_000_000), st.integers(-500, 9000))
def test_what_is_written_is_read(lat: int, lon: int, altitude: int) -> None:
    """Positions come back to the last digit, whatever bytes had to be escaped."""
    status = 2 | (4 if lat < 0 else 0) | (8 if lon < 0 else 0)
    (result,) = parse(vehicle(position(lat / 1e6, lon / 1e6, altitude=altitude, status=status)))["reports"]
    assert (round(result["lat"] * 1e6), round(result["lon"] * 1e6), result["altitude"]) == (lat, lon, altitude)


@given(st.binary(max_size=80))
def test_escaping_is_undone(inner: bytes) -> None:
    """And leaves no mark within."""
    assert b"\x7e" not in jtt808.escape(inner)
    assert jtt808.unescape(jtt808.escape(inner)) == inner


@given(st.binary(max_size=80))
def test_any_bytes_are_a_tree_or_refused(payload: bytes) -> None:
    """Alone, between marks, and as the body of a good frame of each kind."""
    frames = [payload, b"\x7e" + payload + b"\x7e", vehicle(payload), vehicle(payload, message=jtt808.LOCATIONS)]
    frames.append(vehicle(position(items=payload)))
    for frame in frames:
        with contextlib.suppress(Rejected):
            parse(frame)


def batch(*bodies: bytes, tail: bytes = b"") -> bytes:
    """Return the frame of several reports (0704)."""
    rows = b"".join(len(body).to_bytes(2) + body for body in bodies)
    return vehicle(len(bodies).to_bytes(2) + b"\x01" + rows + tail, message=jtt808.LOCATIONS)


GOOD = position()
KEPT = [
    ("an item without bytes", vehicle(position(items=bytes.fromhex("0100310109"))), 1, {"satellites": 9}, "item 01"),
    ("an item too short", vehicle(position(items=bytes.fromhex("01020064310109"))), 1, {"satellites": 9}, "item 01"),
    ("an item too long", vehicle(position(items=bytes.fromhex("31020009"))), 1, {}, "item 31"),
    ("a single byte at the end", vehicle(position(items=bytes.fromhex("31010901"))), 1, {"satellites": 9}, "last item"),
    ("an item cut short", vehicle(position(items=bytes.fromhex("31010901040000"))), 1, {"satellites": 9}, "item 01"),
    ("a cut item in a batch", batch(position(items=b"\x01\x04"), GOOD), 2, {}, "item 01"),
    ("a report too short in a batch", batch(GOOD, GOOD[:20], GOOD), 2, {}, "20 bytes"),
    ("the first too short", batch(GOOD[:20], GOOD), 1, {}, "20 bytes"),
    ("bytes behind a batch", batch(GOOD, GOOD, tail=b"\0\0\0"), 2, {}, "3 bytes"),
    ("a batch cut in a report", vehicle((2).to_bytes(2) + b"\0"
     + len(GOOD).to_bytes(2) + GOOD + len(GOOD).to_bytes(2) + GOOD[:9], message=jtt808.LOCATIONS), 1, {}, "truncated"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "count", "read", "warning"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT])
def test_what_can_be_read_is_kept(frame: bytes, count: int, read: dict[str, float], warning: str) -> None:
    """The rest is named in a warning."""
    tree = parse(frame)
    assert isinstance(tree, WarnedObject)
    assert len(tree["reports"]) == count
    assert tree["reports"][0]["lat"] == 23.129163
    for name in ("mileage", "fuel", "satellites"):
        assert tree["reports"][0].get(name) == read.get(name)
    assert warning in " ".join(tree.warnings)


@pytest.mark.parametrize("message", [0x0201, 0x0500])
def test_answers_with_a_position(message: int) -> None:
    """To a query of the position and to a control: the serial number of the request stands before it."""
    (report,) = parse(vehicle(b"\x00\x07" + position(items=bytes.fromhex("310109")), message=message))["reports"]
    assert (report["lat"], report["lon"], report["satellites"]) == (23.129163, 113.264435, 9)


@pytest.mark.parametrize(
    ("sent", "time"), [("260101240000", "2026-01-02T00:00:00"), ("261231240000", "2027-01-01T00:00:00")]
)
def test_the_end_of_a_day(sent: str, time: str) -> None:
    """24:00:00 is the beginning of the next day."""
    assert parse(vehicle(position(at=sent)))["reports"][0]["time"] == time
