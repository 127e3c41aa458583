"""Batches put together and taken apart before they are judged.

Two halves as one, where a crash made the wiring walk a batch in halves to find its one bad message; and those rows of a
batch alone that are meant, where messages are decoded again for some of their devices.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np

from sensegate.model import BOOL, I64, Fields, Numbered, Readings, RejectedValue

_Columns = TypeVar("_Columns", Fields, Readings)


class Understood(msgspec.Struct, frozen=True, eq=False):
    """What became of a batch of messages before it is judged."""

    received: I64
    """Arrival of each message, µs UTC."""
    fields: Fields
    readings: Readings
    rejected: list[RejectedValue]
    """By `normalise`; those of `decode` stand in `fields`."""

    def then(self, second: Understood, messages: int) -> Understood:
        """Return the whole of which this is the first `messages` messages and `second` the rest."""
        return Understood(
            np.concatenate([self.received, second.received]),
            joined(self.fields, second.fields, messages),
            joined(self.readings, second.readings, messages),
            [*self.rejected, *_moved(second.rejected, messages)],
        )


def joined(first: _Columns, second: _Columns, messages: int) -> _Columns:
    """Return the columns of both; message indices of the second move up by `messages`, its row numbers by the rows."""
    rows = len(first)
    whole: dict[str, Any] = {}
    for name in first.__struct_fields__:
        one: Any = getattr(first, name)
        other: Any = getattr(second, name)
        if name == "message":
            whole[name] = np.concatenate([one, other + np.int32(messages)])
        elif isinstance(one, np.ndarray):
            whole[name] = np.concatenate([one, other])
        elif isinstance(one, dict):
            whole[name] = one | {row + rows: value for row, value in other.items()}
        elif isinstance(one, list):
            whole[name] = [*one, *_moved(other, messages)]
        elif isinstance(one, Numbered):
            whole[name] = Numbered.joined([one, msgspec.structs.replace(other, message=other.message + messages)])
        else:
            whole[name] = one + other
    return type(first)(**whole)


def _moved(listed: list[Any], messages: int) -> list[Any]:
    return [msgspec.structs.replace(one, message=one.message + messages) for one in listed]


class Meant(msgspec.Struct, frozen=True, eq=False):
    """What is meant of a batch."""

    messages: BOOL
    fields: BOOL
    """By row of the fields."""
    readings: BOOL
    """By row of the readings."""


def only(batch: Understood, meant: Meant) -> Understood:
    """Return the part of a batch that is meant; what was refused stays where its message does."""
    number = np.cumsum(meant.messages) - 1
    return Understood(
        batch.received[meant.messages],
        _kept(batch.fields, meant.fields, meant.messages, number),
        _kept(batch.readings, meant.readings, meant.messages, number),
        _left(batch.rejected, meant.messages, number),
    )


def _kept(columns: _Columns, rows: BOOL, messages: BOOL, number: I64) -> _Columns:
    place = np.cumsum(rows) - 1
    whole: dict[str, Any] = {}
    for name in columns.__struct_fields__:
        one: Any = getattr(columns, name)
        if name == "message":
            whole[name] = number[one[rows]].astype(np.int32)
        elif isinstance(one, np.ndarray):
            whole[name] = one[rows] if len(one) == len(rows) else one
        elif isinstance(one, dict):
            whole[name] = {int(place[row]): value for row, value in one.items() if rows[row]}
        elif isinstance(one, list):
            whole[name] = _left(one, messages, number)
        elif isinstance(one, Numbered):
            whole[name] = one.take(messages[one.message], number[one.message])
        else:
            whole[name] = one
    return type(columns)(**whole)


def _left(listed: list[Any], messages: BOOL, number: I64) -> list[Any]:
    return [msgspec.structs.replace(one, message=int(number[one.message])) for one in listed if messages[one.message]]
