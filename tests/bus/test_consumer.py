"""Durable consumers by their raw API."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from sensegate.bus import consumer
from sensegate.bus.streams import MQTT_MESSAGES
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
    made = await consumer.ensure(intake, MQTT_MESSAGES, WANTED)
    assert await consumer.ensure(intake, MQTT_MESSAGES, WANTED) == made
    assert made.name == "gateway"


async def test_what_may_change_changes(intake: Client) -> None:
    """The ceiling follows the configuration; the rest stays."""
    await consumer.ensure(intake, MQTT_MESSAGES, WANTED)
    changed = await consumer.ensure(intake, MQTT_MESSAGES, {**WANTED, "max_ack_pending": 65_536})
    assert changed.config["max_ack_pending"] == 65_536
    assert changed.config["ack_policy"] == "all"


async def test_what_may_not_change_is_said(intake: Client) -> None:
    """A consumer of another kind is not silently replaced: it holds the place of the intake."""
    await consumer.ensure(intake, MQTT_MESSAGES, WANTED)
    with pytest.raises(EngineError):
        await consumer.ensure(intake, MQTT_MESSAGES, {**WANTED, "ack_policy": "none"})
    assert (await consumer.status(intake, MQTT_MESSAGES, "gateway")).config["ack_policy"] == "all"


async def test_an_absent_consumer_is_not_found(intake: Client) -> None:
    """Deleting what is not there is fine."""
    with pytest.raises(NotFound):
        await consumer.status(intake, MQTT_MESSAGES, "nobody")
    await consumer.delete(intake, MQTT_MESSAGES, "nobody")
    await consumer.ensure(intake, MQTT_MESSAGES, WANTED)
    await consumer.delete(intake, MQTT_MESSAGES, "gateway")
    with pytest.raises(NotFound):
        await consumer.status(intake, MQTT_MESSAGES, "gateway")
