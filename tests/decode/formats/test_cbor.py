"""CBOR: the examples of RFC 8949, what is refused, and that nothing is believed that the payload does not hold."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import cbor
from sensegate.errors import Rejected
from tests.decode.formats.compiled import parse_with
from tests.decode.formats.payload_trees import trees

parse = parse_with("cbor")

GOOD: list[tuple[str, Any]] = [
    ("1bffffffffffffffff", 2**64 - 1),
    ("3bffffffffffffffff", -(2**64)),
    ("c249010000000000000000", 2**64),
    ("c349010000000000000000", -(2**64) - 1),
    ("f93c00", 1.0),
    ("f90001", 5.960464477539063e-8),
    ("fa47c35000", 100_000.0),
    ("fb7e37e43c8800759c", 1.0e300),
    ("f97c00", math.inf),
    ("f4", False),
    ("f6", None),
    ("f7", None),
    ("f0", "simple(16)"),
    ("f8ff", "simple(255)"),
    ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
    ("c11a514b67b0", 1_363_896_240),
    ("c1fb41d452d9ec200000", 1_363_896_240.5),
    ("c48221196ab3", 273.15),
    ("c5822003", 1.5),
    ("d74401020304", "01020304"),
    ("d9d9f700", 0),
    ("60", ""),
    ("62c3bc", "ü"),
    ("40", ""),
    ("a201020304", {"1": 2, "3": 4}),
    ("a1200a", {"-1": 10}),
    ("a1420a0b01", {"0a0b": 1}),
    ("5f42010243030405ff", "0102030405"),
    ("7f657374726561646d696e67ff", "streaming"),
    ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
    ("bf6346756ef563416d7421ff", {"Fun": True, "Amt": -2}),
]
"""Hex -> tree; examples of RFC 8949 (appendix A, sections 3.4.4 and 3.4.6)."""


@pytest.mark.parametrize(("payload", "tree"), GOOD)
def test_an_item_becomes_its_tree(payload: str, tree: Any) -> None:
    """Numbers, text, bytes, lists and maps, of announced and of open length."""
    parsed = parse(bytes.fromhex(payload))
    assert (parsed, type(parsed)) == (tree, type(tree))


def test_what_is_no_number_stays_so() -> None:
    """NaN and numbers too large for a double are let through: only their value is rejected."""
    assert math.isnan(parse(bytes.fromhex("f97e00")))
    assert parse(bytes.fromhex("c5821a000fffff03")) == math.inf
    assert parse(bytes.fromhex("c5821a000fffff22")) == -math.inf


BAD = [
    ("", "malformed: truncated"),
    ("19ff", "malformed: truncated"),
    ("5bffffffffffffffff00", "malformed: truncated"),
    ("7b7fffffffffffffff", "malformed"),
    ("9bffffffffffffffff00", "malformed: truncated"),
    ("bbffffffffffffffff00", "malformed: truncated"),
    ("ff", "malformed"),
    ("1c", "malformed"),
    ("f818", "malformed"),
    ("a1", "malformed: truncated"),
    ("bf00ff", "malformed"),
    ("0102", "malformed: 1 bytes after the item"),
    ("a201020103", "malformed"),
    ("bf616101616102ff", "malformed"),
    ("a20101613102", "malformed: a map has a duplicate key"),
    ("a1810001", "schema: a key"),
    ("a1f501", "schema: a key"),
    ("a1f93c0001", "schema: a key"),
    ("61ff", "not_utf8"),
    ("81" * 33 + "00", "too_deep"),
    ("c1" * 40 + "00", "too_deep"),
    ("c258" + "41" + "ff" * 65, "malformed"),
    ("c401", "malformed"),
    ("c482f93c0001", "malformed"),
    ("d81c81d81d00", "malformed"),
    ("d9010082d8196161d81900", "malformed"),
]


@pytest.mark.parametrize(("payload", "why"), BAD)
def test_what_is_no_item_is_refused(payload: str, why: str) -> None:
    """Cut short, too much, a key twice, references, nesting without end."""
    with pytest.raises(Rejected, match=why):
        parse(bytes.fromhex(payload))


@pytest.mark.parametrize("head", ["5b", "7b", "9b", "bb", "5a", "7a", "9a", "ba"])
def test_no_announced_length_is_believed(head: str) -> None:
    """Of 2**62 or 2**32 bytes or members announced none is reserved."""
    announced = bytes.fromhex(head) + (b"\x40" if head[1] == "b" else b"\xff").ljust(8 if head[1] == "b" else 4, b"\0")
    payload = announced + b"\x00" * 16
    tracemalloc.start()
    with pytest.raises(Rejected):
        parse(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_a_tree_has_a_greatest_size() -> None:
    """Many members of a byte each are refused before they are made into a tree."""
    with pytest.raises(Rejected, match="schema: more than"):
        parse(b"\x9f" + b"\xa0" * 100_000 + b"\xff")


@pytest.mark.parametrize("content", [5, "2013-03-21", b"\x01\x02\x03\x04", [1, 2], {"a": 1}])
def test_no_tag_makes_an_object_of_its_own(content: Any) -> None:
    """Whatever the library knows of a tag: a number, text, list or object comes out, or a refusal."""
    refused = []
    for tag in (*range(320), 1004, 1040, 4_000, 43_000, 43_001, 55_799, 55_800):
        try:
            parsed = parse(cbor2.dumps(cbor2.CBORTag(tag, content)))
        except Rejected:
            refused.append(tag)
        else:
            assert type(parsed) in {int, float, str, list, dict}
    assert set(refused) <= {2, 3, 4, 5, 25, 29}


def test_what_a_later_library_may_make_is_refused() -> None:
    """An object that this library does not make yet is no reading."""
    with pytest.raises(Rejected, match="schema: holds a value that is not a number"):
        cbor._PlainTree(bytes.hex).tree(frozenset({1}))


@given(trees, st.booleans())
def test_round_trip(tree: Any, indefinite: bool) -> None:  # noqa: FBT001 - hypothesis gives it by place
    """What the library writes comes back, in both ways of writing lists and maps."""
    assert parse(cbor2.dumps(tree, indefinite_containers=indefinite)) == tree


@given(trees, st.data())
def test_a_cut_item_is_refused(tree: Any, data: st.DataObject) -> None:
    """No beginning of an item is an item."""
    payload = cbor2.dumps(tree)
    with pytest.raises(Rejected):
        parse(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.dictionaries(st.integers(-20, 20), st.binary(max_size=4)))
def test_keys_and_bytes_become_text(tree: dict[int, bytes]) -> None:
    """Whole numbers as keys in decimal, bytes in hex, or as the caller wants them."""
    payload = cbor2.dumps(tree)
    assert parse(payload) == {str(key): value.hex() for key, value in tree.items()}
    assert cbor.load(payload, 32, lambda raw: str(len(raw))) == {str(k): str(len(v)) for k, v in tree.items()}
