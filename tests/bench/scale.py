"""CPU a message with many devices against few: stored messages through the whole pipeline to committed, in turns.

Two gateways stand side by side and go on walking; the first round of each, in which every topic and series is new,
is not counted. The broker keeps the messages back until all of a round are stored.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from sensegate import flow
from tests.bench import rig
from tests.bench.workload import make

MESSAGES = 60_000
FEW = 1_000
MANY = 20_000
ROUNDS = 3


class Side:
    """One gateway with its number of devices."""

    def __init__(self, parts: flow.Gateway, devices: int, rounds: int, messages: int) -> None:
        self.parts = parts
        self.devices = devices
        self.rounds = rounds
        self.messages = messages
        self.sent = 0
        self.number = 0
        self.cpu: list[float] = []
        self.began = time.time()

    async def round(self) -> None:
        """Store messages, walk them, note what they cost."""
        steps = max(1, round(self.messages / self.devices))
        work = make(
            self.messages,
            self.devices,
            seed=self.number,
            first=self.number * steps,
            end=self.began - (self.rounds - self.number) * steps,
        )
        if not self.number:
            await rig.restore(self.parts, work.devices)
        self.number += 1
        self.sent += len(work.messages)
        await rig.hold(self.parts, seconds=600)
        await rig.store(self.parts, work.messages)
        gc.collect()
        before = time.process_time()
        await rig.hold(self.parts, seconds=0)
        await rig.committed(self.parts, self.sent)
        self.cpu.append((time.process_time() - before) / len(work.messages) * 1e6)


async def bench(messages: int = MESSAGES, few: int = FEW, many: int = MANY, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the ratio of CPU a message (many : few), medians of the rounds after the first."""
    async with rig.gateway(rig.PATIENT) as first, rig.gateway(rig.PATIENT) as other:
        small, large = (
            Side(first, few, rounds + 1, messages),
            Side(other, many, rounds + 1, messages),
        )
        walks = [asyncio.create_task(side.parts.pipeline.run()) for side in (small, large)]
        await rig.walking(first)
        await rig.walking(other)
        for _ in range(rounds + 1):
            await small.round()
            await large.round()
        for walk in walks:
            walk.cancel()
        await asyncio.gather(*walks, return_exceptions=True)
        totals = small.parts.stages.committer.totals["messages"], large.parts.stages.committer.totals["messages"]
    cost = rig.median(large.cpu[1:])
    base = rig.median(small.cpu[1:])
    return {
        "figure": round(cost / base, 2),
        "unit": f"CPU a message at {many} devices / at {few}",
        "goal": 1.5,
        "cpu_us_per_message": round(cost, 2),
        "baseline": round(base, 2),
        "rounds": [round(cpu, 1) for cpu in large.cpu],
        "baseline_rounds": [round(cpu, 1) for cpu in small.cpu],
        "rss_mb": round(rig.rss_mb()),
        "complete": totals == (small.sent, large.sent),
    }
