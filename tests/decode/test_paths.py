"""Paths into a payload."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensegate.decode.paths import ABSENT, MemberPath, parse, render, walk

PATHS = [
    ("a", MemberPath(("a",))),
    ("a.b", MemberPath(("a", "b"))),
    ("a[0].b", MemberPath(("a", 0, "b"))),
    ("[1]", MemberPath((1,))),
    ('["PM2.5"].avg', MemberPath(("PM2.5", "avg"))),
    ('d["a\\"b"]', MemberPath(("d", 'a"b'))),
    ("switch:0.apower", MemberPath(("switch:0", "apower"))),
    ("$.a", MemberPath(("a",), from_root=True)),
    (".", MemberPath(())),
    ("$", MemberPath((), from_root=True)),
    ("data.*", MemberPath(("data",), each_value=True)),
    ("*", MemberPath((), each_value=True)),
    ("@key", MemberPath((), key=True)),
    ("^.name", MemberPath(("name",), up=1)),
    ("^^[0]", MemberPath((0,), up=2)),
    ("^", MemberPath((), up=1)),
    ("^@key", MemberPath((), key=True, up=1)),
    ("stations.*.probes", MemberPath(("stations", "*", "probes"))),
]


@pytest.mark.parametrize(("text", "place"), PATHS, ids=str)
def test_path_is_parsed(text: str, place: MemberPath) -> None:
    """Keys, indices, quoted keys, the root, the element itself, every member, the key itself."""
    assert parse(text) == place


@pytest.mark.parametrize("text", ["a..b", "a[", "a[x]", '["a"', "a.", "a]"])
def test_what_is_no_path_is_refused(text: str) -> None:
    """The error says from where on it is wrong."""
    with pytest.raises(ValueError, match="is not a path from"):
        parse(text)


@pytest.mark.parametrize("text", ["^$.a", "^a", "^ ^.a"])
def test_an_outer_path_is_written_with_a_dot(text: str) -> None:
    """`^` alone moves outwards; what follows is a path of its own."""
    with pytest.raises(ValueError, match="after '\\^'"):
        parse(text)


@given(st.lists(st.one_of(st.text(min_size=1, max_size=6), st.integers(0, 99)), max_size=5))
@example(["^"])
@example(["^0", 1])
@example(["@key"])
@example(["a", "@key"])
@example([""])
def test_rendered_path_is_parsed_back(steps: list[str | int]) -> None:
    """`render` and `parse` are each other's inverse."""
    assert parse(render(tuple(steps))) == MemberPath(tuple(steps))


def test_walk_tells_absent_from_null() -> None:
    """A member that is null is there."""
    tree = {"a": [{"b": None}]}
    assert walk(tree, ("a", 0, "b")) is None
    assert walk(tree, ("a", 1, "b")) is ABSENT
    assert walk(tree, ("a", "0")) is ABSENT
    assert walk(tree, ("a", 0, "b", "c")) is ABSENT
    assert repr(ABSENT) == "ABSENT"
