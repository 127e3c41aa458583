"""HJ 212 as a format: content, flags, conventions of the CRC, frames of one report, encryption."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.hj212 import FORMAT, Hj212Part
from sensegate.decode.formats.parts import REPORTS_MAX, WAIT_US
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.decode.memory import DecoderMemory
from sensegate.errors import ProfileError, Rejected
from sensegate.frames import hj212
from sensegate.frames.hj212 import Convention
from sensegate.model import QuarantineReason
from tests.frames.made import MN, upload

NOW = 1_767_225_600_000_000
KEY = bytes(range(16))
TIME = "DataTime=20260101080000"


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def parse(frame: bytes, part: Hj212Part | None = None, *, memory: DecoderMemory | None = None, at: int = NOW) -> Any:
    setting = FormatContext("vendor/model", 1, Path(), _error)
    return FORMAT.compile(part, setting)(PayloadFrame(frame, 16, "hj212/d1/up", at, memory=memory))


def refusal(
    frame: bytes, part: Hj212Part | None = None, *, memory: DecoderMemory | None = None, at: int = NOW
) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse(frame, part, memory=memory, at=at)
    return caught.value


def pairs(tree: Any) -> list[tuple[str, Any, str | None]]:
    return [(value["name"], value["value"], value["flag"]) for value in tree["values"]]


# ── content ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_becomes_a_tree() -> None:
    """Head, time, and an element with its flag for each value; the password is in no tree."""
    tree = parse(upload(f"{TIME};a34004-Rtd=31.5,a34004-Flag=N;a01001-Rtd=-2,a01001-Flag=D", flag="5"))
    assert (tree["mn"], tree["st"], tree["cn"], tree["version"], tree["answer"]) == (MN, "22", "2011", 2017, True)
    assert tree["time"] == "2026-01-01T08:00:00"
    assert pairs(tree) == [("a34004-Rtd", 31.5, "N"), ("a01001-Rtd", -2.0, "D")]
    assert tree["odd"] == tree["doubt"] == []
    assert "123456" not in repr(tree)


@pytest.mark.parametrize(("cn", "span"), [("2051", "minute-"), ("2061", "hour-"), ("2031", "day-"), ("2011", "")])
def test_means_of_a_span_are_named_by_it(cn: str, span: str) -> None:
    """A minute's mean and an hour's are two series, though the device calls both Avg."""
    tree = parse(upload(f"{TIME};a34004-Min=1,a34004-Avg=2,a34004-Max=3,a34004-Cou=4,a34004-Flag=N", cn=cn))
    assert pairs(tree) == [
        (f"a34004-{span}{kind}", value, "N") for kind, value in (("Min", 1), ("Avg", 2), ("Max", 3), ("Cou", 4))
    ]


def test_odd_content_decodes_with_marks() -> None:
    """No QN, no Flag, 17 digits of time, old codes, no flag of a value (2005 style): named, not refused."""
    tree = parse(upload("DataTime=20260101080000500;B01-Rtd=36.91;011-Rtd=231.0,011-Flag=N", flag="", qn="", st="32"))
    assert tree["odd"] == ["qn", "flag", "time"]
    assert tree["time"] == "2026-01-01T08:00:00.500"
    assert tree["version"] == 0
    assert pairs(tree) == [("B01-Rtd", 36.91, None), ("011-Rtd", 231.0, "N")]


def test_another_system_puts_the_values_in_doubt() -> None:
    """A station that sends another ST than its profile says is marked; without the option it is not looked at."""
    frame = upload(f"{TIME};a34004-Rtd=31", st="27")
    assert parse(frame, Hj212Part(st=("22", "39")))["doubt"] == ["st"]
    assert parse(frame)["doubt"] == []


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("12.50", 12.5),
        ("-0.3", -0.3),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("", None),
        ("--", "--"),
        ("1_0", "1_0"),
        ("nan", "nan"),
    ],
)
def test_values_as_they_are_written(sent: str, value: Any) -> None:
    """Numbers are numbers, nothing is null, and the rest stays text for the profile to judge."""
    assert parse(upload(f"{TIME};a34004-Rtd={sent}"))["values"][0]["value"] == value


def test_misspelt_keys_stay_what_they_are() -> None:
    """``LA-td`` is a name that no profile knows; a flag without its suffix is no flag."""
    tree = parse(upload(f"{TIME};LA-td=50.1,LA-Flag=N;a34004-Rtd=7,a34004=N"))
    assert pairs(tree) == [("LA-td", 50.1, "N"), ("a34004-Rtd", 7.0, None)]
    assert tree["content"]["a34004"] == "N"


def test_a_flag_in_an_entry_of_its_own_counts() -> None:
    """Some devices put a semicolon where the standard has a comma."""
    assert pairs(parse(upload(f"{TIME};a34004-Rtd=7;a34004-Flag=C"))) == [("a34004-Rtd", 7.0, "C")]


def test_sample_times_and_instrument_flags() -> None:
    """Each value of a factor carries the time of its sample (2017, water) and the flag of its instrument."""
    content = f"{TIME};w01018-SampleTime=20260101074500,w01018-Rtd=15.2,w01018-Flag=N,w01018-EFlag=A01"
    value = parse(upload(content, st="32"))["values"][0]
    assert (value["sample_time"], value["eflag"]) == ("2026-01-01T07:45:00", "A01")


@pytest.mark.parametrize(
    ("sent", "time"),
    [
        ("20251231240000", "2026-01-01T00:00:00"),
        ("20260231080000", "20260231080000"),
        ("2026010108", "2026010108"),
        ("20260101080000123", "2026-01-01T08:00:00.123"),
        ("99991231240000", "99991231240000"),
    ],
)
def test_times(sent: str, time: str) -> None:
    """24:00 is the next day; what is no time stays as it is, so that its values are rejected by name."""
    assert parse(upload(f"DataTime={sent};a34004-Rtd=1"))["time"] == time


def test_chinese_text_in_either_charset() -> None:
    """Info in UTF-8 or GB 18030 is read; bytes that are neither are refused."""
    for charset in ("utf-8", "gb18030"):
        data = f"QN=20260101080000000;ST=32;CN=3020;MN={MN};Flag=5;CP=&&i11001-Info=//清洗管路//&&".encode(charset)
        assert parse(hj212.build(data))["values"][0]["value"] == "//清洗管路//"
    assert refusal(hj212.build(b"MN=1;CP=&&a-Info=\xff\xff&&")).reason == QuarantineReason.NOT_UTF8


# ── check values ─────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_check_value_is_refused_by_its_own_reason() -> None:
    """One that fits another frame does not fit this one; the refusal says what would be right."""
    frame = upload(f"{TIME};a34004-Rtd=31")
    right = frame[-6:-2]
    wrong = frame[:-6] + b"%04X\r\n" % (int(right, 16) ^ 1)
    why = refusal(wrong)
    assert why.reason == QuarantineReason.CRC_FAIL
    assert f"{right.decode()} expected" in why.detail


@pytest.mark.parametrize("convention", list(Convention))
def test_conventions_are_the_profiles_choice(convention: Convention) -> None:
    """The standard's alone is taken unless the profile takes more; the refusal names the one that would fit."""
    frame = upload(f"{TIME};a34004-Rtd=31", convention=convention)
    if convention is Convention.ANSI:
        assert parse(frame)["crc"] == "ansi"
    else:
        why = refusal(frame)
        assert (why.reason, convention in why.detail) == (QuarantineReason.CRC_FAIL, True)
    assert parse(frame, Hj212Part(crc=("ansi", convention.value)))["crc"] == convention
    assert parse(frame, Hj212Part(crc=("off",)))["crc"] == convention


