"""The property table: complete, readable, and refused when it is wrong."""

from __future__ import annotations

import re

import pytest

from sensegate.errors import ConfigError
from sensegate.properties import COLUMNS, PROPERTIES, Kind, parse

HEAD = ",".join(COLUMNS)


def test_the_table_is_large_enough() -> None:
    """At least 120 properties, as the issue asks."""
    assert len(PROPERTIES) >= 120


def test_every_row_is_complete() -> None:
    """Each property has a snake-case name, a domain, and labels in Chinese and English."""
    for row in PROPERTIES.rows:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name), row
        assert row.domain
        assert re.search(r"[\u4e00-\u9fff]", row.label_zh) or row.label_zh.isascii(), row
        assert row.label_en.isascii(), row
        if row.kind is Kind.NUMBER:
            assert row.low < row.high < float("inf"), f"{row.name} has physical limits"


def test_labels_are_not_used_twice() -> None:
    """Two properties of one label could not be told apart by people."""
    for language in ("label_zh", "label_en"):
        labels = [getattr(row, language) for row in PROPERTIES.rows]
        assert [label for label in set(labels) if labels.count(label) > 1] == []


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("air_temperature", "Cel"),
        ("relative_humidity", "%"),
        ("pm2_5", "ug/m3"),
        ("water_level", "m"),
        ("sound_level", "dB"),
        ("battery_level", "%"),
        ("link_quality", "1"),
        ("online", ""),
        ("co2", "[ppm]"),
        ("energy", "kW.h"),
    ],
)
def test_names_that_profiles_rely_on(name: str, unit: str) -> None:
    """Names are a contract with profiles and subscribers: they do not change."""
    assert PROPERTIES.by_name(name).unit == unit
    assert PROPERTIES[PROPERTIES.index(name)].name == name
    assert name in PROPERTIES


def test_columns_follow_the_rows() -> None:
    """Element i of each column belongs to row i."""
    for index, row in enumerate(PROPERTIES.rows):
        assert PROPERTIES.find(row.name) == index
        assert (PROPERTIES.low[index], PROPERTIES.high[index]) == (row.low, row.high)
        assert (PROPERTIES.step[index], PROPERTIES.stuck_h[index]) == (row.step, row.stuck_h)
        assert bool(PROPERTIES.counter[index]) == row.counter


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A misspelt property names the right one; `find` says -1."""
    with pytest.raises(ConfigError, match="air_temperature"):
        PROPERTIES.index("air_temprature")
    with pytest.raises(ConfigError, match=r"properties\.csv"):
        PROPERTIES.by_name("zzzzzzz")
    assert PROPERTIES.find("zzzzzzz") == -1
    assert PROPERTIES.nearest("zzzzzzz") == ""


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a,number,,d,z,e,,,,,,", "needs a unit"),
        ("a,boolean,m,d,z,e,,,,,,", "others have none"),
        ("a,number,m,d,z,e,5,1,,,,", "low < high"),
        ("a,number,m,d,z,e,0,1,0,,,", "step > 0"),
        ("a,colour,m,d,z,e,,,,,,", "Invalid enum"),
        ("a,number,m,d,z,e,x,,,,,", "float"),
        ("a,number,m,,z,e,,,,,,", "domain"),
        ("a,boolean,,d,z,e,,,,,,\na,boolean,,d,z,e,,,,,,", "twice"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(row: str, what: str) -> None:
    """A wrong table does not load; the error names file, line and what is wrong."""
    with pytest.raises(ConfigError, match=what) as caught:
        parse(f"{HEAD}\n{row}\n", file="p.csv")
    assert caught.value.line == 1 + len(row.splitlines())
    assert str(caught.value).startswith(f"p.csv:{caught.value.line}")


def test_wrong_columns_are_refused() -> None:
    """A table of another shape is not guessed at."""
    with pytest.raises(ConfigError, match="wrong columns"):
        parse("name,unit\n")
