"""Guess what a member measures: a property, its unit as sent, its scale, and the reason.

The name suggests the property; the values decide whether it is possible, and in which unit: 215 to 268 is no air
temperature in degrees, but one in tenths. A unit that is stated decides more than either: a property of another
dimension is never guessed. If nothing fits, nothing is guessed, and a property may be proposed (`propose`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sensegate.authoring.learn.fields import FieldFacts
from sensegate.authoring.learn.names import NameMatch, is_other_power, matches, named_unit, words_of
from sensegate.decode.words import TABLES
from sensegate.quantities.properties import CODES, PROPERTIES, Property, ValueKind
from sensegate.quantities.units import TABLE, UnitError, conversion, dimension, of_spelling, ucum_code


class Guess(NamedTuple):
    """Candidate property of a member."""

    property: str
    unit: str = ""
    scale: float = 1.0
    words: str | dict[Any, Any] | None = None
    missing: tuple[Any, ...] = ()
    reason: str = ""
    sure: bool = True
    """False: the guess needs to be checked most."""
    fragment: bool = False
    """True: the name says more than the property does; such a reading is written as a comment only."""


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
"""Usual range of a property's readings in a city, in its unit; for others the property's own limits."""

_OTHER_UNITS: Final[dict[str, tuple[str, ...]]] = {
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
_COORDINATE_SCALES: Final = (1e-6, 1e-7, 1e-5, 1e-4)
_LETTER_WORDS: Final = {"t": "temperature", "h": "humidity", "p": "pressure", "l": "light", "b": "battery"}


_CUSTOMARY_NAMES: Final = """
air_temperature air_temperature_max air_temperature_min air_temperature_mean room_temperature
water_temperature soil_temperature device_temperature probe_temperature surface_temperature road_temperature
cable_temperature setpoint_temperature dew_point wet_bulb_temperature leaf_temperature battery_temperature
relative_humidity device_humidity air_pressure battery_level battery_voltage voltage frequency wind_direction
heading illuminance sound_level sound_level_leq sound_level_max sound_peak co2 pm1 pm2_5 pm4 pm10 rssi snr
rsrp rsrq latitude longitude altitude ph soil_ph fill_level valve_position heating_demand cpu_load
"""
_CUSTOMARY: Final = frozenset(_CUSTOMARY_NAMES.split())
"""Properties whose unit makers do not state because all use the same."""


_CELLS_V: Final = 5.0
"""Voltages up to this are mostly those of the device's battery."""


def guess(facts: FieldFacts, unit: str = "") -> Guess | None:
    """Guess what a member measures, None if nothing fits; `unit`: as stated by the payload or the maker's document."""
    steps = facts.steps
    if not steps:
        return None
    named = named_unit(steps[-1])
    candidates = matches(steps)
    short = not candidates and steps[-1].lower() in _LETTER_WORDS
    if short:
        candidates = matches((_LETTER_WORDS[steps[-1].lower()],))
    if unit and (code := code_of(unit)):
        candidates = (*candidates, *_of_dimension(steps[-1], code, {match.property for match in candidates}))
    for match in candidates[:12]:
        row = PROPERTIES.by_name(_battery_property(match.property, facts))
        certain = unit or (named.code if named is not None and named.strong else "")
        if row.kind is ValueKind.NUMBER and contradicts(certain, row):
            continue
        fit = _guess_kind(row, facts, unit or (named.code if named is not None else ""))
        if fit is None:
            continue
        plain = match.plain or (match.with_unit and _settles(certain, row)) or _says_state(row, fit)
        sure = fit.sure and match.whole and plain and not short and row.name == match.property
        if question := _question(row, facts, fit, certain):
            sure = False
            fit = fit._replace(reason=f"{fit.reason}; {question}?")
        if unit and row.kind is ValueKind.NUMBER and not code_of(unit):
            sure = False
            fit = fit._replace(reason=f"{fit.reason}; the stated unit '{unit}' is not known")
        reason = f"'{steps[-1]}' says {row.label_en}; {fit.reason}"
        if match.rest:
            reason += f"; what does '{' '.join(match.rest)}' mean?"
        elif not plain or short:
            reason += "; the name alone says little"
        return fit._replace(sure=sure, reason=reason, fragment=not match.whole)
    return None


