"""JSON as RFC 8259 has it, strictly: a duplicate key, a byte order mark or a lone surrogate is malformed.

``NaN`` and ``Infinity`` (and numbers too large for a double) are let through as such, so that only the value is
rejected (`not_finite`) and not its whole message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, Format, Frame, Parse, Setting
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, to its end or the payload's: were it not matched, every quote behind it would be tried to the end again."""
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise Rejected(QuarantineReason.MALFORMED, "an object has the same key twice")
    return tree


_decoder = json.JSONDecoder(object_pairs_hook=_pairs)
_SPACE = re.compile(r"[ \t\n\r\x1e]*")
"""Between values; the record separator too (RFC 7464)."""


def depth(payload: bytes) -> int:
    """Return how deeply arrays and objects are nested (text inside strings left out)."""
    brackets = np.frombuffer(_STRING.sub(b"", payload).translate(None, _OTHERS), np.uint8)
    if not len(brackets):
        return 0
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return max(0, int(np.cumsum(np.where(opens, 1, -1)).max()))


def parse(payload: bytes, nesting_max: int) -> Any:
    """Return the tree. Raises `Rejected` with the reason where there is none."""
    return _guarded(payload, nesting_max, _decoder.decode)


def parse_many(payload: bytes, nesting_max: int) -> list[Any]:
    """Return the values of a text in which they follow one another. Raises `Rejected` where they are none."""
    found: list[Any] = _guarded(payload, nesting_max, _many)
    return found


def _many(text: str) -> list[Any]:
    found: list[Any] = []
    at = _skip(text, 0)
    while at < len(text) or not found:
        value, end = _decoder.raw_decode(text, at)
        at = _skip(text, end)
        if at == end < len(text) and not isinstance(value, (dict, list)):
            raise json.JSONDecodeError("Expecting white space", text, end)
        found.append(value)
        if len(found) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} values")
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _guarded(payload: bytes, nesting_max: int, decode: Callable[[str], Any]) -> Any:
    text = text_of(payload)
    if payload.count(b"[") + payload.count(b"{") > nesting_max and depth(payload) > nesting_max:
        raise Rejected(QuarantineReason.TOO_DEEP, f"nested more than {nesting_max} deep")
    if text.startswith("\ufeff"):
        raise Rejected(QuarantineReason.MALFORMED, "begins with a byte order mark")
    try:
        tree = decode(text)
    except json.JSONDecodeError as error:
        what = "empty" if not text.strip() else f"{error.msg} at character {error.pos}"
        raise Rejected(QuarantineReason.MALFORMED, what) from error
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
            raise Rejected(QuarantineReason.MALFORMED, "a string holds half a surrogate pair") from error
    elif isinstance(tree, dict):
        for key, value in tree.items():
            _check_text(key)
            _check_text(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_text(value)


def as_utf8(payload: bytes, charset: str) -> bytes:
    """Return text of a character set in UTF-8. Raises `Rejected` where it is none."""
    return payload if charset == "utf-8" else text_of(payload, charset).encode("utf-8", "surrogatepass")


def _parse(frame: Frame, charset: str) -> Any:
    return parse(as_utf8(frame.payload, charset), frame.nesting_max)


def _compile(_options: Any, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset)


FORMAT = Format(_compile, text=True)
