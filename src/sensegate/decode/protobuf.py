"""Read the wire format of Protocol Buffers within limits: fields of one message, by number, without a schema.

Memory is never allocated for a length that a payload announces, only for the bytes it has. Groups, which no schema has
used since 2008, and numbers of more than 64 bits are malformed.
"""

from __future__ import annotations

import struct
from typing import Final

from sensegate.decode.frame import MEMBERS_MAX
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""
Field = tuple[int, int, int, int]
"""(field number, wire type, value or start, end): for a VARINT its value, else the position of its bytes."""

_COUNTED: Final = frozenset((VARINT, BYTES))
_FIXED: Final = frozenset((FIXED64, FIXED32))
_VARINT_BYTES_MAX: Final = 10
_MASK: Final = 2**64 - 1
_FLOAT: Final = struct.Struct("<f").unpack_from
_DOUBLE: Final = struct.Struct("<d").unpack_from


def malformed(detail: str) -> Rejected:
    """Return the refusal of bytes that are not a message."""
    return Rejected(QuarantineReason.MALFORMED, detail)


class WireReader:
    """A payload; reads the fields of the message between two positions."""

    def __init__(self, payload: bytes, fields_max: int = MEMBERS_MAX) -> None:
        self.payload = payload
        self._fields_max = self._remaining = fields_max

    def count(self, items: int) -> None:
        """Count items against the limit of the payload. Raises `Rejected` when it is exceeded."""
        self._remaining -= items
        if self._remaining < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {self._fields_max} fields")

    def fields(self, at: int, end: int) -> list[Field]:
        """Return the fields of a message in order. Raises `Rejected` if the bytes are not a message."""
        payload = self.payload
        fields: list[Field] = []
        add = fields.append
        remaining = self._remaining
        while at < end:
            if len(fields) >= remaining:
                break
            key = payload[at]
            at += 1
            if key >= 0x80:
                key, at = self._varint(at - 1, end)
            number, wire = key >> 3, key & 7
            if not number:
                raise malformed(f"no field number at byte {at}")
            if wire in _COUNTED:
                if at < end and payload[at] < 0x80:  # most are small
                    value = payload[at]
                    at += 1
                else:
                    value, at = self._varint(at, end)
                if wire == VARINT:
                    add((number, wire, value, at))
                else:
                    add((number, wire, at, at + value))
                    at += value
            elif wire in _FIXED:
                start, at = at, at + (8 if wire == FIXED64 else 4)
                add((number, wire, start, at))
            else:
                raise malformed(f"wire type {wire} at byte {at}")
            if at > end:
                raise malformed(f"field {number} ends {at - end} bytes after its message")
        self.count(len(fields) + (at < end))
        return fields

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return (value, end position)."""
        payload, value, shift, start = self.payload, 0, 0, at
        while True:
            if at >= end:
                raise malformed("truncated")
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK, at
            shift += 7
            if at - start >= _VARINT_BYTES_MAX:
                raise malformed(f"a number of more than 64 bits at byte {start}")

    def varints(self, start: int, end: int) -> list[int]:
        """Return the packed numbers between two positions."""
        numbers: list[int] = []
        while start < end:
            self.count(1)
            value, start = self._varint(start, end)
            numbers.append(value)
        return numbers

    def text(self, start: int, end: int) -> str:
        """Return the text between two positions. Raises `Rejected` if it is not UTF-8."""
        try:
            return self.payload[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Rejected(QuarantineReason.NOT_UTF8, f"byte {start + error.start} is not valid UTF-8") from error

    def float32(self, start: int) -> float:
        """Return the number in the 4 bytes at a position."""
        number: float = _FLOAT(self.payload, start)[0]
        return number

    def float64(self, start: int) -> float:
        """Return the number in the 8 bytes at a position."""
        number: float = _DOUBLE(self.payload, start)[0]
        return number


def varint(value: int) -> bytes:
    """Encode a number."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int, wire: int) -> bytes:
    """Encode the tag of a field."""
    return varint(number << 3 | wire)


def number_field(number: int, value: int) -> bytes:
    """Encode a field with a number."""
    return tag(number, VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode a field with text or a message."""
    return tag(number, BYTES) + varint(len(value)) + value
