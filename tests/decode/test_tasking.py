"""Tasks of a profile: what may be said, what is sent, and mistakes in the file by line and key."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authoring.examples import check_profile
from sensegate.decode import tasking
from sensegate.decode.grammar import LabelPart, ParameterPart, TaskPart
from sensegate.errors import ConfigError

LABEL = LabelPart(zh="间隔", en="interval")
PROFILE = """
profile: acme/a1
version: 1
label: {zh: 甲, en: a}
source: of this test
TASKS
messages:
  - topics: ["acme/{device}/up"]
    readings:
      - {field: i, property: report_interval}
      - {field: mode, property: state}
examples:
  - {label: good, topic: acme/d1/up, payload: {"i": 5}, expect: [{property: report_interval, value: 5}]}
  - {label: bad, topic: acme/d1/up, payload: "{", refuse: malformed}
"""
GOOD = """tasks:
  - name: interval
    label: {zh: 间隔, en: interval}
    topic: acme/{device}/set
    hex: "01 {n:u16be} ff"
    parameters:
      n: {label: {zh: 间隔, en: interval}, kind: integer, unit: s, range: [1, 600]}
    confirm: {property: report_interval, equals: "{n}"}
    examples:
      - {parameters: {n: 258}, topic: acme/d1/set, hex: "01 01 02 ff"}
      - {parameters: {n: 601}, refuse: true}
"""


def task(**more: Any) -> TaskPart:
    """Return a task with one parameter `n`."""
    return msgspec.convert({"name": "t", "label": {"zh": "", "en": ""}, **more}, TaskPart)


def number(low: float, high: float) -> dict[str, Any]:
    """Return the parameter `n` as an integer within bounds."""
    return {"n": {"label": {"zh": "", "en": ""}, "kind": "integer", "range": [low, high]}}


@given(st.integers(-(2**15), 2**15 - 1), st.sampled_from(["i16be", "i16le", "i32be", "i64le"]))
def test_numbers_in_hex(n: int, form: str) -> None:
    """What is sent is what the device reads back, with the constant bytes around it."""
    made = tasking.encode_payload(task(hex=f"aa {{n:{form}}} bb", parameters=number(-(2**15), 2**15)), {"n": n})
    code = {"i16be": ">h", "i16le": "<h", "i32be": ">i", "i64le": "<q"}[form]
    assert made[:1] == b"\xaa"
    assert made[-1:] == b"\xbb"
    assert struct.unpack(code, made[1:-1]) == (n,)


def test_a_number_without_room() -> None:
    """It is refused, never cut."""
    with pytest.raises(ConfigError, match="does not fit into u8"):
        tasking.encode_payload(task(hex="{n:u8}", parameters=number(0, 300)), {"n": 256})


@given(st.text(min_size=1, max_size=20).filter(str.isprintable))
def test_a_text_cannot_break_out_of_json(text: str) -> None:
    """Whatever is said stands in its place as a text."""
    part = task(json={"set": {"name": "{n}"}, "also": "<{n}>"}, parameters={"n": {"label": LABEL, "kind": "text"}})
    made = json.loads(tasking.encode_payload(part, tasking.validate_parameters(part, {"n": text})))
    assert made == {"set": {"name": text}, "also": f"<{text}>"}


@pytest.mark.parametrize("payload", [True, "5", 5.5, float("nan"), float("inf"), 0, 601])
def test_what_is_no_such_number(payload: Any) -> None:
    """Another kind, no whole number, none at all, out of range."""
    with pytest.raises(ConfigError, match="integer from 1 to 600"):
        tasking.validate_parameters(task(hex="{n:u16be}", parameters=number(1, 600)), {"n": payload})


@pytest.mark.parametrize("payload", ["", "a\x00b", "a\nb", "x" * 65])
def test_what_is_no_such_text(payload: str) -> None:
    """Empty, with control characters, too long."""
    with pytest.raises(ConfigError, match="printable"):
        tasking.validate_parameters(
            task(text="{n}", parameters={"n": {"label": LABEL, "kind": "text"}}), {"n": payload}
        )


def test_words_and_defaults() -> None:
    """Words are what people say; 1 is not true."""
    part = ParameterPart(label=LABEL, kind="boolean", words={True: "ON", False: "OFF"}, default=False)
    changed = msgspec.structs.replace(task(text="{n}"), parameters={"n": part})
    assert tasking.encode_payload(changed, tasking.validate_parameters(changed, {})) == b"OFF"
    assert tasking.encode_payload(changed, tasking.validate_parameters(changed, {"n": True})) == b"ON"
    with pytest.raises(ConfigError, match="one of: True, False"):
        tasking.validate_parameters(changed, {"n": 1})


@pytest.mark.parametrize(
    ("wanted", "tolerance", "value", "text", "shown"),
    [
        (5, 0.0, 5.0, None, True),
        (5, 0.0, 5.1, None, False),
        (5, 0.2, 5.1, None, True),
        (True, 0.0, 1.0, None, True),
        ("auto", 0.0, 0.0, "auto", True),
        ("auto", 0.0, 0.0, "off", False),
        ("auto", 0.0, 1.0, None, False),
    ],
)
def test_confirmation(wanted: Any, tolerance: float, value: float, text: str | None, *, shown: bool) -> None:
    """A reading confirms by its value, within the tolerance, or by its text."""
    assert tasking.confirms(wanted, tolerance, value, text) is shown


def checked(tmp_path: Path, tasks: str) -> list[str]:
    """Return what `sensegate check` says of a profile with these tasks."""
    file = tmp_path / "acme" / "a1.yaml"
    file.parent.mkdir()
    file.write_text(PROFILE.replace("TASKS\n", tasks), encoding="utf-8")
    return [str(why) for why in check_profile(file)]


def test_a_good_one(tmp_path: Path) -> None:
    """Nothing is said."""
    assert checked(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ("{n:u16be}", "{m:u16be}", "no parameter {m}; one of: n"),
        ("{n:u16be}", "{n:u17be}", "did you mean 'u16be'?"),
        ("{n:u16be}", "{n}", "needs a size in bytes"),
        ('hex: "01', 'hex: "1', "not hex"),
        ('hex: "01 {n:u16be} ff"', 'text: "a"', "is not used"),
        ('hex: "01 {n:u16be} ff"', 'text: "{n}"\n    json: {"a": 1}', "as one of json, text, hex and data"),
        (", range: [1, 600]", "", "needs a range"),
        ("range: [1, 600]", "range: [6, 1]", "above the upper bound"),
        ("unit: s", "unit: sec", "unit"),
        ("property: report_interval, equals", "property: report_intervall, equals", "did you mean 'report_interval'?"),
        ('equals: "{n}"', 'equals: "{m}"', "no parameter {m}; one of: n"),
        ("acme/{device}/set", "acme/{dev}/set", "no name fills {dev}"),
        ("name: interval", "name: Interval!", "lower-case letters"),
        ("{n: 258}", "{n: 259}", "gives hex 01 01 03 ff"),
        ("{n: 258}", "{n: 700}", "is refused"),
        ("{n: 601}", "{n: 600}", "is not refused"),
        ("topic: acme/d1/set", "topic: acme/d1/get", "goes to acme/d1/set"),
    ],
)
def test_mistakes(tmp_path: Path, wrong: str, right: str, says: str) -> None:
    """One line with the file, the line, the key and what to do."""
    assert wrong in GOOD
    (finding,) = checked(tmp_path, GOOD.replace(wrong, right, 1))
    assert says in finding
    assert "a1.yaml:" in finding
    assert "tasks[0]" in finding
