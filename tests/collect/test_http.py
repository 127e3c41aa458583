"""Pushed messages: the answer follows the commit."""

from __future__ import annotations

import asyncio

import pytest

from sensegate.clock import FakeClock
from sensegate.collect.http import HttpSource
from sensegate.config import IngestConfig
from sensegate.errors import Overloaded, Rejected, Unavailable

LIMITS = IngestConfig(message_bytes_max=100, depth_messages_max=2)


async def test_push_returns_after_the_acknowledgement() -> None:
    """Not when the message was taken: when its delivery was acknowledged. The device is the principal."""
    source = HttpSource(LIMITS, FakeClock())
    await source.start(None)
    push = asyncio.create_task(source.push("d1", b"{}"))
    delivery = await anext(source.deliveries())
    await asyncio.sleep(0)
    assert not push.done()
    assert (delivery.messages[0].topic, delivery.messages[0].principal) == ("http/d1", "d1")
    await delivery.ack()
    await push


async def test_limits_refuse_before_anything_is_taken() -> None:
    """A full queue, a large body and an unknown content type are refused; what waits is unharmed."""
    source = HttpSource(LIMITS, FakeClock())
    await source.start(None)
    pushes = [asyncio.create_task(source.push("d1", b"{}")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await source.push("d1", b"{}")
    with pytest.raises(Rejected, match="too_large"):
        await source.push("d1", b"x" * 101)
    with pytest.raises(Rejected, match="content_type"):
        await source.push("d1", b"{}", "image/png")
    delivery = await anext(source.deliveries())
    assert len(delivery.messages) == 2
    await delivery.ack()
    await asyncio.gather(*pushes)


async def test_no_commit_in_time_is_an_unknown_outcome() -> None:
    """The device is told to send again; the message may still be committed."""
    source = HttpSource(LIMITS, FakeClock(), timeout_s=0.01)
    await source.start(None)
    with pytest.raises(Unavailable, match="unknown"):
        await source.push("d1", b"{}")
    delivery = await anext(source.deliveries())
    await delivery.ack()
