"""Units: conversions are exact, reversible, and refuse another dimension."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import ConfigError
from sensegate.quantities import ucum
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import ALIASES, TABLE, UnitError, conversion, dimension, of_spelling, propose, ucum_code

FAMILIES: dict[str, list[str]] = {}
for code, unit in TABLE.items():
    FAMILIES.setdefault(unit.dimension, []).append(code)

PAIRS = st.sampled_from(sorted(FAMILIES)).flatmap(
    lambda name: st.tuples(st.sampled_from(FAMILIES[name]), st.sampled_from(FAMILIES[name]))
)
VALUES = st.floats(-1e9, 1e9)

NOT_IN_PINT = {"[in_i'Hg]", "[pH]", "dB/m", "'", "''", "[cft_i]", "G", "mG", "dB[SPL]", "B[SPL]"}
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
    """A unit outside the table is evaluated in fractions, without noise."""
    factor, offset = conversion(source, target)
    assert factor == pytest.approx(scale, rel=1e-12)
    assert offset == 0


def test_an_offset_unit_outside_the_table() -> None:
    """Degrees Réaumur have an offset too."""
    scale, offset = conversion("[degRe]", "Cel")
    assert 80 * scale + offset == pytest.approx(100.0, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "target", "near"),
    [
        ("ug/mm3m", "mg/m3", "'ug/m3'"),
        ("kWhh", "kW.h", "'kW.h'"),
        ("furlongs", "m", "m, km"),
        ("{", "m", "m, km"),
        ("/", "m", "m, km"),
        ("degF", "Cel", "'[degF]'"),
        ("Fahrenheit", "Cel", "'[degF]'"),
        ("kelvin", "Cel", "'K'"),
        ("knots", "m/s", "'[kn_i]'"),
        ("torr", "hPa", "'mm[Hg]'"),
        ("percent", "%", "'%'"),
        ("inch", "mm", "'[in_i]'"),
        ("inches", "mm", "'[in_i]'"),
        ("MPH", "m/s", "'[mi_i]/h'"),
        ("miles per hour", "km/h", "'[mi_i]/h'"),
        ("µmol/m2/sec", "umol/m2/s", "'umol/m2/s'"),
        ("hpa", "kPa", "'hPa'"),
        ("foo", "Cel", "Cel, K, [degF]"),
    ],
)
def test_an_unknown_unit_is_named_with_the_nearest_of_its_dimension(unit: str, target: str, near: str) -> None:
    """An unknown unit is a configuration error that says what to write, and nothing that the property cannot have."""
    with pytest.raises(ConfigError, match="unknown") as caught:
        conversion(unit, target)
    assert near in str(caught.value)


@pytest.mark.parametrize("target", ["Cel", "m/s", "hPa", "mm", "%", "kW.h", "V", "deg", "mg/m3", "lx", "s"])
@pytest.mark.parametrize(
    "unit", ["degF", "knots", "torr", "percent", "inch", "mph.", "kelvin", "volt", "sekunden", "Lux/"]
)
def test_a_proposal_has_the_dimension_of_the_property(unit: str, target: str) -> None:
    """Whatever the spelling is near to."""
    proposed = propose(unit, target)
    assert not proposed or dimension(proposed) == dimension(target)


@pytest.mark.parametrize(
    ("unit", "target", "remedy"), [("F", "Cel", "'[degF]'"), ("kt", "m/s", "'[kn_i]'"), ("deg", "Cel", "e.g. Cel, K")]
)
def test_a_unit_of_another_dimension_is_told_what_was_meant(unit: str, target: str, remedy: str) -> None:
    """A farad is no degree, a kilotonne no knot."""
    with pytest.raises(ConfigError, match="cannot be converted") as caught:
        conversion(unit, target)
    assert remedy in str(caught.value)


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
    assert ucum_code(spelling) == code


def test_every_alias_leads_into_the_table() -> None:
    """No alias is a dead end."""
    assert {spelling: ucum_code(spelling) for spelling in ALIASES if ucum_code(spelling) not in TABLE} == {}


def test_every_property_has_a_unit_of_the_table() -> None:
    """Loading the standard properties never needs pint."""
    assert {row.unit for row in PROPERTIES.rows if row.unit} <= set(TABLE)


SPECIAL = {
    "Cel", "[degF]", "[degRe]", "[p'diop]", "%[slope]", "[pH]", "Np", "B", "B[SPL]", "B[V]", "B[mV]", "B[uV]",
    "B[10.nV]", "B[W]", "B[kW]", "[m/s2/Hz^(1/2)]", "bit_s",
}  # fmt: skip
PINT_DIFFERS = {
    "'", "''", "G", "Mx", "Oe", "[Btu]", "[Cal]", "[LPF]", "[PRU]", "[acr_br]", "[cft_i]", "[ch_br]", "[cicero]",
    "[cyd_i]", "[didot]", "[ft_br]", "[fth_br]", "[in_br]", "[in_i'H2O]", "[in_i'Hg]", "[kn_br]", "[lk_br]", "[mi_br]",
    "[nmi_br]", "[pc_br]", "[rd_br]", "[wood'U]", "[yd_br]", "cal_[15]", "g%", "m[Hg]",
}  # fmt: skip
"""Units to which ucumvert and pint give another size than UCUM's own table does."""


