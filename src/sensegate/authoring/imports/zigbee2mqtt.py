"""Import Zigbee2MQTT's ``exposes``: the members that a model publishes, with units, ranges and words of switches.

Accepted: a JSON file (one definition, a list of them, or the payload of ``bridge/devices``) or JSON lines. Settings and
members that are not published are reported and left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sensegate.authoring.imports.profile_text import (
    FieldMapping,
    ImportedProfile,
    MappingOutcome,
    expected_value,
    head_lines,
    load_problem,
    name_part,
    read_text,
    reading_line,
)
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.yaml_text import as_json, comment_text, flow_text, plain_text
from sensegate.errors import ConfigError
from sensegate.quantities.properties import CODES, PROPERTIES
from sensegate.quantities.units import UnitError, conversion, ucum_code

SOURCE: Final = "https://www.zigbee2mqtt.io/guide/usage/exposes.html; exposes of the model as imported"

_NUMBER_ROWS: Final = """
temperature=air_temperature; local_temperature=room_temperature; device_temperature=device_temperature
occupied_heating_setpoint=setpoint_temperature; current_heating_setpoint=setpoint_temperature
humidity=relative_humidity; soil_moisture=soil_moisture; pressure=air_pressure; pi_heating_demand=heating_demand
valve_position=valve_position; battery=battery_level; voltage=voltage; current=current
power=active_power; power_reactive=reactive_power; power_apparent=apparent_power; power_factor=power_factor
energy=energy; produced_energy=energy_exported; energy_produced=energy_exported; ac_frequency=frequency
linkquality=link_quality; power_outage_count=power_outage_count; trigger_count=trigger_count
illuminance=illuminance; illuminance_lux=illuminance; brightness=brightness; noise=sound_level
co2=co2; voc=voc voc_fraction; voc_index=voc_index; pm1=pm1; pm25=pm2_5; pm10=pm10
formaldehyd=formaldehyde formaldehyde_fraction; hcho=formaldehyde formaldehyde_fraction; gas_value=gas_fraction
smoke_concentration=smoke_concentration; smoke_density=smoke_density; angle=tilt_angle; target_distance=distance
angle_x=tilt_x; angle_y=tilt_y; angle_z=tilt_z
water_consumed=water_volume; flow=water_flow; ph=ph; ec=conductivity; tds=total_dissolved_solids; orp=orp
rain_intensity=rain_intensity
"""
_SWITCH_ROWS: Final = """
contact=contact; occupancy=occupancy; presence=presence; motion=motion; moving=moving
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
"""Member -> candidate properties; the first to which its unit can be converted is used."""
_SWITCHES: Final = {name: properties[0] for name, properties in _rows(_SWITCH_ROWS).items()}
_TEXTS: Final = {name: properties[0] for name, properties in _rows(_TEXT_ROWS).items()}
_EXAMPLE_VALUES: Final = {
    "Cel": 21.5, "%": 60, "[ppm]": 612, "[ppb]": 120, "ug/m3": 23, "mg/m3": 0.5, "hPa": 1013.2, "kPa": 101.3, "lx": 320,
    "V": 230.5, "mV": 3000, "A": 1.25, "mA": 250, "W": 288.1, "kW.h": 12.5, "Hz": 50, "m": 1.5, "s": 60, "dB": 55,
}  # fmt: skip
"""Unit -> value for an example."""


class _Exposed(NamedTuple):
    """A member of the published state."""

    name: str
    kind: str
    unit: str
    on: Any
    off: Any
    values: tuple[str, ...]
    setting: str
    """Reason why it is not a measurement; empty: it may be one."""
    low: float | None
    high: float | None
    within: str
    """Type of the feature that holds it: cover, lock, switch, light, climate, fan; empty: none."""


