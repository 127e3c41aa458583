"""What a city would pick instead, in one run with ours: the same six-value JSON over MQTT QoS 1 to a subscriber.

Sides, one after the other: this gateway with all features to a subscriber of server-sent events, as shipped (flushed to
disk before each PUBACK) and flushed every two minutes; Node-RED (mapping, duplicates in memory); ThingsBoard's gateway
(memory); aiomqtt consumers that only parse, on asyncio and uvloop. Each peer has a Mosquitto without persistence and a
counter as cheap as possible. ``SENSEGATE_PEERS`` names the directory that ``python -m tests.bench.peers.setup`` made;
what is not there is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sensegate.demo.city import City, CityMember, CityOptions
from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.latency import FEED, enrol
from tests.bench.peers import node_red, thingsboard
from tests.bench.peers.process import Counting
from tests.bench.subscriber import Subscriber
from tests.bench.workload import VALUES, Workload, make, through_hubs
from tests.collect.mosquitto import Mosquitto

MESSAGES = 180_000
BARE_MESSAGES = 60_000
"""So that each side works for about two and a half seconds: a second is too short for what fills and empties."""
THINGSBOARD_MESSAGES = 6_000
"""It needs a tenth of a second for what the others do in a hundredth."""
NODE_RED_MESSAGES = 20_000
"""Bursts of 60,000 ended its connection; this is its best."""
DEVICES = 1_000
HUBS = 50
ROUNDS = 5
ROUND_S = 90.0
WARM = 2_000


class Round(NamedTuple):
    """One side's figures of a round: messages/s to the last at the subscriber; CPU µs a message."""

    rate: float
    process_us: float
    """Of the gateway with its fronts, or of the peer."""
    side_us: float
    """Of all processes of the side but publisher and subscriber: ours with nats-server, a peer with its Mosquitto."""
    complete: bool


RunsRound = Callable[[int, int], Awaitable[Round]]
"""Runs a round: (number of the round, messages)."""


class Side(NamedTuple):
    """A side that is open."""

    name: str
    messages: int
    run: RunsRound


