"""PUBACK to the event at a subscriber of everything, at 1 and 50 % of what the machine sustains, and nearly idle.

Publisher, gateway, front, nats-server and subscriber are processes of their own, as they are in a city. Saturation is
measured first, in the same run, with the subscriber attached: messages a second until the subscriber has the last.
The latency is that of each reading of the devices on the plain layout (a quarter of all), whose times are to the
millisecond and so tell to which message an event belongs. The publisher sends at the times of its schedule, whatever is
acknowledged, and each latency is given from there too: what waits for its PUBACK is not left out.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.errors import EngineError
from sensegate.model import F64, I64, Device
from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.subscriber import Receipt, Subscriber
from tests.bench.workload import VALUES, Sent, Workload, make, through_hubs

MESSAGES = 100_000
DEVICES = 1_000
HUBS = 50
SECONDS = 8.0
SHARES = {0.01: 50.0, 0.5: 100.0}
"""Share of saturation -> the p99 in ms that is to be reached."""
CURVE = (50, 75, 90, 95, 99, 99.5, 99.9)
"""Percentiles that are plotted."""
IDLE = 50
IDLE_RATE = 10.0
PAST_S = 3_000.0
"""Phenomenon times begin so long ago: a device sends one message a second of its own time, here far faster."""
FEED = "/api/v1/feeds/all/stream"
COLUMNS = ("id", "division", "profile", "alias", "gateway", "lon", "lat", "grade")


@contextlib.asynccontextmanager
async def node(fronts: int = 1) -> AsyncIterator[CityMember]:
    """Yield a node that runs alone as `sensegate run` runs it, with so many fronts."""
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        settings = {"engine": {"durability": "power"}, "listen": {"mqtt": {"processes": fronts}}}
        city = City(
            Path(directory),
            ["4401"],
            options=CityOptions(profiles=rig.PROFILES, alone=True, settings=settings),
        )
        try:
            await city.start()
            yield city.nodes["4401"]
        finally:
            await city.stop()


async def enrol(member: CityMember, devices: Iterable[Device]) -> dict[str, str]:
    """Register devices over REST; return the passwords of those that have one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    for device in devices:
        row = {key: value for key, value in msgspec.to_builtins(device).items() if value is not None}
        writer.writerow(row)
    async with member.remote() as remote:
        report = await remote.post_text("/api/v1/devices/import", text.getvalue().encode(), "text/csv")
    if refused := [row for row in report["rows"] if row["outcome"] == "refused"]:
        raise EngineError(f"{len(refused)} devices refused, the first: {refused[0]}")
    return {row["id"]: row["password"] for row in report["rows"] if row.get("password")}


def latencies(messages: Sequence[Sent], acknowledged: I64 | F64, receipts: Sequence[Receipt]) -> tuple[F64, int]:
    """Return (seconds from PUBACK to event of each reading on the plain layout, how many of their messages never came).

    A message that was sent twice counts from its first PUBACK. Times may be negative: a commit need not wait for
    the broker's answer to the device.
    """
    when: dict[tuple[str, int], int] = {}
    for at, message in enumerate(messages):
        if not message.topic.startswith("sg/"):
            continue
        stamp = json.loads(message.payload)["time"]
        key = message.topic.split("/")[1], round(_second(stamp) * 1e3)
        when[key] = min(when.get(key, 1 << 62), int(acknowledged[at]))
    took, latencies = [], set()
    for event in receipts:
        key = event.device, round(_second(event.time) * 1e3)
        if key in when:
            latencies.add(key)
            took.append((event.came - when[key]) / 1e6)
    return np.array(took), len(when) - len(latencies)


def _second(stamp: float | str) -> float:
    return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else stamp


class LoadRun(NamedTuple):
    """What a run of load gave."""

    rate: float
    """Messages/s from the first publish to the last event."""
    late_s: float
    """How far the publisher was behind its schedule at worst."""
    latencies: F64
    """Seconds from PUBACK to event of each reading that is timed."""
    from_schedule: F64
    """Seconds from the time at which the message was due, of the same readings; of a paced run."""
    missing: int
    cpu_us: float
    """CPU of the gateway's own process a message."""