def test_lower_case_digits_and_no_new_line() -> None:
    """The check value in lower case, CR LF left out (a broker needs none)."""
    frame = upload(f"{TIME};a34004-Rtd=31")
    assert parse(frame[:-6] + frame[-6:-2].lower())["crc"] == "ansi"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "does not start"),
        (b"##12", "does not start"),
        (b"##0x10aaaa", "does not start"),
        (b"##0005abc0000", "announces 5 bytes of data, the frame has 3"),
        (b"##0003abcxyzw", "not four hex digits"),
        (hj212.build(b"QN=1;ST=22"), "no content"),
        (hj212.build(b"CP=&&a=1"), "no content"),
        (hj212.build(b"CP=&&"), "no content"),
    ],
)
def test_what_is_no_frame(frame: bytes, message: str) -> None:
    """Malformed, and the reason says why."""
    why = refusal(frame)
    assert (why.reason, message in why.detail) == (QuarantineReason.MALFORMED, True)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_tree_or_refused(payload: bytes) -> None:
    """Nothing but `Rejected` comes out, in a good frame or alone."""
    for frame in (payload, hj212.build(b"MN=1;PNUM=3;PNO=2;CP=&&" + payload + b"&&")):
        with contextlib.suppress(Rejected):
            parse(frame, Hj212Part(crc=("off",)), memory=DecoderMemory())


