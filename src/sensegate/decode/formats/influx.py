r"""InfluxDB line protocol. The tree is a list of points ``{"measurement", "tags", "fields", "time"}``.

``time`` is the whole number as sent, null where there is none: its precision is the rule's (``time.format: epoch_ns``).
A comma, blank or equals sign in names stands behind a backslash; a backslash before anything else is itself.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from sensegate.decode.charsets import text_of
from sensegate.decode.frame import ELEMENTS_MAX, MEMBERS_MAX, Format, Frame, Parse, Setting
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_BEFORE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*(?:\n|\Z))*")
"""Empty lines and comments."""
_MEASUREMENT = re.compile(r"(?:[^, \n\\]++|\\[, ]?)++")
_NAME = re.compile(r"(?:[^,= \n\\]++|\\[,= ]?)++")
_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_VALUE = re.compile(r"[^, \r\n]+")
_TIME = re.compile(r" +(-?\d{1,20})(?=[ \r\n]|\Z)", re.ASCII)
_END = re.compile(r" *\r?(?:\n|\Z)")
_INTEGER = re.compile(r"(-?\d{1,20})i|(\d{1,20})u", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_WORDS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


def parse(payload: bytes, charset: str = "utf-8") -> list[dict[str, Any]]:
    """Return the points. Raises `Rejected` where there is none, or one that is not of the protocol."""
    return _Lines(text_of(payload, charset)).points()


class _Lines:
    """Reads points one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._members = 0

    def points(self) -> list[dict[str, Any]]:
        found = []
        self._skip(_BEFORE)
        while self._at < len(self._text):
            found.append(self._point())
            if len(found) > ELEMENTS_MAX:
                raise Rejected(QuarantineReason.SCHEMA, f"more than {ELEMENTS_MAX} points")
            self._skip(_BEFORE)
        if not found:
            raise Rejected(QuarantineReason.MALFORMED, "empty")
        return found

    def _point(self) -> dict[str, Any]:
        measurement = _plain(self._must(_MEASUREMENT, "a measurement")[0], ", ")
        tags: dict[str, str] = {}
        while self._is(","):
            key = self._key(tags)
            tags[key] = _plain(self._must(_NAME, "a tag's value")[0], ",= ")
        if not self._is(" "):
            raise self._wrong("a blank and fields")
        while self._is(" "):
            pass
        fields: dict[str, Any] = {}
        while not fields or self._is(","):
            key = self._key(fields)
            fields[key] = self._value()
        time = self._skip(_TIME)
        self._must(_END, "a time or the end of the line")
        self._members += 1 + len(tags) + len(fields)
        if self._members > MEMBERS_MAX:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {MEMBERS_MAX} tags and fields")
        return {
            "measurement": measurement,
            "tags": tags,
            "fields": fields,
            "time": int(time[1]) if time is not None else None,
        }

    def _key(self, known: dict[str, Any]) -> str:
        key = _plain(self._must(_NAME, "a key")[0], ",= ")
        if key in known:
            raise Rejected(QuarantineReason.MALFORMED, f"a key occurs twice, before character {self._at}")
        if not self._is("="):
            raise self._wrong("an equals sign")
        return key

    def _value(self) -> str | bool | int | float:
        if (text := self._skip(_STRING)) is not None:
            return re.sub(r'\\(["\\])', r"\1", text[1])
        word = self._must(_VALUE, "a field's value")[0]
        if word in _WORDS:
            return _WORDS[word]
        if whole := _INTEGER.fullmatch(word):
            number = int(whole[1] or whole[2])
            if -(2**63) <= number < 2**63 or (whole[2] and number < 2**64):
                return number
        elif _FLOAT.fullmatch(word):
            return float(word)
        raise self._wrong("a number, true, false or text in quotes, before this,")

    def _is(self, mark: str) -> bool:
        if self._text.startswith(mark, self._at):
            self._at += 1
            return True
        return False

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _must(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = self._skip(pattern)
        if found is None:
            raise self._wrong(what)
        return found

    def _wrong(self, what: str) -> Rejected:
        line = self._text.count("\n", 0, self._at) + 1
        return Rejected(QuarantineReason.MALFORMED, f"{what} was expected at character {self._at} (line {line})")


def _plain(text: str, marks: str) -> str:
    return re.sub(rf"\\([{marks}])", r"\1", text) if "\\" in text else text


def _parse(frame: Frame, charset: str) -> Any:
    return parse(frame.payload, charset)


def _compile(_options: Any, setting: Setting) -> Parse:
    return partial(_parse, charset=setting.charset)


FORMAT = Format(_compile, text=True)
