"""MQTT QoS 1 publish to committed, against a bare aiomqtt consumer on Mosquitto that only parses the JSON.

The same messages from the same publisher (a process of its own) over the same number of connections, in turns. Ours
asks every device for its credential, is durable before the PUBACK and commits whole; the other holds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec

from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.workload import VALUES, Sent, make, through_hubs
from tests.collect.mosquitto import Mosquitto

MESSAGES = 60_000
DEVICES = 1_000
HUBS = 50
ROUNDS = 3


class Spent:
    """Figures of one side."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self.acknowledged: list[float] = []

    def add(self, messages: int, wall_s: float, cpu_s: float, acknowledged_s: float) -> None:
        """Note a round."""
        self.rates.append(messages / wall_s)
        self.cpu.append(cpu_s / messages * 1e6)
        self.acknowledged.append(messages / acknowledged_s)


async def bare(broker: Mosquitto, messages: list[Sent], connections: int, spent: Spent) -> None:
    """Time until the last message is parsed by a consumer that does nothing else."""
    parse = msgspec.json.Decoder().decode
    parsed = 0
    spread = [Sent(f"c{at % connections}", message.topic, message.payload) for at, message in enumerate(messages)]
    plan = Plan("127.0.0.1", broker.port, shares(spread, {f"c{at}": "-" for at in range(connections)}))
    async with aiomqtt.Client("127.0.0.1", broker.port) as client, Flood(plan) as flood:
        await client.subscribe("#", qos=1)
        gc.collect()
        cpu = time.process_time()
        going = asyncio.create_task(flood.go())
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            parse(message.payload)
            parsed += 1
            if parsed == len(messages):
                break
        ended, used = time.monotonic(), time.process_time() - cpu
        done = await going
    spent.add(parsed, ended - done.began, used, done.ended - done.began)


async def bench(
    messages: int = MESSAGES, devices: int = DEVICES, hubs: int = HUBS, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Return the ratio of the rates (ours : bare), medians of the rounds."""
    ours, other = Spent(), Spent()
    sent = unique = 0
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sensegate-bench-"))
        parts = await stack.enter_async_context(rig.gateway())
        broker = await stack.enter_async_context(Mosquitto(Path(directory), persistent=False))
        host, port = rig.mqtt_address(parts)
        began = time.time()
        passwords: dict[str, str] = {}
        walk = asyncio.create_task(parts.pipeline.run())
        connections = 0
        for number in range(rounds):
            span_s = messages / devices
            work = make(
                messages, devices, seed=number, first=number * messages, end=began - (rounds - 1 - number) * span_s
            )
            work = through_hubs(work, hubs)
            if not passwords:
                passwords = await rig.register(parts, work.devices)
            plan = Plan(host, port, shares(work.messages, passwords))
            connections = len(plan.shares)
            await bare(broker, work.messages, connections, other)
            async with Flood(plan) as flood:
                gc.collect()
                cpu = time.process_time()
                sent += len(work.messages)
                unique += len(work.messages) - work.duplicates
                # A publisher that fails ends the wait for what it would have sent.
                async with asyncio.TaskGroup() as group:
                    going = group.create_task(flood.go())
                    await rig.committed(parts, sent)
                    ended, used = time.monotonic(), time.process_time() - cpu
                done = going.result()
            ours.add(len(work.messages), ended - done.began, used, done.ended - done.began)
        walk.cancel()
        await asyncio.gather(walk, return_exceptions=True)
        rows, totals = await rig.read_back(parts.core.log)
    return {
        "figure": round(rig.median(ours.rates)),
        "unit": "messages/s, QoS 1 publish to committed",
        "baseline": round(rig.median(other.rates)),
        "baseline_is": "aiomqtt on Mosquitto without persistence, parses the JSON and drops it",
        "ratio": round(rig.median([rate / two for rate, two in zip(ours.rates, other.rates, strict=True)]), 2),
        "rounds": [round(rate) for rate in ours.rates],
        "baseline_rounds": [round(rate) for rate in other.rates],
        "cpu_us_per_message": round(rig.median(ours.cpu), 2),
        "baseline_cpu_us_per_message": round(rig.median(other.cpu), 2),
        "puback_per_s": round(rig.median(ours.acknowledged)),
        "baseline_puback_per_s": round(rig.median(other.acknowledged)),
        "rss_mb": round(rig.rss_mb()),
        "connections": connections,
        "messages": sent,
        "complete": rows == unique * VALUES and totals.get("messages") == sent,
    }