@pytest.mark.parametrize(
    ("source", "target", "scale"),
    [
        ("'", "deg", 1 / 60),
        ("''", "'", 1 / 60),
        ("G", "uT", 100.0),
        ("Mx", "nWb", 10.0),
        ("[Cal]", "kJ", 4.184),
        ("[Btu]", "kJ", 1.05435),
        ("[cft_i]", "L", 28.316846592),
        ("[cyd_i]", "[cft_i]", 27.0),
        ("g%", "g/L", 10.0),
        ("[ft_br]", "[in_br]", 12.0),
        ("[mi_br]", "[ft_br]", 5280.0),
        ("[acr_br]", "[yd_br]2", 4840.0),
    ],
)
def test_units_that_pint_gets_wrong(source: str, target: str, scale: float) -> None:
    """Where pint differs from UCUM, UCUM's definition holds (values from its table, by hand)."""
    assert conversion(source, target)[0] == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("code", sorted(set(ucum.atoms()) - SPECIAL - PINT_DIFFERS))
def test_every_unit_of_ucum_has_the_size_that_pint_gives_it(code: str) -> None:
    """Units but the special ones against an independent implementation; homeopathic ones are refused."""
    if code.startswith(("[hp", "[kp_")):
        with pytest.raises(UnitError, match="homeopathic"):
            conversion(code, "1")
        return
    amount = ucum.evaluate(code)
    if any(base.startswith("[") for base, _ in amount.dimensions):  # pint takes arbitrary units for numbers
        assert amount.dimensions == ((code, 1),)
        return
    registry = _registry()
    whole = registry.from_ucum(code)
    size = float(amount.scale)
    for base, many in amount.dimensions:  # pint counts in kilogrammes, moles and so on
        size *= float(registry.from_ucum(base).to_base_units().magnitude) ** many
    assert whole.to_base_units().magnitude == pytest.approx(size, rel=2e-6)


PREFIXES = ["Y", "Z", "E", "P", "T", "G", "M", "k", "h", "da", "d", "c", "m", "u", "n", "p", "f", "a", "z", "y"]
METRIC = ["m", "g", "L", "Pa", "J", "W", "V", "A", "Hz", "bar", "mol", "S", "T", "Bq", "lx", "Cel", "B", "eV", "ar"]


@pytest.mark.parametrize("unit", METRIC)
def test_every_prefix_counts(unit: str) -> None:
    """A prefix of a metric unit multiplies it, whatever other reading the letters allow (cd, Pa, min, dar)."""
    sizes = [ucum.evaluate(prefix + unit).scale / ucum.evaluate(unit).scale for prefix in PREFIXES]
    powers = [24, 21, 18, 15, 12, 9, 6, 3, 2, 1, -1, -2, -3, -6, -9, -12, -15, -18, -21, -24]
    assert sizes == [Fraction(10) ** power for power in powers]


