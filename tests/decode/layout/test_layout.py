"""Layouts one by one: what each step means, what it refuses, and what is told of a wrong one."""

# ruff: noqa: E501 # tables with one case a line

from __future__ import annotations

from typing import Any

import pytest

from sensegate.decode.frame import PayloadFrame
from sensegate.errors import ProfileError, Rejected
from tests.decode.layout.made import layout

GOOD: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    # order of bytes, signs, widths (two's complement, sign and magnitude, BCD by hand)
    ({"read": [{"name": "a", "type": "s16"}, {"name": "b", "type": "s16", "endian": "little"}]}, "fffe fffe", {"a": -2, "b": -257}),
    ({"read": [{"name": "a", "type": "u24"}, {"name": "b", "type": "s24", "endian": "little"}]}, "010203 feffff", {"a": 66051, "b": -2}),
    ({"read": [{"name": "a", "type": "m16"}, {"name": "b", "type": "m8"}]}, "8005 05", {"a": -5, "b": 5}),
    ({"read": [{"name": "a", "type": "bcd16"}, {"name": "b", "type": "bcd16", "endian": "little"}]}, "1234 1234", {"a": 1234, "b": 3412}),
    ({"read": [{"name": "a", "type": "bcd16"}]}, "ffff", {"a": "ffff"}),
    # IEEE 754: 1.5, -2.0, 0.1 as double
    ({"read": [{"name": "a", "type": "f16"}, {"name": "b", "type": "f32"}]}, "3e00 c0000000", {"a": 1.5, "b": -2.0}),
    ({"read": [{"name": "a", "type": "f64", "endian": "little"}]}, "9a9999999999b93f", {"a": 0.1}),
    # bits: one after the other from either end, and by number
    ({"read": [{"name": "a", "type": "u4"}, {"name": "b", "type": "u12"}]}, "1234", {"a": 1, "b": 0x234}),
    ({"endian": "little", "read": [{"name": "a", "type": "u4"}, {"name": "b", "type": "u12"}]}, "3412", {"a": 4, "b": 0x123}),
    ({"read": [{"name": "a", "type": "s3"}, {"align": True}, {"name": "b", "type": "u8"}]}, "ff07", {"a": -1, "b": 7}),
    ({"read": [{"name": "w", "type": "u16", "bits": {"low": "0-13", "s": "s14-15", "top": 15}}]}, "ce29",
     {"w": 0xCE29, "low": 0x0E29, "s": -1, "top": 1}),
    # texts
    ({"read": [{"name": "a", "type": "ascii", "size": 5}, {"name": "b", "type": "hex", "size": 2}]}, "41420000 20 a55a", {"a": "AB", "b": "a55a"}),
    ({"read": [{"name": "a", "type": "digits", "size": 3, "endian": "little"}]}, "563412", {"a": "123456"}),
    ({"read": [{"name": "a", "type": "gbk", "size": "rest"}]}, "cec2b6c8", {"a": "温度"}),
    ({"read": [{"name": "a", "type": "bytes", "size": 2}]}, "01ff", {"a": [1, 255]}),
    ({"read": [{"name": "a", "type": "ascii", "until": 44}, {"name": "b", "type": "ascii", "size": "$left"}]}, "41422c43", {"a": "AB", "b": "C"}),
    # places of their own, computed, text
    ({"read": [{"name": "last", "type": "u16", "at": -2}, {"name": "first", "type": "u8"}, {"skip": 3}]}, "01020304", {"last": 0x0304, "first": 1}),
    ({"read": [{"name": "_h", "type": "u8"}, {"name": "_l", "type": "u8"}, {"name": "x", "value": "_h * 256 + _l"},
               {"name": "y", "value": "_h / 0"}]}, "0102", {"x": 258, "y": "nan"}),
    ({"read": [{"name": "yy", "type": "bcd8"}, {"name": "_m", "type": "u8"}, {"name": "t", "text": "20{int(yy):02}-{_m:02}"}]}, "2605",
     {"yy": 26, "t": "2026-05"}),
    ({"read": [{"name": "x", "type": "u8", "map": {"0": 10, "1-2": 60}}, {"name": "y", "type": "u8", "map": {"0x10": 1}}]}, "0211", {"x": 60, "y": "nan"}),
    ({"read": [{"name": "a", "value": "$left"}, {"type": "u8"}, {"name": "b", "value": "$at * 10 + $left"}, {"skip": 2}]}, "010203", {"a": 3, "b": 12}),
    # the frame: text around it, length, ports
    ({"encoding": "hex", "read": [{"name": "a", "type": "u16"}]}, b"0a 0B\n".hex(), {"a": 0x0A0B}),
    ({"encoding": "base64", "read": [{"name": "a", "type": "u16"}]}, b"Cgs=".hex(), {"a": 0x0A0B}),
    ({"ports": {2: [{"name": "a", "type": "u8"}], "3, 6-7": [{"name": "b", "type": "u8"}]}}, "05", {"b": 5}),
    ({"ports": {2: [{"name": "a", "type": "u8"}]}, "read": [{"name": "c", "value": "$port"}, {"skip": 1}]}, "05", {"c": 7}),
    ({"rest": "allow", "read": [{"name": "a", "type": "u8"}]}, "05 0000", {"a": 5}),
    # check values: "123456789" has 0x4B37 by CRC-16/MODBUS, sent low byte first
    ({"read": [{"name": "a", "type": "ascii", "size": 9}, {"crc": "CRC-16/MODBUS", "endian": "little"}]}, "313233343536373839 374b", {"a": "123456789"}),
    ({"read": [{"skip": 1}, {"name": "a", "type": "u8"}, {"crc": "xor8", "over": [1, -1]}]}, "ff 05 05", {"a": 5}),
    # branches
    ({"read": [{"name": "_f", "type": "u8"}, {"when": "_f & 1", "read": [{"name": "a", "type": "u8"}]},
               {"when": "bit(_f, 1)", "name": "g", "read": [{"name": "b", "type": "u8"}]}]}, "02 07", {"g": {"b": 7}}),
    ({"read": [{"when": "$left >= 2", "read": [{"name": "a", "type": "u16"}]}]}, "", {}),
    ({"read": [{"name": "t", "type": "u8"}, {"switch": "t", "cases": {1: [{"name": "a", "type": "u8"}]}, "default": "skip"}]}, "02", {"t": 2}),
    ({"read": [{"name": "t", "type": "ascii", "size": 1}, {"switch": "t", "cases": {"A": [{"name": "a", "type": "u8"}]}}]}, "4107", {"t": "A", "a": 7}),
    # after a switch in which all cases read it, a name is certain
    ({"read": [{"name": "_t", "type": "u8"},
               {"switch": "_t", "cases": {1: [{"name": "n", "type": "u8"}], 2: [{"name": "n", "type": "u16"}]}},
               {"name": "m", "value": "n + 1"}]}, "02 0100", {"n": 256, "m": 257}),
    # repeats: counted, to an end, of bits
    ({"read": [{"repeat": "end", "leave": 1, "name": "l", "read": [{"name": "v", "type": "u8"}, {"name": "age", "value": "$index * 600"}]}, {"skip": 1}]},
     "0506 ff", {"l": [{"v": 5, "age": 0}, {"v": 6, "age": 600}]}),
    ({"read": [{"repeat": 2, "name": "l", "read": [{"name": "v", "type": "u12"}]}]}, "123456", {"l": [{"v": 0x123}, {"v": 0x456}]}),
    ({"read": [{"repeat": 3, "name": "l", "read": [{"name": "v", "type": "u4"}]}]}, "1230", {"l": [{"v": 1}, {"v": 2}, {"v": 3}]}),
    ({"endian": "little", "read": [{"repeat": "end", "name": "l", "read": [{"name": "v", "type": "u12"}]}]}, "236145", {"l": [{"v": 0x123}, {"v": 0x456}]}),
    ({"read": [{"repeat": "end", "read": [{"name": "_c", "type": "u8"}, {"name": "_t", "type": "u8"},
               {"switch": "_t", "cases": {"0x67": [{"name": "temperature_{_c}", "type": "s16"}]}}]}]}, "01 67 0110 05 67 ff38",
     {"temperature_1": 272, "temperature_5": -200}),  # Cayenne LPP's own example, in tenths
    ({"read": [{"name": "_c", "type": "u8"}, {"name": "g{_c}", "read": [{"name": "a", "type": "u8"}]}]}, "0705", {"g7": {"a": 5}}),
    # tags
    ({"read": [{"tlv": "u8", "cases": {1: [{"name": "a", "type": "u8"}], "0x02": [{"name": "b", "type": "u16"}]}}]}, "02 0100 01 05", {"b": 256, "a": 5}),
    ({"read": [{"tlv": "u8", "length": "u8", "default": "skip", "cases": {1: [{"name": "a", "type": "u8"}]}}]}, "09 03 aabbcc 01 01 05", {"a": 5}),
    ({"read": [{"tlv": "u8", "default": "stop", "cases": {1: [{"name": "a", "type": "u8"}]}}]}, "01 05 ff 00", {"a": 5}),
    ({"read": [{"tlv": "u8", "twice": "last", "cases": {1: [{"name": "a", "type": "u8"}]}}]}, "01 05 01 06", {"a": 6}),
    ({"read": [{"tlv": "u8", "cases": {1: [{"append": "h", "read": [{"name": "a", "type": "u8"}]}]}}]}, "01 05 01 06", {"h": [{"a": 5}, {"a": 6}]}),
    # a name for expressions may be read again; what was computed keeps its value
    ({"read": [{"name": "_x", "type": "u8"}, {"name": "a", "value": "_x"}, {"name": "_x", "type": "u8"}, {"name": "b", "value": "_x"}]}, "0102", {"a": 1, "b": 2}),
]  # fmt: skip


