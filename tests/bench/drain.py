"""Stored six-value JSON messages through the whole pipeline to committed, against a bare push consumer.

Both read the same messages, ours in the batches of a front, on the same event loop, from the same server, in turns; 8
profiles, 1,000 devices, 5 % duplicates, every feature on. The ingest is stopped while the messages of a round are
stored, and its start counts: the consumer's reset, the last commit and the state that tells duplicates are in its time,
as the subscription is in the other's. What was committed is counted on the log itself.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from tests.bench import rig
from tests.bench.workload import VALUES, make

MESSAGES = 150_000
ROUNDS = 3
STEP_S = 1.0
"""Some devices tell whole seconds only: closer, and their messages would be repeats."""


async def bench(messages: int = MESSAGES, devices: int = 1_000, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the ratio of the rates (ours : bare), medians of the rounds."""
    ours: list[float] = []
    bare: list[float] = []
    cpu: list[float] = []
    sent = unique = 0
    # The bare consumer has a server that flushes every two minutes: by `power` each message that it removes is a flush.
    async with rig.gateway(rig.PATIENT) as parts, rig.gateway("engine: {durability: process}") as other:
        await rig.bare_consumer(other, "bare")
        # Its consumer must be there before the first message: until then the broker keeps none.
        await rig.walked(parts)
        registered: set[str] = set()
        began = time.time()
        for number in range(rounds):
            span_s = messages / devices * STEP_S
            work = make(
                messages,
                devices,
                seed=number,
                first=number * messages,
                end=began - (rounds - 1 - number) * span_s,
                step_s=STEP_S,
            )
            await rig.register(parts, [device for device in work.devices if device.id not in registered])
            registered |= {device.id for device in work.devices}
            await rig.store(parts, work.messages)
            await rig.store_singly(other, work.messages)
            sent += len(work.messages)
            unique += len(work.messages) - work.duplicates
            gc.collect()
            gc.freeze()  # what is stored here is ours, not the gateway's: neither side's collector walks it
            seconds, _ = await rig.drain_bare(other, "bare", len(work.messages))
            bare.append(len(work.messages) / seconds)
            gc.collect()
            wall, before = time.perf_counter(), time.process_time()
            walk = asyncio.create_task(parts.pipeline.run())
            await rig.committed(parts, sent)
            ours.append(len(work.messages) / (time.perf_counter() - wall))
            cpu.append((time.process_time() - before) / len(work.messages) * 1e6)
            await rig.stopped(walk)
        rows, totals = await rig.read_back(parts.core.log)
    return {
        "figure": round(rig.median(ours)),
        "unit": "messages/s committed",
        "baseline": round(rig.median(bare)),
        "ratio": round(rig.median([row / other for row, other in zip(ours, bare, strict=True)]), 3),
        "rounds": [round(row) for row in ours],
        "cpu_us_per_message": round(rig.median(cpu), 2),
        "rss_mb": round(rig.rss_mb()),
        "messages": sent,
        "readings_on_log": rows,
        "complete": rows == unique * VALUES and totals.get("messages") == sent,
        "duplicates": {kind: count for kind, count in totals.items() if kind.startswith("duplicate.")},
    }
