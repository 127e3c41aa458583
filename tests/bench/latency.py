"""PUBACK to the event at a subscriber of everything, at half of what the machine sustains, and idle.

Publisher, gateway, nats-server and subscriber are processes of their own, as they are in a city. Saturation is
measured first, in the same run, with the subscriber attached: messages a second until the subscriber has the last.
The latency is that of each reading of the devices on the plain layout (a quarter of all), whose times are to the
millisecond and so tell to which message an event belongs.
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
from typing import Any

import msgspec
import numpy as np

from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.errors import EngineError
from sensegate.model import F64, I64, Device
from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.subscriber import Seen, Subscriber
from tests.bench.workload import VALUES, Sent, Workload, make, through_hubs

MESSAGES = 100_000
DEVICES = 1_000
HUBS = 50
SECONDS = 8.0
IDLE = 50
IDLE_RATE = 10.0
PAST_S = 3_000.0
"""Phenomenon times begin so long ago: a device sends one message a second of its own time, here far faster."""
FEED = "/api/v1/feeds/all/stream"
COLUMNS = ("id", "division", "profile", "alias", "gateway", "lon", "lat", "grade")


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[CityMember]:
    """Yield a node that runs alone as `sensegate run` runs it."""
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        city = City(Path(directory), ["4401"], options=CityOptions(profiles=rig.ROOT / "device_profiles", alone=True))
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


def latencies(messages: Sequence[Sent], acknowledged: I64, seen: Sequence[Seen]) -> tuple[F64, int]:
    """Return (seconds from PUBACK to event of each reading on the plain layout, how many of their messages never came).

    A message that was sent twice counts from its first PUBACK. Times may be negative: a commit need not wait for
    the broker's answer to the device.
    """
    when: dict[tuple[str, int], int] = {}
    for at, one in enumerate(messages):
        if not one.topic.startswith("sg/"):
            continue
        stamp = json.loads(one.payload)["time"]
        key = one.topic.split("/")[1], round(_second(stamp) * 1e3)
        when[key] = min(when.get(key, 1 << 62), int(acknowledged[at]))
    took, found = [], set()
    for event in seen:
        key = event.device, round(_second(event.time) * 1e3)
        if key in when:
            found.add(key)
            took.append((event.came - when[key]) / 1e6)
    return np.array(took), len(when) - len(found)


def _second(stamp: float | str) -> float:
    return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else stamp


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

    async def run(self, work: Workload, rate: float) -> tuple[float, float, F64, int, float]:
        """Publish; return (messages/s to the last event, s behind schedule, latencies, missing, CPU µs a message)."""
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
            took, missing = latencies(work.messages, flood.times(), await subscriber.seen())
        count = len(work.messages)
        return count / (last - done.began), done.late_s, took, missing, used / count * 1e6


async def bench(
    *,
    messages: int = MESSAGES,
    devices: int = DEVICES,
    hubs: int = HUBS,
    seconds: float = SECONDS,
    idle: int = IDLE,
    idle_rate: float = IDLE_RATE,
) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds at half of saturation, and p50 idle."""
    async with node() as member:
        first = through_hubs(make(devices, devices, end=time.time()), hubs)
        load = Load(member, await enrol(member, first.devices), devices, hubs)
        await load.run(load.work(messages // 3), 0)  # warm
        saturation, _, _, lost, cpu = await load.run(load.work(messages), 0)
        rate = saturation / 2
        _, late, busy, missing, busy_cpu = await load.run(load.work(max(devices, round(rate * seconds))), rate)
        few = load.work(devices)
        quiet = Workload([], [one for one in few.messages if one.topic.startswith("sg/")][:idle], 0)
        _, _, calm, gone, _ = await load.run(quiet, idle_rate)
        memory = rig.rss_mb(member.process.pid), rig.rss_mb(member.engine_pid)
    p50, p99 = np.percentile(busy, (50, 99)) * 1e3
    return {
        "figure": round(float(p99), 1),
        "unit": "ms p99, PUBACK to event, at half of saturation",
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "idle_p50_ms": round(float(np.median(calm)) * 1e3, 1),
        "idle_p99_ms": round(float(np.percentile(calm, 99)) * 1e3, 1),
        "baseline": round(saturation),
        "baseline_is": "saturation, messages/s to the last event at a subscriber of everything",
        "rate": round(rate),
        "readings_timed": len(busy),
        "late_publisher_s": round(late, 3),
        "cpu_us_per_message": round(busy_cpu, 1),
        "saturated_cpu_us_per_message": round(cpu, 1),
        "rss_mb": round(memory[0]),
        "engine_rss_mb": round(memory[1]),
        "complete": lost == missing == gone == 0,
    }
