"""Unit conversion: from a unit as a profile or a payload writes it to the canonical unit, as (scale, offset).

The language is UCUM; spellings used by vendors and in Chinese documents (``℃``, ``µg/m³``, ``微克/立方米``) are
accepted as well. Common units are listed in a table of exact fractions; any other UCUM code is evaluated by `ucum`,
whose grammar is loaded on first use. Decibels, angles, turbidity and pH are dimensions of their own here, although
UCUM treats some of them as dimensionless: a profile that maps degrees to a percentage is rejected.
"""

from __future__ import annotations

import difflib
import functools
import re
from fractions import Fraction as F  # noqa: N817 - keeps the table below readable
from typing import Final

import msgspec

from sensegate.errors import ConfigError
from sensegate.quantities import ucum


class UnitError(ConfigError):
    """The unit is unknown, or has another dimension than the property's unit."""


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
    **_family("level", **{"dB": F(1), "B": F(10), "dB[SPL]": F(1), "B[SPL]": F(10)}),
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
    # Concentration by mass. Particulates are reported in ug/m3 and in ng/m3, a factor of a thousand apart.
    **_family("mass concentration", **{"kg/m3": F(1), "g/m3": F(1, 10**3), "mg/m3": F(1, 10**6)}),
    **_family("mass concentration", **{"ug/m3": F(1, 10**9), "ng/m3": F(1, 10**12), "g/L": F(1), "mg/L": F(1, 10**3)}),
    **_family("mass concentration", **{"ug/L": F(1, 10**6), "ng/L": F(1, 10**9)}),
}
"""UCUM code -> unit. Scales are exact, so a conversion is the double nearest to the true value."""

_SIMPLIFIED: dict[str, str] = {
    "毫克/立方米": "mg/m3",
    "微克/立方米": "ug/m3",
    "纳克/立方米": "ng/m3",
    "克/立方米": "g/m3",
    "毫克/升": "mg/L",
    "微克/升": "ug/L",
    "克/升": "g/L",
    "毫克/千克": "mg/kg",
    "帕": "Pa",
    "百帕": "hPa",
    "千帕": "kPa",
    "兆帕": "MPa",
    "巴": "bar",
    "米水柱": "m[H2O]",
    "毫米汞柱": "mm[Hg]",
    "微西/厘米": "uS/cm",
    "微西门子/厘米": "uS/cm",
    "毫西/厘米": "mS/cm",
    "毫西门子/厘米": "mS/cm",
    "摄氏度": "Cel",
    "华氏度": "[degF]",
    "开尔文": "K",
    "度": "deg",
    "角度": "deg",
    "弧度": "rad",
    "分贝": "dB",
    "无量纲": "1",
    "百分比": "%",
    "千米": "km",
    "公里": "km",
    "米": "m",
    "厘米": "cm",
    "毫米": "mm",
    "微米": "um",
    "平方米": "m2",
    "公顷": "har",
    "平方公里": "km2",
    "米/秒": "m/s",
    "毫米/秒": "mm/s",
    "千米/小时": "km/h",
    "公里/小时": "km/h",
    "毫米/小时": "mm/h",
    "立方米": "m3",
    "升": "L",
    "毫升": "mL",
    "立方米/秒": "m3/s",
    "立方米/小时": "m3/h",
    "升/秒": "L/s",
    "升/分钟": "L/min",
    "升/小时": "L/h",
    "吨": "t",
    "千克": "kg",
    "公斤": "kg",
    "克": "g",
    "吨/小时": "t/h",
    "牛": "N",
    "千牛": "kN",
    "勒克斯": "lx",
    "瓦/平方米": "W/m2",
    "兆焦/平方米": "MJ/m2",
    "伏": "V",
    "毫伏": "mV",
    "千伏": "kV",
    "安": "A",
    "毫安": "mA",
    "安时": "A.h",
    "毫安时": "mA.h",
    "欧姆": "Ohm",
    "千欧": "kOhm",
    "瓦": "W",
    "千瓦": "kW",
    "兆瓦": "MW",
    "伏安": "V.A",
    "千伏安": "kV.A",
    "千瓦时": "kW.h",
    "兆瓦时": "MW.h",
    "焦耳": "J",
    "千焦": "kJ",
    "兆焦": "MJ",
    "吉焦": "GJ",
    "赫兹": "Hz",
    "千赫": "kHz",
    "转/分": "/min",
    "转/分钟": "/min",
    "次/分": "/min",
    "次": "1",
    "个": "1",
    "辆": "1",
    "人": "1",
    "辆/小时": "/h",
    "个/立方厘米": "/cm3",
    "个/立方米": "/m3",
    "微西弗/小时": "uSv/h",
    "纳西弗/小时": "nSv/h",
    "贝可/立方米": "Bq/m3",
    "微特斯拉": "uT",
    "微应变": "um/m",
    "毫秒": "ms",
    "秒": "s",
    "分钟": "min",
    "小时": "h",
    "天": "d",
}
_TRADITIONAL = str.maketrans("纳门摄华尔无纲钟时贝顷吨欧转个辆应", "納門攝華爾無綱鐘時貝頃噸歐轉個輛應")

