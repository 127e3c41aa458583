"""Recorded messages of four network servers: the frame in each is the one that its `expected` names, and so its values.

The recordings are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/*.jsonl`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensegate.authoring.examples import ExampleReading, parse_micros, same_value
from sensegate.decode.chain import open_frames
from sensegate.decode.decode import Decoder
from sensegate.decode.frame import PayloadFrame
from sensegate.model import Device
from tests.outside.lorawan import RECEIVED, SAMPLES, Site, decode, lines
from tests.support.profiles import library

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/chirpstack-v4.jsonl and the others"
)

ALL = [
    *lines("mqtt/chirpstack-v4.jsonl"),
    *lines("mqtt/ttn-v3.jsonl"),
    *lines("mqtt/loriot.jsonl"),
    *lines("mqtt/aws-iot-lorawan.jsonl"),
]
ELSYS = {
    "temperature": ("air_temperature", 1.0),
    "humidity": ("relative_humidity", 1.0),
    "light": ("illuminance", 1.0),
    "pir": ("motion_count", 1.0),
    "vdd": ("battery_voltage", 0.001),
    "co2": ("co2", 1.0),
    "soundPeak": ("sound_peak", 1.0),
    "soundAvg": ("sound_level_leq", 1.0),
    "tvoc": ("voc_fraction", 1.0),
    "rssi": ("rssi", 1.0),
    "snr": ("snr", 1.0),
}
"""Names in `telemetry` -> (our property, from the unit there to ours)."""
DECODED = {"temperature": "air_temperature", "humidity": "relative_humidity", "battery": "battery_level"}
"""Members of decoded objects that the network server's profile knows -> our property."""
LHT65 = {
    "BatV": ("battery_voltage", ""),
    "TempC_SHT": ("air_temperature", "temperature"),
    "Hum_SHT": ("relative_humidity", ""),
    "TempC_DS": ("air_temperature", "ext"),
}


def eui_of(sample: dict[str, Any]) -> str:
    """Return the DevEUI that a message names, in lower case."""
    tree = json.loads(sample["payload"])
    tree = tree.get("lns_message", tree)
    lorawan = (tree.get("Metadata") or tree.get("WirelessMetadata") or {}).get("LoRaWAN", {})
    decoded = (
        tree.get("EUI")
        or tree.get("deviceInfo", {}).get("devEui")
        or tree.get("end_device_ids", {}).get("dev_eui")
        or lorawan.get("DevEUI")
        or lorawan.get("DevEui")
    )
    return str(decoded).lower()


def server_of(sample: dict[str, Any]) -> str:
    """Return the profile of the network server whose message it is."""
    start = sample["topic"].split("/")[0]
    return {"application": "chirpstack/v4", "v3": "thethings/v3", "loriot": "loriot/lns"}.get(
        start, "aws/iot-core-lorawan"
    )


def site(sample: dict[str, Any], profile: str) -> Site:
    """Return a registry with the device behind the network server."""
    server = Device("server", "440106", server_of(sample))
    return Site(Device("device", "440106", profile, alias=eui_of(sample), gateway="server"), server)


def topic_of(sample: dict[str, Any]) -> str:
    """Return the topic that it comes by; AWS's own topics for rules are no device's, those it comes as an HTTP push."""
    return "http/server" if sample["topic"].startswith("$aws/") else str(sample["topic"])


def decoded(sample: dict[str, Any], profile: str) -> list[ExampleReading]:
    """Return the readings of a message, by topic and by HTTP the same."""
    by_http = decode(site(sample, profile), "http/server", sample["payload"].encode(), principal="server")
    topic = topic_of(sample)
    fields, decoded = decode(
        site(sample, profile),
        topic,
        sample["payload"].encode(),
        principal="server" if topic.startswith("http/") else "",
    )
    assert not fields.quarantined, fields.quarantined
    assert not fields.rejected, fields.rejected
    assert [str(reading) for reading in by_http[1]] == [str(row) for row in decoded]
    return decoded


