"""JSON as in RFC 8259, strictly: a duplicate key, a byte order mark or a lone surrogate is malformed.

``NaN`` and ``Infinity`` (and numbers too large for a double) are accepted as such, so that only the value is rejected
(`not_finite`) and not the whole message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, to its end or the payload's: unless it matched, every later quote would be tried to the end again."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise Rejected(QuarantineReason.MALFORMED, "an object has a duplicate key")
    return tree


_decoder = json.JSONDecoder(object_pairs_hook=_pairs)
_SPACE = re.compile(r"[ \t\n\r\x1e]*")
"""Whitespace between values, including the record separator (RFC 7464)."""


def depth(payload: bytes) -> int:
    """Return the nesting depth of arrays and objects (text inside strings does not count)."""
    brackets = np.frombuffer(_STRING.sub(b"", payload).translate(None, _NOT_BRACKETS), np.uint8)
    if not len(brackets):
        return 0
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return max(0, int(np.cumsum(np.where(opens, 1, -1)).max()))


def parse(payload: bytes, nesting_max: int) -> Any:
    """Return the tree. Raises `Rejected` with the reason if there is none."""
    return _parse_guarded(payload, nesting_max, _decoder.decode)


def parse_many(payload: bytes, nesting_max: int) -> list[Any]:
    """Return the values of a text in which they follow each other. Raises `Rejected` if they are not JSON."""
    values: list[Any] = _parse_guarded(payload, nesting_max, _decode_all)
    return values


def _decode_all(text: str) -> list[Any]:
    values: list[Any] = []
    position = _skip(text, 0)
    while position < len(text) or not values:
        value, end = _decoder.raw_decode(text, position)
        position = _skip(text, end)
        if position == end < len(text) and not isinstance(value, (dict, list)):
            raise json.JSONDecodeError("Expecting white space", text, end)
        values.append(value)
        if len(values) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} values")
    return values


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _parse_guarded(payload: bytes, nesting_max: int, decode: Callable[[str], Any]) -> Any:
    text = text_of(payload)
    if payload.count(b"[") + payload.count(b"{") > nesting_max and depth(payload) > nesting_max:
        raise Rejected(QuarantineReason.TOO_DEEP, f"nested more than {nesting_max} deep")
    if text.startswith("\ufeff"):
        raise Rejected(QuarantineReason.MALFORMED, "starts with a byte order mark")
    try:
        tree = decode(text)
    except json.JSONDecodeError as error:
        detail = "empty" if not text.strip() else f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
        raise Rejected(QuarantineReason.MALFORMED, detail) from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise Rejected(QuarantineReason.MALFORMED, "a number is too long") from error
    except RecursionError as error:
        raise Rejected(QuarantineReason.TOO_DEEP, "nested too deeply") from error
    if "\\u" in text:
        _check_text(tree)
    return tree


def _check_text(tree: Any) -> None:
    if isinstance(tree, str):
        try:
            tree.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Rejected(QuarantineReason.MALFORMED, "a string has a lone surrogate") from error
    elif isinstance(tree, dict):
        for key, value in tree.items():
            _check_text(key)
            _check_text(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_text(value)


def as_utf8(payload: bytes, charset: str) -> bytes:
    """Return text of a character encoding in UTF-8. Raises `Rejected` if it is not valid."""
    return payload if charset == "utf-8" else text_of(payload, charset).encode("utf-8", "surrogatepass")


def _parse(frame: PayloadFrame, charset: str) -> Any:
    return parse(as_utf8(frame.payload, charset), frame.nesting_max)


def _compile(_options: Any, context: FormatContext) -> Parse:
    return partial(_parse, charset=context.charset)


FORMAT = PayloadFormat(_compile, text=True)
