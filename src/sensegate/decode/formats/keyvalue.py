"""Pairs of text: ``a=1;b=2`` with marks of one's own. The tree is an object; all text, an empty value is null."""

from __future__ import annotations

import re
from typing import Annotated, Any

from sensegate.decode.charsets import text_of
from sensegate.decode.formats.number import split
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, Format, Frame, Parse, Setting
from sensegate.decode.part import Part, description
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason


class KeyValuePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the pairs are written."""

    pairs: Annotated[tuple[str, ...], description("marks between pairs, any of them; line ends are always")] = (";",)
    equals: Annotated[str, description("mark between key and value: the first in a pair")] = "="
    head: Annotated[
        tuple[str, ...], description("names for the values without key at the beginning: 0R2,Ta=23.2C")
    ] = ()
    units: Annotated[bool, description("a unit may follow the number: each value becomes {value, unit}")] = False
    lines: Annotated[bool, description("each line is an object of its own; the tree is their list")] = False


class _Pairs:
    """The parse of one layout."""

    def __init__(self, options: KeyValuePart, charset: str) -> None:
        self._options = options
        self._charset = charset
        self._split = re.compile("|".join(map(re.escape, (*options.pairs, "\r", "\n")))).split

    def __call__(self, frame: Frame) -> Any:
        """Return the object, or the list of them. Raises `Rejected` where the payload holds no pairs."""
        text = text_of(frame.payload, self._charset)
        if not text.strip():
            raise Rejected(QuarantineReason.MALFORMED, "empty")
        # With units each pair is an object of two; told before any is made, so that rubbish costs little.
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
        found: dict[str, Any] = {}
        head = list(reversed(self._options.head))
        chunks = [chunk for part in self._split(text) if (chunk := part.strip())]
        for index, chunk in enumerate(chunks):
            key, mark, value = chunk.partition(self._options.equals)
            if mark:
                head = []  # values without key stand at the beginning only
            else:
                key, value = head.pop() if head else "", chunk
            key = key.strip()
            if not key or key in found:
                what = "has no key" if not key else "has the key of another"
                raise Rejected(QuarantineReason.MALFORMED, f"pair {index + 1} {what}")
            found[key] = self._value(value.strip(), mark)
        return found

    def _value(self, text: str, mark: str) -> Any:
        if self._options.units and mark:
            number, unit = split(text)
            return {"value": number or None, "unit": unit or None}
        return text or None


def _compile(options: KeyValuePart | None, setting: Setting) -> Parse:
    options = options or KeyValuePart()
    if not options.equals or options.equals in options.pairs:
        raise setting.error("must be a mark, another than those of `pairs`", "equals")
    if not all(options.pairs):
        raise setting.error("a mark is not empty", "pairs")
    if len(set(options.head)) != len(options.head) or not all(options.head):
        raise setting.error("each needs its own name", "head")
    return _Pairs(options, setting.charset)


FORMAT = Format(_compile, KeyValuePart, text=True, typed=False)
