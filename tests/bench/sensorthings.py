"""SensorThings: Observations a second by data arrays with the durable promise, and the page of a map from memory.

A node in a process of its own has many registered Things with six Datastreams each. Observations go in by
`CreateObservations`, each answered after its commit with the address of its record. Then 100 Things are asked for with
their Datastreams and the last Observation of each, again and again. Baseline in the same run: the same Observations
one by one, as clients without data arrays send them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import numpy as np

from sensegate.demo.city import CityMember
from sensegate.model import Device
from tests.bench.latency import enrol, node

THINGS = 2_000
PAGE = 100
ROWS = 500
"""Rows of each Datastream in one data array."""
REQUESTS = 24
ROUNDS = 3
PAGES = 150
SINGLE = 200
SINGLE_AT_ONCE = 8
PROPERTIES = ("air_temperature", "relative_humidity", "air_pressure", "wind_speed", "pm2_5", "pm10")
EXPAND = {"$expand": "Datastreams($expand=Observations($top=1))", "$top": str(PAGE)}
ISTSOS = 649
"""Observations a second of istSOS 4 on two shared cores, by data arrays of 200 (measured in November 2026)."""


class Load:
    """Observations of the Datastreams of a node; every time of a Datastream is new."""

    def __init__(self, session: aiohttp.ClientSession, root: str, streams: list[int]) -> None:
        self._session = session
        self._root = root
        self._streams = streams
        self._minutes = itertools.count()
        self._start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)

    def _times(self, count: int) -> list[str]:
        return [(self._start + timedelta(seconds=next(self._minutes))).isoformat() for _ in range(count)]

    async def array(self, first: int, rows: int) -> int:
        """Send a data array of six Datastreams; return how many Observations were taken."""
        times = self._times(rows)
        body = [
            {
                "Datastream": {"@iot.id": stream},
                "components": ["phenomenonTime", "result"],
                "dataArray": [[moment, 20 + place % 10 / 10] for place, moment in enumerate(times)],
            }
            for stream in (self._streams * 2)[first % len(self._streams) :][: len(PROPERTIES)]
        ]
        async with self._session.post(f"{self._root}/CreateObservations", json=body) as response:
            links = await response.json()
            return sum(link != "error" for link in links) if response.status == 201 else 0

    async def single(self, number: int) -> int:
        """Send one Observation; return how many were taken."""
        body = {"phenomenonTime": self._times(1)[0], "result": 21.5}
        stream = self._streams[number % len(self._streams)]
        async with self._session.post(f"{self._root}/Datastreams({stream})/Observations", json=body) as response:
            return int(response.status == 201)


async def _speak(session: aiohttp.ClientSession, member: CityMember, things: int) -> None:
    """Let each Thing send a reading of each property."""
    values = ",".join(f'"{name}": 20.5' for name in PROPERTIES)

    async def push(number: int) -> None:
        url = f"{member.url}/api/v1/ingest/thing-{number}"
        async with session.post(url, data=f'{{"values": {{{values}}}}}') as response:
            response.raise_for_status()

    for first in range(0, things, 100):
        await asyncio.gather(*(push(number) for number in range(first, min(first + 100, things))))


async def bench(
    things: int = THINGS, requests: int = REQUESTS, rounds: int = ROUNDS, pages: int = PAGES, single: int = SINGLE
) -> dict[str, Any]:
    """Return Observations a second, best of some rounds, and the latency of the page."""
    async with node() as member:
        devices = [
            Device(f"thing-{number}", "440106", "sensegate/plain", lon=113.3 + number * 1e-4, lat=23.1)
            for number in range(things)
        ]
        await enrol(member, devices)
        headers = {"Authorization": f"Bearer {member.token}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await _speak(session, member, things)
            root = f"{member.url}/sta/v1.1"
            query = {"$select": "id", "$top": str(4 * len(PROPERTIES)), "$orderby": "Thing/name"}
            async with session.get(f"{root}/Datastreams", params=query) as response:
                streams = [entity["@iot.id"] for entity in (await response.json())["value"]]
            load = Load(session, root, streams)
            taken, rates = 0, []
            for _ in range(rounds):
                began, count = time.perf_counter(), 0
                for number in range(0, requests, 4):
                    arrays = (load.array(6 * (number + place), ROWS) for place in range(4))
                    count += sum(await asyncio.gather(*arrays))
                rates.append(count / (time.perf_counter() - began))
                taken += count
            began = time.perf_counter()
            one_by_one = 0
            for first in range(0, single, SINGLE_AT_ONCE):
                one_by_one += sum(await asyncio.gather(*(load.single(first + at) for at in range(SINGLE_AT_ONCE))))
            baseline = one_by_one / (time.perf_counter() - began)
            took, entities = [], 0
            for _ in range(pages):
                began = time.perf_counter()
                async with session.get(f"{root}/Things", params=EXPAND) as response:
                    page = msgspec.json.decode(await response.read())
                took.append((time.perf_counter() - began) * 1e3)
                entities = sum(
                    len(stream["Observations"]) for thing in page["value"] for stream in thing["Datastreams"]
                )
    arrays_sent = rounds * ((requests + 3) // 4) * 4
    expected = arrays_sent * len(PROPERTIES) * ROWS
    return {
        "figure": round(max(rates)),
        "unit": "Observations a second by data arrays, each answered after its commit",
        "goal": 20 * ISTSOS,
        "baseline": round(baseline),
        "baseline_is": f"one by one, {SINGLE_AT_ONCE} at a time",
        "page_p50_ms": round(float(np.percentile(took, 50)), 1),
        "page_p95_ms": round(float(np.percentile(took, 95)), 1),
        "page_goal_ms": 50,
        "page": f"{PAGE} of {things} Things, {entities} Datastreams with their last Observation",
        "complete": taken == expected and one_by_one == (single + 7) // 8 * 8 and entities > 0,
    }
