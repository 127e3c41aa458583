"""Names and units of members: what states a property, what is a fragment only, and what the property table lacks.

Each vector is a name as makers write it, with values of such a device. Those under `WRONG` were once mapped to the
property beside them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.learn.fields import FieldFacts
from sensegate.authoring.learn.guess import guess, propose
from sensegate.authoring.learn.learn import learn
from sensegate.authoring.learn.names import matches, words_of
from sensegate.authoring.learn.shapes import Sample
from sensegate.authoring.survey import draft_of
from sensegate.decode.grammar import parse

T0 = 1_767_225_600  # 2026-01-01T00:00:00Z
S = 1_000_000


def facts(name: str, *values: Any) -> FieldFacts:
    """Return the facts of a member; `name`: its path with dots."""
    member = FieldFacts(tuple(name.split(".")))
    for value in values:
        member.add(value)
    return member


WRONG: list[tuple[str, list[Any], str, str]] = [
    ("water.temperature.current", [12.4, 13.1], "", "current"),
    ("LDO_Sat", [97, 98], "", "satellites"),
    ("No_Beacon", [3, 4], "", "no"),
    ("tooLongInactivity", [0, 1], "", "longitude"),
    ("current-transformer primary", [5, 5], "", "current"),
    ("voltage_transformer_secondary", [100, 100], "", "voltage"),
    ("partNumber", [16909060], "", "count"),
    ("sequence_number", [25, 35], "", "count"),
    ("channelCount", [5], "", "count"),
    ("backlogMsgCount", [1, 0], "", "count"),
    ("temperature_ref", [25.0, 25.0], "", "air_temperature"),
    ("alarms.temperature", [30.5, 31.0], "", "air_temperature"),
    ("config.temperature", [30.5, 31.0], "", "air_temperature"),
    ("notCharging", [True, False], "", "charging"),
    ("cached.latitude", [30.1, 30.2], "", "latitude"),
    ("energy", [1810, 1822], "", "energy"),
    ("total_energy", [181_022, 181_099], "", "energy"),
    ("current", [181, 182], "", "current"),
    ("light", [3, 5], "", "illuminance"),
    ("position", [30, 60], "", "valve_position"),
    ("door", [True, False], "", "door_open"),
    ("contact", [True, False], "", "contact"),
    ("level", [1.2, 1.3], "", "liquid_level"),
    ("leak_alarm", [True, False], "", "flood_alarm"),
    ("current_a", [1.5, 1.6], "", "current"),
    ("flow", [1.2, 1.3], "", "water_flow"),
    ("releaseNumber", [6.1], "", "count"),
    ("distance", [12.5, 12.7], "", "distance"),
    ("Reactive Energy Export T1.value", [338, 339], "varh", "reactive_energy"),
    ("ratio_current", [60, 60], "", "current"),
    ("dendrometer_position", [12.5, 13.0], "", "valve_position"),
    ("voltage", [3, 3], "mA", "voltage"),
    ("leak_alarm", [True, False], "", "water_leak"),
    ("power_reactive", [300, 400], "W", "reactive_power"),
    ("active_power", [300, 400], "var", "active_power"),
    ("illuminance_value", [300, 400], "x", "illuminance"),
    ("A_Temp_C", [21.5, 22.0], "", "air_temperature"),
    ("eco2", [612, 640], "ppm", "co2"),
    ("eCO2", [612, 640], "", "co2"),
    ("sgp_eCO2", [612, 640], "ppm", "co2"),
    ("colour", [12, 40], "", "colour"),
    ("travel_time", [12, 40], "s", "travel_time"),
    ("sensor_humidity", [41, 42], "%", "relative_humidity"),
    ("temp_", [21, 22], "", "air_temperature"),
    ("chip_temp", [41, 42], "°C", "air_temperature"),
    ("vdd", [3600, 3590], "mV", "voltage"),
    ("voltage", [3600, 3590], "mV", "voltage"),
    ("amp", [16, 16], "A", "current"),
    ("min_temperature", [5, 5], "°C", "air_temperature_min"),
    ("max_temperature", [30, 30], "°C", "air_temperature_max"),
    ("tank_level", [45, 46], "%", "fill_level"),
    ("ph3", [12, 13], "", "ph"),
    ("PH3", [6.8, 6.9], "", "ph"),
    ("wind_direction_2d", [170, 213], "", "wind_direction"),
    ("air_temperature_1d", [12.5, 17.5], "°C", "air_temperature"),
    ("rainfall_3d", [1.2, 0.4], "mm", "rainfall"),
    ("sinr", [12, 13], "", "snr"),
]


@pytest.mark.parametrize(("name", "values", "unit", "property_"), WRONG)
def test_what_a_name_does_not_say_is_never_stated(name: str, values: list[Any], unit: str, property_: str) -> None:
    """A guess at most, and one that is marked."""
    guessed = guess(facts(name, *values), unit)
    assert guessed is None or guessed.property != property_ or not guessed.sure


STATED: list[tuple[str, list[Any], str, str, str]] = [
    ("temperature", [21.5, 22.0], "", "air_temperature", "Cel"),
    ("TempC_SHT", [21.5, 22.0], "", "air_temperature", "Cel"),
    ("TempC_DS18B20", [21.5, 22.0], "", "probe_temperature", "Cel"),
    ("air_temperature.value", [21.5, 22.0], "°C", "air_temperature", "Cel"),
    ("water.temperature.current", [12.4, 13.1], "", "water_temperature", "Cel"),
    ("currentTemperature", [21.5, 22.0], "", "air_temperature", "Cel"),
    ("current.humidity", [41, 42], "", "relative_humidity", "%"),
    ("humidity_percentage", [41, 42], "", "relative_humidity", "%"),
    ("BatV", [3.61, 3.58], "", "battery_voltage", "V"),
    ("bat_mV", [3610, 3580], "", "battery_voltage", "mV"),
    ("PM1_0", [12, 14], "", "pm1", "ug/m3"),
    ("pm2_5", [12, 14], "", "pm2_5", "ug/m3"),
    ("PM25", [12, 14], "", "pm2_5", "ug/m3"),
    ("pm10_mass_concentration.value", [12, 14], "µg⋅m⁻³", "pm10", "ug.m-3"),
    ("pm10_number_concentration.value", [12.5, 14], "1⋅cm⁻³", "pm10_count", "1.cm-3"),
    ("PAR", [350, 420], "µmol/m²/s", "par", "umol/m2/s"),
    ("par_umol", [350, 420], "", "par", "umol/m2/s"),
    ("DO", [8.4, 8.2], "mg/L", "dissolved_oxygen", "mg/L"),
    ("LDO", [8.4, 8.2], "mg/l", "dissolved_oxygen", "mg/L"),
    ("LDO_Sat", [97, 98], "%", "oxygen_saturation", "%"),
    ("EC", [812, 830], "uS/cm", "conductivity", "uS/cm"),
    ("dendrometer", [1250.5, 1251.0], "µm", "stem_growth", "um"),
    ("energy", [1810, 1822], "Wh", "energy", "W.h"),
    ("total_energy_wh", [1810, 1822], "", "energy", "W.h"),
    ("Active Energy Import T1.value", [1810, 1822], "Wh", "energy", "W.h"),
    ("Reactive Energy Export T1.value", [338, 339], "varh", "reactive_energy_exported", "V.A.h"),
    ("voltage_l1", [231.5, 230.1], "", "voltage", "V"),
    ("latitudeDeg", [-32.1, -32.2], "", "latitude", "deg"),
    ("temp_min", [8.5, 9.0], "", "air_temperature_min", "Cel"),
    ("co2_ppm", [612, 640], "", "co2", "[ppm]"),
    ("current_A", [1.5, 1.6], "", "current", "A"),
    ("water_leak", [True, False], "", "water_leak", ""),
    ("lux", [0.3, 0.5], "Klux", "illuminance", "klx"),
    ("total_energy", [1810.2, 1822.1], "KWH", "energy", "kW.h"),
    ("ILL_lx", [320, 400], "", "illuminance", "lx"),
    ("wind_speed_kmh", [12.1, 14.0], "", "wind_speed", "km/h"),
    ("door", ["open", "closed"], "", "door_open", ""),
    ("h2s", [1.2, 2.1], "ppm", "h2s_fraction", "[ppm]"),
    ("chip_temperature", [41, 42], "°C", "device_temperature", "Cel"),
    ("voltage", [23_050, 23_010], "mV", "voltage", "mV"),
    ("max_temperature", [18, 21], "°C", "air_temperature_max", "Cel"),
]


@pytest.mark.parametrize(("name", "code"), [("wh", "W.h"), ("kWh", "kW.h"), ("energy.wh", "W.h"), ("MWh", "MW.h")])
def test_a_name_that_is_a_unit_has_it_and_is_a_guess(name: str, code: str) -> None:
    """Watt hours are not taken for the property's kilowatt hours."""
    guessed = guess(facts(name, 1200, 1210))
    assert guessed is not None
    assert (guessed.property, guessed.unit, guessed.scale, guessed.sure) == ("energy", code, 1, False)


