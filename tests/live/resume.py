"""Each delivery resumed after kills of its subscriber, of the node's gateway and of the centre.

    python -m tests.live.resume --times 20

A centre and a node under load, each with seven subscribers in processes of their own (`taker.py`). What is killed is
killed with SIGKILL at a moment given by the seed. At the end each subscriber must have just what its tier's log has,
each record once, in the same order; and each log every reading that was taken from the device, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.free_ports import free_port
from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.demo.processes import SupervisedProcess
from tests.live.granting import granted
from tests.live.site import Made, Site, config_of
from tests.live.taker import Spec

ROOT = Path(__file__).parents[2]
DELIVERIES = ("http", "sse", "ws", "mqtt", "webhook", "nats", "columns")
TARGETS = ("subscriber", "node gateway", "centre")
DEVICES = 5
PAUSE_S = 0.05
"""Between two readings of all devices together."""
CATCH_UP_S = 60.0
"""Longest time for which a subscriber is given nothing while the others of its tier are."""
RESTART_S = 240.0
"""Longest time for which a tier gives nobody anything: beside twenty busy processes its start takes a minute."""
FEED = "resumed"


def faults(log: Sequence[str], taken: Sequence[str]) -> tuple[int, int, int]:
    """Return how many of a log's cursors are lost, doubled, and (1) whether those taken stand in another order."""
    known = {*taken}
    first = list(dict.fromkeys(taken))
    ordered = first == [cursor for cursor in log if cursor in known]
    return len({*log} - {*taken}), len(taken) - len(first), int(not ordered)


class Verdict(msgspec.Struct):
    """What came of it."""

    rounds: dict[str, int]
    published: int
    lost: dict[str, int]
    """By subscriber: what its log has and it has not."""
    doubled: dict[str, int]
    disordered: dict[str, int]
    log_lost: dict[str, int]
    log_doubled: dict[str, int]
    catch_up_max_s: dict[str, dict[str, float]]
    """By what was killed, and subscriber: longest time until he had what was sent after the kill."""
    unmetered: dict[str, int] = {}
    """By subscriber: what it has beyond what its grant's usage says that it may have."""
    unsettled: dict[str, int] = {}
    """By subscriber: what the usage says may have gone, uncounted, when a gateway was killed."""
    samples: list[str] = []
    """Some of what is doubled on a log."""

    @property
    def good(self) -> bool:
        """True if nothing was lost, doubled or out of order."""
        counts = (self.lost, self.doubled, self.disordered, self.log_lost, self.log_doubled, self.unmetered)
        return not any(value for count in counts for value in count.values())


class TakenReadings:
    """The readings in a subscriber's file, each line of which is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self.readings: set[tuple[str, float]] = set()
        """(device, value)."""

    def refresh(self) -> None:
        """Read the lines that were written since the last time, all of them where the file was cut."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                self._offset = 0
                self.readings.clear()
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = (json.loads(line) for line in whole.splitlines() if line.endswith(b"]"))
        self.readings.update((row[2], row[3]) for row in rows)


