"""JT/T 808 as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import random
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder
from sensegate.decode.formats.jtt808 import FORMAT
from sensegate.decode.formats.jtt808_columns import FORMS_MAX, Jtt808Columns
from sensegate.decode.frame import FormatContext
from sensegate.errors import ProfileError
from sensegate.frames import jtt808
from sensegate.frames.checks import xor8
from sensegate.model import Message
from tests.bench.decode import NOW
from tests.decode.bulk import FEW, assert_bulk_is_single, mutated, mutations
from tests.decode.formats.flat_values import flat, same_values, tree_of
from tests.frames.made import position, vehicle
from tests.support.profiles import library


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def columns() -> Jtt808Columns:
    """Return a new parse."""
    parse = FORMAT.compile(None, FormatContext("vendor/model", 1, Path(), _error))
    assert isinstance(parse, Jtt808Columns)
    return parse


PARSE = columns()
ITEMS = st.lists(
    st.sampled_from(
        [
            *(b"\x01\x04\0\x01\xe2\x40", b"\x02\x02\x01\xa9", b"\x03\x02\x01\x6a", b"\x30\x01\x10", b"\x31\x01\x0b"),
            *(b"\x01\x02\0\x01", b"\x31\0", b"\xe1\x03abc", b"\xe2\0", b"\x7d\x01\x7e", b"\x05"),
        ]
    ),
    max_size=5,
).map(b"".join)
REPORTS = st.builds(
    position,
    st.sampled_from([0.0, 23.129163, 89.9]),
    st.sampled_from([0.0, 113.264435]),
    at=st.sampled_from(["260101080000", "260101240000", "261301080000", "000000000000"]),
    status=st.integers(0, 2**32 - 1),
    alarm=st.integers(0, 2**32 - 1),
    altitude=st.integers(-(2**15), 2**15 - 1),
    items=ITEMS,
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Return a frame of any message."""
    message = draw(st.sampled_from([0x0200, 0x0200, 0x0201, 0x0500, 0x0704, 0x0002]))
    body = draw(REPORTS)
    if message in {0x0201, 0x0500}:
        body = b"\0\x07" + body
    if message == 0x0704:
        reports = [body, *draw(st.lists(REPORTS | st.binary(max_size=30), max_size=2))]
        count = draw(st.sampled_from([len(reports), len(reports), len(reports) + 1, 0]))
        body = count.to_bytes(2) + draw(st.sampled_from([b"\0", b"\x01"]))
        body += b"".join(len(report).to_bytes(2) + report for report in reports)
    phone = draw(st.sampled_from(["013800138000", "00000000013800138000", "000000000000"]))
    return vehicle(body, phone=phone, message=message, serial=draw(st.integers(0, 65_535)))


def _with_check(frame: bytes) -> bytes:
    if len(frame) < 3:
        return frame
    inner = jtt808.unescape(frame[1:-1])[:-1]
    return frame[:1] + jtt808.escape(inner + bytes([xor8(inner)])) + frame[-1:]


@given(frames(), mutations(2), st.booleans())
def test_values_are_those_of_the_tree(frame: bytes, changes: list[tuple[int, int, int]], right: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever has a form is a frame, and its values are the leaves of its tree; a spoilt one is refused by both."""
    for sent in (frame, *mutated([frame], changes)):
        whole = _with_check(sent) if right else sent
        values = flat(PARSE, whole)
        assert values is None or same_values(values, tree_of(PARSE, whole))


@pytest.mark.parametrize("message", [0x0200, 0x0201, 0x0500, 0x0704])
@pytest.mark.parametrize("phone", ["013800138000", "00000000013800138000"])
def test_usual_frames_have_a_form(message: int, phone: str) -> None:
    """Positions of each message and version, also escaped; damaged by a bit they have none."""
    items = b"\x01\x04\0\x01\xe2\x40\x31\x01\x7e"
    report = position(items=items, speed=0x7D7E)
    body = b"\0\x02\x01" + (len(report).to_bytes(2) + report) * 2 if message == 0x0704 else report
    frame = vehicle(body if message in {0x0200, 0x0704} else b"\0\x07" + body, phone=phone, message=message)
    values = flat(PARSE, frame)
    assert values is not None
    assert same_values(values, tree_of(PARSE, frame))
    for place in range(len(frame)):
        damaged = bytearray(frame)
        damaged[place] ^= 4
        assert flat(PARSE, bytes(damaged)) is None


def test_forms_are_bounded() -> None:
    """Beyond the limit further frames go the other way; a frame with a wrong check takes no place of a form."""
    parse = columns()
    sent = [
        vehicle(position(items=bytes([number & 63 | 64, 1, 5, number >> 6 | 128, 1, 5])))
        for number in range(FORMS_MAX + 9)
    ]
    for frame in sent:
        assert flat(parse, frame[:-2] + bytes([frame[-2] ^ 1]) + frame[-1:]) is None
    assert sum(flat(parse, frame) is not None for frame in sent) == FORMS_MAX
    assert flat(parse, sent[0]) is not None


@given(st.binary(max_size=300))
def test_the_check_is_the_exclusive_or_of_all_bytes(data: bytes) -> None:
    """Folded in halves it is what a loop gives."""
    assert xor8(data) == reduce(xor, data, 0)


@settings(max_examples=FEW)
@given(mutations(), st.integers(0, 9), st.booleans())
def test_bulk_is_single(changes: list[tuple[int, int, int]], seed: int, right: bool) -> None:  # noqa: FBT001 - drawn
    """Positions with and without satellites and items, whole and spoilt, give the same in bulk as one by one."""
    r = random.Random(seed)
    profiles = library()
    batches = []
    for _ in range(2):
        sent = []
        for _ in range(24):
            items = r.choice([b"", b"\x01\x04\0\x01\xe2\x40\x31\x01\x0b"])
            report = position(r.random() * 80, status=r.choice([1, 3, 3, 7]), alarm=r.choice([0, 1]), items=items)
            batch = b"\0\x02\x01" + (len(report).to_bytes(2) + report) * 2
            sent.append(r.choice([vehicle(report), vehicle(report), vehicle(batch, message=0x0704)]))
        spoilt = [_with_check(frame) if right else frame for frame in mutated(sent, changes)]
        batches.append([Message("jtt808/d1/up", raw, NOW, number) for number, raw in enumerate(spoilt)])
    bulk = assert_bulk_is_single(lambda: Decoder(profiles, NamedDevices(["d1"], "jtt808/vehicle")), batches)
    assert bulk.plans.count