@pytest.mark.parametrize(("name", "values", "unit", "property_", "code"), STATED)
def test_a_name_that_says_all_is_mapped(name: str, values: list[Any], unit: str, property_: str, code: str) -> None:
    """No word is left over, and the unit is stated or the one that all makers use."""
    guessed = guess(facts(name, *values), unit)
    assert guessed is not None
    assert (guessed.property, guessed.unit, guessed.sure, guessed.fragment) == (property_, code, True, False)


@pytest.mark.parametrize(
    ("name", "values", "unit", "property_"),
    [
        ("par", [350, 420], "umol/m2/s", "solar_irradiance"),
        ("radiation", [350, 420], "umol/m2/s", "solar_irradiance"),
        ("altitude", [8.4, 8.2], "mg/l", "altitude"),
        ("temperature", [21, 22], "kPa", "air_temperature"),
        ("battery", [3.6, 3.5], "%", "battery_voltage"),
        ("humidity", [8.4, 9.1], "g/m3", "relative_humidity"),
        ("position", [120, 125], "um", "valve_position"),
        ("temperature_mv", [612, 640], "", "air_temperature"),
        ("current_kwh", [612, 640], "", "current"),
    ],
)
def test_a_stated_unit_forbids_properties_of_other_dimensions(
    name: str, values: list[Any], unit: str, property_: str
) -> None:
    """Whatever the name says."""
    guessed = guess(facts(name, *values), unit)
    assert guessed is None or guessed.property != property_


