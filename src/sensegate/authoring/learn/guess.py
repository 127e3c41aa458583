"""What a member may measure: a property, its unit as sent, its scale, and why. Guesses, each with its reason.

A name says which property; the values say whether that can be, and in which unit: 215 to 268 is no air temperature in
degrees, but one in tenths. What fits nothing is said to fit nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import Facts
from sensegate.authoring.learn.names import matches, unit_of
from sensegate.decode.words import TABLES
from sensegate.quantities.properties import CODES, PROPERTIES, Kind, Property
from sensegate.quantities.units import TABLE, UnitError, canonical, conversion, dimension


class Guess(NamedTuple):
    """What a member may be."""

    property: str
    unit: str = ""
    scale: float = 1.0
    words: str | dict[Any, Any] | None = None
    missing: tuple[Any, ...] = ()
    reason: str = ""
    sure: bool = True
    """False: more was made up than found."""


_TYPICAL: Final[dict[str, tuple[float, float]]] = {
    "air_temperature": (-45, 65), "room_temperature": (-20, 60), "water_temperature": (-3, 60),
    "soil_temperature": (-30, 60), "device_temperature": (-45, 100), "probe_temperature": (-60, 150),
    "surface_temperature": (-50, 120), "road_temperature": (-45, 85), "cable_temperature": (-45, 150),
    "setpoint_temperature": (4, 35), "dew_point": (-60, 40), "relative_humidity": (1, 100), "air_pressure": (500, 1100),
    "water_pressure": (0, 3000), "battery_level": (0, 100), "battery_voltage": (1.2, 30), "supply_voltage": (1.2, 450),
    "voltage": (1, 450), "current": (0, 400), "active_power": (-1e5, 1e6), "frequency": (45, 65),
    "power_factor": (-1, 1),
    "wind_speed": (0, 60), "wind_gust": (0, 70), "wind_direction": (0, 360), "rainfall": (0, 200),
    "rain_intensity": (0, 300), "illuminance": (0, 200_000), "uv_index": (0, 16), "solar_irradiance": (0, 1_500),
    "sound_level": (20, 140), "sound_level_leq": (20, 140), "sound_level_max": (20, 150), "soil_moisture": (0, 100),
    "soil_conductivity": (0, 20_000), "conductivity": (0, 60_000), "ph": (2, 12), "soil_ph": (3, 10),
    "dissolved_oxygen": (0, 25), "turbidity": (0, 4_000), "water_level": (-50, 6_000), "liquid_level": (0, 50),
    "water_depth": (0, 200), "distance": (0, 50), "fill_level": (0, 100), "rssi": (-150, 0), "snr": (-30, 40),
    "latitude": (-90, 90), "longitude": (-180, 180), "altitude": (-500, 9_000), "speed": (0, 400), "heading": (0, 360),
    "tilt_angle": (-180, 180), "tilt_x": (-180, 180), "tilt_y": (-180, 180), "acceleration_x": (-160, 160),
    "acceleration_y": (-160, 160), "acceleration_z": (-160, 160), "smoke_concentration": (0, 10_000),
    "co2": (250, 20_000), "voc_fraction": (0, 60_000), "link_quality": (0, 255), "flow_velocity": (-10, 10),
    "pm1": (0, 1_000), "pm2_5": (0, 1_000), "pm10": (0, 2_000), "leakage_current": (0, 3_000), "uptime": (0, 1e9),
    "gas_concentration": (0, 100), "co_fraction": (0, 1_000), "formaldehyde": (0, 5_000), "weight": (0, 100_000),
}  # fmt: skip
"""Where readings of a property lie in a city, in its unit; others: the property's own limits."""

_ALSO: Final[dict[str, tuple[str, ...]]] = {
    "temperature": ("[degF]", "K"),
    "pressure": ("kPa", "Pa", "MPa", "bar", "mbar"),
    "electric potential": ("mV",),
    "electric current": ("mA",),
    "energy": ("W.h",),
    "length": ("mm", "cm"),
    "mass concentration": ("mg/m3", "ng/m3"),
    "speed": ("km/h",),
    "fraction": ("[ppb]", "[ppm]", "1"),
    "conductivity": ("mS/cm",),
    "acceleration": ("[g]",),
}
"""Dimension -> other units that devices send."""
_TENTHS: Final = (0.1, 0.01, 0.001)
_DEGREES: Final = (1e-6, 1e-7, 1e-5, 1e-4)
_LETTERS: Final = {"t": "temperature", "h": "humidity", "p": "pressure", "l": "light", "b": "battery"}


