"""Durable consumers by their raw API."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from sensegate.bus import consumer
from sensegate.bus.streams import INTAKE
from sensegate.errors import EngineError, NotFound

WANTED = {
    "durable_name": "gateway",
    "deliver_subject": "deliver",
    "ack_policy": "all",
    "ack_wait": 30_000_000_000,
    "max_ack_pending": 1000,
}


async def test_a_consumer_is_made_once_and_kept(intake: Client) -> None:
    """Asking again changes nothing; its place in the stream is its own."""
    made = await consumer.ensure(intake, INTAKE, WANTED)
    assert await consumer.ensure(intake, INTAKE, WANTED) == made
    assert made.name == "gateway"


async def test_what_may_change_changes(intake: Client) -> None:
    """The ceiling follows the configuration; the rest stays."""
    await consumer.ensure(intake, INTAKE, WANTED)
    changed = await consumer.ensure(intake, INTAKE, {**WANTED, "max_ack_pending": 65_536})
    assert changed.config["max_ack_pending"] == 65_536
    assert changed.config["ack_policy"] == "all"


async def test_what_may_not_change_is_said(intake: Client) -> None:
    """A consumer of another kind is not silently replaced: it holds the place of the intake."""
    await consumer.ensure(intake, INTAKE, WANTED)
    with pytest.raises(EngineError):
        await consumer.ensure(intake, INTAKE, {**WANTED, "ack_policy": "none"})
    assert (await consumer.status(intake, INTAKE, "gateway")).config["ack_policy"] == "all"


async def test_an_absent_consumer_is_not_found(intake: Client) -> None:
    """Deleting what is not there is fine."""
    with pytest.raises(NotFound):
        await consumer.status(intake, INTAKE, "nobody")
    await consumer.delete(intake, INTAKE, "nobody")
    await consumer.ensure(intake, INTAKE, WANTED)
    await consumer.delete(intake, INTAKE, "gateway")
    with pytest.raises(NotFound):
        await consumer.status(intake, INTAKE, "gateway")