def _question(row: Property, facts: FieldFacts, fit: Guess, certain: str) -> str:
    """Return the doubt that the values leave about the name's meaning; empty: none. `certain`: a unit is stated."""
    if not facts.numbers:
        return ""
    low, high = min(facts.numbers), max(facts.numbers)
    battery_limit = _CELLS_V if facts.integral else _BATTERIES_V
    doubts = (
        (row.name == "voltage" and _converted(high, fit, row) <= _CELLS_V, "of a battery"),
        (row.name.endswith(("_min", "_max")) and facts.integral and low == high, "always the same: a setting"),
        (row.name == "battery_level" and not certain and 0 < high <= battery_limit, "of a hundred, or volts, or bars"),
        (row.unit == "%" and not certain and not facts.integral and low >= 0 < high <= 1, "a part of one"),
        (
            row.name in _BEARINGS and not certain and facts.integral and high <= _SECTORS,
            "in degrees, or one of sixteen sectors",
        ),
    )
    return next((question for applies, question in doubts if applies), "")


_BATTERIES_V: Final = 30.0
"""A fraction up to this is rather a voltage than a level of a hundred."""
_BEARINGS: Final = frozenset({"wind_direction", "wind_direction_mean", "heading"})
_SECTORS: Final = 16


def _converted(value: float, fit: Guess, row: Property) -> float:
    """Return a value as sent in the unit of its property."""
    factor, offset = conversion(fit.unit, row.unit)
    return value * fit.scale * factor + offset


def _settles(unit: str, row: Property) -> bool:
    """Return whether a stated unit makes up for a name that says little: not a percentage, which anything may have."""
    code = known_unit(unit, row)
    return bool(code) and dimension(code) != "fraction"


def _says_state(row: Property, fit: Guess) -> bool:
    """Return whether the words of a state say what the name leaves open: a door that is `open`."""
    return isinstance(fit.words, str) and any(part in row.name.split("_") for part in fit.words.split("_"))


def code_of(unit: str) -> str:
    """Return the UCUM code of a unit as a person wrote it, an empty string if it is unknown."""
    if not unit:
        return ""
    try:
        dimension(unit)
    except UnitError:
        return of_spelling(unit)
    return ucum_code(unit)


def contradicts(unit: str, row: Property) -> bool:
    """Return whether a stated unit is known and cannot be that of a property."""
    code = code_of(unit)
    if not code:
        return False
    try:
        conversion(code, row.unit)
    except UnitError:
        return True
    return is_other_power(code, row.unit)


_SAYING_LITTLE: Final = frozenset({"time", "duration", "count", "total", "level", "rate", "value", "average"})


def _of_dimension(name: str, code: str, known: set[str]) -> list[NameMatch]:
    """Return properties of the dimension of a stated unit that share a word with the name, or the only one there is."""
    if TABLE.get(code) is not None and TABLE[code].dimension == "fraction":
        return []
    rows = [row for row in PROPERTIES.rows if row.unit and row.name not in known and not contradicts(code, row)]
    words = set(words_of(name)) - _SAYING_LITTLE
    sharing = [row for row in rows if words & set(words_of(row.name))]
    chosen = sharing or (rows if len(rows) == 1 else [])
    return [NameMatch(row.name, 1, whole=False, plain=False, rest=(name,)) for row in chosen[:3]]


class Proposal(NamedTuple):
    """A property that the table lacks."""

    name: str
    unit: str
    """UCUM code; empty for a state."""


