"""The console's files: texts in both languages, files of others unchanged, sizes, no request to anywhere else."""

from __future__ import annotations

import collections
import gzip
import hashlib
import re
from pathlib import Path

import pytest

from sensegate.web import app
from sensegate.web.console import read_texts

CONSOLE = Path(app.__file__).parent / "page" / "console"
FOREIGN = ("preact.js", "uplot.js", "uplot.css", "leaflet.js", "leaflet.css")
OF_THE_MAP = {"leaflet.js", "leaflet.css"}
"""Loaded by the page of the map only."""
TEXTS = sorted(path.name for path in CONSOLE.glob("*texts.js"))
OWN = sorted(path.name for path in CONSOLE.glob("*.js") if path.name not in {*FOREIGN, *TEXTS})
_VENDOR = re.compile(r"^\| `(?P<name>[^`]+)` \|.*\| `(?P<digest>[0-9a-f]{64})` \|$", re.MULTILINE)


_ROW = re.compile(r'(?:"([\w.]+)"|\b(\w+)): \[("(?:[^"\\]|\\.)*"), ("(?:[^"\\]|\\.)*")\]')


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of all tables of texts: key, English, Chinese."""
    text = "".join((CONSOLE / name).read_text(encoding="utf-8") for name in TEXTS)
    return [(quoted or bare, english, chinese) for quoted, bare, english, chinese in _ROW.findall(text)]


def keys(language: str) -> set[str]:
    """Return the keys that have a text in a language (`en` or `zh`)."""
    return {key for key, english, chinese in rows() if (english if language == "en" else chinese) != '""'}


def used() -> set[str]:
    """Return the keys that the pages name in full."""
    text = "".join((CONSOLE / name).read_text(encoding="utf-8") for name in OWN)
    return set(re.findall(r'\bt\("([\w.]+)"', text)) | set(re.findall(r'title: "(page\.\w+)"', text))


def test_every_text_is_there_in_both_languages() -> None:
    """A page names no text that is missing in English or in Chinese; Chinese knows all that English does."""
    known = {key for key in used() if not key.startswith("column.")}
    assert known - keys("en") == set()
    assert used() - keys("zh") == set()
    assert keys("en") - keys("zh") == set()


def test_a_key_has_one_row() -> None:
    """No key stands in two rows, whose texts would hide one another by the order in which pages are opened."""
    count = collections.Counter(key for key, _, _ in rows())
    assert [key for key, number in count.items() if number > 1] == []
    pages = (CONSOLE / "pages.js").read_text(encoding="utf-8")
    shortcuts = re.findall(r'key: "(.)"', pages)
    assert len(set(shortcuts)) == len(shortcuts) > 20


def test_a_missing_text_is_found() -> None:
    """The keys are really read: of each language there are many, and an unknown one is none of them."""
    assert len(keys("en")) > 150 < len(keys("zh"))
    assert "page.overview" in keys("zh") & used()
    assert "page.nowhere" not in keys("en")


def test_files_of_others_are_unchanged() -> None:
    """Each is listed with its licence and its checksum, and is the file that was published."""
    listed = dict(_VENDOR.findall((CONSOLE / "VENDOR.md").read_text(encoding="utf-8")))
    assert set(listed) == set(FOREIGN)
    assert {name: hashlib.sha256((CONSOLE / name).read_bytes()).hexdigest() for name in listed} == listed


def test_sizes() -> None:
    """HTML at most 60 kB; all that a page loads at most 80 kB compressed."""
    assert len((CONSOLE / "index.html").read_bytes()) < 60_000
    texts_and_frame = {"app.js", "lib.js", "pages.js", "texts.js", "console.css", *FOREIGN} - OF_THE_MAP
    shared = sum(size(name) for name in texts_and_frame)
    for name in set(OWN) - texts_and_frame:
        own = size(name) + sum(size(text) for text in TEXTS if text == name.replace(".js", ".texts.js"))
        assert shared + own < 80_000, name


def size(name: str) -> int:
    """Return the compressed size of a file of the console."""
    return len(gzip.compress((CONSOLE / name).read_bytes()))


@pytest.mark.parametrize("name", [*OWN, *TEXTS, "index.html", "console.css"])
def test_nothing_is_fetched_from_elsewhere(name: str) -> None:
    """No address of another host stands in our files, and no text is interpreted as HTML or as code."""
    text = (CONSOLE / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]{2,}/", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|dangerouslySet", text
    )


def test_one_thing_has_one_name() -> None:
    """The ledger page and the console say the same of what became of messages and values, in both languages."""
    page = (CONSOLE.parent / "page.js").read_text(encoding="utf-8")
    texts = read_texts()
    of_page = dict(zip(("en", "zh-CN"), page.split('"zh-CN": {', 1), strict=True))
    names = {"accepted": "stored", "duplicates": "duplicates"}
    for kind in ("messages", "quarantined", "values", "accepted", "duplicates", "rejected", "forwarded", "withheld"):
        name = names.get(kind, kind)
        for language, source in of_page.items():
            wording = re.search(rf'[ {{]{name}: "([^"]*)"', source)
            assert wording, name
            assert wording[1].casefold() == texts[language][f"kind.{kind}"].casefold(), (kind, language)
    for kind, reason, wording in re.findall(r'"(quarantined|rejected)\.(\w+)": "[^：]*：([^"]*)"', of_page["zh-CN"]):
        assert texts["zh-CN"][f"reason.{reason}"] == wording, kind
