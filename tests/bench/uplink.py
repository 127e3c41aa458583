"""What a reading costs on the way from a node to its centre, counted at the TCP socket, and how late it is there.

Slow city telemetry: every device sends five values a second that drift in small steps. Bytes are those of both
directions through a proxy between node and centre, acknowledgements and idle chatter included. The baseline is what
a plain MQTT bridge would send for the same messages: each PUBLISH as it came, and its PUBACK.

Then the link is cut while the node takes what its devices send in an hour, and is mended: how many times faster than
real time the centre catches up, and how late the readings are that devices send meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sensegate.demo.city import City, CityOptions
from sensegate.model import F64, Device
from tests.bench import rig
from tests.bench.flood import Flood, Plan, publish_packet, shares
from tests.bench.latency import enrol, latencies
from tests.bench.subscriber import Subscriber
from tests.bench.workload import COUNTIES, Sent, Workload, through_hubs

DEVICES = 500
SECONDS = 60
HUBS = 25
PROPERTIES = ("air_temperature", "relative_humidity", "air_pressure", "water_level", "illuminance")
STEPS = (0.1, 0.1, 0.1, 0.001, 1.0)
DIGITS = (1, 1, 1, 3, 0)
START = (20.0, 60.0, 1013.0, 3.0, 300.0)
WARM_S = 3
HOUR_S = 3_600
HOUR_DEVICES = 25
"""Devices that send during the cut, a message a second each; they go on while the centre catches up."""
CATCHING_S = 30
"""Time for which live readings are sent after the mending; longer than the centre needs."""


def telemetry(devices: int, first: float, seconds: int, *, seed: int = 1) -> list[Sent]:
    """Return a message a second of each device; values drift by at most a step and often stay."""
    chance = random.Random(seed)
    names = [f"u{at:05d}" for at in range(devices)]
    values = [
        [begin + chance.uniform(-9, 9) * step * 10 for begin, step in zip(START, STEPS, strict=True)] for _ in names
    ]
    offsets = [at / devices for at in range(devices)]
    sent = []
    for second in range(seconds):
        for at, name in enumerate(names):
            own = values[at]
            for place, step in enumerate(STEPS):
                own[place] += step * chance.choice((-1, 0, 0, 0, 1))
            inside = ",".join(
                f'"{known}":{value:.{digits}f}' for known, value, digits in zip(PROPERTIES, own, DIGITS, strict=True)
            )
            stamp = round((first + second + offsets[at]) * 1000)
            sent.append(Sent(name, f"sg/{name}/up", f'{{"time":{stamp / 1000:.3f},"values":{{{inside}}}}}'.encode()))
    return sent


def bridged(messages: Sequence[Sent]) -> int:
    """Return the bytes of the messages as MQTT packets with their PUBACKs."""
    return sum(len(publish_packet(message.topic, message.payload, 1)) + 4 for message in messages)


class CatchUp(msgspec.Struct, frozen=True):
    """What came of a cut."""

    cut_readings: int
    took_s: float
    """From the mending to the last reading of the cut at the centre's subscriber."""
    live: F64
    """Seconds from PUBACK to event of the readings that were sent meanwhile."""
    missing: int


async def catch_up(city: City, passwords: dict[str, str], hub_of: dict[str, str], devices: int, span: int) -> CatchUp:
    """Cut the link for what devices send in `span` seconds, mend it, and measure with live readings beside."""
    node, link = city.nodes["4401"], city.links["4401"]
    async with city.centre.remote() as remote:
        page = await remote.get("/api/v1/feeds/all/records", since="0s", limit="1")

    def plan(first: float, seconds: int, rate: float) -> tuple[list[Sent], Plan]:
        made = [Sent(hub_of[row.user], row.topic, row.payload) for row in telemetry(devices, first, seconds, seed=2)]
        return made, Plan("127.0.0.1", node.mqtt_port, shares(made, passwords), rate=rate)

    await link.cut()
    # An hour ends now; its readings are taken as fast as the node takes them.
    missed, hour = plan(time.time() - span, span, 0)
    async with Flood(hour) as flood:
        await flood.go()
    live, going_on = plan(time.time() + 3, min(CATCHING_S, span), devices)
    url = f"{city.centre.url}/api/v1/feeds/all/stream?after={page['next']}"
    async with Subscriber(url, city.centre.token) as subscriber, Flood(going_on) as flood:
        link.restore()
        mended = time.monotonic()
        await flood.go()
        await subscriber.until((len(missed) + len(live)) * len(PROPERTIES), timeout_s=120)
        report = await subscriber.seen()
        took, missing = latencies(live, flood.times(), report)
    earlier = {(row.topic.split("/")[1], _stamp_of(row)) for row in missed}
    came = [event.came for event in report if (event.device, _milliseconds(event.time)) in earlier]
    lost = len(missed) * len(PROPERTIES) - len(came)
    return CatchUp(len(came), max(came, default=0) / 1e6 - mended, took, missing + lost)


