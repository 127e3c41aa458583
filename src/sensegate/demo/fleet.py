"""Simulated devices: what each kind sends, over whose connection, and the readings expected from it.

A *frame* is one message before encoding: device, time, values in the units of the property table.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

CLASSIFIED_GRADE = 4
"""Readings of this classification level stay in the city (`uplink.grade_max` is 3)."""

FrameValue = float | int | bool | str


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A registered device of the simulator."""

    id: str
    node: str
    """Division of its node, e.g. ``4401``."""
    division: str
    kind: str
    username: str
    """Credential that publishes for it: its own, or its gateway's."""
    password: str = field(repr=False)
    alias: str = ""
    """Its id on the wire (a DEVEUI, a friendly name); empty: its id."""
    number: int = 0
    """Index in its node's fleet; distinguishes the series of equal devices."""
    grade: int = 1


@dataclass(slots=True)
class DeviceFrame:
    """A message before encoding."""

    device: SimulatedDevice
    time: int
    """Phenomenon time, µs UTC, whole milliseconds."""
    values: dict[str, FrameValue]
    counter: int
    """Frame counter of the device, from 0."""
    network: int = 0
    """Network that received it (LoRaWAN only)."""
    compact: bool = True
    """False writes the same content in other bytes."""
    raw: dict[str, object] = field(default_factory=dict)
    """Members added to `values` unchanged, as a broken device would send them."""


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device."""

    profile: str
    properties: Mapping[str, tuple[float, float, int]]
    """Property -> (middle, swing, decimals)."""
    encode: Callable[[DeviceFrame], tuple[str, bytes]]
    faults: frozenset[str] = frozenset()
    """Kinds of faults that it can show."""
    resolution: int = 2_000
    """Step of its clock in µs; it never sends twice within one step."""
    gateway: str = ""
    """Prefix of the id of the gateway that publishes for such devices; empty: they publish themselves."""
    domain: str = ""


def measure(kind: DeviceKind, device: SimulatedDevice, counter: int) -> dict[str, FrameValue]:
    """Return a frame's values: slowly varying, different from frame to frame, and deterministic."""
    values: dict[str, FrameValue] = {}
    for place, (name, (middle, swing, decimals)) in enumerate(kind.properties.items()):
        # A triangle wave of 400 frames: every step is credible, no two neighbours are equal (all phases are even).
        phase = 2 * (counter + device.number * 37 + place * 101) % 800
        level = abs(phase - 400) / 400
        value = round(middle + swing * (level - 0.5), decimals)
        values[name] = value
    return values


def _dumps(document: object, *, compact: bool) -> bytes:
    if compact:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()


def iso(time_us: int) -> str:
    """Format a time as ``2026-01-01T00:00:00.123Z``."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros // 1000:03d}Z"


def plain(frame: DeviceFrame) -> tuple[str, bytes]:
    """Encode on the plain layout: every third device sends ms since the epoch, the others ISO 8601."""
    stamp = frame.time // 1000 if frame.device.number % 3 == 0 else iso(frame.time)
    document: dict[str, object] = {"time": stamp, "values": {**frame.values, **frame.raw}}
    return f"sg/{frame.device.id}/up", _dumps(document, compact=frame.compact)


def lorawan(frame: DeviceFrame) -> tuple[str, bytes]:
    """Encode as The Things Stack v3 forwards a received frame, decoded by its payload formatter."""
    uplink: dict[str, object] = {
        "f_port": 85,
        "f_cnt": frame.counter,
        "decoded_payload": {
            "temperature": frame.values["air_temperature"],
            "humidity": frame.values["relative_humidity"],
        },
        "received_at": iso(frame.time),
        "network_ids": {"net_id": f"{0x13 + frame.network:06X}"},
    }
    document: dict[str, object] = {
        "end_device_ids": {"device_id": frame.device.id, "dev_eui": frame.device.alias.upper()},
        "received_at": iso(frame.time + 200_000),
        "uplink_message": uplink,
    }
    return f"ns/{frame.device.username}/thethings/up", _dumps(document, compact=frame.compact)


def gauge(frame: DeviceFrame) -> tuple[str, bytes]:
    """Encode as the water level gauge that reports by exception: centimetres, whole seconds, a record number."""
    level = round(float(frame.values["water_level"]) * 100, 1)
    document = {"records": [{"no": frame.counter, "ts": frame.time // 1_000_000, "z": level}]}
    return f"citysense/water/{frame.device.id}/records", _dumps(document, compact=frame.compact)


def lamp(frame: DeviceFrame) -> tuple[str, bytes]:
    """Encode as a concentrator's report on one of its lamps; local time in whole seconds."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(frame.time // 1_000_000 + ZONE_S))
    state = {"id": frame.device.alias or frame.device.id, "dim": frame.values["brightness"]}
    return f"citysense/lamp/{frame.device.username}/report", _dumps({"time": clock, "lamps": [state]}, compact=True)


