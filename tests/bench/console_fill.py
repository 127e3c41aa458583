"""Filling of a gateway for the bench of the console: the registry of a city, its last day and 30 days of its history.

Devices come as an operator brings them: in a CSV file, through the import. A message of every device in every hour of
the last day, and the 30 days of some devices, go through all stages into the log. The history of the other devices is
written by the writer of the segments from made batches: through the stages it would take ten times as long.
"""

from __future__ import annotations

import asyncio
import csv
import io
import math
import random
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import uvloop

from sensegate import config, flow
from sensegate.authority.importing import RowOutcome, import_csv
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.clock import DAY_US, HOUR_US
from sensegate.config import Config
from sensegate.history.engine import HistoryEngine
from sensegate.history.segments import SegmentStore
from sensegate.model import Delivery, Message, SourcePosition
from tests.bench import rig
from tests.bench.day import MINUTE_US, Day, MovedClock, gateway
from tests.bench.workload import COUNTIES

HISTORY_DAYS: Final = 30
FULL_DEVICES: Final = 20
"""Devices whose 30 days go through the stages, every ten minutes; that of the other ones is every two hours."""
STEPS_A_DAY: Final = 144
MADE_A_DAY: Final = 12
MADE_PARTS: Final = 5
"""Segments of the made history; of a size that is not merged further."""
HOURS: Final = 24
DOMAINS: Final = ("environment", "lighting", "water", "video")
DEPARTMENTS: Final = ("meteorology", "transport", "housing")


class Filled(msgspec.Struct, frozen=True):
    """What a gateway was filled with, and how long that took."""

    http: str
    messages: int
    readings: int
    registered_s: float
    days_s: float
    made_s: float
    hours_s: float


