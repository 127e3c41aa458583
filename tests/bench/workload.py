"""A city's traffic for benchmarks: eight profiles, six values a message, a share of byte-identical duplicates.

Deterministic by seed. Each message is (user, topic, payload); a street lamp is published by its cabinet.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from sensegate.model import Device

COUNTIES = (
    "440103",
    "440104",
    "440105",
    "440106",
    "440111",
    "440112",
    "440113",
    "440114",
    "440115",
    "440117",
    "440118",
)
PROFILES = (
    "sensegate/plain",
    "tasmota/sensor",
    "zigbee2mqtt/air",
    "zigbee2mqtt/meter",
    "chirpstack/v4",
    "thethings/v3",
    "citysense/street-lamp",
    "sensegate/plain",
)
"""The plain layout stands twice: once with epoch seconds, once with ISO 8601 and a sequence number."""
VALUES = 6


class Sent(NamedTuple):
    """One message and who sends it."""

    user: str
    topic: str
    payload: bytes


class Workload(NamedTuple):
    """Devices to register and messages in their order."""

    devices: list[Device]
    messages: list[Sent]
    duplicates: int


def _iso(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _local(second: float, form: str) -> str:
    return (datetime.fromtimestamp(second, UTC) + timedelta(hours=8)).strftime(form)


def _payload(  # noqa: PLR0911 - one return a layout
    kind: int, name: str, number: int, second: float, chance: random.Random
) -> tuple[str, object]:
    def near(centre: float, play: float, digits: int = 1) -> float:
        return round(centre + chance.uniform(-play, play), digits)

    match kind:
        case 0:
            values = {
                "air_temperature": near(21, 2),
                "relative_humidity": near(60, 5),
                "air_pressure": near(1013, 2),
                "pm2_5": near(30, 9, 0),
                "pm10": near(50, 9, 0),
                "sound_level": near(55, 6),
            }
            return f"sg/{name}/up", {"time": round(second, 3), "values": values}
        case 1:
            energy = {
                "Total": round(1000 + number * 0.01, 3),
                "Power": near(300, 40, 0),
                "ApparentPower": near(320, 40, 0),
                "Factor": near(0.93, 0.04, 2),
                "Voltage": near(228, 4, 0),
                "Current": near(1.4, 0.2, 3),
            }
            return f"tele/{name}/SENSOR", {"Time": _local(second, "%Y-%m-%dT%H:%M:%S"), "ENERGY": energy}
        case 2:
            return f"zigbee2mqtt/{name}", {
                "temperature": near(22, 2, 2),
                "humidity": near(50, 5, 2),
                "co2": near(600, 90, 0),
                "voc": near(200, 60, 0),
                "formaldehyd": near(30, 5, 0),
                "linkquality": chance.randrange(20, 255),
                "last_seen": _iso(second),
            }
        case 3:
            return f"zigbee2mqtt/{name}", {
                "state": "ON",
                "power": near(530, 30),
                "voltage": near(228, 3),
                "current": near(2.7, 0.3, 2),
                "energy": round(500 + number * 0.01, 2),
                "linkquality": chance.randrange(20, 255),
                "last_seen": int(second * 1000),
            }
        case 4:
            measured = {
                "temperature": near(19, 3),
                "humidity": near(70, 9),
                "illuminance": near(300, 90, 0),
                "pressure": near(1013, 2),
                "co2": near(600, 90, 0),
                "battery": 97,
            }
            heard = [{"gatewayId": "0016c001f0000001", "rssi": -chance.randrange(50, 120), "snr": near(7, 3, 2)}]
            return f"application/city/device/{name}/event/up", {
                "deduplicationId": f"{chance.getrandbits(128):032x}",
                "time": _iso(second),
                "deviceInfo": {"devEui": name},
                "fCnt": number,
                "fPort": 85,
                "object": measured,
                "rxInfo": heard,
            }
        case 5:
            measured = {"temperature": near(19, 3), "humidity": near(70, 9), "light": near(300, 90, 0),
                        "pressure": near(1013, 2), "co2": near(600, 90, 0), "vdd": 3426}  # fmt: skip
            heard = [{"gateway_ids": {"gateway_id": "eui-1"}, "rssi": -chance.randrange(50, 120), "snr": near(7, 3)}]
            return f"v3/city@ttn/devices/{name}/up", {
                "end_device_ids": {"device_id": name}, "received_at": _iso(second + 0.2),
                "uplink_message": {"f_port": 85, "f_cnt": number + 1, "decoded_payload": measured, "rx_metadata": heard,
                                   "received_at": _iso(second)},
            }  # fmt: skip
        case 6:
            lamp = {
                "id": name,
                "on": 1,
                "dim": chance.randrange(40, 100),
                "u": chance.randrange(2250, 2350),
                "i": chance.randrange(400, 600),
                "p": chance.randrange(900, 1300),
                "e": 125_000 + number,
            }
            return f"citysense/lamp/c-{name}/report", {"time": _local(second, "%Y-%m-%d %H:%M:%S"), "lamps": [lamp]}
        case _:
            values = {
                "water_level": near(3, 0.2, 3),
                "water_temperature": near(18, 1),
                "rainfall": near(0.4, 0.4),
                "wind_speed": near(3, 2),
                "wind_direction": near(180, 170, 0),
                "illuminance": near(9000, 900, 0),
            }
            return f"sg/{name}/up", {"time": _iso(second), "seq": number, "values": values}


def make(
    messages: int,
    devices: int,
    *,
    duplicates: float = 0.05,
    seed: int = 1,
    first: int = 0,
    end: float,
    step_s: float = 1.0,
    kinds: Sequence[int] = range(len(PROFILES)),
) -> Workload:
    """Return about `messages` messages of `devices` devices, the last phenomenon time at `end` (epoch seconds).

    `first`: number of the first round of messages; a later part of one workload goes on where the one before ended.
    `kinds`: numbers of the profiles among the devices, in turns.
    """
    chance = random.Random(seed)
    registered: list[Device] = []
    names: list[tuple[int, str, str]] = []
    for at in range(devices):
        kind = kinds[at % len(kinds)]
        name = f"b{at:06d}"
        county = COUNTIES[at % len(COUNTIES)]
        lon, lat = round(113.2 + at % 97 / 300, 4), round(23.0 + at % 89 / 300, 4)
        user = name
        if kind == 6:
            user = f"c-{name}"
            registered.append(Device(user, division=county, profile=PROFILES[kind]))
        registered.append(
            Device(name, division=county, profile=PROFILES[kind], gateway=user if kind == 6 else "", lon=lon, lat=lat)
        )
        names.append((kind, name, user))
    rounds = max(1, round(messages * (1 - duplicates) / devices))
    sent: list[Sent] = []
    repeated = 0
    for number in range(rounds):
        second = end - (rounds - 1 - number) * step_s
        start = len(sent)
        for kind, name, user in names:
            topic, content = _payload(kind, name, first + number, second, chance)
            sent.append(Sent(user, topic, json.dumps(content).encode()))
        for _ in range(round(devices * duplicates / (1 - duplicates))):
            sent.append(sent[start + chance.randrange(devices)])
            repeated += 1
    return Workload(registered, sent, repeated)


def through_hubs(work: Workload, hubs: int) -> Workload:
    """Return the same with the devices behind so many hubs, each one connection; street lamps keep their cabinets."""
    kept = {device.id for device in work.devices if device.gateway}
    cabinets = {device.gateway for device in work.devices if device.gateway}
    names = [f"hub{at:04d}" for at in range(hubs)]
    hub_of: dict[str, str] = {}
    devices = [Device(name, division=COUNTIES[at % len(COUNTIES)], profile="zigbee2mqtt/bridge")
               for at, name in enumerate(names)]  # fmt: skip
    for device in work.devices:
        if device.id in kept or device.id in cabinets:
            devices.append(device)
            continue
        hub_of[device.id] = names[len(hub_of) % hubs]
        devices.append(msgspec.structs.replace(device, gateway=hub_of[device.id]))
    sent = [Sent(hub_of.get(message.user, message.user), message.topic, message.payload) for message in work.messages]
    return Workload(devices, sent, work.duplicates)
