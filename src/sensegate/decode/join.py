"""Join the results of both paths into the columns of `Fields`, in the order of the messages."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from sensegate.decode.extract import DecodedRows
from sensegate.decode.plan import Chunk
from sensegate.model import I64, Fields, Quarantined, RejectedValue, SequenceNumbers

_T = TypeVar("_T")


def _chunk_of(rows: DecodedRows) -> Chunk:
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
        rows.quality,
        rows.flags,
    )


def fields_of(rows: DecodedRows, chunks: list[Chunk]) -> Fields:
    """Return all rows by message, and within a message in the order of the profile."""
    if rows.message or rows.rejected or rows.ignored or not chunks:
        chunks = [*chunks, _chunk_of(rows)]
    order = _order([chunk.message for chunk in chunks])
    text = _renumbered([chunk.text for chunk in chunks], chunks, order)
    scale = _renumbered([chunk.scale for chunk in chunks], chunks, order)
    quality = _renumbered([chunk.quality for chunk in chunks], chunks, order)
    flags = _renumbered([chunk.flags for chunk in chunks], chunks, order)

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
        source_quality=quality,
        source_flags=flags,
        ignored=sum(chunk.ignored for chunk in chunks),
        downsampled=rows.downsampled,
        sequence_numbers=SequenceNumbers.joined(
            [*(chunk.numbered for chunk in chunks), SequenceNumbers.of(rows.numbered)]
        ),
    )


def _order(columns: list[Any]) -> I64 | None:
    """Return the permutation that sorts the rows by message, None if they are sorted."""
    message = np.concatenate(columns)
    if not (message[1:] < message[:-1]).any():
        return None
    # numpy sorts 16-bit keys by radix, in linear time
    return np.argsort(message.astype(np.uint16) if int(message.max()) < 2**16 else message, kind="stable")


def _renumbered(sparse: list[dict[int, _T]], chunks: list[Chunk], order: I64 | None) -> dict[int, _T]:
    """Return values by row of each chunk, renumbered to the rows after joining and sorting."""
    if not any(sparse):
        return {}
    row = np.arange(sum(len(chunk.message) for chunk in chunks))
    if order is not None:
        row[order] = np.arange(len(order))
    renumbered: dict[int, _T] = {}
    base = 0
    for chunk, by_row in zip(chunks, sparse, strict=True):
        renumbered.update((int(row[base + local]), value) for local, value in by_row.items())
        base += len(chunk.message)
    return renumbered


def _message(item: Quarantined | RejectedValue) -> int:
    return item.message
