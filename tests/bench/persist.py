"""Judging, building and writing commits: µs of CPU a message of six values, batches of 4,000.

Run: ``python tests/bench/persist.py``; a JSON line each. The log is in memory: what the server costs is not here.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.authority.index import DeviceIndex, unchanged
from sensegate.bus.timelines import Timelines
from sensegate.clock import FakeClock
from sensegate.model import Delivery, Device, Fields, LogMessage, Message, Readings, SourcePosition, Spec
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.persist.identity import SpecColumns, digests
from sensegate.quantities.series import SeriesIndex

NOW = 1_767_225_600_000_000
MESSAGES, VALUES, DEVICES, PROFILES = 4_000, 6, 1_000, 8
NAMES = ["air_temperature", "relative_humidity", "pm2_5", "pm10", "sound_level", "battery_level"]
SPECS = [Spec(f"acme/m{profile}@1", name, name) for profile in range(PROFILES) for name in NAMES]


class Bin:
    """A log that keeps nothing but its length."""

    epoch = "bench"

    def __init__(self) -> None:
        self.at = 0
        self.timelines = Timelines.in_memory("bench")

    async def write(self, members: list[LogMessage]) -> int:
        """Count the members."""
        self.at += len(members)
        return self.at

    async def last(self, _subject: str) -> None:
        """There is none."""
        return

    async def bounds(self) -> tuple[int, int]:
        """Nothing is here."""
        return self.at + 1, self.at

    async def sequence_at(self, _time: int) -> int:
        """Nothing is here."""
        return self.at + 1


def registry(devices: int) -> DeviceIndex:
    """Return an index of devices over the counties of Guangzhou."""
    index = DeviceIndex(Divisions.load(), unchanged)
    index.reserve(devices)
    counties = ["440103", "440104", "440105", "440106", "440111", "440112", "440113", "440114"]
    for number in range(devices):
        index.put(index.slot(f"gz-{number:06d}"), Device(f"gz-{number:06d}", counties[number % 8], "acme/m0"))
    return index


class Feed:
    """Batches of messages as normalise gives them: 5 % of the messages are copies of earlier ones."""

    def __init__(self, devices: int, series: SeriesIndex, *, copies: float = 0.05) -> None:
        self.random = np.random.default_rng(3)
        self.devices = devices
        self.series = series
        self.copies = copies
        self.variable = np.array([series.variable(spec.property) for spec in SPECS], np.int32)
        self.now = NOW
        self.sequence = 0
        self.last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.payload = [
            json.dumps({"time": NOW + i, "seq": i, "values": dict.fromkeys(NAMES, 20.5 + i / 10)}).encode()
            for i in range(997)
        ]

    def batch(self, messages: int = MESSAGES, span_us: int = 40_000) -> tuple[Delivery, Fields, Readings]:
        """Return one batch."""
        random = self.random
        sender = random.integers(0, self.devices, messages).astype(np.int32)
        stamp = self.now + np.sort(random.integers(0, span_us, messages))
        value = np.round(random.normal(20, 3, (messages, VALUES)), 1)
        copied = np.flatnonzero(random.random(messages) < self.copies)
        if self.last is not None and copied.size:
            source = random.integers(0, len(self.last[0]), copied.size)
            sender[copied], stamp[copied], value[copied] = (column[source] for column in self.last)
        self.last = (sender, stamp, value)
        self.now += span_us
        batch = [
            Message("sg/x/up", self.payload[(int(sender[i]) + int(stamp[i])) % 997], self.now, self.sequence + i)
            for i in range(messages)
        ]
        self.sequence += messages
        message = np.repeat(np.arange(messages, dtype=np.int32), VALUES)
        device = sender[message]
        spec = ((device % PROFILES) * VALUES + np.tile(np.arange(VALUES), messages)).astype(np.int32)
        time_ = stamp[message]
        rows = len(message)
        received = np.full(rows, self.now, np.int64)
        path = np.full(rows, 7, np.uint16)
        quality = np.zeros(rows, np.uint8)
        flat = value.reshape(-1)
        fields = Fields(message, device, spec, flat, {}, time_, quality, time_, path)
        readings = Readings(
            message,
            device,
            spec,
            np.zeros(rows, np.int16),
            flat,
            {},
            time_,
            quality,
            received,
            time_,
            path,
            quality.copy(),
            np.zeros(rows, np.uint32),
            self.series.resolve(device, self.variable[spec]),
        )

        async def ack() -> None:
            return None

        return Delivery("mqtt", batch, ack, SourcePosition("x", self.sequence)), fields, readings


async def judge(directory: Path) -> dict[str, object]:
    """Time the judgement alone, state going to disk meanwhile."""
    index, series = registry(DEVICES), SeriesIndex()
    feed, specs = Feed(DEVICES, series), SpecColumns.of(SPECS)
    state = Deduplicator(directory, clock=FakeClock(NOW), device_id=index.ids.__getitem__)
    state.open(Timelines.in_memory("bench"), 0)
    took, steps, kept = [], 60, 0
    for step in range(steps):
        _, _, readings = feed.batch()
        digest = np.arange(MESSAGES, dtype=np.uint64)
        if state.checkpoint_due:
            state.freeze(step)
            state.confirm(step, step)
        start = time.thread_time()
        judged = state.judge(readings, digest, specs)
        took.append(time.thread_time() - start)
        kept += int(judged.accepted.sum())
    state.close()
    return {
        "name": "persist.judge",
        "us_per_message": round(float(np.median(took)) / MESSAGES * 1e6, 3),
        "best": round(min(took) / MESSAGES * 1e6, 3),
        "target": 1.5,
        "duplicates": round(1 - kept / steps / MESSAGES / VALUES, 3),
    }


async def whole(directory: Path) -> list[dict[str, object]]:
    """Time `prepare` and its parts."""
    index, series = registry(DEVICES), SeriesIndex()
    feed = Feed(DEVICES, series)
    state = Deduplicator(directory, clock=FakeClock(NOW), device_id=index.ids.__getitem__)
    committer = Committer(Bin(), state, index, SPECS, FakeClock(NOW), writer=CommitWriter("4401"))  # type: ignore[arg-type]
    await committer.open()
    took, written, size = [], [], 0
    for _ in range(60):
        delivery, fields, readings = feed.batch()
        start = time.thread_time()
        pending = committer.prepare([delivery], fields, readings)
        middle = time.thread_time()
        await committer.write(pending)
        written.append(time.thread_time() - middle)
        took.append(middle - start)
        size += sum(len(member.payload) for member in pending.messages)
    state.close()
    messages = feed.batch()[0].messages
    start = time.thread_time()
    for _ in range(10):
        digests([message.payload for message in messages])
    digest = (time.thread_time() - start) / 10
    return [
        {
            "name": "persist.prepare",
            "us_per_message": round(float(np.median(took)) / MESSAGES * 1e6, 3),
            "best": round(min(took) / MESSAGES * 1e6, 3),
            "of_which_digests": round(digest / MESSAGES * 1e6, 3),
            "members": len(pending.messages),
            "bytes_per_message": round(size / 60 / MESSAGES, 1),
        },
        {"name": "persist.write", "us_per_message": round(float(np.median(written)) / MESSAGES * 1e6, 3)},
    ]


def rss_mb() -> float:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def memory(directory: Path, rounds: int) -> dict[str, object]:
    """Measure the memory of 100,000 series after many readings each, 2 % late."""
    devices = 100_000 * PROFILES // 8 // VALUES
    index, series = registry(100_000), SeriesIndex()
    clock = FakeClock(NOW)
    state = Deduplicator(directory, clock=clock, device_id=index.ids.__getitem__)
    specs = SpecColumns.of(SPECS)
    state.open(Timelines.in_memory("bench"), 0)
    feed = Feed(devices, series, copies=0.0)
    feed.batch(10)
    before = rss_mb()
    random = np.random.default_rng(1)
    sender = np.arange(devices, dtype=np.int32)
    message = np.repeat(sender, VALUES)
    spec = ((message % PROFILES) * VALUES + np.tile(np.arange(VALUES), devices)).astype(np.int32)
    number = series.resolve(message, feed.variable[spec])
    took = 0.0
    for step in range(rounds):
        now = NOW + step * 60_000_000
        clock._now = now
        late = random.random(devices) < 0.02
        stamp = np.where(late, now - random.integers(0, 3_600_000_000, devices), now)[message]
        rows = len(message)
        readings = Readings(
            message,
            message,
            spec,
            np.zeros(rows, np.int16),
            np.round(random.normal(20, 3, rows), 1),
            {},
            stamp,
            np.zeros(rows, np.uint8),
            np.full(rows, now, np.int64),
            stamp,
            np.full(rows, 7, np.uint16),
            np.zeros(rows, np.uint8),
            np.zeros(rows, np.uint32),
            number,
        )
        if state.checkpoint_due:
            state.freeze(step)
            state.confirm(step, step)
        start = time.thread_time()
        state.judge(readings, np.arange(devices, dtype=np.uint64) + np.uint64(step * devices), specs)
        took += time.thread_time() - start
        # A minute lies between two readings of a series: the worker has long been done.
        state.wait_idle()
    state.wait_idle()
    after = rss_mb()
    numbers = number.nbytes + series.nbytes
    used = sum(path.stat().st_size for path in directory.iterdir())
    state.close()
    return {
        "name": "persist.memory",
        "series": len(number),
        "readings_per_series": rounds,
        "bytes_per_series_of_numbering": round(numbers / len(number)),
        "bytes_per_series": round((after - before) * 1024**2 / len(number)),
        "target": 1_000,
        "rss_mb": round(after),
        "disk_bytes_per_reading": round(used / len(number) / rounds, 1),
        "runs": len(state._index._store.runs),
        "us_per_message": round(took / rounds / devices * 1e6, 2),
    }


def main() -> int:
    """Print the figures; an argument is the number of readings a series in the measurement of memory."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    root = Path(tempfile.mkdtemp(prefix="sg-bench-"))
    try:
        lines = [
            asyncio.run(judge(root / "a")),
            *asyncio.run(whole(root / "b")),
            asyncio.run(memory(root / "c", rounds)),
        ]
    finally:
        shutil.rmtree(root)
    for line in lines:
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
