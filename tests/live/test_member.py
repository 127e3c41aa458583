"""A city with several nodes: records and accounting bear the id of each, and the centre shows one city."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from sensegate.config import NodeUserConfig, UplinkConfig
from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live


async def test_records_bear_the_id_of_the_member(tmp_path: Path) -> None:
    """Two nodes of one city never give the same id, and the hourly sums keep them apart."""
    config = msgspec.structs.replace(config_of(tmp_path, "4401"), member="4401-port")
    async with running(config) as node:
        device = await node.device("gz-1")
        assert (await node.push(device, reading(21.5))).status == 202
        records = await eventually(node.records)
        assert [(record["node"], record["division"]) for record in records] == [("4401-port", "440106")]
        assert records[0]["id"].startswith("4401-port-0-")
        assert (await node.totals())["accepted"] == 1
        rows = (await node.ask("GET", "/api/v1/nodes")).body["rows"]
        assert [(row["member"], row["division"]) for row in rows] == [("4401-port", "4401")]
        assert (await node.push(device, b"no reading")).status == 202
        kept = await eventually(node.quarantine)
        assert [row["device"] for row in kept] == ["gz-1"]


async def test_two_nodes_of_a_city_are_one_city_at_the_centre(tmp_path: Path) -> None:
    """Who reads the city's division gets the records of both; who reads a district of one, only those of that node."""
    members = {"4401": ("440106",), "4401-port": ("440112",)}
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-the-link", encoding="ascii")
    users = tuple(
        NodeUserConfig(division=name, secret_file=str(secret), areas=areas) for name, areas in members.items()
    )
    above = msgspec.structs.replace(config_of(tmp_path / "centre", "44"), nodes=users)
    async with running(above) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
        for value, (name, (area,)) in enumerate(members.items(), 1):
            config = msgspec.structs.replace(config_of(tmp_path / name), member=name, uplink=uplink)
            async with running(config) as node:
                device = await node.device(f"device-{value}", area)
                assert (await node.push(device, reading(value))).status == 202
                await eventually(partial(_has, centre, value))
        city = await centre.records(division="4401")
        assert sorted((row["node"], row["value"]) for row in city) == [("4401", 1), ("4401-port", 2)]
        port = await centre.records(division="440112")
        assert [(row["node"], row["value"]) for row in port] == [("4401-port", 2)]
        rows = (await centre.ask("GET", "/api/v1/nodes")).body["rows"]
        below = [(row["member"], row["division"]) for row in rows if row["member"] != "44"]
        assert below == [("4401", "4401"), ("4401-port", "4401")]
        ledger = (await centre.ask("GET", "/api/v1/ledger", params={"since": "2h", "by": "node"})).body
        assert ledger["balanced"]


async def _has(centre: Site, count: int) -> bool:
    return len(await centre.records(division="4401")) == count
