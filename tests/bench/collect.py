"""The source of batches alone: receiving stored messages, against a bare nats-py push consumer on the same ones singly.

What is measured is the client's part, messages made and acknowledged and nothing else done; both on the same event
loop, from the same server, in turns. `cpu_us_per_message` is ours, `baseline_cpu_us` nats-py's.
"""

from __future__ import annotations

import gc
import time
from typing import Any

from sensegate.bus.engine import User
from sensegate.clock import SystemClock
from sensegate.collect.intake.source import IntakeSource
from sensegate.config import IngestConfig
from tests.bench import rig
from tests.bench.workload import make

MESSAGES = 100_000
ROUNDS = 3


async def drain(source: IntakeSource, count: int) -> tuple[float, float]:
    """Receive and acknowledge `count` messages; return (wall, CPU) in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    await source.start(None)
    result = 0
    async for delivery in source.deliveries():
        result += len(delivery.messages)
        await delivery.ack()
        if result >= count:
            break
    spent = time.perf_counter() - wall, time.process_time() - cpu
    await source.stop()
    return spent


async def bench(messages: int = MESSAGES, devices: int = 1_000, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the ratio of the rates (ours : bare), medians of the rounds."""
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    # As in `drain`, the bare consumer has a server that flushes every two minutes.
    async with rig.gateway() as parts, rig.gateway("engine: {durability: process}") as other:
        await rig.bare_consumer(other, "bare")
        connection = await parts.core.engine.connect(User.GATEWAY, name="bench collect")
        source = IntakeSource(connection, IngestConfig(), SystemClock())
        await source.prepare()
        for number in range(rounds):
            work = make(messages, devices, seed=number, first=number * messages, end=time.time(), step_s=1.0)
            await rig.store(parts, work.messages)
            await rig.store_singly(other, work.messages)
            count = len(work.messages)
            gc.collect()
            bare.append(tuple(spent / count for spent in await rig.drain_bare(other, "bare", count)))  # type: ignore[arg-type]
            gc.collect()
            ours.append(tuple(spent / count for spent in await drain(source, count)))  # type: ignore[arg-type]
        await connection.close()
    return {
        "figure": round(1 / rig.median([wall for wall, _ in ours])),
        "unit": "messages/s received",
        "baseline": round(1 / rig.median([wall for wall, _ in bare])),
        "ratio": round(rig.median([other[0] / row[0] for row, other in zip(ours, bare, strict=True)]), 2),
        "cpu_us_per_message": round(rig.median([cpu for _, cpu in ours]) * 1e6, 2),
        "baseline_cpu_us": round(rig.median([cpu for _, cpu in bare]) * 1e6, 2),
    }
