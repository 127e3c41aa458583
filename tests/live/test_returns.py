"""Return flow on whole gateways: what the centre takes in of a city's area comes back to its node, exactly once."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sensegate.authority.divisions import Divisions
from sensegate.bus import columns
from sensegate.bus.connect import Login, connect
from sensegate.bus.memory import MemoryLog
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.clock import SystemClock
from sensegate.config import NodeUserConfig, StoreConfig
from sensegate.config.people import ReturnsConfig
from sensegate.tiers.link import CentreLink
from sensegate.tiers.return_receiver import ReturnReceiver
from tests.conftest import eventually
from tests.live.site import Site, config_of, running, tiers

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def say(site: Site, device: Any, *seconds: int) -> None:
    """Have a device of the centre send a reading for each second, in one message."""
    body = [{"time": f"2026-01-01T00:00:{at:02d}Z", "values": {"air_temperature": at}} for at in seconds]
    assert (await site.push(device, json.dumps(body))).status == 202


async def values(site: Site, device: str) -> list[float]:
    """Return the values of a device as subscribers of a gateway read them."""
    return [row["value"] for row in await site.records() if row["device"] == device]


async def has(site: Site, device: str, wanted: list[float]) -> bool:
    """Return whether a gateway has exactly these of a device."""
    return await values(site, device) == wanted


async def test_its_part_comes_back_to_a_node(tmp_path: Path) -> None:
    """Of the city's devices at the centre, with the same ids; of another city's none; nothing goes up again."""
    async with tiers(tmp_path) as (node, centre):
        mine, other = await centre.device("met-1", "440106"), await centre.device("met-2", "4403")
        await say(centre, mine, 1, 2)
        await say(centre, other, 1, 2)
        await eventually(lambda: has(node, "met-1", [1, 2]))
        await say(centre, mine, 3)
        await eventually(lambda: has(node, "met-1", [1, 2, 3]))
        assert await values(node, "met-2") == []
        above = {row["id"] for row in await centre.records() if row["device"] == "met-1"}
        assert {row["id"] for row in await node.records()} == above
        own = await node.device("own-1")
        await say(node, own, 1)
        await eventually(lambda: has(centre, "own-1", [1]))
        assert await values(centre, "met-1") == [1, 2, 3]
        totals = await node.totals()
        assert totals["returned"] == 3
        assert await values(node, "own-1") == [1]


async def test_what_came_while_the_node_was_away(tmp_path: Path) -> None:
    """It goes on where it was: none lost, none twice, through restarts of both."""
    secret = tmp_path / "secret"
    async with tiers(tmp_path) as (node, centre):
        met = await centre.device("met-1", "440106")
        await say(centre, met, 1)
        await eventually(lambda: has(node, "met-1", [1]))
        below, above = node.config, centre.config
    async with running(above) as centre:
        await say(centre, met, 2, 3)
    async with running(above) as centre:
        uplink = msgspec.structs.replace(below.uplink, url=centre.addresses.nats, secret_file=str(secret))
        async with running(msgspec.structs.replace(below, uplink=uplink)) as node:
            await eventually(lambda: has(node, "met-1", [1, 2, 3]))
            await say(centre, met, 4)
            await eventually(lambda: has(node, "met-1", [1, 2, 3, 4]))


CITIES = Divisions.load().children("44")


async def test_twenty_one_nodes_have_each_its_own(tmp_path: Path) -> None:
    """Records at a real centre, asked for over 21 real links; SENSEGATE_RETURN_RECORDS=100000 for the whole."""
    records = int(os.environ.get("SENSEGATE_RETURN_RECORDS", "6300"))
    secret = tmp_path / "secret"
    secret.write_text("s" * 40, encoding="utf-8")
    nodes = tuple(NodeUserConfig(division=city.code, secret_file=str(secret)) for city in CITIES)
    assert len(nodes) == 21
    per_city = records // len(nodes)
    async with running(msgspec.structs.replace(config_of(tmp_path / "centre", "44"), nodes=nodes)) as centre:
        sent: dict[str, set[float]] = {}
        for city in CITIES:
            device = await centre.device(f"met-{city.code}", city.code)
            for since in range(0, per_city, 1_000):
                part = range(since, min(per_city, since + 1_000))
                body = [{"time": 1767225600 + at, "values": {"air_temperature": 20 + at / 1e4}} for at in part]
                assert (await centre.push(device, json.dumps(body))).status == 202
            sent[city.code] = {round(20 + at / 1e4, 4) for at in range(per_city)}
        taken = await asyncio.gather(*(_all_of(centre, city.code, per_city) for city in CITIES))
    for city, log in zip(CITIES, taken, strict=True):
        rows = [
            (device, round(value, 4), batch.record_id(row))
            for entry in await log.fetch(0, limit=100_000, max_bytes=2**40)
            if entry.subject.startswith("readings.")
            for batch in [columns.decode(entry.payload, sequence=entry.sequence)]
            for row, (device, value) in enumerate(
                zip([batch.origins.device[at] for at in batch.origin.tolist()], batch.value.tolist(), strict=True)
            )
        ]
        assert {device for device, _, _ in rows} == {f"met-{city.code}"}
        assert {value for _, value, _ in rows} == sent[city.code]
        assert len(rows) == len({identity for _, _, identity in rows}) == per_city


async def _all_of(centre: Site, division: str, rows: int) -> MemoryLog:
    """Take a node's part over a link of its own, by a taker that is torn off again and again."""
    user = node_user(division)
    nc = await connect(centre.addresses.nats, Login(user, "s" * 40, inbox_prefix(division)), name=user)
    log = MemoryLog()
    try:
        link = CentreLink(nc, slot=division, member=division)
        for _ in range(1_000):
            # A new one each time: what it knows is what stands on the log.
            taker = ReturnReceiver(division, log, SystemClock(), StoreConfig())
            for _ in range(3):
                await taker.take_next(link.ask)
            if (await taker.position()).rows >= rows:
                await taker.take_next(link.ask)
                return log
    finally:
        await nc.close()
    place = await taker.position()
    raise AssertionError(f"{division}: {place.rows} of {rows} at {place.position}, {await centre.totals()}")


