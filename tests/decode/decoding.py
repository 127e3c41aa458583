"""Comparison of decoded fields, and rules that are decoded in one line."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from sensegate.decode import Decoder
from sensegate.model import Fields, Message


def same(fields: Fields, other: Fields) -> None:
    """Assert that two results are equal in every column and list."""
    for name in ("message", "device", "spec", "value", "time", "time_quality", "key", "path"):
        left, right = getattr(fields, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        assert np.array_equal(left, right, equal_nan=name == "value"), name
    assert fields.text == other.text
    assert fields.override_scale == other.override_scale
    assert fields.ignored == other.ignored
    assert fields.quarantined == other.quarantined
    key = lambda value: (value.message, value.field, value.reason)  # noqa: E731 - three uses, one line
    assert sorted(fields.rejected, key=key) == sorted(other.rejected, key=key)


NOW = 1_767_225_600_000_000


def run(decoder: Decoder, *payloads: Any, topic: str = "acme/d1") -> Fields:
    """Decode payloads forty times each, so that both paths see them; return the fields of the second batch."""
    messages = [
        Message(topic, payload if isinstance(payload, bytes) else msgspec.json.encode(payload), NOW, 1)
        for payload in payloads
        for _ in range(40)
    ]
    decoder.decode(messages)
    return decoder.decode(messages)


def values(decoder: Decoder, fields: Fields, first: int = 40) -> dict[str, Any]:
    """Return field -> value (as sent) of the first payload's first message."""
    rows = [row for row in range(len(fields)) if fields.message[row] == 0]
    assert len(fields) >= len(rows) * first
    return {
        decoder.profiles.specs[fields.spec[row]].name: fields.text.get(row, float(fields.value[row])) for row in rows
    }


def all_values(decoder: Decoder, fields: Fields) -> list[tuple[str, float]]:
    """Return (field, value) of every row of the first message."""
    specs = decoder.profiles.specs
    return [
        (specs[fields.spec[row]].name, float(fields.value[row]))
        for row in range(len(fields))
        if fields.message[row] == 0
    ]
