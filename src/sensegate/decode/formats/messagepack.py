"""MessagePack: one item. Bytes become hex text, keys text, timestamps ISO 8601 text, other extensions objects.

An own reader of a small specification (github.com/msgpack/msgpack/blob/master/spec.md): no library both refuses a
duplicate key and limits depth and memory, and working around that takes as much code. An extension becomes
``{"type": 5, "bytes": "0a0b"}``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, Final

from sensegate.decode.frame import MEMBERS_MAX, PayloadFrame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_NUMBERS: Final = {
    0xCA: Struct(">f"), 0xCB: Struct(">d"),
    0xCC: Struct(">B"), 0xCD: Struct(">H"), 0xCE: Struct(">I"), 0xCF: Struct(">Q"),
    0xD0: Struct(">b"), 0xD1: Struct(">h"), 0xD2: Struct(">i"), 0xD3: Struct(">q"),
}  # fmt: skip
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
"""First byte -> width of the length that follows; likewise in the tables below."""
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LISTS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
"""First byte -> length of the extension."""
_TIMESTAMP: Final = 0xFF
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCALARS_ONLY: Final = -1
"""Instead of the remaining depth: a key is expected."""


def load(payload: bytes, nesting_max: int) -> Any:
    """Return the tree. Raises `Rejected` with the reason if there is none."""
    reader = _Reader(payload)
    tree = reader.item(nesting_max)
    if reader.left:
        raise Rejected(QuarantineReason.MALFORMED, f"{reader.left} bytes after the item")
    return tree


class _Reader:
    """Reads items one after the other, never past the end; announced lengths are checked against the payload's size."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0
        self._members = MEMBERS_MAX

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._payload) - self._at

    def item(self, depth: int) -> Any:  # noqa: PLR0911 - one for each kind
        """Return the next item; its lists and maps may be nested `depth` deep."""
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self._map(first & 0x0F, depth)
        if first < 0xA0:
            return self._list(first & 0x0F, depth)
        if first < 0xC0:
            return self._text(first & 0x1F)
        if (number := _NUMBERS.get(first)) is not None:
            return number.unpack(self._take(number.size))[0]
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        return self._long(first, depth)

    def _long(self, first: int, depth: int) -> Any:
        if first in _TEXTS:
            return self._text(self._length(_TEXTS[first]))
        if first in _BYTES:
            return self._take(self._length(_BYTES[first])).hex()
        if first in _LISTS:
            return self._list(self._length(_LISTS[first]), depth)
        if first in _MAPS:
            return self._map(self._length(_MAPS[first]), depth)
        if first in _EXTENSIONS:
            return self._extension(self._length(_EXTENSIONS[first]), depth)
        if first in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[first], depth)
        raise Rejected(QuarantineReason.MALFORMED, f"byte {self._at - 1} does not start an item")

    def _take(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        if self._at > len(self._payload):
            raise Rejected(QuarantineReason.MALFORMED, f"truncated: {length} bytes from byte {start} on are missing")
        return self._payload[start : self._at]

    def _length(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _text(self, length: int) -> str:
        start = self._at
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise Rejected(QuarantineReason.NOT_UTF8, f"byte {start + error.start} is not valid UTF-8") from error

    def _enter(self, members: int, depth: int) -> None:
        """Check that the members can be present: each takes at least a byte."""
        if depth == _SCALARS_ONLY:
            raise Rejected(QuarantineReason.SCHEMA, "a key is not text, an integer or bytes")
        if not depth:
            raise Rejected(QuarantineReason.TOO_DEEP, "nested too deeply")
        if members > self.left:
            raise Rejected(QuarantineReason.MALFORMED, f"truncated: {members} members from byte {self._at} on")
        self._members -= members
        if self._members < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} members")

    def _list(self, length: int, depth: int) -> list[Any]:
        self._enter(length, depth)
        return [self.item(depth - 1) for _ in range(length)]

    def _map(self, length: int, depth: int) -> dict[str, Any]:
        self._enter(length, depth)
        members = {}
        for _ in range(length):
            key = self.item(_SCALARS_ONLY)
            if not isinstance(key, str):
                if isinstance(key, bool) or not isinstance(key, int):
                    raise Rejected(QuarantineReason.SCHEMA, "a key is not text, an integer or bytes")
                key = str(key)
            members[key] = self.item(depth - 1)
        if len(members) < length:
            raise Rejected(QuarantineReason.MALFORMED, "a map has a duplicate key")
        return members

    def _extension(self, length: int, depth: int) -> Any:
        kind = self._take(1)[0]
        raw = self._take(length)
        if kind == _TIMESTAMP:
            return _timestamp(raw)
        if depth == _SCALARS_ONLY:
            raise Rejected(QuarantineReason.SCHEMA, "a key is not text, an integer or bytes")
        return {"type": kind - 0x100 if kind > 0x7F else kind, "bytes": raw.hex()}


def _timestamp(raw: bytes) -> str:
    """Return a timestamp of 32, 64 or 96 bits as ISO 8601 text with nanoseconds."""
    if len(raw) == 4:
        nanoseconds, seconds = 0, int.from_bytes(raw, "big")
    elif len(raw) == 8:
        nanoseconds, seconds = divmod(int.from_bytes(raw, "big"), 1 << 34)
    elif len(raw) == 12:
        nanoseconds, seconds = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:], "big", signed=True)
    else:
        raise Rejected(QuarantineReason.MALFORMED, "a timestamp has an unknown length")
    if nanoseconds > 999_999_999:
        raise Rejected(QuarantineReason.MALFORMED, "a timestamp has more than a second of nanoseconds")
    try:
        time = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None)
    except OverflowError as error:
        raise Rejected(QuarantineReason.SCHEMA, "a timestamp is beyond the years 1 to 9999") from error
    fraction = f".{nanoseconds:09}" if nanoseconds else ""
    return f"{time.isoformat()}{fraction}Z"


def _parse(frame: PayloadFrame) -> Any:
    return load(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
