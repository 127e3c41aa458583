"""Plain numbers, with units too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.number import NumberPart
from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with

GOOD: list[tuple[NumberPart | None, str, Any]] = [
    (None, "21", 21),
    (None, " -21.50\r\n", -21.5),
    (None, "+1.5E-3", 0.0015),
    (None, ".5", 0.5),
    (None, "5.", 5.0),
    (None, "0042", 42),
    (NumberPart(decimal=","), "21,5", 21.5),
    (NumberPart(missing=("nan", "unavailable")), "nan", None),
    (NumberPart(units=True), "21.5 C", {"value": 21.5, "unit": "C"}),
    (NumberPart(units=True), "21.5°C", {"value": 21.5, "unit": "°C"}),
    (NumberPart(units=True), "1e3W", {"value": 1000.0, "unit": "W"}),
    (NumberPart(units=True), "5 m3/h", {"value": 5, "unit": "m3/h"}),
    (NumberPart(units=True), "7", {"value": 7, "unit": None}),
    (NumberPart(units=True, missing=("---",)), "---", {"value": None, "unit": None}),
    (NumberPart(units=True, decimal=","), "-1,5 %", {"value": -1.5, "unit": "%"}),
]


@pytest.mark.parametrize(("options", "text", "tree"), GOOD)
def test_a_number_is_read(options: NumberPart | None, text: str, tree: Any) -> None:
    """Whole numbers stay whole; a unit is kept beside where the rule says that there may be one."""
    result = parse_with("number", options)(text.encode())
    assert (result, type(result)) == (tree, type(tree))


@pytest.mark.parametrize(
    ("options", "text", "why"),
    [
        (None, "", "malformed: the payload is empty"),
        (None, "abc", "malformed: the payload is not a number"),
        (None, "nan", "malformed: the payload is not a number"),
        (None, "inf", "malformed: the payload is not a number"),
        (None, "0x1F", "malformed: the payload is more than a number"),
        (None, "1_000", "malformed: the payload is more than a number"),
        (None, "1,5", "malformed: the payload is not a number"),
        (None, "1,024.5", "malformed: the payload is not a number"),
        (None, "21.5 C", "malformed: the payload is more than a number"),
        (None, "1 2", "malformed: the payload is more than a number"),
        (None, "１２", "malformed: the payload is not a number"),
        (None, "1" * 70, "malformed: the payload is not a number"),
        (NumberPart(units=True), "C", "malformed: the payload is not a number"),
        (NumberPart(units=True), "1.2.3", "malformed: the payload is not a number"),
        (NumberPart(decimal=","), "1.5", "malformed: the payload is not a number"),
    ],
)
def test_what_is_no_number_is_refused(options: NumberPart | None, text: str, why: str) -> None:
    """Words, numbers of another notation, and more than a number."""
    with pytest.raises(Rejected, match=why):
        parse_with("number", options)(text.encode())


@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False))
def test_round_trip(number: float) -> None:
    """What Python writes comes back, with a unit and a decimal comma too."""
    text = repr(number)
    assert parse_with("number")(text.encode()) == number
    german = parse_with("number", NumberPart(units=True, decimal=","))
    assert german(f"{text.replace('.', ',')} kg".encode()) == {"value": number, "unit": "kg"}
