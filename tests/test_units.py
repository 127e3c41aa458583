"""Units: conversions are exact, reversible, and refuse another dimension."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.errors import ConfigError
from sensegate.properties import PROPERTIES
from sensegate.units import ALIASES, TABLE, UnitError, canonical, conversion, dimension

FAMILIES: dict[str, list[str]] = {}
for code, unit in TABLE.items():
    FAMILIES.setdefault(unit.dimension, []).append(code)

PAIRS = st.sampled_from(sorted(FAMILIES)).flatmap(
    lambda name: st.tuples(st.sampled_from(FAMILIES[name]), st.sampled_from(FAMILIES[name]))
)
VALUES = st.floats(-1e9, 1e9)

NOT_IN_PINT = {"[in_i'Hg]", "[pH]", "dB/m", "'", "''", "[cft_i]", "G", "mG", "dB[SPL]"}
"""Codes that ucumvert or pint do not know, or read as something else than UCUM says."""


@pytest.mark.parametrize(
    ("source", "target", "value", "wanted"),
    [
        ("[degF]", "Cel", 70.7, 21.5),
        ("Cel", "K", -273.15, 0.0),
        ("ng/m3", "ug/m3", 75600.0, 75.6),
        ("mg/m3", "ug/m3", 0.207, 207.0),
        ("kPa", "hPa", 101.325, 1013.25),
        ("W.min", "kW.h", 60_000.0, 1.0),
        ("km/h", "m/s", 36.0, 10.0),
        ("%", "1", 98.0, 0.98),
        ("mS/cm", "uS/cm", 1.5, 1500.0),
        ("L/min", "m3/h", 1000.0, 60.0),
        ("rad", "deg", 3.141592653589793, 180.0),
        ("mV", "V", 2998.0, 2.998),
    ],
)
def test_known_conversions(source: str, target: str, value: float, wanted: float) -> None:
    """Conversions that can be checked by hand come out right to the last digits."""
    scale, offset = conversion(source, target)
    assert value * scale + offset == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@given(PAIRS, VALUES)
def test_there_and_back_is_the_same_value(pair: tuple[str, str], value: float) -> None:
    """Converting to another unit of the dimension and back gives the value again."""
    scale, offset = conversion(*pair)
    back_scale, back_offset = conversion(pair[1], pair[0])
    there = value * scale + offset
    assert there * back_scale + back_offset == pytest.approx(value, rel=1e-9, abs=1e-9 * max(1.0, abs(back_offset)))


@given(PAIRS, st.data())
def test_by_way_of_a_third_unit_is_the_same(pair: tuple[str, str], data: st.DataObject) -> None:
    """Scales compose: a to c is a to b, then b to c."""
    middle = data.draw(st.sampled_from(FAMILIES[TABLE[pair[0]].dimension]))
    direct, first, second = conversion(*pair), conversion(pair[0], middle), conversion(middle, pair[1])
    assert first[0] * second[0] == pytest.approx(direct[0], rel=1e-12)
    assert first[1] * second[0] + second[1] == pytest.approx(direct[1], rel=1e-9, abs=1e-9)


@given(st.sampled_from(sorted(TABLE)), st.sampled_from(sorted(TABLE)))
def test_another_dimension_is_refused_and_named(source: str, target: str) -> None:
    """Between two dimensions there is no conversion; the error names both units and both dimensions."""
    if TABLE[source].dimension == TABLE[target].dimension:
        return
    with pytest.raises(UnitError) as caught:
        conversion(source, target)
    for word in (source, target, TABLE[source].dimension, TABLE[target].dimension):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("source", "target"), [("Cel", "hPa"), ("deg", "%"), ("dB", "1"), ("[pH]", "1"), ("Cel", "deg")]
)
def test_what_pint_would_let_pass_is_refused(source: str, target: str) -> None:
    """Degrees are no pressure; decibels, angles and pH are not plain numbers."""
    with pytest.raises(UnitError):
        conversion(source, target)


@functools.cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@pytest.mark.parametrize("code", sorted(set(TABLE) - NOT_IN_PINT))
def test_the_table_agrees_with_pint(code: str) -> None:
    """Each unit of the table has the size that ucumvert and pint give it."""
    registry = _registry()
    base = next(
        other
        for other in FAMILIES[TABLE[code].dimension]
        if TABLE[other].scale == 1 and TABLE[other].offset == 0 and other not in NOT_IN_PINT
    )
    quantity, unit = registry.from_ucum(code), registry.from_ucum(base)
    size = quantity.__class__(float(quantity.magnitude), quantity.units).to(unit.units).magnitude / unit.magnitude
    assert float(TABLE[code].scale + TABLE[code].offset) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "scale"),
    [
        ("[lbf_av]/[in_i]2", "kPa", 6.8947572931684),
        ("hm", "m", 100.0),
        ("10*9/L", "/mL", 1e6),
        ("10*-6", "[ppm]", 1.0),
        ("mmol/L", "mol/m3", 1.0),
    ],
)
def test_any_ucum_code_is_understood(source: str, target: str, scale: float) -> None:
    """A unit outside the table goes through ucumvert and pint, without the noise of binary fractions."""
    factor, offset = conversion(source, target)
    assert factor == pytest.approx(scale, rel=1e-12)
    assert offset == 0


def test_an_offset_unit_outside_the_table() -> None:
    """Degrees Réaumur have an offset too."""
    scale, offset = conversion("[degRe]", "Cel")
    assert 80 * scale + offset == pytest.approx(100.0, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "near"), [("ug/mm3m", "ug/m3"), ("kWhh", "kWh"), ("furlongs", ""), ("{", ""), ("/", "")]
)
def test_an_unknown_unit_is_named_with_the_nearest(unit: str, near: str) -> None:
    """An unknown unit is a configuration error that says what to write."""
    with pytest.raises(ConfigError, match="unknown") as caught:
        conversion(unit, "m")
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        ("℃", "Cel"),
        ("°C", "Cel"),
        ("µg/m³", "ug/m3"),
        ("μg/m³", "ug/m3"),
        ("微克/立方米", "ug/m3"),
        ("納克/立方米", "ng/m3"),
        ("度", "deg"),
        ("分貝", "dB"),
        ("kWh", "kW.h"),
        ("µS/cm", "uS/cm"),
        ("%RH", "%"),
        ("{vehicle}/h", "/h"),
        ("{count}", "1"),
        ("", "1"),
        (" m ", "m"),
    ],
)
def test_spellings_of_vendors_and_documents(spelling: str, code: str) -> None:
    """What is printed on devices and in Chinese documents is understood."""
    assert canonical(spelling) == code


def test_every_alias_leads_into_the_table() -> None:
    """No alias is a dead end."""
    assert {spelling: canonical(spelling) for spelling in ALIASES if canonical(spelling) not in TABLE} == {}


def test_every_property_has_a_unit_of_the_table() -> None:
    """Loading the standard properties never needs pint."""
    assert {row.unit for row in PROPERTIES.rows if row.unit} <= set(TABLE)


def test_common_units_do_not_load_pint() -> None:
    """A process whose profiles use common units does not pay the second that pint takes to load."""
    text = "import sys; from sensegate.units import conversion; conversion('℃', 'Cel'); print('pint' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever a payload names as its unit, the answer is a dimension or a `UnitError`."""
    with contextlib.suppress(UnitError):
        assert isinstance(dimension(text), str)


@pytest.mark.parametrize("unit", ["10*999999999", "m" * 65, "m99999", "10*9999", "m-9999.s9999"])
def test_a_hostile_unit_costs_nothing(unit: str) -> None:
    """A payload may name its unit: huge exponents and long texts are refused, not computed."""
    with pytest.raises(UnitError):
        conversion(unit, "1")
