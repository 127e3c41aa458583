"""Last values: 1,000 series out of 100,000 over HTTP, from the memory of a node in a process of its own.

2,000 registered devices have reported 50 properties each. Twenty devices, one property of half of the devices, and
the first page of all are asked for in turn, as maps and dashboards do; the answer is read and decoded. The figure is
the worst p95 of the three. Baseline in the same run: the smallest answer of the same server, for what HTTP takes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import numpy as np

from sensegate.demo.city import CityMember
from sensegate.model import Device
from sensegate.quantities.properties import PROPERTIES, ValueKind
from tests.bench.latency import enrol, node

DEVICES = 2_000
PROPERTIES_EACH = 50
SERIES = 1_000
"""Series of each answer."""
ROUNDS = 150
AT_ONCE = 50
GOAL_MS = 20


def measured(count: int) -> dict[str, float]:
    """Return numeric properties, each with a value within its limits."""
    rows = (
        PROPERTIES[index]
        for index in range(len(PROPERTIES.names))
        if PROPERTIES[index].kind is ValueKind.NUMBER and not PROPERTIES[index].counter
    )
    return {row.name: min(max(row.low, row.usual_low, 1.0), row.high) for row in itertools.islice(rows, count)}


async def _report(session: aiohttp.ClientSession, member: CityMember, devices: int, values: dict[str, float]) -> None:
    """Let each device report a value of each property."""
    body = msgspec.json.encode({"values": values})

    async def push(number: int) -> None:
        async with session.post(f"{member.url}/api/v1/ingest/d-{number}", data=body) as response:
            response.raise_for_status()

    for first in range(0, devices, AT_ONCE):
        await asyncio.gather(*(push(number) for number in range(first, min(first + AT_ONCE, devices))))


async def _timed(work: Callable[[], Awaitable[int]], rounds: int) -> tuple[list[float], int]:
    """Return the milliseconds of each call, and the result of the last one."""
    took, count = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        count = await work()
        took.append((time.perf_counter() - began) * 1e3)
    return took, count


async def bench(
    devices: int = DEVICES, properties: int = PROPERTIES_EACH, rounds: int = ROUNDS, series: int = SERIES
) -> dict[str, Any]:
    """Return the p95 of answers with the last values of some series of many."""
    values = measured(properties)
    async with node() as member:
        await enrol(
            member,
            [
                Device(f"d-{number}", "440106", "sensegate/plain", lon=113.3 + number * 1e-4, lat=23.1)
                for number in range(devices)
            ],
        )
        headers = {"Authorization": f"Bearer {member.token}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await _report(session, member, devices, values)
            names = ",".join(f"d-{number}" for number in range(-(-series // properties)))
            queries = {
                "devices": {"device": names, "limit": str(series)},
                "property": {"property": next(iter(values)), "limit": str(series)},
                "page": {"limit": str(series)},
            }

            async def read(query: dict[str, str]) -> int:
                async with session.get(f"{member.url}/api/v1/feeds/all/latest", params=query) as response:
                    return len(msgspec.json.decode(await response.read())["records"])

            async def alive() -> int:
                async with session.get(f"{member.url}/healthz") as response:
                    return len(await response.read())

            await asyncio.gather(*(read(query) for query in queries.values()))
            baseline, _ = await _timed(alive, rounds)
            took: dict[str, list[float]] = {name: [] for name in queries}
            counts: dict[str, int] = {}
            for _ in range(rounds):
                for name, query in queries.items():
                    times, counts[name] = await _timed(lambda query=query: read(query), 1)  # type: ignore[misc]
                    took[name] += times
    figures: dict[str, float] = {}
    for name, times in took.items():
        figures |= {
            f"{name}_p50_ms": round(float(np.percentile(times, 50)), 1),
            f"{name}_p95_ms": round(float(np.percentile(times, 95)), 1),
        }
    return {
        "figure": max(figures[f"{name}_p95_ms"] for name in queries),
        "unit": f"ms p95 of {series} of {devices * properties} series",
        "goal": GOAL_MS,
        "baseline": round(float(np.percentile(baseline, 95)), 1),
        "baseline_is": "ms p95 of the smallest answer",
        **figures,
        "complete": [*counts.values()]
        == [min(series, properties * -(-series // properties)), min(series, devices), series],
    }
