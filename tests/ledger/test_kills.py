from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.border.campaign import BorderCampaign
from tests.ledger.kills import KILLED, LEAST, plan
from tests.ledger.soak import say

SEED = int(os.environ.get("SENSEGATE_SEED", "20260101"))
KILLS, EACH = 6, 1
NODES = ("4401", "4404")
"""A short campaign, each target once; `make soak` has 300 kills."""
RATE = 50.0
"""Messages a second between the bursts: enough to see a recovery by."""


def test_a_plan_is_repeated_by_its_seed() -> None:
    """The same seed kills the same targets at the same moments; each target gets its share."""
    kills = plan(SEED, KILLS, least=EACH)
    assert kills == plan(SEED, KILLS, least=EACH)
    assert kills != plan(SEED + 1, KILLS, least=EACH)
    assert min(Counter(kill.target for kill in kills).values()) >= EACH
    assert {kill.target for kill in kills} == set(KILLED)


@pytest.mark.live
@pytest.mark.slow
async def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """Kill anything at any time, 1,000 messages uncommitted: every subscriber gets each reading once.

    A hostile node lies and raids beside the honest ones all the while; nothing of it is taken.
    """
    planned = [[kill] for kill in plan(SEED, KILLS, least=EACH, nodes=NODES)]
    campaign = BorderCampaign(tmp_path, planned, seed=SEED, nodes=NODES, paired=False, rate=RATE, say=say)
    report = await campaign.run()
    say(f"{report.table()}\n{campaign.raider}")
    assert report.good, report.table()
    assert campaign.raider.refused
    assert not campaign.raider.wrong
    assert len(report.done) == KILLS
    assert all(max(done.uncommitted, done.unacknowledged) >= LEAST for done in report.done)
    assert min(Counter(done.kill.target for done in report.done).values()) >= EACH
    assert report.of("lost") == report.of("doubled") == report.of("disordered") == 0
