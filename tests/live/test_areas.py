"""Areas and owners on whole gateways: what a node sends from elsewhere is refused at its centre, the rest is taken."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from sensegate.config import NodeUserConfig, UplinkConfig
from tests.conftest import eventually
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = pytest.mark.live


async def push(site: Site, device: Made, *values: int) -> None:
    """Push a reading for each value, a second apart."""
    for value in values:
        assert (await site.push(device, reading(value, f"2026-01-01T00:00:{value:02d}Z"))).status == 202


async def values(site: Site, device: str) -> list[float]:
    """Return the values of a device as the gateway's feed has them."""
    return sorted(row["value"] for row in await site.records() if row["device"] == device)


async def test_what_lies_outside_the_areas_of_a_node_is_refused(tmp_path: Path) -> None:
    """The node's own feed has all; the centre's has what lies inside, and names what it refused."""
    secret = tmp_path / "secret"
    secret.write_text("secret-of-4401", encoding="utf-8")
    node_user = NodeUserConfig(division="4401", secret_file=str(secret), areas=("440106",))
    above = msgspec.structs.replace(config_of(tmp_path / "centre", "44"), nodes=(node_user,))
    async with running(above) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
        async with running(msgspec.structs.replace(config_of(tmp_path / "node"), uplink=uplink)) as node:
            inside, outside = await node.device("inside", "440106"), await node.device("outside", "440104")
            await push(node, outside, 1, 2)
            await push(node, inside, 1, 2)

            async def taken() -> bool:
                return await values(centre, "inside") == [1, 2]

            async def refused() -> bool:
                return await centre.metric('sensegate_node_refused_total{node="4401",reason="area"}') > 0

            await eventually(taken)
            await eventually(refused)
            assert await values(centre, "outside") == []
            assert await values(node, "outside") == [1, 2]
            (row,) = [row for row in (await centre.ask("GET", "/api/v1/nodes")).body["rows"] if row["member"] == "4401"]
            assert row["areas"] == ["440106"]
            for site in (centre, node):
                await eventually(partial(balanced, site))


async def balanced(site: Site) -> bool:
    """Return whether a gateway knows of four readings of the node: two came up, two were refused."""
    answer = await site.ask("GET", "/api/v1/ledger", params={"since": "2h", "by": "node"})
    assert answer.body["balanced"]
    rows = [row for row in answer.body["rows"] if row["node"] == "4401"]
    return [sum(row.get(kind, 0) for row in rows) for kind in ("accepted", "forwarded")] == [4, 2]


async def test_areas_are_given_and_owners_decided_over_http(tmp_path: Path) -> None:
    """Invited with areas, changed later; who may not, does not; a device that nobody sent has no owner."""
    async with running(config_of(tmp_path / "centre", "44")) as centre:
        invited = {"division": "4403", "areas": ["4403", "441521"]}
        assert (await centre.ask("POST", "/api/v1/nodes", json=invited)).status == 201
        path = "/api/v1/nodes/4403/areas"
        assert (await centre.ask("PUT", path, json={"areas": ["11"]})).status in {400, 404}
        operator, _ = await centre.token("city_operator", "4403")
        assert (await centre.ask("PUT", path, operator, json={"areas": ["4403"]})).status == 403
        answer = await centre.ask("PUT", path, json={"areas": ["440300"], "note": "given back"})
        assert answer.body["areas"] == ["4403"]
        assert (await centre.ask("GET", "/api/v1/device-owners")).body["rows"] == []
        assert (await centre.ask("GET", "/api/v1/device-owners/never")).status == 404
        assert (await centre.ask("PUT", "/api/v1/device-owners/never", json={"member": "4403"})).status == 404
        assert (await centre.ask("PUT", "/api/v1/device-owners/never", json={"member": "4499"})).status == 404
        assert (await centre.ask("GET", "/api/v1/device-owners", operator)).status == 403
        actions = [row["action"] for row in await centre.audit() if row["action"].startswith("node.")]
        assert actions == ["node.invite", "node.areas"]
