"""The makers' uplink vectors: 41 frames of 12 models, by our profiles, as the maker's decoder gives them.

The vectors are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `lorawan/uplink-vectors.jsonl`. A
maker's names become our properties by the tables below; what is a setting of the device or a text about a code becomes
no reading, and stands in `NOT_READINGS` with the reason.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.examples import ExampleReading, parse_micros, readings_of, same_value
from sensegate.authoring.stubs import CARRIER, carrier_payload, compile_stub
from sensegate.decode import Decoder, ProfileSet
from sensegate.model import Device, Fields, Message, QuarantineReason
from tests.outside.lorawan import RECEIVED, SAMPLES, Site, lines
from tests.support.profiles import library

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with lorawan/uplink-vectors.jsonl"
)

PROFILES = {
    "tps110": "bosch/tps110",
    "tbwl100": "browan/tbwl100",
    "dl-pm": "decentlab/dl-pm",
    "oyster": "digital-matter/oyster",
    "df702": "dingtek/df702",
    "lse01": "dragino/lse01",
    "pts2-l": "ellenex/pts2-l",
    "ers-sound": "elsys/ers",
    "emu-prof-ii": "emu/prof-ii",
    "adt1-tube": "keller/adt1",
    "rs1xx-temp-rh-sensor": "laird/rs1xx-temp-rh",
    "am107": "milesight/am107",
}

Map = dict[str, tuple[str, str, float]]
"""Name in the maker's data -> (our property, our field or empty, factor from the maker's unit to ours)."""
NAMES: dict[str, Map] = {
    "tps110": {
        "occupied": ("parking_occupied", "", 1),
        "temperature": ("device_temperature", "", 1),
        "debug_code": ("fault_code", "", 1),
        "time_in_seconds": ("parking_duration", "", 1),
        "parking_status_changes": ("parking_changes", "", 1),
    },
    "tbwl100": {
        "status": ("water_leak", "", 1),
        "battery": ("battery_voltage", "", 1),
        "humidity": ("relative_humidity", "", 1),
        "temperature": ("air_temperature", "", 1),
        "temperatureBoard": ("device_temperature", "", 1),
    },
    "dl-pm": {
        "air_humidity": ("relative_humidity", "", 1),
        "air_temperature": ("air_temperature", "", 1),
        "barometric_pressure": ("air_pressure", "", 0.01),
        "battery_voltage": ("battery_voltage", "", 1),
        "pm1_0_mass_concentration": ("pm1", "", 1),
        "pm2_5_mass_concentration": ("pm2_5", "", 1),
        "pm4_mass_concentration": ("pm4", "", 1),
        "pm10_mass_concentration": ("pm10", "", 1),
        "typical_particle_size": ("particle_size", "", 0.001),
        "pm0_5_number_concentration": ("pm0_5_count", "", 1000),
        "pm1_0_number_concentration": ("pm1_count", "", 1000),
        "pm2_5_number_concentration": ("pm2_5_count", "", 1000),
        "pm4_number_concentration": ("pm4_count", "", 1000),
        "pm10_number_concentration": ("pm10_count", "", 1000),
    },
    "oyster": {
        "batV": ("battery_voltage", "", 1),
        "inTrip": ("moving", "", 1),
        "latitudeDeg": ("latitude", "", 1),
        "longitudeDeg": ("longitude", "", 1),
        "speedKmph": ("speed", "", 1),
        "headingDeg": ("heading", "", 1),
    },
    "df702": {
        "level": ("distance", "", 0.001),
        "full": ("waste_overflow", "", 1),
        "fire": ("bin_fire", "", 1),
        "tilt": ("bin_tilted", "", 1),
        "battery": ("battery_low", "", 1),
        "angle": ("tilt_angle", "", 1),
        "temperature": ("bin_temperature", "", 1),
        "longitude": ("longitude", "", 1),
        "latitude": ("latitude", "", 1),
    },
    "lse01": {
        "Bat": ("battery_voltage", "", 1),
        "TempC_DS18B20": ("air_temperature", "", 1),
        "conduct_SOIL": ("soil_conductivity", "", 1),
        "temp_SOIL": ("soil_temperature", "", 1),
        "water_SOIL": ("soil_moisture", "", 1),
    },
    "pts2-l": {"pressure": ("process_pressure", "", 100), "batteryVoltage": ("battery_voltage", "", 1)},
    "ers-sound": {
        "temperature": ("air_temperature", "", 1),
        "humidity": ("relative_humidity", "", 1),
        "light": ("illuminance", "", 1),
        "motion": ("motion_count", "", 1),
        "soundPeak": ("sound_peak", "", 1),
        "soundAvg": ("sound_level_leq", "", 1),
    },
    "emu-prof-ii": {
        "Active Energy Import T1": ("energy", "import1", 0.001),
        "Active Energy Import T2": ("energy", "import2", 0.001),
        "Active Energy Export T1": ("energy_exported", "export1", 0.001),
        "Active Energy Export T2": ("energy_exported", "export2", 0.001),
        "Reactive Energy Import T1": ("reactive_energy", "rimport1", 0.001),
        "Reactive Energy Import T2": ("reactive_energy", "rimport2", 0.001),
        "Reactive Energy Export T1": ("reactive_energy_exported", "rexport1", 0.001),
        "Reactive Energy Export T2": ("reactive_energy_exported", "rexport2", 0.001),
    },
    "adt1-tube": {
        "P1": ("water_pressure", "p1", 100),
        "Pd (P1-PBaro)": ("water_pressure", "pd", 100),
        "PBaro": ("air_pressure", "", 1000),
        "TBaro": ("air_temperature", "", 1),
        "TOB1": ("water_temperature", "tob1", 1),
        "battery_capacity_percentage": ("battery_level", "", 1),
        "battery_voltage": ("battery_voltage", "", 1),
        "humidity_percentage": ("device_humidity", "", 1),
    },
    "rs1xx-temp-rh-sensor": {
        "temperature": ("air_temperature", "", 1),
        "humidity": ("relative_humidity", "", 1),
        "batteryCapacity": ("battery_state", "", 1),
        "voltage": ("battery_voltage", "", 1),
    },
    "am107": {
        "battery": ("battery_level", "", 1),
        "temperature": ("air_temperature", "", 1),
        "humidity": ("relative_humidity", "", 1),
        "activity": ("activity_level", "", 1),
        "illumination": ("illuminance", "", 1),
        "infrared": ("infrared_light", "", 1),
        "infrared_and_visible": ("visible_infrared_light", "", 1),
        "co2": ("co2", "", 1),
        "tvoc": ("voc_fraction", "", 1),
        "pressure": ("air_pressure", "", 1),
    },
}
NOT_READINGS = {
    "tps110": {"type", "debug_code_description", "sequence_number", "timestamp"},  # texts; the clock that nobody sets
    "tbwl100": {"humidityChanged", "temperatureChanged"},  # why it was sent
    "dl-pm": {"device_id", "protocol_version"},
    "oyster": {"type", "fixFailed", "manDown"},  # a failed fix is the quality of the place
    "df702": {
        "periodic_interval",
        "detection_interval",
        "full_alarm_threshold",
        "fire_alarm_threshold",
        "tilt_alarm_threshold",
        "tilt_enable",
        "ultrasonic_range",
    },  # settings
    "lse01": set[str](),
    "pts2-l": set[str](),
    "ers-sound": set[str](),
    "emu-prof-ii": {
        "timestamp", "timeStamp", "medium",  # the time is each reading's
        "serial-number", "meter-typ", "MID year",
        "current-transformer primary", "current-transformer secondary",
        "voltage-transformer primary", "voltage-transformer secondary",
    },
    "adt1-tube": {
        "port", "payload", "func", "ct", "channel", "channelCount",
        "class_group_text", "device_local_datetime", "serial_number", "sw_version_text",
    },
    "rs1xx-temp-rh-sensor": {
        "msgType", "options", "alarmMsgCount", "backlogMsgCount", "numberOfReadings", "timestamp",
        "batteryType", "sensorReadPeriod", "sensorAggregate", "tempAlarmsEnabled", "humidityAlarmsEnabled",
        "tempAlarmLimitLow", "tempAlarmLimitHigh", "humidityAlarmLimitLow", "humidityAlarmLimitHigh",
        "ledBle", "ledLora",
        "releaseDate", "releaseNumber", "partNumber",
    },
    "am107": set[str](),
}  # fmt: skip
"""Members that are about the message, or settings: no readings, on purpose."""
BOOLEANS = {"water_leak"}
"""Our properties that are true and false where the maker says 1 and 0."""


def run(vector: dict[str, Any]) -> tuple[Fields, list[ExampleReading]]:
    """Return what a frame becomes, as a network server would bring it."""
    specs = list(library().specs)
    profile = PROFILES[vector["model"]]
    carrier = compile_stub(CARRIER)
    match = library().find(profile)
    assert match is not None
    loaded = ProfileSet([match, carrier], specs)
    payload = carrier_payload(bytes.fromhex(vector["bytes_hex"]), vector["fPort"])
    fields = Decoder(loaded, Site(Device("device", "440106", profile))).decode(
        [Message("carrier/device", payload, RECEIVED, 1)]
    )
    return fields, readings_of(fields, specs, ["device"])


def number(value: Any) -> Any:
    """Return the number in a maker's value: `{"value": …}`, "2000 mm", "24.1"."""
    if isinstance(value, dict):
        value = value["value"]
    if isinstance(value, str):
        try:
            return float(value.split(" ")[0])
        except ValueError:
            return value
    return value


