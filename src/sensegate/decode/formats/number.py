"""A single number as payload (``21.5``, with options also ``21,5 °C``); the tree is the number, or {value, unit}."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_NUMBER = re.compile(r"([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)(?=[^\d.,]|$)\s*", re.ASCII)
_TEXT_MAX = 64


class NumberPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the number."""

    units: Annotated[bool, description("a unit may follow the number: the tree is {value, unit}")] = False
    decimal: Annotated[Literal[".", ","], description("decimal separator")] = "."
    missing: Annotated[tuple[str, ...], description('words for "not measured"')] = ()


def split(text: str) -> tuple[str, str]:
    """Split a text into its leading number and the rest (a unit); the whole text and "" if it has no leading number."""
    match = _NUMBER.match(text)
    return (match[1], text[match.end() :]) if match else (text, "")


def parse(payload: bytes, charset: str = "utf-8", options: NumberPart | None = None) -> Any:
    """Return the number (or {value, unit}), None if it is missing. Raises `Rejected` if it is not a number."""
    options = options or NumberPart()
    text = text_of(payload, charset).strip()
    if not text:
        raise Rejected(QuarantineReason.MALFORMED, "the payload is empty")
    if len(text) > 2 * _TEXT_MAX:
        raise Rejected(QuarantineReason.MALFORMED, "the payload is not a number")
    digits, unit = split(text)
    value = None if text in options.missing else _value(digits, options.decimal)
    if options.units:
        return {"value": value, "unit": unit or None}
    if unit:
        raise Rejected(QuarantineReason.MALFORMED, "the payload is more than a number")
    return value


def _value(text: str, decimal: str) -> int | float:
    other = "," if decimal == "." else "."
    if len(text) > _TEXT_MAX or other in text or not _NUMBER.fullmatch(text):
        raise Rejected(QuarantineReason.MALFORMED, "the payload is not a number")
    text = text.replace(",", ".")
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _parse(frame: PayloadFrame, charset: str, options: NumberPart | None) -> Any:
    return parse(frame.payload, charset, options)


def _compile(options: NumberPart | None, context: FormatContext) -> Parse:
    return partial(_parse, charset=context.charset, options=options)


FORMAT = PayloadFormat(_compile, NumberPart, text=True)
