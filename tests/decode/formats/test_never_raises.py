"""Every format, with every option: any bytes give a tree of plain values or a reason, in bounded time and memory."""

from __future__ import annotations

import gc
import os
import random
import time
import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import FORMATS
from sensegate.decode.formats.csv import CsvPart
from sensegate.decode.formats.jsonlines import JsonLinesPart
from sensegate.decode.formats.keyvalue import KeyValuePart
from sensegate.decode.formats.number import NumberPart
from sensegate.decode.formats.text_frame import TextFramePart
from sensegate.decode.formats.xml import XmlPart
from sensegate.decode.layout.steps import BinaryPart
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from tests.decode.formats.compiled import parse_with
from tests.spoil import UNWRITABLE, spoilt

FREE = [name for name, form in FORMATS.items() if not form.required]
"""Formats that mean something without options."""
BYTE = {"name": "x", "type": "u8"}
TAGS = msgspec.convert(
    {
        "read": [
            {
                "tlv": "u8",
                "length": "u8",
                "default": "skip",
                "cases": {97: [BYTE], 61: [{"append": "l", "read": [BYTE]}]},
            }
        ]
    },
    BinaryPart,
)
LISTS = msgspec.convert(
    {
        "rest": "allow",
        "read": [
            {"name": "n", "type": "u16"},
            {"repeat": "n // 64", "name": "l", "read": [{"name": "v", "type": "u12"}]},
            {
                "when": "$left > 99",
                "read": [{"repeat": "end", "name": "m", "read": [{"name": "t_{n}", "type": "bcd8"}]}],
            },
        ],
    },
    BinaryPart,
)
MARKED = msgspec.convert(
    {
        "end": ["\r\n", "}", "C"],
        "separator": ",",
        "fields": [{"name": "a"}, {"repeat": "end", "name": "l", "fields": [{"name": "b", "type": "number"}]}],
    },
    TextFramePart,
)
FIXED = msgspec.convert({"fields": [{"name": "a", "width": 3, "type": "number"}], "rest": "allow"}, TextFramePart)
PARSES: dict[str, Callable[[bytes], Any]] = {
    **{name: parse_with(name) for name in FREE},
    **{f"{name} in gbk": parse_with(name, charset="gbk") for name in FREE if FORMATS[name].text},
    **{f"{name} in utf-16": parse_with(name, charset="utf-16") for name in FREE if FORMATS[name].text},
    "jsonlines flat": parse_with("jsonlines", JsonLinesPart(flatten=True)),
    "csv of columns": parse_with("csv", CsvPart(columns=("a", "", "b"), delimiter=";", decimal=",", short_rows=True)),
    "csv of blanks": parse_with("csv", CsvPart(delimiter=" ", comment="#", skip=1)),
    "csv of fixed width": parse_with("csv", CsvPart(columns=("a", "b"), widths=(2, 3), gap=1)),
    "csv with units": parse_with("csv", CsvPart(delimiter="\t", quote="", skip_after=1)),
    "keyvalue with units": parse_with("keyvalue", KeyValuePart(pairs=(",", " "), head=("x",), units=True, lines=True)),
    "xml with lists": parse_with("xml", XmlPart(lists=("a",), namespaces={"p": "urn:p"})),
    "binary of tags": parse_with("binary", TAGS),
    "binary of lists": parse_with("binary", LISTS),
    "text_frame with marks": parse_with("text_frame", MARKED),
    "text_frame of fixed width": parse_with("text_frame", FIXED, charset="gbk"),
    "number with units": parse_with("number", NumberPart(units=True, decimal=",", missing=("nan",))),
}  # fmt: skip
SEEDS = [
    b'{"a":[1,2.5,"x",null,true]}',
    b'[{"n":"a","v":1}]\n{"a":1}',
    b"a,b\r\n1,2\r\n",
    b"a=1;b=2",
    b"a=%41&b=+",
    b'm,t=1 f=1i,g="x\\"y",h=t 12\n',
    b'<?xml version="1.0" encoding="gbk"?><a b="1"><c>2</c></a>',
    b"21.5 C",
    bytes.fromhex("a26161 82 f93c00 c48221196ab3 6162 5f42010243030405ff".replace(" ", "")),
    bytes.fromhex("82a16193ca41ac0000d6ff00000000c0a162c4020a0b"),
    bytes.fromhex("81a70021 6161 02fb405e066666666666 0600".replace(" ", "")),
]


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Return random bytes, or a good payload of some format that was changed, cut, or repeated."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=120))
    raw = bytearray(draw(st.sampled_from(SEEDS)) * draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        change = draw(st.sampled_from(["put", "set", "cut"]))
        if change == "put":
            raw[at:at] = draw(st.binary(max_size=4))
        elif change == "set" and at < len(raw):
            raw[at] = draw(st.integers(0, 255))
        else:
            del raw[at : at + draw(st.integers(1, 8))]
    return bytes(raw)


def plain(tree: Any) -> bool:
    """Return whether a tree is of dicts with text as keys, lists and scalars."""
    if isinstance(tree, dict):
        return all(isinstance(key, str) and plain(value) for key, value in tree.items())
    if isinstance(tree, list):
        return all(map(plain, tree))
    return tree is None or isinstance(tree, (bool, int, float, str))


def outcome(parse: Callable[[bytes], Any], payload: bytes) -> str:
    """Return the reason of the refusal, or an empty word where a plain tree came out."""
    tree, reason = None, ""
    try:
        tree = parse(payload)
    except Rejected as error:
        reason = error.reason
    assert plain(tree)
    assert reason in {"", *QuarantineReason}
    return reason


@pytest.mark.parametrize("name", sorted(PARSES))
@given(payload=payloads())
def test_any_bytes_give_a_tree_or_a_reason(name: str, payload: bytes) -> None:
    """Nothing but `Rejected` is raised, and nothing but plain values comes out."""
    outcome(PARSES[name], payload)


TREE = {"a": [1, 2.5, "x", None, True], "v": {"u": "Cel", "v": -3}, "t": 1_767_225_600, "n": [{"n": "b", "v": 2**40}]}
GOOD = [
    *SEEDS,
    msgspec.msgpack.encode(TREE),
    cbor2.dumps(TREE),
    msgspec.json.encode([TREE]),
    cbor2.dumps([{-2: "a", 2: 1, 6: 0}]),
]
EVERY = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 211


@pytest.mark.fuzz
@pytest.mark.parametrize("name", sorted(PARSES))
def test_any_change_of_a_payload_gives_a_tree_or_a_reason(name: str) -> None:
    """Each odd value in each place of each seed, in the words of its own form."""
    for number, seed in enumerate(GOOD):
        for fault, make in islice(spoilt(seed), number, None, EVERY):
            try:
                payload = make()
            except UNWRITABLE:
                continue
            try:
                outcome(PARSES[name], payload)
            except Exception as error:
                raise AssertionError(f"{fault}: {payload[:400]!r}") from error


def large() -> dict[str, bytes]:
    """Return payloads of the greatest size, each against one weak place."""
    size = 262_144
    rng = random.Random(7)
    return {
        "random": rng.randbytes(size),
        "digits": b"1" * size,
        "open arrays": b"[" * size,
        "open elements": b"<a>" * (size // 3),
        "attributes": b"<a " + b"".join(b'a%d="" ' % k for k in range(20_000)) + b"/>",
        "empty maps": b"\x9f" + b"\xa0" * (size - 2) + b"\xff",
        "nested lists": (b"\x9a\x00\x03\xf0\x00" * 1_000).ljust(size, b"\x00"),
        "nested messagepack": (b"\xdd\x00\x03\xf0\x00" * 1_000).ljust(size, b"\x00"),
        "commas": b"," * size,
        "quotes": b'"' * size,
        "backslashes": b"m f=" + b"\\" * size,
        "no end of a string": b"[" * 40 + b'"' + b'\\"' * (size // 2 - 40),
        "no end of a text": b"[" * 40 + b'"' + b"a" * (size - 41),
        "no end of a field": b'm f="' + b"a" * (size - 5),
        "numbers of dots": b"1" * (size // 2) + b"." + b"1" * (size // 2 - 2) + b".",
        "escaped quotes": b'm f="' + b'\\"' * (size // 2),
        "pairs": b";".join(b"k%d=1" % k for k in range(30_000)),
        "fields": b"&".join(b"k%d=1" % k for k in range(30_000)),
        "percents": b"a=" + b"%41" * (size // 3),
        "lines": b"a\n" * (size // 2),
        "blanks": b" " * size,
        "hashes": b"#" * size,
        "tags": b"m," + b",".join(b"k%d=1" % k for k in range(30_000)) + b" f=1",
        "one number": b"1e" + b"9" * size,
        "big number": b"\xc2\x5a\x00\x03\xf0\x00" + b"\xff" * 258_048,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in PARSES if " in " not in name))
def test_large_payloads_cost_no_more_than_their_size(name: str) -> None:
    """What is as large as a message may be takes no time that grows faster than its size.

    Measured in the process's own time, ten times what the dearest needs here: what grows with the square needs minutes.
    """
    for case, payload in large().items():
        start = time.process_time()
        outcome(PARSES[name], payload)
        assert time.process_time() - start < 0.5, case


PAYLOADS = 250
"""In each of two rounds. A small object kept of each would be 4,000 bytes; the good formats keep less than 1,200."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in PARSES if " in " not in name))
def test_nothing_is_kept_of_a_payload(name: str) -> None:
    """Hundreds of payloads, good and bad, leave no memory behind: less than 14 bytes each."""
    rng = random.Random(5)
    parse = PARSES[name]

    def round_of(many: int) -> None:
        for _ in range(many):
            raw = bytearray(rng.choice(SEEDS))
            raw[rng.randrange(len(raw))] = rng.randrange(256)
            outcome(parse, bytes(raw))

    round_of(300)  # what is made once is there now
    gc.collect()
    tracemalloc.start()
    round_of(20)
    gc.collect()
    grown = []
    for _ in range(2):
        before = tracemalloc.get_traced_memory()[0]
        round_of(PAYLOADS)
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    # A leak grows in every round; what is made once may be made late.
    assert min(grown) < 14 * PAYLOADS
