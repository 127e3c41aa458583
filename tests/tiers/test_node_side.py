"""The node's tasks beside the lanes: what a centre answers ends neither the connection nor the process."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import StoreConfig
from sensegate.errors import ConfigError, NotFound, Overloaded, Unavailable
from sensegate.tiers.node_side import NodeParts, NodeSide
from sensegate.tiers.report import ReportReply
from sensegate.tiers.return_flow import ReturnPart
from sensegate.tiers.return_receiver import ReturnReceiver
from tests.share.made import NOW
from tests.support.clocks import InstantClock

FAULTS = (
    ConfigError("for another node", key="division"),
    NotFound("no such part"),
    Overloaded("the trail is busy"),
    Unavailable("away"),
    ValueError("not a record"),
    RecursionError("too deep"),
)


def _side(**parts: object) -> NodeSide:
    made = SimpleNamespace(config=None, clock=InstantClock(NOW), connection=None, **parts)
    return NodeSide(cast("NodeParts", made))


async def test_a_task_beside_the_lanes_is_restarted_after_any_answer() -> None:
    """Only its cancellation ends it."""
    faults = [*FAULTS, asyncio.CancelledError()]

    async def work() -> None:
        raise faults.pop(0)

    with pytest.raises(asyncio.CancelledError):
        await _side()._run_beside("work", work)
    assert faults == []


async def test_decisions_that_cannot_be_applied_are_asked_for_again() -> None:
    """Whatever the reason; the next reply announces them anew."""
    faults = [*FAULTS, asyncio.CancelledError()]

    async def fail(*_: object) -> None:
        raise faults.pop(0)

    async def next_reply() -> ReportReply:
        return ReportReply("1.0", NOW, orders="m:give")

    side = _side(reporter=SimpleNamespace(next_reply=next_reply), mover=SimpleNamespace(run_orders=fail))
    with pytest.raises(asyncio.CancelledError):
        await side._apply_decisions()
    assert faults == []


async def test_returned_rows_of_another_node_end_nothing() -> None:
    """They are not taken, and the next part is asked for later."""
    log = MemoryLog(FakeClock(NOW), epoch="e1")
    receiver = ReturnReceiver("4401", log, InstantClock(NOW), StoreConfig())
    answers = [ReturnPart("4403", "c", 0, 9), ReturnPart("4401", "c", 0, 7)]

    async def ask(_question: str, _payload: bytes) -> bytes:
        if not answers:
            raise asyncio.CancelledError
        return msgspec.msgpack.encode(answers.pop(0))

    with pytest.raises(asyncio.CancelledError):
        await receiver.run(ask)
    position = await receiver.position()
    assert (position.log_epoch, position.position) == ("c", 7)
