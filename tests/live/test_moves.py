"""A device moves from one gateway to another: entry, credential, what tells duplicates; ledgers show it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sensegate.tiers import membership
from tests.conftest import eventually
from tests.live.joining import invite
from tests.live.phone import NOT_AUTHORISED
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live


@contextlib.asynccontextmanager
async def province(folder: Path) -> AsyncIterator[tuple[Site, Site, Site]]:
    """Run a centre with two nodes that have joined."""
    async with running(config_of(folder / "44", "44")) as centre:
        for city in ("4401", "4403"):
            await membership.join(folder / city, await invite(centre, city), centre.addresses.http)
        async with running(config_of(folder / "4401")) as gateway, running(config_of(folder / "4403", "4403")) as two:
            yield centre, gateway, two


BEGAN = time.time() - 600


def message_at(minute: int) -> str:
    """Return a message of some minutes after the test began, in its last ten minutes: what is old is not judged."""
    return reading(20 + minute, datetime.fromtimestamp(BEGAN + 60 * minute, UTC).isoformat(timespec="seconds"))


async def ordered(centre: Site, device: str, target: str, division: str, **more: str) -> dict[str, Any]:
    """Order a move, as soon as the centre knows the device as it is."""

    async def place_order() -> dict[str, Any]:
        body = {"device": device, "target": target, "division": division, **more}
        answer = await centre.ask("POST", "/api/v1/moves", json=body)
        return answer.body if answer.status == 201 else {}

    made: dict[str, Any] = await eventually(place_order)
    return made


async def move(centre: Site, device: str, target: str, division: str) -> dict[str, Any]:
    """Order a move and wait for its end."""
    made = await ordered(centre, device, target, division)

    async def over() -> dict[str, Any]:
        body = (await centre.ask("GET", f"/api/v1/moves/{made['id']}")).body
        return body if body["stage"] in ("done", "refused") else {}

    result: dict[str, Any] = await eventually(over, 30.0)
    return result


async def count(site: Site, kind: str) -> int:
    return int((await site.totals()).get(kind, 0))


async def test_a_device_moves_and_its_duplicates_are_known(tmp_path: Path) -> None:
    """Node to node, to the centre, and back: nothing lost, nothing doubled, the old place refuses it."""
    async with province(tmp_path) as (centre, node, two):
        device = await node.device("gz-1")
        async with node.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            for minute in range(5):
                await phone.publish("sg/gz-1/up", message_at(minute))
            await eventually(lambda: has(centre, 5))
            result = await move(centre, "gz-1", "4403", "440305")
            assert (result["stage"], result["source"], result["identities"]) == ("done", "4401", 5)
        async with node.phone() as phone:
            assert await phone.connect(device.id, device.password) == NOT_AUTHORISED
        assert (await node.ask("GET", "/api/v1/devices/gz-1")).body["state"] == "retired"
        there = (await two.ask("GET", "/api/v1/devices/gz-1")).body
        assert (there["division"], there["state"]) == ("440305", "registered")
        # The same readings again at the new place are duplicates, as they were at the old one; new ones are not.
        async with two.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            for minute in range(3, 8):
                await phone.publish("sg/gz-1/up", message_at(minute))
        await eventually(lambda: has(centre, 8))
        rows = await centre.records(device="gz-1")
        assert sorted((row["value"], row["node"]) for row in rows) == [
            *((20.0 + minute, "4401") for minute in range(5)),
            *((20.0 + minute, "4403") for minute in range(5, 8)),
        ]
        assert await count(two, "duplicate.repeat") + await count(two, "duplicate.redelivery") == 2
        assert await count(node, "moved_out.4403") == 1
        assert await count(two, "moved_in.4401") == 1
        await eventually(lambda: moved_seen(centre))

        # Attached to the centre directly.
        result = await move(centre, "gz-1", "44", "440305")
        assert (result["stage"], result["source"]) == ("done", "4403")
        assert (await centre.push(device, message_at(7))).status == 202
        assert (await centre.push(device, message_at(8))).status == 202
        await eventually(lambda: has(centre, 9))
        assert (await centre.records(device="gz-1"))[-1]["node"] == "44"

        # And back to where it began: the retired entry is taken again.
        assert (await move(centre, "gz-1", "4401", "440106"))["stage"] == "done"
        assert (await node.push(device, message_at(8))).status == 202
        assert (await node.push(device, message_at(9))).status == 202
        await eventually(lambda: has(centre, 10))
        actions = [entry["action"] for entry in await node.audit() if entry["action"].startswith("device.")]
        assert actions == ["device.add", "device.move.shut", "device.move.out", "device.move.in"]


@pytest.mark.parametrize(("target", "division"), [("4403", "440305"), ("44", "440305")])
async def test_what_went_along_is_kept_over_a_restart(tmp_path: Path, target: str, division: str) -> None:
    """The new place is started again before the device has said anything there: what it sends again is known."""
    async with province(tmp_path) as (centre, node, _):
        device = await node.device("gz-1")
        for minute in range(4):
            assert (await node.push(device, message_at(minute))).status == 202
        assert (await move(centre, "gz-1", target, division))["identities"] == 4
    async with running(config_of(tmp_path / target, target)) as there:
        for minute in range(2, 6):
            assert (await there.push(device, message_at(minute))).status == 202

        async def tallies() -> tuple[int, int]:
            repeated = await count(there, "duplicate.redelivery") + await count(there, "duplicate.repeat")
            return repeated, await count(there, "accepted") - (4 if target == "44" else 0)

        # The ledger that is read follows the commit that was answered.
        async def all_told() -> bool:
            return sum(await tallies()) >= 4

        await eventually(all_told)
        assert await tallies() == (2, 2)


async def test_what_cannot_be_moved(tmp_path: Path) -> None:
    """No such device, wrong place, another's scope, an id that is taken there: said, and the device goes on."""
    async with province(tmp_path) as (centre, node, two):
        device: Made = await node.device("gz-1")
        await two.device("gz-1", "440305")
        await eventually(lambda: known(centre))
        for body, status in (
            ({"device": "nobody", "target": "4403", "division": "440305"}, 404),
            ({"device": "gz-1", "target": "4403", "division": "440106"}, 400),
            ({"device": "gz-1", "target": "4405", "division": "440507"}, 400),
        ):
            assert (await centre.ask("POST", "/api/v1/moves", json=body)).status == status, body
        city, _ = await centre.token("city_operator", "4403")
        body = {"device": "gz-1", "target": "4403", "division": "440305", "source": "4401"}
        assert (await centre.ask("POST", "/api/v1/moves", city, json=body)).status == 404, "as if there were none"
        answer = await centre.ask("POST", "/api/v1/moves", json=body)
        assert answer.status == 201, answer.body

        async def refused() -> dict[str, Any]:
            body = (await centre.ask("GET", f"/api/v1/moves/{answer.body['id']}")).body
            return body if body["stage"] == "refused" else {}

        assert "registered here" in (await eventually(refused, 30.0))["reason"]
        # Where it was it may connect again.
        assert (await node.push(device, message_at(0))).status == 202

        # Called off: to a node that was invited and never came.
        await invite(centre, "4405")
        made = await ordered(centre, "gz-1", "4405", "440507", source="4401")
        path = f"/api/v1/moves/{made['id']}/cancellation"
        assert (await centre.ask("POST", path)).body["stage"] in ("cancelled", "sent_back")
        assert (await centre.ask("POST", path)).status == 409

        # Forced: the other node is expelled; what the centre knows of the device goes, and it says what does not.
        lost = await two.device("sz-9", "440305")
        await eventually(lambda: found_at(centre, "sz-9"))
        forced = {"device": "sz-9", "target": "4401", "division": "440106", "force": True, "keep_credential": True}
        assert (await centre.ask("POST", "/api/v1/moves", json=forced)).status == 409
        assert (await centre.ask("POST", "/api/v1/nodes/4403/expel", json={})).status == 200
        answer = await centre.ask("POST", "/api/v1/moves", json=forced)
        assert (answer.status, answer.body["not_carried"][:9]) == (201, "the ident"), answer.body
        await eventually(lambda: stage(centre, answer.body["id"], "done"), 30.0)
        assert (await node.push(lost, message_at(0))).status == 202
        assert (await node.push(device, message_at(1))).status == 202, "called off: it is where it was"
        assert await count(node, "moved_forced.4403") == 1
        entries = [entry["after"] for entry in await centre.audit() if entry["action"] == "device.move"][-1]
        assert (entries["forced"], entries["credential"]) == (True, "kept")


async def stage(centre: Site, move_id: str, wanted: str) -> bool:
    body = (await centre.ask("GET", f"/api/v1/moves/{move_id}")).body
    return bool(body["stage"] == wanted)


async def found_at(centre: Site, device: str) -> bool:
    """Whether the centre has a copy of a node's entry: a move to a gateway that it knows not is refused for that."""
    body = {"device": device, "target": "4403", "division": "440305"}
    return (await centre.ask("POST", "/api/v1/moves", json=body)).status == 409


async def has(centre: Site, wanted: int) -> bool:
    return len(await centre.records(device="gz-1")) == wanted


async def moved_seen(centre: Site) -> bool:
    totals = (await centre.ask("GET", "/api/v1/ledger", params={"since": "1h"})).body["totals"]
    return bool(totals.get("moved_out.4403") and totals.get("moved_in.4401"))


async def known(centre: Site) -> bool:
    """Whether both nodes' registries have been copied to the centre."""
    rows = (await centre.ask("GET", "/api/v1/nodes")).body["rows"]
    return sum(1 for row in rows if row.get("copied")) == 2 and all(
        row.get("devices", 1) for row in rows if row["role"] == "node"
    )
