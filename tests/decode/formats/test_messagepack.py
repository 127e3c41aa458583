"""MessagePack: vectors of the specification, what is refused, and round trips with two libraries."""

from __future__ import annotations

import math
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with
from tests.decode.formats.payload_trees import trees

parse = parse_with("messagepack")

GOOD: list[tuple[str, Any]] = [
    ("00", 0),
    ("7f", 127),
    ("e0", -32),
    ("ff", -1),
    ("ccff", 255),
    ("cdffff", 65_535),
    ("ceffffffff", 2**32 - 1),
    ("cfffffffffffffffff", 2**64 - 1),
    ("d080", -128),
    ("d18000", -(2**15)),
    ("d280000000", -(2**31)),
    ("d38000000000000000", -(2**63)),
    ("ca41ac0000", 21.5),
    ("cb3ff199999999999a", 1.1),
    ("c0", None),
    ("c2", False),
    ("c3", True),
    ("a0", ""),
    ("a3e6b8a9", "温"),
    ("d9026869", "hi"),
    ("da00026869", "hi"),
    ("db000000026869", "hi"),
    ("c4020a0b", "0a0b"),
    ("c500020a0b", "0a0b"),
    ("c6000000020a0b", "0a0b"),
    ("93010203", [1, 2, 3]),
    ("dc00020102", [1, 2]),
    ("dd000000020102", [1, 2]),
    ("82a7636f6d70616374c3a6736368656d6100", {"compact": True, "schema": 0}),
    ("de0001a16101", {"a": 1}),
    ("df00000001a16101", {"a": 1}),
    ("8301020304ff05", {"1": 2, "3": 4, "-1": 5}),
    ("81c4020a0b01", {"0a0b": 1}),
    ("d40501", {"type": 5, "bytes": "01"}),
    ("d5800102", {"type": -128, "bytes": "0102"}),
    ("c70305010203", {"type": 5, "bytes": "010203"}),
    ("d6ff00000000", "1970-01-01T00:00:00Z"),
    ("d6ffffffffff", "2106-02-07T06:28:15Z"),
    ("d7ff0000000400000000", "1970-01-01T00:00:00.000000001Z"),
    ("d7ff00000003ffffffff", "2514-05-30T01:53:03Z"),
    ("c70cff00000000ffffffffffffffff", "1969-12-31T23:59:59Z"),
    ("c70cff3b9ac9ff0000000000000000", "1970-01-01T00:00:00.999999999Z"),
]
"""Hex -> tree; formats and the ranges of timestamps as in the specification."""


@pytest.mark.parametrize(("payload", "tree"), GOOD)
def test_an_item_becomes_its_tree(payload: str, tree: Any) -> None:
    """Every format of the specification."""
    parsed = parse(bytes.fromhex(payload))
    assert (parsed, type(parsed)) == (tree, type(tree))


def test_not_a_number_is_let_through() -> None:
    """NaN costs its value only."""
    assert math.isnan(parse(bytes.fromhex("cb7ff8000000000000")))


BAD = [
    ("", "malformed: truncated"),
    ("c1", "malformed: byte 0 does not start an item"),
    ("0102", "malformed: 1 bytes after the item"),
    ("cdff", "malformed: truncated"),
    ("a5616263", "malformed: truncated"),
    ("dbffffffff61", "malformed: truncated"),
    ("c6ffffffff00", "malformed: truncated"),
    ("ddffffffff00", "malformed: truncated: 4294967295 members"),
    ("dfffffffff00", "malformed: truncated: 4294967295 members"),
    ("c9ffffffff0500", "malformed: truncated"),
    ("a1ff", "not_utf8: byte 1"),
    ("82a16101a16102", "malformed: a map has a duplicate key"),
    ("820101a13102", "malformed: a map has a duplicate key"),
    ("81900100", "schema: a key"),
    ("81c00100", "schema: a key"),
    ("81cb3ff199999999999a01", "schema: a key"),
    ("81d4050101", "schema: a key"),
    ("91" * 33 + "00", "too_deep"),
    ("81a161" * 33 + "00", "too_deep"),
    ("d5ff0000", "malformed: a timestamp has an unknown length"),
    ("d7ffee6b280000000000", "malformed: a timestamp has more"),
    ("c70cff000000007fffffffffffffff", "schema: a timestamp is beyond"),
]


@pytest.mark.parametrize(("payload", "why"), BAD)
def test_what_is_no_item_is_refused(payload: str, why: str) -> None:
    """Cut short, too much, a key twice, nesting without end, times that nothing can hold."""
    with pytest.raises(Rejected, match=why):
        parse(bytes.fromhex(payload))


def test_nesting_up_to_the_limit_is_read() -> None:
    """The limit is the greatest depth that is let through."""
    assert parse(b"\x91" * 32 + b"\x00")


def test_no_announced_length_is_believed() -> None:
    """Lists in lists, each as long as the payload: no level reserves it (the library msgpack reserves 2 GB)."""
    payload = (b"\xdd\x00\x03\xf0\x00" * 1_000).ljust(262_144, b"\x00")
    tracemalloc.start()
    with pytest.raises(Rejected):
        parse(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_a_tree_has_a_greatest_size() -> None:
    """Many members of a byte each are refused before they are read."""
    with pytest.raises(Rejected, match="schema: more than"):
        parse(b"\xdd" + (100_000).to_bytes(4, "big") + b"\x80" * 100_000)


@given(trees.filter(lambda tree: not _too_low(tree)))
def test_round_trip(tree: Any) -> None:
    """What two libraries write comes back."""
    assert parse(msgspec.msgpack.encode(tree)) == tree
    assert parse(msgpack.packb(tree)) == tree


def _too_low(tree: Any) -> bool:
    """Return whether a tree holds a number below what MessagePack can say."""
    if isinstance(tree, dict):
        return any(map(_too_low, tree.values()))
    if isinstance(tree, list):
        return any(map(_too_low, tree))
    return isinstance(tree, int) and tree < -(2**63)


@given(st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1)))  # noqa: DTZ001 - UTC by name
def test_round_trip_of_times(at: datetime) -> None:
    """A time comes back as ISO 8601 text, to the microsecond that Python can say."""
    text = parse(msgspec.msgpack.encode(at.replace(tzinfo=UTC)))
    assert datetime.fromisoformat(text) == at.replace(tzinfo=UTC)


@given(trees.filter(lambda tree: not _too_low(tree)), st.data())
def test_a_cut_item_is_refused(tree: Any, data: st.DataObject) -> None:
    """No beginning of an item is an item."""
    payload = msgspec.msgpack.encode(tree)
    with pytest.raises(Rejected):
        parse(payload[: data.draw(st.integers(0, len(payload) - 1))])