def read(path: Path) -> Iterator[ImportedProfile]:
    """Yield a profile for each model that a file exposes; nothing for other files."""
    if not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        return
    seen: set[str] = set()
    for entry in _entries(path):
        definition = entry.get("definition") if isinstance(entry.get("definition"), dict) else entry
        if not isinstance(definition, dict) or not isinstance(definition.get("exposes"), list):
            continue
        imported = _profile(definition)
        if imported.profile not in seen:
            seen.add(imported.profile)
            yield imported


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    body = read_text(path)
    try:
        tree = (
            [json.loads(line) for line in body.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(body)
        )
    except ValueError as error:
        raise ConfigError("is not JSON", file=str(path), remedy=str(error)) from error
    for entry in tree if isinstance(tree, list) else [tree]:
        if isinstance(entry, dict):
            yield entry


def _exposed_members(exposes: list[Any], within: str = "") -> Iterator[_Exposed]:
    """Yield the members of all features, nested ones included; `within`: the type of the feature around them."""
    for expose in exposes:
        if not isinstance(expose, dict):
            continue
        if isinstance(expose.get("features"), list) and expose.get("type") != "composite":
            yield from _exposed_members(expose["features"], str(expose.get("type", "")))
            continue
        name = expose.get("property") or expose.get("name")
        if not isinstance(name, str):
            continue
        values = tuple(str(value) for value in expose.get("values") or ())
        yield _Exposed(
            name,
            str(expose.get("type", "")),
            str(expose.get("unit") or ""),
            expose.get("value_on"),
            expose.get("value_off"),
            values,
            _setting_reason(expose, name),
            expose.get("value_min"),
            expose.get("value_max"),
            within,
        )


_SETTINGS: Final = (
    "calibration", "sensitivity", "timeout", "threshold", "_mode", "units", "_unit", "interval", "frequency",
    "countdown", "indicat", "memory", "comfort_", "display", "fading_time", "_duration", "reports", "switch_type",
    "boost", "setpoint_change", "remote_temperature", "valve_adapt", "window_detection", "test", "temperature_alarm",
    "humidity_alarm", "max_temp", "min_temp",
)  # fmt: skip
_NOT_SETTINGS: Final = frozenset({"system_mode", "ac_frequency", "self_test"})


def _setting_reason(expose: Mapping[str, Any], name: str) -> str:
    access = expose.get("access")
    if isinstance(access, int) and not access & 1:
        return "it is not published"
    if expose.get("category") == "config":
        return "it is a setting"
    if name not in _NOT_SETTINGS and any(word in f"{name}_" or word in f"_{name}" for word in _SETTINGS):
        return "it appears to be a setting"
    return ""


def _profile(definition: Mapping[str, Any]) -> ImportedProfile:
    vendor, model = str(definition.get("vendor") or "unknown"), str(definition.get("model") or "unnamed")
    profile = f"zigbee2mqtt/{name_part(model)}"
    description = str(definition.get("description") or model)
    members = list({member.name: member for member in reversed(list(_exposed_members(definition["exposes"])))}.values())
    members.reverse()  # the first of two members of a name
    names = {member.name for member in members}
    rows: list[FieldMapping] = []
    mapped: list[tuple[_Exposed, Guess]] = []
    for member in members:
        guessed = _guess_member(member, names)
        if isinstance(guessed, Guess) and (doubt := _doubt(member, guessed.property, description, names)):
            guessed = guessed._replace(sure=False, reason=f"{guessed.reason}; {doubt}")
        if isinstance(guessed, str):
            rows.append(FieldMapping(member.name, "skipped", unit=member.unit, reason=guessed))
            continue
        outcome: MappingOutcome = "mapped" if guessed.sure else "guessed"
        rows.append(FieldMapping(member.name, outcome, guessed.property, guessed.unit, guessed.reason))
        mapped.append((member, guessed))
    domain = next(
        (
            PROPERTIES.by_name(guess.property).domain
            for _, guess in mapped
            if PROPERTIES.by_name(guess.property).domain != "device"
        ),
        "device",
    )
    lines = head_lines(
        profile,
        f"{vendor} {model}",
        f"{vendor} {model}: {description}",
        SOURCE,
        f"{vendor} {model}, made of its exposes",
        domain=domain,
    )
    lines += _messages(mapped)
    lines += [
        f"      {comment_text(f'left out: {row.field} ({row.reason})')}" for row in rows if row.outcome == "skipped"
    ]
    body = "\n".join([*lines, *_examples(mapped)]) + "\n"
    return ImportedProfile(profile, body, {}, rows, load_problem(body, Path()))


_ELSEWHERE: Final = {
    "air_pressure": re.compile(r"(?i)water|gas\b|pipe|pump|tyre|tire|filter|level|tank"),
    "air_temperature": re.compile(
        r"(?i)water|pool|soil|plant|flower|floor|probe|pipe|freez|fridge|boiler|radiator|valve|plug|socket|outlet|relay|switch"
        r"|dimmer|meter\b|light|bulb|\block|siren|pump|heat|leak|breaker|cover|curtain|blind|shutter|din\b|controller|remote"
        r"|button|keypad|tank|level|guard|module|pulse|usb|stove"
    ),
    "relative_humidity": re.compile(r"(?i)soil|plant|flower|moisture"),
    "illuminance": re.compile(r"(?i)soil"),
    "conductivity": re.compile(r"(?i)soil|plant|flower"),
    "ph": re.compile(r"(?i)soil|plant|flower"),
}
"""Property -> words of descriptions of devices that measure something else under its usual name."""
_AMBIENT: Final = frozenset(
    {"humidity", "pressure", "co2", "pm25", "voc", "illuminance", "occupancy", "presence", "contact", "smoke"}
)
"""Members of devices that stand in a room or outdoors."""
_LOADS: Final = frozenset(
    {"power", "current", "energy", "power_apparent", "ac_frequency", "power_a", "power_l1", "power_1"}
)
_THERMOMETER: Final = re.compile(r"(?i)temperature|thermo(?:meter|.?hygro)|climate|weather|environment")


def _doubt(member: _Exposed, name: str, description: str, names: set[str]) -> str:
    """Return why a property is doubtful for a device of such a description and such members; empty if it is not."""
    if name == "voltage" and not names & _LOADS:
        return "of the battery, or of the mains?"
    pattern = _ELSEWHERE.get(name)
    if pattern is None:
        return ""
    if word := pattern.search(description):
        return f"of what, in a device described by '{word[0]}'?"
    if _split_channel(member.name)[1].isdigit():
        return "of which probe?"
    if name == "air_temperature" and not names & _AMBIENT and not _THERMOMETER.search(description):
        return "of the air, or of the device?"
    return ""


_STATES: Final = {
    ("ON", "OFF"): ("switched_on", True),
    ("LOCK", "UNLOCK"): ("locked", True),
    ("UNLOCK", "LOCK"): ("locked", False),
    ("True", "False"): ("switched_on", True),
}
"""(word for on, word for off) of a `state` -> property, and its value for the first word."""


def _guess_state(member: _Exposed) -> Guess | str:
    """Return the guess for a `state`, which the words decide."""
    chosen = _STATES.get((str(member.on), str(member.off)))
    if chosen is None:
        return f"no property for a state that is {member.on} or {member.off}"
    name, first = chosen
    is_boolean = member.on is True and member.off is False
    words = None if is_boolean else {member.on: first, member.off: not first}
    return Guess(name, words=words, reason=f"{member.on} and {member.off}")


def _guess_member(member: _Exposed, names: set[str]) -> Guess | str:
    """Return the guess for a member, or why it is left out."""
    if member.setting:
        return member.setting
    base, channel = _split_channel(member.name)
    if member.kind == "numeric":
        return _guess_number(member, _number_properties(member, base, names), channel)
    if member.kind == "binary" and base == "state":
        return _guess_state(member)
    if member.kind == "binary" and (name := _SWITCHES.get(base)):
        is_boolean = member.on is True and member.off is False
        return Guess(
            name,
            words=None if is_boolean else {member.on: True, member.off: False},
            reason=f"{member.on} and {member.off}",
        )
    return _guess_text(member, base)


def _number_properties(member: _Exposed, base: str, names: set[str]) -> tuple[str, ...]:
    """Return the properties that a number of this name may be; what surrounds it decides between some."""
    if base == "voltage" and (member.unit == "mV" or ("battery" in names and member.unit != "V")):
        return ("battery_voltage",)
    if base in {"position", "tilt"}:
        return ("blind_position",) if base == "position" and member.within == "cover" else ()
    return _NUMBERS.get(base, ())


def _guess_text(member: _Exposed, base: str) -> Guess | str:
    if member.kind in {"enum", "text"} and (name := _TEXTS.get(base)):
        codes = CODES.get(PROPERTIES.by_name(name).codes, {})
        unknown = [value for value in member.values if codes and value not in codes]
        return Guess(
            name, reason=f"not in the table of codes: {', '.join(unknown)}" if unknown else "a word", sure=not unknown
        )
    return f"no property for a {member.kind or 'member'} of this name"


def _guess_number(member: _Exposed, names: tuple[str, ...], channel: str) -> Guess | str:
    if not names:
        return "no property for a number of this name"
    unit = ucum_code(member.unit) if member.unit else ""
    for name in names:
        row = PROPERTIES.by_name(name)
        try:
            conversion(unit or row.unit, row.unit)
        except UnitError:
            continue
        note = f"channel {channel}" if channel else ""
        return Guess(
            name,
            unit or row.unit,
            reason=note or (member.unit or "no unit is stated"),
            sure=bool(unit) or row.unit == "1",
        )
    return f"its unit {member.unit} cannot be converted to that of {names[0]}"


_CHANNELS: Final = frozenset("abcxyz") | {"l1", "l2", "l3", "l4", "skipped", "right", "ab"}


def _split_channel(name: str) -> tuple[str, str]:
    """Split ``power_a``, ``voltage_X``, ``temperature_38``, ``state_l1`` into name and channel."""
    base, _, end = name.rpartition("_")
    known = base in _NUMBERS or base in _SWITCHES or base in _TEXTS or base in {"state", "position"}
    if known and (end.lower() in _CHANNELS or end.isdigit()) and name not in _NUMBERS:
        return base, end.lower()
    return name, ""


def _messages(mapped: list[tuple[_Exposed, Guess]]) -> list[str]:
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
    if not any(True for _ in mapped):
        return [*lines, "    ignore: true"]
    counts = Counter(member.property for _, member in mapped)
    lines.append("    readings:")
    for member, guess in mapped:
        lines.append(
            reading_line(
                member.name, guess, channel=_split_channel(member.name)[1] if counts[guess.property] > 1 else ""
            )
        )
    return lines


def _examples(mapped: list[tuple[_Exposed, Guess]]) -> list[str]:
    """Return examples: one value for each member, in the unit that the model declares; none of them is recorded."""
    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    for member, guess in mapped:
        if member.kind == "numeric":
            on[member.name] = _example_value(member, guess)
        elif member.kind == "binary":
            on[member.name], off[member.name] = member.on, member.off
        else:
            on[member.name] = member.values[0] if member.values else "word"
    guesses = {member.name: guess for member, guess in mapped}
    lines = ["examples: # values are invented; names, units and words are those that the model exposes"]
    for label, payload in (("one value of each member", on), ("the opposite words", off)):
        if payload:
            lines += [
                f"  - label: {label}",
                "    topic: zigbee2mqtt/d1",
                f"    payload: {as_json(payload)}",
                "    expect:",
            ]
            for name, value in payload.items():
                guess = guesses[name]
                row = {"property": guess.property, "value": expected_value(guess, value), "field": name}
                lines.append(f"      - {flow_text(row)}")
    lines += [
        "  - label: gone",
        "    topic: zigbee2mqtt/d1/availability",
        '    payload: {"state": "offline"}',
        "    expect: [{property: online, value: false}]",
        "  - label: cut short",
        f"    topic: zigbee2mqtt/d1{'' if mapped else '/availability'}",
        f"    payload: {plain_text('[1, 2')}",
        "    refuse: malformed",
    ]
    return lines


def _example_value(member: _Exposed, guess: Guess) -> float:
    """Return a value within the declared range and within that of the property."""
    row = PROPERTIES.by_name(guess.property)
    value = float(_EXAMPLE_VALUES.get(guess.unit, 3))
    if guess.property == "power_factor":
        value = 95 if guess.unit == "%" else 0.95
    low, high = member.low, member.high
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and not low <= value <= high:
        value = (low + high) / 2
    scale, offset = conversion(guess.unit or row.unit, row.unit)
    if not row.low <= value * scale + offset <= row.high:
        value = ((max(row.low, -1e6) + min(row.high, 1e6)) / 2 - offset) / scale
    return int(value) if value == int(value) else value
