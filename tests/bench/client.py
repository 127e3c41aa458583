"""Readings a second that the client reads as columns, and per second of its own processor time.

A node in a process of its own serves readings that nobody has read before; the client, in this process, asks for pages
of columns, decodes them and sums every value with NumPy. Baseline in the same run: the same readings as NDJSON, read
with aiohttp and decoded line by line with the standard library, as one would without the client.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np

from sensegate_client import Client
from tests.bench.fanout import ROWS, Node, node

RECORDS = 1_000_000
BASELINE_RECORDS = 100_000
ROUNDS = 3
Read = Callable[[Node, str], Awaitable[int]]


async def columns(node_process: Node, after: str) -> int:
    """Read all that follows a cursor with the client; return the number of readings."""
    count, total = 0, 0.0
    async with Client(node_process.addresses.http, node_process.token) as client:
        async for page in client.feed("all").columns(after=after, follow=False):
            count += len(page)
            total += float(np.asarray(page.column("value")).sum())
    return count


async def lines(node_process: Node, after: str) -> int:
    """Read all that follows a cursor as NDJSON; return the number of readings."""
    count, total = 0, 0.0
    headers = {"Authorization": f"Bearer {node_process.token}", "Accept": "application/x-ndjson"}
    url = f"{node_process.addresses.http}/api/v1/feeds/all/records"
    async with aiohttp.ClientSession(headers=headers) as http:
        while True:
            async with http.get(url, params={"after": after, "limit": "10000"}) as response:
                records = [json.loads(line) for line in (await response.read()).splitlines()]
                after = response.headers["X-Next-Cursor"]
            if not records:
                return count
            count += len(records)
            total += sum(record["value"] for record in records)


async def bench(records: int = RECORDS, baseline: int = BASELINE_RECORDS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the client's rate, best of some rounds, and the baseline's."""
    complete = True

    async with node() as served:

        async def measure(read: Read, amount: int) -> tuple[float, float]:
            """Return readings a second, and a second of processor time of this process."""
            nonlocal complete
            cursor = await served.fill(amount)
            used, began = time.process_time(), time.perf_counter()
            count = await read(served, cursor)
            seconds, spent = time.perf_counter() - began, time.process_time() - used
            complete = complete and count == amount
            return count / seconds, count / spent

        whole = records // ROWS * ROWS
        await measure(columns, min(whole, 10 * ROWS))  # what is imported once is imported
        rates = [await measure(columns, whole) for _ in range(rounds)]
        plain = [await measure(lines, baseline // ROWS * ROWS) for _ in range(rounds)]
    return {
        "figure": round(max(rate for rate, _ in rates)),
        "unit": "readings a second by one client, of a node on the other core",
        "goal": 300_000,
        "per_client_core_s": round(max(rate for _, rate in rates)),
        "baseline": round(max(rate for rate, _ in plain)),
        "baseline_per_core_s": round(max(rate for _, rate in plain)),
        "baseline_is": "aiohttp and json.loads of NDJSON",
        "rounds": rounds,
        "complete": complete,
    }
