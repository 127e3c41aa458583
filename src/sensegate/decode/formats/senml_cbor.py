"""SenML CBOR packs (RFC 8428, section 6): integer labels, then the same resolved records as `senml`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sensegate.decode.formats import cbor, senml
from sensegate.decode.frame import PayloadFrame, plain
from sensegate.decode.masked import MaskedBuilder, MaskedBytes
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_LABELS: Final = {
    "-6": "bs", "-5": "bv", "-4": "bu", "-3": "bt", "-2": "bn", "-1": "bver",
    "0": "n", "1": "u", "2": "v", "3": "vs", "4": "vb", "5": "s", "6": "t", "7": "ut", "8": "vd",
}  # fmt: skip
"""RFC 8428, table 6."""


def parse(payload: bytes, nesting_max: int) -> list[dict[str, Any]]:
    """Return the resolved records. Raises `Rejected` if the payload is not a pack."""
    return senml.records(pack_of(payload, nesting_max))


def pack_of(payload: bytes, nesting_max: int) -> Any:
    """Return the records as sent, with the names of JSON in place of labels. Raises `Rejected` if it is not CBOR."""
    pack = cbor.load(payload, nesting_max, _base64)
    if isinstance(pack, list):
        return [_named(record, index) if isinstance(record, dict) else record for index, record in enumerate(pack)]
    return pack


def _base64(raw: bytes) -> str:
    """Return data as in the JSON form: base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _named(record: dict[str, Any], index: int) -> dict[str, Any]:
    members = {_LABELS.get(label, label): value for label, value in record.items()}
    if len(members) < len(record):
        raise Rejected(QuarantineReason.MALFORMED, f"record {index} has a label both as a number and as text")
    return members


# ── places of values ─────────────────────────────────────────────────────────────────────────────────

_NUMBERS: Final = frozenset({"bt", "bv", "bs", "t", "v", "s"})
_TEXTS: Final = frozenset({"bn", "vs"})
_UNSIGNED: Final = {24: "B", 25: "H", 26: "I", 27: "Q"}
_FLOATS: Final = {25: "e", 26: "f", 27: "d"}
_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}
"""Additional information of a head -> bytes of its argument."""
_IMMEDIATE_MAX: Final = 23
_POSITIVE, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
"""Major types."""
_FALSE, _TRUE = 20, 21


class PackPlaces(NamedTuple):
    """Positions of the values in packs that are otherwise equal byte for byte."""

    bytes_: MaskedBytes
    pointers: list[Path]
    """(index of the record, name) of each value."""
    leaves: Callable[[Sequence[Any]], Sequence[Any]]
    """Convert the numbers and bytes as read to the values. Raises `ValueError` if one has another form."""


def places_of(payload: bytes) -> PackPlaces:
    """Return the places of the values of a pack. Raises `ValueError` if others like it may be built differently."""
    walk = _Walk(payload)
    walk.pack()
    converted = [(index, convert) for index, convert in enumerate(walk.conversions) if convert is not None]

    def leaves(raws: Sequence[Any]) -> Sequence[Any]:
        values = list(raws)
        for index, convert in converted:
            values[index] = convert(values[index])
        return values

    return PackPlaces(walk.builder.build(), walk.pointers, leaves if converted else _as_read)


def _as_read(raws: Sequence[Any]) -> Sequence[Any]:
    return raws


def _immediate(byte: int) -> int:
    """Return the number in a head."""
    if byte & 31 > _IMMEDIATE_MAX:
        raise ValueError("the number is not in the head")
    return byte & 31


def _negative_immediate(byte: int) -> int:
    return -1 - _immediate(byte)


def _negative(number: int) -> int:
    return -1 - number


class _Walk:
    """Parser that passes over the bytes of one SenML pack once."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0
        self.builder = MaskedBuilder(payload)
        self.pointers: list[Path] = []
        self.conversions: list[Callable[[Any], Any] | None] = []

    def pack(self) -> None:
        """Walk over the whole pack. Raises `ValueError` if others like it may be built differently."""
        for index in range(self._count(_ARRAY)):
            for _ in range(self._count(_MAP)):
                self._member(index, self._name())
        if self._at != len(self._payload):
            raise ValueError("there are bytes after the pack")

    def _head(self) -> tuple[int, int, int]:
        """Return (major type, additional information, argument)."""
        byte = self._payload[self._at]
        major, info = byte >> 5, byte & 31
        self._at += 1
        if info <= _IMMEDIATE_MAX:
            return major, info, info
        size = _SIZES.get(info)
        if size is None or self._at + size > len(self._payload):
            raise ValueError("the length is not announced")
        self._at += size
        return major, info, int.from_bytes(self._payload[self._at - size : self._at])

    def _count(self, kind: int) -> int:
        major, _, count = self._head()
        if major != kind:
            raise ValueError("not the structure of a pack")
        return count

    def _name(self) -> str:
        major, _, argument = self._head()
        if major == _TEXT:
            name = self._payload[self._at : self._at + argument].decode()
            self._at += argument
        elif major in {_POSITIVE, _NEGATIVE}:
            name = str(argument if major == _POSITIVE else -1 - argument)
        else:
            raise ValueError("not a label")
        return _LABELS.get(name, name)

    def _member(self, index: int, name: str) -> None:
        start = self._at
        major, info, argument = self._head()
        if major in {_BYTES, _TEXT}:
            variable = name == "vd" if major == _BYTES else name in _TEXTS
            if major == _BYTES and not variable:
                raise ValueError("bytes where text belongs")
            if variable:
                self._add(index, name, f"{argument}s", self._at, _base64 if major == _BYTES else bytes.decode)
            self._at += argument
        elif major == _SIMPLE and name == "vb" and info in {_FALSE, _TRUE}:
            self._add(index, name, "B", start, lambda byte: byte & 31 == _TRUE, mask=0xFE)
        elif major == _SIMPLE:
            if name in _NUMBERS and info in _FLOATS:
                self._add(index, name, _FLOATS[info], start + 1, None)
        elif major not in {_POSITIVE, _NEGATIVE}:
            raise ValueError("not a scalar")
        elif name in _NUMBERS and info <= _IMMEDIATE_MAX:
            self._add(index, name, "B", start, _negative_immediate if major == _NEGATIVE else _immediate, mask=0xE0)
        elif name in _NUMBERS:
            self._add(index, name, _UNSIGNED[info], start + 1, _negative if major == _NEGATIVE else None)

    def _add(
        self, index: int, name: str, code: str, at: int, convert: Callable[[Any], Any] | None, *, mask: int = 0
    ) -> None:
        self.builder.add(code, at, mask)
        self.pointers.append((index, name))
        self.conversions.append(convert)


def _parse(frame: PayloadFrame) -> Any:
    return parse(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
