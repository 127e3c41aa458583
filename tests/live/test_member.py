"""A node whose city has several: its records and its accounting bear its own id."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.conftest import eventually
from tests.live.site import config_of, reading, running

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