def _stamp_of(sent: Sent) -> int:
    return round(float(json.loads(sent.payload)["time"]) * 1e3)


def _milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1e3)


async def bench(
    devices: int = DEVICES,
    seconds: int = SECONDS,
    hubs: int = HUBS,
    warm: int = WARM_S,
    cut: tuple[int, int] = (HOUR_DEVICES, HOUR_S),
) -> dict[str, Any]:
    """Return bytes a reading, both directions, and the latency from PUBACK at the node to the event at the centre.

    `cut`: number of devices that send while the link is cut, and for how many seconds.
    """
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        city = City(Path(directory), ["4401"], options=CityOptions(profiles=rig.PROFILES))
        try:
            await city.start()
            node, link = city.nodes["4401"], city.links["4401"]
            registered = [
                Device(
                    f"u{at:05d}", division=COUNTIES[at % len(COUNTIES)], profile="sensegate/plain", domain="environment"
                )
                for at in range(devices)
            ]
            work = through_hubs(Workload(registered, [], 0), hubs)
            passwords = await enrol(node, work.devices)
            hub_of = {device.id: device.gateway for device in work.devices if device.gateway}

            def plan(first: float, span: int) -> tuple[list[Sent], Plan]:
                made = [Sent(hub_of[row.user], row.topic, row.payload) for row in telemetry(devices, first, span)]
                return made, Plan("127.0.0.1", node.mqtt_port, shares(made, passwords), rate=devices)

            url = f"{city.centre.url}/api/v1/feeds/all/stream"
            async with Subscriber(url, city.centre.token) as subscriber:
                _, warming = plan(time.time() - warm - 60, warm)
                async with Flood(warming) as flood:
                    await flood.go()
                before_count, _ = await subscriber.until(devices * warm * len(PROPERTIES), timeout_s=60)
                # The publisher needs a moment to start; times of the devices are those of then.
                messages, whole = plan(time.time() + 2, seconds)
                async with Flood(whole) as flood:
                    up, down = link.bytes_up, link.bytes_down
                    used = [rig.cpu_s(member.process.pid) for member in (node, city.centre)]
                    done = await flood.go()
                    readings = len(messages) * len(PROPERTIES)
                    await subscriber.until(before_count + readings, timeout_s=120)
                    up, down = link.bytes_up - up, link.bytes_down - down
                    cost = [
                        (rig.cpu_s(member.process.pid) - was) / len(messages) * 1e6
                        for member, was in zip((node, city.centre), used, strict=True)
                    ]
                    took, missing = latencies(messages, flood.times(), await subscriber.seen())
            caught = await catch_up(city, passwords, hub_of, *cut)
            memory = [rig.rss_mb(member.process.pid) for member in (node, city.centre)]
        finally:
            await city.stop()
            await asyncio.sleep(0)
    p50, p99 = np.percentile(took, (50, 99)) if len(took) else (float("nan"), float("nan"))
    figure, baseline = (up + down) / readings, bridged(messages) / readings
    return {
        "figure": round(figure, 2),
        "unit": "bytes a reading at the socket, both directions",
        "goal": 8,
        "up": round(up / readings, 2),
        "down": round(down / readings, 2),
        "baseline": round(baseline, 1),
        "baseline_is": "the same messages and their PUBACKs over an MQTT bridge",
        "ratio": round(baseline / figure, 1),
        "live_p50_s": round(float(p50), 3),
        "live_p99_s": round(float(p99), 3),
        "live_max_s": round(float(took.max(initial=0.0)), 3),
        "readings": readings,
        "late_publisher_s": round(done.late_s, 3),
        "node_cpu_us_per_message": round(cost[0], 1),
        "centre_cpu_us_per_message": round(cost[1], 1),
        "rss_mb": [round(entry) for entry in memory],
        "cut_s": cut[1],
        "cut_readings": caught.cut_readings,
        "caught_up_s": round(caught.took_s, 2),
        "times_real_time": round(cut[1] / caught.took_s),
        "live_p99_while_catching_up_s": round(float(np.percentile(caught.live, 99)), 3) if len(caught.live) else None,
        "complete": len(took) == readings and not missing and not caught.missing,
    }
