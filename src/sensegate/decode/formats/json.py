"""JSON as RFC 8259 has it, strictly: a duplicate key, a byte order mark or a lone surrogate is malformed.

``NaN`` and ``Infinity`` (and numbers too large for a double) are let through as such, so that only the value is
rejected (`not_finite`) and not its whole message.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import Format, Frame, Parse, Setting
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise Rejected(QuarantineReason.MALFORMED, "an object has the same key twice")
    return tree


_decode = json.JSONDecoder(object_pairs_hook=_pairs).decode


def depth(payload: bytes) -> int:
    """Return how deeply arrays and objects are nested (text inside strings left out)."""
    deepest = level = 0
    for found in _BRACKETS.finditer(_STRING.sub(b"", payload)):
        level += 1 if found[0] in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def parse(payload: bytes, nesting_max: int) -> Any:
    """Return the tree. Raises `Rejected` with the reason where there is none."""
    text = text_of(payload)
    if payload.count(b"[") + payload.count(b"{") > nesting_max and depth(payload) > nesting_max:
        raise Rejected(QuarantineReason.TOO_DEEP, f"nested more than {nesting_max} deep")
    if text.startswith("\ufeff"):
        raise Rejected(QuarantineReason.MALFORMED, "begins with a byte order mark")
    try:
        tree = _decode(text)
    except json.JSONDecodeError as why:
        what = "empty" if not text.strip() else f"{why.msg} at character {why.pos}"
        raise Rejected(QuarantineReason.MALFORMED, what) from why
    except ValueError as why:  # a number of more than 4,300 digits
        raise Rejected(QuarantineReason.MALFORMED, "a number is too long") from why
    except RecursionError as why:
        raise Rejected(QuarantineReason.TOO_DEEP, "nested too deeply") from why
    if "\\u" in text:
        _check_text(tree)
    return tree


def _check_text(tree: Any) -> None:
    if isinstance(tree, str):
        try:
            tree.encode("utf-8")
        except UnicodeEncodeError as why:
            raise Rejected(QuarantineReason.MALFORMED, "a string holds half a surrogate pair") from why
    elif isinstance(tree, dict):
        for key, value in tree.items():
            _check_text(key)
            _check_text(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_text(value)


def _parse(frame: Frame, charset: str) -> Any:
    payload = frame.payload if charset == "utf-8" else text_of(frame.payload, charset).encode()
    return parse(payload, frame.nesting_max)


def _compile(_options: Any, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset)


FORMAT = Format(_compile, text=True)
