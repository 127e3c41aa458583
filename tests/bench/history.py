"""History: readings a second written by one core, bytes a reading, and the latency of the two usual questions.

1,000 devices with two properties report for 30 days; what they report goes through the writer of the segments, merging
included, in commits of one round each. Then a reader asks for the last day of one device, and for the mean by the hour
of one property over all devices and days, each as the encoded answer without HTTP. Baseline in the same run: the sums
of the second question from the rows instead of the hourly sums.

SENSEGATE_READINGS=100000000 sensegate bench history measures a hundred million: some two minutes and 0.3 GB.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from msgspec.structs import replace

from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import columns
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.bus.memory import MemoryLog
from sensegate.clock import DAY_US, HOUR_US, SystemClock
from sensegate.config.history import HistoryConfig
from sensegate.history import query
from sensegate.history.aggregates import Aggregate
from sensegate.history.engine import HistoryEngine
from sensegate.history.query import HistoryQueries
from sensegate.history.reader import HistoryReader, HistoryRequest
from sensegate.history.segments import SegmentStore
from sensegate.history.sink import ROWS_MAX, HistorySink
from sensegate.history.windows import Windows
from sensegate.share.feeds import FeedFilter
from sensegate.share.reader import LogReader, named_rows
from tests.support.memory_sharing import sharing_in_memory

READINGS = int(os.environ.get("SENSEGATE_READINGS", "10000000"))
DEVICES = 1_000
NAMES = ("air_temperature", "relative_humidity")
DAYS = 30
START = 1_780_243_200_000_000
"""Midnight UTC."""
LAST_DAYS, HOURLY = 200, 20
CALLER = Principal("bench", Role.SUBSCRIBER, scope("44"))


class Season:
    """Made-up readings: each series walks in steps of a tenth, at times that jitter by milliseconds."""

    def __init__(self, devices: int, readings: int) -> None:
        self.rounds = max(2, readings // (devices * len(NAMES)))
        self.rows = devices * len(NAMES)
        self._random = np.random.default_rng(7)
        self._level = np.repeat([220, 600], devices) + self._random.integers(-50, 50, self.rows)
        origins = [f"gz-meteo-{number:05d}" for number in range(devices)]
        divisions = ("440106", "440103", "440304")
        self._origins = Origins(
            origins,
            WordColumn.of([divisions[number % 3] for number in range(devices)]),
            WordColumn.of(["meteo"] * devices),
            WordColumn.of(["weather"] * devices),
            WordColumn.of(["acme/th10@3"] * devices),
            np.linspace(113.3, 113.4, devices),
            np.full(devices, 23.1),
            np.ones(devices, np.uint8),
        )
        self._origin = np.tile(np.arange(devices, dtype=np.uint32), len(NAMES))
        self._property = np.repeat(np.arange(len(NAMES), dtype=np.uint16), devices)

    def round(self, number: int) -> Batch:
        """Return the readings of one round of all devices, as one commit has them."""
        size = self.rows
        self._level += self._random.integers(-2, 3, size)
        due = START + int((number + 0.5) * DAYS * DAY_US / self.rounds)
        taken = due + self._random.integers(-400, 400, size) * 1_000
        nothing = np.zeros(size, np.uint8)
        return Batch(
            "4401",
            0,
            self._origins,
            list(NAMES),
            self._origin,
            self._property,
            taken,
            np.full(size, due + 900_000),
            self._level / 10.0,
            {},
            nothing,
            np.zeros(size, np.uint32),
            nothing,
            nothing,
            np.zeros(size, np.int64),
            np.arange(size, dtype=np.uint32),
        )

    def commits(self) -> Iterator[list[tuple[int, Batch]]]:
        """Yield the rounds in the portions that the sink writes at a time, each with its sequence of the log."""
        step = max(1, ROWS_MAX // self.rows)
        for first in range(0, self.rounds, step):
            yield [(number + 1, self.round(number)) for number in range(first, min(first + step, self.rounds))]


class Archive:
    """A history in a directory, with what reads it."""

    def __init__(self, directory: Path) -> None:
        config = replace(HistoryConfig(), retention_days=36_600, query_timeout_s=60.0, query_rows_max=10**9)
        clock = SystemClock()
        self.directory = directory
        self.log = MemoryLog(clock, epoch="bench")
        engine = HistoryEngine(directory / "scratch", memory_bytes=config.memory_bytes, threads=config.threads)
        self.store = SegmentStore(directory)
        self.store.open(self.log.timelines, self.log.epoch)
        self.sharing = sharing_in_memory(LogReader(self.log, clock), clock)
        sink = HistorySink(self.log, self.store, config, clock)
        queries = HistoryQueries(engine, sink, self.sharing.server.masks, config)
        self.reader = HistoryReader(queries, self.sharing, sink.drop)

    def write(self, season: Season) -> float:
        """Write all readings; return the processor time of writing and merging."""
        timeline, used = self.log.timelines.timeline_at(0), 0.0
        for parts in season.commits():
            began = time.process_time()
            self.store.append(self.store.end, parts[-1][0], timeline, self.log.epoch, parts)
            while self.store.merge():
                pass
            used += time.process_time() - began
            self.store.delete_obsolete()
        return used

    def size(self) -> tuple[int, int]:
        """Return the bytes of the rows and those of the hourly sums."""
        sizes = [sum(file.stat().st_size for file in self.directory.glob(f"*.{kind}")) for kind in ("parquet", "sums")]
        return sizes[0], sizes[1]

    async def last_day(self, device: int) -> int:
        """Return how many readings of a device's last day were answered, page by page as a reader asks."""
        wanted = FeedFilter(devices=(f"gz-meteo-{device:05d}",), begin=START + (DAYS - 1) * DAY_US, end=END)
        page = await self.reader.page(CALLER, HistoryRequest("all", wanted), form="msgpack", limit=10_000)
        return page.count

    async def hourly(self) -> int:
        """Return how many windows were answered of one property over all devices and days."""
        wanted = FeedFilter(properties=(NAMES[0],), begin=START, end=END)
        windows = Windows.of(START, END, HOUR_US, "Asia/Shanghai")
        aggregate = Aggregate(("count", "min", "mean", "max"), (), windows)
        page = await self.reader.aggregate(CALLER, "all", wanted, aggregate, form="json", gaps=True)
        return page.count