ALIASES: dict[str, str] = {
    **{written: code for name, code in _SIMPLIFIED.items() for written in (name, name.translate(_TRADITIONAL))},
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
    "count": "1",
    "beats": "1",
    "beat/min": "/min",
    "bpm": "/min",
    "VA": "V.A",
    "kVA": "kV.A",
    "var": "V.A",
    "kvar": "kV.A",
    "Ah": "A.h",
    "Wh": "W.h",
    "kVAh": "kV.A.h",
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
"""Spellings used by devices and in documents -> UCUM code."""

_SPELLING = str.maketrans({"µ": "u", "μ": "u", "·": ".", "⋅": ".", "Ω": "Ohm", "\u2126": "Ohm", "／": "/", "⁻": "-"})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_DEGREES = (("℃", "Cel"), ("°C", "Cel"), ("℉", "[degF]"), ("°F", "[degF]"), ("°", "deg"))

_ANNOTATION = re.compile(r"(^|[./(])?\{[^{}]*\}")
_UNITY = re.compile(r"^1(?=/)|/1(?=$|[./)])")
_CARET = re.compile(r"(?<![0-9])(?:\^|\*\*)(?=-?[0-9])")


def ucum_code(unit: str) -> str:
    """Return the UCUM code of a unit as written; an unknown spelling is returned unchanged.

    Annotations (``{vehicle}/h``) carry no meaning in UCUM and are removed.
    """
    text = unit.strip()
    if text in TABLE:
        return text
    text = ALIASES.get(text, text).translate(_SPELLING).translate(_SUPERSCRIPTS)
    for sign, code in _DEGREES:
        text = text.replace(sign, code)
    text = _ANNOTATION.sub(lambda match: "" if match[1] is None else f"{match[1]}1", text)
    text = _UNITY.sub("", _CARET.sub("", text)) or "1"
    return ALIASES.get(text, text)


_BY_PROPERTY: dict[str, dict[str, str]] = {"度": {"temperature": "Cel", "energy": "kW.h"}}
"""Spelling whose unit depends on the property: spelling -> dimension of the property -> unit; otherwise an angle."""


_LEVELS_OF_POWER = {"dB[mW]": 0.0, "dB[W]": 30.0}
"""Level of power -> what makes dBm of it, in which properties hold levels of power (`rssi`)."""


def dimension(unit: str) -> str:
    """Return the name of a unit's dimension; without a name in the table, its base units: ``m2.s-2``.

    Raises:
        UnitError: if the unit is unknown.
    """
    code = ucum_code(unit)
    known = TABLE.get(code)
    return known.dimension if known else _name(_amount(code).dimensions)


@functools.lru_cache(maxsize=4096)
def conversion(source: str, target: str) -> tuple[float, float]:
    """Return (scale, offset): ``value * scale + offset`` converts a value in `source` to `target`.

    Raises:
        UnitError: if a unit is unknown, or the two have different dimensions; the error names both.
    """
    source_code, target_code = ucum_code(source), ucum_code(target)
    a, b = TABLE.get(source_code), TABLE.get(target_code)
    if b is not None and (by_dimension := _BY_PROPERTY.get(source.strip())) and b.dimension in by_dimension:
        a = TABLE[by_dimension[b.dimension]]
    if a is not None and b is not None:
        if a.dimension != b.dimension:
            raise _mismatch(source, a.dimension, target, b.dimension)
        return float(a.scale / b.scale), float((a.offset - b.offset) / b.scale)
    if target_code == "dB" and source_code in _LEVELS_OF_POWER:
        return 1.0, _LEVELS_OF_POWER[source_code]
    right = _amount(target_code)
    try:
        left = _amount(source_code)
    except UnitError as error:
        raise _unknown(source, target_code, error) from error
    if left.dimensions != right.dimensions:
        raise _mismatch(source, dimension(source_code), target, dimension(target_code))
    return float(left.scale / right.scale), float((left.offset - right.offset) / right.scale)


_SPELT: dict[str, str] = {
    "degf": "[degF]", "deg f": "[degF]", "fahrenheit": "[degF]", "f": "[degF]", "degc": "Cel", "celsius": "Cel",
    "c": "Cel", "centigrade": "Cel", "kelvin": "K", "kelvins": "K", "degk": "K", "torr": "mm[Hg]", "mmhg": "mm[Hg]",
    "inhg": "[in_i'Hg]", "mmh2o": "m[H2O]", "cmh2o": "cm[H2O]", "psi": "[psi]", "psig": "[psi]", "millibar": "mbar",
    "pascal": "Pa", "knot": "[kn_i]", "knots": "[kn_i]", "kts": "[kn_i]", "kt": "[kn_i]", "kn": "[kn_i]",
    "mph": "[mi_i]/h", "miles per hour": "[mi_i]/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "mps": "m/s",
    "fps": "[ft_i]/s", "percent": "%", "pct": "%", "per cent": "%", "prozent": "%", "permille": "[ppth]",
    "ratio": "1", "count": "1", "inch": "[in_i]", "inches": "[in_i]", "in": "[in_i]", "foot": "[ft_i]",
    "feet": "[ft_i]", "ft": "[ft_i]", "yard": "[yd_i]", "mile": "[mi_i]", "miles": "[mi_i]", "metre": "m",
    "nmi": "[nmi_i]", "nautical mile": "[nmi_i]", "nautical miles": "[nmi_i]", "mil": "[mil_i]", "mils": "[mil_i]",
    "thou": "[mil_i]",
    "meter": "m", "meters": "m", "micron": "um", "gallon": "[gal_us]", "gallons": "[gal_us]", "gal": "[gal_us]",
    "gpm": "[gal_us]/min", "lpm": "L/min", "cfm": "[cft_i]/min", "litre": "L", "liter": "L", "liters": "L",
    "ft3": "[cft_i]", "pound": "[lb_av]", "lb": "[lb_av]", "lbs": "[lb_av]", "sec": "s", "second": "s",
    "seconds": "s", "minute": "min", "minutes": "min", "mins": "min", "hour": "h", "hours": "h", "hr": "h",
    "day": "d", "days": "d", "msec": "ms", "degree": "deg", "degrees": "deg", "volt": "V", "volts": "V", "amp": "A",
    "amps": "A", "ampere": "A", "watt": "W", "watts": "W", "kilowatt": "kW", "hertz": "Hz", "ohm": "Ohm",
    "ohms": "Ohm", "lumen/m2": "lx", "decibel": "dB", "decibels": "dB", "microsiemens/cm": "uS/cm", "gauss": "G",
    "klux": "klx", "oz": "[oz_av]", "ounce": "[oz_av]", "fnu": "[NTU]", "mh2o": "m[H2O]", "bar": "bar",
    "gal/min": "[gal_us]/min", "gal/h": "[gal_us]/h", "mg/nm3": "mg/m3", "ug/nm3": "ug/m3", "nm3/h": "m3/h",
    "mbps": "Mbit/s", "kbps": "kbit/s", "l/hr": "L/h", "m3/hr": "m3/h", "立方米每小时": "m3/h", "升每分钟": "L/min",
    "米每秒": "m/s", "毫克每升": "mg/L", "微克每立方米": "ug/m3",
    "in/h": "[in_i]/h", "inch/h": "[in_i]/h", "ph": "[pH]", "ntu": "[NTU]", "gravity": "[g]", "g-force": "[g]",
}  # fmt: skip
"""Spellings that are no codes, in lower case -> the code that is proposed for them."""


_LOWER_CASE: Final = {"mv": "mV", "ma": "mA", "mw": "mW", "kv": "kV"}
"""Codes written in lower case throughout, of which the small unit is proposed."""
_PREFIX_WORDS: Final = {
    "nano": "n", "micro": "u", "milli": "m", "centi": "c", "deci": "d", "hecto": "h", "kilo": "k", "mega": "M",
    "giga": "G",
}  # fmt: skip
_UNIT_WORDS: Final = {
    "metre": "m", "meter": "m", "gram": "g", "gramme": "g", "litre": "L", "liter": "L", "volt": "V", "ampere": "A",
    "amp": "A", "watt": "W", "pascal": "Pa", "hertz": "Hz", "ohm": "Ohm", "second": "s", "bar": "bar", "joule": "J",
    "siemens": "S", "lux": "lx", "newton": "N", "tesla": "T", "sievert": "Sv", "becquerel": "Bq", "gray": "Gy",
    "mole": "mol", "minute": "min", "hour": "h", "day": "d", "inch": "[in_i]", "foot": "[ft_i]", "feet": "[ft_i]",
    "yard": "[yd_i]", "mile": "[mi_i]", "gallon": "[gal_us]", "pound": "[lb_av]", "var": "var",
}  # fmt: skip
_WORD_OF_UNIT = re.compile(rf"({'|'.join(_PREFIX_WORDS)})?[- ]?({'|'.join(_UNIT_WORDS)})(?:e?s)?")
_POWERS: Final = {"square ": "2", "cubic ": "3"}


def _in_words(unit: str) -> str:
    """Return the code of a unit in English words (``millivolts``, ``cubic metres per hour``), empty if it is none."""
    above, per, below = unit.strip().lower().replace("/", " per ").partition(" per ")
    codes = []
    for part in (above, below) if per else (above,):
        factors = [_factor_in_words(factor) for factor in re.split(r"[- ](?=hours?$)", part.strip())]
        if not all(factors):
            return ""
        codes.append(".".join(factors))
    return "/".join(codes)


def _factor_in_words(text: str) -> str:
    power = next((power for power in _POWERS if text.startswith(power)), "")
    match = _WORD_OF_UNIT.fullmatch(text.removeprefix(power).strip())
    return f"{_PREFIX_WORDS.get(match[1] or '', '')}{_UNIT_WORDS[match[2]]}{_POWERS.get(power, '')}" if match else ""


@functools.cache
def _prefixed_words() -> dict[str, str]:
    """Return English words of units with a prefix (``millivolt``, ``mvolt``) -> code."""
    words = {
        f"{spelling}{word}": f"{symbol}{code}"
        for prefix, symbol in _PREFIX_WORDS.items()
        for word, code in _UNIT_WORDS.items()
        for spelling in (prefix, symbol)
    }
    return {word: code for word, code in words.items() if code in TABLE}


def propose(unit: str, dimension_of: str = "") -> str:
    """Return the code meant by an unknown spelling, an empty string if none is near.

    Args:
        unit: as written.
        dimension_of: a unit of the wanted dimension; no code of another dimension is proposed.
    """
    wanted = TABLE.get(ucum_code(dimension_of)) if dimension_of else None
    written = ucum_code(unit)
    exact = _LOWER_CASE.get(unit) or _SPELT.get(unit.strip().lower()) or _in_words(unit) or None
    if exact is not None and (wanted is None or _dimension_of(exact) == wanted.dimension):
        return exact
    spellings = {**{code: code for code in TABLE}, **ALIASES, **_SPELT}
    near = difflib.get_close_matches(written, spellings, n=8, cutoff=0.6)
    near += difflib.get_close_matches(written.lower(), spellings, n=8, cutoff=0.6)
    codes = [spellings[spelling] for spelling in near]
    if not _in_words(unit):
        # First, since a word without the prefix is as near.
        words = _prefixed_words()
        codes[:0] = [words[word] for word in difflib.get_close_matches(written.lower(), words, n=2, cutoff=0.8)]
    return next((code for code in codes if wanted is None or _dimension_of(code) == wanted.dimension), "")


def of_spelling(unit: str) -> str:
    """Return the code of a unit that is written carelessly (``KWH``, ``Lux``, ``Deg C``), empty if it may be several.

    For descriptions of makers that people review; a profile states codes.
    """
    written = " ".join(unit.split()).lower().replace("˚", "°").replace("º", "°")
    plain = ucum_code(written).lower().replace(" ", "")
    known = _SPELT.get(written) or _SPELT.get(plain) or _in_words(written)
    codes = {known} if known else _by_lower_case().get(plain, set())
    return next(iter(codes)) if len(codes) == 1 and len(written) > 1 else ""


@functools.cache
def _by_lower_case() -> dict[str, set[str]]:
    """Return spelling in lower case -> codes that are written so."""
    codes: dict[str, set[str]] = {}
    for spelling, code in (*ALIASES.items(), *((code, code) for code in TABLE)):
        codes.setdefault(ucum_code(spelling).lower(), set()).add(code)
        codes.setdefault(spelling.lower(), set()).add(code)
    return codes


def _dimension_of(code: str) -> str:
    try:
        return dimension(code)
    except UnitError:
        return ""


def _usual(target: str) -> str:
    """Return some codes of a unit's dimension, the unit itself first."""
    unit = TABLE.get(target)
    same = [code for code, other in TABLE.items() if unit is not None and other.dimension == unit.dimension]
    return ", ".join(list(dict.fromkeys([target, *same]))[:5])


def _unknown(source: str, target: str, why: UnitError) -> UnitError:
    """Return the error on an unknown unit with a proposal of the dimension of the unit that is wanted."""
    near = propose(source, target)
    return UnitError(why.problem, remedy=f"did you mean '{near}'?" if near else f"give one of: {_usual(target)}")


def _mismatch(source: str, source_dimension: str, target: str, target_dimension: str) -> UnitError:
    near = _SPELT.get(source.strip().lower(), "") or _in_words(source)
    near = near if near and _dimension_of(near) == target_dimension else ""
    remedy = f"did you mean '{near}'? Else" if near else f"correct the unit (e.g. {_usual(ucum_code(target))}), or"
    return UnitError(
        f"unit '{source}' ({source_dimension}) cannot be converted to '{target}' ({target_dimension})",
        remedy=f"{remedy} choose a property of that dimension",
    )


@functools.lru_cache(maxsize=4096)
def _amount(code: str) -> ucum.Amount:
    """Return the size and dimensions of a code in UCUM's base units; raises `UnitError` if it is not a unit."""
    try:
        return ucum.evaluate(code)
    except ucum.UcumError as why:
        known = TABLE.get(code)
        if known is not None:  # turbidity is not a UCUM unit
            return ucum.Amount(known.scale, known.offset, ((known.dimension, 1),))
        near = propose(code)
        remedy = f"did you mean '{near}'?" if near else "use a UCUM code (ug/m3, Cel, [ppm])"
        raise UnitError(f"unit '{code}' is unknown ({why})", remedy=remedy) from why


@functools.cache
def _names() -> dict[ucum.Dimensions, str]:
    """Return the dimension names of the table; where two dimensions are equal (energy, torque) the first wins."""
    names: dict[ucum.Dimensions, str] = {}
    for code, unit in TABLE.items():
        names.setdefault(_amount(code).dimensions, unit.dimension)
    return names


def _name(dimensions: ucum.Dimensions) -> str:
    return _names().get(dimensions) or ucum.format_dimensions(dimensions)
