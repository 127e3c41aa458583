"""The property table: complete, readable, and refused when it is wrong."""

from __future__ import annotations

import re

import pytest

from sensegate.errors import ConfigError
from sensegate.quantities.properties import CODES, COLUMNS, PROPERTIES, Property, ValueKind, parse, parse_codes
from sensegate.quantities.units import TABLE, ucum_code

HEAD = ",".join(COLUMNS)


DOMAINS = {
    "weather", "air", "radiation", "noise", "water", "hydrology", "soil", "fire", "gas", "power", "energy", "lighting",
    "parking", "traffic", "people", "waste", "manhole", "structure", "lift", "building", "industry", "place", "device",
    "video",
}  # fmt: skip
NUMBERS = [row for row in PROPERTIES.rows if row.kind is ValueKind.NUMBER]


def test_the_table_is_large_enough() -> None:
    """At least 300 properties in at least 14 domains; none of the domains is a mere name."""
    assert len(PROPERTIES) >= 300
    count = {domain: sum(row.domain == domain for row in PROPERTIES.rows) for domain in DOMAINS}
    assert {row.domain for row in PROPERTIES.rows} == DOMAINS
    assert len(DOMAINS) >= 14
    assert {domain: many for domain, many in count.items() if many < 8} == {}


def test_no_label_is_left_untranslated() -> None:
    """A Chinese label holds Chinese, or is an abbreviation that Chinese texts use as it is."""
    abbreviations = {row.name for row in PROPERTIES.rows if row.label_zh.isascii()}
    assert abbreviations == set()


@pytest.mark.parametrize("row", NUMBERS, ids=[row.name for row in NUMBERS])
def test_numbers_are_sane(row: Property) -> None:
    """Unit canonical and of the table; step and resolution within the range; 0 is possible where a share is meant."""
    span = row.high - row.low
    assert ucum_code(row.unit) == row.unit
    assert row.unit in TABLE
    assert span < float("inf")
    assert 0 < row.resolution <= span / 3, "a resolution that tells values apart"
    assert row.step == float("inf") or row.resolution <= row.step < span, "a step that can be passed, and is no noise"
    assert row.usual_low == 0 or row.low <= row.usual_low
    assert row.usual_high == float("inf") or row.usual_high <= row.high
    if row.unit == "%" and row.low == 0 and row.name != "stack_gas_oxygen":
        assert row.high >= 100
    if TABLE[row.unit].dimension == "temperature" and row.name != "temperature_difference":
        absolute = {"K": 0.0, "Cel": -273.15}[row.unit]
        assert row.low >= absolute, "nothing is colder than absolute zero"
    if TABLE[row.unit].dimension == "angle":
        assert span <= 720
    if row.counter:
        assert row.low == 0
        assert row.high >= 1e6, "a counter has room to count"


def test_sizes_that_cannot_be_negative_are_not() -> None:
    """Concentrations, lengths of time, counts and illuminances begin at 0."""
    never = {"mass concentration", "time", "illuminance", "frequency", "storage", "dose rate", "number density"}
    wrong = [
        row.name
        for row in NUMBERS
        if TABLE[row.unit].dimension in never and row.low < 0 and row.name not in {"time_error", "rotational_speed"}
    ]
    assert wrong == []


def test_strings_and_booleans_have_no_numbers() -> None:
    """What is no number has no range, step, resolution or usual band."""
    plain = Property("a", ValueKind.STRING, "", "d", "z", "e")
    for row in PROPERTIES.rows:
        if row.kind is not ValueKind.NUMBER:
            bare = (row.low, row.high, row.step, row.stuck_h, row.resolution, row.counter, row.usual_low)
            assert bare == (
                plain.low, plain.high, plain.step, plain.stuck_h, plain.resolution, plain.counter, plain.usual_low,
            ), row.name  # fmt: skip


def test_code_tables_are_used_and_complete() -> None:
    """Each table of codes belongs to a property; each code is a plain word with labels in both languages."""
    used = {row.codes for row in PROPERTIES.rows if row.codes}
    assert used == set(CODES)
    for name, table in CODES.items():
        assert len(table) >= 3, name
        labels = [code.label_zh for code in table.values()]
        assert len(set(labels)) == len(labels), name
        for code in table.values():
            assert re.fullmatch(r"[A-Za-z0-9_]+", code.code), code
            assert code.label_en.isascii(), code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "the columns are wrong"),
        ("table,code,label_zh,label_en\nt,x,,e\n", "empty"),
        ("table,code,label_zh,label_en\nt,x,z,e\nt,x,z,e\n", "twice"),
    ],
)
def test_a_wrong_table_of_codes_is_refused(text: str, message: str) -> None:
    """The error names file, line and what is wrong."""
    with pytest.raises(ConfigError, match=message):
        parse_codes(text)


@pytest.mark.parametrize(
    ("name", "value", "factor"),
    [
        ("pm2_5", 35.0, 1.0),
        ("pm2_5", 0.035, 1000.0),
        ("pm2_5", 35_000.0, 0.001),
        ("pm2_5", 0.0, 1.0),
        ("pm2_5", 1e-9, 1.0),
        ("co", 0.8, 1.0),
        ("co", 800.0, 0.001),
        ("battery_voltage", 3600.0, 0.001),
        ("battery_voltage", 0.0036, 1000.0),
        ("radiation_dose_rate", 100.0, 1.0),
        ("radiation_dose_rate", 0.0001, 1000.0),
        ("air_temperature", 0.02, 1.0),
    ],
)
def test_a_value_a_thousand_off_is_told(name: str, value: float, factor: float) -> None:
    """Only a value that would be usual in the neighbouring unit is taken for one in the wrong unit."""
    assert PROPERTIES.by_name(name).unit_error_factor(value) == factor


def test_every_row_is_complete() -> None:
    """Each property has a snake-case name, a domain, and labels in Chinese and English."""
    for row in PROPERTIES.rows:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name), row
        assert row.domain
        assert re.search(r"[\u4e00-\u9fff]", row.label_zh) or row.label_zh.isascii(), row
        assert row.label_en.isascii(), row
        if row.kind is ValueKind.NUMBER:
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
    ("row", "message"),
    [
        ("a,number,,d,z,e,,,,,,", "only a number has a unit"),
        ("a,boolean,m,d,z,e,,,,,,", "only a number has a unit"),
        ("a,number,m,d,z,e,5,1,,,,", "low < high"),
        ("a,number,m,d,z,e,0,1,0,,,", "step > 0"),
        ("a,colour,m,d,z,e,,,,,,", "Invalid enum"),
        ("a,number,m,d,z,e,x,,,,,", "float"),
        ("a,number,m,,z,e,,,,,,", "domain"),
        ("a,boolean,,d,z,e,,,,,,\na,boolean,,d,z,e,,,,,,", "twice"),
        ("a,number,m,d,z,e,0,9,,,,,5,1", "usual_low"),
        ("a,string,,d,z,e,,,,,,,,,nosuch", "codes"),
        ("a,number,m,d,z,e,0,9,,,,,,,compass_16", "codes need a string"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(row: str, message: str) -> None:
    """A wrong table does not load; the error names file, line and what is wrong."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse(f"{HEAD}\n{row}\n", file="p.csv")
    assert caught.value.line == 1 + len(row.splitlines())
    assert str(caught.value).startswith(f"p.csv:{caught.value.line}")


def test_wrong_columns_are_refused() -> None:
    """A table of another shape is not guessed at."""
    with pytest.raises(ConfigError, match="the columns are wrong"):
        parse("name,unit\n")
