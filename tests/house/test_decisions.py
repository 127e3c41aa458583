from __future__ import annotations

import re

from tests.house.decisions import FILE, INDEX, LINES_MAX, OTHER, TOPICS, anchor, entries, index

TEXT = FILE.read_text(encoding="utf-8")
ENTRIES = entries(TEXT)


def test_an_entry_is_short_and_stands_once() -> None:
    """An entry has at most fifteen lines, and a title of its own."""
    assert [title for _, title, lines in ENTRIES if lines > LINES_MAX] == []
    titles = [title for _, title, _ in ENTRIES]
    assert sorted({title for title in titles if titles.count(title) > 1}) == []


def test_the_index_leads_to_entries() -> None:
    """Each line of the index leads to an entry; what was added since `make docs` is still missing."""
    match = INDEX.search(TEXT)
    assert match
    links = re.findall(r"\]\(#(.+)\)$", match[0], re.MULTILINE)
    anchors = {anchor(f"{date} {title}") for date, title, _ in ENTRIES}
    assert len(links) > 150
    assert [link for link in links if link not in anchors] == []


def test_an_index_has_every_entry_under_one_topic() -> None:
    """The index has each entry once, newest first; what fits no topic is under the last."""
    text = "## 2026-01-01 The console is small\nx\n\n## 2026-01-02 Nothing of the kind\ny\nz\n\n"
    text += "## 2026-01-03 A console again\n"
    assert [lines for _, _, lines in entries(text)] == [1, 2, 0]
    parts = index(text).split("\n\n")
    assert parts[0] == "**Console**"
    assert re.findall(r"\[(.+?)\]", parts[1]) == ["A console again", "The console is small"]
    assert parts[2:] == [f"**{OTHER}**", "- [Nothing of the kind](#2026-01-02-nothing-of-the-kind)"]
    assert OTHER not in TOPICS
