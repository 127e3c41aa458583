"""A span that is too large for one commit, cut between messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.model import BOOL, Delivery, Fields, Numbered, Position, Readings, RejectedValue, Span


class Slice(msgspec.Struct, frozen=True, eq=False):
    """What goes into one commit."""

    deliveries: Sequence[Delivery]
    messages: Span
    sources: Sequence[str] | str
    fields: Fields
    readings: Readings
    rejected: Sequence[RejectedValue]


def slices(whole: Slice, *, least: int, bytes_max: int) -> Iterator[Slice]:
    """Yield a span in slices of at most `bytes_max` bytes of payload, at least `least` of them; one as a rule."""
    messages = whole.messages
    if not messages:
        return
    size = np.cumsum(messages.lengths)
    if least == 1 and int(size[-1]) <= bytes_max:
        yield whole
        return
    most = -(-len(messages) // least)
    start = 0
    while start < len(messages):
        before = int(size[start - 1]) if start else 0
        end = int(np.searchsorted(size, before + bytes_max, side="right"))
        end = min(max(end, start + 1), start + most, len(messages))
        part = part_of(whole.deliveries, start, end)
        yield Slice(
            part,
            Span(messages[start:end]),
            sources_of(part),
            _fields(whole.fields, start, end),
            _readings(whole.readings, start, end),
            _within(whole.rejected, start, end),
        )
        start = end


def sources_of(deliveries: Sequence[Delivery]) -> Sequence[str] | str:
    """Return the source of each message; one name where all have the same."""
    names = {delivery.source for delivery in deliveries}
    if len(names) == 1:
        return names.pop()
    return [delivery.source for delivery in deliveries for _ in delivery.messages]


def part_of(deliveries: Sequence[Delivery], start: int, end: int) -> list[Delivery]:
    """Return the deliveries of a range of messages; one that is cut has the position of its last message."""
    parts, first = [], 0
    for delivery in deliveries:
        last = first + len(delivery.messages)
        low, high = max(start, first), min(end, last)
        if low < high:
            messages = delivery.messages[low - first : high - first]
            position = delivery.position
            if position is not None and high < last:
                at = messages[-1].received if position.at else 0
                position = Position(position.life, messages[-1].sequence, at)
            parts.append(Delivery(delivery.source, messages, delivery.ack, position))
        first = last
    return parts


def _renumbered(text: dict[int, str], mask: BOOL) -> dict[int, str]:
    if not text:
        return {}
    place = np.cumsum(mask) - 1
    return {int(place[row]): word for row, word in text.items() if mask[row]}


def _within(listed: Sequence[Any], start: int, end: int) -> list[Any]:
    """Return what concerns a range of messages, counted from its beginning."""
    return [msgspec.structs.replace(one, message=one.message - start) for one in listed if start <= one.message < end]


def _numbered(numbered: Numbered, start: int, end: int) -> Numbered:
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
        quarantined=_within(fields.quarantined, start, end),
        rejected=_within(fields.rejected, start, end),
        ignored=fields.ignored if start == 0 else 0,
        thinned=_within(fields.thinned, start, end),
        removed=_within(fields.removed, start, end),
        numbered=_numbered(fields.numbered, start, end),
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
