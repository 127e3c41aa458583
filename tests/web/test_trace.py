"""The trace of a reading tells of consumers no more than their own list does."""

from __future__ import annotations

from sensegate.authority.scope import Role
from sensegate.bus import columns
from sensegate.model import LogMessage
from tests.share.made import make_batch
from tests.web.serving import serving


async def test_deliveries_are_those_that_the_caller_may_see() -> None:
    """Whoever may read the ledger of a part only is not told who reads what elsewhere."""
    async with serving() as gateway:
        batch = make_batch([(0, "pm2_5", 1.0)])
        sequence = await gateway.log.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])
        consumers = gateway.web.deps.consumers
        consumers.add("stranger", "all", "sse").offset = gateway.reader.after(sequence, 0)
        name = f"4401-0-{sequence:014d}-0"
        for where, expected in (("44", 1), (batch.origins.division[0], 0)):
            token = await gateway.token(Role.AUDITOR, where)
            _, body, _ = await gateway.ask("GET", f"/api/v1/trace?record={name}", token, expect=200)
            deliveries = [step for step in body["steps"] if step["step"] == "delivery"]
            assert len(deliveries) == expected
