"""Tables of text: RFC 4180, other delimiters, fixed width, and what is refused."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats.csv import CsvPart
from sensegate.errors import ProfileError, Rejected
from tests.decode.formats.compiled import parse_with

GOOD: list[tuple[CsvPart, str, list[dict[str, str | None]]]] = [
    (CsvPart(), "a,b\r\n1,2\r\n3,4\r\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
    (CsvPart(), "a,b\n1,2", [{"a": "1", "b": "2"}]),
    (CsvPart(), 'a,b\n"x, ""y""\r\nz",2\n', [{"a": 'x, "y"\nz', "b": "2"}]),
    (CsvPart(), "a, b\n1 ,\n,2\n\n", [{"a": "1", "b": None}, {"a": None, "b": "2"}]),
    (CsvPart(), "a,,b\n1,2,3\n", [{"a": "1", "b": "3"}]),
    (CsvPart(), "a,b\n", []),
    (CsvPart(columns=("a", "", "b")), "1,2,3", [{"a": "1", "b": "3"}]),
    (CsvPart(delimiter=";", decimal=","), "t;p;s\n21,5;-1013,;a,b\n1,5e3;,5;1.5\n",
     [{"t": "21.5", "p": "-1013.", "s": "a,b"}, {"t": "1.5e3", "p": ".5", "s": "1.5"}]),
    (CsvPart(delimiter="\t", quote=""), 'a\tb\n"1\t2"\n', [{"a": '"1', "b": '2"'}]),
    (CsvPart(delimiter=" ", columns=("a", "b")), " 1 \t 2\n3 4  \n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
    (CsvPart(missing=("NA", "-9999", "--")), "a,b,c\nNA,-9999,-- \n", [{"a": None, "b": None, "c": None}]),
    (CsvPart(comment="#", skip=1), "station 7\n# made\na,b\n# more\n1,2\n", [{"a": "1", "b": "2"}]),
    (CsvPart(skip=1, skip_after=2), '"TOA5","CR1000"\n"T","R"\n"TS","RN"\n"",""\n"x",2\n', [{"T": "x", "R": "2"}]),
    (CsvPart(short_rows=True), "a,b,c\n1\n1,2\n", [{"a": "1"}, {"a": "1", "b": "2"}]),
    (CsvPart(columns=("s", "m", "v"), widths=(3, 2, 5), gap=1), "101  5  12.5\n102 12-9999\n".replace("12-", "12 -"),
     [{"s": "101", "m": "5", "v": "12.5"}, {"s": "102", "m": "12", "v": "-9999"}]),
    (CsvPart(columns=("s", "", "v"), widths=(2, 1, 2)), "ab1cd\r\n\r\nef2  \n",
     [{"s": "ab", "v": "cd"}, {"s": "ef", "v": None}]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text", "rows"), GOOD)
def test_a_table_becomes_rows(options: CsvPart, text: str, rows: list[dict[str, str | None]]) -> None:
    """Header or columns, delimiters, quotes, marks for what is missing, comments, units, widths."""
    assert parse_with("csv", options)(text.encode()) == rows


def test_text_of_another_character_set() -> None:
    """The character set is the rule's; a byte order mark is refused unless it is said to be there."""
    table = "站点,温度\n广州,21\n"
    assert parse_with("csv", charset="gbk")(table.encode("gbk")) == [{"站点": "广州", "温度": "21"}]
    assert parse_with("csv", charset="utf-8-sig")(b"\xef\xbb\xbfa\n1") == [{"a": "1"}]
    with pytest.raises(Rejected, match="not_utf8"):
        parse_with("csv")(table.encode("gbk"))
    with pytest.raises(Rejected, match=r"malformed: starts with a byte order mark \(charset: utf-8-sig\)"):
        parse_with("csv")(b"\xef\xbb\xbfa\n1")


@pytest.mark.parametrize(
    ("options", "text", "why"),
    [
        (CsvPart(), "", "malformed: the table is empty"),
        (CsvPart(skip=3), "a\n1\n", "malformed: the table is empty"),
        (CsvPart(), "a,a\n1,2\n", "malformed: two columns"),
        (CsvPart(), "a,b\n1,2\n3\n", "schema: row 2 has 1 fields; there are 2 columns"),
        (CsvPart(), "a,b\n1,2,3\n", "schema: row 1 has 3 fields"),
        (CsvPart(short_rows=True), "a,b\n1,2,3\n", "schema: row 1 has 3 fields"),
        (CsvPart(), 'a,b\n"1,2\n', "malformed: is not such a table"),
        (CsvPart(), 'a,b\n"1"x,2\n', "malformed: is not such a table"),
        (CsvPart(), "a\n" + "x" * 140_000, "malformed: is not such a table: field larger"),
        (CsvPart(), "a,b\n" + "1,2\n" * 40_000, "schema: more than"),
        (
            CsvPart(columns=("a", "b"), widths=(2, 2)),
            "1234\n123\n",
            "schema: a line has 3 characters; the columns have 4",
        ),
        (CsvPart(columns=("a", "b"), widths=(2, 2)), "12345\n", "schema: a line has 5 characters"),
    ],
)
def test_what_is_no_such_table_is_refused(options: CsvPart, text: str, why: str) -> None:
    """Rows that are cut, quotes that do not end, names that occur twice."""
    with pytest.raises(Rejected, match=why):
        parse_with("csv", options)(text.encode())


@pytest.mark.parametrize(
    "options",
    [
        CsvPart(delimiter=""),
        CsvPart(delimiter="::"),
        CsvPart(delimiter="\n"),
        CsvPart(quote="''"),
        CsvPart(quote=","),
        CsvPart(columns=("a", "a")),
        CsvPart(columns=("", "")),
        CsvPart(columns=("a",), skip_after=1),
        CsvPart(widths=(2,)),
        CsvPart(columns=("a", "b"), widths=(2, 0)),
        CsvPart(skip=-1),
    ],
)
def test_a_wrong_option_is_an_error_of_the_profile(options: CsvPart) -> None:
    """What cannot be meant is said when the profile is loaded."""
    with pytest.raises(ProfileError):
        parse_with("csv", options)


fields = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(
    lambda text: text.strip().replace("\r\n", "\n").replace("\r", "\n")
)
tables = st.integers(1, 4).flatmap(
    lambda many: st.tuples(
        st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=many, max_size=many, unique=True),
        st.lists(st.lists(fields, min_size=many, max_size=many), max_size=4),
    )
)


@given(tables, st.sampled_from(",;\t|"))
def test_round_trip(table: tuple[list[str], list[list[str]]], delimiter: str) -> None:
    """What the library writes comes back, an empty field as null."""
    names, rows = table
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    expected: list[Any] = [dict(zip(names, (field or None for field in row), strict=True)) for row in rows]
    assert parse_with("csv", CsvPart(delimiter=delimiter))(text.getvalue().encode()) == expected


@given(st.lists(st.lists(st.integers(-99_999, 999_999), min_size=3, max_size=3), max_size=5), st.integers(0, 2))
def test_round_trip_of_fixed_width(rows: list[list[int]], gap: int) -> None:
    """Numbers written to a width come back."""
    options = CsvPart(columns=("a", "b", "c"), widths=(6, 7, 8), gap=gap)
    text = "\n".join((" " * gap).join(f"{value:{w}}" for value, w in zip(row, (6, 7, 8), strict=True)) for row in rows)
    expected = [dict(zip("abc", map(str, row), strict=True)) for row in rows]
    assert parse_with("csv", options)(text.encode()) == expected
