r"""InfluxDB line protocol. The tree is a list of points ``{"measurement", "tags", "fields", "time"}``.

``time`` is the integer as sent, null if absent: its precision is the rule's (``time.format: epoch_ns``). A comma, space
or equals sign in a name is escaped by a backslash; a backslash before anything else stands for itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, plain_text
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_BLANK_OR_COMMENT = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+(?:\n|\Z))*+")
"""Empty lines and comments; possessive, since places to go back to would take a hundred times the bytes of the text."""
_MEASUREMENT = re.compile(r"(?:[^, \n\\]++|\\[, ]?)++")
_NAME = re.compile(r"(?:[^,= \n\\]++|\\[,= ]?)++")
_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_VALUE = re.compile(r"[^, \r\n]+")
_TIME = re.compile(r" +(-?\d{1,20})(?=[ \r\n]|\Z)", re.ASCII)
_END = re.compile(r" *\r?(?:\n|\Z)")
_INTEGER = re.compile(r"(-?\d{1,20})i|(\d{1,20})u", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
BAD_LINES_MAX: Final = 4_096
"""Number of bad lines behind which a text is not read: a bad line costs three times as much as a good one."""
_WORDS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


def parse(payload: bytes, charset: str = "utf-8") -> list[dict[str, Any]]:
    """Return the points. Raises `Rejected` if there is none, or one does not follow the protocol."""
    return _Lines(text_of(payload, charset)).points()


class Line(msgspec.Struct, frozen=True):
    """A line without a fault."""

    text: str
    """Measurement, tags and fields as sent, without the time."""
    time: int | None
    """Time as the line has it, in the unit that the request names as its precision."""


class SplitLines(msgspec.Struct, frozen=True):
    """Lines of a text; a bad one is left out alone."""

    good: list[Line]
    problems: list[str]
    """A sentence for each of the first bad lines; the first tells where reading ended before the end of the text."""
    bad: int
    """Number of bad lines, and of the lines that were not read."""


def split_lines(text: str, *, problems_max: int) -> SplitLines:
    """Return the good lines of a text up to `BAD_LINES_MAX` bad ones, and at most `problems_max` sentences."""
    return _Lines(text).split(problems_max)


class _Lines:
    """Reads points one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line, self._counted_to = 1, 0
        """The line of a position up to which line feeds are counted: a text of bad lines alone is read once."""
        self._fields_end = 0
        self._members = 0

    def split(self, problems_max: int) -> SplitLines:
        lines: list[Line] = []
        problems: list[str] = []
        bad = 0
        self._skip(_BLANK_OR_COMMENT)
        while self._at < len(self._text):
            start, self._members = self._at, 0
            try:
                point = self._point()
                lines.append(Line(self._text[start : self._fields_end], point["time"]))
            except Rejected as why:
                bad += 1
                if bad <= problems_max:
                    problems.append(why.detail)
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
                if bad == BAD_LINES_MAX and (unread := self._count_unread()):
                    bad += unread
                    last = f"more than {BAD_LINES_MAX} bad lines: what follows character {self._at} was not read"
                    problems = [last, *problems][:problems_max]
                    break
            self._skip(_BLANK_OR_COMMENT)
        return SplitLines(lines, problems, bad)

    def _count_unread(self) -> int:
        """Return the number of lines behind the position, of any kind."""
        rest = self._text[self._at :].strip()
        return rest.count("\n") + 1 if rest else 0

    def points(self) -> list[dict[str, Any]]:
        points = []
        self._skip(_BLANK_OR_COMMENT)
        while self._at < len(self._text):
            points.append(self._point())
            if len(points) > ELEMENTS_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} points")
            self._skip(_BLANK_OR_COMMENT)
        if not points:
            raise Rejected(QuarantineReason.MALFORMED, "the payload is empty")
        return points

    def _point(self) -> dict[str, Any]:
        measurement = _plain(self._require(_MEASUREMENT, "a measurement")[0], ", ")
        tags: dict[str, str] = {}
        while self._accept(","):
            key = self._key(tags)
            tags[key] = _plain(self._require(_NAME, "a tag's value")[0], ",= ")
        if not self._accept(" "):
            raise self._expected("a space and fields")
        while self._accept(" "):
            pass
        fields: dict[str, Any] = {}
        while not fields or self._accept(","):
            key = self._key(fields)
            fields[key] = self._value()
        self._fields_end = self._at
        time = self._skip(_TIME)
        self._require(_END, "a time or the end of the line")
        self._members += 1 + len(tags) + len(fields)
        if self._members > MEMBERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} tags and fields")
        return {
            "measurement": measurement,
            "tags": tags,
            "fields": fields,
            "time": int(time[1]) if time is not None else None,
        }

    def _key(self, seen: dict[str, Any]) -> str:
        key = _plain(self._require(_NAME, "a key")[0], ",= ")
        if key in seen:
            raise Rejected(QuarantineReason.MALFORMED, f"a key occurs twice, before character {self._at}")
        if not self._accept("="):
            raise self._expected("an equals sign")
        return key

    def _value(self) -> str | bool | int | float:
        if (text := self._skip(_STRING)) is not None:
            return re.sub(r'\\(["\\])', r"\1", text[1])
        word = self._require(_VALUE, "a field's value")[0]
        if word in _WORDS:
            return _WORDS[word]
        if integer := _INTEGER.fullmatch(word):
            number = int(integer[1] or integer[2])
            if -(2**63) <= number < 2**63 or (integer[2] and number < 2**64):
                return number
        elif _FLOAT.fullmatch(word):
            return float(word)
        raise self._expected("a number, true, false or quoted text, before this,")

    def _accept(self, character: str) -> bool:
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def _require(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        match = self._skip(pattern)
        if match is None:
            raise self._expected(expected)
        return match

    def _expected(self, expected: str) -> Rejected:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return Rejected(
            QuarantineReason.MALFORMED, f"{expected} was expected at character {self._at} (line {self._line})"
        )


def _plain(text: str, escaped: str) -> str:
    return re.sub(rf"\\([{escaped}])", r"\1", text) if "\\" in text else text


FORMAT = plain_text(parse)
