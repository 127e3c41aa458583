"""HJ 212 as flat values: each equals the member of the tree at its pointer, and together they are all members."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices, message_of
from sensegate.config import IngestConfig
from sensegate.decode import Decoder
from sensegate.decode.formats.hj212 import FORMAT, Hj212Part
from sensegate.decode.formats.hj212_columns import FORMS_MAX, Hj212Columns
from sensegate.decode.frame import FormatContext
from sensegate.errors import ProfileError
from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention
from tests.decode.decoding import same
from tests.decode.formats.flat_values import flat, same_values, tree_of
from tests.support.profiles import library

HEAD = {"QN": "20260101080000000", "ST": "22", "CN": "2011", "PW": "123456", "MN": "M1", "Flag": "5"}


def built(head: dict[str, str], content: str, convention: Convention = Convention.ANSI) -> bytes:
    """Return a frame."""
    text = "".join(f"{key}={value};" for key, value in head.items()) + f"CP=&&{content}&&"
    return hj212.build(text.encode("gb18030"), convention)


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def parse_of(part: Hj212Part | None = None) -> Hj212Columns:
    """Return a new parse."""
    parse = FORMAT.compile(part, FormatContext("vendor/model", 1, Path(), _error))
    assert isinstance(parse, Hj212Columns)
    return parse


PARSE = parse_of()
STRICT = parse_of(Hj212Part(st=("22", "39"), crc=("ansi", "modbus")))
WORDS = st.sampled_from(
    [
        "a34004-Rtd",
        "a34004-Flag",
        "a34002-Avg",
        "LA-SampleTime",
        "LA-Rtd",
        "w1-Flag",
        "w1-EFlag",
        "w1-Rtd",
        "DataTime",
        "PolId",
        "-Rtd",
        "",
        "a b-Rtd",
        "温-Rtd",
        "CN",
        "a--Rtd",
    ]
)
VALUES = st.sampled_from(
    [
        "1",
        "31.5",
        "-2",
        "+.5",
        "5.",
        ".",
        "",
        "N",
        "D",
        "1e5",
        "nan",
        "1_0",
        "0" * 40,
        "1" * 41,
        " 3",
        "20260101080000",
        "20260101240000",
        "20261399080000",
        "20260101080000123",
        "温",
        "\x85",
    ]
)
CONTENT = st.lists(st.tuples(WORDS, st.sampled_from("==== "), VALUES, st.sampled_from(";,;,;&")), max_size=7).map(
    lambda entries: "".join(f"{key}{equals}{value}{end}" for key, equals, value, end in entries)
)
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "QN": st.sampled_from(["20260101080000000", "20260101080000", "x" * 17]),
        "ST": st.sampled_from(["22", "39", "91", " 22"]),
        "CN": st.sampled_from(["2011", "2051", "2061", "9014", ""]),
        "MN": st.sampled_from(["M1", "", "a=b"]),
        "Flag": st.sampled_from(["5", "4", "0", "9", "8", "05", "x", "200"]),
        "PNUM": st.sampled_from(["1", "2", "01", "x", "0"]),
        "PNO": st.sampled_from(["1", "2"]),
        "CP2": st.just("&"),
    },
)


@given(HEADS, CONTENT, st.sampled_from(Convention), st.sampled_from([b"", b"\r\n", b" \0"]))
def test_values_are_those_of_the_tree(head: dict[str, str], content: str, convention: Convention, end: bytes) -> None:
    """Whatever has a form is a frame, and its values are the leaves of its tree."""
    frame = built(head, content, convention).rstrip() + end
    for parse in (PARSE, STRICT):
        values = flat(parse, frame)
        if values is not None:
            assert same_values(values, tree_of(parse, frame))


USUAL = "DataTime=2026010108{:02d}00;a34004-Rtd={:.1f},a34004-Flag={};a34002-Avg={:.2f},a34002-Flag=N;"


@pytest.mark.parametrize(
    "head", [HEAD, {key: HEAD[key] for key in ("ST", "CN", "MN")}, HEAD | {"PNUM": "1", "PNO": "1"}]
)
def test_usual_frames_have_a_form(head: dict[str, str]) -> None:
    """A report as stations send it, also without QN and Flag, is taken apart; damaged by a bit it is not."""
    frame = built(head, USUAL.format(5, 31.5, "N", 7.25))
    assert flat(PARSE, frame) == tree_of(PARSE, frame) is not None
    for place in range(len(frame) - 2):
        damaged = bytearray(frame)
        damaged[place] ^= 1
        assert flat(PARSE, bytes(damaged)) is None


def test_forms_are_bounded() -> None:
    """Beyond the limit further forms go the other way; those known stay known."""
    parse = parse_of()
    frames = [built(HEAD, f"a{number}-Rtd=1") for number in range(FORMS_MAX + 20)]
    known = [flat(parse, frame) is not None for frame in frames]
    assert known == [True] * FORMS_MAX + [False] * 20
    assert flat(parse, frames[0]) is not None


@pytest.mark.slow
def test_stations_of_the_library_are_decoded_by_columns() -> None:
    """Examples of all HJ 212 profiles, with flags of every kind: equal by both ways, and mostly by plan."""
    profiles = library()
    r = random.Random(5)
    planned = 0
    for profile in filter(None, map(profiles.find, profiles.ids)):
        if "hj212" not in {rule.format for rule in profile.rules}:
            continue
        for example in profile.source.examples:
            message = message_of(example)
            batch = []
            for _ in range(60):
                flag = r.choice([b"N", b"N", b"D", b"T"])
                frame = message.payload.replace(b"-Flag=N", b"-Flag=" + flag, 1)
                batch.append(type(message)(message.topic, _rebuilt(frame), message.received, 0))
            devices = NamedDevices(example.devices, profile.id, gateway=example.gateway)
            decoder = Decoder(profiles, devices, IngestConfig(rate_per_device_s=1e9))
            for _ in range(3):
                fields = decoder.decode(batch)
                same(fields, decoder.decode_row_by_row(batch))
            planned += decoder.plans.count > 0
    assert planned > 20


def _rebuilt(frame: bytes) -> bytes:
    """Return a frame with its checksum made anew, if it was right."""
    data = frame.rstrip()[6:-4]
    return hj212.build(data) if hj212.detect_convention(data, frame.rstrip()[-4:]) else frame