_CODES = st.from_regex(r"[aw][0-9]{5}", fullmatch=True)
_VALUES = st.decimals(-9999, 9999, places=3).map(str)
_CONTENT = st.lists(
    st.tuples(_CODES, _VALUES, st.sampled_from("NFMSDCTB")), min_size=1, max_size=12, unique_by=lambda v: v[0]
)


@given(_CONTENT)
def test_what_is_written_is_read(content: list[tuple[str, str, str]]) -> None:
    """Every value comes back with its name and flag."""
    text = ";".join([TIME, *(f"{code}-Rtd={value},{code}-Flag={flag}" for code, value, flag in content)])
    assert pairs(parse(upload(text))) == [(f"{code}-Rtd", float(value), flag) for code, value, flag in content]


# ── a report in several frames ───────────────────────────────────────────────────────────────────────


def split(text: str, *places: int) -> list[bytes]:
    cuts = [0, *places, len(text)]
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    return [upload(piece, flag="7", more=f"PNUM={len(pieces)};PNO={number};") for number, piece in enumerate(pieces, 1)]


@given(_CONTENT, st.data())
def test_a_report_split_anywhere_gives_the_same_values(
    content: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    """Wherever the frames are cut, all values come out once, with the time of the first frame."""
    text = ";".join([TIME, *(f"{code}-Rtd={value},{code}-Flag={flag}" for code, value, flag in content)])
    places = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), min_size=1, max_size=3)))
    memory = DecoderMemory()
    trees = [parse(frame, memory=memory) for frame in split(text, *places)]
    selected = [pair for tree in trees for pair in pairs(tree)]
    assert selected == [(f"{code}-Rtd", float(value), flag) for code, value, flag in content]
    assert {tree["time"] for tree in trees if tree["values"]} == {"2026-01-01T08:00:00"}


def test_frames_that_each_name_their_time_need_nobody() -> None:
    """As devices in the field send them: each frame stands alone, in any order, without memory."""
    first, two = (
        upload(f"{TIME};{entry}", flag="7", more=f"PNUM=2;PNO={number};")
        for number, entry in enumerate(("a34004-Rtd=1,a34004-Flag=N", "a01001-Rtd=2,a01001-Flag=N"), 1)
    )
    assert pairs(parse(two)) == [("a01001-Rtd", 2.0, "N")]
    assert pairs(parse(first)) == [("a34004-Rtd", 1.0, "N")]
    memory = DecoderMemory()
    assert [pairs(parse(frame, memory=memory)) for frame in (first, two)] == [
        [("a34004-Rtd", 1.0, "N")],
        [("a01001-Rtd", 2.0, "N")],
    ]


def test_a_frame_whose_forerunner_was_not_heard_is_unresolved() -> None:
    """Kept in quarantine by its own reason: after a restart, or where the first frame was lost or is too old."""
    text = f"{TIME};a34004-Rtd=1,a34004-Flag=N;a01001-Rtd=2,a01001-Flag=N"
    first, second = split(text, text.index("a01001"))
    assert refusal(second, memory=DecoderMemory()).reason == QuarantineReason.UNRESOLVED
    memory = DecoderMemory()
    parse(first, memory=memory)
    assert refusal(second, memory=memory, at=NOW + WAIT_US + 1).reason == QuarantineReason.UNRESOLVED
    other = upload("a01001-Rtd=2", flag="7", more="PNUM=2;PNO=2;", qn="20260101090000000")
    assert refusal(other, memory=memory).reason == QuarantineReason.UNRESOLVED


def test_a_frame_that_comes_again_changes_nothing() -> None:
    """A resent part gives what it gave, and the next part goes on as if it had not been."""
    text = f"{TIME};a34004-Rtd=12.5,a34004-Flag=N"
    first, second = split(text, text.index("2.5"))
    memory = DecoderMemory()
    assert pairs(parse(first, memory=memory)) == pairs(parse(first, memory=memory)) == []
    for _ in range(2):
        assert pairs(parse(second, memory=memory)) == [("a34004-Rtd", 12.5, "N")]


def test_reports_without_end_cost_those_of_their_own_topic() -> None:
    """A station that begins reports and never ends them takes the memory of a few hundred, and not that of others."""
    text = f"{TIME};a34004-Rtd=12.5,a34004-Flag=N"
    first, second = split(text, text.index("2.5"))
    memory = DecoderMemory(entries_max=50)
    memory.put(("other", "node"), "kept", 100)
    for number in range(2 * REPORTS_MAX):
        parse(upload(text, flag="7", more="PNUM=2;PNO=1;", qn=f"{20260101000000000 + number}"), memory=memory)
    assert memory.get(("other", "node")) == "kept"
    assert len(memory) == 2
    assert memory.size < REPORTS_MAX * 1_000
    parse(first, memory=memory)
    assert pairs(parse(second, memory=memory)) == [("a34004-Rtd", 12.5, "N")]