_LACKING: Final[tuple[tuple[frozenset[str], frozenset[str], str, str], ...]] = (
    (frozenset({"ratio"}), frozenset({"ct", "tc", "current"}), "current_transformer_ratio", "1"),
    (frozenset({"ratio"}), frozenset({"vt", "pt", "tt", "voltage"}), "voltage_transformer_ratio", "1"),
    (frozenset({"inactivity"}), frozenset(), "inactivity_alarm", ""),
    (frozenset({"sap"}), frozenset({"flow"}), "sap_flow", "cm/h"),
    (frozenset({"wood"}), frozenset({"moisture", "humidity"}), "wood_moisture", "%"),
    (frozenset({"ndvi"}), frozenset(), "vegetation_index", "1"),
)
"""(words that must all be there, words of which one must be there, property, unit) of quantities without a row."""


def propose(facts: FieldFacts, unit: str = "") -> Proposal | None:
    """Return the property that the table should have for a member that fits none of it."""
    steps = facts.steps
    words = {word for step in steps for word in words_of(step)}
    for needed, choice, name, code in _LACKING:
        if needed <= words and (not choice or choice & words):
            return Proposal(name, code)
    code = code_of(unit)
    if not code or not facts.numeric or not steps or code == "1":
        return None
    pieces = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", steps[-1]).lower()
    name = "_".join(re.findall(r"[a-z0-9]+", pieces))
    return Proposal(name, code) if name and name not in PROPERTIES and not name[0].isdigit() else None


def _battery_property(name: str, facts: FieldFacts) -> str:
    """Return the property of a battery's number: 2.5 to 3.7 are volts, 2500 to 3700 millivolts."""
    if name != "battery_level" or not facts.numbers:
        return name
    low, high = min(facts.numbers), max(facts.numbers)
    volts = (low >= 1.5 and high <= 4.5 and not facts.integral) or (low >= 1500 and high <= 4500)
    return "battery_voltage" if volts else name


def _guess_kind(row: Property, facts: FieldFacts, unit: str) -> Guess | None:
    if row.kind is ValueKind.NUMBER:
        return _guess_number(row, facts, unit)
    if row.kind is ValueKind.BOOLEAN:
        return _guess_boolean(row, facts)
    if facts.kinds["text"] and not facts.numeric:
        words = CODES.get(row.codes, {})
        samples = ", ".join(map(str, facts.words[:6]))
        unknown = [word for word in facts.words if isinstance(word, str) and words and word not in words]
        return Guess(row.name, reason=f"texts: {samples}", sure=not unknown)
    return None


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────


def _guess_number(row: Property, facts: FieldFacts, unit: str) -> Guess | None:
    if not facts.numeric or facts.kinds["boolean"]:
        return None
    low, high = _TYPICAL.get(row.name, (row.low, row.high))
    numbers, missing = _split_sentinels(facts, row)
    if not numbers:
        return None
    value_range = f"{min(numbers):g} to {max(numbers):g}" if min(numbers) != max(numbers) else f"{numbers[0]:g}"
    for code, scale in _candidates(row, facts, unit):
        factor, offset = conversion(code, row.unit)
        converted = [number * scale * factor + offset for number in numbers]
        if all(low <= value <= high for value in converted):
            as_stated = scale == 1 or not known_unit(unit, row)
            code, scale = _simplified(code, scale, row)  # noqa: PLW2901 - the same factor in a plainer form
            reason = f"{value_range} {code}" if scale == 1 else f"{value_range} fits only times {scale:g} {code}"
            known = row.name in _CUSTOMARY or row.unit == "1" or bool(known_unit(unit, row))
            if not known:
                reason += "; no unit is stated"
            sure = scale == 1 and as_stated and known and (code == row.unit or bool(known_unit(unit, row)))
            return Guess(row.name, code, scale, None, missing, reason, sure)
    code = known_unit(unit, row) or row.unit  # a stated unit is believed even where the values are unusual
    factor, offset = conversion(code, row.unit)
    if all(row.low <= number * factor + offset <= row.high for number in numbers):
        return Guess(row.name, code, 1.0, None, missing, f"{value_range} {code}, which is unusual", sure=False)
    return None


