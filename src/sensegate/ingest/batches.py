"""Decoded batches: the columns of a batch before duplicates are judged; merged and reduced.

Two parts are merged where a crash made the pipeline bisect a batch to isolate a poison message. A batch is reduced to a
selection where recorded messages are reprocessed for some of their devices.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np

from sensegate.model import BOOL, I64, Fields, Readings, RejectedValue, SequenceNumbers

_Columns = TypeVar("_Columns", Fields, Readings)


class DecodedBatch(msgspec.Struct, frozen=True, eq=False):
    """The columns decoded and normalised from a batch of messages."""

    received: I64
    """Arrival of each message, µs UTC."""
    fields: Fields
    readings: Readings
    rejected: list[RejectedValue]
    """Values rejected by normalisation; those rejected by decoding stand in `fields`."""

    def merged_with(self, second: DecodedBatch, messages: int) -> DecodedBatch:
        """Return the batch whose first `messages` messages are here and the rest in `second`."""
        return DecodedBatch(
            np.concatenate([self.received, second.received]),
            concatenated(self.fields, second.fields, messages),
            concatenated(self.readings, second.readings, messages),
            [*self.rejected, *_moved(second.rejected, messages)],
        )


def concatenated(first: _Columns, second: _Columns, messages: int) -> _Columns:
    """Return the columns of both; message indices of the second move up by `messages`, its row numbers by the rows."""
    rows = len(first)
    whole: dict[str, Any] = {}
    for name in first.__struct_fields__:
        column: Any = getattr(first, name)
        addition: Any = getattr(second, name)
        if name == "message":
            whole[name] = np.concatenate([column, addition + np.int32(messages)])
        elif isinstance(column, np.ndarray):
            whole[name] = np.concatenate([column, addition])
        elif isinstance(column, dict):
            whole[name] = column | {row + rows: value for row, value in addition.items()}
        elif isinstance(column, list):
            whole[name] = [*column, *_moved(addition, messages)]
        elif isinstance(column, SequenceNumbers):
            whole[name] = SequenceNumbers.joined(
                [column, msgspec.structs.replace(addition, message=addition.message + messages)]
            )
        else:
            whole[name] = column + addition
    return type(first)(**whole)


def _moved(records: list[Any], messages: int) -> list[Any]:
    return [msgspec.structs.replace(record, message=record.message + messages) for record in records]


class BatchSelection(msgspec.Struct, frozen=True, eq=False):
    """Selection of messages and rows of a batch, as masks."""

    messages: BOOL
    fields: BOOL
    """Mask of the rows of the fields."""
    readings: BOOL
    """Mask of the rows of the readings."""


def select(batch: DecodedBatch, selection: BatchSelection) -> DecodedBatch:
    """Return the selected part of a batch; rejections and quarantine follow their message."""
    number = np.cumsum(selection.messages) - 1
    return DecodedBatch(
        batch.received[selection.messages],
        _rows_of(batch.fields, selection.fields, selection.messages, number),
        _rows_of(batch.readings, selection.readings, selection.messages, number),
        _of_messages(batch.rejected, selection.messages, number),
    )


def _rows_of(columns: _Columns, rows: BOOL, messages: BOOL, number: I64) -> _Columns:
    place = np.cumsum(rows) - 1
    whole: dict[str, Any] = {}
    for name in columns.__struct_fields__:
        column: Any = getattr(columns, name)
        if name == "message":
            whole[name] = number[column[rows]].astype(np.int32)
        elif isinstance(column, np.ndarray):
            whole[name] = column[rows] if len(column) == len(rows) else column
        elif isinstance(column, dict):
            whole[name] = {int(place[row]): value for row, value in column.items() if rows[row]}
        elif isinstance(column, list):
            whole[name] = _of_messages(column, messages, number)
        elif isinstance(column, SequenceNumbers):
            whole[name] = column.take(messages[column.message], number[column.message])
        else:
            whole[name] = column
    return type(columns)(**whole)


def _of_messages(records: list[Any], messages: BOOL, number: I64) -> list[Any]:
    return [
        msgspec.structs.replace(record, message=int(number[record.message]))
        for record in records
        if messages[record.message]
    ]
