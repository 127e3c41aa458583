"""Memory of a gateway that knows many devices, over a day: a reading a minute of each series, 2 % of them late.

The whole gateway in this process but for the MQTT side, its clock moved by the bench (see `day`). `base` is with all
devices registered and nothing received; what a series costs is what came on top of that, divided by the series.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

from sensegate import config
from sensegate.demo.processes import Reaper
from tests.bench import day, rig
from tests.bench.weigh import weigh

REGISTERED = 100_000
ACTIVE = 20_000
READINGS = 1_440


async def bench(registered: int = REGISTERED, active: int = ACTIVE, readings: int = READINGS) -> dict[str, Any]:
    """Return bytes an active series beyond the base, and the memory on the way."""
    directory = tempfile.mkdtemp(prefix="sensegate-bench-")
    settled = config.parse(
        f'role: node\ndivision: "4401"\ndirectory: {directory}\nprofiles: [{rig.PROFILES}]\n'
        "store: {log_bytes: 12884901888}\n"
    )
    clock = day.yesterday(readings)
    series = active * len(day.PROPERTIES)
    marks = {round(readings * share): share for share in (1 / 24, 1 / 4, 1 / 2, 1.0)}
    grown: dict[str, int] = {}
    warden = Reaper(Path(directory), remove=True)
    await warden.start()
    try:
        async with day.gateway(settled, clock) as parts:
            empty = rig.rss_mb()
            began = time.perf_counter()
            await day.enrol(parts, registered)
            enrolled = time.perf_counter() - began
            city = day.Day(parts, clock, active)
            gc.collect()
            base = rig.rss_mb()
            began, cpu = time.perf_counter(), time.process_time()
            for minute in range(1, readings + 1):
                await city.minute()
                if minute in marks:
                    grown[f"after {minute} min"] = round(rig.rss_mb())
            wall, used = time.perf_counter() - began, time.process_time() - cpu
            gc.collect()
            after = rig.rss_mb()
            engine = rig.rss_mb(parts.core.engine.info.pid)
            first, last = await parts.core.log.bounds()
            where = weigh(
                {
                    "bench": city._tails,
                    "registry": parts.lifecycle.devices,
                    "series": parts.stages.indicators._series,
                    "duplicates": parts.stages.committer._duplicates,
                    "normalise": parts.pipeline._stages.interpreter.normaliser,
                    "indicators": parts.stages.indicators,
                    "quality": parts.stages.quality,
                    "decode": parts.pipeline._stages.interpreter.decoder,
                    "books": parts.share.sharing.hourly,
                    "reader": parts.share.sharing.reader,
                }
            )
            totals = dict(parts.stages.committer.totals)
        disk = sum(file.stat().st_size for file in Path(directory).rglob("*") if file.is_file())
        index = sum(file.stat().st_size for file in (Path(directory) / "duplicates").rglob("*") if file.is_file())
    finally:
        await warden.finish()
    count = max(1, readings * active)
    return {
        "figure": round((after - base) * 1024**2 / series),
        "unit": "bytes a series beyond the base",
        "goal": 1_000,
        "base_mb": round(base),
        "rss_mb": round(after),
        "on_the_way_mb": grown,
        "where_mb": {name: round(size / 1024**2, 1) for name, size in where.items()},
        "empty_mb": round(empty),
        "bytes_a_registered_device": round((base - empty) * 1024**2 / registered),
        "registered_per_s": round(registered / enrolled),
        "engine_rss_mb": round(engine),
        "series": series,
        "readings": city.readings,
        "late": totals.get("late", 0),
        "repeats": sum(count for kind, count in totals.items() if kind.startswith("duplicate.")),
        "complete": totals.get("values", 0) == city.readings,
        "disk_bytes_a_reading": round(disk / city.readings, 1),
        "duplicate_index_bytes_a_reading": round(index / city.readings, 1),
        "log_entries": last - first + 1,
        "cpu_us_per_message": round(used / count * 1e6, 2),
        "seconds": round(wall),
    }
