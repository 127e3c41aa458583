"""Units: from a unit as a profile or a payload names it to the canonical one, as (scale, offset).

UCUM is the language; the spellings of vendors and of Chinese documents (``℃``, ``µg/m³``, ``微克/立方米``) are
understood as well. Common units stand in a table of exact fractions; any other UCUM code goes through ucumvert and
pint, which are imported only then. Decibels, angles, turbidity and pH are dimensions of their own here, though UCUM
calls them pure numbers: a profile that maps degrees to a percentage does not load.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from fractions import Fraction as F  # noqa: N817 - the table below is read by column
from typing import Any

import msgspec

from sensegate.errors import ConfigError


class UnitError(ConfigError):
    """A unit is unknown, or is of another dimension than the property's."""


class Unit(msgspec.Struct, frozen=True):
    """A unit of the table: ``base = value * scale + offset`` in the base unit of its dimension."""

    dimension: str
    scale: F
    offset: F = F(0)


def _family(dimension: str, **scales: F) -> dict[str, Unit]:
    return {code: Unit(dimension, scale) for code, scale in scales.items()}


_PI = F("3.14159265358979323846264338327950288")
_LB = F("0.45359237")
_G = F("9.80665")
_INCH = F("0.0254")
_GALLON = 231 * _INCH**3

