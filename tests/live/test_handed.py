"""Versions that the centre releases come in force at its nodes, also at one that was away; a bad one does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensegate.config import Config
from sensegate.tiers import membership
from tests.conftest import eventually
from tests.live.joining import invite, row
from tests.live.releasing import proposed, step, version_is
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = pytest.mark.live


async def release(centre: Site, number: int, scale: float) -> None:
    await proposed(centre, number, scale=scale)
    await step(centre, f"/versions/{number}/release")


async def send_value(node: Site, device: Made, value: int) -> tuple[float, str]:
    """Send one message; return what was read of it."""
    before = len(await node.records(device=device.id))
    assert (await node.push(device, f'{{"t": {value}}}')).status == 202
    rows = await eventually(lambda: newer(node, device, before))
    return rows[-1]["value"], rows[-1]["profile"]


async def newer(node: Site, device: Made, before: int) -> list[dict[str, Any]]:
    rows = await node.records(device=device.id)
    return rows if len(rows) > before else []


async def test_releases_of_the_centre_reach_its_nodes(tmp_path: Path) -> None:
    """While it runs, after it was away, and back; another content under a number in use is refused and named."""

    def config(name: str, division: str, version: int = 1) -> Config:
        folder = tmp_path / f"profiles-{name}"
        folder.mkdir(exist_ok=True)
        write(folder, THERMOMETER.replace("version: 1", f"version: {version}"))
        return config_of(tmp_path / name, division, profiles=(str(folder), str(PLAIN)))

    async with running(config("centre", "44")) as centre:
        await membership.join(tmp_path / "node", await invite(centre), centre.addresses.http)
        async with running(config("node", "4401")) as node:
            device = await node.device("th-1", profile="acme/th")
            assert await send_value(node, device, 200) == (20.0, "acme/th@1")
            await release(centre, 2, 0.01)
            await eventually(lambda: version_is(node, 2))
            assert await send_value(node, device, 2100) == (21.0, "acme/th@2")
        await release(centre, 3, 0.001)
        async with running(config("node", "4401")) as node:
            await eventually(lambda: version_is(node, 3))
            assert await send_value(node, device, 22000) == (22.0, "acme/th@3")
            await step(centre, "/rollback")
            await eventually(lambda: version_is(node, 2))
        # A folder that brings a number that the centre then gives to something else.
        async with running(config("node", "4401", version=4)) as node:
            await eventually(lambda: version_is(node, 2))
            await release(centre, 4, 0.5)

            async def named() -> list[str]:
                sums = await row(centre)
                return [
                    entry for entry in sums.get("problems", []) if "acme/th@4 exists here with another content" in entry
                ]

            await eventually(named)
            assert await send_value(node, device, 2300) == (23.0, "acme/th@2")
            assert any("acme/th@4" in sentence for sentence in (await node.ready())[1])
            actions = [record["action"] for record in await node.audit()]
            assert actions.count("profile.apply_from_centre.refused") == 1
