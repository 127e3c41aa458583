"""Forms and query strings."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with

parse = parse_with("urlencoded")


@pytest.mark.parametrize(
    ("payload", "tree"),
    [
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"dateutc=2011-02-02+10%3A32%3A55&x=", {"dateutc": "2011-02-02 10:32:55", "x": None}),
        (b"a=1&", {"a": "1"}),
        (b"/weatherstation/updateweatherstation.php?ID=K&tempf=70.1", {"ID": "K", "tempf": "70.1"}),
        (b"?a=1", {"a": "1"}),
        (b"q=why?&a=1", {"q": "why?", "a": "1"}),
        (b"n=%E6%B8%A9", {"n": "温"}),
    ],
)
def test_a_form_becomes_an_object(payload: bytes, tree: dict[str, str | None]) -> None:
    """Plus and percent are undone, the path before a query is passed over."""
    assert parse(payload) == tree


def test_another_character_set() -> None:
    """Escaped text is in the rule's character set."""
    assert parse_with("urlencoded", charset="gbk")(b"n=%CE%C2&m=\xb6\xc8") == {"n": "温", "m": "度"}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "malformed: the payload is empty"),
        (b"?", "malformed: the payload is empty"),
        (b"a", "malformed"),
        (b"a=1&&b=2", "malformed"),
        (b"a=1&a=2", "malformed: a field occurs twice"),
        (b"a=%FF", "not_utf8"),
        (b"a=\xff", "not_utf8"),
        (b"&".join(b"k%d=1" % k for k in range(1_100)), "malformed"),
    ],
)
def test_what_is_no_form_is_refused(payload: bytes, why: str) -> None:
    """A field stands once, and has a value."""
    with pytest.raises(Rejected, match=why):
        parse(payload)


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=6), min_size=1, max_size=6))
def test_round_trip(tree: dict[str, str]) -> None:
    """What the library writes comes back, an empty value as null."""
    payload = urlencode(
        {key: value.encode("utf-8", "replace") for key, value in tree.items()}, encoding="utf-8", errors="replace"
    )
    if "\ud800" <= max("".join(tree) or " ") <= "\udfff":
        return
    assert parse(payload.encode()) == {key: value or None for key, value in tree.items()}
