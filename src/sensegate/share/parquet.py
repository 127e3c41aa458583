"""Encoder of records as a Parquet file: one row group, dictionaries of strings, zstd.

A writer of flat columns is small and every reader understands its output, while the libraries that write Parquet are
larger than all other dependencies together (`DECISIONS.md`). The tests read the files with pyarrow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zstandard

from sensegate.share import records
from sensegate.share.cursor import row_text

MAGIC = b"PAR1"
_INT32, _INT64, _DOUBLE, _BYTES = 1, 2, 5, 6
_PLAIN, _RLE, _RLE_DICTIONARY = 0, 3, 8
_ZSTD = 6
_STRING, _TIMESTAMP_US = 0, 10
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_LEVEL = 3


class ThriftWriter:
    """Writer of Thrift's compact protocol: structs, lists, integers, strings, booleans."""

    def __init__(self) -> None:
        self.out = bytearray()

    def varint(self, value: int) -> None:
        """Append an unsigned number, seven bits a byte."""
        while value > 0x7F:
            self.out.append(value & 0x7F | 0x80)
            value >>= 7
        self.out.append(value)

    def struct(self, *fields: tuple[int, str, Any]) -> None:
        """Append a struct of fields (id, kind, value), ids rising; None is left out.

        Kinds: i32 i64 text bool struct, and lists of them (``[i32]``); a struct is its tuple of fields.
        """
        last = 0
        for number, kind, value in fields:
            if value is None:
                continue
            code = (2 - bool(value)) if kind == "bool" else 9 if kind.startswith("[") else _CODES[kind]
            self.out.append((number - last) << 4 | code)
            last = number
            if kind.startswith("["):
                self._list(kind[1:-1], value)
            elif kind != "bool":
                self._value(kind, value)
        self.out.append(0)

    def _list(self, kind: str, values: Sequence[Any]) -> None:
        code = _CODES[kind]
        if len(values) < 15:
            self.out.append(len(values) << 4 | code)
        else:
            self.out.append(0xF0 | code)
            self.varint(len(values))
        for value in values:
            self._value(kind, value)

    def _value(self, kind: str, value: Any) -> None:
        if kind in {"i32", "i64"}:
            self.varint((value << 1) ^ (value >> 63))
        elif kind == "text":
            raw = value.encode()
            self.varint(len(raw))
            self.out += raw
        else:
            self.struct(*value)


_CODES = {"i32": 5, "i64": 6, "text": 8, "struct": 12}


class ParquetColumn:
    """Column of a Parquet file."""

    def __init__(self, name: str, kind: int, *, converted: int | None = None, logical: Any = None) -> None:
        self.name = name
        self.kind = kind
        self.converted = converted
        self.logical = logical
        self.dictionary: list[str] | None = None
        self.values: Any = None
        self.present: Any = None
        """Mask of the rows that have a value; None: all have one."""

    def schema(self) -> tuple[Any, ...]:
        """Return the schema element of the column."""
        return (
            (1, "i32", self.kind),
            (3, "i32", int(self.present is not None)),
            (4, "text", self.name),
            (6, "i32", self.converted),
            (10, "struct", self.logical),
        )


_UTF8 = ((1, "struct", ()),)
_MICROSECONDS = ((8, "struct", ((1, "bool", True), (2, "struct", ((2, "struct", ()),)))),)


def dictionary_column(name: str, texts: Sequence[str]) -> ParquetColumn:
    """Return a column of strings with many repetitions, encoded by dictionary."""
    codes: dict[str, int] = {}
    column = ParquetColumn(name, _BYTES, converted=_STRING, logical=_UTF8)
    column.values = np.array([codes.setdefault(text, len(codes)) for text in texts], np.int64)
    column.dictionary = list(codes)
    return column


def text_column(name: str, values: Sequence[str | None], *, optional: bool = False) -> ParquetColumn:
    """Return a column of strings with few repetitions; `optional`: None is no value."""
    column = ParquetColumn(name, _BYTES, converted=_STRING, logical=_UTF8)
    if optional:
        column.present = np.array([value is not None for value in values], np.bool_)
    column.values = [value for value in values if value is not None]
    return column


