"""The simulated devices: what each kind sends, over whose connection, and what should be read from it.

A *frame* is one message before it is encoded: device, time, values in the units of the property table.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

GRADE_SECRET = 4
"""Readings of this grade stay in the city (`uplink.grade_max` is 3)."""

Value = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Simulated:
    """One device of the simulator, as registered."""

    id: str
    node: str
    """Division of the node that it belongs to, e.g. ``4401``."""
    division: str
    kind: str
    username: str
    """Whose credential publishes for it: its own, or its gateway's."""
    password: str = field(repr=False)
    alias: str = ""
    """How it calls itself on the wire (a DevEUI, a friendly name); empty: its id."""
    number: int = 0
    """Index in its node's fleet; parts the series of equal devices."""
    grade: int = 1


@dataclass(slots=True)
class Frame:
    """One message before it is encoded."""

    device: Simulated
    time: int
    """Phenomenon time, µs UTC, whole milliseconds."""
    values: dict[str, Value]
    counter: int
    """Counts the device's frames from 0."""
    gateway: int = 0
    """Which of the network's gateways heard it (LoRaWAN only)."""
    compact: bool = True
    """False writes the same content in other bytes."""
    raw: dict[str, object] = field(default_factory=dict)
    """Members put beside `values` as they are: what a broken device would send."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device."""

    profile: str
    properties: Mapping[str, tuple[float, float, int]]
    """Property -> (middle, swing, decimals)."""
    encode: Callable[[Frame], tuple[str, bytes]]
    heard_by_many: bool = False
    """True where several gateways of a network may hear one frame."""
    gateway: str = ""
    """Profile of the gateway that publishes for devices of this kind; empty: they publish for themselves."""
    domain: str = ""


def measure(kind: Kind, device: Simulated, counter: int) -> dict[str, Value]:
    """Return a frame's values: they wander slowly, differ from frame to frame, and depend on nothing else."""
    values: dict[str, Value] = {}
    for place, (name, (middle, swing, decimals)) in enumerate(kind.properties.items()):
        # A triangle wave of 400 frames: no step beyond any credible one, no two neighbours equal.
        phase = (counter * 2 + device.number * 37 + place * 101) % 800
        level = abs(phase - 400) / 400
        value = round(middle + swing * (level - 0.5), decimals)
        values[name] = value
    return values


def _dumps(document: object, *, compact: bool) -> bytes:
    if compact:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()


def iso(time_us: int) -> str:
    """Return ``2026-01-01T00:00:00.123Z``."""
    import time as clock  # noqa: PLC0415 - `time` is a parameter's name everywhere here

    seconds, rest = divmod(time_us, 1_000_000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(seconds))}.{rest // 1000:03d}Z"


def plain(frame: Frame) -> tuple[str, bytes]:
    """Encode on the plain layout: every third device gives ms since the epoch, the others ISO 8601."""
    stamp = frame.time // 1000 if frame.device.number % 3 == 0 else iso(frame.time)
    document: dict[str, object] = {"time": stamp, "values": {**frame.values, **frame.raw}}
    return f"sg/{frame.device.id}/up", _dumps(document, compact=frame.compact)


KINDS: dict[str, Kind] = {
    "weather": Kind("sensegate/plain", {"air_temperature": (24, 12, 2), "relative_humidity": (70, 40, 2)}, plain),
    "air": Kind("sensegate/plain", {"pm2_5": (40, 60, 1), "pm10": (70, 90, 1), "no2": (30, 30, 1)}, plain),
    "water": Kind("sensegate/plain", {"water_level": (3.2, 4, 3)}, plain),
}
"""Kinds of devices; the profiles they name are those of `device_profiles/`."""

MIX = ("weather", "air", "water")
"""Kinds in the order in which a fleet is filled."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A device that publishes for others."""

    id: str
    division: str
    profile: str


def gateways_of(devices: Iterable[Simulated]) -> list[Gateway]:
    """Return the gateways behind which devices stand."""
    found = {
        device.username: Gateway(device.username, device.division, KINDS[device.kind].gateway)
        for device in devices
        if device.username != device.id
    }
    return list(found.values())


def fleet(
    node: str, count: int, *, counties: tuple[str, ...], rng: random.Random, shared_only: bool = False
) -> list[Simulated]:
    """Return the devices of a node without their credentials (see `Simulated.password`).

    The last one's readings are graded too high to leave the city, unless `shared_only`.
    """
    devices = []
    for number in range(count):
        kind = MIX[number % len(MIX)]
        name = f"{kind}-{node}-{number:04d}"
        secret = number == count - 1 and not shared_only
        devices.append(
            Simulated(
                id=name,
                node=node,
                division=rng.choice(counties),
                kind=kind,
                username=name,
                password="",
                number=number,
                grade=GRADE_SECRET if secret else 1,
            )
        )
    return devices
