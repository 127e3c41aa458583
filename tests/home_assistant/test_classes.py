"""Device classes: every property of the table gives what Home Assistant accepts."""

from __future__ import annotations

import pytest

from sensegate.home_assistant.classes import SensorClass, sensor_class
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind

ACCEPTED = {
    "apparent_power": {"VA", "kVA", "mVA"},
    "atmospheric_pressure": {"Pa", "hPa", "kPa"},
    "battery": {"%"},
    "carbon_dioxide": {"ppm"},
    "conductivity": {"µS/cm", "mS/cm", "S/cm"},
    "current": {"A", "mA"},
    "distance": {"m", "km", "cm", "mm"},
    "duration": {"s", "h", "min", "d", "ms"},
    "energy": {"kWh", "Wh", "MWh", "MJ"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "gas": {"m³"},
    "humidity": {"%"},
    "illuminance": {"lx"},
    "irradiance": {"W/m²"},
    "moisture": {"%"},
    "nitrogen_dioxide": {"µg/m³"},
    "nitrogen_monoxide": {"µg/m³"},
    "ozone": {"µg/m³"},
    "ph": {""},
    "pm1": {"µg/m³"},
    "pm10": {"µg/m³"},
    "pm25": {"µg/m³"},
    "power": {"W", "kW", "MW"},
    "power_factor": {"", "%"},
    "precipitation": {"mm", "cm"},
    "precipitation_intensity": {"mm/h", "mm/d"},
    "pressure": {"Pa", "hPa", "kPa", "bar"},
    "reactive_power": {"var"},
    "signal_strength": {"dB", "dBm"},
    "sound_pressure": {"dB", "dBA"},
    "speed": {"m/s", "km/h"},
    "sulphur_dioxide": {"µg/m³"},
    "temperature": {"°C", "K"},
    "volatile_organic_compounds": {"µg/m³"},
    "voltage": {"V", "mV"},
    "volume_flow_rate": {"m³/h", "L/min"},
    "volume_storage": {"m³", "L"},
    "water": {"m³", "L"},
    "weight": {"kg", "g"},
    "wind_direction": {"°"},
    "wind_speed": {"m/s", "km/h"},
}
"""Device class -> units that Home Assistant documents for it, as far as a property of ours could have them."""
NO_MEASUREMENT = {"energy", "gas", "water"}


@pytest.mark.parametrize("row", PROPERTIES.rows, ids=lambda row: row.name)
def test_home_assistant_accepts_what_is_said_of_a_property(row: Property) -> None:
    """A unit of its class; no measurement where only totals are taken; texts and booleans have nothing."""
    shown = sensor_class(row)
    if row.kind is not ValueKind.NUMBER:
        assert shown == SensorClass()
        return
    if shown.device_class:
        assert shown.unit in ACCEPTED[shown.device_class]
    assert (shown.state_class == "total_increasing") == row.counter
    if shown.device_class in NO_MEASUREMENT:
        assert shown.state_class != "measurement"


@pytest.mark.parametrize(
    ("name", "device_class", "unit"),
    [
        ("air_temperature", "temperature", "°C"),
        ("soil_moisture_20cm", "moisture", "%"),
        ("pm2_5", "pm25", "µg/m³"),
        ("co", "", "mg/m³"),
        ("co2", "carbon_dioxide", "ppm"),
        ("wind_speed_10min", "wind_speed", "m/s"),
        ("flow_velocity", "speed", "m/s"),
        ("wind_direction", "wind_direction", "°"),
        ("rainfall_total", "precipitation", "mm"),
        ("energy", "energy", "kWh"),
        ("reactive_power", "reactive_power", "var"),
        ("colour_temperature", "", "K"),
        ("hydrant_pressure", "", "MPa"),
        ("ph", "ph", ""),
    ],
)
def test_examples(name: str, device_class: str, unit: str) -> None:
    """Classes that a reader of a dashboard expects."""
    shown = sensor_class(PROPERTIES.by_name(name))
    assert (shown.device_class, shown.unit) == (device_class, unit)
