"""The output of `check`: each finding on one line, followed by the line of the file with a caret.

The first line of each finding is ``file:line: key: what is wrong; what to do``, which programs can parse.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sensegate.errors import ConfigError, ProfileWarning

WIDTH_MAX = 160
"""Most characters of a line to show around the caret."""


class Finding(NamedTuple):
    """An error, a probable mistake (`warning`) or a remark (`note`)."""

    severity: str
    error: ConfigError

    @property
    def text(self) -> str:
        """The finding as one line."""
        return str(self.error)

    def record(self) -> dict[str, str | int]:
        """Return the finding for JSON output."""
        error = self.error
        column, _ = caret(error)
        return {
            "severity": self.severity,
            "file": error.file,
            "line": error.line,
            "column": column,
            "key": error.key,
            "problem": error.problem,
            "remedy": error.remedy,
            "text": self.text,
        }


def finding_of(error: ConfigError) -> Finding:
    """Return the finding for an error, with its severity."""
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
    """Return (column from 1, length) of the faulty value in its line; (0, 0) if the line is unavailable."""
    lines = _lines(error.file) if error.file else ()
    if not 0 < error.line <= len(lines):
        return 0, 0
    line = lines[error.line - 1]
    start, end = _value_span(line, error.key) or (len(line) - len(line.lstrip(" -")), len(line.rstrip()))
    return start + 1, max(end - start, 1)


def _value_span(line: str, key: str) -> tuple[int, int] | None:
    """Return the (start, end) of a key's value in its line; of the key itself if the value begins on a later line."""
    name = re.sub(r"(\[\d+\])+$", "", key).rpartition(".")[2] if not key.startswith("&") else key
    if not name:
        return None
    if key.startswith("&"):
        at = line.find(key)
        return (at, at + len(key)) if at >= 0 else None
    match = re.search(rf"(?<![\w\"'])[\"']?{re.escape(name)}[\"']?\s*:\s*", line)
    if match is None:
        return None
    if index := re.search(r"\[(\d+)\]$", key):
        return _item(line, match.end(), int(index[1])) or (match.start(), match.end())
    end = _end(line, match.end())
    return (match.end(), end) if end > match.end() else (match.start(), match.start() + len(name))


def _item(line: str, at: int, number: int) -> tuple[int, int] | None:
    """Return the (start, end) of an item of an inline list."""
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
    """Return the end of the value that starts at a position, with balanced brackets and quotes."""
    depth, quote = 0, ""
    for position in range(at, len(line)):
        char = line[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        elif depth == 0 and (char in ",]}" or line.startswith(" #", position)):
            return position
    return len(line.rstrip())


def excerpt(error: ConfigError) -> list[str]:
    """Return the line of an error and a caret line below it; empty if the file cannot be read."""
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
    """Return blanks as wide as a text: Chinese characters are two columns wide."""
    import unicodedata  # noqa: PLC0415 - only this function needs it

    return "".join("  " if unicodedata.east_asian_width(char) in "WF" else " " for char in text)
