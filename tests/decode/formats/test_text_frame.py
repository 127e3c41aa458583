"""Frames of text: marks, length, check value, fields."""

from __future__ import annotations

# ruff: noqa: E501 # tables with one case a line
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.text_frame import TextFramePart
from sensegate.errors import ProfileError, Rejected
from tests.decode.formats.compiled import parse_with


def frame(options: dict[str, Any], payload: bytes, charset: str = "utf-8") -> Any:
    return parse_with("text_frame", msgspec.convert(options, TextFramePart), charset)(payload)


GLL = {
    "start": "$",
    "end": "\r\n",
    "check": {"name": "xor8", "before": "*"},
    "separator": ",",
    "fields": [{"name": "type", "equals": "GPGLL"}, {"name": "lat", "type": "number"}, {"name": "ns"}, {"name": "lon", "type": "number"},
               {"name": "ew"}, {"name": "utc"}, {"name": "ok", "equals": ["A", "V"]}],
}  # fmt: skip
SENTENCE = b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n"  # the example of the NMEA 0183 guides

GOOD: list[tuple[dict[str, Any], bytes, dict[str, Any]]] = [
    (GLL, SENTENCE, {"type": "GPGLL", "lat": 5300.97914, "ns": "N", "lon": 259.98174, "ew": "E", "utc": "125926", "ok": "A"}),
    # SDI-12: address, then values with their signs
    ({"end": "\r\n", "signs": True, "fields": [{"name": "address"}, {"repeat": "end", "name": "values", "fields": [{"name": "v", "type": "number"}]}]},
     b"0+3.14-2.718+10\r\n", {"address": "0", "values": [{"v": 3.14}, {"v": -2.718}, {"v": 10}]}),
    # a length before it, CRC-16/MODBUS of "123456789" behind it
    ({"start": "##", "length": {"digits": 4}, "check": {"name": "CRC-16/MODBUS"}, "fields": [{"name": "a", "width": 5}, {"name": "b", "width": 4, "type": "int"}]},
     b"##0009123456789" + b"4B37", {"a": "12345", "b": 6789}),
    ({"start": "<", "length": {"digits": 1}, "check": {"name": "sum8", "length": True}, "fields": [{"name": "a", "width": 1}]}, b"<1A72", {"a": "A"}),
    ({"start": "<", "length": {"digits": 1}, "check": {"name": "sum8", "start": True}, "fields": [{"name": "a", "width": 1}]}, b"<1AAE", {"a": "A"}),
    ({"start": "#", "length": {"digits": 2, "form": "hex", "less": 2}, "fields": [{"name": "a", "width": 10}]}, b"#0c1234567890", {"a": "1234567890"}),
    # STX text ETX and an XOR of all behind STX, as a byte
    ({"start": "\x02", "check": {"name": "xor8", "form": "raw", "before": "\x03", "mark": True}, "fields": [{"name": "a", "width": 1}]},
     b"\x02A\x03" + bytes([ord("A") ^ 3]), {"a": "A"}),
    ({"check": {"name": "sum8", "form": "decimal", "digits": 3, "before": " "}, "fields": [{"name": "a", "width": 2}]}, b"AB 131", {"a": "AB"}),
    # kinds of fields
    ({"separator": ";", "fields": [{"name": n, "type": "number"} for n in "abcde"]}, b" 1 ;-2.5;;////;1e3", {"a": 1, "b": -2.5, "c": None, "d": "////", "e": 1000.0}),
    ({"separator": ";", "fields": [{"name": "a", "type": "hex"}, {"name": "b", "type": "int"}, {"name": "c", "type": "int"}]}, b"fF;12;1.5", {"a": 255, "b": 12, "c": "1.5"}),
    ({"separator": ",", "fields": [{"name": "t", "prefix": "T=", "suffix": "C", "type": "number"}, {"skip": 2}, {"name": "u", "optional": True}]}, b"T=21.5C,x,y", {"t": 21.5}),
    ({"separator": ",", "fields": [{"repeat": 2, "name": "l", "fields": [{"name": "k"}, {"name": "v", "type": "int"}]}]}, b"a,1,b,2", {"l": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]}),
    ({"separator": ",", "rest": "allow", "end": ["\n", "\r\n"], "fields": [{"name": "a"}]}, b"1,2\r\n", {"a": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "payload", "tree"), GOOD)
def test_fields_become_an_object(options: dict[str, Any], payload: bytes, tree: dict[str, Any]) -> None:
    """Frames as makers and standards print them."""
    assert frame(options, payload) == tree


def test_text_in_the_charset_of_the_rule() -> None:
    """Widths count characters, lengths and checks count bytes."""
    options = {"start": "#", "length": {"digits": 2}, "fields": [{"name": "a", "width": 2}, {"name": "b", "width": 1}]}
    assert frame(options, "#05温度1".encode("gbk"), "gbk") == {"a": "温度", "b": "1"}


