"""Payload formats: text, SenML, and the depth of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import FORMATS, json, senml, text
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.errors import ProfileError, Rejected
from sensegate.model import QuarantineReason


def _error(what: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(what, key=str(path), remedy=remedy)


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(payload=st.binary(max_size=80))
def test_format_gives_a_tree_or_a_reason(name: str, payload: bytes) -> None:
    """On any bytes a format raises `Rejected` with a word of the table, or nothing."""
    form = FORMATS[name]
    if form.required:
        pytest.skip("its own test gives it options")
    parse = form.compile(None, FormatContext("vendor/model", 1, Path(), _error))
    reason: str = QuarantineReason.MALFORMED
    try:
        parse(PayloadFrame(payload, 16))
    except Rejected as error:
        reason = error.reason
    assert reason in list(QuarantineReason)


def test_text_is_stripped_and_must_be_there() -> None:
    """White space around a word means nothing; nothing at all is malformed."""
    assert text.parse(b" Online\n") == "Online"
    with pytest.raises(Rejected, match="malformed"):
        text.parse(b" \n")


@pytest.mark.parametrize(
    ("payload", "deep"), [(b"1", 0), (b"[]", 1), (b'{"a":[1,[2]]}', 3), (b'["[[[", "\\"[["]', 1), (b"][", 0)]
)
def test_depth_counts_brackets_outside_text(payload: bytes, deep: int) -> None:
    """Brackets in strings, also behind escaped quotes, do not nest."""
    assert json.depth(payload) == deep


PACKS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        [{"bn": "urn:d:", "bt": 10, "bu": "A", "bv": 5, "n": "a", "v": 1}, {"n": "b", "t": -3, "u": "V", "vs": "x"}],
        [
            {"name": "urn:d:a", "bn": "urn:d:", "n": "a", "t": 10, "u": "A", "v": 6},
            {"name": "urn:d:b", "bn": "urn:d:", "n": "b", "t": 7, "u": "V", "vs": "x"},
        ],
    ),
    ([{"bn": "urn:d:"}, {"n": "a", "vb": True}], [{"name": "urn:d:a", "bn": "urn:d:", "n": "a", "t": 0, "vb": True}]),
    ([{"n": "s", "bs": 2, "s": 3}], [{"name": "s", "bn": "", "n": "s", "t": 0, "s": 5}]),
]


@pytest.mark.parametrize(("pack", "records"), PACKS)
def test_senml_base_fields_are_resolved(pack: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """Base name, time, unit, value and sum apply to their own and the following records (RFC 8428, 4.6)."""
    assert senml.resolve(pack) == records


@pytest.mark.parametrize(
    "pack",
    [b"{}", b"[]", b"[1]", b'[{"n":1}]', b'[{"n":"a","v":"1"}]', b'[{"n":"a","vb":1}]', b'[{"bver":11,"n":"a"}]'],
)
def test_what_is_no_pack_is_refused(pack: bytes) -> None:
    """Wrong types, a version of the future, and members that must be understood are refused."""
    with pytest.raises(Rejected, match="schema"):
        senml.parse(pack, 16)
