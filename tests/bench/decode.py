"""Cost of `Decoder.decode` for messages of six values over eight profiles: ``python -m tests.bench.decode [--json]``.

Prints µs a message, for the batch as the flow makes it (4,000 messages, all profiles mixed, 1,000 devices), for each
profile alone, by the general path, and for a single message; beside it the bare `msgspec` decode as baseline.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sensegate.decode import Decoder, ProfileSet
from sensegate.model import BOOL, Device, Message

ROOT = Path(__file__).parents[2] / "device_profiles"
NOW = 1_767_225_600_000_000
BATCH, DEVICES = 4_000, 1_000


class Fleet:
    """A registry of many devices over some profiles."""

    version = 1

    def __init__(self, profiles: list[str], count: int) -> None:
        self._records = [
            Device(f"d{at:05d}", division="440106", profile=profiles[at % len(profiles)]) for at in range(count)
        ]
        self._index = {record.id: at for at, record in enumerate(self._records)}
        self.enabled: BOOL = np.ones(count, np.bool_)

    def find(self, name: str, /) -> int:
        return self._index.get(name, -1)

    def record(self, index: int, /) -> Device:
        return self._records[index]


def _iso(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW // 1_000_000 + second)) + ".250Z"


def makers(r: random.Random) -> dict[str, Callable[[str, int], tuple[str, Any]]]:
    """Return profile -> (device, second) -> (topic, payload) with six values each."""

    def n(low: float, high: float) -> float:
        return round(r.uniform(low, high), 2)

    return {
        "sensegate/plain": lambda d, s: (
            f"sg/{d}/up",
            {
                "time": _iso(s),
                "seq": s,
                "values": {
                    "air_temperature": n(0, 40),
                    "relative_humidity": n(10, 90),
                    "pm2_5": n(1, 90),
                    "pm10": n(1, 90),
                    "sound_level": n(40, 90),
                    "battery_level": r.randrange(100),
                },
            },
        ),
        "tasmota/sensor": lambda d, s: (
            f"tele/{d}/SENSOR",
            {
                "Time": _iso(s)[:19],
                "ENERGY": {
                    "Total": n(0, 99),
                    "Power": n(0, 900),
                    "Voltage": n(210, 240),
                    "Current": n(0, 9),
                    "Factor": 0.9,
                    "Frequency": 50,
                },
            },
        ),
        "zigbee2mqtt/meter": lambda d, s: (
            f"zigbee2mqtt/{d}",
            {
                "power": n(0, 900),
                "voltage": n(210, 240),
                "current": n(0, 9),
                "energy": n(0, 99),
                "linkquality": r.randrange(255),
                "ac_frequency": 50.01,
                "last_seen": _iso(s),
            },
        ),
        "shelly/gen2": lambda d, _: (
            f"{d}/status/switch:0",
            {
                "id": 0,
                "source": "init",
                "output": True,
                "apower": n(0, 900),
                "voltage": n(210, 240),
                "current": n(0, 9),
                "aenergy": {"total": n(0, 9999)},
                "temperature": {"tC": n(10, 60), "tF": n(60, 90)},
            },
        ),
        "citysense/air-station": lambda d, s: (
            f"citysense/air/{d}/hour",
            {
                "d": {
                    "DataTime": _iso(s)[:19].replace("-", "").replace(":", "").replace("T", ""),
                    "a34004": n(1, 90),
                    "a34002": n(1, 90),
                    "a21026": n(1, 90),
                    "a21004": n(1, 90),
                    "a05024": n(1, 90),
                    "a21005": n(0, 3),
                }
            },
        ),
        "citysense/smoke": lambda d, s: (
            f"citysense/smoke/{d}/properties",
            {
                "services": [
                    {
                        "service_id": "Smoke",
                        "properties": {
                            "smokeAlarm": 0,
                            "selfTest": 0,
                            "concentration": n(0, 1),
                            "temperature": n(0, 40),
                            "battery": 88,
                            "RSRP": -97,
                        },
                        "event_time": _iso(s)[:19].replace("-", "").replace(":", "") + "Z",
                    }
                ]
            },
        ),
        "citysense/parking": lambda d, s: (
            f"citysense/parking/{d}",
            [NOW // 1_000_000 + s, s % 2, n(-50, 50), n(-50, 50), n(-50, 50), 93],
        ),
        "chirpstack/v4": lambda d, s: (
            f"application/a1/device/{d}/event/up",
            {
                "deduplicationId": f"{s:08x}-2c3b",
                "time": _iso(s).replace("Z", "000+00:00"),
                "deviceInfo": {"tenantName": "example", "applicationId": "a1", "devEui": d, "tags": {}},
                "dr": 5,
                "fCnt": s,
                "fPort": 85,
                "object": {"temperature": n(0, 40), "humidity": n(10, 90), "co2": n(400, 900), "battery": 100},
                "rxInfo": [{"gatewayId": "0016c001f0000001", "rssi": -69, "snr": 7.25, "crcStatus": "CRC_OK"}],
            },
        ),
    }


def messages(profiles: list[str], count: int, seed: int = 1) -> list[Message]:
    """Return messages of devices of these profiles in random order."""
    r = random.Random(seed)
    make = makers(r)
    messages = []
    for at in range(count):
        device = r.randrange(DEVICES)
        topic, payload = make[profiles[device % len(profiles)]](f"d{device:05d}", at)
        messages.append(Message(topic, msgspec.json.encode(payload), NOW + at, at))
    return messages


def micros(call: Callable[[], object], count: int, rounds: int = 7) -> float:
    """Return the least µs an item over some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e6


def measure() -> dict[str, float]:
    """Return figure by name, µs a message."""
    loaded = ProfileSet.load([ROOT])
    names = list(makers(random.Random(0)))
    figures: dict[str, float] = {}
    batch = messages(names, BATCH)
    decoder = Decoder(loaded, Fleet(names, DEVICES))
    start = time.perf_counter()
    decoder.decode(batch)
    figures["first batch"] = (time.perf_counter() - start) / BATCH * 1e6
    figures["mixed"] = micros(lambda: decoder.decode(batch), BATCH)
    figures["general path"] = micros(lambda: decoder.decode_row_by_row(batch), BATCH, 3)
    figures["one message"] = micros(lambda: decoder.decode(batch[:1]), 1, 50)
    parse = msgspec.json.Decoder().decode
    figures["baseline: msgspec to dict"] = micros(lambda: [parse(message.payload) for message in batch], BATCH)
    for name in names:
        alone = messages([name], BATCH)
        single = Decoder(loaded, Fleet([name], DEVICES))
        single.decode(alone)
        fields = single.decode(alone)
        figures[f"{name} ({len(fields) / BATCH:.0f} values)"] = micros(lambda: single.decode(alone), BATCH)  # noqa: B023
    return figures


def main() -> None:
    """Print the figures."""
    figures = measure()
    if "--json" in sys.argv:
        print(json.dumps({"name": "decode", "figure": figures["mixed"], "unit": "us/message", "all": figures}))
        return
    for name, figure in figures.items():
        print(f"{figure:8.2f} µs  {name}")


if __name__ == "__main__":
    main()
