"""What commands print: no broken word in a narrow terminal, lines with tabs in a pipe; and how they take times."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from sensegate.cli.output import blocks, fit_widths, tab_separated, transposed
from sensegate.cli.times import parse_duration, parse_time
from sensegate.wording import count

IDS = ["id", "gz-air-000001", "gz-water-level-17"]
WORDS = ["what", "a short text", "one that says very much more than all others do here"]


def test_a_table_takes_the_room_that_it_needs() -> None:
    """With room for all, each column is as wide as its widest cell."""
    assert fit_widths([IDS, WORDS], 80) == [17, 52]


def test_a_narrow_terminal_wraps_between_words() -> None:
    """The column of words gives way, ids stay whole."""
    assert fit_widths([IDS, WORDS], 45) == [17, 26]


def test_where_no_width_fits_rows_become_blocks() -> None:
    """No id is broken: `key  value` lines instead, without what is empty."""
    assert fit_widths([IDS, IDS, IDS], 40) is None
    lines = blocks(["id", "note", "more"], [["gz-water-level-17", WORDS[2], ""], ["b", "", "x"]], 40)
    assert lines == [
        "id    gz-water-level-17",
        "note  one that says very much more than",
        "      all others do here",
        "",
        "id    b",
        "more  x",
    ]


def test_a_few_rows_of_many_numbers_are_turned() -> None:
    """Each becomes a column, where that fits."""
    columns = [["node", "4401", "4403"], ["messages", "2,250", "31"], ["late readings", "", "7"]]
    assert transposed(columns, 30) == [
        "node           4401   4403",
        "messages       2,250  31",
        "late readings         7",
    ]
    assert transposed(columns, 25) == []


def test_chinese_may_be_broken_anywhere() -> None:
    """It has no blanks between words; its letters are two wide."""
    assert fit_widths([["id", "a-1"], ["标题", "广州市天河区空气质量自动监测站"]], 20) == [3, 15]


def test_a_pipe_gets_a_line_for_each_row() -> None:
    """Tabs between cells, no commas in numbers, no line break in a cell."""
    rows: list[dict[str, Any]] = [
        {"id": "a", "n": 12_345, "on": True, "list": ["x", "y"], "text": "one\ntwo"},
        {"id": "b", "n": None},
    ]
    lines = tab_separated(rows, ("id", "n", "on", "list", "text"))
    assert lines == ["id\tn\ton\tlist\ttext\n", "a\t12345\tyes\tx, y\tone two\n", "b\t\t\t\t\n"]


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1_000, "1,000 files")])
def test_one_is_not_many(number: int, text: str) -> None:
    """A number and its word."""
    assert count(number, "file") == text


def test_other_plurals() -> None:
    """Where an s is not enough."""
    assert count(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", 5_400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("1.5h", 5_400), ("60s", 60), ("2", 2)],
)
def test_spans_are_read(text: str, expected: float) -> None:
    """A number and a unit; a bare one is seconds."""
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["h", "1y", "-1h", "1h30", "", "１h", "1e3s"])
def test_what_is_no_span(text: str) -> None:
    """It is refused with examples."""
    with pytest.raises(typer.BadParameter, match="30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "1h", "2w", "2026-01-01", "2026-01-01T00:00:00+08:00", "1767225600"])
def test_times_are_taken(text: str) -> None:
    """How far back, ISO 8601, or the epoch: they go to the gateway as they are."""
    assert parse_time(text) == text


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1y"])
def test_what_is_no_time(text: str) -> None:
    """It is refused before anything is asked."""
    with pytest.raises(typer.BadParameter, match="2026-01-01"):
        parse_time(text)