@pytest.mark.parametrize("sample", ALL)
def test_envelope_gives_the_frame(sample: dict[str, Any]) -> None:
    """Device, port, bytes, time and counter of every message, whichever spelling its members have."""
    place = site(sample, "dragino/lht65")
    topic = topic_of(sample)
    decoder = Decoder(library(), place)
    route = decoder.routes.build(topic, "server" if topic.startswith("http/") else "")
    opened = list(open_frames(route.rules, PayloadFrame(sample["payload"].encode(), 32, topic, RECEIVED)))
    assert len(opened) == 1
    rule, frame = opened[0]
    expected = sample["expected"]
    assert rule.profile == server_of(sample)
    assert frame.data.hex() == expected["bytes_hex"]
    assert frame.port == expected["fPort"]
    if frame.name:
        assert frame.name.lower() == eui_of(sample)
    if "telemetry" in expected:
        assert frame.reception.time // 1000 == expected["telemetry"][0]["ts"]
    if "time" in expected:
        assert frame.reception.time == parse_micros(expected["time"])
    tree = json.loads(sample["payload"])
    counter = tree.get("fCnt", tree.get("fcnt", tree.get("uplink_message", {}).get("f_cnt")))
    assert frame.reception.counter == counter


@pytest.mark.parametrize("sample", [sample for sample in ALL if "telemetry" in sample.values[0]["expected"]])
def test_elsys_telemetry(sample: dict[str, Any]) -> None:
    """Every value of the recorded telemetry, at its time; nothing else but how the frame was heard."""
    report = decoded(sample, "elsys/ers")
    for entry in sample["expected"]["telemetry"]:
        for name, value in entry["values"].items():
            prop, scale = ELSYS[name]
            matches = [
                reading
                for reading in report
                if reading.property == prop
                and reading.time // 1000 == entry["ts"]
                and same_value(value * scale, reading.value)
            ]
            assert matches, f"{name} = {value} at {entry['ts']}; saw {[str(reading) for reading in report]}"
            report.remove(matches[0])
    # The ERS2's telemetry leaves out the CO2 that its bytes hold (06 0308).
    assert {reading.property for reading in report} <= {"rssi", "snr", "spreading_factor", "radio_frequency", "co2"}


@pytest.mark.parametrize("sample", [sample for sample in ALL if "decoded" in sample.values[0]["expected"]])
def test_lht65_values(sample: dict[str, Any]) -> None:
    """The values of the maker's decoder come out of the bytes that AWS brings."""
    report = decoded(sample, "dragino/lht65")
    for name, value in sample["expected"]["decoded"].items():
        if name in LHT65:
            prop, field = LHT65[name]
            matches = [
                reading for reading in report if reading.property == prop and (not field or reading.field == field)
            ]
            assert [same_value(value, match.value) for match in matches] == [True], (
                f"{name}: {[str(match) for match in matches]}"
            )
    assert sample["expected"]["decoded"].keys() - LHT65.keys() == {"Bat_status", "Ext_sensor"}
    state = {0: "ultra_low", 1: "low", 2: "ok", 3: "good"}[sample["expected"]["decoded"]["Bat_status"]]
    assert [reading.value for reading in report if reading.property == "battery_state"] == [state]


@pytest.mark.parametrize("sample", [sample for sample in ALL if sample.values[0]["expected"].get("object")])
def test_decoded_object(sample: dict[str, Any]) -> None:
    """A device registered with the network server's profile has the members of the object that the profile knows."""
    name = eui_of(sample)
    device = Device("device", "440106", "chirpstack/v4", alias=name)
    fields, decoded = decode(Site(device), sample["topic"], sample["payload"].encode())
    known = {key: value for key, value in sample["expected"]["object"].items() if key in DECODED}
    for key, value in known.items():
        assert [same_value(value, row.value) for row in decoded if row.property == DECODED[key]] == [True]
    assert bool(fields.quarantined) is (not decoded)


def test_one_reading_whatever_network_server_carried_it() -> None:
    """The same bytes by three network servers: the same series and values; with the same counter the same identity."""
    groups: dict[str, set[frozenset[tuple[str, Any]]]] = {}
    for param in ALL:
        sample = param.values[0]
        if "telemetry" in sample["expected"]:
            matches = [
                row
                for row in decoded(sample, "elsys/ers")
                if row.property not in {"rssi", "snr", "spreading_factor", "radio_frequency"}
            ]
            values = frozenset((match.property, match.value) for match in matches)
            groups.setdefault(sample["expected"]["bytes_hex"], set()).add(values)
    assert len(groups) > 3
    assert all(len(group) == 1 for group in groups.values())


def test_control_another_frame_is_noticed() -> None:
    """Negative control: an envelope with other bytes is not what its `expected` says."""
    sample = next(sample.values[0] for sample in ALL if "telemetry" in sample.values[0]["expected"])
    other = {**sample, "payload": sample["payload"].replace("AQDi", "AQDj")}
    with pytest.raises(AssertionError):
        test_envelope_gives_the_frame(other)
    with pytest.raises(AssertionError, match="temperature"):
        test_elsys_telemetry(other)
