"""The client's columns over two live centres, of which the active one is killed again and again."""

from __future__ import annotations

import asyncio
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sensegate.failover import terms
from sensegate_client import Client
from tests.conftest import eventually
from tests.live.centres import Centre, two_sites
from tests.live.site import reading

KILLS = int(os.environ.get("SENSEGATE_CENTRE_KILLS", "4"))
LEASE_S = 4.0
"""As the other tests: with half of it a busy machine demotes a centre that its node has only just reached."""
PORTION = 10
"""Readings before, and after, each kill."""
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("SENSEGATE_SOAK" not in os.environ, reason="a quarter of a minute a kill: SENSEGATE_SOAK=1"),
]


async def follow(addresses: list[str], token: str, ids: list[str], values: list[float]) -> None:
    """List each reading that the client yields, until cancelled."""
    async with Client(addresses, token, patience_s=math.inf) as client:
        async for page in client.feed("all").columns():
            for record in page.records():
                ids.append(record.id)
                values.append(float(record.value or 0))


def is_electable(node: Path, active: Centre) -> bool:
    """Return whether the node has granted the term of the active centre, which knows it as a voter."""
    granted, own = terms.read(node), terms.read(active.directory)
    return granted.voters_version != (0, 0) and bool(own.voters) and own.voters[-1].nodes != ()


async def test_columns_through_the_kills_of_centres(tmp_path: Path) -> None:
    """Every reading of the node once, whichever centre is killed when; each killed centre comes back as the standby."""
    ids: list[str] = []
    values: list[float] = []
    async with two_sites(tmp_path, automatic=True, lease_s=LEASE_S) as (first, second, node):
        active, standby = first, second
        device = await node.device("air-1")
        token = (active.directory / "admin.token").read_text(encoding="ascii").strip()
        reader = asyncio.create_task(follow([active.url, standby.url], token, ids, values))
        sent = 0

        async def push() -> None:
            nonlocal sent
            for _ in range(PORTION):
                moment = (BEGIN + timedelta(seconds=sent)).isoformat()
                assert (await node.push(device, reading(sent, moment))).status == 202
                sent += 1

        for _ in range(KILLS):
            await eventually(standby.copied, 180)
            await eventually(lambda: is_electable(Path(node.config.directory), active), 180)  # noqa: B023 - waited for
            await push()
            await eventually(lambda: not reader.done() and len(values) > 0, 120)
            await asyncio.gather(push(), active.kill())
            await standby.active(180)
            await active.start()
            active, standby = standby, active
            await push()
        await eventually(lambda: len(set(values)) == sent or reader.done(), 180)
        assert not reader.done(), reader.exception()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    assert sorted(values) == [*range(sent)]
    assert len(ids) == len(set(ids))