REFUSED: list[tuple[dict[str, Any], bytes, str]] = [
    (GLL, SENTENCE[1:], "malformed: the frame does not start with the start mark"),
    (GLL, SENTENCE[:-2], "malformed: the frame does not end with the end mark"),
    (GLL, SENTENCE.replace(b"N", b"S"), "malformed: the xor8 does not match"),
    (GLL, SENTENCE.replace(b"*28", b"*2x"), "malformed: the checksum is not a number"),
    (GLL, SENTENCE.replace(b"*", b"+"), "malformed: there is no checksum at the end"),
    (GLL, b"$*00\r\n", "schema: 'type' is not the required text"),
    (GLL, b"$\r\n", "malformed: there is no checksum at the end"),
    (GLL, b"", "malformed: the frame does not start"),
    ({"separator": ",", "fields": [{"name": "a"}, {"name": "b"}]}, b"1", "malformed: the frame ends before 'b'"),
    ({"separator": ",", "fields": [{"name": "a"}]}, b"1,2,3", "malformed: 2 fields are left over"),
    ({"fields": [{"name": "a", "width": 3}]}, b"12", "malformed: the frame ends before 'a'"),
    ({"fields": [{"name": "a", "width": 3}]}, b"1234", "malformed: 1 characters are left over"),
    ({"fields": [{"skip": 3}]}, b"12", "malformed: the frame ends within skipped fields"),
    ({"start": "#", "length": {"digits": 2}, "fields": [{"name": "a", "width": 3}]}, b"#04123", "malformed: the text has 3 bytes; 4 are announced"),
    ({"start": "#", "length": {"digits": 2}, "fields": [{"name": "a", "width": 3}]}, b"#x4123", "malformed: the length is not a number"),
    ({"start": "#", "length": {"digits": 2}, "fields": [{"name": "a", "width": 3}]}, b"#0", "malformed: the length is not a number"),
    ({"start": "##", "end": "##", "fields": [{"name": "a", "width": 1}]}, b"##", "malformed: the frame is shorter than its markers"),
    ({"separator": ",", "fields": [{"name": "t", "prefix": "T="}]}, b"U=1", "schema: 't' lacks its prefix"),
    ({"separator": ",", "fields": [{"name": "a"}]}, b"\xff", "not_utf8: byte 0 is not valid UTF-8"),
    ({"separator": ",", "fields": [{"repeat": "end", "name": "l", "fields": [{"name": "a"}]}]}, b"," * 5_000, "schema: more than 4096 fields"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "payload", "why"), REFUSED)
def test_frames_that_do_not_fit_are_refused(options: dict[str, Any], payload: bytes, why: str) -> None:
    """Another kind of frame is `schema`, so that another rule may take it; a damaged one is `malformed`."""
    with pytest.raises(Rejected) as refusal:
        frame(options, payload)
    assert str(refusal.value).startswith(why)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fields": []}, "fields: there is no field"),
        ({"fields": [{"name": "a"}]}, "fields.0.width: is required"),
        ({"separator": ",", "fields": [{"name": "a", "width": 3}]}, "fields.0.width: the separator ends the field"),
        ({"separator": ",", "fields": [{"name": "a"}, {"name": "a"}]}, "fields.1.name: 'a' occurs twice"),
        ({"separator": ",", "fields": [{"name": "a", "repeat": 2}]}, "fields.0: `repeat` and `fields` must be given together"),
        ({"separator": ",", "fields": [{"repeat": 2, "fields": [{"name": "a"}]}]}, "fields.0.repeat: a list needs a `name`"),
        ({"separator": ",", "fields": [{"repeat": 0, "name": "l", "fields": [{"name": "a"}]}]}, "fields.0.repeat: a list needs"),
        ({"separator": ",", "fields": [{"repeat": 1, "name": "l", "fields": [{"optional": True}]}]}, "fields.0.fields: the first field"),
        ({"separator": ",", "fields": [{"skip": 0}]}, "fields.0.skip: must stand alone"),
        ({"separator": ",", "signs": True, "fields": [{"name": "a"}]}, "signs: cannot be combined with `separator`"),
        ({"separator": ",", "check": {"name": "sum9"}, "fields": [{"name": "a"}]}, "check.name: unknown checksum 'sum9'; did you mean 'sum8'?"),
        ({"separator": ",", "check": {"name": "sum8", "digits": 0}, "fields": [{"name": "a"}]}, "check.digits: must be from 1 to 18"),
        ({"separator": ",", "check": {"name": "sum8", "form": "decimal"}, "fields": [{"name": "a"}]}, "check.digits: is required"),
        ({"separator": ",", "length": {"digits": 0}, "fields": [{"name": "a"}]}, "length.digits: must be from 1 to 9"),
    ],
)  # fmt: skip
def test_a_wrong_frame_is_told_with_its_key(options: dict[str, Any], why: str) -> None:
    """Errors name the key and what to do."""
    with pytest.raises(ProfileError) as refusal:
        frame(options, b"")
    assert str(refusal.value).startswith(why)


def test_marks_must_be_in_the_charset() -> None:
    """A mark that cannot be written, or a charset in which none can be found, is told at once."""
    with pytest.raises(ProfileError, match="a marker cannot be written in ascii"):
        frame({"start": "é", "fields": [{"name": "a", "width": 1}]}, b"", "ascii")
    with pytest.raises(ProfileError, match="UTF-16"):
        frame({"start": "#", "fields": [{"name": "a", "width": 1}]}, b"", "utf-16")


words = st.text(st.sampled_from("abcXYZ0189.+-/"), max_size=6)


@given(st.lists(words, min_size=1, max_size=6), st.sampled_from([",", ";", "\t", "||"]), st.booleans())
def test_what_was_joined_is_split(fields: list[str], separator: str, checked: bool) -> None:  # noqa: FBT001
    """An encoder of one line agrees, with and without a check value."""
    text = separator.join(fields)
    options: dict[str, Any] = {
        "start": "<",
        "separator": separator,
        "fields": [{"name": f"f{at}"} for at in range(len(fields))],
    }
    payload = "<" + text
    if checked:
        options["check"] = {"name": "sum8", "before": "~"}
        payload += f"~{sum(text.encode()) % 256:02X}"
    assert list(frame(options, payload.encode()).values()) == fields