def test_another_property_of_the_stated_dimension_is_a_guess() -> None:
    """A photon flux has one property; it is suggested, not stated, where the name says something else."""
    guessed = guess(facts("quantum", 350, 420), "µmol/m²/s")
    assert guessed is not None
    assert (guessed.property, guessed.sure, guessed.fragment) == ("par", False, True)


@pytest.mark.parametrize(
    ("name", "values", "unit", "proposed", "code"),
    [
        ("ct_ratio", [60, 60], "", "current_transformer_ratio", "1"),
        ("pt_ratio", [100], "", "voltage_transformer_ratio", "1"),
        ("tooLongInactivity", [True, False], "", "inactivity_alarm", ""),
        ("sap_flow", [4.5, 4.7], "", "sap_flow", "cm/h"),
        ("ice_temperature_gradient", [4.5, 4.7], "K/m", "ice_temperature_gradient", "K/m"),
    ],
)
def test_a_property_that_the_table_lacks_is_proposed(
    name: str, values: list[Any], unit: str, proposed: str, code: str
) -> None:
    """With the unit that is stated, and never bent to another one."""
    member = facts(name, *values)
    guessed = guess(member, unit)
    assert guessed is None or guessed.fragment
    proposal = propose(member, unit)
    assert proposal is not None
    assert (proposal.name, proposal.unit) == (proposed, code)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PM1_0", ["pm1"]),
        ("pm2p5", ["pm25"]),
        ("PM10", ["pm10"]),
        ("pm0_3", ["pm03"]),
        ("TempC_SHT31", ["temperature", "c", "sensorchip"]),
        ("CO2", ["co2"]),
        ("power_a", ["power", "a"]),
        ("EnergyT1", ["energy", "t1"]),
    ],
)
def test_names_are_split_into_words(name: str, words: list[str]) -> None:
    """Particle sizes, chips and numbers stay in one piece."""
    assert words_of(name) == words