TABLE: dict[str, Unit] = {
    # Dimensionless, and what UCUM calls so but is not interchangeable with it.
    **_family("fraction", **{"1": F(1), "%": F(1, 100), "[ppth]": F(1, 10**3), "[ppm]": F(1, 10**6)}),
    **_family("fraction", **{"[ppb]": F(1, 10**9), "10*3": F(10**3), "10*6": F(10**6), "um/m": F(1, 10**6)}),
    **_family("fraction", **{"mm/m": F(1, 10**3), "umol/mol": F(1, 10**6), "nmol/mol": F(1, 10**9)}),
    **_family("fraction", **{"g/kg": F(1, 10**3), "mg/kg": F(1, 10**6), "ug/kg": F(1, 10**9)}),
    **_family("level", **{"dB": F(1), "B": F(10), "dB[SPL]": F(1)}),
    **_family("level per length", **{"dB/m": F(1)}),
    **_family("angle", **{"deg": F(1), "rad": 180 / _PI, "mrad": 180 / _PI / 1000, "'": F(1, 60), "''": F(1, 3600)}),
    **_family("angle", gon=F(9, 10)),
    **_family("turbidity", **{"[NTU]": F(1)}),
    **_family("acidity", **{"[pH]": F(1)}),
    **_family("storage", bit=F(1, 8), By=F(1), kBy=F(10**3), MBy=F(10**6), GBy=F(10**9)),
    **_family("storage", KiBy=F(2**10), MiBy=F(2**20), GiBy=F(2**30)),
    # Temperature: the only one with offsets.
    "K": Unit("temperature", F(1)),
    "Cel": Unit("temperature", F(1), F("273.15")),
    "[degF]": Unit("temperature", F(5, 9), F("273.15") - 32 * F(5, 9)),
    "[degR]": Unit("temperature", F(5, 9)),
    # Length, area, volume, mass, time.
    **_family("length", m=F(1), km=F(1000), dm=F(1, 10), cm=F(1, 100), mm=F(1, 10**3), um=F(1, 10**6), nm=F(1, 10**9)),
    **_family("length", **{"[in_i]": _INCH, "[ft_i]": 12 * _INCH, "[yd_i]": 36 * _INCH, "[mi_i]": 63360 * _INCH}),
    **_family("length", **{"[nmi_i]": F(1852)}),
    **_family("area", m2=F(1), cm2=F(1, 10**4), mm2=F(1, 10**6), km2=F(10**6), har=F(10**4)),
    **_family("volume", m3=F(1), L=F(1, 10**3), mL=F(1, 10**6), dm3=F(1, 10**3), cm3=F(1, 10**6)),
    **_family("volume", **{"[gal_us]": _GALLON, "[cft_i]": (12 * _INCH) ** 3}),
    **_family("mass", kg=F(1), g=F(1, 10**3), mg=F(1, 10**6), t=F(1000), **{"[lb_av]": _LB}),
    **_family("time", s=F(1), ms=F(1, 10**3), us=F(1, 10**6), min=F(60), h=F(3600), d=F(86400)),
    # Motion and flow.
    **_family("speed", **{"m/s": F(1), "mm/s": F(1, 10**3), "cm/s": F(1, 100), "km/h": F(5, 18), "m/min": F(1, 60)}),
    **_family("speed", **{"mm/h": F(1, 3_600_000), "mm/min": F(1, 60_000), "[in_i]/h": _INCH / 3600}),
    **_family("speed", **{"mm/d": F(1, 86_400_000), "mm/a": F(1, 31_557_600_000)}),
    **_family("speed", **{"[mi_i]/h": 63360 * _INCH / 3600, "[kn_i]": F(1852, 3600), "[ft_i]/s": 12 * _INCH}),
    **_family("acceleration", **{"m/s2": F(1), "[g]": _G, "mm/s2": F(1, 10**3), "cm/s2": F(1, 100)}),
    **_family("volume flow", **{"m3/s": F(1), "m3/h": F(1, 3600), "m3/min": F(1, 60), "m3/d": F(1, 86400)}),
    **_family("volume flow", **{"L/s": F(1, 1000), "L/min": F(1, 60_000), "L/h": F(1, 3_600_000)}),
    **_family("volume flow", **{"[gal_us]/min": _GALLON / 60}),
    **_family("frequency", **{"Hz": F(1), "kHz": F(10**3), "MHz": F(10**6), "GHz": F(10**9), "/s": F(1)}),
    **_family("frequency", **{"/min": F(1, 60), "/h": F(1, 3600), "/d": F(1, 86400)}),
    **_family("per length", **{"/m": F(1), "/km": F(1, 10**3), "/cm": F(100)}),
    **_family("per area", **{"/m2": F(1), "/km2": F(1, 10**6), "/har": F(1, 10**4)}),
    **_family("mass per area", **{"kg/m2": F(1), "g/m2": F(1, 10**3), "t/km2": F(1, 10**3), "t/har": F(1, 10)}),
    **_family("mass flow", **{"kg/s": F(1), "kg/h": F(1, 3600), "g/s": F(1, 10**3), "t/h": F(5, 18)}),
    **_family("temperature rate", **{"K/s": F(1), "K/min": F(1, 60), "K/h": F(1, 3600)}),
    **_family("torque", **{"N.m": F(1), "kN.m": F(10**3)}),
    **_family("viscosity", **{"Pa.s": F(1), "mPa.s": F(1, 10**3)}),
    **_family("number density", **{"/m3": F(1), "/L": F(10**3), "/mL": F(10**6), "/cm3": F(10**6)}),
    # Force, pressure, energy, power.
    **_family("force", N=F(1), kN=F(10**3), MN=F(10**6)),
    **_family("pressure", Pa=F(1), hPa=F(100), kPa=F(10**3), MPa=F(10**6), bar=F(10**5), mbar=F(100), atm=F(101_325)),
    **_family("pressure", **{"[psi]": _LB * _G / _INCH**2, "mm[Hg]": F("133.322387415"), "cm[H2O]": F("98.0665")}),
    **_family("pressure", **{"m[H2O]": F("9806.65"), "[in_i'Hg]": F("133322.387415") * _INCH}),
    **_family("energy", **{"J": F(1), "kJ": F(10**3), "MJ": F(10**6), "GJ": F(10**9), "W.s": F(1), "W.min": F(60)}),
    **_family("energy", **{"W.h": F(3600), "kW.h": F(3_600_000), "MW.h": F(3_600_000_000), "V.A.h": F(3600)}),
    **_family("energy", **{"kV.A.h": F(3_600_000)}),
    **_family("power", **{"W": F(1), "mW": F(1, 10**3), "kW": F(10**3), "MW": F(10**6), "V.A": F(1)}),
    **_family("power", **{"kV.A": F(10**3)}),
    **_family("irradiance", **{"W/m2": F(1), "kW/m2": F(10**3), "mW/cm2": F(10), "uW/cm2": F(1, 100)}),
    **_family("radiant exposure", **{"J/m2": F(1), "kJ/m2": F(10**3), "MJ/m2": F(10**6), "W.h/m2": F(3600)}),
    **_family("radiant exposure", **{"kW.h/m2": F(3_600_000)}),
    # Electricity and magnetism.
    **_family("electric potential", V=F(1), mV=F(1, 10**3), uV=F(1, 10**6), kV=F(10**3)),
    **_family("electric current", A=F(1), mA=F(1, 10**3), uA=F(1, 10**6), kA=F(10**3)),
    **_family("electric charge", **{"C": F(1), "A.h": F(3600), "mA.h": F(36, 10)}),
    **_family("electric field", **{"V/m": F(1), "kV/m": F(10**3), "mV/m": F(1, 10**3)}),
    **_family("magnetic flux density", T=F(1), mT=F(1, 10**3), uT=F(1, 10**6), nT=F(1, 10**9), G=F(1, 10**4)),
    **_family("magnetic flux density", mG=F(1, 10**7)),
    **_family("electric resistance", Ohm=F(1), mOhm=F(1, 10**3), kOhm=F(10**3), MOhm=F(10**6)),
    **_family("conductivity", **{"S/m": F(1), "mS/m": F(1, 10**3), "uS/cm": F(1, 10**4), "mS/cm": F(1, 10)}),
    # Light and radiation.
    **_family("illuminance", lx=F(1), klx=F(10**3)),
    **_family("photon flux density", **{"mol/m2/s": F(1), "umol/m2/s": F(1, 10**6)}),
    **_family("dose rate", **{"Sv/h": F(1), "mSv/h": F(1, 10**3), "uSv/h": F(1, 10**6), "nSv/h": F(1, 10**9)}),
    **_family("activity concentration", **{"Bq/m3": F(1), "kBq/m3": F(10**3), "Bq/L": F(10**3)}),
    # Concentration by mass. Particulates come in ug/m3 and in ng/m3: a thousand lies between them.
    **_family("mass concentration", **{"kg/m3": F(1), "g/m3": F(1, 10**3), "mg/m3": F(1, 10**6)}),
    **_family("mass concentration", **{"ug/m3": F(1, 10**9), "ng/m3": F(1, 10**12), "g/L": F(1), "mg/L": F(1, 10**3)}),
    **_family("mass concentration", **{"ug/L": F(1, 10**6), "ng/L": F(1, 10**9)}),
}
"""UCUM code -> unit. Scales are exact, so a conversion is the nearest double to the true one."""

