"""Writes Sparkplug B payloads by the specification's schema, for tests: shares nothing with the decoder."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

TYPES = {
    "Int8": 1, "Int16": 2, "Int32": 3, "Int64": 4, "UInt8": 5, "UInt16": 6, "UInt32": 7, "UInt64": 8, "Float": 9,
    "Double": 10, "Boolean": 11, "String": 12, "DateTime": 13, "Text": 14, "UUID": 15, "DataSet": 16, "Bytes": 17,
    "File": 18, "Template": 19, "PropertySet": 20, "PropertySetList": 21, "Int8Array": 22, "Int16Array": 23,
    "Int32Array": 24, "Int64Array": 25, "UInt8Array": 26, "UInt16Array": 27, "UInt32Array": 28, "UInt64Array": 29,
    "FloatArray": 30, "DoubleArray": 31, "BooleanArray": 32, "StringArray": 33, "DateTimeArray": 34,
}  # fmt: skip
ITEMS = {
    "Int8Array": "b", "Int16Array": "h", "Int32Array": "i", "Int64Array": "q", "UInt8Array": "B", "UInt16Array": "H",
    "UInt32Array": "I", "UInt64Array": "Q", "FloatArray": "f", "DoubleArray": "d", "DateTimeArray": "Q",
}  # fmt: skip


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    parts = []
    while True:
        parts.append((value & 127) | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(parts)


def key(number: int, wire: int) -> bytes:
    """Return the beginning of a field."""
    return varint(number * 8 + wire)


def whole(number: int, value: int) -> bytes:
    """Return a field with a number."""
    return key(number, 0) + varint(value)


def block(number: int, value: bytes | str) -> bytes:
    """Return a field with text, bytes or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return key(number, 2) + varint(len(raw)) + raw


def value_field(first: int, kind: str, value: Any) -> bytes:  # noqa: PLR0911 - one per kind
    """Return the field of a `oneof` that begins at field `first`, for a value of a data type."""
    if kind in {"Int8", "Int16", "Int32"}:
        return whole(first, value % 2**32)
    if kind == "Int64":
        return whole(first + 1, value % 2**64)
    if kind in {"UInt8", "UInt16", "UInt32"}:
        return whole(first, value)
    if kind in {"UInt64", "DateTime"}:
        return whole(first + 1, value)
    if kind == "Float":
        return key(first + 2, 5) + struct.pack("<f", value)
    if kind == "Double":
        return key(first + 3, 1) + struct.pack("<d", value)
    if kind == "Boolean":
        return whole(first + 4, int(value))
    if kind in {"String", "Text", "UUID"}:
        return block(first + 5, value)
    if kind == "DataSet":
        return block(first + 7, data_set(**value))
    if kind == "Template":
        return block(first + 8, template(**value))
    return block(first + 6, packed(kind, value))


def packed(kind: str, value: Any) -> bytes:
    """Return bytes, a file (hex text) or an array as the specification packs them."""
    if kind in {"Bytes", "File"}:
        return bytes.fromhex(value)
    if kind == "StringArray":
        return b"".join(text.encode() + b"\0" for text in value)
    if kind == "BooleanArray":
        bits = "".join("1" if item else "0" for item in value)
        bits += "0" * (-len(bits) % 8)
        return struct.pack("<I", len(value)) + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return struct.pack(f"<{len(value)}{ITEMS[kind]}", *value)


def data_set(columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a data set."""
    raw = whole(1, len(columns))
    raw += b"".join(block(2, name) for name in columns)
    raw += b"".join(whole(3, TYPES[kind]) for kind in types)
    for row in rows:
        cells = (b"" if cell is None else value_field(1, kind, cell) for kind, cell in zip(types, row, strict=True))
        raw += block(4, b"".join(block(1, cell) for cell in cells))
    return raw


def template(
    metrics: Sequence[bytes],
    parameters: Sequence[tuple[str, str, Any]] = (),
    template_ref: str = "",
    version: str = "",
    is_definition: bool = False,  # noqa: FBT001, FBT002 - as in the schema
) -> bytes:
    """Return a template."""
    raw = block(1, version) if version else b""
    raw += b"".join(block(2, item) for item in metrics)
    for name, kind, value in parameters:
        raw += block(3, block(1, name) + whole(2, TYPES[kind]) + value_field(3, kind, value))
    raw += block(4, template_ref) if template_ref else b""
    return raw + whole(5, int(is_definition))


def properties(entries: dict[str, tuple[str, Any]]) -> bytes:
    """Return a set of properties: name -> (type, value); None is null."""
    raw = b"".join(block(1, name) for name in entries)
    for kind, value in entries.values():
        body = whole(1, TYPES[kind])
        if value is None:
            body += whole(2, 1)
        elif kind == "PropertySet":
            body += block(9, properties(value))
        elif kind == "PropertySetList":
            body += block(10, b"".join(block(1, properties(item)) for item in value))
        else:
            body += value_field(3, kind, value)
        raw += block(2, body)
    return raw


def metric(
    name: str | None = None,
    kind: str | None = None,
    value: Any = None,
    *,
    alias: int | None = None,
    timestamp: int | None = None,
    null: bool = False,
    historical: bool = False,
    transient: bool = False,
    props: dict[str, tuple[str, Any]] | None = None,
    as_kind: str | None = None,
) -> bytes:
    """Return a metric; `as_kind`: written like this type, with the type itself left out."""
    raw = block(1, name) if name is not None else b""
    raw += whole(2, alias) if alias is not None else b""
    raw += whole(3, timestamp) if timestamp is not None else b""
    raw += whole(4, TYPES[kind]) if kind is not None else b""
    raw += whole(5, 1) if historical else b""
    raw += whole(6, 1) if transient else b""
    raw += whole(7, 1) if null else b""
    raw += block(9, properties(props)) if props else b""
    written = as_kind or kind
    return raw if value is None or written is None else raw + value_field(10, written, value)


def payload(*metrics: bytes, seq: int | None = None, timestamp: int | None = 1_714_982_400_000) -> bytes:
    """Return a payload."""
    raw = whole(1, timestamp) if timestamp is not None else b""
    raw += b"".join(block(2, item) for item in metrics)
    return raw if seq is None else raw + whole(3, seq)
