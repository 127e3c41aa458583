"""Join the results of both paths into the columns of `Fields`, in the order of the messages."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from sensegate.decode.extract import DecodedRows
from sensegate.decode.plan_parts import Chunk
from sensegate.model import I32, I64, NO_SEQUENCE_NUMBERS, Fields, Quarantined, RejectedValue, SequenceNumbers

_T = TypeVar("_T")


def _chunk_of(rows: DecodedRows) -> Chunk:
    return Chunk(
        np.array(rows.message, np.int32),
        np.array(rows.device, np.int32),
        np.array(rows.time, np.int64),
        np.array(rows.time_quality, np.uint8),
        np.array(rows.key, np.int64),
        np.array(rows.path, np.uint16),
        1,
        np.array(rows.spec, np.int32),
        np.array(rows.value, np.float64),
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
    message = _joined([chunk.message for chunk in chunks])
    layout = _layout(message, chunks)
    order, counts = layout.order, layout.counts

    def by_origin(columns: list[Any]) -> Any:
        column = _joined(columns)
        column = column if order is None else column[order]
        return column if isinstance(counts, int) and counts == 1 else column.repeat(counts)

    def by_row(columns: list[Any]) -> Any:
        column = _joined(columns)
        return column if layout.rows is None else column[layout.rows]

    return Fields(
        message=by_origin([message]),
        device=by_origin([chunk.device for chunk in chunks]),
        spec=by_row([chunk.spec for chunk in chunks]),
        value=by_row([chunk.value for chunk in chunks]),
        text=_renumbered([chunk.text for chunk in chunks], chunks, layout.rows),
        time=by_origin([chunk.time for chunk in chunks]),
        time_quality=by_origin([chunk.time_quality for chunk in chunks]),
        key=by_origin([chunk.key for chunk in chunks]),
        path=by_origin([chunk.path for chunk in chunks]),
        override_scale=_renumbered([chunk.scale for chunk in chunks], chunks, layout.rows),
        quarantined=sorted(rows.quarantined, key=_message),
        rejected=sorted((value for chunk in chunks for value in chunk.rejected), key=_message),
        source_quality=_renumbered([chunk.quality for chunk in chunks], chunks, layout.rows),
        source_flags=_renumbered([chunk.flags for chunk in chunks], chunks, layout.rows),
        ignored=sum(chunk.ignored for chunk in chunks),
        downsampled=rows.downsampled,
        sequence_numbers=_numbers_of(rows, chunks),
    )


def _numbers_of(rows: DecodedRows, chunks: list[Chunk]) -> SequenceNumbers:
    parts = [chunk.numbered for chunk in chunks if len(chunk.numbered)]
    if rows.numbered:
        parts.append(SequenceNumbers.of(rows.numbered))
    return SequenceNumbers.joined(parts) if parts else NO_SEQUENCE_NUMBERS


class _Layout(NamedTuple):
    """Positions of the rows of the chunks."""

    order: I64 | None
    """Permutation that sorts the origins by message; None: they are sorted."""
    counts: int | I64
    """Number of rows of every origin, or of each, in that order."""
    rows: I64 | None
    """The same permutation of the rows."""


def _layout(message: I32, chunks: list[Chunk]) -> _Layout:
    counts = [chunk.rows for chunk in chunks]
    width = counts[0]
    if isinstance(width, int) and all(isinstance(count, int) and count == width for count in counts):
        same: int | I64 = width
    else:
        same = np.concatenate([np.broadcast_to(chunk.rows, len(chunk.message)) for chunk in chunks])
    if not (message[1:] < message[:-1]).any():
        return _Layout(None, same, None)
    # numpy sorts 16-bit keys by radix, in linear time
    order = np.argsort(message.astype(np.uint16) if int(message.max()) < 2**16 else message, kind="stable")
    if isinstance(same, int):
        return _Layout(order, same, order if same == 1 else (order[:, None] * same + np.arange(same)).ravel())
    ends, counts_in_order = same.cumsum(), same[order]
    starts_in_order = ends[order] - counts_in_order
    new_starts = counts_in_order.cumsum() - counts_in_order
    rows = np.arange(int(ends[-1])) + (starts_in_order - new_starts).repeat(counts_in_order)
    return _Layout(order, counts_in_order, rows)


def _joined(columns: list[Any]) -> Any:
    return np.concatenate(columns) if len(columns) > 1 else columns[0]


def _renumbered(sparse: list[dict[int, _T]], chunks: list[Chunk], rows: I64 | None) -> dict[int, _T]:
    """Return values by row of each chunk, renumbered to the rows after joining and sorting."""
    if not any(sparse):
        return {}
    row = np.arange(sum(len(chunk.spec) for chunk in chunks))
    if rows is not None:
        row[rows] = np.arange(len(rows))
    renumbered: dict[int, _T] = {}
    base = 0
    for chunk, by_row in zip(chunks, sparse, strict=True):
        renumbered.update((int(row[base + local]), value) for local, value in by_row.items())
        base += len(chunk.spec)
    return renumbered


def _message(item: Quarantined | RejectedValue) -> int:
    return item.message
