"""The table of divisions and the arithmetic of codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.divisions import DivisionLevel, Divisions, contains, short_code
from sensegate.errors import ConfigError, NotFound

TABLE = Divisions.load()
CODES = sorted(row.code for row in TABLE)


def test_the_table_is_whole() -> None:
    """One province, 21 cities, 122 counties, 1,757 towns; each parent exists and contains its children."""
    levels = [row.level for row in TABLE]
    assert len(TABLE) == 1901
    assert [levels.count(level) for level in DivisionLevel] == [1, 21, 122, 1757]
    for row in TABLE:
        if row.parent:
            assert row.code.startswith(row.parent)
            assert row.parent in TABLE


def test_names_are_in_both_languages_down_to_the_county() -> None:
    """Above the town each division has a Chinese and a pinyin name; Fogang is not read as Fugang."""
    assert all(row.name_zh and row.as_of for row in TABLE)
    assert all(row.name_en for row in TABLE if row.level is not DivisionLevel.TOWNSHIP)
    assert TABLE.get("440106").name_en == "Tianhe District"
    assert TABLE.get("441821").name_en == "Fogang County"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("440000", "44"),
        ("440100", "4401"),
        ("4401", "4401"),
        ("440106", "440106"),
        ("440106000000", "440106"),
        ("441900", "4419"),
        ("441900003", "441900003"),
        ("441900003000", "441900003"),
        ("440103001002", "440103001002"),
    ],
)
def test_short_form(code: str, expected: str) -> None:
    """Zeros that mean 'nothing below' are cut, those inside a code are not."""
    assert short_code(code) == expected


@pytest.mark.parametrize("code", ["", "4", "440", "44010", "4401ab", "４４０１", "4401060", "../44", "44 1"])
def test_what_is_no_code_is_refused(code: str) -> None:
    """Only 2, 4, 6, 9 or 12 ASCII digits are a code, and the error says so."""
    with pytest.raises(ConfigError, match="not a division code"):
        short_code(code)


def test_dongguan_and_zhongshan_have_towns_in_the_place_of_counties() -> None:
    """A rule that cuts a town's code to six digits would find the city there."""
    assert contains("4419", "441900003")
    assert not contains("441900003", "4419")
    assert len(TABLE.children("4419")) == 36
    assert len(TABLE.children("4420")) == 23


def test_city_of_the_levels() -> None:
    """A reading is filed under its city; that of the province under the province's own code."""
    codes = ("440106001", "440100", "44", "442000001123")
    assert [TABLE.city_of(code) for code in codes] == ["4401", "4401", "44", "4420"]


@given(st.sampled_from(CODES), st.sampled_from(CODES))
def test_contains_agrees_with_the_parents(scope: str, code: str) -> None:
    """'Begins with' is the same as walking up the parents."""
    chain, at = {code}, code
    while parent := TABLE.get(at).parent:
        chain.add(parent)
        at = parent
    assert contains(scope, code) == (scope in chain)


@given(st.sampled_from(CODES))
def test_short_is_stable(code: str) -> None:
    """The short form of a short form, and of the published form, is itself."""
    assert short_code(code) == code
    assert short_code(TABLE.get(code).full) == code


def test_a_code_of_the_past_is_kept_with_a_warning() -> None:
    """Divisions change: 440116 (merged in 2014) is accepted and said so; a foreign city is refused with the nearest."""
    assert TABLE.check("440106") == ("440106", "")
    assert TABLE.check("440103001002") == ("440103001002", "")
    place, warning = TABLE.check("440116")
    assert place == "440116"
    assert "another year" in warning
    with pytest.raises(ConfigError, match="nearest city"):
        TABLE.check("4410")
    with pytest.raises(NotFound, match="nearest is"):
        TABLE.get("440107")
