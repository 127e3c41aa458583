"""What goes back to a node, and only once a standby has it, too."""

from __future__ import annotations

from typing import cast

import msgspec

from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.failover.replica import ReplicatedLog, ReplicationSource
from sensegate.model import LogMessage
from sensegate.tiers.return_flow import ReturnFlow, ReturnRequest
from tests.share.made import NOW
from tests.tiers.made import batch_of


class Confirmed:
    """How far the standby has come."""

    end = 0

    def high_watermark(self, last: int) -> int:
        return min(last, self.end)


def row(device: int, clock: FakeClock) -> LogMessage:
    return LogMessage("readings.4401.440106.1", columns.encode(batch_of(device, 2, clock.now())), 168)


async def test_nothing_goes_back_that_the_standby_does_not_have() -> None:
    """What it lacks may stand under another number after a fail-over: the node would never ask for it."""
    clock = FakeClock(NOW)
    log, confirmed = MemoryLog(clock, epoch="e1"), Confirmed()
    first = await log.write([row(0, clock)])
    await log.write([row(1, clock)])
    confirmed.end = first
    returns = ReturnFlow(log, grade_max=3)
    assert len((await returns.part("4401", ReturnRequest())).entries) == 2, "negative control: the log as it is"
    returns = ReturnFlow(ReplicatedLog(log, cast("ReplicationSource", confirmed), clock), grade_max=3)
    part = await returns.part("4401", ReturnRequest())
    assert (len(part.entries), part.until) == (1, first)
    repeated = await returns.part("4401", ReturnRequest("e1", part.until))
    assert (repeated.entries, repeated.until) == ((), first)
    confirmed.end = first + 1
    rest = await returns.part("4401", ReturnRequest("e1", part.until))
    assert [msgspec.structs.replace(entry, payload=b"").kind for entry in rest.entries] == ["readings"]
    assert rest.until == first + 1