async def content(site: Site, path: str, **query: str) -> tuple[int, bytes, str]:
    """Return (status, bytes, cursor) of a file."""
    headers = {"Authorization": f"Bearer {site.admin}"}
    async with site.session.get(site.addresses.http + path, headers=headers, params=query) as response:
        return response.status, await response.read(), response.headers.get("X-Cursor", "")


async def post(site: Site, file: bytes) -> Any:
    """Import a file."""
    return await site.ask("POST", "/api/v1/returns", data=aiohttp.BytesPayload(file))


async def test_across_an_air_gap(tmp_path: Path) -> None:
    """A signed file, taken once; a changed one, another node's, one with a gap before it, another key's: refused."""
    async with running(config_of(tmp_path / "centre", "44")) as centre:
        met, other = await centre.device("met-1", "440106"), await centre.device("met-2", "440303")
        await say(centre, met, 1, 2)
        await say(centre, other, 1)
        key = str(Path(centre.config.directory) / "statements.pub")
        config = msgspec.structs.replace(config_of(tmp_path / "node"), returns=ReturnsConfig(key_file=key))
        async with running(config) as node:
            status, first, cursor = await content(centre, "/api/v1/returns/4401")
            assert status == 200
            await say(centre, met, 3)
            _, second, _ = await content(centre, "/api/v1/returns/4401", after=cursor)
            _, foreign, _ = await content(centre, "/api/v1/returns/4403")
            changed = bytearray(first)
            changed[len(changed) // 2] ^= 1
            assert (await post(node, bytes(changed))).status == 400
            assert (await post(node, foreign)).status == 400
            assert (await post(node, second)).status == 409
            answer = await post(node, first)
            assert answer.body == {"rows": 2, "cursor": cursor}
            assert (await post(node, first)).body["rows"] == 0
            assert (await node.ask("GET", "/api/v1/returns/place")).body["cursor"] == cursor
            assert (await post(node, second)).body["rows"] == 1
            assert await values(node, "met-1") == [1, 2, 3]
        own = Path(node.config.directory) / "statements.pub"
        config = msgspec.structs.replace(config_of(tmp_path / "other"), returns=ReturnsConfig(key_file=str(own)))
        async with running(config) as node:
            assert "another key" in (await post(node, first)).body["detail"]
