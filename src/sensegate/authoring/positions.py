"""Column and length of a key of a profile or a configuration, for an editor to mark."""

from __future__ import annotations

import re
from collections.abc import Sequence


def position_of(lines: Sequence[str], number: int, key: str) -> tuple[int, int]:
    """Return (column from 1, length) of a key's value in line `number` (from 1); (0, 0) if there is no such line."""
    if not 0 < number <= len(lines):
        return 0, 0
    line = lines[number - 1]
    start, end = _value_span(line, key) or (len(line) - len(line.lstrip(" -")), len(line.rstrip()))
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