def guess(facts: Facts, unit: str = "") -> Guess | None:
    """Return what a member may be; `unit`: as the payload or the maker's document names it. None: nothing fits."""
    steps = facts.steps
    if not steps:
        return None
    found = matches(steps)
    short = not found and steps[-1].lower() in _LETTERS
    if short:
        found = matches((_LETTERS[steps[-1].lower()],))
    for match in found[:6]:
        row = PROPERTIES.by_name(_battery(match.property, facts))
        fit = _fit(row, facts, unit or unit_of(steps[-1]))
        if fit is not None:
            sure = (
                fit.sure
                and not short
                and row.name == match.property
                and (match.words > 1 or len(found) == 1 or found[0] is match)
            )
            return fit._replace(sure=sure, reason=f"'{steps[-1]}' says {row.label_en}; {fit.reason}")
    return None


def _battery(name: str, facts: Facts) -> str:
    """Return the property that a battery's number is: 2.5 to 3.7 are volts, 2500 to 3700 millivolts."""
    if name != "battery_level" or not facts.numbers:
        return name
    low, high = min(facts.numbers), max(facts.numbers)
    volts = (low >= 1.5 and high <= 4.5 and not facts.whole) or (low >= 1500 and high <= 4500)
    return "battery_voltage" if volts else name


def _fit(row: Property, facts: Facts, unit: str) -> Guess | None:
    if row.kind is Kind.NUMBER:
        return _number(row, facts, unit)
    if row.kind is Kind.BOOLEAN:
        return _boolean(row, facts)
    if facts.kinds["text"] and not facts.numeric:
        words = CODES.get(row.codes, {})
        said = ", ".join(map(str, facts.words[:6]))
        strange = [word for word in facts.words if isinstance(word, str) and words and word not in words]
        return Guess(row.name, reason=f"texts: {said}", sure=not strange)
    return None


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────


def _number(row: Property, facts: Facts, unit: str) -> Guess | None:
    if not facts.numeric or facts.kinds["boolean"]:
        return None
    low, high = _TYPICAL.get(row.name, (row.low, row.high))
    numbers, missing = _usual(facts, row)
    if not numbers:
        return None
    seen = f"{min(numbers):g} to {max(numbers):g}" if min(numbers) != max(numbers) else f"{numbers[0]:g}"
    for code, scale in _ways(row, facts, unit):
        factor, offset = conversion(code, row.unit)
        canonical_ = [number * scale * factor + offset for number in numbers]
        if all(low <= value <= high for value in canonical_):
            code, scale = _plainly(code, scale, row)  # noqa: PLW2901 - the same, better said
            how = f"{seen} {code}" if scale == 1 else f"{seen} fits only times {scale:g} {code}"
            sure = scale == 1 and (code == row.unit or bool(unit))
            return Guess(row.name, code, scale, None, missing, how, sure)
    if all(row.low <= number <= row.high for number in numbers):
        return Guess(row.name, row.unit, 1.0, None, missing, f"{seen} {row.unit}, which is unusual", sure=False)
    return None


def _ways(row: Property, facts: Facts, unit: str) -> Iterable[tuple[str, float]]:
    """Yield (unit, scale) in the order in which they are likely."""
    units = [row.unit, *(code for code in _ALSO.get(TABLE[row.unit].dimension, ()) if code != row.unit)]
    named = known_unit(unit, row)
    if named:
        units = [named]
    whole = facts.whole
    for code in units[:1]:
        yield code, 1.0
        if row.name in {"latitude", "longitude"}:
            yield from ((code, scale) for scale in _DEGREES)
        elif whole:
            yield code, 0.1
    for code in units[1:]:
        yield code, 1.0
    if whole:
        for code in units:
            yield from ((code, scale) for scale in _TENTHS)