class Tier:
    """A running gateway with its seven subscribers."""

    def __init__(self, member: CityMember, http: aiohttp.ClientSession) -> None:
        self.member = member
        addresses = GatewayAddresses(
            0, 0, member.url, f"mqtt://127.0.0.1:{member.mqtt_port}", f"nats://127.0.0.1:{member.nats_port}"
        )
        self.site = Site(config_of(member.directory, member.division), addresses, http, member.token)
        self.takers: dict[str, SupervisedProcess] = {}
        self._readings = {delivery: TakenReadings(self.file(delivery)) for delivery in DELIVERIES}

    def file(self, delivery: str) -> Path:
        return self.member.directory / f"taken-{delivery}"

    async def start(self) -> None:
        """Get a grant and start the subscribers."""
        grant = self.grant = await granted(self.site, FEED, divisions=("4401",))
        port = free_port()
        body = {"feed": FEED, "url": f"http://127.0.0.1:{port}/", "batch": 50}
        made = await self.site.ask("POST", "/api/v1/webhooks", grant.token, json=body)
        assert made.status == 201, made.body
        for delivery in DELIVERIES:
            spec = Spec(
                delivery=delivery,  # type: ignore[arg-type] # one of these
                file=str(self.file(delivery)),
                http=self.member.url,
                mqtt_port=self.member.mqtt_port,
                nats=f"nats://127.0.0.1:{self.member.nats_port}",
                feed=FEED,
                grant=grant.id,
                token=grant.token,
                token_id=grant.token_id,
                port=port,
            )
            arguments = [sys.executable, "-m", "tests.live.taker", msgspec.json.encode(spec).decode()]
            log = self.member.directory / f"taker-{delivery}.log"
            self.takers[delivery] = SupervisedProcess(
                f"taker {delivery}", arguments, log=log, environment={"PYTHONPATH": str(ROOT)}
            )
            await self.takers[delivery].start()

    async def stop(self) -> None:
        """End them."""
        await asyncio.gather(*(taker.stop() for taker in self.takers.values()))

    def taken(self, delivery: str) -> list[list[Any]]:
        """Return what a subscriber has: [cursor, id, device, value] of each record, in order."""
        if not self.file(delivery).exists():
            return []
        lines = self.file(delivery).read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("]")]

    def has(self, delivery: str, wanted: set[tuple[str, float]]) -> bool:
        """Return whether a subscriber has taken readings (device, value)."""
        known = self._readings[delivery]
        known.refresh()
        return wanted <= known.readings

    def count(self, delivery: str) -> int:
        """Return how many readings a subscriber has, as of the last `has`."""
        return len(self._readings[delivery].readings)

    async def usage(self) -> dict[str, tuple[int, int]]:
        """Return (counted, unsettled) records of each subscriber by the usage of its grant."""
        result: dict[str, tuple[int, int]] = {}
        for row in (await self.site.ask("GET", f"/api/v1/grants/{self.grant.id}/usage")).body["rows"]:
            name = {"msgpack": "columns", "json": "http"}.get(row["delivery"], row["delivery"])
            counted, unsettled = result.get(name, (0, 0))
            result[name] = counted + row["records"], unsettled + row["unsettled"]
        return result

    async def log(self) -> list[dict[str, Any]]:
        """Return all records by page, as the administrator reads them."""
        rows = await self.site.records()
        return [row for row in rows if row["device"].startswith("resume-")]


class Run:
    """The city, its load and the kills."""

    def __init__(self, city: City, node: Tier, centre: Tier, rng: random.Random) -> None:
        self.city = city
        self.node = node
        self.centre = centre
        self.rng = rng
        self.published: dict[str, int] = {}
        self.began = time.time() - 7_200
        self.devices: list[Made] = []
        self.catch_up: dict[str, dict[str, float]] = {}

    async def load(self) -> None:
        """Push readings, the same one again until it was taken, until cancelled."""
        while True:
            for device in self.devices:
                number = self.published.get(device.id, 0) + 1
                # Within the horizon in which duplicates are judged: what is pushed again must not count twice.
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.began + number))
                text = f'{{"time": "{stamp}Z", "values": {{"air_temperature": {number / 1000}}}}}'
                await self._push(device, text)
                self.published[device.id] = number
                await asyncio.sleep(PAUSE_S)

    async def _push(self, device: Made, name: str) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(10):
                    if (await self.node.site.push(device, name)).status == 202:
                        return
            await asyncio.sleep(0.1)

    async def caught_up(self) -> dict[str, float]:
        """Return once every subscriber has a reading of each device sent after now; how long each took.

        Raises:
            TimeoutError: a tier gave nobody anything for `RESTART_S`, or one subscriber nothing for `CATCH_UP_S` while
                it gave to others.
        """
        took: dict[str, float] = {}
        began = time.monotonic()
        wanted = {(name, (number + 1) / 1000) for name, number in self.published.items()}
        tiers = (self.node, self.centre)
        waiting = {(tier, delivery) for tier in tiers for delivery in DELIVERIES}
        counts: dict[tuple[Tier, str], int] = {}
        moved = dict.fromkeys(waiting, began)
        while waiting:
            for tier in tiers:
                for delivery in DELIVERIES:
                    has_all, key = tier.has(delivery, wanted), (tier, delivery)
                    now = time.monotonic()
                    if counts.get(key) != (count := tier.count(delivery)):
                        counts[key], moved[key] = count, now
                    if has_all and key in waiting:
                        waiting.remove(key)
                        took[f"{tier.member.division} {delivery}"] = round(now - began, 2)
            for tier, delivery in waiting:
                name, newest = tier.member.division, max(moved[tier, other] for other in DELIVERIES)
                if time.monotonic() - newest > RESTART_S:
                    raise TimeoutError(f"{name}: nobody was given anything for {RESTART_S:g} s")
                if newest - moved[tier, delivery] > CATCH_UP_S:
                    raise TimeoutError(f"{name} {delivery}: given nothing for {CATCH_UP_S:g} s, others were")
            await asyncio.sleep(0.1)
        return took

    async def kill(self, target: str) -> None:
        """Kill once, and wait until all have caught up."""
        await asyncio.sleep(self.rng.uniform(0, 0.5))
        match target:
            case "subscriber":
                for tier in (self.node, self.centre):
                    for taker in tier.takers.values():
                        taker.kill()
                        await asyncio.sleep(self.rng.uniform(0, 0.05))
            case "node gateway":
                self.node.member.process.kill()
            case _:
                engine = self.centre.member.engine_pid
                self.centre.member.process.kill()
                if self.rng.random() < 0.5 and engine:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(engine, signal.SIGKILL)
        known = self.catch_up.setdefault(target, {})
        for name, took in (await self.caught_up()).items():
            known[name] = max(known.get(name, 0.0), took)

    async def judged(self, rounds: dict[str, int]) -> Verdict:
        """Return the verdict; the load has ended."""
        # All readings, not the last ones only: what is live goes up before a backlog of before it.
        results = {(name, at / 1000) for name, number in self.published.items() for at in range(1, number + 1)}
        every = [(tier, delivery) for tier in (self.node, self.centre) for delivery in DELIVERIES]
        taken, moved = 0, time.monotonic()
        while (
            any(not tier.has(delivery, results) for tier, delivery in every) and time.monotonic() < moved + CATCH_UP_S
        ):
            if (present := sum(tier.count(delivery) for tier, delivery in every)) != taken:
                taken, moved = present, time.monotonic()
            await asyncio.sleep(0.1)
        verdict = Verdict(rounds, sum(self.published.values()), {}, {}, {}, {}, {}, self.catch_up)
        for tier in (self.node, self.centre):
            where = tier.member.division
            rows = await tier.log()
            ids = [row["id"] for row in rows]
            log = [(row["cursor"], row["device"], row["value"]) for row in rows]
            readings = Counter((device, value) for _, device, value in log)
            verdict.log_lost[where] = len(results - readings.keys())
            verdict.log_doubled[where] = sum(count - 1 for count in readings.values())
            twice = {reading for reading, count in readings.items() if count > 1}
            verdict.samples += [
                f"{where}: {row}" for row in await tier.log() if (row["device"], row["value"]) in twice
            ][:6]
            usage = await tier.usage()
            for delivery in DELIVERIES:
                name = f"{where} {delivery}"
                counted, verdict.unsettled[name] = usage.get(delivery, (0, 0))
                verdict.unmetered[name] = max(0, len(tier.taken(delivery)) - counted - verdict.unsettled[name])
                cursors = [row[0] for row in tier.taken(delivery)]
                counts = faults(ids if delivery == "columns" else [row[0] for row in log], cursors)
                verdict.lost[name], verdict.doubled[name], verdict.disordered[name] = counts
        return verdict