_CHINESE: dict[str, str] = {
    "毫克/立方米": "mg/m3",
    "微克/立方米": "ug/m3",
    "納克/立方米": "ng/m3",
    "纳克/立方米": "ng/m3",
    "毫克/升": "mg/L",
    "微克/升": "ug/L",
    "千帕": "kPa",
    "百帕": "hPa",
    "帕": "Pa",
    "兆帕": "MPa",
    "微西/厘米": "uS/cm",
    "微西門子/厘米": "uS/cm",
    "微西门子/厘米": "uS/cm",
    "攝氏度": "Cel",
    "摄氏度": "Cel",
    "度": "deg",
    "角度": "deg",
    "分貝": "dB",
    "分贝": "dB",
    "無量綱": "1",
    "无量纲": "1",
    "米": "m",
    "厘米": "cm",
    "毫米": "mm",
    "米/秒": "m/s",
    "千米/小時": "km/h",
    "千米/小时": "km/h",
    "公里/小時": "km/h",
    "公里/小时": "km/h",
    "立方米": "m3",
    "立方米/秒": "m3/s",
    "立方米/小時": "m3/h",
    "立方米/小时": "m3/h",
    "勒克斯": "lx",
    "伏": "V",
    "安": "A",
    "瓦": "W",
    "千瓦": "kW",
    "千瓦時": "kW.h",
    "千瓦时": "kW.h",
    "秒": "s",
    "分鐘": "min",
    "分钟": "min",
    "小時": "h",
    "小时": "h",
}

ALIASES: dict[str, str] = {
    **_CHINESE,
    "℃": "Cel",
    "°C": "Cel",
    "degC": "Cel",
    "℉": "[degF]",
    "°F": "[degF]",
    "°": "deg",
    "%RH": "%",
    "%EL": "%",
    "％": "%",
    "‰": "[ppth]",
    "ppm": "[ppm]",
    "ppb": "[ppb]",
    "pH": "[pH]",
    "NTU": "[NTU]",
    "lux": "lx",
    "dBA": "dB",
    "dB(A)": "dB",
    "dBm": "dB",
    "VA": "V.A",
    "kVA": "kV.A",
    "var": "V.A",
    "kvar": "kV.A",
    "Wh": "W.h",
    "kWh": "kW.h",
    "MWh": "MW.h",
    "VAh": "V.A.h",
    "varh": "V.A.h",
    "kvarh": "kV.A.h",
    "mAh": "mA.h",
    "rpm": "/min",
    "mph": "[mi_i]/h",
    "kn": "[kn_i]",
    "psi": "[psi]",
    "mmHg": "mm[Hg]",
    "l": "L",
    "l/min": "L/min",
    "mg/l": "mg/L",
    "ug/l": "ug/L",
    "KB": "kBy",
    "MB": "MBy",
}
"""Spellings found on devices and in documents -> UCUM code."""

