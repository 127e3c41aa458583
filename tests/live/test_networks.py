"""Network servers at a running node: by MQTT and by HTTP, each for the devices behind it and for no others."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live.site import PROFILES, config_of, running
from tests.support.networks import EUI, SAY, SOIL, VALUES

pytestmark = pytest.mark.live


async def test_a_probe_that_two_networks_hear(tmp_path: Path) -> None:
    """Its frames are read by its own profile whoever brings them; strangers are refused."""
    folders = tuple(str(PROFILES / vendor) for vendor in ("chirpstack", "loriot", "dragino", "sensegate"))
    async with running(config_of(tmp_path / "node", profiles=folders)) as site, site.phone() as phone:
        first = await site.device("chirp", profile="chirpstack/v4")
        second = await site.device("loriot", profile="loriot/lns")
        probe = await site.device("probe", profile="dragino/lse01", alias=EUI, gateway="chirp loriot")
        assert probe.password == "", "the control: it has no way in of its own"
        assert f"application/+/device/{EUI}/event/up" in probe.topics
        other = await site.device("other", profile="dragino/lse01", alias="70b3d5e7a00001ff", gateway="chirp")
        now = time.time_ns() // 1000

        async def count() -> int:
            return len(await site.records(device="probe"))

        async def say(topic: str, tree: object) -> None:
            async def is_stored() -> bool:
                # New devices behind it have widened its rights: until that is settled its connections are closed.
                try:
                    phone.acknowledged.clear()  # packet ids begin anew with a connection
                    async with asyncio.timeout(5.0):
                        await phone.connect(first.id, first.password)
                        await phone.publish(topic, json.dumps(tree))
                except TimeoutError:
                    return False
                return True

            await eventually(is_stored)

        topic, tree = SAY["chirp4"](SOIL, 2, 7, now)
        await say(topic, tree)

        async def arrived() -> bool:
            return await count() == VALUES

        await eventually(arrived)
        rows = {row["property"]: row for row in await site.records(device="probe")}
        assert rows["soil_moisture"]["value"] == 15
        assert rows["soil_moisture"]["profile"].startswith("dragino/lse01@")
        at = datetime.fromisoformat(rows["soil_moisture"]["time"])
        assert abs((at - datetime.fromtimestamp(now / 1e6, UTC)).total_seconds()) < 1e-3

        _, tree = SAY["loriot"](SOIL, 2, 7, now + 800_000)  # the same frame, by the other network
        assert (await site.push(second, json.dumps(tree))).status == 202
        _, tree = SAY["loriot"](SOIL, 2, 8, now + 60_000_000)  # the next one, by it alone
        assert (await site.push(second, json.dumps(tree))).status == 202

        async def next_one() -> bool:
            return await count() == 2 * VALUES

        await eventually(next_one)
        ledger = (await site.ask("GET", "/api/v1/ledger")).body
        assert ledger["totals"]["duplicate.cross_path"] == VALUES
        assert ledger["balanced"] is True

        _, tree = SAY["loriot"](SOIL, 2, 9, now)
        tree["EUI"] = "70B3D5E7A00001FF"  # a device behind the first network only
        await site.push(second, json.dumps(tree))
        await say(f"loriot/{EUI}/rx", tree)  # the other network's topic: dropped by the broker
        ledger = (await site.ask("GET", "/api/v1/ledger")).body
        assert ledger["totals"]["quarantined.foreign_topic"] == 1
        assert await site.records(device=other.id) == []
        assert await count() == 2 * VALUES
