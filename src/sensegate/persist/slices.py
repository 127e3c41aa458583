"""Splitting of a batch that is too large for one commit, between messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from sensegate.model import (
    BOOL,
    Delivery,
    Fields,
    MessageBatch,
    Readings,
    RejectedValue,
    SequenceNumbers,
    SourcePosition,
)


class BatchSlice(msgspec.Struct, frozen=True, eq=False):
    """The part of a batch that goes into one commit."""

    deliveries: Sequence[Delivery]
    messages: MessageBatch
    sources: Sequence[str] | str
    fields: Fields
    readings: Readings
    rejected: Sequence[RejectedValue]


def slice_batch(whole: BatchSlice, *, slices_min: int, bytes_max: int) -> Iterator[BatchSlice]:
    """Yield slices of at most `bytes_max` bytes of payload, at least `slices_min` of them; usually one."""
    messages = whole.messages
    if not messages:
        return
    size = np.cumsum(messages.lengths)
    if slices_min == 1 and int(size[-1]) <= bytes_max:
        yield whole
        return
    most = -(-len(messages) // slices_min)
    start = 0
    while start < len(messages):
        before = int(size[start - 1]) if start else 0
        end = int(np.searchsorted(size, before + bytes_max, side="right"))
        end = min(max(end, start + 1), start + most, len(messages))
        part = deliveries_of_range(whole.deliveries, start, end)
        yield BatchSlice(
            part,
            MessageBatch(messages[start:end]),
            sources_of(part),
            _fields(whole.fields, start, end),
            _readings(whole.readings, start, end),
            _in_range(whole.rejected, start, end),
        )
        start = end


def sources_of(deliveries: Sequence[Delivery]) -> Sequence[str] | str:
    """Return the source of each message, or a single name where all have the same."""
    names = {delivery.source for delivery in deliveries}
    if len(names) == 1:
        return names.pop()
    return [delivery.source for delivery in deliveries for _ in delivery.messages]


def deliveries_of_range(deliveries: Sequence[Delivery], start: int, end: int) -> list[Delivery]:
    """Return the deliveries of a range of messages; a split one has the position of its last message."""
    parts, first = [], 0
    for delivery in deliveries:
        last = first + len(delivery.messages)
        low, high = max(start, first), min(end, last)
        if low < high:
            messages = delivery.messages[low - first : high - first]
            position, after = delivery.position, delivery.position_after
            if position is not None and high < last:
                if after:
                    position = after(high - first)
                else:
                    at = messages[-1].received if position.received else 0
                    position = SourcePosition(position.epoch, messages[-1].sequence, at)
            after = partial(_after, after, low - first) if after else None
            parts.append(msgspec.structs.replace(delivery, messages=messages, position=position, position_after=after))
        first = last
    return parts


def _after(position_after: Callable[[int], SourcePosition], skipped: int, messages: int) -> SourcePosition:
    return position_after(skipped + messages)


def _renumbered(text: dict[int, str], mask: BOOL) -> dict[int, str]:
    if not text:
        return {}
    place = np.cumsum(mask) - 1
    return {int(place[row]): word for row, word in text.items() if mask[row]}


def _in_range(records: Sequence[Any], start: int, end: int) -> list[Any]:
    """Return the records of a range of messages, with message indices relative to its start."""
    return [
        msgspec.structs.replace(record, message=record.message - start)
        for record in records
        if start <= record.message < end
    ]


def _numbered(numbered: SequenceNumbers, start: int, end: int) -> SequenceNumbers:
    within = (numbered.message >= start) & (numbered.message < end)
    return numbered.take(within, numbered.message - start)


def _fields(fields: Fields, start: int, end: int) -> Fields:
    mask = (fields.message >= start) & (fields.message < end)
    return Fields(
        message=fields.message[mask] - start,
        device=fields.device[mask],
        spec=fields.spec[mask],
        value=fields.value[mask],
        text=_renumbered(fields.text, mask),
        time=fields.time[mask],
        time_quality=fields.time_quality[mask],
        key=fields.key[mask],
        path=fields.path[mask],
        quarantined=_in_range(fields.quarantined, start, end),
        rejected=_in_range(fields.rejected, start, end),
        ignored=fields.ignored if start == 0 else 0,
        downsampled=_in_range(fields.downsampled, start, end),
        removed=_in_range(fields.removed, start, end),
        sequence_numbers=_numbered(fields.sequence_numbers, start, end),
    )


def _readings(readings: Readings, start: int, end: int) -> Readings:
    mask = (readings.message >= start) & (readings.message < end)
    columns = {
        name: getattr(readings, name)[mask]
        for name in ("device", "spec", "property", "value", "time", "time_quality", "received", "key", "path")
    }
    return Readings(
        message=readings.message[mask] - start,
        text=_renumbered(readings.text, mask),
        quality=readings.quality[mask],
        flags=readings.flags[mask],
        series=readings.series[mask],
        **columns,
    )
