"""A node's whole life with its centre: invited, joined, seen, left, replaced, expelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sensegate.errors import Conflict, PermissionDenied
from sensegate.tiers import membership
from tests.live.joining import invite, row
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live


async def until(look: Callable[[], Awaitable[Any]], timeout_s: float = 60.0) -> Any:
    """Return what `look` gives once it is true."""
    async with asyncio.timeout(timeout_s):
        while not (result := await look()):
            await asyncio.sleep(0.05)
    return result


async def test_the_whole_thread_of_a_membership(tmp_path: Path) -> None:
    """Invite, join while running, forward, be seen; expelled within 2 s; back with another code; leave."""
    async with running(config_of(tmp_path / "centre", "44")) as centre, running(config_of(tmp_path / "node")) as node:
        assert (await node.ask("GET", "/api/v1/nodes")).body["rows"][0]["detail"].startswith("no centre")
        code = await invite(centre)
        made = await membership.join(tmp_path / "node", code, centre.addresses.http, member="4401")
        assert made.generation == 1
        device = await node.device("gz-1")
        assert (await node.push(device, reading(21.5))).status == 202

        async def arrived() -> list[Any]:
            return await centre.records()

        records = await until(arrived)
        assert [(record["device"], record["value"], record["node"]) for record in records] == [("gz-1", 21.5, "4401")]

        async def reported() -> dict[str, Any]:
            sums = await row(centre)
            return sums if sums.get("reported") and sums["forwarded"] and sums["state"] == "up" else {}

        rows = await until(reported)
        assert rows["membership"] == "joined"
        assert rows["devices"] == 1
        assert abs(rows["clock_offset_s"]) < 1
        assert rows["counts"]["messages"] == 1
        assert rows["version"]
        assert rows["last_commit"] > 0
        # Used once.
        with pytest.raises(PermissionDenied):
            await membership.join(tmp_path / "other", code, centre.addresses.http)

        began = asyncio.get_running_loop().time()
        assert (await centre.ask("POST", "/api/v1/nodes/4401/expel", json={"note": "test"})).status == 200

        async def away() -> bool:
            detail = (await node.ask("GET", "/api/v1/nodes")).body["rows"][0]["detail"]
            return not detail.startswith("centre connected")

        await until(away)
        assert asyncio.get_running_loop().time() - began < 2.0
        assert (await node.push(device, reading(22.5, "2026-01-01T00:01:00Z"))).status == 202

        async def refused() -> bool:
            return "refuses" in (await node.ask("GET", "/api/v1/nodes")).body["rows"][0]["detail"]

        await until(refused)
        assert len(await centre.records()) == 1
        assert (await row(centre))["membership"] == "expelled"

        # The same store again, with another code: what it kept goes up.
        await membership.join(tmp_path / "node", await invite(centre), centre.addresses.http)

        async def two() -> bool:
            return len(await centre.records()) == 2

        await until(two)
        back = await row(centre)
        assert (back["membership"], back["generation"], back["gaps"]) == ("joined", 2, [])

        await membership.leave(tmp_path / "node")

        async def left() -> bool:
            return bool((await row(centre))["membership"] == "left")

        await until(left)
        actions = [record["action"] for record in await centre.audit() if record["action"].startswith("node.")]
        assert actions == ["node.invite", "node.join", "node.expel", "node.invite", "node.join", "node.leave"]


async def test_who_may_not_invite_and_what_may_not_be_invited(tmp_path: Path) -> None:
    """City operators and auditors may not; a county is no node; a second code needs `replace`."""
    async with running(config_of(tmp_path / "centre", "44")) as centre:
        city, _ = await centre.token("city_operator", "4401")
        auditor, _ = await centre.token("auditor", "44")
        for token in (city, auditor):
            answer = await centre.ask("POST", "/api/v1/nodes", token, json={"division": "4401"})
            assert answer.status == 403
        assert (await centre.ask("POST", "/api/v1/nodes", json={"division": "440106"})).status == 400
        assert (await centre.ask("POST", "/api/v1/nodes", json={"division": "4401", "replace": True})).status == 409
        code = await invite(centre)
        bad = code[:-4] + ("AAAA" if not code.endswith("AAAA") else "BBBB")
        with pytest.raises(PermissionDenied):
            await membership.join(tmp_path / "n", bad, centre.addresses.http)
        # A release too far away is named; one apart is tolerated.
        for version, status in (("9.9.9", 403), ("0.2.0", 201)):
            request = {"code": code, "version": version}
            answer = await centre.ask("POST", "/api/v1/nodes/join", "", json=request)
            assert answer.status == status, answer.body
            assert status == 201 or "update the centre first" in answer.body["detail"]
        assert "tolerated over one release" in (await until_row(centre))["detail"]
        assert (await centre.ask("POST", "/api/v1/nodes", json={"division": "4401"})).status == 409


async def until_row(centre: Site) -> dict[str, Any]:
    records: dict[str, Any] = await until(lambda: row(centre))
    return records


async def test_a_store_that_holds_a_log_is_not_taken_for_the_one_that_sent(tmp_path: Path) -> None:
    """Negative control of the generations: two logs under one name would give ids twice."""
    async with running(config_of(tmp_path / "centre", "44")) as centre:
        first = config_of(tmp_path / "first")
        await membership.join(tmp_path / "first", await invite(centre), centre.addresses.http)
        async with running(first) as node:
            device = await node.device("gz-1")
            await node.push(device, reading(21.5))

            async def arrived() -> list[Any]:
                return await centre.records()

            await until(arrived)
        async with running(config_of(tmp_path / "second")):
            code = await invite(centre, replace=True)
            with pytest.raises(Conflict):
                await membership.join(tmp_path / "second", code, centre.addresses.http)
