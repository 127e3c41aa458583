"""Silence is counted from what was heard, whatever a connection says; the lag rises while nobody answers."""

from __future__ import annotations

import asyncio

from sensegate import metrics
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.model import LogMessage
from sensegate.tiers.liveness import SILENT_S, Liveness, UplinkLag
from sensegate.tiers.node_states import LinkState, NodeMonitor, NodeStatus


async def status(clock: FakeClock, liveness: Liveness | None, *, connected: bool) -> NodeStatus:
    """Return the status of a node as its monitor sees it."""

    async def connections() -> set[str]:
        return {"4401"} if connected else set()

    monitor = NodeMonitor(MemoryLog(clock), lambda: ["4401"], connections, clock, liveness=liveness)
    return await monitor._status_of("4401", is_connected="4401" in await connections())


async def test_a_connected_node_that_says_nothing_is_silent() -> None:
    """A connection is no sign of life; without a count of what was heard it would be (the control)."""
    clock = FakeClock()
    liveness = Liveness(clock)
    assert (await status(clock, liveness, connected=True)).state is LinkState.UP, "a process that has just begun waits"
    await clock.advance(SILENT_S + 1)
    silent = await status(clock, liveness, connected=True)
    assert silent.state is LinkState.SILENT
    assert "hangs, or the link is half-open" in silent.silence
    assert (await status(clock, None, connected=True)).state is LinkState.UP
    liveness.note("4401")
    assert (await status(clock, liveness, connected=True)).state is LinkState.UP
    assert (await status(clock, liveness, connected=False)).state is LinkState.NEVER


async def test_the_lag_rises_while_the_centre_is_away(fake_clock: FakeClock) -> None:
    """It stands still while the centre answers, for it is then set exactly."""
    log = MemoryLog(fake_clock)
    lag = UplinkLag(log, fake_clock)
    connected = True
    task = asyncio.create_task(lag.run(lambda: connected))
    shown = metrics.UPLINK_LAG._value.get
    lag.set(position=0, unsent=0, backlog=3)
    values = []
    for turn in range(6):
        connected = turn == 0
        await log.write([LogMessage("raw.4401", b"x", 1), LogMessage("raw.4401", b"y", 1)])
        await fake_clock.advance(1.0)
        values.append(shown())
    assert values == [3, 7, 9, 11, 13, 15]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