def test_the_examples_of_ucum_are_understood() -> None:
    """The 848 codes of the official list of examples, all but one that is no code of UCUM 2.2."""
    import ucumvert

    lines = (Path(ucumvert.__file__).parent / "vendor" / "ucum_examples.tsv").read_text(encoding="utf-8").splitlines()
    codes = [line.split("\t")[1] for line in lines[1:] if line.count("\t")]
    assert len(codes) > 800
    wrong = set()
    for code in codes:
        try:
            dimension(code)
        except UnitError:
            wrong.add(code)
    assert wrong == {"Torr"}


@pytest.mark.parametrize("code", sorted(TABLE))
def test_the_table_is_exactly_ucum(code: str) -> None:
    """Where UCUM knows a unit of the table, its size and zero within the family are the same fractions."""
    try:
        amount = ucum.evaluate(code)
    except ucum.UcumError:
        assert code == "[NTU]"
        return
    unit = TABLE[code]
    other = next(
        name for name in FAMILIES[unit.dimension] if name not in {"[NTU]", code, "dB[SPL]", "B[SPL]"} or name == code
    )
    base = ucum.evaluate(other)
    assert amount.dimensions == base.dimensions, (code, other)
    ratio, wanted = amount.scale / base.scale, unit.scale / TABLE[other].scale
    if unit.dimension == "angle":  # pi has many digits
        assert float(ratio) == pytest.approx(float(wanted), rel=1e-15)
    elif "Hg" in code:  # UCUM gives mercury seven digits, the table the conventional ten
        assert float(ratio) == pytest.approx(float(wanted), rel=3e-6)
    else:
        assert ratio == wanted
    assert (amount.offset - base.offset) / base.scale == (unit.offset - TABLE[other].offset) / TABLE[other].scale


@pytest.mark.parametrize(
    ("source", "target", "value", "wanted"),
    [
        ("mCel", "Cel", 21_500.0, 21.5),
        ("dCel", "[degF]", 215.0, 70.7),
        ("cCel", "K", 2150.0, 294.65),
        ("[degRe]", "Cel", 80.0, 100.0),
        ("Cel/min", "K/min", 12.0, 12.0),
        ("[degF]/h", "K/min", 108.0, 1.0),
        ("℃/min", "K/s", 60.0, 1.0),
        ("dB[mV]", "dB[V]", 60.0, 0.0),
        ("dB[uV]", "dB[mV]", 66.0, 6.0),
        ("B[10.nV]", "B[uV]", 4.0, 0.0),
        ("dB[kW]", "dB[W]", 3.0, 33.0),
        ("cB", "dB", 650.0, 65.0),
        ("10*3/uL", "/L", 1.0, 1e9),
        ("GW.h", "kW.h", 1.0, 1e6),
        ("m3/(h.m2)", "m/s", 3600.0, 1.0),
        ("deg/s", "rad/s", 180.0, 3.141592653589793),
        ("m/s^2", "m/s2", 1.0, 1.0),
        ("W·m⁻²", "W/m2", 1.0, 1.0),
        ("度", "deg", 90.0, 90.0),
        ("度", "Cel", 21.5, 21.5),
        ("度", "kW.h", 3.0, 3.0),
        ("兆瓦時", "kW.h", 1.0, 1000.0),
        ("轉/分鐘", "/min", 1.0, 1.0),
        ("{count}/{hour}", "1", 1.0, 1.0),
    ],
)
def test_special_units_and_spellings(source: str, target: str, value: float, wanted: float) -> None:
    """Degrees and levels with prefixes, differences of temperature, caret, superscripts, words with two meanings."""
    scale, offset = conversion(source, target)
    assert value * scale + offset == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("B[V]", "V"),
        ("dB[W]", "W"),
        ("dB[mV]", "dB"),
        ("Np", "dB"),
        ("Np", "1"),
        ("%[slope]", "deg"),
        ("%[slope]", "%"),
        ("bit_s", "bit"),
        ("[CFU]", "1"),
        ("[CFU]/mL", "/mL"),
        ("[iU]", "[arb'U]"),
        ("mol", "1"),
        ("mol/L", "[pH]"),
        ("rad/s", "Hz"),
        ("N.m", "J"),
        ("V.A.h", "N.m"),
        ("K", "K/min"),
    ],
)
def test_a_logarithm_is_no_linear_map(source: str, target: str) -> None:
    """Levels, slopes, potencies and arbitrary units never turn into plain numbers or each other's reference."""
    with pytest.raises(UnitError):
        conversion(source, target)


