"""Floods of one node: the others are served, and the one is told to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.config.sites import NodeQuotaConfig
from tests.border.flooder import Flooded, Kind, Plan, flooding, is_bounded
from tests.border.new_layout import NEW
from tests.border.world import NODE, World, world

pytestmark = pytest.mark.live
SECONDS = 1.0
ROUNDS = 3
"""Times that the others are served at least, all of them while the flood goes on."""
QUOTA = NodeQuotaConfig(bytes_per_s=400_000.0, spans_per_s=2.0, questions_per_s=5.0)
"""Small enough for a flood of a second to be over it."""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[World]:
    """A server under the product's layout, answered by the product."""
    async with world(NEW, tmp_path, links=True, quota=QUOTA) as made:
        yield made


@pytest.mark.parametrize("kind", Kind)
async def test_others_are_served_while_one_floods(kind: Kind, place: World) -> None:
    """The gateway writes, another node, a device and a subscriber are answered; the flood is bounded and told so.

    The flood lasts until they have been served several times and it has met its bound, however slow the machine is.
    """
    plan = Plan(kind, place.kept.port, NODE, place.secrets[NODE], SECONDS, until_bounded=True)
    rounds, enough = 0, asyncio.Event()
    async with flooding(plan, enough) as flood:
        while not flood.done():
            assert not await place.served()
            rounds += 1
            if rounds == ROUNDS:
                enough.set()
        flooded: Flooded = await flood
    assert is_bounded(kind, flooded), flooded
    assert not place.ended()
