"""Releases under load: messages at a steady rate, one version of their profile after the other put in force meanwhile.

Publisher, gateway, nats-server and subscriber are processes of their own. What became of every message is told from the
feed (`tests/reloading.py`): lost, doubled, read by two versions. The pause is the longest silence at a subscriber of
everything while messages come without a break; the same load without a release, before it, is the baseline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from sensegate.demo.city import CityMember
from sensegate.model import Device
from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.latency import FEED, enrol, node
from tests.bench.subscriber import Subscriber
from tests.bench.workload import Sent
from tests.reloading import PROFILE, Row, Verdict, payload, text, verdict

RATE = 2_000.0
SECONDS = 10.0
DEVICES = 400
RELEASES = 4
FIRST_S = 3_000


class Load:
    """Devices of one profile on a node."""

    def __init__(self, member: CityMember, passwords: dict[str, str]) -> None:
        self.member = member
        self.passwords = passwords
        self.names = sorted(passwords)
        self.number = 0
        self.first_ms = round((time.time() - FIRST_S) * 1e3)
        self.sent: dict[tuple[str, int], int] = {}

    def messages(self, count: int) -> list[Sent]:
        """Return the next messages; every time of a device is new."""
        made = []
        for at in range(count):
            name = self.names[at % len(self.names)]
            at_ms = self.first_ms + self.number
            self.sent[name, at_ms] = 64 * (1 + self.number % 3)
            made.append(Sent(name, f"reload/{name}/up", payload(self.number, at_ms)))
            self.number += 1
        return made

    async def run(
        self, count: int, rate: float, meanwhile: Callable[[], Awaitable[None]]
    ) -> tuple[float, float, float, float]:
        """Publish; return (longest silence, p50, p99 from PUBACK to event, ms; s behind schedule)."""
        messages = self.messages(count)
        plan = Plan("127.0.0.1", self.member.mqtt_port, shares(messages, self.passwords), rate=rate)
        async with self.member.remote() as remote:
            page = await remote.get("/api/v1/feeds/all/records", since="0s", limit="1")
        url = f"{self.member.url}{FEED}?after={page['next']}"
        async with Subscriber(url, self.member.token) as subscriber, Flood(plan) as flood:
            other = asyncio.create_task(_run(meanwhile))
            done = await flood.go()
            await subscriber.until(2 * count, timeout_s=60)
            await other
            report = await subscriber.seen()
            acknowledged = flood.times()
        came = np.unique([event.came for event in report])
        inside = came[(came > done.began * 1e6) & (came < done.ended * 1e6)]
        silence = float(np.diff(inside).max()) / 1e3 if len(inside) > 1 else float("nan")
        when = {(message.user, self.first_ms + self.number - count + at): at for at, message in enumerate(messages)}
        took = [
            (event.came - int(acknowledged[when[key]])) / 1e3
            for event in report
            if (key := (event.device, round(_second(event.time) * 1e3))) in when
        ]
        p50, p99 = np.percentile(took, (50, 99)).tolist()
        return silence, p50, p99, done.late_s

    async def verdict(self) -> Verdict:
        """Return what became of everything sent, told from the feed."""
        rows: list[Row] = []
        after = ""
        async with self.member.remote() as remote:
            while True:
                query = {"after": after} if after else {"since": "1h"}
                page = await remote.get("/api/v1/feeds/all/records", limit="10000", **query)
                rows += [
                    Row(
                        row["device"],
                        round(_second(row["time"]) * 1e3),
                        row["property"],
                        row["value"],
                        int(row["profile"].partition("@")[2]),
                        int(row["id"].split("-")[2]),
                    )
                    for row in page["records"]
                ]
                after = page["next"]
                if len(page["records"]) < 10_000:
                    return verdict(rows, self.sent)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _second(text_: str) -> float:
    return float(np.datetime64(text_.rstrip("Z"), "us").astype(np.int64)) / 1e6


async def bench(
    *, rate: float = RATE, seconds: float = SECONDS, devices: int = DEVICES, releases: int = RELEASES
) -> dict[str, Any]:
    """Return the longest silence at a subscriber while versions change, and what was lost, doubled or mixed."""
    path = f"/api/v1/profiles/{PROFILE}"
    in_force_ms: list[float] = []
    applied: list[bool] = []
    async with node() as member:

        async def release(version: int) -> None:
            async with member.remote() as remote:
                await remote.post(f"{path}/versions", {"text": text(version)})
                await remote.post(f"{path}/versions/{version}/propose", {})
                began = time.perf_counter()
                result = await remote.post(f"{path}/versions/{version}/release", {})
                in_force_ms.append((time.perf_counter() - began) * 1e3)
                applied.append(result["applied"])

        await release(1)
        in_force_ms.clear()
        registered = [Device(f"reload-{number}", "440106", PROFILE) for number in range(devices)]
        load = Load(member, await enrol(member, registered))
        count = round(rate * seconds)

        async def nothing() -> None:
            return None

        async def change() -> None:
            began = time.monotonic()
            for number in range(1, 1 + releases):
                due = began + number * seconds / (releases + 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))  # the pace is the point
                await release(1 + number)

        await load.run(max(devices, count // 4), rate, nothing)  # warm
        baseline, _, base_p99, _ = await load.run(count, rate, nothing)
        silence, p50, p99, late = await load.run(count, rate, change)
        result = await load.verdict()
        memory = rig.rss_mb(member.process.pid)
    return {
        "figure": round(silence, 1),
        "unit": "ms, longest silence at a subscriber while versions change",
        "baseline": round(baseline, 1),
        "baseline_is": "the same load without a release",
        "rate": round(rate),
        "releases": len(in_force_ms),
        "in_force_ms": round(max(in_force_ms), 1),
        "in_time": all(applied),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "baseline_p99_ms": round(base_p99, 1),
        "messages": result.messages,
        "lost": result.lost,
        "doubled": result.doubled,
        "mixed": result.mixed,
        "torn_commits": result.torn,
        "versions": {str(version): number for version, number in result.versions.items()},
        "late_publisher_s": round(late, 3),
        "rss_mb": round(memory),
        "complete": result.good and len(result.versions) > 1,
    }
