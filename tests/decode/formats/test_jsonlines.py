"""JSON Lines and concatenated JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.jsonlines import JsonLinesPart
from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with
from tests.decode.formats.payload_trees import trees

parse = parse_with("jsonlines")
flat = parse_with("jsonlines", JsonLinesPart(flatten=True))


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b'{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":1}\r\n\r\n  {"a":2}', [{"a": 1}, {"a": 2}]),
        (b'{"a":1}{"a":2}', [{"a": 1}, {"a": 2}]),
        (b"[1,2][3]", [[1, 2], [3]]),
        (b'\x1e{"a":1}\n\x1e{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'1 "x" null', [1, "x", None]),
        (b'{\n"a":\n1}\n', [{"a": 1}]),
        (b'"a""b"', None),
        (b"truefalse", None),
        (b"1-2", None),
    ],
)
def test_values_follow_one_another(payload: bytes, values: list[Any] | None) -> None:
    """Lines, objects side by side, and record separators; numbers and words need white space between."""
    if values is None:
        with pytest.raises(Rejected, match="malformed: Expecting white space"):
            parse(payload)
    else:
        assert parse(payload) == values


def test_arrays_are_taken_apart_where_asked() -> None:
    """Arrays of objects one after the other become one list; what is no array stays."""
    assert flat(b'[{"a":1},{"a":2}][{"a":3}]{"a":4}') == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]
    assert flat(b"[][]") == []


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "malformed: empty"),
        (b" \n ", "malformed: empty"),
        (b'{"a":1}\n{"a":', "malformed: Expecting value at character 14"),
        (b'{"a": "x', "malformed: Unterminated string starting at character 7"),
        (b'{"a":1,"a":2}', "malformed"),
        (b'{"a":1},{"a":2}', "malformed"),
        (b'{"a":1}\n\xff', "not_utf8"),
        (b"\xef\xbb\xbf{}", "malformed: starts with a byte order mark"),
        (b"[" * 33 + b"]" * 33, "too_deep"),
        (b"1 " * 70_000, "schema: more than"),
    ],
)
def test_what_is_not_json_is_refused(payload: bytes, why: str) -> None:
    """A value that is cut takes the whole message with it."""
    with pytest.raises(Rejected, match=why):
        parse(payload)


@given(st.lists(trees, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n", " ", "\n\x1e"]))
def test_round_trip(values: list[Any], between: str) -> None:
    """What was written one by one comes back as a list."""
    assert parse(between.join(map(json.dumps, values)).encode()) == values


@given(st.lists(st.dictionaries(st.text(max_size=4), st.integers()) | st.lists(st.integers()), min_size=1, max_size=4))
def test_round_trip_side_by_side(values: list[Any]) -> None:
    """Objects and arrays need nothing between."""
    assert parse("".join(map(json.dumps, values)).encode()) == values
