"""Encoding of a batch of readings on the log and on the wire (format 1).

MessagePack inside zstd, a map: ``v`` format, ``n`` node, ``p`` partition, ``rows``, ``props`` property names,
``channels`` beside them (absent: none), ``counts`` rows of each of these, ``origins`` (device ids, four columns of
strings, positions, grades), ``cols`` integer columns (see `packing`), ``value`` (see `packing.pack_values`), ``text``
[count, rows, table, index into the table]; and, only on the node that committed it, ``local``. Rows are ordered by
property name, then device id, then arrival, so that neighbours are alike: at most 6 bytes a reading for slow city
telemetry.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.batch import Batch, LocalColumns, Origins, WordColumn, concat, ordered
from sensegate.bus.packing import (
    CONTENT_ERRORS,
    ROWS_MAX,
    Column,
    Oversized,
    Packed,
    Table,
    Values,
    VersionedMap,
    decode_map,
    encode_map,
    pack,
    pack_values,
    packed_row_count,
    unpack,
    unpack_values,
)
from sensegate.model import F64, I64, U32

__all__ = ["Batch", "LocalColumns", "Origins", "WordColumn", "concat", "decode", "encode", "ordered"]

BYTES_MAX = 256 * 1024**2
"""Largest batch after decompression; a larger one is refused."""
DEGREE_FRACTION = 1e7
"""Positions are stored in whole 1e-7 degrees (about a centimetre) where that is exact."""

_NO_DEGREES = -(1 << 63)
_HOLES = 9

_Devices = Annotated[list[str], msgspec.Meta(max_length=1 << 20)]
_Words = tuple[Table, Column]
_Degrees = bytes | Annotated[list[int | bytes | Column], msgspec.Meta(min_length=2, max_length=6)]


class _Origins(msgspec.Struct):
    device: _Devices
    words: tuple[_Words, _Words, _Words, _Words]
    lon: _Degrees
    lat: _Degrees
    grade: Column


class _Columns(msgspec.Struct):
    origin: Column
    time: Column
    received: Column
    quality: Column
    flags: Column
    time_quality: Column
    revision: Column
    seq: Column
    index: Column | None


class _Local(msgspec.Struct):
    key: Column | None
    path: Column
    identity: Column
    message: Column
    digest: bytes


class _Tree(VersionedMap):
    n: str
    p: int
    rows: int
    props: Table
    counts: Column
    origins: _Origins
    cols: _Columns
    value: Values
    channels: Table = msgspec.field(default_factory=list)
    text: tuple[int, Column, _Devices, Column] | None = None
    local: _Local | None = None


_decoder = msgspec.msgpack.Decoder(_Tree)


def encode(batch: Batch, *, is_ordered: bool = False) -> bytes:
    """Return the encoded batch; `is_ordered`: its tables and rows are known to be in the order of `ordered`.

    Where every `seq` is 0 the rows are new, and their `index` becomes their row number in the encoded order.
    """
    if not is_ordered:
        batch = ordered(batch)
    rows = len(batch)
    counts: I64 = np.bincount(batch.property, minlength=len(batch.properties)).astype(np.int64)
    shown = counts > 0
    if not shown.all():
        batch = ordered(batch.take(np.ones(rows, np.bool_)))
        counts = counts[shown]
    value = batch.value
    if batch.text:
        value = value.copy()
        value[list(batch.text)] = 0.0
    origins = batch.origins
    tree: dict[str, Any] = {
        "n": batch.node,
        "p": batch.partition,
        "rows": rows,
        "props": batch.properties,
        "counts": pack(counts),
        "origins": {
            "device": origins.device,
            "words": [
                [words.table, pack(words.index)]
                for words in (origins.division, origins.department, origins.domain, origins.profile)
            ],
            "lon": _pack_degrees(origins.lon),
            "lat": _pack_degrees(origins.lat),
            "grade": pack(origins.grade),
        },
        "cols": {
            "origin": pack(batch.origin),
            "time": pack(batch.time, (60_000_000, 1_000_000, 1_000), delta=False),
            "received": pack(batch.received // 1_000, delta=False),
            "quality": pack(batch.quality),
            "flags": pack(batch.flags),
            "time_quality": pack(batch.time_quality),
            "revision": pack(batch.revision),
            "seq": pack(batch.seq, delta=False),
            "index": _pack_index(batch.seq, batch.index),
        },
        "value": pack_values(value, counts),
    }
    if any(batch.channels):
        tree["channels"] = batch.channels
    if batch.text:
        table = sorted(set(batch.text.values()))
        place = {word: index for index, word in enumerate(table)}
        which = np.array([place[word] for word in batch.text.values()], np.int64)
        tree["text"] = [len(which), pack(np.array(list(batch.text), np.int64)), table, pack(which)]
    if (local := batch.local) is not None:
        same = bool((local.key == batch.time).all())
        tree["local"] = {
            "key": None if same else pack(local.key),
            "path": pack(local.path, delta=False),
            "identity": pack(local.identity),
            "message": pack(local.message),
            "digest": local.digest.astype("<u8", copy=False).tobytes(),
        }
    return encode_map(tree)


def _pack_degrees(degrees: F64) -> Packed | bytes:
    """Return degrees as whole 1e-7 degrees with a bitmap of missing values, or as floats where that is not exact."""
    with np.errstate(invalid="ignore"):  # values that are no position on Earth are kept as floats
        whole = np.rint(degrees * DEGREE_FRACTION).astype(np.int64)
    exact = whole / DEGREE_FRACTION == degrees
    if len(degrees) and exact.all():
        return pack(whole, delta=False)
    missing = np.isnan(degrees)
    if missing.all():
        return [0, _NO_DEGREES]
    if not (exact | missing).all():
        return degrees.astype("<f8").tobytes()
    return [_HOLES, pack(whole[exact], delta=False), np.packbits(missing).tobytes()]


def _unpack_degrees(packed: _Degrees, entries: int) -> F64:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, "<f8").astype(np.float64)
    match packed:
        case [0, -0x8000000000000000]:
            return np.full(entries, np.nan)
        case [9, list(known), bytes(holes)]:
            if len(holes) != (entries + 7) // 8:
                raise ValueError("positions do not match the devices")
            shown = ~np.unpackbits(np.frombuffer(holes, np.uint8), count=entries).astype(np.bool_)
            degrees = np.full(entries, np.nan)
            degrees[shown] = unpack(known, int(shown.sum())) / DEGREE_FRACTION
            return degrees
    return unpack([part for part in packed if not isinstance(part, list)], entries) / DEGREE_FRACTION


def _rank_in_seq(seq: I64) -> tuple[I64, I64]:
    """Return (rows grouped by seq, rank of each of these within its seq)."""
    order = np.argsort(seq, kind="stable")
    grouped = seq[order]
    first = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(seq)]]))
    return order, np.arange(len(seq)) - np.repeat(first, lengths)


def _pack_index(seq: I64, index: U32) -> Packed | None:
    """Return the packed index within the first commit; None where it equals the row number.

    Rows keep the order they had there, so that the difference to the rank among the rows of one commit is a number
    that only rises when rows were left out: nearly nothing.
    """
    if not len(seq) or not seq.any():
        return None
    order, rank = _rank_in_seq(seq)
    excess = index[order].astype(np.int64) - rank
    return pack(excess)


def decode(payload: bytes, *, sequence: int = 0, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX) -> Batch:
    """Return the batch of a log entry; `sequence` is the sequence of the entry.

    Raises:
        ValueError: the payload is not a batch of a known format.
        Oversized: it exceeds the limits, or claims rows for which it has no values.
    """
    tree = decode_map(payload, _decoder, limit=bytes_max, subject="batch of readings")
    try:
        _validate_row_count(tree, rows_max)
        return _validated(_batch(tree, sequence))
    except Oversized:
        raise
    except (*CONTENT_ERRORS, ValueError) as why:
        raise ValueError(f"not a batch of readings: {type(why).__name__}: {why}") from why


def _validate_row_count(tree: _Tree, rows_max: int) -> None:
    held = packed_row_count(tree.value)
    if not 0 <= tree.rows <= rows_max:
        raise Oversized(f"batch of readings: {tree.rows} rows; at most {rows_max}")
    if held != tree.rows:
        raise Oversized(f"batch of readings: it claims {tree.rows} rows and has values for {held}")


def _validated(batch: Batch) -> Batch:
    """Return the batch if all its indices are within their tables; raise `ValueError` otherwise."""
    origins, rows = batch.origins, len(batch)
    words = (origins.division, origins.department, origins.domain, origins.profile)
    if rows and int(batch.origin.max()) >= len(origins):
        raise ValueError("a device index is out of range")
    if any(len(column.index) and int(column.index.max()) >= len(column.table) for column in words):
        raise ValueError("a string index is out of range")
    if {len(origins.lon), len(origins.lat), len(origins.grade)} != {len(origins)}:
        raise ValueError("positions do not match the devices")
    if batch.text and not 0 <= min(batch.text) <= max(batch.text) < rows:
        raise ValueError("texts do not match the rows")
    if len(batch.channels) not in {0, len(batch.properties)}:
        raise ValueError("channels do not match the properties")
    local = batch.local
    if local is not None and len(local.message) and int(local.message.max()) >= len(local.digest):
        raise ValueError("a message index is out of range")
    return batch


def _batch(tree: _Tree, sequence: int) -> Batch:
    rows, names = tree.rows, tree.props
    counts = unpack(tree.counts, len(names))
    # Each count is checked first, because the sum of many large numbers would wrap at 2**64.
    if bool(((counts < 0) | (counts > rows)).any()) or int(counts.sum()) != rows:
        raise ValueError("row counts of the properties do not add up")
    cols, table = tree.cols, tree.origins
    entries = len(table.device)
    division, department, domain, profile = (
        WordColumn(spoken, _narrowed(unpack(index, entries), np.uint16)) for spoken, index in table.words
    )
    origins = Origins(
        table.device,
        division,
        department,
        domain,
        profile,
        _unpack_degrees(table.lon, entries),
        _unpack_degrees(table.lat, entries),
        unpack(table.grade, entries).astype(np.uint8),
    )
    seq = unpack(cols.seq, rows)
    if cols.index is None:
        index = np.arange(rows, dtype=np.uint32)
    else:
        order, rank = _rank_in_seq(seq)
        index = np.empty(rows, np.uint32)
        index[order] = (rank + unpack(cols.index, rows)).astype(np.uint32)
    if sequence and not seq.any():
        seq = np.full(rows, sequence, np.int64)
    time = unpack(cols.time, rows)
    value = unpack_values(tree.value, counts)
    text: dict[int, str] = {}
    if tree.text is not None:
        many, places, spoken, which = tree.text
        if not 0 <= many <= rows:
            raise ValueError("texts do not match the rows")
        text_rows = unpack(places, many)
        text = {row: spoken[word] for row, word in zip(text_rows.tolist(), unpack(which, many).tolist(), strict=True)}
        value[text_rows] = np.nan
    return Batch(
        tree.n,
        tree.p,
        origins,
        names,
        _narrowed(unpack(cols.origin, rows), np.uint32),
        np.repeat(np.arange(len(names), dtype=np.uint16), counts),
        time,
        unpack(cols.received, rows) * 1_000,
        value,
        text,
        unpack(cols.quality, rows).astype(np.uint8),
        unpack(cols.flags, rows).astype(np.uint32),
        unpack(cols.time_quality, rows).astype(np.uint8),
        unpack(cols.revision, rows).astype(np.uint8),
        seq,
        index,
        _local(tree.local, rows, time) if tree.local is not None else None,
        tree.channels,
    )


def _narrowed(column: I64, kind: type[np.uint16 | np.uint32]) -> Any:
    """Return a column of indices as a smaller type. Raises `ValueError` where a value would be truncated."""
    if len(column) and not 0 <= int(column.min()) <= int(column.max()) <= np.iinfo(kind).max:
        raise ValueError("an index is out of range")
    return column.astype(kind)


def _local(tree: _Local, rows: int, time: I64) -> LocalColumns:
    return LocalColumns(
        time if tree.key is None else unpack(tree.key, rows),
        unpack(tree.path, rows).astype(np.uint16),
        unpack(tree.identity, rows).astype(np.uint8),
        _narrowed(unpack(tree.message, rows), np.uint32),
        np.frombuffer(tree.digest, "<u8").astype(np.uint64),
    )
