"""The link between the tiers is cut under load: the node goes on, live comes before backlog, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sensegate.web.client import GatewayClient
from tests.ledger.kills import RECOVERY_S, Campaign, Report
from tests.ledger.soak import say

CUT_S = float(os.environ.get("SENSEGATE_CUT_S", "10"))
"""`make soak` cuts for 60 s."""
NODE = "4403"
"""The only node, so that all the load is behind the link."""
RATE = 300.0
FEED = "/api/v1/feeds/all/records"


class Cut(Campaign):
    """One long cut instead of kills."""

    live_s: float
    """From the mending to the first reading at the centre that was sent after it."""
    behind_then: int
    """Messages that the centre had not yet got at that moment: the backlog."""
    node_went_on: int
    """Messages that the node's own subscriber got while the link was cut."""
    cursor: str
    first: int
    """Records up to the cursor."""

    async def run_cut(self, seconds: float) -> Report:
        """Cut the node off for a while; return the report of the whole."""
        node = NODE
        began = time.monotonic()
        self.proof.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.city.start()
            await self._set_up()
            async with GatewayClient(self.city.centre.url, self.city.centre.token) as centre:
                page = await centre.get(FEED, limit=10)
                self.cursor, self.first = page["next"], len(page["records"])
            link = self.city.links[node]
            before = self._judge.status["taps"][node]["matched"]
            await link.cut()
            await asyncio.sleep(seconds)
            self.node_went_on = self._judge.status["taps"][node]["matched"] - before
            link.restore()
            at = time.time_ns() // 1000
            mended = time.monotonic()

            def fresh(now: dict[str, Any]) -> bool:
                return bool(now["taps"]["centre"]["by_node"].get(node, 0) > at)

            await self._judge.until(fresh, RECOVERY_S)
            self.live_s = time.monotonic() - mended
            self.behind_then = int(self._judge.status["taps"]["centre"]["outstanding"])
            report = await self._finish(began)
            await self._resume()
            return report
        finally:
            for worker in (self._simulator, self._judge):
                await worker.stop()
            await self.city.stop()

    async def _resume(self) -> None:
        """Read on from the cursor that was given out before the cut, to the end."""
        self.resumed = 0
        async with GatewayClient(self.city.centre.url, self.city.centre.token) as centre:
            while (page := await centre.get(FEED, after=self.cursor, limit=5_000))["records"]:
                self.resumed += len(page["records"])
                self.cursor = page["next"]


@pytest.mark.live
@pytest.mark.slow
async def test_a_cut_link_delays_and_loses_nothing(tmp_path: Path) -> None:
    """While cut, the node serves its own; after it live readings overtake the backlog, and old cursors resume."""
    campaign = Cut(tmp_path, [], seed=7, nodes=(NODE,), rate=RATE)
    report = await campaign.run_cut(CUT_S)
    say(
        f"cut {CUT_S:g} s: the node's subscriber got {campaign.node_went_on:,} messages meanwhile; first live reading "
        f"at the centre {campaign.live_s:.2f} s after the mending, {campaign.behind_then:,} messages still behind"
    )
    say(report.table())
    assert report.good, report.table()
    assert campaign.node_went_on > RATE * CUT_S / 2
    assert campaign.behind_then > 0
    if "SENSEGATE_SOAK" in os.environ:  # a time holds on a quiet machine only
        assert campaign.live_s < 2
    assert campaign.resumed == report.totals["44"]["forwarded"] - campaign.first
