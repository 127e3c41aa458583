"""CBOR (RFC 8949): one item, whole. Bytes become hex text, keys text; tags of numbers are applied, others left out.

``undefined`` is null, an unassigned simple value the text ``simple(16)``. Text or numbers tagged as times stay as they
are: the rule's `time` says how they are read. Twice the same key, or bytes after the item, are malformed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import cbor2

from sensegate.decode.frame import MEMBERS_MAX, Frame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_BIG_MAX = 64
"""Longest big number, bytes."""
_EXPONENT_MAX = 100_000
Text = Callable[[bytes], str]
"""How bytes are written as text."""


def _big(raw: Any) -> int:
    if not isinstance(raw, bytes) or len(raw) > _BIG_MAX:
        raise ValueError(f"a big number is bytes, {_BIG_MAX} at most")
    return int.from_bytes(raw, "big")


def _parts(raw: Any) -> tuple[int, int]:
    """Return (mantissa, exponent) of a fraction."""
    if not isinstance(raw, (list, tuple)) or [type(part) for part in raw] != [int, int]:
        raise ValueError("a fraction is an exponent and a mantissa")
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


def _refused(_raw: Any) -> Any:
    raise ValueError("refers to another item")


def _tag(convert: Callable[[Any], Any]) -> Callable[[Any, bool], Any]:
    return lambda raw, _immutable: convert(raw)


_LEFT_OUT: Final = (0, 1, 24, 28, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43_000, 55_799)
_TAGS: Final = {
    **dict.fromkeys(_LEFT_OUT, _tag(lambda raw: raw)),
    **dict.fromkeys((25, 29), _tag(_refused)),
    2: _tag(_big),
    3: _tag(lambda raw: -1 - _big(raw)),
    4: _tag(_decimal),
    5: _tag(_binary),
}
"""Every tag for which the library would make an object of its own: a date, a set, a regular expression, a cycle."""


def load(payload: bytes, nesting_max: int, text: Text = bytes.hex) -> Any:
    """Return the tree, bytes in it written by `text`. Raises `Rejected` with the reason where there is none."""
    source = io.BytesIO(payload)
    try:
        # with read_size 1 the library reads no byte ahead, so that `source` tells where the item ends
        raw = cbor2.CBORDecoder(
            source, semantic_decoders=_TAGS, max_depth=nesting_max, allow_duplicate_keys=False, read_size=1
        ).decode()
    except cbor2.CBORDecodeError as error:
        raise _reason(error, source) from error
    if source.tell() < len(payload):
        raise Rejected(QuarantineReason.MALFORMED, f"{len(payload) - source.tell()} bytes after the item")
    return _Plain(text).tree(raw)


def _reason(why: cbor2.CBORDecodeError, source: io.BytesIO) -> Rejected:
    if "nesting depth" in str(why):
        return Rejected(QuarantineReason.TOO_DEEP, "nested too deeply")
    if isinstance(why.__cause__, UnicodeDecodeError):
        return Rejected(QuarantineReason.NOT_UTF8, f"text before byte {source.tell()} is no UTF-8")
    what = "cut short" if isinstance(why, cbor2.CBORDecodeEOF) else f"no CBOR before byte {source.tell()}"
    return Rejected(QuarantineReason.MALFORMED, what)


class _Plain:
    """Makes dicts, lists and scalars of what the library gives."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._left = MEMBERS_MAX

    def tree(self, raw: Any) -> Any:  # noqa: PLR0911 - one per kind
        kind = type(raw)
        if kind in {int, float, str, bool, type(None)}:
            return raw
        if kind is dict or isinstance(raw, Mapping):
            return self._object(raw)
        if kind in {list, tuple}:  # tuples and frozen maps stand inside tags
            self._count(len(raw))
            return [self.tree(value) for value in raw]
        if kind is bytes:
            return self._text(raw)
        if raw is cbor2.undefined:
            return None
        if isinstance(raw, cbor2.CBORSimpleValue):
            return f"simple({raw.value})"
        if isinstance(raw, cbor2.CBORTag):
            return self.tree(raw.value)
        raise Rejected(QuarantineReason.SCHEMA, "holds what is no number, text, list or map")

    def _object(self, raw: Mapping[Any, Any]) -> dict[str, Any]:
        self._count(len(raw))
        found = {self._key(key): self.tree(value) for key, value in raw.items()}
        if len(found) < len(raw):
            raise Rejected(QuarantineReason.MALFORMED, "a map has the same key twice")
        return found

    def _key(self, raw: Any) -> str:
        if isinstance(raw, str):
            return raw
        if isinstance(raw, int) and not isinstance(raw, bool):
            return str(raw)
        if isinstance(raw, bytes):
            return self._text(raw)
        raise Rejected(QuarantineReason.SCHEMA, "a key is no text, whole number or bytes")

    def _count(self, members: int) -> None:
        self._left -= members
        if self._left < 0:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} members")


def _parse(frame: Frame) -> Any:
    return load(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
