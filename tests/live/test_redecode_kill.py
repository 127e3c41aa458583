"""`kill -9` of the gateway, and of its server, in the middle of a redecode: each reading is revised once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.errors import Unavailable
from sensegate.model import Device
from sensegate.web.client import ProblemResponse
from tests.bench.flood import Flood, Plan, shares
from tests.bench.latency import enrol
from tests.bench.workload import Sent
from tests.conftest import eventually
from tests.reloading import PROFILE, payload, text

pytestmark = [pytest.mark.live, pytest.mark.slow]

DEVICES = 50
MESSAGES = 15_000
PATH = f"/api/v1/profiles/{PROFILE}"


async def release(member: CityMember, version: int) -> None:
    """Put a version in force."""
    async with member.remote() as remote:
        await remote.post(f"{PATH}/versions", {"text": text(version)})
        await remote.post(f"{PATH}/versions/{version}/propose", {})
        await remote.post(f"{PATH}/versions/{version}/release", {})


async def order(member: CityMember, order_id: str) -> dict[str, Any] | None:
    """Return an order as the gateway tells it, None while it does not answer."""
    try:
        async with member.remote() as remote:
            row: dict[str, Any] = await remote.get(f"{PATH}/redecode/{order_id}")
            return row
    except (Unavailable, ProblemResponse):
        return None


async def history(member: CityMember) -> dict[tuple[str, str, str], list[tuple[int, float]]]:
    """Return (device, property, time) -> (revision, value) of the feed, in its order."""
    result: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    after = ""
    async with member.remote() as remote:
        while True:
            query = {"after": after} if after else {"since": "1h"}
            page = await remote.get("/api/v1/feeds/all/records", limit="10000", **query)
            for row in page["records"]:
                key = row["device"], row["property"], row["time"]
                result.setdefault(key, []).append((row["revision"], row["value"]))
            after = page["next"]
            if len(page["records"]) < 10_000:
                return result


async def test_killed_in_the_middle_of_a_redecode(tmp_path: Path) -> None:
    """The gateway dies, its server, the gateway again; the order goes on by itself and tells of all its lives."""
    city = City(tmp_path, ["4401"], options=CityOptions(profiles=Path("device_profiles") / "sensegate", alone=True))
    try:
        await city.start()
        node = city.nodes["4401"]
        await release(node, 1)
        names = [f"kill-{number}" for number in range(DEVICES)]
        passwords = await enrol(node, [Device(name, "440106", PROFILE) for name in names])
        first_ms = round((time.time() - 3_000) * 1e3)
        sent = [
            Sent(name, f"reload/{name}/up", payload(at, first_ms + at))
            for at in range(MESSAGES)
            for name in [names[at % DEVICES]]
        ]
        async with Flood(Plan("127.0.0.1", node.mqtt_port, shares(sent, passwords))) as flood:
            await flood.go()

        async def all_there() -> bool:
            return len(await history(node)) == 2 * MESSAGES

        await eventually(all_there, 60, every_s=0.5)
        await release(node, 2)
        async with node.remote() as remote:
            begun = await remote.post(f"{PATH}/redecode", {}, since="1h")

        async def come_to(share: float) -> bool:
            row = await order(node, begun["id"])
            return row is not None and (row["share"] >= share or row["state"] == "done")

        kills = 0
        for victim, share in (("gateway", 0.15), ("server", 0.4), ("gateway", 0.7)):
            await eventually(lambda share=share: come_to(share), 60, every_s=0.01)  # type: ignore[misc]
            row = await order(node, begun["id"])
            if row is None or row["state"] == "done":
                break
            os.kill(node.process.pid if victim == "gateway" else node.engine_pid, signal.SIGKILL)
            kills += 1
            await asyncio.sleep(0.2)

        async def done() -> dict[str, Any] | None:
            row = await order(node, begun["id"])
            return row if row is not None and row["state"] not in {"waiting", "running"} else None

        row = await eventually(done, 90, every_s=0.1)
        assert kills >= 2, "it was done too soon to be killed"
        assert (row["state"], row["messages"], row["revised"], row["added"]) == ("done", MESSAGES, 2 * MESSAGES, 0)
        points = await history(node)
        assert len(points) == 2 * MESSAGES
        wrong = {key: rows for key, rows in points.items() if [revision for revision, _ in rows] != [0, 1]}
        assert wrong == {}
        assert all(rows[1][1] == rows[0][1] / 2 for rows in points.values())
        async with node.remote() as remote:
            ledger = await remote.get("/api/v1/ledger", since="2h")
        assert ledger["balanced"]
        assert ledger["totals"]["redecoded"] == ledger["totals"]["reread"] == MESSAGES
    finally:
        await city.stop()