def test_reports_of_several_stations_on_one_topic_are_told_apart() -> None:
    """Their frames may come in any order; one whose time is over is forgotten."""
    text = f"{TIME};a34004-Rtd=12.5,a34004-Flag=N"
    memory = DecoderMemory()
    frames = [
        [
            upload(piece, flag="7", more=f"PNUM=2;PNO={number};", mn=f"station{station}")
            for number, piece in enumerate((text[:-20], text[-20:]), 1)
        ]
        for station in range(10)
    ]
    for first, _ in frames:
        parse(first, memory=memory)
    for _, second in reversed(frames):
        assert pairs(parse(second, memory=memory)) == [("a34004-Rtd", 12.5, "N")]
    parse(upload(text, flag="7", more="PNUM=2;PNO=1;"), memory=memory, at=NOW + WAIT_US + 1)
    assert memory.size < 1_000


# ── encryption (2025) ────────────────────────────────────────────────────────────────────────────────


def encrypted(content: str, *, cn: str = "2011", written: bool = False, key: bytes = KEY) -> bytes:
    """Return a frame whose content is encrypted after its CRC was made, as 6.4.2 and annex A.2 say."""
    plain = upload(content, flag="9", cn=cn)
    head, _, rest = plain.partition(b"CP=&&")
    body, tail = rest[: -len(b"&&0000\r\n")], rest[-len(b"&&0000\r\n") :]
    whole = len(body) - len(body) % 16
    machine = Cipher(algorithms.SM4(key), modes.ECB()).encryptor()  # noqa: S305 - the standard's mode
    blocks = machine.update(body[:whole])
    if written:
        blocks = b"{" + b",".join(b"0x%02X" % byte for byte in blocks) + b"}"
    data = head[6:] + b"CP=&&" + blocks + body[whole:] + tail[:2]
    return b"##%04d" % len(data) + data + tail[2:]


@pytest.fixture
def keys(tmp_path: Path) -> Hj212Part:
    """Options with a file of keys."""
    file = tmp_path / "hj212.keys"
    file.write_text(f"# stations\n{MN} {KEY.hex()}\n* {bytes(16).hex()}\n")
    return Hj212Part(keys_file=str(file))


@pytest.mark.parametrize("written", [False, True])
def test_encrypted_content_is_read_with_its_key(keys: Hj212Part, *, written: bool) -> None:
    """Whole blocks are SM4-ECB, the rest is plain; as bytes, or written as the annex prints them."""
    content = f"{TIME};a34004-Rtd=31,a34004-Flag=N;a01001-Rtd=2,a01001-Flag=N"
    tree = parse(encrypted(content, written=written), keys)
    assert pairs(tree) == [("a34004-Rtd", 31.0, "N"), ("a01001-Rtd", 2.0, "N")]
    assert (tree["crc"], tree["version"]) == ("ansi", 2025)


def test_sm4_is_the_standards(keys: Hj212Part) -> None:
    """The vector of GB/T 32907: key = plain text."""
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    packet = hj212.Hj212Packet(b"CP=&&x&&", b"0000", {}, bytes.fromhex("681edf34d206965e86b3e94f536e4246"))
    assert hj212.decrypt(packet, key).content == key


def test_plain_content_is_read_though_there_is_a_key(keys: Hj212Part) -> None:
    """The CRC tells which of the two it is."""
    assert pairs(parse(upload(f"{TIME};a34004-Rtd=31", flag="9"), keys)) == [("a34004-Rtd", 31.0, None)]


def test_without_its_key_or_with_another_it_is_refused(keys: Hj212Part) -> None:
    """By the check value: nothing is guessed. The refusal says that a key may be missing."""
    frame = encrypted(f"{TIME};a34004-Rtd=31,a34004-Flag=N")
    assert "keys_file" in refusal(frame).detail
    other = encrypted(f"{TIME};a34004-Rtd=31,a34004-Flag=N", key=bytes(range(1, 17)))
    assert refusal(other, keys).reason == QuarantineReason.CRC_FAIL


@pytest.mark.parametrize(("line", "message"), [("MN 12", "line 1"), ("MN", "line 1"), (None, "cannot be read")])
def test_a_wrong_file_of_keys_is_said(tmp_path: Path, line: str | None, message: str) -> None:
    """When the profile is loaded, with the line."""
    file = tmp_path / "keys"
    if line is not None:
        file.write_text(line)
    with pytest.raises(ProfileError, match=message):
        parse(b"", Hj212Part(keys_file=str(file)))
