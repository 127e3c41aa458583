"""Pages of a list: together they have each row once, in the list's own order, for every kind of key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from sensegate.config import WebConfig
from sensegate.web import listing
from sensegate.web.problems import BadRequest
from sensegate.web.routing import Call


class Usage(msgspec.Struct, frozen=True):
    """Row whose first field is that of several rows."""

    token: str
    feed: str
    metres: float = 0.0


class Version(msgspec.Struct, frozen=True):
    """Row with a number as its key."""

    version: int


def call(**query: str) -> Call:
    """Return a call with query parameters."""
    request = make_mocked_request("GET", f"/rows?{urlencode(query)}")
    return Call(request, cast("Any", SimpleNamespace(config=WebConfig())), cast("Any", None), cast("Any", None))


def paged(rows: list[Any], kind: type[Any], *key: str, limit: int, **query: str) -> list[Any]:
    """Return the rows of all pages."""
    listed: list[Any] = []
    after = ""
    for _ in range(len(rows) + 1):
        page = listing.page_of(call(limit=str(limit), after=after, **query), rows, kind, *key)
        assert len(page.rows) <= limit
        assert page.total == len(rows)
        listed += page.rows
        if not (after := page.next):
            return listed
    raise AssertionError("the pages do not end")


TEXTS = st.sampled_from(["", "a", "a:b", "a%3Ab", "部门", "|", "é"])


@given(
    st.lists(st.builds(Usage, TEXTS, TEXTS, st.sampled_from([0.5, 9.0, 10.1, 1e-7])), unique=True),
    st.integers(1, 4),
    st.sampled_from(["", "token", "-feed"]),
)
def test_a_key_of_several_fields(rows: list[Usage], limit: int, sort: str) -> None:
    """Rows that have the first field in common are on one page or another."""
    query = {"sort": sort} if sort else {}
    listed = paged(rows, Usage, "token", "metres", "feed", limit=limit, **query)
    assert set(listed) == set(rows)
    assert len(listed) == len(rows)
    if not sort:
        assert listed == sorted(rows, key=lambda row: (row.token, row.metres, row.feed))


@pytest.mark.parametrize("limit", [1, 9, 100])
def test_numbers_are_compared_as_numbers(limit: int) -> None:
    """After 9 comes 10."""
    rows = [Version(number) for number in range(1, 13)]
    assert paged(rows[::-1], Version, "version", limit=limit) == rows


def test_a_text_that_is_no_cursor() -> None:
    """A malformed cursor is a bad request; for a key of one text every text is a valid cursor."""
    for kind, key, after in ((Version, ("version",), "x"), (Usage, ("token", "feed"), "x")):
        with pytest.raises(BadRequest, match="is no `next` of this list"):
            listing.page_of(call(after=after), [], kind, *key)
    row = Usage("b", "")
    assert listing.page_of(call(after="a"), [row], Usage, "token").rows == [row]
