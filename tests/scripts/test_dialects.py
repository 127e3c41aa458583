"""Scripts in the shapes and dialects that makers publish. They are ours; the expected values follow from the layouts.

Each script stands in `codecs/`. Every case is decoded several times among others of its kind, so that what a script
does to its room would show.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import pytest

from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.wire import CallResult, ScriptSource
from tests.scripts.conftest import CODECS, ask, source_of


class Case(NamedTuple):
    """A frame for a script, and what must come of it."""

    file: str
    hex: str
    port: int
    data: Any
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Refusal(NamedTuple):
    """A frame that a script must not take."""

    file: str
    hex: str
    port: int
    kind: str
    text: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def text(words: str) -> str:
    """Return the hex of a text."""
    return words.encode().hex()


CASES = [
    Case("es5_ladder.js", "08CA 5B 0E10", 1, {"temperature": 22.5, "humidity": 45.5, "battery": 3.6}),
    Case("es5_ladder.js", "FF9C 00 0001", 1, {"temperature": -1, "humidity": 0, "battery": 0.001}),
    Case("es5_ladder.js", "01 0100", 2, {"door": "open", "count": 256}),
    Case("es5_ladder.js", "", 9, {"unknown": 9}),
    Case("ttn_v2.js", "3412 F6", 5, {"level": 0x1234, "tilt": -10, "port": 5}),
    Case("ts013.js", "018BCD 64", 10, {"pressure": 1013.25, "battery": 100}),
    Case("ts013.js", "018BCD 05", 10, {"pressure": 1013.25, "battery": 5}, ("low battery",)),
    Case("raw_decode.js", "09C4", 2, {"current": 2.5, "phase": "L2"}),
    Case("module_object.js", "15", 1, {"value": 42}),
    Case("module_function.js", "0102FF", 3, {"sum": 258, "port": 3}),
    Case("exports_arrow.js", "07", 4, {"first": 7, "port": 4}),
    Case(
        "es2020.js",
        "01 00D7 03 01 02 00000000000003E8",
        7,
        {"temperature": 21.5, "mode": "run", "pulses": 1000, "tags": "pulses", "exponent": 8, "port": 7},
    ),
    Case("es2020.js", "02 FFFFFFFFFFFFFFFE", -1, {"pulses": -2, "tags": "pulses", "exponent": 8, "port": None}),
    Case("classes.js", "01 7F 80 FF", 1, {"values": [1, 127, -128, -1]}),
    Case("own_prototype.js", "0102", 1, {"big": 258, "little": 513, "where": "cursor at 2", "own": True}),
    Case("language_prototype.js", "FF38", 1, {"value": 6533.6, "signed": -200, "text": "cba", "starts": True}),
    Case(
        "dates.js",
        "65920080 0A 1A 02 03",
        1,
        {
            "sent": "2024-01-01T00:00:00.000Z",
            "weekday": "Mo",
            "measured": "2026-03-01T11:50:00.000Z",
            "local": "2026-02-03T08:30:00.000Z",
            "date": "2026-02-03T08:30:00.000Z",
            "isDate": True,
            "hours": 8.5,
        },
    ),
    Case(
        "clock.js",
        "05",
        1,
        {"value": 5, "timestamp": 1772366400000, "at": "2026-03-01T12:00:00.000Z", "text": "string", "year": 2026},
    ),
    Case("text_decoder.js", text("深度=1.25"), 1, {"深度": 1.25, "length": 11}),
    Case(
        "typed_arrays.js",
        "41AC0000 0000C0BF 400A000000000000 FF02",
        1,
        {"big": 21.5, "little": -1.5, "double": 3.25, "words": [0x41AC, 0], "clamped": [255, 0, 8], "signed": 1},
    ),
    Case("float_by_hand.js", "0000AC41 0000C0BF", 1, {"flow": 21.5, "total": -1.5}),
    # The next three are the examples of the Cayenne LPP documentation (LORA.md, Cayenne LPP data types).
    Case("lpp.js", "03670110 056700FF", 1, {"temperature_3": 27.2, "temperature_5": 25.5}),
    Case("lpp.js", "067104D2FB2E0000", 1, {"accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0}}),
    Case(
        "lpp.js",
        "018806765FF2960A0003E8",
        1,
        {"gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10}},
    ),
    Case("channel_type.js", "01755C 03673401 046865", 85, {"battery": 92, "temperature": 30.8, "humidity": 50.5}),
    Case(
        "channel_type.js",
        "20CE800092650BFF",
        85,
        {"history": [{"timestamp": 1704067200, "temperature": -24.5}]},
        options={"entry": "Decode"},
    ),
    Case("channel_type.js", "01755C", 85, {"battery": 92}, options={"entry": "Decoder"}),
    Case("channel_type.js", "01755C", 85, {"battery": 92}, options={"entry": "deviceDecode", "arguments": ("bytes",)}),
    Case(
        "bits.js",
        "80000001 ABCDEF FFFFFE 05",
        1,
        {
            "word": 2147483649,
            "signed": -2147483647,
            "twelve": 0xABC,
            "second": 0xDEF,
            "int24": -2,
            "flags": [True, False, True, False],
            "inverted": 0xFA,
            "parity": 0,
        },
    ),
    Case(
        "regular_expressions.js",
        text("#AB12;t=21.5C;h=40%"),
        1,
        {"id": "AB12", "t": 21.5, "t_unit": "C", "h": 40, "h_unit": "%", "words": 5, "all": 4},
    ),
    Case(
        "hex_strings.js",
        "01A2B3C4 00FA 05",
        1,
        {"serial": "01A2B3C4", "value": 25, "little": 0x05FA, "bits": "00000101", "label": "n°0"},
    ),
    Case("json_payload.js", text('{"v":[1,2,3.5],"n":"x"}'), 1, {"n": "x", "sum": 6.5}),
    # 0x6666 is two fifths of 65535, 0x9999 three fifths: 175 × 0.4 − 45, 100 × 0.6.
    Case(
        "flag_groups.js",
        "02 1234 0006 6666 9999 0BB8",
        1,
        {"protocol_version": 2, "device_id": 0x1234, "temperature": 25, "humidity": 60, "battery_voltage": 3},
    ),
    Case("bcd_meter.js", "68 78563412 45230100 06", 1, {"meter": "12345678", "volume": 123.45, "valve": 2}),
    Case("undeclared.js", "010203", 1, {"total": 6, "last": "v2"}),
    Case("undeclared.js", "07", 1, {"total": 7, "last": "v0"}),
    Case("generators.js", "01 02 00FA 02 01 07 09 01 05", 1, {"depth": 2.5, "speed": 7, "tag_9": 5}),
    Case("umd.js", "09", 1, {"value": 9, "seen": 1, "version": "1.2"}),
    Case("strict.js", "42", 1, {"letter": "B", "who": True, "failed": "ReferenceError"}),
    Case(
        "node_buffer.js",
        "9CFF 41AC0000 0102",
        1,
        {
            "le": -100,
            "be": 0x9CFF,
            "float": 21.5,
            "hex": "0102",
            "base64": "AQI=",
            "text": "Hej",
            "three": 258,
            "length": 10,
        },
    ),
    Case("normalised.js", "1528", 1, {"tmp": 21, "hum": 40}),
    Case("normalised.js", "156E", 1, {"tmp": 21, "hum": 110}, ("wet",)),
    Case(
        "normalised.js",
        "1528",
        1,
        {"air": {"temperature": 21, "relativeHumidity": 40}},
        options={"take": "normalized"},
    ),
    Case(
        "normalised.js",
        "466E",
        1,
        {
            "data": {"tmp": 70, "hum": 110},
            "normalized": {"air": {"temperature": 70, "relativeHumidity": 110}},
        },
        ("wet", "hot"),
        {"take": "both"},
    ),
    Case(
        "with_variables.js",
        "0A",
        1,
        {"level": 11.5, "place": "A"},
        options={"variables": '{"offset":"1.5","place":"A"}'},
    ),
    Case("getters.js", "0A00", 1, {"total": 2, "reading": {"value": 5, "kind": "reading"}, "none": None}),
    Case(
        "es3_oddities.js",
        "0A",
        1,
        {"factorial": 120, "area": 31, "octal": 8, "text": "a%20bundefined", "cases": 2, "i": "undefined"},
    ),
    Case("measurements.js", "01 00FA 02 0014", 1, [{"field": "S1", "value": 25}, {"field": "S2", "value": 2}]),
    Case(
        "unusual_numbers.js",
        "00",
        1,
        {
            "nan": "\0NaN",
            "infinite": "\0Infinity",
            "negative": "\0-Infinity",
            "zero": 0,
            "big": 2**40,
            "huge": 1e21,
            "tiny": 1e-7,
            "none": None,
        },
    ),
    Case("top_level_object.js", "0102", 1, {"first": 1, "last": 2}),
    Case("top_level_object.js", "05", 1, {"last": 5}),
    Case("base64_text.js", text("SGVq"), 1, {"text": "Hej", "again": "SGVq", "uri": "北"}),
    # The frame and its CRC are the example of Wikipedia's article on Modbus.
    Case("crc_table.js", "010402FFFFB880", 1, {"address": 1, "value": 65535}),
]

REFUSALS = [
    Refusal("ts013.js", "018BCD", 10, "script_refused", "expected 4 bytes, got 3"),
    Refusal("ts013.js", "018BCD64", 1, "script_refused", "unknown FPort"),
    Refusal("es2020.js", "77", 1, "script_refused", "unknown tag at 0"),
    Refusal("lpp.js", "01FF00", 1, "script_failed", "lpp.js: Sensor type error!: 255"),
    Refusal("regular_expressions.js", text("x"), 1, "script_refused", "no id in 'x'"),
    Refusal("flag_groups.js", "01 1234 0000", 1, "script_refused", "protocol version 1 doesn't match v2"),
    Refusal("bcd_meter.js", "00", 1, "script_failed", "bcd_meter.js:7: Error: no start byte"),
    Refusal("json_payload.js", text("{"), 1, "script_failed", "json_payload.js:4: SyntaxError: "),
    Refusal("normalised.js", "157A", 1, "script_refused", "humidity out of range", {"take": "normalized"}),
    Refusal("crc_table.js", "010402FFFFB881", 1, "script_refused", "CRC"),
    Refusal("node_buffer.js", "01", 1, "script_failed", 'The value of "offset" is out of range'),
]


def codec(case: Case | Refusal) -> ScriptSource:
    """Return the script of a case."""
    return source_of((CODECS / case.file).read_text(encoding="utf-8"), file=case.file, **case.options)


def result(outcome: CallResult) -> Any:
    """Return what the script returned."""
    assert not outcome.kind, outcome
    return msgspec.json.decode(outcome.text)


@pytest.fixture(scope="module")
def outcomes(scripts: ScriptPool) -> list[list[CallResult]]:
    """What came of all cases and refusals, asked for three times over, all scripts mixed."""
    everything: list[Case | Refusal] = [*CASES, *REFUSALS]
    asks = [ask(codec(case), bytes.fromhex(case.hex), case.port) for case in everything]
    return [scripts.run(asks), scripts.run(asks[::-1])[::-1], scripts.run(asks)]


@pytest.mark.parametrize("at", range(len(CASES)), ids=lambda at: f"{CASES[at].file}-{CASES[at].hex.replace(' ', '')}")
def test_a_dialect_decodes_as_its_layout_says(at: int, outcomes: list[list[CallResult]]) -> None:
    """Data and warnings are those of the layout, whenever and after whatever else the frame is decoded."""
    case = CASES[at]
    for outcome in outcomes:
        observed = result(outcome[at])
        assert same(observed["d"], case.data), observed
        assert tuple(observed.get("w", ())) == case.warnings


@pytest.mark.parametrize("at", range(len(REFUSALS)), ids=lambda at: f"{REFUSALS[at].file}-{REFUSALS[at].kind}-{at}")
def test_a_dialect_refuses(at: int, outcomes: list[list[CallResult]]) -> None:
    """Errors of the script refuse the frame, with its words, and the line where it has one."""
    case = REFUSALS[at]
    for entry in outcomes:
        outcome = entry[len(CASES) + at]
        assert outcome.kind == case.kind
        assert case.text in outcome.text


def test_every_script_of_the_folder_is_used() -> None:
    """No script stands there for show, and there are enough of them."""
    used = {case.file for case in CASES}
    assert used == {path.name for path in CODECS.glob("*.js")}
    assert len(used) >= 25


def test_the_comparison_can_fail() -> None:
    """A value that differs in its last places but one, or its kind, is another value."""
    assert same({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not same({"a": 22.5}, {"a": 22.51})
    assert not same({"a": 1}, {"a": True})
    assert not same({"a": 1}, {"a": 1, "b": 2})


def same(value: Any, wanted: Any) -> bool:
    """Return whether two trees are the same but for the last digits of a division."""
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict) and value.keys() == wanted.keys() and all(same(value[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(same, value, wanted))
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isclose(value, wanted, rel_tol=1e-12)
        )
    return type(value) is type(wanted) and bool(value == wanted)