def test_what_is_left_over_of_a_name_is_told() -> None:
    """The reason of a guess names the words that nobody explained."""
    guessed = guess(facts("exhaust_humidity", 41, 42))
    assert guessed is not None
    assert guessed.fragment
    assert "'exhaust'" in guessed.reason
    assert [match.whole for match in matches(("exhaust_humidity",))] == [False]


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────


def test_fragments_are_comments_of_a_draft() -> None:
    """What the name says in part becomes no reading; the line is there to be taken, with the question."""
    samples = [
        Sample(
            "acme/x-0017/up",
            f'{{"temperature": {20 + at / 10}, "exhaust_humidity": {41 + at / 10}}}'.encode(),
            (T0 + at * 60) * S,
        )
        for at in range(10)
    ]
    draft = draft_of(samples, "acme/x")
    assert draft is not None
    assert draft.problem == ""
    rule = parse(draft.text)[0].messages[0]
    assert [reading.field for reading in rule.readings] == ["temperature"]
    assert "# - {field: exhaust_humidity, property: relative_humidity" in draft.text


def test_the_time_of_senml_is_its_own() -> None:
    """Relative and absolute times of RFC 8428, also where most records have none."""
    pack = b'[{"bn":"urn:dev:","n":"temperature","u":"Cel","v":21.5,"t":-10},{"n":"humidity","u":"%RH","v":41.5}]'
    draft = draft_of([Sample("senml/x-0017/up", pack, (T0 + at * 60) * S) for at in range(3)], "acme/x")
    assert draft is not None
    time = parse(draft.text)[0].messages[0].time
    assert time is not None
    assert (time.field, time.format) == ("t", "senml")
    assert '"2025-12-31T23:59:50Z"' in draft.text


@pytest.mark.parametrize("name", ["TotalStartTime", "startTime", "uptime", "firstSeenTime", "onTime", "expireDate"])
def test_times_of_something_else_are_not_that_of_the_message(name: str) -> None:
    """A start of counting is a time, and never the time of measurement."""
    samples = [
        Sample(
            "acme/x-0017/up",
            f'{{"{name}": {T0 - 86_400 + at * 60}, "temperature": {20 + at / 10}}}'.encode(),
            (T0 + at * 60) * S,
        )
        for at in range(10)
    ]
    (learned,) = learn(samples)
    assert learned.time is None


def test_a_station_code_names_the_device_where_the_topic_names_none() -> None:
    """Several codes on one topic: its publisher is the gateway of the devices."""
    samples = [
        Sample(
            "weather/up",
            f'{{"stationcode": "A10{at % 3}", "temperature": {20 + at / 10}}}'.encode(),
            (T0 + at * 60) * S,
        )
        for at in range(12)
    ]
    draft = draft_of(samples, "acme/x")
    assert draft is not None
    assert draft.problem == ""
    source = parse(draft.text)[0]
    rule = source.messages[0]
    assert rule.topics == ("{gateway}/up",)
    assert rule.device is not None
    assert rule.device.field == "stationcode"
    assert source.examples[0].payload["stationcode"] == "d1"
    assert "stationcode" not in {reading.field for reading in rule.readings}


