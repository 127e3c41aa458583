"""Pairs of text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.keyvalue import KeyValuePart
from sensegate.errors import ProfileError, Rejected
from tests.decode.formats.compiled import parse_with

GOOD: list[tuple[KeyValuePart | None, str, Any]] = [
    (None, "a=1;b=2", {"a": "1", "b": "2"}),
    (None, " a = 1 ;b=;\r\n c=x=y;", {"a": "1", "b": None, "c": "x=y"}),
    (KeyValuePart(pairs=(",", " "), equals=":"), "t:21.5, h:60", {"t": "21.5", "h": "60"}),
    (KeyValuePart(pairs=("&&",), equals="->"), "a->1&&b->2", {"a": "1", "b": "2"}),
    (KeyValuePart(lines=True), "a=1;b=2\n\na=3\r\n", [{"a": "1", "b": "2"}, {"a": "3"}]),
    (
        KeyValuePart(pairs=(",",), head=("message",), units=True),
        "0R2,Ta=23.6C,Ua=14.2P,Pa=1026.6H,Dn=#",
        {
            "message": "0R2",
            "Ta": {"value": "23.6", "unit": "C"},
            "Ua": {"value": "14.2", "unit": "P"},
            "Pa": {"value": "1026.6", "unit": "H"},
            "Dn": {"value": "#", "unit": None},
        },
    ),
    (KeyValuePart(units=True), "e=1.5e3 W;f=2E;g=;h=12:30", {
        "e": {"value": "1.5e3", "unit": "W"},
        "f": {"value": "2", "unit": "E"},
        "g": {"value": None, "unit": None},
        "h": {"value": "12", "unit": ":30"},
    }),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text", "tree"), GOOD)
def test_pairs_become_an_object(options: KeyValuePart | None, text: str, tree: Any) -> None:
    """Marks of one's own, values without key at the beginning, units behind numbers, an object a line."""
    assert parse_with("keyvalue", options)(text.encode()) == tree


@pytest.mark.parametrize(
    ("options", "text", "why"),
    [
        (None, "", "malformed: the payload is empty"),
        (None, " \n", "malformed: the payload is empty"),
        (None, "a", "malformed: pair 1 has no key"),
        (None, "a=1;b", "malformed: pair 2 has no key"),
        (None, "=1", "malformed: pair 1 has no key"),
        (None, "a=1;a=2", "malformed: pair 2 has the key of another"),
        (KeyValuePart(head=("x",)), "7;8;a=1", "malformed: pair 2 has no key"),
        (KeyValuePart(head=("x", "y")), "7;a=1;8", "malformed: pair 3 has no key"),
        (KeyValuePart(head=("x",)), "7;x=1", "malformed: pair 2 has the key of another"),
        (None, ";".join(f"k{k}=1" for k in range(70_000)), "schema: more than"),
    ],
)
def test_what_holds_no_pairs_is_refused(options: KeyValuePart | None, text: str, why: str) -> None:
    """A piece without key is not guessed at; a key stands once."""
    with pytest.raises(Rejected, match=why):
        parse_with("keyvalue", options)(text.encode())


@pytest.mark.parametrize(
    "options",
    [
        KeyValuePart(equals=""),
        KeyValuePart(equals=";"),
        KeyValuePart(pairs=("",)),
        KeyValuePart(head=("a", "a")),
        KeyValuePart(head=("",)),
    ],
)
def test_a_wrong_option_is_an_error_of_the_profile(options: KeyValuePart) -> None:
    """Marks that cannot be told apart are said when the profile is loaded."""
    with pytest.raises(ProfileError):
        parse_with("keyvalue", options)


words = st.text(st.characters(codec="gbk", exclude_characters=";=\r\n"), max_size=6).map(str.strip)


@given(st.dictionaries(words.filter(bool), words, min_size=1, max_size=6))
def test_round_trip(tree: dict[str, str]) -> None:
    """What was written comes back, an empty value as null; in another character set too."""
    text = ";".join(f"{key}={value}" for key, value in tree.items())
    expected = {key: value or None for key, value in tree.items()}
    assert parse_with("keyvalue", charset="gbk")(text.encode("gbk")) == expected
    assert parse_with("keyvalue")(text.encode()) == expected