def day_of(device: int, until: int) -> bytes:
    """Return one message with the readings of a day that ends at `until` (µs)."""
    chance = random.Random(device * 1_000_003 + until // DAY_US)
    rows = []
    for step in range(STEPS_A_DAY):
        at = (until - DAY_US + (step + 1) * (DAY_US // STEPS_A_DAY)) // 1_000_000
        swing = math.sin(2 * math.pi * step / STEPS_A_DAY)
        values = {
            "air_temperature": round(20 + 5 * swing + chance.gauss(0, 0.3), 1),
            "pm2_5": round(abs(35 + 10 * swing + chance.gauss(0, 3)), 1),
        }
        rows.append({"time": at, "values": values})
    return msgspec.json.encode(rows)


def registry(count: int) -> bytes:
    """Return the devices of a city as a CSV file."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(("id", "division", "profile", "lon", "lat", "interval_s", "name", "department", "domain", "owner"))
    for at in range(count):
        place = round(113.2 + at % 97 / 300, 4), round(23.0 + at % 89 / 300, 4)
        department, domain = DEPARTMENTS[at % len(DEPARTMENTS)], DOMAINS[at % len(DOMAINS)]
        owner = "" if at % 7 == 0 else f"owner {at % 40}"
        division = COUNTIES[at % len(COUNTIES)]
        row = (f"m{at:06d}", division, "sensegate/plain", *place, 7_200, f"station {at}", department, domain, owner)
        writer.writerow(row)
    return file.getvalue().encode()


async def register(parts: flow.Gateway, count: int) -> float:
    """Import the devices; return how long it took."""
    began = time.perf_counter()
    report = await import_csv(parts.lifecycle.devices, registry(count), by=rig.ADMIN, dry_run=False)
    if report.count(RowOutcome.ADDED) < count:
        raise RuntimeError(f"not all devices were imported: {next(row for row in report.rows if row.reason)}")
    return time.perf_counter() - began


async def write_days(parts: flow.Gateway, clock: MovedClock, devices: int) -> int:
    """Let some devices report for 30 days, a message a day; return the number of messages."""
    committer = parts.stages.committer
    number = 0
    for _ in range(HISTORY_DAYS):
        clock.at += DAY_US
        messages = []
        for device in range(min(FULL_DEVICES, devices)):
            number += 1
            messages.append(Message(f"sg/m{device:06d}/up", day_of(device, clock.at), clock.at, number))
        delivery = Delivery("bench", messages, _nothing, SourcePosition("bench", number))
        await committer.write(parts.pipeline._process([delivery]))
        committer._duplicates.wait_idle()
    return number


def make_history(settled: Config, span: tuple[int, bytes, str], devices: int, end: int) -> int:
    """Write the history of the devices that do not report through the stages; return its number of readings.

    `span` is the last sequence, its timeline and the epoch of the log, which the segments cover.
    """
    last, timeline, epoch = span
    count = devices - FULL_DEVICES
    if count <= 0:
        return 0
    ids = [f"m{at:06d}" for at in range(FULL_DEVICES, devices)]
    origins = Origins(
        ids,
        WordColumn.of([COUNTIES[at % len(COUNTIES)] for at in range(FULL_DEVICES, devices)]),
        WordColumn.of([DEPARTMENTS[at % len(DEPARTMENTS)] for at in range(FULL_DEVICES, devices)]),
        WordColumn.of([DOMAINS[at % len(DOMAINS)] for at in range(FULL_DEVICES, devices)]),
        WordColumn.of(["sensegate/plain@1"] * count),
        np.full(count, 113.3),
        np.full(count, 23.1),
        np.ones(count, np.uint8),
    )
    directory = Path(settled.directory) / "history"
    engine = HistoryEngine(directory / "scratch", memory_bytes=settled.history.memory_bytes, threads=2)
    chance = np.random.default_rng(7)
    store = SegmentStore(directory, engine)
    steps = HISTORY_DAYS * MADE_A_DAY // MADE_PARTS
    try:
        store.directory.mkdir(parents=True, exist_ok=True)
        for part in range(MADE_PARTS):
            first = end - HISTORY_DAYS * DAY_US + part * steps * (DAY_US // MADE_A_DAY)
            times = np.repeat(first + np.arange(steps, dtype=np.int64) * (DAY_US // MADE_A_DAY), count)
            size = len(times)
            nothing = np.zeros(size, np.uint8)
            batch = Batch(
                settled.division,
                0,
                origins,
                ["air_temperature"],
                np.tile(np.arange(count, dtype=np.uint32), steps),
                np.zeros(size, np.uint16),
                times,
                times + 900_000,
                np.round(20 + 5 * np.sin(times / DAY_US * 2 * np.pi) + chance.normal(0, 0.3, size), 1),
                {},
                nothing,
                np.zeros(size, np.uint32),
                nothing,
                nothing,
                np.zeros(size, np.int64),
                np.arange(size, dtype=np.uint32),
            )
            after, until = last * part // MADE_PARTS, last * (part + 1) // MADE_PARTS
            store.append(after, until, timeline, epoch, [(until, batch)])
    finally:
        engine.close()
    return count * steps * MADE_PARTS


async def fill(file: Path, devices: int) -> None:
    """Fill a gateway and serve it until killed; print what it was filled with once it is."""
    settled = config.load(file)
    now = time.time_ns() // 1_000
    clock = MovedClock(now - (HISTORY_DAYS + 1) * DAY_US - 2 * HOUR_US)
    without_history = msgspec.structs.replace(settled, history=msgspec.structs.replace(settled.history, enabled=False))
    async with gateway(without_history, clock) as parts:
        registered_s = await register(parts, devices)
        began = time.perf_counter()
        messages = await write_days(parts, clock, devices)
        log = parts.core.log
        _, last = await log.bounds()
        span = last, log.timelines.timeline_at(last), log.epoch
        days_s = time.perf_counter() - began
    began = time.perf_counter()
    made = await asyncio.to_thread(make_history, settled, span, devices, clock.at)
    made_s = time.perf_counter() - began
    began = time.perf_counter()
    async with gateway(settled, clock) as parts:
        day = Day(parts, clock, devices, late=0.0)
        clock.at = now - (HOURS - 1) * HOUR_US - MINUTE_US
        for _ in range(HOURS):
            await day.minute()
            parts.stages.quality.collect()
            clock.at += HOUR_US - MINUTE_US
        clock.at = time.time_ns() // 1_000
        readings = messages * STEPS_A_DAY * 2 + made + day.readings
        hours_s = time.perf_counter() - began
        filled = Filled(
            parts.addresses.http, messages + HOURS * devices, readings, registered_s, days_s, made_s, hours_s
        )
        print(msgspec.json.encode(filled).decode(), flush=True)
        while True:  # the present goes on
            await asyncio.sleep(1.0)
            clock.at = time.time_ns() // 1_000


async def _nothing() -> None:
    return None


if __name__ == "__main__":
    uvloop.run(fill(Path(sys.argv[1]), int(sys.argv[2])))
