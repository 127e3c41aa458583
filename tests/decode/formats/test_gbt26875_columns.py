"""GB/T 26875.3 as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder
from sensegate.decode.formats.gbt26875 import FORMAT
from sensegate.decode.formats.gbt26875_columns import FORMS_MAX, Gbt26875Columns
from sensegate.decode.frame import FormatContext
from sensegate.errors import ProfileError
from sensegate.frames.checks import sum8
from sensegate.model import Message
from tests.bench.decode import NOW
from tests.decode.bulk import FEW, assert_bulk_is_single, mutated, mutations
from tests.decode.formats.flat_values import flat, same_values, tree_of
from tests.frames.made import TIME, fire
from tests.support.profiles import library

SIZES = {1: 4, 2: 40, 3: 10, 4: 4, 21: 1, 24: 2}
"""Type -> bytes of an object before its time."""


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def columns() -> Gbt26875Columns:
    """Return a new parse."""
    parse = FORMAT.compile(None, FormatContext("vendor/model", 1, Path(), _error))
    assert isinstance(parse, Gbt26875Columns)
    return parse


PARSE = columns()
TIMES = st.sampled_from([TIME, bytes(6), bytes([59, 59, 23, 31, 12, 99]), bytes([0, 0, 0, 30, 2, 26])])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Return a frame of any type, whose objects may be cut short."""
    number = draw(st.sampled_from([*SIZES, 5, 8, 28, 60, 0]))
    size = SIZES.get(number, 2)
    objects = [draw(st.binary(min_size=size, max_size=size)) + draw(TIMES) for _ in range(draw(st.integers(0, 4)))]
    if objects and draw(st.integers(0, 5)) == 0:
        objects[-1] = objects[-1][: draw(st.integers(0, size))]
    return fire(number, objects, command=draw(st.integers(1, 6)), serial=draw(st.integers(0, 65_535)))


@given(frames(), mutations(2), st.booleans())
def test_values_are_those_of_the_tree(frame: bytes, changes: list[tuple[int, int, int]], right: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever has a form is a frame, and its values are the leaves of its tree; a spoilt one is refused by both."""
    for sent in (frame, *mutated([frame], changes)):
        whole = _with_sum(sent) if right else sent
        values = flat(PARSE, whole)
        assert values is None or same_values(values, tree_of(PARSE, whole))


def _with_sum(frame: bytes) -> bytes:
    return frame if len(frame) < 30 else frame[:-3] + bytes([sum8(frame[2:-3])]) + frame[-2:]


@pytest.mark.parametrize("number", sorted(SIZES))
def test_usual_frames_have_a_form(number: int) -> None:
    """Objects of each type of a fixed size, one and several; damaged by a bit they have none."""
    for count in (1, 3):
        objects = [bytes(range(at, at + SIZES[number])) + TIME for at in range(count)]
        frame = fire(number, objects)
        values, tree = flat(PARSE, frame), tree_of(PARSE, frame)
        assert values is not None
        assert same_values(values, tree)
        for place in range(len(frame)):
            damaged = bytearray(frame)
            damaged[place] ^= 1
            assert flat(PARSE, bytes(damaged)) is None


def test_forms_are_bounded() -> None:
    """A frame of another size than its objects' has no form, and takes no place of one."""
    parse = columns()
    for size in range(FORMS_MAX + 9):
        assert flat(parse, fire(1, [bytes(size)])) is None or size == 10
    assert flat(parse, fire(1, [b"\x01\x01\0\0" + TIME])) is not None


@settings(max_examples=FEW)
@given(mutations(), st.integers(0, 9), st.booleans())
def test_bulk_is_single(changes: list[tuple[int, int, int]], seed: int, right: bool) -> None:  # noqa: FBT001 - drawn
    """Frames of known and unknown components, whole and spoilt, give the same in bulk as one by one."""
    r = random.Random(seed)
    profiles, source = library(), "000000000379"
    names = [source, f"{source}-1-1", f"{source}-1-2", f"{source}-1-1-3-1", f"{source}-1-1-3-2"]
    batches = []
    for _ in range(2):
        sent = []
        for _ in range(24):
            number = r.choice([1, 2, 3, 21, 24])
            places = b"\x01" + bytes([r.choice([1, 1, 2])]) + b"\x28\x03\0" + bytes([r.choice([1, 2, 9]), 0])
            start = {1: places[:2] + b"\x02\0", 2: places + b"\x03\0" + bytes(31), 3: places + b"\x03\x10\0"}
            objects = [start.get(number, b"\x02\x05"[: SIZES[number]]) + TIME] * r.choice([1, 1, 2])
            sent.append(fire(number, objects, serial=r.randrange(9)))
        spoilt = [_with_sum(frame) if right else frame for frame in mutated(sent, changes)]
        batches.append([Message("gbt26875/g1/up", raw, NOW, number) for number, raw in enumerate(spoilt)])
    assert_bulk_is_single(lambda: Decoder(profiles, NamedDevices(names, "gbt26875/fire-host", gateway="g1")), batches)
