"""What the gateway says to somebody who asked for something stands in Chinese on a Chinese console."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from sensegate.authority.scope import Action
from tests.web.problems import ROOT, parts_of, templates
from tests.web.sentences import pattern_of

TABLE = Path(ROOT) / "web/page/console/problems.texts.js"
_ROW = re.compile(r'\[("(?:[^"\\]|\\.)*"), ("(?:[^"\\]|\\.)*")\]')
ROWS = [(json.loads(english), json.loads(chinese)) for english, chinese in _ROW.findall(TABLE.read_text("utf-8"))]
PATTERNS = [pattern_of(english) for english, _ in ROWS]
OF_PROGRAMS = frozenset(
    {
        "the secret of the masks is too short",
        "give 32 random bytes",
        "the text is not a token",
        "create it with authority.tokens.make_text",
        "the body exceeds \0 bytes when decompressed",
        "the body is not one whole gzip stream",
        "send it as Content-Encoding says",
        "the body is compressed",
        "send it without Content-Encoding",
        "the body is not gzip (\0)",
    }
)
"""Only a program that calls the interface, or its operator in a file, can meet these."""


def unknown(parts: list[str]) -> list[str]:
    """Return the parts that no row matches."""
    return [text for text in parts if not any(row.fullmatch(text.replace("\0", "17")) for row in PATTERNS)]


def test_every_problem_has_its_chinese() -> None:
    """A new error of a request of the console needs its row."""
    parts = {part for _, part in templates() if re.search(r"[a-z]{2}", part)} - OF_PROGRAMS
    assert len(parts) > 400
    assert unknown(sorted(parts)) == []
    assert unknown(parts_of("query: moon: the moon is away; wait for a night")) != [], "control: not all matches"


def test_every_right_has_its_chinese() -> None:
    """A refusal names the right that is missing."""
    names = {english for english, _ in ROWS}
    assert [action for action in Action if action.replace("_", " ") not in names] == []


def test_rows() -> None:
    """Each text is there once, its Chinese is Chinese and has its fields."""
    assert [text for text, count in Counter(text for text, _ in ROWS).items() if count > 1] == []
    for english, chinese in ROWS:
        assert re.search(r"[\u4e00-\u9fff]", chinese), english
        if not english.startswith(("see ", "GET ")):
            assert set(re.findall(r"\{\d\}", english)) == set(re.findall(r"\{\d\}", chinese)), english