def number_column(name: str, values: Any, kind: int = _DOUBLE, *, optional: bool = False) -> ParquetColumn:
    """Return a column of numbers; `optional`: NaN is no value."""
    column = ParquetColumn(name, kind)
    values = np.asarray(values, {_INT32: "<i4", _INT64: "<i8", _DOUBLE: "<f8"}[kind])
    if optional:
        column.present = ~np.isnan(values)
        values = values[column.present]
    column.values = values
    return column


def time_column(name: str, values: Any) -> ParquetColumn:
    """Return a column of times, µs UTC."""
    column = ParquetColumn(name, _INT64, converted=_TIMESTAMP_US, logical=_MICROSECONDS)
    column.values = np.asarray(values, "<i8")
    return column


def encode_file(columns: Sequence[ParquetColumn], rows: int, metadata: dict[str, str]) -> bytes:
    """Return a Parquet file of columns with this number of rows; `metadata` is part of its footer."""
    out = bytearray(MAGIC)
    chunks = [_chunk(column, rows, out) for column in columns]
    footer = ThriftWriter()
    root = ((4, "text", "schema"), (5, "i32", len(columns)))
    group = ((1, "[struct]", chunks), (2, "i64", len(out) - len(MAGIC)), (3, "i64", rows))
    footer.struct(
        (1, "i32", 1),
        (2, "[struct]", [root, *(column.schema() for column in columns)]),
        (3, "i64", rows),
        (4, "[struct]", [group] if rows else []),
        (5, "[struct]", [((1, "text", key), (2, "text", value)) for key, value in metadata.items()]),
        (6, "text", "sensegate"),
    )
    return bytes(out + footer.out + struct.pack("<I", len(footer.out)) + MAGIC)


def _chunk(column: ParquetColumn, rows: int, out: bytearray) -> tuple[Any, ...]:
    """Append the pages of a column; return its column chunk for the footer."""
    begin, plain = len(out), 0
    dictionary_at = None
    body = _levels(column.present)
    if column.dictionary is not None:
        dictionary_at = begin
        plain += _page(out, _DICTIONARY_PAGE, _byte_arrays(column.dictionary), len(column.dictionary), _PLAIN)
        width = 8 if len(column.dictionary) <= 0x100 else 16 if len(column.dictionary) <= 0x10000 else 32
        body += bytes([width]) + _bit_packed(column.values.astype(f"<u{width // 8}"))
    elif column.kind == _BYTES:
        body += _byte_arrays(column.values)
    else:
        body += column.values.tobytes()
    encoding = _PLAIN if column.dictionary is None else _RLE_DICTIONARY
    data_at = len(out)
    plain += _page(out, _DATA_PAGE, body, rows, encoding)
    about = (
        (1, "i32", column.kind),
        (2, "[i32]", sorted({encoding, _PLAIN, _RLE})),
        (3, "[text]", [column.name]),
        (4, "i32", _ZSTD),
        (5, "i64", rows),
        (6, "i64", plain),
        (7, "i64", len(out) - begin),
        (9, "i64", data_at),
        (11, "i64", dictionary_at),
    )
    return (2, "i64", begin), (3, "struct", about)


def _page(out: bytearray, kind: int, body: bytes, count: int, encoding: int) -> int:
    """Append a page; return its size before compression, with its header."""
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    header = ThriftWriter()
    about = ((1, "i32", count), (2, "i32", encoding))
    levels = ((3, "i32", _RLE), (4, "i32", _RLE)) if kind == _DATA_PAGE else ()
    header.struct(
        (1, "i32", kind),
        (2, "i32", len(body)),
        (3, "i32", len(packed)),
        (5 if kind == _DATA_PAGE else 7, "struct", (*about, *levels)),
    )
    out += header.out
    out += packed
    return len(header.out) + len(body)


def _levels(present: Any) -> bytes:
    """Return the definition levels, one bit a row; empty where all rows have a value."""
    if present is None:
        return b""
    bits = np.packbits(present, bitorder="little").tobytes()
    run = ThriftWriter()
    run.varint(len(bits) << 1 | 1)
    return struct.pack("<I", len(run.out) + len(bits)) + bytes(run.out) + bits


