"""What `check` prints: each finding on one line, and below it the line of the file with a caret, as a compiler does.

The first line of each stays ``file:line: key: what is wrong; what to do``: programs read that.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sensegate.errors import ConfigError, ProfileWarning

WIDTH_MAX = 160
"""Characters of a line that are shown, around the caret."""


class Finding(NamedTuple):
    """One thing that is wrong (`error`), probably a mistake (`warning`), or to be known (`note`)."""

    severity: str
    error: ConfigError

    @property
    def text(self) -> str:
        """The one line."""
        return str(self.error)

    def record(self) -> dict[str, str | int]:
        """Return it for programs."""
        error = self.error
        column, _ = caret(error)
        return {
            "severity": self.severity,
            "file": error.file,
            "line": error.line,
            "column": column,
            "key": error.key,
            "what": error.problem,
            "remedy": error.remedy,
            "text": self.text,
        }


def finding_of(error: ConfigError) -> Finding:
    """Return a finding of an error, with its severity."""
    if isinstance(error, ProfileWarning):
        return Finding("note" if error.note else "warning", error)
    return Finding("error", error)


@lru_cache(maxsize=64)
def _lines(file: str) -> tuple[str, ...]:
    try:
        return tuple(Path(file).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return ()


def caret(error: ConfigError) -> tuple[int, int]:
    """Return (column from 1, length) of what is meant in the line of an error; (0, 0) where the line is not there."""
    lines = _lines(error.file) if error.file else ()
    if not 0 < error.line <= len(lines):
        return 0, 0
    line = lines[error.line - 1]
    start, end = _value_span(line, error.key) or (len(line) - len(line.lstrip(" -")), len(line.rstrip()))
    return start + 1, max(end - start, 1)


def _value_span(line: str, key: str) -> tuple[int, int] | None:
    """Return the place of a key's value in its line, of the key itself where the value begins below."""
    name = re.sub(r"(\[\d+\])+$", "", key).rpartition(".")[2] if not key.startswith("&") else key
    if not name:
        return None
    if key.startswith("&"):
        at = line.find(key)
        return (at, at + len(key)) if at >= 0 else None
    found = re.search(rf"(?<![\w\"'])[\"']?{re.escape(name)}[\"']?\s*:\s*", line)
    if found is None:
        return None
    if index := re.search(r"\[(\d+)\]$", key):
        return _item(line, found.end(), int(index[1])) or (found.start(), found.end())
    end = _end(line, found.end())
    return (found.end(), end) if end > found.end() else (found.start(), found.start() + len(name))


def _item(line: str, at: int, number: int) -> tuple[int, int] | None:
    """Return the place of an item of a list that is written on the line."""
    if at >= len(line) or line[at] != "[":
        return None
    at += 1
    for _ in range(number):
        at = _end(line, at) + 1
        if at >= len(line):
            return None
    at += len(line[at:]) - len(line[at:].lstrip())
    return at, _end(line, at)


def _end(line: str, at: int) -> int:
    """Return where a value ends that begins at a place: brackets and quotes stay whole."""
    depth, quote = 0, ""
    for place in range(at, len(line)):
        letter = line[place]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}" and depth:
            depth -= 1
        elif depth == 0 and (letter in ",]}" or line.startswith(" #", place)):
            return place
    return len(line.rstrip())


def excerpt(error: ConfigError) -> list[str]:
    """Return the line that an error is about and the caret below what is meant; nothing where it cannot be read."""
    column, length = caret(error)
    if not column:
        return []
    line = _lines(error.file)[error.line - 1].replace("\t", " ")
    first = max(0, column - 1 - WIDTH_MAX // 2) if len(line) > WIDTH_MAX else 0
    shown = line[first : first + WIDTH_MAX]
    gutter = f"{error.line:>6} | "
    marks = "^" + "~" * (min(length, len(shown) - (column - 1 - first)) - 1)
    return [gutter + shown, f"{'':>6} | {_blank(shown[: column - 1 - first])}{marks}"]


def _blank(text: str) -> str:
    """Return blanks as wide as a text: Chinese letters are two wide."""
    import unicodedata  # noqa: PLC0415 - for this alone

    return "".join("  " if unicodedata.east_asian_width(letter) in "WF" else " " for letter in text)
