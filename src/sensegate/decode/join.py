"""Joins what the two paths made into the columns of `Fields`, in the order of the messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensegate.decode.extract import Rows
from sensegate.decode.plan import Chunk
from sensegate.model import I64, Fields, Quarantined, RejectedValue


def _of_rows(rows: Rows) -> Chunk:
    return Chunk(
        np.array(rows.message, np.int32),
        np.array(rows.device, np.int32),
        np.array(rows.spec, np.int32),
        np.array(rows.value, np.float64),
        np.array(rows.time, np.int64),
        np.array(rows.time_quality, np.uint8),
        np.array(rows.key, np.int64),
        np.array(rows.path, np.uint16),
        rows.text,
        rows.scale,
        rows.rejected,
        rows.ignored,
    )


def fields_of(rows: Rows, chunks: list[Chunk]) -> Fields:
    """Return all rows, by message; within a message as the profile names them."""
    if rows.message or rows.rejected or rows.ignored or not chunks:
        chunks = [*chunks, _of_rows(rows)]
    order = _order([chunk.message for chunk in chunks])
    text, scale = _moved(chunks, order)

    def join(columns: list[Any]) -> Any:
        column = np.concatenate(columns) if len(columns) > 1 else columns[0]
        return column if order is None else column[order]

    return Fields(
        message=join([chunk.message for chunk in chunks]),
        device=join([chunk.device for chunk in chunks]),
        spec=join([chunk.spec for chunk in chunks]),
        value=join([chunk.value for chunk in chunks]),
        text=text,
        time=join([chunk.time for chunk in chunks]),
        time_quality=join([chunk.time_quality for chunk in chunks]),
        key=join([chunk.key for chunk in chunks]),
        path=join([chunk.path for chunk in chunks]),
        override_scale=scale,
        quarantined=sorted(rows.quarantined, key=_message),
        rejected=sorted((value for chunk in chunks for value in chunk.rejected), key=_message),
        ignored=sum(chunk.ignored for chunk in chunks),
    )


def _order(columns: list[Any]) -> I64 | None:
    """Return the permutation that sorts the rows by message, None where they are sorted."""
    message = np.concatenate(columns)
    if not (message[1:] < message[:-1]).any():
        return None
    # 16-bit keys are sorted by radix, in linear time
    return np.argsort(message.astype(np.uint16) if int(message.max()) < 2**16 else message, kind="stable")


def _moved(chunks: list[Chunk], order: I64 | None) -> tuple[dict[int, str], dict[int, tuple[float, float]]]:
    """Return text and scales by their rows after joining and sorting."""
    text: dict[int, str] = {}
    scale: dict[int, tuple[float, float]] = {}
    if not any(chunk.text or chunk.scale for chunk in chunks):
        return text, scale
    row = np.arange(sum(len(chunk.message) for chunk in chunks))
    if order is not None:
        row[order] = np.arange(len(order))
    base = 0
    for chunk in chunks:
        text.update((int(row[base + at]), word) for at, word in chunk.text.items())
        scale.update((int(row[base + at]), pair) for at, pair in chunk.scale.items())
        base += len(chunk.message)
    return text, scale


def _message(item: Quarantined | RejectedValue) -> int:
    return item.message