END = START + DAYS * DAY_US


def decoding_s(season: Season) -> float:
    """Return the processor time of decoding one reading of the log, which the sink does before it writes."""
    payload = columns.encode(columns.ordered(season.round(season.rounds)))
    began = time.process_time()
    for sequence in range(50):
        named_rows(columns.decode(payload, sequence=sequence + 1))
    return (time.process_time() - began) / 50 / season.rows


async def measured(ask: Callable[[int], Awaitable[int]], times: int) -> tuple[dict[str, float], set[int]]:
    """Return latency and processor time of a question in ms, and the counts that were answered."""
    took: list[float] = []
    counts: set[int] = set()
    await ask(0)
    used = time.process_time()
    for number in range(times):
        began = time.perf_counter()
        counts.add(await ask(number))
        took.append((time.perf_counter() - began) * 1e3)
    cpu = (time.process_time() - used) * 1e3 / times
    return {
        "p50_ms": round(float(np.quantile(took, 0.5)), 2),
        "p95_ms": round(float(np.quantile(took, 0.95)), 2),
        "cpu_ms": round(cpu, 2),
    }, counts


async def bench(
    readings: int = READINGS, devices: int = DEVICES, last_days: int = LAST_DAYS, hourly: int = HOURLY
) -> dict[str, Any]:
    """Return the rate of writing with its baseline, the size, and the latencies."""
    directory = Path(tempfile.mkdtemp(prefix="sensegate-bench-"))
    try:
        archive, season = Archive(directory), Season(devices, readings)
        await archive.sharing.open()
        began = time.perf_counter()
        used = await asyncio.to_thread(archive.write, season)
        wall = time.perf_counter() - began
        rows, sums = archive.size()
        written = season.rounds * season.rows
        decoding = decoding_s(season)
        day, day_counts = await measured(lambda number: archive.last_day(number * 37 % devices), last_days)
        hours, hour_counts = await measured(lambda _number: archive.hourly(), hourly)
        without_sums, _ = await measured(lambda _number: _from_rows(archive), max(1, hourly // 10))
        return {
            "figure": round(written / used),
            "unit": "readings a second and core, written and merged",
            "goal": 1_000_000,
            "with_decoding": round(1 / (used / written + decoding)),
            "readings": written,
            "wall_s": round(wall, 1),
            "bytes_a_reading": round((rows + sums) / written, 2),
            "bytes_of_sums": round(sums / written, 3),
            "segments": len(archive.store.segments),
            "last_day": day,
            "hourly": hours,
            "hourly_from_rows": without_sums,
            "complete": hour_counts == {DAYS * 24}
            and all(day_counts)
            and sum(segment.rows for segment in archive.store.segments) == written,
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _from_rows(archive: Archive) -> int:
    """Return the answer of `hourly` computed from rows."""
    with patch.object(query, "fits_sums", return_value=False):
        return await archive.hourly()