_SPELLING = str.maketrans({"µ": "u", "μ": "u", "²": "2", "³": "3", "·": ".", "⋅": ".", "Ω": "Ohm", "／": "/"})


_ANNOTATION = re.compile(r"\{[^{}]*\}")


def canonical(unit: str) -> str:
    """Return the UCUM code for a unit as it was written; an unknown spelling comes back as it is.

    Annotations (``{vehicle}/h``) mean nothing to UCUM and are taken off.
    """
    text = unit.strip()
    if text in TABLE:
        return text
    text = ALIASES.get(text, text).translate(_SPELLING)
    text = _ANNOTATION.sub("", text) or "1"
    return ALIASES.get(text, text)


def dimension(unit: str) -> str:
    """Return the name of a unit's dimension (for units outside the table: pint's, in brackets).

    Raises:
        UnitError: if the unit is unknown.
    """
    code = canonical(unit)
    known = TABLE.get(code)
    return known.dimension if known else _name(code, _quantity(code))


@functools.lru_cache(maxsize=4096)
def conversion(source: str, target: str) -> tuple[float, float]:
    """Return (scale, offset): a value in `source` times scale plus offset is the value in `target`.

    Raises:
        UnitError: if a unit is unknown, or the two are of different dimensions; it names both.
    """
    one, other = canonical(source), canonical(target)
    a, b = TABLE.get(one), TABLE.get(other)
    if a is not None and b is not None:
        if a.dimension != b.dimension:
            raise _mismatch(source, a.dimension, target, b.dimension)
        return float(a.scale / b.scale), float((a.offset - b.offset) / b.scale)
    return _through_pint(one, other)


_OWN = frozenset({"fraction", "level", "level per length", "angle", "turbidity", "acidity", "storage"})
"""Dimensions of the table that pint does not tell apart: it calls them all pure numbers."""


def _through_pint(source: str, target: str) -> tuple[float, float]:
    """Return the conversion when at least one of the two units is not in the table."""
    a, b = _quantity(source), _quantity(target)
    names = [_name(source, a), _name(target, b)]
    if a.dimensionality != b.dimensionality or (names[0] != names[1] and not _OWN.isdisjoint(names)):
        raise _mismatch(source, names[0], target, names[1])

    def converted(value: float) -> float:
        quantity = a.__class__(value * float(a.magnitude), a.units).to(b.units)
        return float(quantity.magnitude / float(b.magnitude))

    zero = converted(0.0)
    # pint computes in binary fractions: its last digits are noise. An offset costs three more.
    return (_rounded(converted(1.0), 14), 0.0) if zero == 0 else (_rounded(converted(1.0) - zero, 11), zero)


def _name(code: str, quantity: Any) -> str:
    """Return the name of a dimension; a pure number that the table does not know counts as a fraction."""
    if code in TABLE:
        return TABLE[code].dimension
    return "fraction" if quantity.dimensionless else str(quantity.dimensionality)


def _rounded(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")


def _mismatch(source: str, one: str, target: str, other: str) -> UnitError:
    return UnitError(
        f"unit '{source}' ({one}) cannot become '{target}' ({other})",
        remedy="correct the unit, or choose a property of that dimension",
    )


CODE_MAX = 64
"""Most characters of a unit that is not in the table."""
_LONG_NUMBER = re.compile(r"\d{5}")


@functools.cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry  # noqa: PLC0415 - a second of work that few processes need

    return PintUcumRegistry()


@functools.lru_cache(maxsize=4096)
def _quantity(code: str) -> Any:
    """Return pint's quantity of one such unit; raises `UnitError` where ucumvert and pint know none."""
    from lark.exceptions import LarkError  # noqa: PLC0415 - as above
    from pint.errors import PintError  # noqa: PLC0415 - as above

    try:
        if len(code) > CODE_MAX or _LONG_NUMBER.search(code):
            raise ValueError("too long")  # noqa: TRY301 - payloads name units too: keep pint's work small
        quantity = _registry().from_ucum(code)
        if not 0 < abs(float(quantity.to_base_units().magnitude)) < math.inf:
            raise ValueError("of no size")  # noqa: TRY301 - the same
    except (LarkError, PintError, ValueError, TypeError, AttributeError, ZeroDivisionError, OverflowError) as why:
        near = difflib.get_close_matches(code, [*TABLE, *ALIASES], n=1, cutoff=0.6)
        remedy = f"did you mean '{near[0]}'?" if near else "write a UCUM code (ug/m3, Cel, [ppm])"
        raise UnitError(f"unit '{code}' is unknown", remedy=remedy) from why
    return quantity
