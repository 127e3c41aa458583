"""Logs of made-up readings for the tests of the history, and the records of log and history side by side."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.config.history import HistoryConfig
from sensegate.history.segment_files import TIME_SQL, VALUE_SQL
from sensegate.history.segments import SegmentStore
from sensegate.model import LogMessage
from sensegate.share.reader import named_rows
from tests.share.made import NOW, Place, make_batch

KEEP_ALL = HistoryConfig(flush_s=0.1, retention_days=36_600, grade3_retention_days=36_600)
PLACES = [
    Place(f"d-{number}", ("440106", "440304")[number % 2], ("env", "water")[number % 3 == 0], "air", 1 + number % 3)
    for number in range(8)
]
NAMES = ("pm2_5", "air_temperature", "air_temperature#2", "plate")


async def fill(log: MemoryLog, entries: int, seed: int = 1) -> None:
    """Write entries of readings of all kinds, and others between them; the same for the same seed."""
    randomness = random.Random(seed)
    for number in range(entries):
        rows: list[tuple[int, str, float | str]] = []
        for _ in range(randomness.randrange(1, 40)):
            name = randomness.choice(NAMES)
            value = randomness.choice(
                (randomness.randrange(-400, 400) / 10, randomness.random() * 1e-9, -0.0, 1e300, float(2**53 + 2))
            )
            rows.append((randomness.randrange(len(PLACES)), name, "粤A'12" if name == "plate" else value))
        size = len(rows)
        batch = make_batch(
            rows,
            places=PLACES,
            start=NOW + number * 60_000_000 - randomness.choice((0, 0, 3_600_000_000)),
            revision=np.array([randomness.random() < 0.05 for _ in range(size)], np.uint8),
            quality=np.array([randomness.randrange(3) for _ in range(size)], np.uint8),
            flags=np.array([randomness.choice((0, 1, 1 << 19)) for _ in range(size)], np.uint32),
        )
        kind = randomness.choice(("readings", "readings", "observations")) if number < entries - 1 else "readings"
        await log.write(
            [
                LogMessage("raw.4401-0", b"raw", 72),
                LogMessage(f"{kind}.4401.all.1", columns.encode(batch), 168),
                LogMessage("commit.4401-0", b"commit", rollup=True),
            ]
        )


async def rows_of_log(log: MemoryLog) -> list[tuple[Any, ...]]:
    """Return what the history must hold, row by row: readings, and no observation of a camera."""
    rows: list[tuple[Any, ...]] = []
    for entry in await log.fetch(0, limit=1_000_000, max_bytes=2**40):
        if not entry.subject.startswith("readings."):
            continue
        batch = named_rows(columns.decode(entry.payload, sequence=entry.sequence))
        for row in range(len(batch)):
            origin = int(batch.origin[row])
            text = batch.text.get(row)
            rows.append(
                (
                    entry.sequence,
                    batch.record_id(row),
                    batch.origins.device[origin],
                    batch.origins.division[origin],
                    int(batch.origins.grade[origin]),
                    batch.properties[batch.property[row]],
                    text if text is not None else float(batch.value[row]).hex(),
                    int(batch.time[row]),
                    int(batch.received[row]),
                    int(batch.flags[row]),
                    int(batch.revision[row]),
                )
            )
    return sorted(rows)


def rows_of_history(directory: Path) -> list[tuple[Any, ...]]:
    """Return the rows in all segments, as another process finds them."""
    import duckdb

    rows = (
        duckdb.connect()
        .execute(
            f"SELECT entry, node, partition, entry - back, idx, device, division, grade, property, text, {VALUE_SQL}, "
            f"{TIME_SQL}, received * 1000, flags, revision FROM read_parquet('{directory}/*.parquet')"
        )
        .fetchall()
    )
    return sorted(
        (
            entry,
            f"{node}-{partition}-{sequence:014d}-{index}",
            device,
            division,
            grade,
            name,
            text if text is not None else float(value).hex(),
            *rest,
        )
        for entry, node, partition, sequence, index, device, division, grade, name, text, value, *rest in rows
    )


def open_store(directory: Path, log: MemoryLog) -> SegmentStore:
    """Return an open store."""
    directory.mkdir(exist_ok=True)
    store = SegmentStore(directory)
    store.open(log.timelines, log.epoch)
    return store
