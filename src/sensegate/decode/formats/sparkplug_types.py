"""The data types of Sparkplug B (Eclipse Sparkplug 3.0, 6.4.15 to 6.4.17), and how values of each are read.

Signed integers are sent in unsigned fields; arrays (types 22 to 34) as packed little-endian bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sensegate.decode.frame import MEMBERS_MAX
from sensegate.decode.protobuf import malformed
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

TYPES: Final = (
    "Unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double", "Boolean",
    "String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template", "PropertySet", "PropertySetList",
    "Int8Array", "Int16Array", "Int32Array", "Int64Array", "UInt8Array", "UInt16Array", "UInt32Array", "UInt64Array",
    "FloatArray", "DoubleArray", "BooleanArray", "StringArray", "DateTimeArray",
)  # fmt: skip
"""Data types by number."""
UNKNOWN = 0
_BOOLEAN, _DATA_SET, _TEMPLATE = TYPES.index("Boolean"), TYPES.index("DataSet"), TYPES.index("Template")
_BOOLEAN_ARRAY, _STRING_ARRAY = TYPES.index("BooleanArray"), TYPES.index("StringArray")
_SIGNED: Final = {number: 8 << index for index, number in enumerate(range(1, 5))}
_UNSIGNED: Final = {**{number: 8 << index for index, number in enumerate(range(5, 9))}, TYPES.index("DateTime"): 64}
"""Integer types -> bits."""
_FLOATS: Final = (TYPES.index("Float"), TYPES.index("Double"))
_TEXTS: Final = (TYPES.index("String"), TYPES.index("Text"), TYPES.index("UUID"))
_BLOBS: Final = (TYPES.index("Bytes"), TYPES.index("File"))
_PACKED: Final = dict(zip(range(22, 32), "bhiqBHIQfd", strict=True)) | {TYPES.index("DateTimeArray"): "Q"}
"""Array types -> letter of `struct`."""

INT, LONG, FLOAT, DOUBLE, TRUTH, TEXT, BLOB, TABLE, MEMBERS = range(9)
FIELDS = ("int", "long", "float", "double", "boolean", "string", "bytes", "dataset", "template")
"""Fields of the `oneof` of a value, in the order of the schema."""


def _mismatch(problem: str, datatype: int) -> Rejected:
    return Rejected(QuarantineReason.SCHEMA, f"{problem} of type {type_name(datatype)}")


def type_name(datatype: int) -> str:
    """Return the name of a data type. Raises `Rejected` for a number that the specification does not define."""
    if datatype >= len(TYPES):
        raise Rejected(QuarantineReason.SCHEMA, f"data type {datatype} is not defined by Sparkplug")
    return TYPES[datatype]


class UntypedValue(msgspec.Struct, frozen=True):
    """A value as sent, not yet typed."""

    kind: int
    """`INT` to `MEMBERS`."""
    raw: Any
    """Number, boolean or text; bytes; a `DataSet` for a table, a `SparkplugTemplate` for members."""

    def as_type(self, datatype: int) -> Any:
        """Return the value in a data type; `UNKNOWN` keeps it as sent."""
        raw, kind = self.raw, self.kind
        if datatype == UNKNOWN:
            return raw.hex() if kind == BLOB else raw.tree() if kind in {TABLE, MEMBERS} else raw
        if kind <= LONG and datatype in _UNSIGNED:
            if raw >> _UNSIGNED[datatype]:
                raise _mismatch(f"{raw} is not a value", datatype)
            return raw
        if kind <= LONG and datatype in _SIGNED:
            return _signed(raw, datatype)
        conversion = _CONVERSIONS.get(datatype)
        if conversion is None or kind not in conversion[0]:
            raise _mismatch(f"a {FIELDS[kind]} is not a value", datatype)
        return conversion[1](raw, datatype)


def is_as_sent(kind: int, datatype: int) -> bool:
    """Return whether a value of a field needs no conversion to a data type."""
    if datatype == UNKNOWN:
        return kind < BLOB
    conversion = _CONVERSIONS.get(datatype)
    return conversion is not None and kind in conversion[0] and conversion[1] is _as_is


def _signed(raw: int, datatype: int) -> int:
    """Return the signed number in an unsigned field of 32 or 64 bits, sign-extended or not."""
    bits = _SIGNED[datatype]
    low = raw & (1 << bits) - 1
    number = low - (1 << bits) if low >> bits - 1 else low
    if raw not in {low, number & 0xFFFF_FFFF, number & 0xFFFF_FFFF_FFFF_FFFF}:
        raise _mismatch(f"{raw} is not a value", datatype)
    return number


def _bounded(count: int) -> None:
    if count > MEMBERS_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"an array has more than {MEMBERS_MAX} values")


def _as_is(raw: Any, _datatype: int) -> Any:
    return raw


def _array(raw: bytes, datatype: int) -> list[Any]:
    letter = _PACKED[datatype]
    size = struct.calcsize(f"<{letter}")
    if len(raw) % size:
        raise malformed(f"{len(raw)} bytes are not a {type_name(datatype)}")
    _bounded(len(raw) // size)
    return list(struct.unpack(f"<{len(raw) // size}{letter}", raw))


def _booleans(raw: bytes, _datatype: int) -> list[bool]:
    """Return the booleans: a count in 4 bytes, then bits, the most significant bit of each byte first."""
    count = int.from_bytes(raw[:4], "little")
    if len(raw) < 4 or len(raw) - 4 != (count + 7) // 8:
        raise malformed(f"{len(raw)} bytes are not a BooleanArray")
    _bounded(count)
    return [bool(raw[4 + index // 8] >> 7 - index % 8 & 1) for index in range(count)]


def _strings(raw: bytes, _datatype: int) -> list[str]:
    """Return the texts, each terminated by a NUL (which the last may lack)."""
    try:
        parts = raw.decode("utf-8").split("\0")
    except UnicodeDecodeError as error:
        raise Rejected(QuarantineReason.NOT_UTF8, "a StringArray is not valid UTF-8") from error
    _bounded(len(parts))
    return parts if parts[-1] else parts[:-1]


def _hex(raw: bytes, _datatype: int) -> str:
    return raw.hex()


def _tree(raw: Any, _datatype: int) -> Any:
    return raw.tree()


_CONVERSIONS: Final[dict[int, tuple[tuple[int, ...], Callable[[Any, int], Any]]]] = {
    **dict.fromkeys(_FLOATS, ((FLOAT, DOUBLE), _as_is)),
    _BOOLEAN: ((TRUTH,), _as_is),
    **dict.fromkeys(_TEXTS, ((TEXT,), _as_is)),
    **dict.fromkeys(_BLOBS, ((BLOB,), _hex)),
    _DATA_SET: ((TABLE,), _tree),
    _TEMPLATE: ((MEMBERS,), _tree),
    **dict.fromkeys(_PACKED, ((BLOB,), _array)),
    _BOOLEAN_ARRAY: ((BLOB,), _booleans),
    _STRING_ARRAY: ((BLOB,), _strings),
}
"""Data type except integers -> (fields in which it is sent, conversion)."""
