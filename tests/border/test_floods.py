"""Floods of one node: the others are served, and the one is told to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sensegate.config.sites import NodeQuotaConfig
from tests.border.flooder import Flooded, Kind, Plan, flooding
from tests.border.new_layout import NEW
from tests.border.world import NODE, World, world

pytestmark = pytest.mark.live
SECONDS = 1.0
QUOTA = NodeQuotaConfig(bytes_per_s=400_000.0, spans_per_s=2.0, questions_per_s=5.0)
"""Small enough for a flood of a second to be over it."""


def is_bounded(kind: Kind, flooded: Flooded) -> bool:
    """Return whether the flooding node was served up to its quota, and told of it."""
    if kind is Kind.CONNECTS:
        return flooded.taken > 0
    if kind is Kind.CREDENTIALS:
        return flooded.refused > 0 and flooded.taken == 0
    return flooded.taken > 0 and flooded.asked_to_wait > 0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[World]:
    """A server under the product's layout, answered by the product."""
    async with world(NEW, tmp_path, links=True, quota=QUOTA) as made:
        yield made


@pytest.mark.parametrize("kind", Kind)
async def test_others_are_served_while_one_floods(kind: Kind, place: World) -> None:
    """The gateway writes, another node, a device and a subscriber are answered; the flood is bounded and told so."""
    plan = Plan(kind, place.kept.port, NODE, place.secrets[NODE], SECONDS)
    rounds = 0
    async with flooding(plan) as flood:
        while not flood.done():
            assert not await place.served()
            rounds += 1
        flooded: Flooded = await flood
    assert rounds > 2
    assert is_bounded(kind, flooded), flooded
    assert not place.ended()
