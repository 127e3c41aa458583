"""Kills over the border: the plan, and the control that a lie that is taken is seen. `make soak` has 300 kills."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.border.campaign import AT_CENTRES, AT_NODES, KILLS, NODES, BorderCampaign, rounds
from tests.border.removals import REMOVALS
from tests.ledger.controls import patched
from tests.ledger.kills import Target, plan
from tests.ledger.soak import say

SEED = 20261201
soak = pytest.mark.skipif("SENSEGATE_SOAK" not in os.environ, reason="in `make soak`")


def test_rounds_are_repeated_by_their_seed() -> None:
    """Every kill of a round is at another site, each target has its share, and the same seed gives the same rounds."""
    planned = rounds(SEED, KILLS)
    assert planned == rounds(SEED, KILLS)
    assert planned != rounds(SEED + 1, KILLS)
    assert len(list(chain.from_iterable(planned))) == KILLS
    for group in planned:
        assert len(group) == 1 or [kill.node for kill in group] == list(NODES)
        assert all(kill.target in (AT_CENTRES if len(group) == 1 else AT_NODES) for kill in group)
    counts = Counter(kill.target for kill in chain.from_iterable(planned))
    assert counts.keys() == {*AT_NODES, *AT_CENTRES}
    assert min(counts.values()) >= KILLS // 30


@soak
@pytest.mark.live
@pytest.mark.slow
async def test_control_a_lie_that_is_taken_is_seen(tmp_path: Path) -> None:
    """Without the check of who owns a device, the judge has readings that no device sent, and the raider says so."""
    environment = patched(REMOVALS["foreign-device"], tmp_path)
    planned = [[kill] for kill in plan(SEED, 6, least=0, targets=[Target.CENTRE_GATEWAY], nodes=NODES[:1])]
    campaign = BorderCampaign(
        tmp_path / "city",
        planned,
        seed=SEED,
        nodes=NODES[:1],
        paired=False,
        environment=environment,
        until_guilty=True,
        say=say,
    )
    report = await campaign.run()
    say(f"{report.table()}\n{campaign.raider}")
    assert report.of("phantom") > 0
    assert any("another's device" in lie for lie in campaign.raider.wrong)