def _plainly(code: str, scale: float, row: Property) -> tuple[str, float]:
    """Return a unit and a scale as one unit, where there is one: thousandths of a volt are millivolts."""
    size = conversion(code, row.unit)[0] * scale
    for other in (row.unit, *_ALSO.get(TABLE[row.unit].dimension, ())):
        if scale != 1 and math.isclose(conversion(other, row.unit)[0], size) and conversion(other, row.unit)[1] == 0:
            return other, 1.0
    return code, scale


def known_unit(unit: str, row: Property) -> str:
    """Return the UCUM code of a unit as somebody wrote it if it can become the property's, else an empty string."""
    if not unit:
        return ""
    try:
        code = canonical(unit)
        conversion(code, row.unit)
        dimension(code)
    except UnitError:
        return ""
    return code


SENTINELS: Final = frozenset(
    {
        32767, 32766, -32768, 65535, 65534, 3276.7, -3276.8, 6553.5, 327.67, -327.68, 655.35, 2147483647, -2147483648,
        4294967295, 16777215, 8388607, 127, -127, 255, 12.7, 25.5, 9999, -9999, 999.9, -999.9, 9999.9, 999, -999, 99.9,
        -99.9, 99999, -99999, 999999, 1000000, -100, -99, -1, 85, 850,
    }
)  # fmt: skip
"""Numbers with which devices say that there is no value."""
_NOTHING: Final = frozenset(
    {"", "-", "--", "NA", "N/A", "n/a", "NaN", "nan", "null", "None", "none", "ERR", "error", "/"}
)


def _usual(facts: Facts, row: Property) -> tuple[list[float], tuple[Any, ...]]:
    """Return the numbers without those that probably mean "not measured", and these."""
    odd = sentinels(facts, row)
    texts = tuple(word for word in facts.words if isinstance(word, str) and word in _NOTHING)
    numbers = [number for number in facts.numbers if number not in odd]
    return numbers, (*(int(one) if one == int(one) else one for one in sorted(odd)), *texts)


def sentinels(facts: Facts, row: Property | None = None) -> set[float]:
    """Return the numbers that are known as marks and stand far from all others (or out of the property's range)."""
    found: set[float] = set()
    for mark in set(facts.numbers) & SENTINELS:
        rest = [number for number in facts.numbers if number not in SENTINELS]
        if not rest:
            impossible = row is not None and not row.low <= mark <= row.high and not row.low <= mark / 10 <= row.high
            if impossible:
                found.add(mark)
            continue
        span = max(max(rest) - min(rest), 1.0, 0.2 * max(abs(number) for number in rest))
        if mark > max(rest) + 3 * span or mark < min(rest) - 3 * span:
            found.add(mark)
    return found


# ── booleans ─────────────────────────────────────────────────────────────────────────────────────────

_SWITCHES: Final = (
    "on_off",
    "yes_no",
    "open_closed",
    "alarm_normal",
    "online_offline",
    "occupied_free",
    "locked_unlocked",
)


def _boolean(row: Property, facts: Facts) -> Guess | None:
    values: Sequence[Any] = [value for value in facts.words if value is not None]
    if facts.many or len(values) > 4 or not values:
        return None
    if all(isinstance(value, bool) for value in values):
        return Guess(row.name, reason="true or false")
    if all(isinstance(value, int) and value in {0, 1} for value in values):
        return Guess(row.name, reason="0 or 1; which is which is a guess", sure=False)
    tables = [name for name in _SWITCHES if _holds(name, values)]
    fitting = [name for name in tables if any(part in row.name for part in name.split("_"))] or tables
    if fitting:
        return Guess(
            row.name, words=fitting[0], reason=f"words of the table {fitting[0]}: {', '.join(map(str, values))}"
        )
    return None


def _holds(table: str, values: Sequence[Any]) -> bool:
    sent = {(type(one) is bool, one) for one, _ in TABLES[table].words}
    return all((type(value) is bool, value) in sent for value in values if not isinstance(value, float)) and not any(
        isinstance(value, float) and not math.isfinite(value) for value in values
    )
