"""Sentences of the gateway about its own state in Chinese, for the first paint; the console's scripts do the same."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

import msgspec

_STRING = r'"(?:[^"\\]|\\.)*"'
_ROW = re.compile(rf'"(?P<id>sentence\.\w+)": \[(?P<en>{_STRING}), (?P<zh>{_STRING})\]')
_FIELD = re.compile(r"\{(\d)\}")
_DEPTH_MAX = 4


class SentencePattern(msgspec.Struct, frozen=True, eq=False):
    """Pattern of the sentences of one id."""

    id: str
    pattern: re.Pattern[str]
    fields: tuple[str, ...]
    """Number of the parameter of each group of the pattern."""
    chinese: str
    rank: tuple[bool, int]
    """Sorts first what begins with text of its own, and of those what has most of it."""


@cache
def read_sentences() -> list[SentencePattern]:
    """Return the patterns of the console's table in the order in which they are tried."""
    source = files("sensegate.web").joinpath("page", "console", "sentences.texts.js").read_text(encoding="utf-8")
    patterns = []
    for match in _ROW.finditer(source):
        parts = _FIELD.split(json.loads(match["en"]))
        pattern = re.compile("(.*?)".join(map(re.escape, parts[::2])), re.DOTALL)
        rank = (not parts[0], -sum(map(len, parts[::2])))
        patterns.append(SentencePattern(match["id"], pattern, tuple(parts[1::2]), json.loads(match["zh"]), rank))
    return sorted(patterns, key=lambda row: row.rank)


def translate(text: str, patterns: list[SentencePattern], depth: int = 0) -> str:
    """Return a sentence in Chinese; one that is not known, and a parameter that is no sentence, stay as they are."""
    if not text or depth > _DEPTH_MAX:
        return text
    for row in patterns:
        if match := row.pattern.fullmatch(text):
            result = row.chinese
            for field, value in zip(row.fields, match.groups(), strict=True):
                result = result.replace(f"{{{field}}}", translate(value, patterns, depth + 1))
            return result
    return text
