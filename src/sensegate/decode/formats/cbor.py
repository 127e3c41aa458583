"""CBOR (RFC 8949): one item. Bytes become hex text, keys text; tags of numbers are applied, others ignored.

``undefined`` becomes null, an unassigned simple value the text ``simple(16)``. Text or numbers tagged as times are
kept: the rule's `time` says how they are parsed. A duplicate key, or bytes after the item, are malformed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import cbor2

from sensegate.decode.frame import MEMBERS_MAX, PayloadFrame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_BIG_MAX = 64
"""Longest bignum, in bytes."""
_EXPONENT_MAX = 100_000
_SCALARS: Final = frozenset({int, float, str, bool, type(None)})
_NUMBER_KEYS: Final = {number: str(number) for number in range(-32, 256)}
Text = Callable[[bytes], str]
"""Encoding of bytes as text."""


def _big(raw: Any) -> int:
    if not isinstance(raw, bytes) or len(raw) > _BIG_MAX:
        raise ValueError(f"a bignum must be bytes, {_BIG_MAX} at most")
    return int.from_bytes(raw, "big")


def _parts(raw: Any) -> tuple[int, int]:
    """Return (mantissa, exponent) of a decimal fraction or bigfloat."""
    if not isinstance(raw, (list, tuple)) or [type(part) for part in raw] != [int, int]:
        raise ValueError("a fraction must be an exponent and a mantissa")
    return raw[1], max(min(raw[0], _EXPONENT_MAX), -_EXPONENT_MAX)


def _decimal(raw: Any) -> float:
    mantissa, exponent = _parts(raw)
    return float(Decimal(f"{mantissa}e{exponent}"))


def _binary(raw: Any) -> float:
    mantissa, exponent = _parts(raw)
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.copysign(math.inf, mantissa)


def _refuse_reference(_raw: Any) -> Any:
    raise ValueError("the item refers to another item")


def _tag(convert: Callable[[Any], Any]) -> Callable[[Any, bool], Any]:
    return lambda raw, _immutable: convert(raw)


_IGNORED_TAGS: Final = (0, 1, 24, 28, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43_000, 55_799)
_TAGS: Final = {
    **dict.fromkeys(_IGNORED_TAGS, _tag(lambda raw: raw)),
    **dict.fromkeys((25, 29), _tag(_refuse_reference)),
    2: _tag(_big),
    3: _tag(lambda raw: -1 - _big(raw)),
    4: _tag(_decimal),
    5: _tag(_binary),
}
"""Tags for which the library would build its own objects: dates, sets, regular expressions, shared references."""


def load(payload: bytes, nesting_max: int, text: Text = bytes.hex) -> Any:
    """Return the tree, with bytes converted by `text`. Raises `Rejected` with the reason if there is none."""
    source = io.BytesIO(payload)
    try:
        # with read_size 1 the library reads no byte ahead, so that `source` is positioned at the end of the item
        raw = cbor2.CBORDecoder(
            source, semantic_decoders=_TAGS, max_depth=nesting_max, allow_duplicate_keys=False, read_size=1
        ).decode()
    except cbor2.CBORDecodeError as error:
        raise _reason(error, source) from error
    if source.tell() < len(payload):
        raise Rejected(QuarantineReason.MALFORMED, f"{len(payload) - source.tell()} bytes after the item")
    return _PlainTree(text).tree(raw)


def _reason(error: cbor2.CBORDecodeError, source: io.BytesIO) -> Rejected:
    if "nesting depth" in str(error):
        return Rejected(QuarantineReason.TOO_DEEP, "nested too deeply")
    if isinstance(error.__cause__, UnicodeDecodeError):
        return Rejected(QuarantineReason.NOT_UTF8, f"text before byte {source.tell()} is not valid UTF-8")
    detail = "truncated" if isinstance(error, cbor2.CBORDecodeEOF) else f"not CBOR before byte {source.tell()}"
    return Rejected(QuarantineReason.MALFORMED, detail)


class _PlainTree:
    """Turns the library's objects into dicts, lists and scalars."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._remaining = MEMBERS_MAX

    def tree(self, raw: Any) -> Any:  # noqa: PLR0911 - one for each kind
        kind = type(raw)
        if kind in _SCALARS:
            return raw
        if kind is dict or isinstance(raw, Mapping):
            return self._object(raw)
        if kind in {list, tuple}:  # tuples and frozen maps occur inside tags
            self._count(len(raw))
            return [value if type(value) in _SCALARS else self.tree(value) for value in raw]
        if kind is bytes:
            return self._text(raw)
        if raw is cbor2.undefined:
            return None
        if isinstance(raw, cbor2.CBORSimpleValue):
            return f"simple({raw.value})"
        if isinstance(raw, cbor2.CBORTag):
            return self.tree(raw.value)
        raise Rejected(QuarantineReason.SCHEMA, "holds a value that is not a number, text, list or map")

    def _object(self, raw: Mapping[Any, Any]) -> dict[str, Any]:
        self._count(len(raw))
        members = {
            key if type(key) is str else self._key(key): value if type(value) in _SCALARS else self.tree(value)
            for key, value in raw.items()
        }
        if len(members) < len(raw):
            raise Rejected(QuarantineReason.MALFORMED, "a map has a duplicate key")
        return members

    def _key(self, raw: Any) -> str:
        if isinstance(raw, str):
            return raw
        if isinstance(raw, int) and not isinstance(raw, bool):
            return _NUMBER_KEYS.get(raw) or str(raw)
        if isinstance(raw, bytes):
            return self._text(raw)
        raise Rejected(QuarantineReason.SCHEMA, "a key is not text, an integer or bytes")

    def _count(self, members: int) -> None:
        self._remaining -= members
        if self._remaining < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} members")


def _parse(frame: PayloadFrame) -> Any:
    return load(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
