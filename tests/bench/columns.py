"""Encode and decode of readings: µs a message and bytes a reading.

Run: ``python tests/bench/columns.py``; a JSON line each.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from sensegate.bus.columns import Batch, LocalColumns, Origins, WordColumn, decode, encode

NOW = 1_767_225_600_000_000
PROPERTIES = ["air_temperature", "relative_humidity", "pm2_5", "water_level", "sound_level", "battery_level"]
SCALES = [0.1, 0.1, 1.0, 0.001, 0.1, 1.0]
CENTRES = [24.0, 70.0, 35.0, 3.2, 55.0, 88.0]
SPREADS = [2.0, 8.0, 10.0, 0.4, 6.0, 8.0]


def telemetry(devices: int, messages: int, properties: int, *, span_s: float = 1.0, local: bool = True) -> Batch:
    """Return readings of slow city telemetry: each message carries every property of one device."""
    random = np.random.default_rng(7)
    sender = np.arange(messages) % devices
    random.shuffle(sender)
    base = random.normal(CENTRES[:properties], SPREADS[:properties], (devices, properties))
    drift = np.cumsum(random.normal(0, 0.05, (messages, properties)), axis=0) * 0.01
    value = (base[sender] + drift).reshape(-1)
    scale = np.tile(SCALES[:properties], messages)
    value = np.round(np.rint(value / scale) * scale, 3)
    arrival = NOW + np.sort(random.integers(0, int(span_s * 1e6), messages))
    stamp = (arrival - random.integers(50_000, 400_000, messages)) // 1_000 * 1_000
    count = messages * properties
    message = np.repeat(np.arange(messages), properties)
    ids = [f"gz-{('air', 'water', 'noise')[i % 3]}-{i:05d}" for i in range(devices)]
    origins = Origins(
        ids,
        WordColumn.of([f"4401{3 + i % 11:02d}" for i in range(devices)]),
        WordColumn.of([("environment", "water", "transport")[i % 3] for i in range(devices)]),
        WordColumn.of([("air", "water", "noise")[i % 3] for i in range(devices)]),
        WordColumn.of([("acme/th10@3", "huayi/sw3@1", "bolin/zs7@2")[i % 3] for i in range(devices)]),
        np.round(113.1 + random.random(devices) * 0.6, 5),
        np.round(22.9 + random.random(devices) * 0.5, 5),
        np.ones(devices, np.uint8),
    )
    extra = LocalColumns(
        stamp[message],
        np.full(count, 7, np.uint16),
        np.zeros(count, np.uint8),
        message.astype(np.uint32),
        random.integers(0, 1 << 63, messages).astype(np.uint64),
    )
    return Batch(
        "4401",
        0,
        origins,
        PROPERTIES[:properties],
        sender[message].astype(np.uint32),
        np.tile(np.arange(properties), messages).astype(np.uint16),
        stamp[message],
        arrival[message] // 1_000 * 1_000,
        value,
        {},
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint8),
        np.zeros(count, np.int64),
        np.zeros(count, np.uint32),
        extra if local else None,
    )


def best(call: object, rounds: int = 15) -> float:
    """Return the seconds of the quickest of some rounds: the machine is shared."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Print the figures."""
    big = telemetry(1_000, 4_000, 6)
    payload = encode(big)
    lines = [
        {"name": "columns.encode", "us_per_message": round(best(lambda: encode(big)) / 4_000 * 1e6, 3), "target": 1.5},
        {"name": "columns.decode", "us_per_message": round(best(lambda: decode(payload)) / 4_000 * 1e6, 3)},
        {"name": "columns.local_bytes", "bytes_per_reading": round(len(payload) / len(big), 2)},
    ]
    span = telemetry(500, 500, 5, local=False)
    wire = encode(span)
    lines.append(
        {"name": "columns.wire", "bytes_per_reading": round(len(wire) / len(span), 2), "rows": len(span), "target": 6}
    )
    small = telemetry(100, 100, 6)
    lines.append({"name": "columns.encode_small", "us_per_batch": round(best(lambda: encode(small)) * 1e6, 1)})
    for line in lines:
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