def plain(tree: Any) -> Any:
    """Return a tree in which NaN is a word."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return "nan" if isinstance(tree, float) and tree != tree else tree  # noqa: PLR0124 # NaN is not itself


@pytest.mark.parametrize(("options", "data", "tree"), GOOD)
def test_steps_mean_what_they_say(options: dict[str, Any], data: str, tree: dict[str, Any]) -> None:
    """Each kind of step, with bytes written by hand."""
    result = layout(**options)(PayloadFrame(bytes.fromhex(data), 16, port=7))
    assert plain(result) == tree


BYTE = {"name": "a", "type": "u8"}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"read": [BYTE, {"name": "b", "type": "u16"}]}, "0102", "malformed: the frame ends at byte 2; 'b' needs bytes 1 to 2"),
    ({"read": [BYTE]}, "", "malformed: the frame ends at byte 0; 'a' needs bytes 0 to 0"),
    ({"read": [BYTE]}, "0102", "malformed: 1 bytes are left over at byte 1"),
    ({"length": 2, "read": [BYTE, {"skip": 1}]}, "01", "schema: 1 bytes, not 2 bytes"),
    ({"length": [1, 2], "rest": "allow", "read": [BYTE]}, "010203", "schema: 3 bytes, not 1 to 2 bytes"),
    ({"read": [{**BYTE, "equals": 2}]}, "01", "schema: 'a' is 1, not 2"),
    ({"read": [{**BYTE, "equals": [2, "0x03"], "reason": "malformed"}]}, "01", "malformed: 'a' is 1, not 2 or 0x03"),
    ({"read": [{**BYTE, "equals": "$size - 1"}, {"skip": 1}]}, "0300", "schema: 'a' is 3, not $size - 1"),
    ({"read": [{"type": "hex", "size": 2, "equals": "a55a"}]}, "a55b", "schema: the hex of step 0 is not a55a"),
    ({"read": [{"type": "u8", "equals": 1}, BYTE]}, "02", "schema: the u8 of step 0"),  # before what is missing after it
    ({"read": [{"skip": 2}, {"crc": "CRC-16/MODBUS"}]}, "0102 0000", "malformed: CRC-16/MODBUS does not match"),
    ({"read": [{"skip": 2}, {"crc": "CRC-16/MODBUS"}]}, "0102 00", "malformed: the frame ends at byte 3; the CRC-16/MODBUS needs"),
    ({"read": [{"name": "a", "type": "ascii", "size": 1}]}, "ff", "malformed: a text is not valid ascii"),
    ({"read": [{"name": "a", "type": "digits", "size": 1}]}, "a0", "malformed: a decimal digit is above 9"),
    ({"read": [{"name": "a", "type": "ascii", "until": 0}]}, "4142", "malformed: 'a' is not terminated"),
    ({"read": [BYTE, {"name": "b", "type": "hex", "size": "a"}]}, "05 00", "malformed: size of 5 is more than available (1)"),
    ({"read": [BYTE, {"name": "b", "type": "hex", "size": "a - 9"}]}, "05 00", "malformed: size is not a count"),
    ({"read": [BYTE, {"skip": "a / 2"}]}, "01 00", "malformed: skip is not a count"),
    ({"read": [BYTE, {"when": "1 / a", "read": [{"skip": 1}]}]}, "00", "malformed: 1 / a cannot be computed"),
    ({"read": [{"name": "b", "type": "u16", "at": 3}, {"skip": 1}]}, "01", "malformed: 'b' is outside of the frame"),
    ({"read": [BYTE, {"switch": "a", "cases": {1: [{"skip": 1}]}}]}, "02 00", "schema: a is not described: 2"),
    ({"read": [{"tlv": "u8", "cases": {1: [BYTE]}}]}, "0105 02", "schema: u8 tag is not described: 2"),
    ({"read": [{"tlv": "u8", "cases": {1: [BYTE]}}]}, "0105 0106", "schema: 'a' occurs twice"),
    ({"read": [{"tlv": "u8", "length": "u8", "cases": {1: [BYTE]}}]}, "01 02 05 06", "malformed: 1 bytes are left over"),
    ({"read": [{"tlv": "u8", "length": "u8", "cases": {1: [BYTE]}}]}, "01 09 05", "malformed: the frame ends at byte 3; the value of a tag"),
    ({"read": [{"within": 2, "read": [{"name": "b", "type": "u24"}]}, {"skip": 1}]}, "010203", "malformed: the frame ends at byte 2; 'b'"),
    ({"read": [{"repeat": "end", "name": "l", "read": [{"name": "v", "value": 1}]}]}, "01", "schema: too many elements"),
    ({"read": [BYTE, {"repeat": "a * 99", "name": "l", "read": [{"name": "v", "value": 1}]}]}, "ff", "malformed: repeat of 25245"),
    ({"read": [{"repeat": "end", "name": "l", "read": [{"name": "v", "type": "u21"}]}]}, "0102030405", "malformed: 2 bytes are left over"),
    ({"ports": {2: [BYTE]}}, "05", "schema: no layout for port 7"),
    ({"encoding": "hex", "read": [BYTE]}, b"0".hex(), "malformed: the payload is not hexadecimal text"),
    ({"encoding": "hex", "read": [BYTE]}, "ff", "malformed: the payload is not hexadecimal text"),
    ({"encoding": "base64", "read": [BYTE]}, b"Cg".hex(), "malformed: the payload is not base64 text"),
    ({"read": [{"name": "_n", "type": "ascii", "size": 2}, {"name": "x{_n}", "type": "u8"}]}, "0141 05", "schema: a computed name"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "data", "why"), REFUSED)
def test_frames_that_do_not_fit_are_refused_with_the_reason(options: dict[str, Any], data: str, why: str) -> None:
    """The refusal says what was missing or wrong, and where; the quick way refuses the same frames."""
    made = layout(**options)
    with pytest.raises(Rejected) as refusal:
        made(PayloadFrame(bytes.fromhex(data), 16, port=7))
    assert str(refusal.value).startswith(why)
    if made.columnar and "twice" not in why:
        with pytest.raises(Rejected):
            made.flatten(bytes.fromhex(data), 7)


def test_a_frame_without_port_has_no_layout_by_port() -> None:
    """What carries no port cannot be told apart by it."""
    with pytest.raises(Rejected, match="without port"):
        layout(ports={2: [BYTE]})(PayloadFrame(b"1", 16))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "there are no steps"),
    ({"read": [{}]}, "read.0: the step is empty"),
    ({"read": [{"name": "a"}]}, "read.0: the step is empty"),
    ({"read": [{"type": "u8", "value": 1}]}, "read.0.value: `type` and `value` in one step"),
    ({"read": [{"type": "u8", "cases": {1: []}}]}, "read.0.cases: has no meaning with `type`"),
    ({"read": [{"type": "int16", "name": "a"}]}, "read.0.type: there is no type 'int16'; did you mean 's16'?"),
    ({"read": [{"type": "u65"}]}, "read.0.type: there is no type 'u65'"),
    ({"read": [{"type": "f24"}]}, "read.0.type: there is no type 'f24'; f16 f32 f64"),
    ({"read": [{"type": "bcd7"}]}, "read.0.type: there is no type 'bcd7'"),
    ({"read": [{"type": "s1"}]}, "read.0.type: there is no type 's1'"),
    ({"read": [{"type": "u8", "size": 2}]}, "read.0.size: is allowed with text types"),
    ({"read": [{"name": "a", "type": "ascii"}]}, "read.0: the size is missing"),
    ({"read": [{"name": "a", "type": "ascii", "size": 0}]}, "read.0.size: must be from 1 to 1048576"),
    ({"read": [{"name": "a", "type": "ascii", "size": 2**63}]}, "read.0.size: must be from 1 to 1048576"),
    ({"read": [{"name": "a", "type": "bytes", "size": 1, "equals": 1}]}, "read.0.type: cannot be compared"),
    ({"read": [{"type": "s8", "bits": {"a": 0}}]}, "read.0.bits: only an unsigned integer can have `bits`"),
    ({"read": [{"type": "u8", "bits": {"a": 8}}]}, "read.0.bits.a: the integer has bits 0 to 7"),
    ({"read": [{"type": "u8", "bits": {"a": "x"}}]}, "read.0.bits.a: write a bit (7)"),
    ({"read": [{"type": "u8", "bits": {"a": "s3"}}]}, "read.0.bits.a: a single bit cannot be signed"),
    ({"read": [{"type": "u4"}]}, "read.0: the element before ends within a byte; {align: true}, or {type: u4}"),
    ({"read": [{"type": "u4"}, {"skip": 1}]}, "read.1: the element before ends within a byte"),
    ({"read": [{"type": "u4"}, {"type": "u4", "endian": "little"}]}, "read.1.type: shares a byte"),
    ({"read": [{"type": "u4"}, {"type": "f16"}, {"type": "u4"}]}, "read.1.type: must not start within a byte"),
    ({"read": [BYTE, BYTE]}, "read.1.name: 'a' occurs twice"),
    ({"read": [BYTE, {"type": "u8", "bits": {"a": 1}}]}, "read.1.bits.a: 'a' occurs twice"),
    ({"read": [BYTE, {"name": "a", "read": [BYTE]}]}, "read.1.read: 'a' occurs twice"),
    ({"read": [{"name": "x", "value": "a + 1"}]}, "read.0.value: 'a' is not certain to have been read here"),
    ({"read": [{"when": 1, "read": [BYTE]}, {"name": "x", "value": "a + 1"}]}, "read.1.value: 'a' is not certain"),
    ({"read": [BYTE, {"name": "x", "value": "a +"}]}, "read.1.value: 'a +' is not an expression"),
    ({"read": [BYTE, {"name": "x", "value": "__import__('os')"}]}, "read.1.value: there is no function '__import__'"),
    ({"read": [BYTE, {"name": "x", "value": "a.real"}]}, "read.1.value: 'a.real' is not allowed"),
    ({"read": [BYTE, {"name": "x", "value": "$inde"}]}, "read.1.value: there is no '$inde' here"),
    ({"read": [BYTE, {"value": "a"}]}, "read.1: the value has no name"),
    ({"read": [BYTE, {"name": "x", "text": "{a"}]}, "read.1.text: a brace is not closed"),
    ({"read": [BYTE, {"name": "x", "text": "{a:>9}"}]}, "read.1.text: '{a:>9}'; {name}"),
    ({"read": [BYTE, {"name": "x", "text": "{a / 2}"}]}, "read.1.text: '{a / 2}' must be an integer or text"),
    ({"read": [BYTE, {"switch": "a"}]}, "read.1.cases: there is no case"),
    ({"read": [BYTE, {"switch": "a", "cases": {1: [], "0x01": []}}]}, "read.1.cases.0x01: the value occurs twice"),
    ({"read": [BYTE, {"switch": "a", "cases": {"x": []}}]}, "read.1.cases.x: 'x' is not a number"),
    ({"read": [BYTE, {"switch": "a", "cases": {1: [{"type": "u99"}]}}]}, "read.1.cases.1.0.type: there is no type 'u99'"),
    ({"read": [BYTE, {"switch": "a", "cases": {1: []}, "default": "stop"}]}, "read.1.default: has no meaning"),
    ({"read": [{"tlv": "s8", "cases": {1: []}}]}, "read.0.tlv: must be u8"),
    ({"read": [{"tlv": "u8", "cases": {1: []}, "default": "skip"}]}, "read.0.default: without `length`"),
    ({"read": [{"tlv": "u8", "cases": {1: []}, "rest": "allow"}]}, "read.0.rest: is allowed with `length`"),
    ({"read": [{"repeat": 2, "leave": 1, "read": [BYTE]}]}, "read.0.leave: is allowed with `repeat: end`"),
    ({"read": [{"repeat": -1, "read": [BYTE]}]}, "read.0.repeat: must not be negative"),
    ({"read": [{"repeat": 2}]}, "read.0: there are no inner steps"),
    ({"read": [{"crc": "CRC-16/MODBUSS"}]}, "read.0.crc: there is no checksum 'CRC-16/MODBUSS'; did you mean 'CRC16-MODBUS'?"),
    ({"read": [{"crc": "sum8", "over": [1]}]}, "read.0.over: must be two bounds"),
    ({"read": [BYTE], "length": [3, 2]}, "length: the lower bound must not be above the upper"),
    ({"ports": {1: [BYTE], "1-2": [BYTE]}}, "ports.1-2: a port occurs twice"),
    ({"read": [{"append": "_x", "read": [BYTE]}]}, "read.0.append: the name of a list must be plain"),
    ({"read": [{"name": "_x", "read": [BYTE]}]}, "read.0.name: the name of an object must not start with _"),
    ({"read": [{"skip": 0}]}, "read.0.skip: must be from 1 to 1048576"),
    ({"read": [{"skip": 2**63 - 1}, {"name": "a", "type": "u8"}]}, "read.0.skip: must be from 1 to 1048576"),
    ({"read": [{"name": "a", "type": "ascii", "until": 256}]}, "read.0.until: a byte must be 0 to 255"),
    ({"read": [{**BYTE, "map": {"0-1": 1, 1: 2}}]}, "read.0.map.1: the value occurs twice"),
    ({"read": [{**BYTE, "equals": "x y"}]}, "read.0.equals: 'x y' is not an expression"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "why"), WRONG)
def test_a_wrong_layout_is_told_with_its_key(options: dict[str, Any], why: str) -> None:
    """The error names the key, what is wrong, and where it can, what to write."""
    with pytest.raises(ProfileError) as refusal:
        layout(**options)
    assert str(refusal.value).startswith(why)


def test_layouts_are_not_nested_without_bound() -> None:
    """Depth and number of steps have limits, also where Python's own would be reached first."""
    step: dict[str, Any] = BYTE
    for _ in range(20):
        step = {"when": 1, "read": [step]}
    with pytest.raises(ProfileError, match="deep"):
        layout(read=[step])
    with pytest.raises(ProfileError, match="more than 2000 steps"):
        layout(read=[{"skip": 1}] * 2_001)
    step = BYTE
    for _ in range(15):
        step = {"switch": 1, "cases": {at: [] for at in range(79)} | {79: [step]}}
    with pytest.raises(ProfileError, match="deep"):
        layout(read=[step])


def test_words_of_the_profile_are_data_in_the_source() -> None:
    """Names, texts and marks with quotes and braces stand in the generated source as they are, and run nothing."""
    odd = '\'); raise SystemExit(1) #\\\n"""'
    made = layout(
        read=[
            {"name": odd, "type": "u8", "equals": 5},
            {"name": "x", "type": "ascii", "size": 1, "equals": "{evil}"},
        ]
    )
    with pytest.raises(Rejected, match=r"schema: 'x' is not \{evil\}"):
        made(PayloadFrame(b"\x05A", 16))
