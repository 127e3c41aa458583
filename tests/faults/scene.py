"""A centre and two nodes as real processes under load, with a ledger of what was acknowledged, outside of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.web.client import GatewayClient
from tests.conftest import eventually

PROFILES = Path(__file__).parents[2] / "device_profiles"
HALF_OPEN, HUNG = "4401", "4403"
"""Nodes whose link is attacked, and whose process is."""
RETRY_S = 0.2
PACE_S = 0.03
SETTLED_S = 60.0
BEGAN_S = 7_200
"""The readings bear times from so long ago on: a repeated one must lie within the horizon of the duplicate index."""


class Publisher:
    """A device that pushes by HTTP, and repeats each reading until it is acknowledged."""

    def __init__(self, node: CityMember, device: str, password: str) -> None:
        self.device = device
        self.acknowledged = 0
        """Readings 0 to this, exclusive, are acknowledged."""
        self._url = f"{node.url}/api/v1/ingest/{device}"
        self._authorization = aiohttp.encode_basic_auth(device, password)
        self._began = time.time() - BEGAN_S
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"publisher {device}")

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=5)
        headers = {"Content-Type": "application/json", "Authorization": self._authorization}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while not self._end.is_set():
                number = self.acknowledged
                at = dt.datetime.fromtimestamp(self._began + number / 10, dt.UTC).isoformat(timespec="milliseconds")
                body = f'{{"time": "{at}", "values": {{"air_temperature": {number}}}}}'
                try:
                    async with session.post(self._url, data=body) as answer:
                        taken = answer.status == 202
                except (aiohttp.ClientError, TimeoutError, OSError):
                    taken = False
                self.acknowledged += taken
                await asyncio.sleep(PACE_S if taken else RETRY_S)

    async def reach(self, count: int) -> None:
        """Wait until so many readings are acknowledged."""
        await eventually(lambda: self.acknowledged >= count, SETTLED_S)

    async def finish(self) -> None:
        """Stop once the reading that is on its way is acknowledged."""
        self._end.set()
        await self._task


class Scene:
    """All that a fault may strike, and what is known of the readings."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.centre = city.centre
        self.nodes = city.nodes
        self.publishers: dict[str, Publisher] = {}
        self.stopped: set[int] = set()

    async def begin(self) -> None:
        """Register a device at each node and have it push."""
        for division, node in self.nodes.items():
            device = f"met-{division}"
            async with node.remote() as remote:
                body = {"id": device, "division": f"{division}06", "profile": "sensegate/plain"}
                made = await remote.post("/api/v1/devices", body)
            self.publishers[division] = Publisher(node, device, made["password"])
        await self.goes_on()

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────────

    def processes(self) -> dict[str, int]:
        """Return the process ids of all gateways and servers, by name."""
        members = {"centre": self.centre, **self.nodes}
        gateways = {f"{name} gateway": member.process.pid for name, member in members.items()}
        return gateways | {f"{name} server": member.engine_pid for name, member in members.items()}

    def kill(self, names: Iterable[str], sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to processes, by name."""
        known = self.processes()
        for name in names:
            if pid := known[name]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
                if sign is signal.SIGSTOP:
                    self.stopped.add(pid)

    def resume(self) -> None:
        """Have all stopped processes go on, and mend all links."""
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        for link in self.city.links.values():
            link.restore()

    # ── what is seen ────────────────────────────────────────────────────────────────────────────────────

    async def goes_on(self) -> None:
        """Wait until new readings of each device are acknowledged."""
        before = {name: publisher.acknowledged for name, publisher in self.publishers.items()}
        for name, publisher in self.publishers.items():
            await publisher.reach(before[name] + 6)

    async def ready(self, member: CityMember) -> tuple[bool, list[str]]:
        """Return whether a member is ready, and what `/readyz` says."""
        async with aiohttp.ClientSession() as session, session.get(f"{member.url}/readyz") as answer:
            body = await answer.json(content_type=None)
            return answer.status == 200, [*body["reasons"], *body["warnings"]]

    async def row(self, member: str) -> dict[str, Any]:
        """Return a node's row at the centre."""
        async with self.centre.remote() as remote:
            row: dict[str, Any] = await remote.get(f"/api/v1/nodes/{member}")
            return row

    async def lag(self, node: CityMember) -> float:
        """Return how many entries the centre does not have, as the node's metric says."""
        async with GatewayClient(node.url) as remote:
            text, _ = await remote.text("/metrics", accept="text/plain")
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(lines["sensegate_uplink_lag_entries"])

    async def readings(self, member: CityMember, device: str) -> list[float]:
        """Return the values of a device in a member's feed."""
        values: list[float] = []
        after = ""
        async with member.remote() as remote:
            while True:
                query = f"?limit=5000&device={device}" + (f"&after={after}" if after else "")
                page = await remote.get(f"/api/v1/feeds/all/records{query}")
                values += [row["value"] for row in page["records"]]
                after = page["next"]
                if len(page["records"]) < 5_000:
                    return values

    async def settled(self) -> str:
        """See that all recovers by itself, and that each acknowledged reading is at node and centre exactly once."""
        await self.goes_on()
        acknowledged = {name: publisher.acknowledged for name, publisher in self.publishers.items()}
        for division, count in acknowledged.items():
            device = self.publishers[division].device
            for member in (self.nodes[division], self.centre):
                values = await self._until_complete(member, device, count)
                assert len(values) == len({*values}), f"doubled at {member.division}"
        for member in (self.centre, *self.nodes.values()):
            await eventually(partial(self._is_well, member), SETTLED_S, every_s=0.2)
            async with member.remote() as remote:
                assert (await remote.get("/api/v1/ledger?since=24h"))["balanced"], member.division
        return f"{sum(acknowledged.values()):,} acknowledged, 0 lost, 0 doubled, books balanced"

    async def _until_complete(self, member: CityMember, device: str, count: int) -> list[float]:
        deadline = time.monotonic() + SETTLED_S
        while True:
            values = await self.readings(member, device)
            missing = {float(number) for number in range(count)} - {*values}
            if not missing:
                return values
            assert time.monotonic() < deadline, f"lost at {member.division}: {sorted(missing)[:10]}"
            await asyncio.sleep(0.3)

    async def _is_well(self, member: CityMember) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            ready, sentences = await self.ready(member)
            return ready and not any("silent" in text or "not answered" in text for text in sentences)
        return False


@contextlib.asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """Run it; leave nothing behind."""
    city = City(directory, [HALF_OPEN, HUNG], options=CityOptions(profiles=PROFILES, only=["sensegate/plain"]))
    made = Scene(city)
    try:
        await city.start()
        await made.begin()
        yield made
    finally:
        made.resume()
        for publisher in made.publishers.values():
            await publisher.finish()
        await city.stop()