def flat(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the maker's members, those of lists and of a cached place too."""
    results: list[tuple[str, Any]] = []
    for name, value in data.items():
        if name == "readings":
            results += [pair for entry in value for pair in flat(entry)]
        elif name == "cached":
            results += flat(value)
        else:
            results.append((name, value))
    return results


@pytest.mark.parametrize("vector", lines("lorawan/uplink-vectors.jsonl"))
def test_vector_gives_what_the_maker_says(vector: dict[str, Any]) -> None:
    """Every value, in our unit; nothing more; what is in error is refused."""
    fields, result = run(vector)
    expected = vector["expected"]
    if "errors" in expected:
        assert not result
        assert [message.reason for message in fields.quarantined] == [QuarantineReason.SCHEMA]
        return
    assert not fields.quarantined, fields.quarantined
    assert not fields.rejected, fields.rejected
    names, others = NAMES[vector["model"]], NOT_READINGS[vector["model"]]
    for name, value in flat(expected["data"]):
        if name in others:
            continue
        prop, field, scale = names[name]
        wanted = number(value)
        if prop in BOOLEANS:
            wanted = bool(wanted)
        elif isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
            wanted = wanted * scale
        matches = [
            reading
            for reading in result
            if reading.property == prop and (not field or reading.field == field) and near(wanted, reading.value, value)
        ]
        assert matches, f"{name} = {value}; saw {[str(reading) for reading in result]}"
        result.remove(matches[0])
    assert not result, [str(reading) for reading in result]


def near(wanted: Any, value: Any, sent: Any) -> bool:
    """Return whether two values are the same, to the digits that the maker's text has."""
    if isinstance(sent, str) and isinstance(value, float) and isinstance(wanted, float):
        return abs(wanted - value) <= 1e-5  # Dingtek's decoder divides a float's mantissa by 2^23 - 1: a metre off
    return same_value(wanted, value)


@pytest.mark.parametrize(
    "vector", [line for line in lines("lorawan/uplink-vectors.jsonl") if line.values[0]["expected"].get("warnings")]
)
def test_warning_of_the_maker_is_a_quality(vector: dict[str, Any]) -> None:
    """A place that comes from an earlier fix is marked uncertain, and only that."""
    _, result = run(vector)
    assert {reading.property for reading in result if reading.quality != "good"} == {
        "latitude",
        "longitude",
        "speed",
        "heading",
    }


def test_times_in_frames() -> None:
    """Where the frame has a time of its own, the readings have it."""
    for param in lines("lorawan/uplink-vectors.jsonl"):
        vector = param.values[0]
        data = vector["expected"].get("data", {})
        _, result = run(vector)
        if vector["model"] == "emu-prof-ii" and result:
            assert {reading.time for reading in result} == {data["timeStamp"] * 1_000_000}
        if data.get("msgType") == "SendBackLogMessage":
            assert {reading.time for reading in result} == {parse_micros("2015-01-01T00:00:02Z")}
        if data.get("msgType") == "SendBackLogMessages":
            assert {reading.time for reading in result} == {parse_micros("2015-01-01T00:00:00Z")}


def test_control_another_byte_gives_another_value() -> None:
    """Negative control: a frame of which one byte is changed does not give what the maker says of it."""
    vector = next(
        line.values[0] for line in lines("lorawan/uplink-vectors.jsonl") if line.values[0]["model"] == "lse01"
    )
    data = bytearray.fromhex(vector["bytes_hex"])
    data[5] ^= 1
    with pytest.raises(AssertionError, match="water_SOIL"):
        test_vector_gives_what_the_maker_says({**vector, "bytes_hex": data.hex()})


def test_there_are_41() -> None:
    """All vectors are here."""
    documents = [json.dumps(line.values[0]) for line in lines("lorawan/uplink-vectors.jsonl")]
    assert len(documents) == 41
    assert {json.loads(document)["model"] for document in documents} == PROFILES.keys()
