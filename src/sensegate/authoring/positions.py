"""Column and length of a key of a profile or a configuration, for an editor to mark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sensegate.errors import ConfigError

_PROBLEMS_OF_KEYS: Final = frozenset({"unknown key", "the key occurs twice"})
"""Problems that lie in the key itself, not in its value."""


def position_of(lines: Sequence[str], error: ConfigError) -> tuple[int, int]:
    """Return (column from 1, length) of an error in its line, one of `lines`; (0, 0) if there is no such line.

    It is that of the key's value, or of the key where the key is wrong.
    """
    if not 0 < error.line <= len(lines):
        return 0, 0
    line = lines[error.line - 1]
    in_key = error.problem in _PROBLEMS_OF_KEYS
    span = _key_span(line, error.key) if in_key else _value_span(line, error.key)
    start, end = span or (len(line) - len(line.lstrip(" -")), len(line.rstrip()))
    return start + 1, max(end - start, 1)


def _key_match(line: str, key: str) -> re.Match[str] | None:
    """Return where a line has the last name of a key, its quotes, and the colon; group 1 is the name."""
    name = re.sub(r"(\[\d+\])+$", "", key).rpartition(".")[2]
    return re.search(rf"(?<![\w\"'])[\"']?({re.escape(name)})[\"']?\s*:\s*", line) if name else None


def _key_span(line: str, key: str) -> tuple[int, int] | None:
    """Return the (start, end) of a key in its line."""
    match = _key_match(line, key)
    return match.span(1) if match else None


def _value_span(line: str, key: str) -> tuple[int, int] | None:
    """Return the (start, end) of a key's value in its line; of the key itself if the value begins on a later line."""
    if key.startswith("&"):
        at = line.find(key)
        return (at, at + len(key)) if at >= 0 else None
    match = _key_match(line, key)
    if match is None:
        return None
    if index := re.search(r"\[(\d+)\]$", key):
        return _item(line, match.end(), int(index[1])) or (match.start(), match.end())
    end = _end(line, match.end())
    return (match.end(), end) if end > match.end() else match.span(1)


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