def _bit_packed(indices: Any) -> bytes:
    """Return indices as one bit-packed run, which at a width of whole bytes is little-endian numbers."""
    groups = -(-len(indices) // 8)
    run = ThriftWriter()
    run.varint(groups << 1 | 1)
    return bytes(run.out) + np.pad(indices, (0, groups * 8 - len(indices))).tobytes()


def _byte_arrays(values: Sequence[str]) -> bytes:
    raw = [value.encode() for value in values]
    return b"".join(piece for text in raw for piece in (struct.pack("<I", len(text)), text))


# ── records ───────────────────────────────────────────────────────────────────────────────────────────


def encode_records(
    parts: Sequence[records.RowSlice], following: str, prefix_of: Callable[[records.RowSlice], str]
) -> bytes:
    """Return records as a Parquet file; its columns are those of the CSV form, with `text` beside `value`.

    `prefix_of` returns the common prefix of the cursors of an entry's rows.
    """
    rows = sum(len(part.rows) for part in parts)

    def listed(of: Callable[[records.RowSlice], Sequence[Any]]) -> list[Any]:
        return [value for part in parts for value in of(part)]

    def joined(of: Callable[[records.RowSlice], Any], kind: str) -> Any:
        return np.concatenate([np.zeros(0, kind), *(of(part) for part in parts)]).astype(kind)

    def origin(part: records.RowSlice, of: Callable[[records.RecordOrigin], Any]) -> list[Any]:
        used = {
            index: of(records.origin_of(part.batch.origins, index))
            for index in set(part.batch.origin[part.rows].tolist())
        }
        return [used[index] for index in part.batch.origin[part.rows].tolist()]

    def named(part: records.RowSlice, names: Sequence[str]) -> list[str]:
        return [names[index] for index in part.batch.property[part.rows].tolist()]

    def ids(part: records.RowSlice) -> list[str]:
        start = f"{part.batch.node}-{part.batch.partition}-"
        sequences = records.sequences_of(part.batch, part.rows, part.entry)
        return [
            f"{start}{sequence:014d}-{index}"
            for sequence, index in zip(sequences, part.batch.index[part.rows].tolist(), strict=True)
        ]

    def cursors(part: records.RowSlice) -> list[str]:
        prefix = prefix_of(part)
        return [prefix + row_text(row) for row in part.rows.tolist()]

    columns = [
        text_column("id", listed(ids)),
        text_column("cursor", listed(cursors)),
        dictionary_column("device", listed(lambda part: origin(part, lambda device: device.device))),
        dictionary_column(
            "property",
            listed(lambda part: named(part, [records.base_name(name) for name in part.batch.properties])),
        ),
        dictionary_column(
            "channel",
            listed(lambda part: named(part, [records.channel_of(name) for name in part.batch.properties])),
        ),
        number_column("value", joined(lambda part: part.batch.value[part.rows], "<f8"), optional=True),
        text_column(
            "text", listed(lambda part: [part.batch.text.get(row) for row in part.rows.tolist()]), optional=True
        ),
        dictionary_column("unit", listed(lambda part: named(part, records.units_of(part.batch.properties)))),
        time_column("time", joined(lambda part: part.batch.time[part.rows], "<i8")),
        dictionary_column("time_quality", listed(lambda part: records.code_words("time_quality", part))),
        time_column("received", joined(lambda part: part.batch.received[part.rows], "<i8")),
        dictionary_column("quality", listed(lambda part: records.code_words("quality", part))),
        dictionary_column("division", listed(lambda part: origin(part, lambda device: device.division))),
        number_column("lon", listed(lambda part: origin(part, lambda device: device.lon)), optional=True),
        number_column("lat", listed(lambda part: origin(part, lambda device: device.lat)), optional=True),
        number_column("grade", listed(lambda part: origin(part, lambda device: device.grade)), _INT32),
        dictionary_column("profile", listed(lambda part: origin(part, lambda device: device.profile))),
        dictionary_column("flags", listed(lambda part: records.code_words("flags", part))),
        number_column("revision", joined(lambda part: part.batch.revision[part.rows], "<i4"), _INT32),
        dictionary_column("node", listed(lambda part: [part.batch.node] * len(part.rows))),
    ]
    return encode_file(columns, rows, {"sensegate.next": following, "sensegate.format": str(records.FORMAT)})