def test_common_units_do_not_load_pint() -> None:
    """A process whose profiles use common units does not pay the second that pint takes to load."""
    text = "from sensegate.quantities.units import conversion; conversion('℃', 'Cel'); "
    text = f"import sys; {text}print({{'pint', 'lark'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


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


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("KWH", "kW.h"), ("kwh", "kW.h"), ("Lux", "lx"), ("Klux", "klx"), ("PPM", "[ppm]"), ("Deg C", "Cel"),
        ("˚F", "[degF]"), ("ºC", "Cel"), ("RPM", "/min"), ("KW", "kW"), ("VAC", ""), ("x", ""), ("F", ""), ("0.1s", ""),
        ("minutes", "min"), ("KM", "km"), ("PSI", "[psi]"), ("Mw", ""), ("hz", "Hz"),
        ("Millivolts", "mV"), ("Litres per minute", "L/min"),
    ],
)  # fmt: skip
def test_careless_spellings_are_read_where_they_can_be_one_unit_only(written: str, code: str) -> None:
    """`Mw` may be mW or MW: nothing is guessed where two units differ by their capitals."""
    assert of_spelling(written) == code


@pytest.mark.parametrize(
    ("written", "target", "code"),
    [
        ("oz", "kg", "[oz_av]"), ("FNU", "[NTU]", "[NTU]"), ("Bar", "kPa", "bar"), ("mH2O", "kPa", "m[H2O]"),
        ("gal/min", "L/s", "[gal_us]/min"), ("mg/Nm3", "mg/m3", "mg/m3"), ("Nm3/h", "m3/h", "m3/h"),
        ("psig", "kPa", "[psi]"), ("cfm", "m3/h", "[cft_i]/min"), ("inHg", "hPa", "[in_i'Hg]"),
        ("立方米每小时", "m3/h", "m3/h"), ("L/hr", "L/h", "L/h"), ("hectopascals", "hPa", "hPa"),
        ("millimetre", "mm", "mm"), ("metres per second", "m/s", "m/s"), ("watt-hours", "kW.h", "W.h"),
        ("millivolts", "V", "mV"), ("mv", "V", "mV"), ("nmi", "m", "[nmi_i]"), ("mils", "mm", "[mil_i]"),
        ("cubic metres per hour", "m3/h", "m3/h"), ("Micrograms per Cubic Meter", "ug/m3", "ug/m3"),
        ("litres/minute", "m3/h", "L/min"), ("kilowatt hours", "kW.h", "kW.h"),
    ],
)  # fmt: skip
def test_more_spellings_have_a_proposal(written: str, target: str, code: str) -> None:
    """The proposal is a code that converts to the property's unit."""
    with pytest.raises(ConfigError) as caught:
        conversion(written, target)
    assert f"'{code}'" in str(caught.value)
    assert conversion(code, target)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("milivolt", "mV"),
        ("mVolt", "mV"),
        ("kilowat", "kW"),
        ("knots", "[kn_i]"),
        ("gpm", "[gal_us]/min"),
        ("kelvin", "K"),
        ("mg/Nm3", "mg/m3"),
        ("zz", ""),
    ],
)
def test_a_unit_is_proposed_where_no_property_is_known(written: str, code: str) -> None:
    """Whatever its dimension; it is not taken for a fraction."""
    assert propose(written) == code