ZONE_S = 8 * 3600
"""Offset of China Standard Time."""
MS, SECOND = 2_000, 1_000_000
PLAIN = "sensegate/plain"
GENERAL_FAULTS = frozenset(
    ("redelivery", "repeat", "conflict", "late", "malformed", "not_utf8", "too_deep", "too_large")
)
PLAIN_FAULTS = GENERAL_FAULTS | {
    "future", "no_values", "refused",
    "not_finite", "wrong_type", "unknown_property", "unknown_unit", "dimension",
}  # fmt: skip

KINDS: dict[str, DeviceKind] = {
    "weather": DeviceKind(
        PLAIN, {"air_temperature": (24, 12, 2), "relative_humidity": (70, 40, 2)}, plain, PLAIN_FAULTS, domain="weather"
    ),
    "air": DeviceKind(
        PLAIN, {"pm2_5": (40, 60, 1), "pm10": (70, 90, 1), "no2": (30, 30, 1)}, plain, PLAIN_FAULTS, domain="air"
    ),
    "water": DeviceKind(PLAIN, {"water_level": (3.2, 4, 3)}, plain, GENERAL_FAULTS, domain="water"),
    "lorawan": DeviceKind(
        "thethings/v3",
        {"air_temperature": (22, 10, 2), "relative_humidity": (60, 40, 2)},
        lorawan,
        frozenset(("redelivery", "repeat", "cross_path", "conflict", "late", "malformed")),
        gateway="network",
        domain="weather",
    ),
    "gauge": DeviceKind(
        "citysense/water-level", {"water_level": (3, 8, 3)}, gauge, frozenset(("unchanged",)), SECOND, domain="water"
    ),
    "lamp": DeviceKind(
        "citysense/street-lamp",
        {"brightness": (50, 80, 0)},
        lamp,
        frozenset(("unknown_device", "foreign_topic")),
        SECOND,
        gateway="concentrator",
        domain="lighting",
    ),
}
"""Kinds of devices; their profiles are those of `device_profiles/`."""

MIX = ("weather", "air", "water", "lorawan", "weather", "air", "lorawan", "weather", "gauge", "lamp")
"""Kinds in the order in which a fleet is filled."""


@dataclass(frozen=True, slots=True)
class DeviceGateway:
    """A device that publishes for others."""

    id: str
    division: str
    profile: str


def list_gateways(devices: Iterable[SimulatedDevice]) -> list[DeviceGateway]:
    """Return the gateways of these devices."""
    gateways = {
        device.username: DeviceGateway(device.username, device.division, KINDS[device.kind].profile)
        for device in devices
        if device.username != device.id
    }
    return list(gateways.values())


def fleet(
    node: str, count: int, *, counties: tuple[str, ...], rng: random.Random, shared_only: bool = False
) -> list[SimulatedDevice]:
    """Return the devices of a node without their credentials (see `SimulatedDevice.password`).

    Unless `shared_only`, the last weather station has a classification level too high to leave the city.
    """
    devices = []
    for number in range(count):
        kind = MIX[number % len(MIX)]
        name = f"{kind}-{node}-{number:04d}"
        behind = KINDS[kind].gateway
        devices.append(
            SimulatedDevice(
                id=name,
                node=node,
                division=rng.choice(counties),
                kind=kind,
                # 500 devices per gateway, as a connection may use 1,000 topics.
                username=f"{behind}-{node}-{number // (500 * len(MIX))}" if behind else name,
                password="",
                alias=f"70b3d5e7{int(node):04x}{number:04x}" if kind == "lorawan" else "",
                number=number,
            )
        )
    if not shared_only:
        place = next(at for at in reversed(range(count)) if devices[at].kind == "weather")
        devices[place] = replace(devices[place], grade=CLASSIFIED_GRADE)
    return devices