class Load:
    """A node under load with one subscriber of everything."""

    def __init__(self, member: CityMember, passwords: dict[str, str], devices: int, hubs: int) -> None:
        self.member = member
        self.passwords = passwords
        self.devices = devices
        self.hubs = hubs
        self.rounds = 0
        self.at = time.time() - PAST_S

    def work(self, messages: int) -> Workload:
        """Return the next messages; every phenomenon time is new."""
        rounds = max(1, round(messages * 0.95 / self.devices))
        self.at += rounds
        made = make(messages, self.devices, seed=self.rounds, first=self.rounds, end=self.at)
        self.rounds += rounds
        return through_hubs(made, self.hubs)

    async def run(self, work: Workload, rate: float) -> LoadRun:
        """Publish at a rate (0: as fast as possible), and wait for the last event."""
        plan = Plan("127.0.0.1", self.member.mqtt_port, shares(work.messages, self.passwords), rate=rate)
        # The cursor of now: what was before is not asked for again.
        async with self.member.remote() as remote:
            page = await remote.get("/api/v1/feeds/all/records", since="0s", limit="1")
        url = f"{self.member.url}{FEED}?after={page['next']}"
        async with Subscriber(url, self.member.token) as subscriber, Flood(plan) as flood:
            cpu = rig.cpu_s(self.member.process.pid)
            done = await flood.go()
            expected = (len(work.messages) - work.duplicates) * VALUES
            _, last = await subscriber.until(expected, timeout_s=120)
            used = rig.cpu_s(self.member.process.pid) - cpu
            report = await subscriber.seen()
            took, missing = latencies(work.messages, flood.times(), report)
        count = len(work.messages)
        due = np.zeros(0)
        if rate:
            due, _ = latencies(work.messages, np.round((done.began + np.arange(count) / rate) * 1e6), report)
        return LoadRun(count / (last - done.began), done.late_s, took, due, missing, used / count * 1e6)


async def bench(
    *,
    messages: int = MESSAGES,
    devices: int = DEVICES,
    hubs: int = HUBS,
    seconds: float = SECONDS,
    idle: int = IDLE,
    idle_rate: float = IDLE_RATE,
) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds at 1 and 50 % of saturation, and idle."""
    async with node() as member:
        first = through_hubs(make(devices, devices, end=time.time()), hubs)
        load = Load(member, await enrol(member, first.devices), devices, hubs)
        await load.run(load.work(messages // 3), 0)  # warm
        full = await load.run(load.work(messages), 0)
        rows = {}
        for share in SHARES:
            rate = full.rate * share
            rows[share] = await load.run(load.work(max(devices, round(rate * seconds))), rate)
        few = load.work(devices)
        quiet = Workload([], [message for message in few.messages if message.topic.startswith("sg/")][:idle], 0)
        calm = await load.run(quiet, idle_rate)
        memory = rig.rss_mb(member.process.pid), rig.rss_mb(member.engine_pid)
    busy = rows[max(SHARES)]
    return {
        "figure": _percentile(busy.latencies, 99),
        "unit": "ms p99, PUBACK to event, at half of saturation",
        "rows": [
            {
                "share": share,
                "rate": round(full.rate * share),
                "p50_ms": _percentile(row.latencies, 50),
                "p99_ms": _percentile(row.latencies, 99),
                "goal_p99_ms": SHARES[share],
                "from_schedule_p50_ms": _percentile(row.from_schedule, 50),
                "from_schedule_p99_ms": _percentile(row.from_schedule, 99),
                "readings_timed": len(row.latencies),
                "curve_ms": _curve(row.latencies),
                "from_schedule_curve_ms": _curve(row.from_schedule),
                "late_publisher_s": round(row.late_s, 3),
                "cpu_us_per_message": round(row.cpu_us, 1),
            }
            for share, row in rows.items()
        ],
        "p50_ms": _percentile(busy.latencies, 50),
        "p99_ms": _percentile(busy.latencies, 99),
        "idle_p50_ms": _percentile(calm.latencies, 50),
        "idle_p99_ms": _percentile(calm.latencies, 99),
        "idle_rate": idle_rate,
        "idle_cpu_us_per_message": round(calm.cpu_us, 1),
        "baseline": round(full.rate),
        "baseline_is": "saturation, messages/s to the last event at a subscriber of everything",
        "cpu_us_per_message": round(busy.cpu_us, 1),
        "saturated_cpu_us_per_message": round(full.cpu_us, 1),
        "rss_mb": round(memory[0]),
        "engine_rss_mb": round(memory[1]),
        "complete": not any(run.missing for run in (full, calm, *rows.values())),
    }


def _percentile(seconds: F64, percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1e3, 1)


def _curve(seconds: F64) -> dict[str, float]:
    """Return milliseconds by percentile, for the plot."""
    return {f"{percent:g}": _percentile(seconds, percent) for percent in CURVE}
