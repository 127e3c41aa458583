"""Cost of `normalise`: batches of 4,000 messages of six values from 1,000 devices, nothing wrong with them."""

from __future__ import annotations

import time

import numpy as np

from sensegate.clock import FakeClock
from sensegate.model import Fields, Spec
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.series import SeriesIndex

MESSAGES, VALUES, ROUNDS = 4_000, 6, 60
PROPERTIES = ("air_temperature", "relative_humidity", "pm2_5", "battery_level", "sound_level", "online")
SCALES = (0.1, 1.0, 1.0, 1.0, 1.0, 1.0)


def specs(profiles: int = 8) -> list[Spec]:
    """Return the specs of some profiles with six fields each."""
    return [
        Spec(profile=f"bench/p{number}@1", name=name, property=name, scale=scale, interval_s=60.0)
        for number in range(profiles)
        for name, scale in zip(PROPERTIES, SCALES, strict=True)
    ]


def batch(rng: np.random.Generator, devices: int, now: int) -> tuple[Fields, np.ndarray]:
    """Return one batch that arrives now; the messages of a device are a second apart."""
    rows = MESSAGES * VALUES
    message = np.repeat(np.arange(MESSAGES, dtype=np.int32), VALUES)
    device = np.repeat(rng.integers(0, devices, MESSAGES).astype(np.int32), VALUES)
    slot = np.tile(np.arange(VALUES, dtype=np.int32), MESSAGES)
    value = np.tile(np.array([215.0, 55.0, 30.0, 90.0, 60.0, 1.0]), MESSAGES) + rng.normal(0, 0.5, rows) * (slot < 5)
    stamps = now - 1_000_000 + message.astype(np.int64) * 200
    fields = Fields(
        message=message,
        device=device,
        spec=device % 8 * VALUES + slot,
        value=value,
        text={},
        time=stamps,
        time_quality=np.zeros(rows, np.uint8),
        key=stamps,
        path=np.zeros(rows, np.uint16),
    )
    return fields, np.full(MESSAGES, now, np.int64)


def measure(devices: int) -> dict[str, float]:
    """Return µs per message, median over the rounds, of the stage and of the indicators."""
    clock = FakeClock()
    series = SeriesIndex()
    normaliser = Normaliser(specs(), series=series, clock=clock)
    indicators = Indicators(series)
    rng = np.random.default_rng(7)
    stage, extra = [], []
    for number in range(ROUNDS):
        fields, received = batch(rng, devices, clock.now() + number * 1_000_000)
        begin = time.perf_counter()
        readings, rejected = normaliser.normalise(fields, received)
        middle = time.perf_counter()
        indicators.count(normaliser.table, readings, rejected)
        stage.append(middle - begin)
        extra.append(time.perf_counter() - middle)
        assert len(readings) == len(fields)
        assert not rejected
    return {
        "normalise": float(np.median(stage)) / MESSAGES * 1e6,
        "indicators": float(np.median(extra)) / MESSAGES * 1e6,
    }


async def bench() -> dict[str, object]:
    """Return the figure that the plan promises (≤ 1.5 µs a message of six values at 1,000 devices)."""
    small, large = measure(1_000), measure(20_000)
    return {
        "name": "normalise",
        "figure": round(small["normalise"], 3),
        "unit": "us/message",
        "goal": 1.5,
        "figure_20000_devices": round(large["normalise"], 3),
        "indicators": round(small["indicators"], 3),
        "indicators_20000_devices": round(large["indicators"], 3),
        "cpu_us_per_message": round(small["normalise"] + small["indicators"], 3),
    }