@contextlib.asynccontextmanager
async def run(directory: Path, seed: int) -> AsyncIterator[Run]:
    """Run the city, its subscribers and its load."""
    egress = {"allow": ["127.0.0.0/8"]}
    city = City(
        directory,
        ["4401"],
        options=CityOptions(profiles=ROOT / "device_profiles" / "sensegate", settings={"egress": egress}),
    )
    try:
        await city.start()
        async with aiohttp.ClientSession() as http:
            node, centre = Tier(city.nodes["4401"], http), Tier(city.centre, http)
            going = Run(city, node, centre, random.Random(seed))
            try:
                going.devices = [await node.site.device(f"resume-{at}") for at in range(DEVICES)]
                await asyncio.gather(node.start(), centre.start())
                yield going
            finally:
                await asyncio.gather(node.stop(), centre.stop())
    finally:
        await city.stop()


async def resumed(directory: Path, times: int, *, seed: int = 1, targets: Sequence[str] = TARGETS) -> Verdict:
    """Kill each target so many times under load; return the verdict."""
    async with run(directory, seed) as going:
        load = asyncio.create_task(going.load())
        while len(going.published) < DEVICES:
            await asyncio.sleep(0.05)
        await going.caught_up()
        plan = [target for target in targets for _ in range(times)]
        going.rng.shuffle(plan)
        for number, target in enumerate(plan, 1):
            killed = asyncio.create_task(going.kill(target))
            either: set[asyncio.Future[Any]] = {killed, load}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if load.done():
                load.result()
            await killed
            if len(plan) > 10:
                print(f"{number}/{len(plan)} {target}: all caught up", flush=True)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        return await going.judged(dict(Counter(plan)))


def main() -> None:
    """Run from the command line; exit 1 unless nothing was lost, doubled or out of order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="kills of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this; may be repeated")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sensegate-resume-") as directory:
        verdict = asyncio.run(resumed(Path(directory), given.times, seed=given.seed, targets=given.target or TARGETS))
    print(msgspec.json.format(msgspec.json.encode(verdict)).decode())
    sys.exit(not verdict.good)


if __name__ == "__main__":
    main()
