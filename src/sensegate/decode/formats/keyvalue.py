"""Key-value text: ``a=1;b=2`` with selectable separators. The tree is an object; all text, an empty value is null."""

from __future__ import annotations

import re
from typing import Annotated, Any

from sensegate.decode.charsets import text_of
from sensegate.decode.formats.number import split
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, FormatContext, Parse, PayloadFormat, PayloadFrame
from sensegate.decode.part import ProfilePart, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


class KeyValuePart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the pairs."""

    pairs: Annotated[tuple[str, ...], description("separators between pairs; line ends always separate")] = (";",)
    equals: Annotated[str, description("separator between key and value: its first occurrence in a pair")] = "="
    head: Annotated[tuple[str, ...], description("names for leading values without a key: 0R2,Ta=23.2C")] = ()
    units: Annotated[bool, description("a unit may follow the number: each value becomes {value, unit}")] = False
    lines: Annotated[bool, description("each line is an object; the tree is a list of them")] = False


class _Pairs:
    """The parse of one layout of pairs."""

    def __init__(self, options: KeyValuePart, charset: str) -> None:
        self._options = options
        self._charset = charset
        self._split = re.compile("|".join(map(re.escape, (*options.pairs, "\r", "\n")))).split

    def __call__(self, frame: PayloadFrame) -> Any:
        """Return the object, or the list of them. Raises `Rejected` if the payload has no pairs."""
        text = text_of(frame.payload, self._charset)
        if not text.strip():
            raise Rejected(QuarantineReason.MALFORMED, "the payload is empty")
        # With units each pair becomes an object of two; counted before any is built, so that garbage costs little.
        members = text.count(self._options.equals) * (4 if self._options.units else 1)
        if members > MEMBERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} members")
        if not self._options.lines:
            return self._object(text)
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        if len(lines) > ELEMENTS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} lines")
        return [self._object(line) for line in lines]

    def _object(self, text: str) -> dict[str, Any]:
        members: dict[str, Any] = {}
        head = list(reversed(self._options.head))
        chunks = [chunk for part in self._split(text) if (chunk := part.strip())]
        for index, chunk in enumerate(chunks):
            key, separator, value = chunk.partition(self._options.equals)
            if separator:
                head = []  # values without a key are allowed at the beginning only
            else:
                key, value = head.pop() if head else "", chunk
            key = key.strip()
            if not key or key in members:
                fault = "has no key" if not key else "has the key of another pair"
                raise Rejected(QuarantineReason.MALFORMED, f"pair {index + 1} {fault}")
            members[key] = self._value(value.strip(), separator)
        return members

    def _value(self, text: str, separator: str) -> Any:
        if self._options.units and separator:
            number, unit = split(text)
            return {"value": number or None, "unit": unit or None}
        return text or None


def _compile(options: KeyValuePart | None, context: FormatContext) -> Parse:
    options = options or KeyValuePart()
    if not options.equals or options.equals in options.pairs:
        raise context.error("must not be empty or one of `pairs`", "equals")
    if not all(options.pairs):
        raise context.error("a separator must not be empty", "pairs")
    if len(set(options.head)) != len(options.head) or not all(options.head):
        raise context.error("each value needs its own name", "head")
    return _Pairs(options, context.charset)


FORMAT = PayloadFormat(_compile, KeyValuePart, text=True, typed=False)
