"""Expressions: they mean what Python means by them, and nothing that a profile says is run."""

# ruff: noqa: E501 # tables with many cases a line

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.frame import PayloadFrame
from sensegate.errors import ProfileError
from tests.decode.layout.made import layout

NAMES = ("a", "b", "c")


def value_of(text: str, **elements: int) -> Any:
    steps = [{"name": f"_{name}", "type": "s16"} for name in elements]
    named = text
    for name in elements:
        named = "".join(f"_{name}" if part == name else part for part in _words(named))
    data = b"".join(value.to_bytes(2, "big", signed=True) for value in elements.values())
    return layout(read=[*steps, {"name": "x", "value": named}])(PayloadFrame(data, 4))["x"]


def _words(text: str) -> list[str]:
    texts: list[str] = [""]
    for letter in text:
        if letter.isalnum() == texts[-1][-1:].isalnum():
            texts[-1] += letter
        else:
            texts.append(letter)
    return texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + b * 2", 7 + 3 * 2),
        ("(a + b) * 2", 20),
        ("a - -b", 10),
        ("a / 2", 3.5),
        ("a // 2", 3),
        ("a % 4", 3),
        ("a ** 2", 49.0),
        ("10 ** -b", 0.001),
        ("a << 2 | b", 31),
        ("~a & 0xFF", 248),
        ("a ^ b", 4),
        ("a > b", 1),
        ("not a", 0),
        ("a > 5 and b < 3", 0),
        ("a if b == 3 else b", 7),
        ("1 < a < 9", 1),
        ("min(a, b) + max(a, b, 9)", 12),
        ("abs(-a)", 7),
        ("round(a / b, 2)", 2.33),
        ("sqrt(a + 2)", 3.0),
        ("log10(b + 97)", 2.0),
        ("signed(0xFFFE, 16)", -2),
        ("bit(a, 1) + bits(a, 1, 2)", 1 + 3),
        ("int(3.9)", 3),
        ("0.5", 0.5),
        ("True", 1),
    ],
)
def test_expressions_mean_what_they_say(text: str, value: float) -> None:
    """Each operator and function, with a = 7 and b = 3."""
    result = value_of(text, a=7, b=3)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "text",
    ["a / 0", "a % 0", "a << 65", "a >> -1", "a << 10000", "sqrt(-a)", "log(0)", "exp(9999)", "10.0 ** 999", "(-a) ** 0.5",
     "bits(a, 5, 99)", "signed(a, 0)", "a & 1.5", "~1.5"],
)  # fmt: skip
def test_what_is_no_number_is_nan(text: str) -> None:
    """What cannot be computed makes that value no number, and nothing else."""
    assert math.isnan(value_of(text, a=7))


def test_numbers_stay_of_bounded_size() -> None:
    """An integer beyond 64 bits becomes a float: no chain of products grows for ever."""
    value = value_of("*".join(["a"] * 40), a=32_000)
    assert value == float(32_000**40)
    assert value_of("*".join(["a"] * 120), a=32_000) == math.inf


@pytest.mark.parametrize(
    "text",
    ["a.b", "a[0]", "lambda: a", "[a]", "(a, a)", "{a}", "a if a", "a; a", "import os", "open('x')", "eval('1')", "f'{a}'",
     "a := 1", "a @ a", "a is a", "a in a", "min(*a)", "round(a, ndigits=1)", "'x' + 'y'", "'x' * 9", "min(a)", "b''", "...",
     "a" * 501, "(" * 300 + "a" + ")" * 300, "1j", "1e999", str(2**70), "$a", "\0"],
)  # fmt: skip
def test_all_else_is_refused_when_the_profile_is_loaded(text: str) -> None:
    """Only the nodes of the table are let through."""
    with pytest.raises(ProfileError):
        value_of(text, a=1)


trees = st.recursive(
    st.one_of(st.sampled_from(NAMES), st.integers(0, 300).map(str)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "&", "|", "^", "//", "%", "<", "=="]), inner).map(
            lambda part: f"({part[0]} {part[1]} {part[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda part: f"({part[0]} if {part[1]} else {part[2]})"),
        inner.map(lambda part: f"(-{part})"),
    ),
    max_leaves=8,
)


@given(trees, st.tuples(*[st.integers(-32768, 32767)] * 3))
def test_arithmetic_agrees_with_python(text: str, values: tuple[int, int, int]) -> None:
    """Any expression of the common operators gives what Python gives for it."""
    elements = dict(zip(NAMES, values, strict=True))
    value = value_of(text, **elements)
    try:
        wanted = eval(text, {}, elements)  # noqa: S307 # our own text
    except ZeroDivisionError:
        assert math.isnan(value)
        return
    assert value == (wanted if abs(wanted) < 2**63 else float(wanted))
