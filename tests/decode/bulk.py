"""Messages decoded many at once, beside each by itself: equal readings, equal refusals, and what is mutated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from sensegate.decode import Decoder
from sensegate.model import Fields, Message
from tests.decode.decoding import same

FEW = max(settings().max_examples * 2 // 5, 1)
"""Each of these examples decodes some hundred messages."""


def rows(fields: Fields, number: int, first: int) -> list[Any]:
    """Return all that the fields have of a message: readings, refusals; `number`: its index there, `first`: its own."""
    own = [row for row in range(len(fields)) if fields.message[row] == number]
    columns = (fields.device, fields.spec, fields.value, fields.time, fields.time_quality, fields.key, fields.path)
    readings = [
        [*(repr(column[row]) for column in columns), fields.text.get(row), fields.source_quality.get(row)]
        for row in own
    ]
    refused = [msgspec.structs.replace(item, message=first) for item in fields.quarantined if item.message == number]
    rejected = [item for item in fields.rejected if item.message == number]
    values = sorted((item.field, str(item.reason), item.device, item.detail) for item in rejected)
    fewer = [(item.device, item.count) for item in fields.downsampled if item.message == number]
    return [readings, refused, values, fewer]


def assert_bulk_is_single(make: Callable[[], Decoder], batches: Sequence[Sequence[Message]]) -> Decoder:
    """Assert that batches give what their messages give one by one, by columns or not; return the decoder in bulk."""
    bulk, single, slow = make(), make(), make()
    for batch in batches:
        fields = bulk.decode(batch)
        same(fields, slow.decode_row_by_row(batch))
        for number, message in enumerate(batch):
            assert rows(fields, number, number) == rows(single.decode([message]), 0, number)
    return bulk


def mutations(size: int = 6) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Return changes of bytes: (message, place, byte)."""
    change = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 255))
    return st.lists(change, max_size=size)


def mutated(payloads: Sequence[bytes], changes: Sequence[tuple[int, int, int]]) -> list[bytes]:
    """Return the payloads with some bytes changed; 0 cuts the payload off, 255 puts a byte in."""
    changed = list(payloads)
    for message, place, byte in changes:
        payload = bytearray(changed[message % len(changed)])
        if payload and not byte:
            del payload[place % len(payload) :]
        elif byte == 255:
            payload.insert(place % (len(payload) + 1), place & 255)
        elif payload:
            payload[place % len(payload)] = byte
        changed[message % len(changed)] = bytes(payload)
    return changed