def _work(number: int, messages: int, end: float) -> Workload:
    rounds = max(1, messages // DEVICES)
    made = make(messages, DEVICES, seed=number, first=number * rounds, end=end + number * rounds, kinds=(0,))
    return through_hubs(made, HUBS)


@contextlib.asynccontextmanager
async def ours(name: str, durability: str) -> AsyncIterator[Side]:
    """Yield this gateway as `sensegate run` runs it, its front in a process of its own, with one subscriber of all."""
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        settings = {"engine": {"durability": durability}, "listen": {"mqtt": {"processes": 1}}}
        city = City(
            Path(directory),
            ["4401"],
            options=CityOptions(profiles=rig.PROFILES, alone=True, settings=settings),
        )
        began = time.time() - 3_000
        try:
            await city.start()
            member = city.nodes["4401"]
            passwords = await enrol(member, _work(0, DEVICES, began).devices)

            async def run(number: int, messages: int) -> Round:
                work = _work(number, messages, began)
                async with member.remote() as remote:
                    page = await remote.get("/api/v1/feeds/all/records", since="0s", limit="1")
                plan = Plan("127.0.0.1", member.mqtt_port, shares(work.messages, passwords))
                url = f"{member.url}{FEED}?after={page['next']}"
                async with Subscriber(url, member.token) as subscriber, Flood(plan) as flood:
                    engine = member.engine_pid
                    before = {pid: rig.cpu_s(pid) for pid in _processes(member)}
                    done = await flood.go()
                    expected = (len(work.messages) - work.duplicates) * VALUES
                    delivered, last = await subscriber.until(expected, timeout_s=ROUND_S)
                    used = {pid: rig.cpu_s(pid) - spent for pid, spent in before.items()}
                count, side = len(work.messages), sum(used.values())
                own = side - used[engine]
                return Round(count / (last - done.began), own / count * 1e6, side / count * 1e6, delivered == expected)

            yield Side(name, MESSAGES, run)
        finally:
            await city.stop()


def _processes(member: CityMember) -> set[int]:
    """Return the ids of the processes of a gateway: its own, its fronts and its nats-server."""
    return {member.process.pid, member.engine_pid, *rig.children(member.process.pid)}


async def _measured(work: Workload, port: int, counter: Counting, pids: Sequence[int], expected: int) -> Round:
    """Publish to a peer's broker and wait for the last message at the counter; `pids`: the peer, then its brokers."""
    base, _ = await counter.count()
    connections = shares(work.messages, {device.id: "-" for device in work.devices})
    async with Flood(Plan("127.0.0.1", port, connections)) as flood:
        before = [rig.cpu_s(pid) for pid in pids]
        done = await flood.go()
        number, last = await counter.until(base + expected, timeout_s=ROUND_S)
        used = [rig.cpu_s(pid) - spent for pid, spent in zip(pids, before, strict=True)]
    count = len(work.messages)
    whole = number - base == expected
    return Round(count / (last - done.began), used[0] / count * 1e6, sum(used) / count * 1e6, whole)


@contextlib.asynccontextmanager
async def bare(name: str, loop: str) -> AsyncIterator[Side]:
    """Yield an aiomqtt consumer that parses and drops."""
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        async with (
            Mosquitto(Path(directory), persistent=False, queued_max=0) as broker,
            Counting("tests.bench.peers.bare", str(broker.port), loop) as consumer,
        ):

            async def run(number: int, messages: int) -> Round:
                work = _work(number, messages, time.time() - 3_000)
                return await _measured(work, broker.port, consumer, [consumer.pid, broker.pid], len(work.messages))

            yield Side(name, BARE_MESSAGES, run)


@contextlib.asynccontextmanager
async def with_node_red(installed: Path) -> AsyncIterator[Side]:
    """Yield Node-RED between the two sides of one Mosquitto."""
    began = time.time() - 3_000
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        folder = Path(directory)
        async with (
            Mosquitto(folder, persistent=False, queued_max=0) as broker,
            Counting("tests.bench.peers.counter", str(broker.port), node_red.TOPIC, "1") as counter,
            node_red.prepare(installed, folder, broker.port) as peer,
        ):
            await _woken(broker, counter)

            async def run(number: int, messages: int) -> Round:
                work = _work(number, messages, began)
                unique = len(work.messages) - work.duplicates
                return await _measured(work, broker.port, counter, [peer.pid, broker.pid], unique)

            yield Side("node_red", NODE_RED_MESSAGES, run)


@contextlib.asynccontextmanager
async def with_thingsboard(installed: Path) -> AsyncIterator[Side]:
    """Yield ThingsBoard IoT Gateway between two brokers."""
    began = time.time() - 3_000
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        folder = Path(directory)
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(Mosquitto(folder, persistent=False, queued_max=0))
            (folder / "server").mkdir()
            server = await stack.enter_async_context(Mosquitto(folder / "server", persistent=False, queued_max=0))
            await stack.enter_async_context(thingsboard.serving(server.port))
            counter = await stack.enter_async_context(
                Counting("tests.bench.peers.counter", str(server.port), thingsboard.TOPIC, thingsboard.MARK)
            )
            peer = await stack.enter_async_context(thingsboard.prepare(installed, folder, broker.port, server.port))
            await _woken(broker, counter)

            async def run(number: int, messages: int) -> Round:
                work = _work(number, messages, began)
                pids = [peer.pid, broker.pid, server.pid]
                return await _measured(work, broker.port, counter, pids, len(work.messages))

            yield Side("thingsboard", THINGSBOARD_MESSAGES, run)


async def _woken(broker: Mosquitto, counter: Counting) -> None:
    """Publish a message again and again until one comes out of the peer, which has no other sign that it is ready."""
    async with asyncio.timeout(ROUND_S):
        number = 0
        while not (await counter.count())[0]:
            await broker.publish([("sg/wake/up", b'{"time": %d, "values": {"air_temperature": 1}}' % number)])
            number += 1
            await asyncio.sleep(0.5)
    count = 0
    while count != (count := (await counter.count())[0]):
        await asyncio.sleep(1.0)  # the last of them may still be on their way


async def bench(rounds: int = ROUNDS, messages: int = MESSAGES) -> dict[str, Any]:
    """Return messages/s and CPU of each side, medians of the rounds, and the ratios of ours to each."""
    installed = Path(os.environ.get("SENSEGATE_PEERS") or "/nonexistent")
    sides: dict[str, list[Round]] = {}
    opened = [ours("sensegate_power", "power"), ours("sensegate", "process")]
    opened += [bare("aiomqtt_asyncio", "asyncio"), bare("aiomqtt_uvloop", "uvloop")]
    if (installed / "node-red").is_dir():
        opened.append(with_node_red(installed))
    if (installed / "thingsboard").is_dir():
        opened.append(with_thingsboard(installed))
    for opening in opened:  # one at a time: ThingsBoard's gateway uses a core's share even when idle
        async with opening as side:
            await side.run(0, WARM)
            count = min(messages, side.messages)
            sides[side.name] = [await side.run(number, count) for number in range(1, rounds + 1)]
    rates = {name: rig.median([run.rate for run in runs]) for name, runs in sides.items()}
    figures = {
        name: {
            "messages_per_s": round(rates[name]),
            "rounds": [round(run.rate) for run in runs],
            "cpu_us_per_message": round(rig.median([run.process_us for run in runs]), 1),
            "side_cpu_us_per_message": round(rig.median([run.side_us for run in runs]), 1),
            "complete": all(run.complete for run in runs),
        }
        for name, runs in sides.items()
    }
    return {
        "figure": figures["sensegate_power"]["messages_per_s"],
        "unit": "messages/s, QoS 1, on disk before each PUBACK, to the last event at a subscriber",
        "baseline": figures.get("node_red", figures["aiomqtt_uvloop"])["messages_per_s"],
        "baseline_is": "Node-RED" if "node_red" in figures else "aiomqtt on uvloop that parses",
        "sides": figures,
        "ratios": {name: round(rates["sensegate_power"] / rate, 2) for name, rate in rates.items()},
        "complete": all(run.complete for runs in sides.values() for run in runs),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
