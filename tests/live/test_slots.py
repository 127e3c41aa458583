"""Nodes that join, are replaced and expelled while devices are connected: placed in slots, and nothing is reloaded."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sensegate.bus.connect import BusClient, LinkOptions, Login, connect
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.tiers import membership
from sensegate.tiers.link import CentreLink
from sensegate.tiers.membership import StoredLink
from tests.conftest import eventually
from tests.live.site import Site, config_of, running

pytestmark = pytest.mark.live

PHONES = 12


async def invited(centre: Site, division: str, **more: Any) -> str:
    """Return a code for a node."""
    answer = await centre.ask("POST", "/api/v1/nodes", json={"division": division, **more})
    assert answer.status == 201, answer.body
    code: str = answer.body["code"]
    return code


async def connected(kept: StoredLink) -> BusClient:
    """Connect with what a node was told when it joined."""
    return await connect(
        kept.url,
        Login(node_user(kept.member), kept.secret, inbox_prefix(kept.slot)),
        name=f"uplink {kept.member} 0.1.0",
        link_options=LinkOptions(3.0),
    )


async def half_open(kept: StoredLink) -> BusClient:
    """Return a connection whose client has gone, and the server has not noticed."""
    connection = await connected(kept)
    for task in (connection._reading_task, connection._ping_interval_task):
        assert task is not None
        task.cancel()
    return connection


async def greets(link: CentreLink) -> bool:
    """Return whether the centre answers."""
    with contextlib.suppress(Unavailable):
        await link.hello()
        return True
    return False


async def test_nodes_come_and_go_while_devices_stay_connected(tmp_path: Path) -> None:
    """Joins, a replacement and an expulsion disconnect no device; who is expelled is cut within 2 s."""
    async with running(config_of(tmp_path / "centre", "44")) as centre, contextlib.AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(centre.phone()) for _ in range(PHONES)]
        devices = [await centre.device(f"gz-{number}") for number in range(PHONES)]
        for phone, device in zip(phones, devices, strict=True):
            assert await phone.connect(device.id, device.password) == 0
        kept: dict[str, StoredLink] = {}
        links: dict[str, CentreLink] = {}
        for member in ("4401", "4401-port", "4403"):
            code = await invited(centre, member[:4], member=member)
            membership_record = kept[member] = await membership.join(
                tmp_path / member, code, centre.addresses.http, member=member
            )
            link = links[member] = CentreLink(
                await connected(membership_record), slot=membership_record.slot, member=member
            )
            stack.push_async_callback(link.close)
            assert await eventually(partial(greets, link))
        assert {member: row.slot for member, row in kept.items()} == {
            "4401": "4401",
            "4401-port": "s01",
            "4403": "4403",
        }

        for member in kept:
            # Something has come up of none of them; the connection is seen all the same.
            await eventually(partial(is_up, centre, member))

        # Another machine in its place: the old one is cut, and its credential is dead.
        code = await invited(centre, "4403", replace=True)
        fresh = await membership.join(tmp_path / "new", code, centre.addresses.http)
        assert (fresh.slot, fresh.generation) == ("4403", 2)
        await asyncio.wait_for(links["4403"].connection.credentials_refused.wait(), 60)
        with pytest.raises((PermissionDenied, Unavailable)):
            await connected(kept["4403"])

        began = asyncio.get_running_loop().time()
        assert (await centre.ask("POST", "/api/v1/nodes/4401-port/expel", json={"note": "test"})).status == 200
        await eventually(lambda: not links["4401-port"].connection.is_connected, 30)
        assert asyncio.get_running_loop().time() - began < 2.0
        with pytest.raises((PermissionDenied, Unavailable)):
            await connected(kept["4401-port"])
        # Its slot is the next one's, once nothing is connected there.
        await eventually(lambda: taken(centre, tmp_path), 30)

        # What a flapping link has left half-open keeps nobody out for long.
        extra = [await half_open(kept["4401"]) for _ in range(4)]
        assert await eventually(lambda: centre.metric('sensegate_limit_hits_total{limit="node_connections"}'))
        assert await eventually(partial(is_let_in, kept["4401"]))
        for connection in extra:
            connection.drop()
            await connection.close()

        assert await eventually(partial(greets, links["4401"]))
        assert [phone.connected for phone in phones] == [True] * PHONES
        for phone, device in zip(phones, devices, strict=True):
            await phone.publish(device.topics[0], b'{"time": "2026-01-01T00:00:00Z", "values": {"air_temperature": 1}}')


async def is_let_in(kept: StoredLink) -> bool:
    """Return whether another connection of a node is taken."""
    with contextlib.suppress(Unavailable, PermissionDenied):
        await (await connected(kept)).close()
        return True
    return False


async def is_up(centre: Site, member: str) -> bool:
    """Return whether a node is seen to be connected."""
    answer = await centre.ask("GET", f"/api/v1/nodes/{member}")
    return answer.status == 200 and bool(answer.body["state"] == "up")


async def taken(centre: Site, folder: Path) -> bool:
    """Return whether a new member of a city gets the first spare slot."""
    member = f"4404-n{len(list(folder.iterdir()))}"
    second = await membership.join(
        folder / member, await invited(centre, "4404", member=member), centre.addresses.http, member=member
    )
    return second.slot == "s01"
