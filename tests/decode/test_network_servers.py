"""Messages of ChirpStack and LORIOT in forms that their documents allow and that the profiles' examples do not show."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sensegate.authoring.examples import decode_example
from sensegate.decode import ProfileSet
from sensegate.decode.grammar import Example

EUI = "70b3d5e7a0000109"
STATUS = {"deduplicationId": "x", "time": "2026-01-01T00:00:00Z", "deviceInfo": {"devEui": EUI}, "margin": 5}
STATUS_V3 = {"applicationID": "1", "devEUI": "cLPV56AAAQk=", "margin": 5}
LORA = {"lora": {"bandwidth": 125000, "spreadingFactor": 7, "codeRate": "CR_4_5"}}
UP = {"deduplicationId": "x", "time": "2026-01-01T00:00:00Z", "deviceInfo": {"devEui": EUI.upper()}, "fCnt": 5,
      "fPort": 2, "data": "AQI=", "rxInfo": [{"rssi": -90, "snr": 7.5}]}  # fmt: skip
RX = {"cmd": "rx", "EUI": EUI.upper(), "ts": 1767225600936, "fcnt": 2, "port": 85, "freq": 867500000, "rssi": -21,
      "snr": 10, "dr": "SF9 BW125 4/5", "ack": False, "bat": 94, "data": "03672c"}  # fmt: skip


def decoded(profiles: ProfileSet, profile: str, topic: str, payload: dict[str, Any], *, by_http: bool = False) -> Any:
    """Return property -> value of a message, or the reason of its refusal."""
    members = {name: value for name, value in payload.items() if value is not None}
    example: dict[str, object] = {"label": "x", "topic": topic, "payload": members, "devices": [EUI]}
    if by_http:
        example |= {"gateway": "server-1", "carried": True}
    match = profiles.find(profile)
    assert match is not None
    fields = decode_example(profiles, match, msgspec.convert(example, Example)).fields
    if fields.quarantined:
        return fields.quarantined[0].reason.value
    assert fields.rejected == []
    return {
        profiles.specs[fields.spec[row]].property: fields.text.get(row, float(fields.value[row]))
        for row in range(len(fields))
    }


CHIRPSTACK = [
    ("on mains, full", {"externalPowerSource": True, "batteryLevel": 100}, {"mains_powered": 1}),
    ("on mains, nothing", {"externalPowerSource": True, "batteryLevel": 0}, {"mains_powered": 1}),
    ("on a battery", {"externalPowerSource": False, "batteryLevel": 55.5}, {"mains_powered": 0, "battery_level": 55.5}),
    (
        "on an empty battery",
        {"externalPowerSource": False, "batteryLevel": 0},
        {"mains_powered": 0, "battery_level": 0},
    ),
    ("the radio alone", {}, {}),
]


@pytest.mark.parametrize(("members", "expected"), [row[1:] for row in CHIRPSTACK], ids=[row[0] for row in CHIRPSTACK])
@pytest.mark.parametrize("version", ["v3", "v4"])
@pytest.mark.parametrize("by_http", [False, True])
def test_status_of_chirpstack(
    profiles: ProfileSet, version: str, members: dict[str, Any], expected: dict[str, float], *, by_http: bool
) -> None:
    """A device on mains has no battery of 0 %, in both versions, by MQTT and by HTTP (version 3: names in base64)."""
    topic = "http/server-1" if by_http else f"application/1/device/{EUI}/event/status"
    payload = {**(STATUS if version == "v4" else STATUS_V3), **members}
    assert decoded(profiles, f"chirpstack/{version}", topic, payload, by_http=by_http) == expected


def test_a_battery_that_is_not_known(profiles: ProfileSet) -> None:
    """Unavailable: no level, whatever stands there."""
    members = {"externalPowerSource": False, "batteryLevelUnavailable": True, "batteryLevel": 0}
    topic = f"application/1/device/{EUI}/event/status"
    assert decoded(profiles, "chirpstack/v4", topic, {**STATUS, **members}) == {"mains_powered": 0}
    assert decoded(profiles, "chirpstack/v3", topic, {**STATUS_V3, **members}) == {}


@pytest.mark.parametrize(
    ("modulation", "expected"),
    [
        (LORA, {"spreading_factor": 7, "radio_frequency": 868_100_000}),
        ({"fsk": {"frequencyDeviation": 25000, "bitrate": 50000}}, {"radio_frequency": 868_100_000}),
        ({"lrFhss": {"codeRate": "4/6"}}, {"radio_frequency": 868_100_000}),
    ],
)
def test_how_chirpstack_heard_a_frame(
    profiles: ProfileSet, modulation: dict[str, Any], expected: dict[str, float]
) -> None:
    """LoRa has a spreading factor; FSK and LR-FHSS have none."""
    payload = {**UP, "txInfo": {"frequency": 868100000, "modulation": modulation}}
    report = decoded(profiles, "chirpstack/v4", f"application/1/device/{EUI}/event/up", payload)
    assert report == {"rssi": -90, "snr": 7.5, **expected}


HEARD = {"rssi": -21, "snr": 10, "radio_frequency": 867_500_000}
LORIOT = [
    ("a data rate without blanks", {"dr": "SF12BW125"}, {**HEARD, "spreading_factor": 12}),
    ("the widest bandwidth", {"dr": "SF10 BW500 4/5"}, {**HEARD, "spreading_factor": 10}),
    ("another bandwidth", {"dr": "SF7 BW250 4/5"}, {**HEARD, "spreading_factor": 7}),
    ("FSK", {"dr": "FSK 50"}, HEARD),
    ("no data rate", {"dr": None}, HEARD),
    ("no signal", {"rssi": None, "snr": None}, {"radio_frequency": 867_500_000, "spreading_factor": 9}),
    ("no frequency", {"freq": None}, {"rssi": -21, "snr": 10, "spreading_factor": 9}),
    ("a battery that is not known", {"bat": 255}, {**HEARD, "spreading_factor": 9}),
    ("a frame that it cannot decrypt", {"data": None, "encdata": "0102"}, {**HEARD, "spreading_factor": 9}),
    ("all radio gateways", {"cmd": "gw", "rssi": None, "snr": None, "gws": [{"rssi": -38, "snr": 8.5}]},
     {"rssi": -38, "snr": 8.5, "radio_frequency": 867_500_000, "spreading_factor": 9}),
    ("what was sent", {"cmd": "txd", "data": None}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("members", "expected"), [row[1:] for row in LORIOT], ids=[row[0] for row in LORIOT])
@pytest.mark.parametrize("topic", [f"loriot/{EUI}/rx", f"city/loriot/{EUI}/rx"])
def test_messages_of_loriot(
    profiles: ProfileSet, topic: str, members: dict[str, Any], expected: dict[str, float]
) -> None:
    """Spreading factor and radio frequency of every envelope, where it has them."""
    assert decoded(profiles, "loriot/lns", topic, {**RX, **members}) == expected
