"""The words of the deliveries, where they stand a second time: in the help of a command, on a page, in documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from sensegate.share.grants import DELIVERIES

ROOT = Path(__file__).parents[2]
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text)) & {*DELIVERIES, "file", "kafka", "amqp"}


def test_the_help_of_applications_names_all() -> None:
    """The command line imports nothing of the gateway to print its help, so it has the words itself."""
    text = (ROOT / "src/sensegate/cli/applications.py").read_text(encoding="utf-8")
    (help_text,) = re.findall(r'help="([^"]*webhook[^"]*repeat for several[^"]*)"', text)
    assert _words(help_text) == set(DELIVERIES)


def test_the_page_offers_all() -> None:
    lists = {
        f"{file.relative_to(ROOT).as_posix()}: {words}": _words(words) ^ set(DELIVERIES)
        for file in (ROOT / "src/sensegate/web/page").rglob("*.js")
        for words in re.findall(r"DELIVERIES = \[([^\]]*)\]", file.read_text(encoding="utf-8"))
    }
    assert lists
    assert {place: differing for place, differing in lists.items() if differing} == {}


@pytest.mark.parametrize(
    ("name", "pattern", "numbers"),
    [
        ("README.md", r"\b(\w+) deliveries\b", NUMBERS),
        ("deploy/subscribers.md", r"\b(\w+) deliveries\b", NUMBERS),
        ("deploy/sharing.md", r"\b(\w+) deliveries\b", NUMBERS),
        ("README.zh-CN.md", r"(.)种交付方式", "〇一二三四五六七八九十"),
    ],
)
def test_documents_count_them_right(name: str, pattern: str, numbers: Sequence[str]) -> None:
    """Where a document says how many deliveries there are, that is how many."""
    text = (ROOT / name).read_text(encoding="utf-8")
    counts = [word.lower() for word in re.findall(pattern, text) if word.lower() in numbers]
    assert counts, f"{name} counts them no more"
    assert set(counts) == {numbers[len(DELIVERIES)]}, f"{name} says {counts}"