def test_records_without_a_readable_time_are_comments() -> None:
    """Values of other times would stand at the time of arrival."""
    samples = [
        Sample(
            "acme/x-0017/up",
            b'{"temperature": 20.5, "readings": [{"temperature": 19.5, "timestamp": {"hours": 3, "minutes": 5}},'
            b' {"temperature": 19.7, "timestamp": {"hours": 4, "minutes": 5}}]}',
            (T0 + at * 60) * S,
        )
        for at in range(3)
    ]
    draft = draft_of([*samples, Sample("acme/x-0017/up", b'{"temperature": 20.5}', (T0 + 900) * S)] * 3, "acme/x")
    assert draft is not None
    rule = parse(draft.text)[0].messages[0]
    assert [(reading.field, reading.each) for reading in rule.readings] == [("temperature", "")] or rule.each == ""
    assert not any("[" in reading.field for reading in rule.readings)


def learned_of(*messages: dict[str, Any]) -> dict[str, bool]:
    """Return property -> whether it is sure, of some messages of a device."""
    samples = [Sample("acme/d1/up", json.dumps(message).encode()) for message in messages]
    (learned,) = learn(samples)
    return {field.guess.property: field.guess.sure for field in learned.recognised}


def test_a_maximum_alone_may_be_a_limit() -> None:
    """Beside a mean it is what was measured; alone nobody knows whether a limit is set there."""
    alone = learned_of({"temp_max": 28.5, "temp_min": 18.5}, {"temp_max": 28.0, "temp_min": 18.0})
    assert alone == {"air_temperature_max": False, "air_temperature_min": False}
    three = {"temp_max": 28.5, "temp_min": 18.5, "temp_avg": 22.1, "humidity": 41.5}
    assert learned_of(three, {**three, "temp_avg": 22.4})["air_temperature_max"] is True


def test_a_stated_unit_is_not_scaled_away() -> None:
    """35,000,000 kW is unusual, and no reason to read W."""
    guessed = guess(facts("active_power", 35_000_000, 36_000_000), "kW")
    assert guessed is not None
    assert not guessed.sure


@pytest.mark.parametrize(
    ("message", "sure"),
    [
        ({"temperature": 21.5, "battery": 92}, set()),
        ({"temperature": 21.5, "thermistor_kohm": 11.2}, set()),
        ({"temperature": 12.5, "pressure": 1013.2}, set()),
        ({"humidity": 41.5, "battery": 92}, set()),
        ({"temperature": 21.5, "motion": True}, set()),
        ({"temperature": 21.5, "humidity": 41.5}, {"air_temperature", "relative_humidity"}),
        (
            {"temperature": 21.5, "humidity": 41.5, "pressure": 1013.2},
            {"air_temperature", "relative_humidity", "air_pressure"},
        ),
        ({"temperature": 21.5, "co2": 640}, {"air_temperature"}),
        ({"temperature": 21.5, "illuminance": 312}, {"air_temperature"}),
        ({"ambient_temperature": 21.5, "battery": 92}, {"air_temperature"}),
        ({"temp_avg": 31.5, "soc": 87, "cells": 16}, set()),
        ({"temp_avg": 21.5, "humidity": 41.5}, {"air_temperature_mean", "relative_humidity"}),
    ],
)
def test_a_plain_name_needs_something_else_of_the_air(message: dict[str, Any], sure: set[str]) -> None:
    """A thermometer and a battery may be in a pipe, a freezer or a black globe; with humidity they are in the air."""
    learned = learned_of(message, message)
    plain = {"air_temperature", "air_temperature_mean", "relative_humidity", "air_pressure"}
    assert {name for name, known in learned.items() if known and name in plain} == sure


@pytest.mark.parametrize(
    ("message", "sure"),
    [
        ({"rssi": -67, "humidity": 41.5}, True),
        ({"RSSI1": -54, "RSSI2": -59, "MAC1": "fe:ec:da:00:00:01"}, False),
        ({"wifi": {"rssi": -67, "bssid": "fe:ec:da:00:00:01"}}, False),
        ({"beacon_rssi": -67}, False),
        ({"wifi": [{"mac": "fe:ec:da:00:00:01", "rssi": -67}]}, False),
        ({"UUID": "0a1b", "MAJOR": 10, "MINOR": 3, "RSSI": -67}, False),
    ],
)
def test_the_signal_of_a_transmitter_that_is_heard_is_not_the_devices(message: dict[str, Any], *, sure: bool) -> None:
    """Trackers list the access points and beacons that they hear, each with its strength."""
    samples = [Sample("acme/d1/up", json.dumps(message).encode())]
    (learned,) = learn(samples)
    assert [field.guess.sure for field in learned.recognised if field.guess.property == "rssi"] in (
        [sure],
        [sure, sure],
    )


