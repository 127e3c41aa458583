"""Zigbee2MQTT's ``exposes``: what a model says that it can tell, with units, ranges and the words of its switches.

Taken: a JSON file (one definition, a list of them, or the payload of ``bridge/devices``) or JSON lines. Members that
are settings, and those that are not published, become nothing and are named.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sensegate.authoring.imports.made import How, Imported, Row, expected, head, loads, part, read_text, reading
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.yaml_text import as_json, comment, flow, text
from sensegate.errors import ConfigError
from sensegate.quantities.properties import CODES, PROPERTIES
from sensegate.quantities.units import UnitError, canonical, conversion

SOURCE: Final = "https://www.zigbee2mqtt.io/guide/usage/exposes.html; exposes of the model as imported"

_NUMBER_ROWS: Final = """
temperature=air_temperature; local_temperature=room_temperature; device_temperature=device_temperature
occupied_heating_setpoint=setpoint_temperature; current_heating_setpoint=setpoint_temperature
humidity=relative_humidity; soil_moisture=soil_moisture; pressure=air_pressure; pi_heating_demand=heating_demand
position=valve_position; valve_position=valve_position; battery=battery_level; voltage=voltage; current=current
power=active_power; power_reactive=reactive_power; power_apparent=apparent_power; power_factor=power_factor
energy=energy; produced_energy=energy_exported; energy_produced=energy_exported; ac_frequency=frequency
linkquality=link_quality; power_outage_count=power_outage_count; trigger_count=trigger_count
illuminance=illuminance; illuminance_lux=illuminance; brightness=brightness; noise=sound_level
co2=co2; voc=voc voc_fraction; voc_index=voc_index; pm1=pm1; pm25=pm2_5; pm10=pm10
formaldehyd=formaldehyde formaldehyde_fraction; hcho=formaldehyde formaldehyde_fraction; gas_value=gas_fraction
smoke_concentration=smoke_concentration; smoke_density=smoke_density; angle=tilt_angle; target_distance=distance
water_consumed=water_volume; flow=water_flow; ph=ph; ec=conductivity; tds=total_dissolved_solids; orp=orp
rain_intensity=rain_intensity
"""
_SWITCH_ROWS: Final = """
state=switched_on; contact=contact; occupancy=occupancy; presence=presence; motion=motion; moving=moving
water_leak=water_leak; rain=raining; smoke=smoke; gas=gas_alarm; carbon_monoxide=co_alarm; alarm=alarm; sos=sos
tamper=tamper; battery_low=battery_low; vibration=vibration; tilt=tilted; fault=fault; fault_alarm=fault
self_test=self_test; child_lock=child_lock; silence=alarm_muted; window_open=window_open; charging=charging
ac_status=mains_powered
"""
_TEXT_ROWS: Final = """
action=action; air_quality=air_quality; battery_state=battery_state; energy_flow=energy_flow
running_state=running_state; system_mode=system_mode; motion_state=motion_state; gas_state=gas_state
reliability=reliability; error_state=fault_state; fault_state=fault_state; smoke_state=alarm_state
"""


def _rows(text_: str) -> dict[str, tuple[str, ...]]:
    pairs = (pair.partition("=") for pair in re.split(r"[;\n]", text_) if pair.strip())
    return {name.strip(): tuple(properties.split()) for name, _, properties in pairs}


_NUMBERS: Final = _rows(_NUMBER_ROWS)
"""Member -> properties, of which the first counts that its unit can become."""
_SWITCHES: Final = {name: properties[0] for name, properties in _rows(_SWITCH_ROWS).items()}
_TEXTS: Final = {name: properties[0] for name, properties in _rows(_TEXT_ROWS).items()}
_SHOWN: Final = {
    "Cel": 21.5, "%": 60, "[ppm]": 612, "[ppb]": 120, "ug/m3": 23, "mg/m3": 0.5, "hPa": 1013.2, "kPa": 101.3, "lx": 320,
    "V": 230.5, "mV": 3000, "A": 1.25, "mA": 250, "W": 288.1, "kW.h": 12.5, "Hz": 50, "m": 1.5, "s": 60, "dB": 55,
}  # fmt: skip
"""A value for an example, in a unit."""


class _Exposed(NamedTuple):
    """One member of the state."""

    name: str
    kind: str
    unit: str
    on: Any
    off: Any
    values: tuple[str, ...]
    setting: str
    """Why it is no measurement; empty: it may be one."""
    low: float | None
    high: float | None


def read(path: Path) -> Iterator[Imported]:
    """Yield a profile for each model that a file exposes; nothing where it is no such file."""
    if not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        return
    seen: set[str] = set()
    for entry in _entries(path):
        definition = entry.get("definition") if isinstance(entry.get("definition"), dict) else entry
        if not isinstance(definition, dict) or not isinstance(definition.get("exposes"), list):
            continue
        made = _profile(definition)
        if made.profile not in seen:
            seen.add(made.profile)
            yield made


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    body = read_text(path)
    try:
        tree = (
            [json.loads(line) for line in body.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(body)
        )
    except ValueError as why:
        raise ConfigError("is no JSON", file=str(path), remedy=str(why)) from why
    for entry in tree if isinstance(tree, list) else [tree]:
        if isinstance(entry, dict):
            yield entry


def _flat(exposes: list[Any]) -> Iterator[_Exposed]:
    """Yield the members of all features, nested ones too."""
    for one in exposes:
        if not isinstance(one, dict):
            continue
        if isinstance(one.get("features"), list) and one.get("type") != "composite":
            yield from _flat(one["features"])
            continue
        name = one.get("property") or one.get("name")
        if not isinstance(name, str):
            continue
        values = tuple(str(value) for value in one.get("values") or ())
        yield _Exposed(
            name,
            str(one.get("type", "")),
            str(one.get("unit") or ""),
            one.get("value_on"),
            one.get("value_off"),
            values,
            _setting(one, name),
            one.get("value_min"),
            one.get("value_max"),
        )


_SETTINGS: Final = (
    "calibration", "sensitivity", "timeout", "threshold", "_mode", "units", "_unit", "interval", "frequency",
    "countdown", "indicat", "memory", "comfort_", "display", "fading_time", "_duration", "reports", "switch_type",
    "boost", "setpoint_change", "remote_temperature", "valve_adapt", "window_detection", "test", "temperature_alarm",
    "humidity_alarm", "max_temp", "min_temp",
)  # fmt: skip
_NOT_SETTINGS: Final = frozenset({"system_mode", "ac_frequency", "self_test"})


def _setting(one: Mapping[str, Any], name: str) -> str:
    access = one.get("access")
    if isinstance(access, int) and not access & 1:
        return "it is not published"
    if one.get("category") == "config":
        return "it is a setting"
    if name not in _NOT_SETTINGS and any(word in f"{name}_" or word in f"_{name}" for word in _SETTINGS):
        return "it seems to be a setting"
    return ""


def _profile(definition: Mapping[str, Any]) -> Imported:
    vendor, model = str(definition.get("vendor") or "unknown"), str(definition.get("model") or "unnamed")
    profile = f"zigbee2mqtt/{part(model)}"
    members = list(_flat(definition["exposes"]))
    names = {one.name for one in members}
    rows: list[Row] = []
    taken: list[tuple[_Exposed, Guess]] = []
    for one in members:
        found = _taken(one, names)
        if isinstance(found, str):
            rows.append(Row(one.name, "left", unit=one.unit, why=found))
            continue
        how: How = "mapped" if found.sure else "guessed"
        rows.append(Row(one.name, how, found.property, found.unit, found.reason))
        taken.append((one, found))
    described = str(definition.get("description") or model)
    domain = next(
        (
            PROPERTIES.by_name(one.property).domain
            for _, one in taken
            if PROPERTIES.by_name(one.property).domain != "device"
        ),
        "device",
    )
    lines = head(
        profile,
        f"{vendor} {model}",
        f"{vendor} {model}: {described}",
        SOURCE,
        f"{vendor} {model}, made of its exposes",
        domain=domain,
    )
    lines += _messages(taken)
    lines += [f"      {comment(f'left out: {row.field} ({row.why})')}" for row in rows if row.how == "left"]
    body = "\n".join([*lines, *_examples(taken)]) + "\n"
    return Imported(profile, body, {}, rows, loads(body, Path()))


def _taken(one: _Exposed, names: set[str]) -> Guess | str:
    """Return what a member becomes, or why it becomes nothing."""
    if one.setting:
        return one.setting
    base, channel = _split(one.name)
    if one.kind == "numeric":
        if base == "voltage" and (one.unit == "mV" or ("battery" in names and one.unit != "V")):
            return _number(one, ("battery_voltage",), channel)
        return _number(one, _NUMBERS.get(base, ()), channel)
    if one.kind == "binary" and (name := _SWITCHES.get(base)):
        plain = one.on is True and one.off is False
        return Guess(name, words=None if plain else {one.on: True, one.off: False}, reason=f"{one.on} and {one.off}")
    return _text(one, base)


def _text(one: _Exposed, base: str) -> Guess | str:
    if one.kind in {"enum", "text"} and (name := _TEXTS.get(base)):
        codes = CODES.get(PROPERTIES.by_name(name).codes, {})
        strange = [value for value in one.values if codes and value not in codes]
        return Guess(
            name, reason=f"not in our table of codes: {', '.join(strange)}" if strange else "a word", sure=not strange
        )
    return f"no property for a {one.kind or 'member'} of this name"


def _number(one: _Exposed, names: tuple[str, ...], channel: str) -> Guess | str:
    if not names:
        return "no property for a number of this name"
    unit = canonical(one.unit) if one.unit else ""
    for name in names:
        row = PROPERTIES.by_name(name)
        try:
            conversion(unit or row.unit, row.unit)
        except UnitError:
            continue
        note = f"channel {channel}" if channel else ""
        return Guess(
            name, unit or row.unit, reason=note or (one.unit or "no unit is given"), sure=bool(unit) or row.unit == "1"
        )
    return f"its unit {one.unit} cannot become that of {names[0]}"


_CHANNELS: Final = frozenset("abcxyz") | {"l1", "l2", "l3", "l4", "left", "right", "ab"}


def _split(name: str) -> tuple[str, str]:
    """Return (name, channel) of ``power_a``, ``voltage_X``, ``temperature_38``, ``state_l1``."""
    base, _, end = name.rpartition("_")
    known = base in _NUMBERS or base in _SWITCHES or base in _TEXTS
    if known and (end.lower() in _CHANNELS or end.isdigit()) and name not in _NUMBERS:
        return base, end.lower()
    return name, ""


def _messages(taken: list[tuple[_Exposed, Guess]]) -> list[str]:
    lines = [
        "messages:",
        "  - label: availability",
        '    topics: ["zigbee2mqtt/{device+}/availability"]',
        "    readings:",
        "      - {field: state, property: online, words: {online: true, offline: false}}",
        "  - label: state",
        '    topics: ["zigbee2mqtt/{device+}"]',
        "    time: {field: last_seen, format: [iso, epoch_ms]}",
    ]
    if not any(True for _ in taken):
        return [*lines, "    ignore: true"]
    many = Counter(one.property for _, one in taken)
    lines.append("    readings:")
    for one, guess in taken:
        lines.append(reading(one.name, guess, channel=_split(one.name)[1] if many[guess.property] > 1 else ""))
    return lines


def _examples(taken: list[tuple[_Exposed, Guess]]) -> list[str]:
    """Return examples: one value for each member, in the unit that the model declares; there is no recorded one."""
    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    for one, guess in taken:
        if one.kind == "numeric":
            on[one.name] = _value(one, guess)
        elif one.kind == "binary":
            on[one.name], off[one.name] = one.on, one.off
        else:
            on[one.name] = one.values[0] if one.values else "word"
    guesses = {one.name: guess for one, guess in taken}
    lines = ["examples: # values are made up; names, units and words are those that the model exposes"]
    for label, payload in (("one value of each", on), ("the other words", off)):
        if payload:
            lines += [
                f"  - label: {label}",
                "    topic: zigbee2mqtt/d1",
                f"    payload: {as_json(payload)}",
                "    expect:",
            ]
            for name, value in payload.items():
                guess = guesses[name]
                row = {"property": guess.property, "value": expected(guess, value), "field": name}
                lines.append(f"      - {flow(row)}")
    lines += [
        "  - label: gone",
        "    topic: zigbee2mqtt/d1/availability",
        '    payload: {"state": "offline"}',
        "    expect: [{property: online, value: false}]",
        "  - label: no state",
        "    topic: zigbee2mqtt/d1",
        f"    payload: {text('[1, 2')}",
        "    refuse: malformed",
    ]
    return lines


def _value(one: _Exposed, guess: Guess) -> float:
    """Return a value in the declared range and in that of the property."""
    row = PROPERTIES.by_name(guess.property)
    value = float(_SHOWN.get(guess.unit, 3))
    if guess.property == "power_factor":
        value = 95 if guess.unit == "%" else 0.95
    low, high = one.low, one.high
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and not low <= value <= high:
        value = (low + high) / 2
    scale, offset = conversion(guess.unit or row.unit, row.unit)
    if not row.low <= value * scale + offset <= row.high:
        value = ((max(row.low, -1e6) + min(row.high, 1e6)) / 2 - offset) / scale
    return int(value) if value == int(value) else value
