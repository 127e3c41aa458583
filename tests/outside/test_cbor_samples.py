"""The CBOR vectors of RFC 8949: the good ones become their values, the bad ones are refused and cost nothing.

The vectors are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `cbor/*.jsonl`.
"""

from __future__ import annotations

import json
import os
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.errors import ProfileError, Rejected
from sensegate.model import QuarantineReason

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
GOOD, BAD = 81, 94

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with cbor/appendix-a.jsonl and the other"
)


def vectors(name: str) -> list[dict[str, Any]]:
    if not SAMPLES:
        return []
    text = (Path(SAMPLES) / "cbor" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def parse(payload: bytes) -> Any:
    setting = FormatContext(
        "vendor/model", 1, Path(), lambda problem, *_, remedy="": ProfileError(problem, remedy=remedy)
    )
    return FORMATS["cbor"].compile(None, setting)(PayloadFrame(payload, 32))


DIAGNOSTIC: dict[str, Any] = {"undefined": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
"""Diagnostic notation -> value, for what is no JSON."""


def parse_diagnostic(diagnostic: str) -> Any:
    """Return the tree that an item in diagnostic notation stands for: tags left out, bytes in hex, keys as text."""
    if diagnostic in DIAGNOSTIC:
        return DIAGNOSTIC[diagnostic]
    if diagnostic.startswith("simple("):
        return diagnostic
    if parts := re.fullmatch(r"\(_ (.*)\)", diagnostic):  # bytes or text in pieces
        return "".join(parse_diagnostic(part) for part in parts[1].split(", "))
    text = re.sub(r"\d+\((.*)\)", r"\1", diagnostic)  # a tag
    text = re.sub(r"h'([0-9a-f]*)'", r'"\1"', text)
    text = re.sub(r"(?<=[{ ])(-?\d+): ", r'"\1": ', text).replace("_ ", "")
    return json.loads(text)


def as_text_keys(tree: Any) -> Any:
    return json.loads(json.dumps(tree))


@pytest.mark.parametrize("vector", vectors("appendix-a.jsonl"), ids=lambda vector: vector["hex"][:40])
def test_a_good_item_is_its_value(vector: dict[str, Any]) -> None:
    """The value is that of the table, and of its kind: 1 is not 1.0 and not true."""
    parsed = parse(bytes.fromhex(vector["hex"]))
    if vector.get("diagnostic") == "NaN":
        assert parsed != parsed  # noqa: PLR0124 - that is what NaN is
        return
    expected = as_text_keys(vector["decoded"]) if "decoded" in vector else parse_diagnostic(vector["diagnostic"])
    assert parsed == expected
    assert type(parsed) is type(expected)


def test_all_good_items_are_there() -> None:
    """None of them was left out."""
    assert len(vectors("appendix-a.jsonl")) == GOOD


def test_every_bad_item_is_refused_and_costs_nothing() -> None:
    """Each is refused as what it is; none reserves what it announces, none takes time."""
    bad = vectors("must-fail.jsonl")
    refused: list[str] = []
    dearest = slowest = 0.0
    for vector in bad:
        payload = bytes.fromhex(vector["hex"])
        tracemalloc.start()
        start = time.process_time()
        try:
            parse(payload)
        except Rejected as why:
            refused.append(why.reason)
        slowest = max(slowest, time.process_time() - start)
        dearest = max(dearest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print(f"\n{len(refused)} of {len(bad)} refused; at most {dearest / 1024:.0f} KiB, {slowest * 1000:.2f} ms")
    assert len(bad) == len(refused) == BAD
    assert set(refused) <= {QuarantineReason.MALFORMED, QuarantineReason.TOO_DEEP, QuarantineReason.NOT_UTF8}
    assert dearest < 256 * 1024


def test_no_beginning_of_a_good_item_is_an_item() -> None:
    """What is cut short is refused: nothing is read that is not there."""
    for vector in vectors("appendix-a.jsonl"):
        payload = bytes.fromhex(vector["hex"])
        for cut in range(len(payload)):
            with pytest.raises(Rejected):
                parse(payload[:cut])