def _candidates(row: Property, facts: FieldFacts, unit: str) -> Iterable[tuple[str, float]]:
    """Yield (unit, scale) pairs, the most likely first."""
    units = [row.unit, *(code for code in _OTHER_UNITS.get(TABLE[row.unit].dimension, ()) if code != row.unit)]
    stated = known_unit(unit, row)
    if stated:
        units = [stated]
    whole = facts.integral
    for code in units[:1]:
        yield code, 1.0
        if row.name in {"latitude", "longitude"}:
            yield from ((code, scale) for scale in _COORDINATE_SCALES)
        elif whole:
            yield code, 0.1
    for code in units[1:]:
        yield code, 1.0
    if whole:
        for code in units:
            yield from ((code, scale) for scale in _TENTHS)


def _simplified(code: str, scale: float, row: Property) -> tuple[str, float]:
    """Return a unit and a scale as a single unit if there is one: thousandths of a volt are millivolts."""
    size = conversion(code, row.unit)[0] * scale
    for other in (row.unit, *_OTHER_UNITS.get(TABLE[row.unit].dimension, ())):
        if scale != 1 and math.isclose(conversion(other, row.unit)[0], size) and conversion(other, row.unit)[1] == 0:
            return other, 1.0
    return code, scale


def known_unit(unit: str, row: Property) -> str:
    """Return the UCUM code of a unit as a person wrote it if it converts to the property's, else an empty string."""
    if not unit:
        return ""
    code = code_of(unit)
    try:
        conversion(code, row.unit)
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
"""Numbers that devices send for a missing value."""
_NO_VALUE: Final = frozenset(
    {"", "-", "--", "NA", "N/A", "n/a", "NaN", "nan", "null", "None", "none", "ERR", "error", "/"}
)


def _split_sentinels(facts: FieldFacts, row: Property) -> tuple[list[float], tuple[Any, ...]]:
    """Return the numbers without those that probably mean "not measured", and the latter."""
    markers = sentinels(facts, row)
    texts = tuple(word for word in facts.words if isinstance(word, str) and word in _NO_VALUE)
    numbers = [number for number in facts.numbers if number not in markers]
    return numbers, (*(int(marker) if marker == int(marker) else marker for marker in sorted(markers)), *texts)


def sentinels(facts: FieldFacts, row: Property | None = None) -> set[float]:
    """Return the numbers known as markers that lie far from all others, or out of the property's range."""
    markers: set[float] = set()
    for suspect in set(facts.numbers) & SENTINELS:
        others = [number for number in facts.numbers if number not in SENTINELS]
        if not others:
            impossible = (
                row is not None and not row.low <= suspect <= row.high and not row.low <= suspect / 10 <= row.high
            )
            if impossible:
                markers.add(suspect)
            continue
        span = max(max(others) - min(others), 1.0, 0.2 * max(abs(number) for number in others))
        if suspect > max(others) + 3 * span or suspect < min(others) - 3 * span:
            markers.add(suspect)
    return markers


# ── booleans ─────────────────────────────────────────────────────────────────────────────────────────

_SWITCH_TABLES: Final = (
    "on_off",
    "yes_no",
    "open_closed",
    "alarm_normal",
    "online_offline",
    "occupied_free",
    "locked_unlocked",
)


def _guess_boolean(row: Property, facts: FieldFacts) -> Guess | None:
    values: Sequence[Any] = [value for value in facts.words if value is not None]
    if facts.more_values or len(values) > 4 or not values:
        return None
    if all(isinstance(value, bool) for value in values):
        return Guess(row.name, reason="true or false")
    if all(isinstance(value, int) and value in {0, 1} for value in values):
        return Guess(row.name, reason="0 or 1; which is which is a guess", sure=False)
    tables = [name for name in _SWITCH_TABLES if _has_words(name, values)]
    fitting = [name for name in tables if any(part in row.name for part in name.split("_"))] or tables
    if fitting:
        return Guess(
            row.name, words=fitting[0], reason=f"words of the table {fitting[0]}: {', '.join(map(str, values))}"
        )
    return None


def _has_words(table: str, values: Sequence[Any]) -> bool:
    sent = {(type(word) is bool, word) for word, _ in TABLES[table].words}
    return all(not isinstance(value, float) and (type(value) is bool, value) in sent for value in values)
