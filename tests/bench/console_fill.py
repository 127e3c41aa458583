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
from sensegate.authority.importing import RowOutcome
from sensegate.bus import malloc
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.bus.log import JetStreamLog
from sensegate.bus.names import READINGS
from sensegate.bus.unreadable import read_rows
from sensegate.clock import DAY_US, HOUR_US
from sensegate.config import Config
from sensegate.history.segments import SegmentStore
from sensegate.model import Delivery, Message, SourcePosition
from sensegate.share.reader import named_rows
from tests.bench import rig
from tests.bench.day import MINUTE_US, Day, MovedClock, gateway
from tests.bench.workload import COUNTIES
from tests.support.importing import import_csv

HISTORY_DAYS: Final = 30
FULL_DEVICES: Final = 20
"""Devices whose 30 days go through the stages, every ten minutes; that of the other ones is every four hours."""
STEPS_A_DAY: Final = 144
MADE_A_DAY: Final = 6
MADE_PARTS: Final = 5
"""Segments of the made history; of a size that is not merged further."""
HOURS: Final = 24
DOMAINS: Final = ("environment", "lighting", "water", "video")
DEPARTMENTS: Final = ("meteorology", "transport", "housing")


class Span(msgspec.Struct, frozen=True, eq=False):
    """The log that the segments of the history cover."""

    last: int
    timeline: bytes
    epoch: str
    rows: list[tuple[int, Batch]]


class Filled(msgspec.Struct, frozen=True):
    """What a gateway was filled with, and how long that took."""

    http: str
    messages: int
    readings: int
    registered_s: float
    days_s: float
    made_s: float
    hours_s: float = 0.0


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


async def rows_of(log: JetStreamLog) -> list[tuple[int, Batch]]:
    """Return the readings of each entry of the log, as the history takes them."""
    rows: list[tuple[int, Batch]] = []
    at = 0
    while entries := await log.fetch(at):
        at = entries[-1].sequence
        rows += [
            (entry.sequence, named_rows(batch))
            for entry in entries
            if entry.subject.startswith(f"{READINGS}.") and (batch := read_rows(entry, "bench")) is not None
        ]
    return rows


def make_history(settled: Config, span: Span, devices: int, end: int) -> int:
    """Write the log's readings into the history, with made ones of the other devices; return their number."""
    last = span.last
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
    chance = np.random.default_rng(7)
    store = SegmentStore(directory)
    steps = HISTORY_DAYS * MADE_A_DAY // MADE_PARTS
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
        logged = [(sequence, rows) for sequence, rows in span.rows if after < sequence <= until]
        store.append(after, until, span.timeline, span.epoch, [*logged, (until, batch)])
    return count * steps * MADE_PARTS


async def begin(file: Path, devices: int) -> None:
    """Register the devices and write 30 days of history; print how long it took."""
    settled = config.load(file)
    clock = MovedClock(time.time_ns() // 1_000 - (HISTORY_DAYS + 1) * DAY_US - 2 * HOUR_US)
    without_history = msgspec.structs.replace(settled, history=msgspec.structs.replace(settled.history, enabled=False))
    async with gateway(without_history, clock) as parts:
        registered_s = await register(parts, devices)
        began = time.perf_counter()
        messages = await write_days(parts, clock, devices)
        log = parts.core.log
        _, last = await log.bounds()
        span = Span(last, log.timelines.timeline_at(last), log.epoch, await rows_of(log))
        days_s = time.perf_counter() - began
    began = time.perf_counter()
    made = await asyncio.to_thread(make_history, settled, span, devices, clock.at)
    made_s = time.perf_counter() - began
    readings = messages * STEPS_A_DAY * 2 + made
    print(msgspec.json.encode(Filled("", messages, readings, registered_s, days_s, made_s)).decode(), flush=True)


async def go_on(file: Path, devices: int, before: Filled) -> None:
    """Let every device report in every hour of the last day; then serve until killed, and print the address."""
    now = time.time_ns() // 1_000
    clock = MovedClock(now - (HOURS - 1) * HOUR_US - MINUTE_US)
    began = time.perf_counter()
    async with gateway(config.load(file), clock) as parts:
        day = Day(parts, clock, devices, late=0.0)
        for _ in range(HOURS):
            await day.minute()
            parts.stages.quality.collect()
            clock.at += HOUR_US - MINUTE_US
        clock.at = time.time_ns() // 1_000
        filled = msgspec.structs.replace(
            before,
            http=parts.addresses.http,
            messages=before.messages + HOURS * devices,
            readings=before.readings + day.readings,
            hours_s=time.perf_counter() - began,
        )
        del day
        malloc.trim()
        print(msgspec.json.encode(filled).decode(), flush=True)
        while True:  # the present goes on
            await asyncio.sleep(1.0)
            clock.at = time.time_ns() // 1_000


async def _nothing() -> None:
    return None


if __name__ == "__main__":
    if len(sys.argv) > 3:
        uvloop.run(go_on(Path(sys.argv[1]), int(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=Filled)))
    else:
        uvloop.run(begin(Path(sys.argv[1]), int(sys.argv[2])))
