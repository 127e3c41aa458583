"""The payload is one number (``21.5``, with options also ``21,5 °C``); the tree is that number, or {value, unit}."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import Format, Frame, Parse, Setting
from sensegate.decode.part import Part, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_NUMBER = re.compile(r"([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)(?=[^\d.,]|$)\s*", re.ASCII)
_TEXT_MAX = 64


class NumberPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the number is written."""

    units: Annotated[bool, description("a unit may follow the number: the tree is {value, unit}")] = False
    decimal: Annotated[Literal[".", ","], description("between the whole part and the decimals")] = "."
    missing: Annotated[tuple[str, ...], description("words that mean: not measured")] = ()


def split(text: str) -> tuple[str, str]:
    """Return the number at the beginning of a text and the rest (its unit); the whole text and "", where it is none."""
    found = _NUMBER.match(text)
    return (found[1], text[found.end() :]) if found else (text, "")


def parse(payload: bytes, charset: str = "utf-8", options: NumberPart | None = None) -> Any:
    """Return the number (or {value, unit}), None where it is missing. Raises `Rejected` where it is none."""
    options = options or NumberPart()
    text = text_of(payload, charset).strip()
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "empty")
    if len(text) > 2 * _TEXT_MAX:
        raise Rejected(QuarantineReason.MALFORMED, "not a number")
    digits, unit = split(text)
    value = None if text in options.missing else _value(digits, options.decimal)
    if options.units:
        return {"value": value, "unit": unit or None}
    if unit:
        raise Rejected(QuarantineReason.MALFORMED, "more than a number")
    return value


def _value(text: str, decimal: str) -> int | float:
    other = "," if decimal == "." else "."
    if len(text) > _TEXT_MAX or other in text or not _NUMBER.fullmatch(text):
        raise Rejected(QuarantineReason.MALFORMED, "not a number")
    text = text.replace(",", ".")
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _parse(frame: Frame, charset: str, options: NumberPart | None) -> Any:
    return parse(frame.payload, charset, options)


def _compile(options: NumberPart | None, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset, options=options)


FORMAT = Format(_compile, NumberPart, text=True)
