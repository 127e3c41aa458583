"""SL 651 as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices, message_of
from sensegate.config import IngestConfig
from sensegate.decode import Decoder
from sensegate.decode.formats.sl651 import FORMAT, Sl651Part
from sensegate.decode.formats.sl651_columns import FORMS_MAX, Sl651Columns
from sensegate.decode.frame import FormatContext
from sensegate.errors import ProfileError
from sensegate.frames import sl651
from sensegate.frames.checks import crc_modbus
from sensegate.model import Message
from tests.decode.decoding import same
from tests.decode.formats.flat_values import flat, same_values, tree_of
from tests.support.profiles import library

STATION = "0011223344"
HEAD = bytes.fromhex("0002260101080012")
TIME = bytes.fromhex("f0f02601010800")


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def parse_of(part: Sl651Part | None = None) -> Sl651Columns:
    """Return a new parse."""
    parse = FORMAT.compile(part, FormatContext("vendor/model", 1, Path(), _error))
    assert isinstance(parse, Sl651Columns)
    return parse


def report(body: bytes, function: int = 0x32, *, up: bool = True) -> bytes:
    """Return a report of one packet."""
    return sl651.build(sl651.Sl651Head(1, STATION, "03E8", function), body, sl651.ETX, up=up)


PARSE = parse_of()
FIRST = parse_of(Sl651Part(hour="first"))
ELEMENTS = st.one_of(
    st.just(TIME),
    st.sampled_from(
        [b"\xf0\xf0\x26\x13\x01\x08\x00", b"\xf0\xf0\x26\x01\x01\x24\x00", b"\xf0\xf0\x99\x12\x31\x23\x59"]
    ),
    st.sampled_from(
        [b"\xf1\xf1" + bytes.fromhex(STATION), b"\xf1\xf1" + bytes.fromhex(STATION) + b"H", b"\xf1\xf1\0\0\0\0\0"]
    ),
    st.tuples(
        st.sampled_from([0x1F, 0x20, 0x39, 0x05, 0x7A]), st.integers(0, 7), st.binary(min_size=1, max_size=5)
    ).map(lambda made: bytes([made[0], len(made[2]) << 3 | made[1]]) + made[2]),
    st.tuples(st.sampled_from([0x20, 0x39]), st.integers(0, 3), st.integers(0, 999_999)).map(
        lambda made: bytes([made[0], 3 << 3 | made[1]]) + bytes.fromhex(f"{made[2]:06d}")
    ),
    st.binary(min_size=12, max_size=12).map(lambda values: b"\xf4\x60" + values),
    st.binary(min_size=24, max_size=24).map(lambda values: b"\xf5\xc0" + values),
    st.binary(min_size=4, max_size=4).map(lambda word: b"\x45\x20" + word),
    st.just(b"\x04\x18\0\0\x05"),
    st.just(b"\xff\x01\x11\x12\x34"),
    st.just(b"\xf2\xf2\x01\x02"),
    st.binary(max_size=3),
)
BODIES = st.lists(ELEMENTS, max_size=6).map(lambda parts: HEAD + b"".join(parts))
TIMED = st.lists(ELEMENTS, max_size=5).map(lambda parts: HEAD + TIME + b"".join(parts))


@given(BODIES | TIMED, st.sampled_from([0x2F, 0x30, 0x31, 0x32, 0x34, 0x38, 0x3A, 0x46]), st.booleans())
def test_values_are_those_of_the_tree(body: bytes, function: int, up: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever has a form is a report, and its values are the leaves of its tree."""
    frame = report(body, function, up=up)
    for parse in (PARSE, FIRST):
        values = flat(parse, frame)
        assert values is None or same_values(values, tree_of(parse, frame))


def test_usual_reports_have_a_form() -> None:
    """Timed and hourly reports, with states, are taken apart; damaged by a bit they are not."""
    values = bytes.fromhex("201b000123391a0018204520000000a1")
    hour = b"\xf4\x60" + bytes(range(12)) + b"\xf5\xc0" + bytes(range(24))
    for body in (values, hour, values + hour):
        for start in (b"", b"\xf1\xf1" + bytes.fromhex(STATION) + b"H"):
            frame = report(HEAD + start + TIME + body, 0x34)
            known = flat(PARSE, frame)
            assert known is not None
            assert same_values(known, tree_of(PARSE, frame))
            for place in range(len(frame)):
                damaged = bytearray(frame)
                damaged[place] ^= 1
                assert flat(PARSE, bytes(damaged)) is None


def test_forms_are_bounded() -> None:
    """Beyond the limit further forms go the other way; those known stay known."""
    parse = parse_of()
    frames = [
        report(
            HEAD
            + TIME
            + bytes([0x20, 1 << 3 | number % 8, 1, 0x39, 1 << 3 | number // 8 % 8, 2, 0x14 + number // 64, 8, 3])
        )
        for number in range(FORMS_MAX + 20)
    ]
    known = [flat(parse, frame) is not None for frame in frames]
    assert known == [True] * FORMS_MAX + [False] * 20
    assert flat(parse, frames[0]) is not None


@pytest.mark.slow
def test_stations_of_the_library_are_decoded_by_columns() -> None:
    """Examples of all SL 651 profiles with varied values: equal by both ways, and mostly by plan."""
    profiles = library()
    r = random.Random(5)
    planned = examples = 0
    for profile in filter(None, map(profiles.find, profiles.ids)):
        if "sl651" not in {rule.format for rule in profile.rules}:
            continue
        for example in profile.source.examples:
            message = message_of(example)
            batch = []
            for _ in range(40):
                frame = bytearray(message.payload)
                if frame.startswith(sl651.MARK) and len(frame) > 40:
                    frame[r.randrange(24, len(frame) - 3)] ^= r.choice([0, 0, 1, 8])
                    frame[-2:] = crc_modbus(bytes(frame[:-2])).to_bytes(2)
                batch.append(Message(message.topic, bytes(frame), message.received, 0))
            devices = NamedDevices(example.devices, profile.id, gateway=example.gateway)
            decoder = Decoder(profiles, devices, IngestConfig(rate_per_device_s=1e9))
            for _ in range(3):
                same(decoder.decode(batch), decoder.decode_row_by_row(batch))
            planned += decoder.plans.count > 0
            examples += 1
    assert planned > examples // 3
