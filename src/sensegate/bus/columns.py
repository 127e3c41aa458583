"""The form of a batch of readings on the log and on the wire (format 1).

MessagePack inside zstd, a map: ``v`` format, ``n`` node, ``p`` partition, ``rows``, ``props`` property names,
``channels`` beside them (absent: none), ``counts`` rows of each of these, ``origins`` (device ids, four columns of
words, places, grades), ``cols`` integer columns (see `packing`), ``value`` (see `packing.pack_values`), ``text``
[how many, rows, words, index of the word]; and, only on the node that committed it, ``local``. Rows are ordered by
property name, then device id, then arrival, so that neighbours are alike: at most 6 bytes a reading for slow city
telemetry.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.batch import Batch, Local, Origins, Words, concat, ordered
from sensegate.bus.packing import (
    FAULTS,
    ROWS_MAX,
    Column,
    Oversized,
    Packed,
    Sealed,
    Table,
    Values,
    pack,
    pack_values,
    rows_in,
    seal,
    unpack,
    unpack_values,
    unseal,
)
from sensegate.model import F64, I64, U32

__all__ = ["Batch", "Local", "Origins", "Words", "concat", "decode", "encode", "ordered"]

BYTES_MAX = 256 * 1024**2
"""Largest batch after decompression; a larger one is refused."""
PLACE = 1e7
"""Places are whole 1/PLACE degrees where that is exact; a centimetre."""

_NOWHERE = -(1 << 63)
_HOLES = 9

_Devices = Annotated[list[str], msgspec.Meta(max_length=1 << 20)]
_Words = tuple[Table, Column]
_Place = bytes | Annotated[list[int | bytes | Column], msgspec.Meta(min_length=2, max_length=6)]


class _Origins(msgspec.Struct):
    device: _Devices
    words: tuple[_Words, _Words, _Words, _Words]
    lon: _Place
    lat: _Place
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


class _Tree(Sealed):
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


def encode(batch: Batch) -> bytes:
    """Return the batch as it stands on the log.

    Where every `seq` is 0 the rows are new: their `index` is their place in the encoded order, whatever it was.
    """
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
            "lon": _pack_place(origins.lon),
            "lat": _pack_place(origins.lat),
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
    return seal(tree)


def _pack_place(degrees: F64) -> Packed | bytes:
    """Return places as whole 1e-7 degrees, the entries without one named apart; as they are if that is not exact."""
    known = ~np.isnan(degrees)
    if not known.any():
        return [0, _NOWHERE]
    with np.errstate(invalid="ignore"):  # what is no place on Earth is kept as it is
        whole = np.rint(degrees[known] * PLACE).astype(np.int64)
    if not (whole / PLACE == degrees[known]).all():
        return degrees.astype("<f8").tobytes()
    if known.all():
        return pack(whole, delta=False)
    return [_HOLES, pack(whole, delta=False), np.packbits(~known).tobytes()]


def _unpack_place(packed: _Place, entries: int) -> F64:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, "<f8").astype(np.float64)
    match packed:
        case [0, -0x8000000000000000]:
            return np.full(entries, np.nan)
        case [9, list(known), bytes(holes)]:
            if len(holes) != (entries + 7) // 8:
                raise ValueError("places of other devices")
            shown = ~np.unpackbits(np.frombuffer(holes, np.uint8), count=entries).astype(np.bool_)
            degrees = np.full(entries, np.nan)
            degrees[shown] = unpack(known, int(shown.sum())) / PLACE
            return degrees
    return unpack([part for part in packed if not isinstance(part, list)], entries) / PLACE


def _rank_in_seq(seq: I64) -> tuple[I64, I64]:
    """Return (rows grouped by seq, rank of each of these within its seq)."""
    order = np.argsort(seq, kind="stable")
    grouped = seq[order]
    first = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(seq)]]))
    return order, np.arange(len(seq)) - np.repeat(first, lengths)


def _pack_index(seq: I64, index: U32) -> Packed | None:
    """Return the index within the first commit: None where it is the row itself.

    Rows keep the order they had there, so that the difference to the rank among the rows of one commit is a number
    that only rises when rows were left out: nearly nothing.
    """
    if not len(seq) or not seq.any():
        return None
    order, rank = _rank_in_seq(seq)
    excess = index[order].astype(np.int64) - rank
    return pack(excess)


def decode(payload: bytes, *, sequence: int = 0, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX) -> Batch:
    """Return the batch of an entry of the log; `sequence` is the entry's.

    Raises:
        ValueError: if it is not a batch of a format known here.
        Oversized: if it is larger than the limits, or claims rows for which it has no values.
    """
    tree = unseal(payload, _decoder, limit=bytes_max, what="batch of readings")
    try:
        _demand_rows(tree, rows_max)
        return _checked(_batch(tree, sequence))
    except Oversized:
        raise
    except (*FAULTS, ValueError) as why:
        raise ValueError(f"not a batch of readings: {type(why).__name__}: {why}") from why


def _demand_rows(tree: _Tree, rows_max: int) -> None:
    held = rows_in(tree.value)
    if not 0 <= tree.rows <= rows_max:
        raise Oversized(f"batch of readings: {tree.rows} rows; at most {rows_max}")
    if held != tree.rows:
        raise Oversized(f"batch of readings: {tree.rows} rows, but the values of {held}")


def _checked(batch: Batch) -> Batch:
    """Return a batch whose places are all in their tables. Raises `ValueError` for another."""
    origins, rows = batch.origins, len(batch)
    words = (origins.division, origins.department, origins.domain, origins.profile)
    if rows and int(batch.origin.max()) >= len(origins):
        raise ValueError("a device that is not there")
    if any(len(one.index) and int(one.index.max()) >= len(one.table) for one in words):
        raise ValueError("a word that is not there")
    if {len(origins.lon), len(origins.lat), len(origins.grade)} != {len(origins)}:
        raise ValueError("places of other devices")
    if batch.text and not 0 <= min(batch.text) <= max(batch.text) < rows:
        raise ValueError("texts of other rows")
    if len(batch.channels) not in {0, len(batch.properties)}:
        raise ValueError("channels of other properties")
    local = batch.local
    if local is not None and len(local.message) and int(local.message.max()) >= len(local.digest):
        raise ValueError("a message that is not there")
    return batch


def _batch(tree: _Tree, sequence: int) -> Batch:
    rows, names = tree.rows, tree.props
    counts = unpack(tree.counts, len(names))
    # Each by itself first: a sum of many great numbers is taken modulo 2**64.
    if bool(((counts < 0) | (counts > rows)).any()) or int(counts.sum()) != rows:
        raise ValueError("rows of the properties do not add up")
    cols, table = tree.cols, tree.origins
    entries = len(table.device)
    division, department, domain, profile = (
        Words(spoken, _narrow(unpack(index, entries), np.uint16)) for spoken, index in table.words
    )
    origins = Origins(
        table.device,
        division,
        department,
        domain,
        profile,
        _unpack_place(table.lon, entries),
        _unpack_place(table.lat, entries),
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
            raise ValueError("texts of other rows")
        text_rows = unpack(places, many)
        text = {row: spoken[word] for row, word in zip(text_rows.tolist(), unpack(which, many).tolist(), strict=True)}
        value[text_rows] = np.nan
    return Batch(
        tree.n,
        tree.p,
        origins,
        names,
        _narrow(unpack(cols.origin, rows), np.uint32),
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


def _narrow(column: I64, kind: type[np.uint16 | np.uint32]) -> Any:
    """Return a column of indices as a smaller type; one that does not fit would point at another place."""
    if len(column) and not 0 <= int(column.min()) <= int(column.max()) <= np.iinfo(kind).max:
        raise ValueError("an index that is out of range")
    return column.astype(kind)


def _local(tree: _Local, rows: int, time: I64) -> Local:
    return Local(
        time if tree.key is None else unpack(tree.key, rows),
        unpack(tree.path, rows).astype(np.uint16),
        unpack(tree.identity, rows).astype(np.uint8),
        _narrow(unpack(tree.message, rows), np.uint32),
        np.frombuffer(tree.digest, "<u8").astype(np.uint64),
    )