@pytest.mark.parametrize(
    ("name", "values", "unit", "sure"),
    [
        ("battery", [3, 3], "", False),
        ("battery", [4, 5], "", False),
        ("battery", [3, 4], "%", True),
        ("battery_percent", [3, 4], "", True),
        ("battery", [0, 0], "", True),
        ("battery", [88, 87], "", True),
    ],
)
def test_a_battery_of_three_may_be_volts_or_bars(name: str, values: list[int], unit: str, *, sure: bool) -> None:
    """Zero is that of devices with mains; a small number says nothing by itself."""
    guessed = guess(facts(name, *values), unit)
    assert guessed is not None
    assert (guessed.property, guessed.sure) == ("battery_level", sure)


@pytest.mark.parametrize(
    ("name", "values", "unit", "property_", "sure"),
    [
        ("battery", [6.51, 6.48], "", "battery_level", False),
        ("battery", [12.6, 12.4], "", "battery_level", False),
        ("battery", [87.5, 87.1], "", "battery_level", True),
        ("wind_direction", [12, 3], "", "wind_direction", False),
        ("wind_direction", [213, 12], "", "wind_direction", True),
        ("wind_direction", [12, 3], "°", "wind_direction", True),
        ("soil_moisture", [0.24, 0.25], "", "soil_moisture", False),
        ("soil_moisture", [24.1, 24.9], "", "soil_moisture", False),
        ("soil_moisture", [24.1, 24.9], "%", "soil_moisture", True),
        ("signal_quality", [2, 3], "", "signal_quality", False),
        ("leaf_wetness", [12, 40], "", "leaf_wetness", False),
        ("target_temperature", [21.5, 22.0], "", "setpoint_temperature", True),
        ("temperature_target", [27.3, 27.1], "°C", "setpoint_temperature", False),
        ("elevation", [46, 47], "", "altitude", False),
        ("altitude", [46, 47], "", "altitude", True),
        ("power_reactive_var", [55.2, 55.1], "", "reactive_power", True),
        ("active_reactive_power_var", [55.2, 55.1], "", "reactive_power", False),
    ],
)
def test_values_and_words_that_leave_it_open(
    name: str, values: list[float], unit: str, property_: str, *, sure: bool
) -> None:
    """Volts for a level, sectors for degrees, a part of one for a percentage, an infrared sensor's target."""
    guessed = guess(facts(name, *values), unit)
    assert guessed is not None
    assert (guessed.property, guessed.sure) == (property_, sure)


@pytest.mark.parametrize(
    ("message", "name", "sure"),
    [
        ({"frequency": 50.02, "voltage": 230.1}, "frequency", True),
        ({"frequency": 50.02, "temperature": 21.5}, "frequency", False),
        ({"Hz": 50.02, "voltage": 230.1}, "frequency", False),
        ({"motion": True, "humidity": 41.5}, "motion", True),
        ({"motion": True, "latitude": 49.4, "longitude": 8.2}, "motion", False),
        ({"moving": True, "humidity": 41.5}, "motion", False),
        ({"charging": True}, "charging", False),
        ({"battery_charging": True}, "battery_charging", True),
        ({"firmware": "1.2.3"}, "firmware", True),
        ({"firmware_channel": "beta"}, "firmware", False),
    ],
)
def test_plain_names_are_judged_by_the_rest_of_the_device(message: dict[str, Any], name: str, *, sure: bool) -> None:
    """A frequency beside a voltage is that of the mains; the motion of a tracker is its own."""
    assert learned_of(message).get(name, False) is sure
