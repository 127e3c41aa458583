"""The output of `check`: each finding on one line, followed by the line of the file with a caret.

The first line of each finding is ``file:line: key: what is wrong; what to do``, which programs can parse.
"""

from __future__ import annotations

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
    """Return (column from 1, length) of the faulty value or key in its line; (0, 0) if the line is unavailable."""
    from sensegate.authoring.positions import position_of  # noqa: PLC0415 - its package loads the whole decoder

    return position_of(_lines(error.file) if error.file else (), error)


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
