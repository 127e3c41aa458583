"""Device classes, units and state classes of Home Assistant's sensors, by property of the table.

Source: Home Assistant, documentation of the integration *Sensor*: device classes with the units that each accepts. A
property whose canonical unit its class does not accept has no class: the entity is shown, with the unit alone.
"""

from __future__ import annotations

import msgspec

from sensegate.quantities.properties import Property, ValueKind


class SensorClass(msgspec.Struct, frozen=True):
    """Description of a sensor's value in Home Assistant's terms; an empty field is left out."""

    device_class: str = ""
    unit: str = ""
    state_class: str = ""


SYMBOLS = {
    "Cel": "°C",
    "deg": "°",
    "ug/m3": "µg/m³",
    "mg/m3": "mg/m³",
    "g/m3": "g/m³",
    "[ppm]": "ppm",
    "[ppb]": "ppb",
    "[pH]": "",
    "1": "",
    "uS/cm": "µS/cm",
    "W/m2": "W/m²",
    "kW.h": "kWh",
    "V.A": "VA",
    "kV.A.h": "kVAh",
    "mA.h": "mAh",
    "m3": "m³",
    "m3/h": "m³/h",
    "m3/s": "m³/s",
    "m/s2": "m/s²",
    "uT": "µT",
    "By": "B",
}
"""UCUM code -> symbol that Home Assistant uses, where it is another."""

_BY_UNIT = {
    "Cel": "temperature",
    "V": "voltage",
    "mV": "voltage",
    "A": "current",
    "mA": "current",
    "W": "power",
    "kW": "power",
    "V.A": "apparent_power",
    "Hz": "frequency",
    "kW.h": "energy",
    "lx": "illuminance",
    "W/m2": "irradiance",
    "uS/cm": "conductivity",
    "[pH]": "ph",
    "Pa": "pressure",
    "hPa": "pressure",
    "kPa": "pressure",
    "mm/h": "precipitation_intensity",
    "m/s": "speed",
    "km/h": "speed",
    "m": "distance",
    "km": "distance",
    "cm": "distance",
    "mm": "distance",
    "m3/h": "volume_flow_rate",
    "kg": "weight",
    "s": "duration",
    "h": "duration",
}
_BY_NAME = {
    "air_pressure": "atmospheric_pressure",
    "sea_level_pressure": "atmospheric_pressure",
    "relative_humidity": "humidity",
    "device_humidity": "humidity",
    "soil_moisture": "moisture",
    "battery_level": "battery",
    "pm1": "pm1",
    "pm2_5": "pm25",
    "pm10": "pm10",
    "no": "nitrogen_monoxide",
    "no2": "nitrogen_dioxide",
    "o3": "ozone",
    "so2": "sulphur_dioxide",
    "voc": "volatile_organic_compounds",
    "co2": "carbon_dioxide",
    "wind_speed": "wind_speed",
    "wind_direction": "wind_direction",
    "rainfall": "precipitation",
    "sound_level": "sound_pressure",
    "rssi": "signal_strength",
    "snr": "signal_strength",
    "power_factor": "power_factor",
    "reactive_power": "reactive_power",
    "water_volume": "water",
    "waste_water_volume": "water",
    "gas_volume": "gas",
    "reservoir_volume": "volume_storage",
    "tank_volume": "volume_storage",
    "colour_temperature": "",
}
"""Property, or its beginning up to an underscore -> device class; it goes before that of the unit."""
_UNITS = {
    "humidity": ("%",),
    "moisture": ("%",),
    "battery": ("%",),
    **dict.fromkeys(
        (
            "pm1",
            "pm25",
            "pm10",
            "nitrogen_monoxide",
            "nitrogen_dioxide",
            "ozone",
            "sulphur_dioxide",
            "volatile_organic_compounds",
        ),
        ("ug/m3",),
    ),
    "carbon_dioxide": ("[ppm]",),
    "wind_speed": ("m/s", "km/h"),
    "wind_direction": ("deg",),
    "precipitation": ("mm", "cm"),
    "atmospheric_pressure": ("Pa", "hPa", "kPa"),
    "sound_pressure": ("dB",),
    "signal_strength": ("dB",),
    "power_factor": ("1", "%"),
    "reactive_power": ("V.A",),
    "water": ("m3", "L"),
    "gas": ("m3",),
    "volume_storage": ("m3", "L"),
}
"""Device class that is chosen by name -> canonical units with which it stands."""
_TOTALS = {"energy", "water", "gas"}
"""Device classes of totals: Home Assistant refuses them as measurements."""

_MAY_BE_TOTAL = {*_TOTALS, "precipitation", "distance", "duration", "weight"}
"""Device classes that a counter may have."""


def sensor_class(row: Property) -> SensorClass:
    """Return the class, unit and state class of a property; all empty for texts and booleans."""
    if row.kind is not ValueKind.NUMBER:
        return SensorClass()
    device_class = _device_class(row)
    unit = "var" if device_class == "reactive_power" else SYMBOLS.get(row.unit, row.unit)
    if row.counter:
        return SensorClass(device_class, unit, "total_increasing")
    if device_class in _TOTALS or device_class == "wind_direction":
        return SensorClass(device_class, unit)
    return SensorClass(device_class, unit, "measurement")


def _device_class(row: Property) -> str:
    name = row.name
    while name and name not in _BY_NAME:
        name = name.rpartition("_")[0]
    if not name:
        device_class = _BY_UNIT.get(row.unit, "")
    else:
        device_class = _BY_NAME[name] if row.unit in _UNITS.get(_BY_NAME[name], ()) else ""
    # A counter of another class (starts, charge of a battery) is a total, which Home Assistant refuses for it.
    return device_class if not row.counter or device_class in _MAY_BE_TOTAL else ""
