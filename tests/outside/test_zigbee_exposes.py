"""What each Zigbee model says it exposes, against the profile that an operator gives it: units, states, words.

The list is not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/zigbee2mqtt-exposes.jsonl`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.examples import ExampleReading, same_value
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import conversion
from tests.outside.mqtt import SAMPLES, decode, lines, zigbee

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/zigbee2mqtt-exposes.jsonl"
)

UCUM = {"°C": "Cel", "µg/m³": "ug/m3", "ppm": "[ppm]", "ppb": "[ppb]", "kWh": "kW.h", "VA": "V.A", "VAr": "V.A"}
SETTINGS = {
    "automatic_valve_adapt", "boost_heating", "child_lock", "comfort_humidity_max", "comfort_humidity_min",
    "comfort_temperature_max", "comfort_temperature_min", "countdown", "display_brightness", "display_orientation",
    "display_switch_on_duration", "display_unit", "displayed_temperature", "error_state", "fading_time",
    "humidity_calibration", "indicator", "indicator_mode", "led_indication", "local_temperature_calibration",
    "max_duration", "motion_detection_mode", "motion_detection_sensitivity", "motion_sensitivity", "occupancy_timeout",
    "operating_mode", "operation_mode", "power_outage_memory", "restore_reports", "setpoint_change_source", "silence",
    "static_detection_distance", "static_detection_sensitivity", "supervision_reports", "switch_type_button",
    "temperature_calibration", "temperature_unit", "temperature_units", "timestamp_a", "timestamp_b",
    "update_frequency", "valve_adapt_status", "window_detection",
}  # fmt: skip
"""Members that set a device up, or say how it is set up: no readings."""


def models() -> list[Any]:
    return lines("zigbee2mqtt-exposes.jsonl")


def read(model: dict[str, Any], name: str, value: Any) -> list[ExampleReading]:
    """Return the readings of a message that holds this member alone; none where the profile knows no such member."""
    sample = {
        "topic": f"zigbee2mqtt/{model['friendly_name']}",
        "model": model["model"],
        "payload": json.dumps({name: value}),
    }
    fields, decoded = decode(sample, zigbee(sample))
    assert not fields.rejected, (name, value, fields.rejected)
    assert decoded or fields.ignored or fields.quarantined
    return decoded


def values_of(member: dict[str, Any]) -> list[Any]:
    """Return values that the model may send."""
    if member["type"] == "binary":
        return [member["value_on"], member["value_off"]]
    if member["type"] == "enum":
        return list(member["values"])
    if member["type"] == "numeric":
        return [member.get("value_min", 0), min(member.get("value_max", 7), 100)]
    return ["x"]


@pytest.mark.parametrize("model", models())
def test_members_are_readings_in_the_units_that_the_model_names(model: dict[str, Any]) -> None:
    """Each value that a member may have is taken; a number comes out as the exposed unit says, a binary both ways."""
    for member in model["exposes"]:
        name = member["property"]
        readings = [(value, read(model, name, value)) for value in values_of(member)]
        known = [(value, row[0]) for value, row in readings if row]
        assert bool(known) != (name in SETTINGS), name
        for value, entry in known:
            unit = member.get("unit")
            if member["type"] == "numeric" and unit:
                scale, offset = conversion(UCUM.get(unit, unit), PROPERTIES.by_name(entry.property).unit)
                assert same_value(value * scale + offset, entry.value), (name, unit, str(entry))
        if member["type"] == "binary" and known:
            assert [entry.value for _, entry in known] in ([True, False], [False, True]), name


def test_a_contact_that_is_closed_is_true() -> None:
    """`contact: true` means closed, as the list says of it; it is not the opening of a door."""
    result = 0
    for model in (param.values[0] for param in models()):
        if any(member["property"] == "contact" for member in model["exposes"]):
            assert [(row.property, row.value) for row in read(model, "contact", True)] == [("contact", True)]
            result += 1
    assert result
