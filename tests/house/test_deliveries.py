"""The words of the deliveries, where they stand a second time: in the help of a command, on a page, in documents."""

from __future__ import annotations

import re
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
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/sensegate/web/page").rglob("*.js"))
    lists = re.findall(r"DELIVERIES = \[([^\]]*)\]", text)
    assert lists
    assert all(_words(words) == set(DELIVERIES) for words in lists)


@pytest.mark.parametrize("name", ["README.md", "deploy/subscribers.md"])
def test_documents_count_them_right(name: str) -> None:
    """Where a document says how many deliveries there are, that is how many."""
    text = (ROOT / name).read_text(encoding="utf-8")
    counts = [word.lower() for word in re.findall(r"\b(\w+) deliveries\b", text) if word.lower() in NUMBERS]
    assert counts
    assert set(counts) == {NUMBERS[len(DELIVERIES)]}
