"""What a centre refuses of a node, on whole gateways: told at both, and sent once more when the centre was mended."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.config import Config, NodeUserConfig, UplinkConfig
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live


def centre_of(directory: Path, *areas: str) -> Config:
    """Return the configuration of a centre whose node has these areas."""
    secret = directory / "secret"
    secret.write_text("secret-of-4401", encoding="utf-8")
    node = NodeUserConfig(division="4401", secret_file=str(secret), areas=areas)
    return msgspec.structs.replace(config_of(directory / "centre", "44"), nodes=(node,))


async def push(site: Site, device: Made, *values: int) -> None:
    """Push a reading for each value, a second apart."""
    for value in values:
        assert (await site.push(device, reading(value, f"2026-01-01T00:00:{value:02d}Z"))).status == 202


async def values(site: Site, device: str) -> list[float]:
    """Return the values of a device as the gateway's feed has them."""
    return sorted(row["value"] for row in await site.records() if row["device"] == device)


async def refused(site: Site, path: str = "/api/v1/uplink/refused") -> list[dict[str, Any]]:
    """Return the list of refused parts."""
    answer = await site.ask("GET", path)
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.body["rows"]
    return rows


async def counts(site: Site) -> dict[str, int]:
    """Return the ledger's counts of the node."""
    answer = await site.ask("GET", "/api/v1/ledger", params={"since": "2h", "by": "node"})
    assert answer.body["balanced"]
    row: dict[str, int] = next((row for row in answer.body["rows"] if row["node"] == "4401"), {})
    return {kind: row.get(kind, 0) for kind in ("accepted", "forwarded", "refused_by_centre")}


async def says(site: Site, wanted: dict[str, int]) -> bool:
    """Return whether the ledger says this of the node."""
    return await counts(site) == wanted


async def has(site: Site, device: str, wanted: list[float]) -> bool:
    """Return whether a feed has these values of a device."""
    return await values(site, device) == wanted


async def rows_are(site: Site, count: int) -> bool:
    """Return whether the node is connected, and the list holds so many rows."""
    answer = await site.ask("GET", "/api/v1/uplink/refused")
    return answer.status == 200 and sum(row["rows"] for row in answer.body["rows"]) == count


async def lists_are_equal(centre: Site, node: Site) -> bool:
    """Return whether both sides list the same."""
    return await refused(centre, "/api/v1/nodes/4401/refused") == await refused(node)


async def is_shown(centre: Site) -> bool:
    """Return whether the node's line at the centre says what was refused."""
    row = (await centre.ask("GET", "/api/v1/nodes/4401")).body
    return row["refused"] == 2 and any("rows refused: area 2" in problem for problem in row["problems"])


async def test_a_wrong_area_is_mended_and_its_readings_come_once(tmp_path: Path) -> None:
    """Refused rows wait on the list of both; after the mending one order brings them, and the sums of both say so."""
    async with running(centre_of(tmp_path, "440106")) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(tmp_path / "secret"), span_ms=50)
        port = int(centre.addresses.nats.rpartition(":")[2])
        node_config = msgspec.structs.replace(config_of(tmp_path / "node"), uplink=uplink)
        async with running(node_config) as node:
            inside, outside = await node.device("inside", "440106"), await node.device("outside", "440104")
            await push(node, outside, 1, 2)
            await push(node, inside, 1, 2, 3)
            await eventually(partial(rows_are, node, 2))
            await eventually(partial(has, centre, "inside", [1, 2, 3]))
            await eventually(partial(lists_are_equal, centre, node))
            part = (await refused(node))[0]
            assert (part["reason"], part["kind"]) == ("area", "readings")
            body = await centre.ask("GET", f"/api/v1/nodes/4401/refused/{part['id']}")
            assert body.status == 200
            assert len(body.body) > 0
            wanted = {"accepted": 5, "forwarded": 3, "refused_by_centre": 2}
            for site in (centre, node):
                await eventually(partial(says, site, wanted))
            await eventually(partial(is_shown, centre))
            answer = await node.ask("POST", "/api/v1/uplink/skip", json={"lane": "live"})
            assert answer.status == 409
            operator, _ = await node.token("city_operator", "4401")
            assert (await node.ask("POST", "/api/v1/uplink/resend", operator, json={})).status == 403
    mended = centre_of(tmp_path, "4401")
    engine = msgspec.structs.replace(mended.engine, port=port)
    async with running(msgspec.structs.replace(mended, engine=engine)) as centre, running(node_config) as node:
        await eventually(partial(rows_are, node, 2), 30)
        answer = await node.ask("POST", "/api/v1/uplink/resend", json={})
        assert answer.body["waiting"] >= 1
        await eventually(partial(has, centre, "outside", [1, 2]), 30)
        await eventually(partial(rows_are, node, 0))
        wanted = {"accepted": 5, "forwarded": 5, "refused_by_centre": 0}
        for site in (centre, node):
            await eventually(partial(says, site, wanted))
        assert len({row["id"] for row in await centre.records()}) == 5
        actions = [row["action"] for row in await node.audit()]
        assert "uplink.resend" in actions
