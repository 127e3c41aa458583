"""The wire form of Protocol Buffers, read with bounds: fields of one message, by number, without any schema.

Nothing is allocated for a length that a payload announces, only for what it holds. Groups, which no schema has used
since 2008, and numbers of more than 64 bits are malformed.
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
"""(field number, wire type, value or start, end): a VARINT has its value; of the others the bytes from start to end."""

_COUNTED: Final = frozenset((VARINT, BYTES))
_FIXED: Final = frozenset((FIXED64, FIXED32))
_VARINT_BYTES_MAX: Final = 10
_MASK: Final = 2**64 - 1
_FLOAT: Final = struct.Struct("<f").unpack_from
_DOUBLE: Final = struct.Struct("<d").unpack_from


def malformed(what: str) -> Rejected:
    """Return the refusal of bytes that are no message."""
    return Rejected(QuarantineReason.MALFORMED, what)


class Wire:
    """One payload; gives the fields of the message that stands between two places of it."""

    def __init__(self, payload: bytes, fields_max: int = MEMBERS_MAX) -> None:
        self.payload = payload
        self._most = self._left = fields_max

    def count(self, items: int) -> None:
        """Take items from what one payload may hold. Raises `Rejected` when it holds more."""
        self._left -= items
        if self._left < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {self._most} fields")

    def fields(self, at: int, end: int) -> list[Field]:
        """Return the fields of a message in their order. Raises `Rejected` where the bytes are none."""
        payload = self.payload
        found: list[Field] = []
        add = found.append
        most = self._left
        while at < end:
            if len(found) >= most:
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
                raise malformed(f"field {number} ends {at - end} bytes behind its message")
        self.count(len(found) + (at < end))
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return (value, where it ends)."""
        payload, value, shift, start = self.payload, 0, 0, at
        while True:
            if at >= end:
                raise malformed("cut short")
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK, at
            shift += 7
            if at - start >= _VARINT_BYTES_MAX:
                raise malformed(f"a number of more than 64 bits at byte {start}")

    def varints(self, start: int, end: int) -> list[int]:
        """Return the numbers that are packed between two places."""
        found: list[int] = []
        while start < end:
            self.count(1)
            value, start = self._varint(start, end)
            found.append(value)
        return found

    def text(self, start: int, end: int) -> str:
        """Return the text between two places. Raises `Rejected` where it is not UTF-8."""
        try:
            return self.payload[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Rejected(QuarantineReason.NOT_UTF8, f"byte {start + error.start} is no UTF-8") from error

    def float32(self, start: int) -> float:
        """Return the number in the 4 bytes at a place."""
        found: float = _FLOAT(self.payload, start)[0]
        return found

    def float64(self, start: int) -> float:
        """Return the number in the 8 bytes at a place."""
        found: float = _DOUBLE(self.payload, start)[0]
        return found


def varint(value: int) -> bytes:
    """Return a number as it is written."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def key(number: int, wire: int) -> bytes:
    """Return the beginning of a field."""
    return varint(number << 3 | wire)


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds a number."""
    return key(number, VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Return a field that holds text or a message."""
    return key(number, BYTES) + varint(len(value)) + value
