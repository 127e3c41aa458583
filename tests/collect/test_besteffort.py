"""QoS 0 from the core subject: a loss class of its own."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from sensegate import metrics
from sensegate.bus.engine import Engine, User
from sensegate.clock import SystemClock
from sensegate.collect.besteffort import BestEffortSource, _grouped, _matches
from sensegate.config import IngestConfig
from sensegate.model import Message
from tests.collect.device import Device


async def take(source: BestEffortSource, count: int) -> list[Message]:
    """Return at least `count` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(10), aclosing(source.deliveries()) as arriving:  # type: ignore[type-var]
        async for delivery in arriving:
            assert delivery.position is None
            await delivery.ack()
            messages += delivery.messages
            if len(messages) >= count:
                break
    return messages


async def test_only_qos_0_of_the_topics_handed_in(engine: Engine) -> None:
    """Copies of QoS 1 messages and other topics pass by; what is taken is marked best effort."""
    client = await engine.connect(User.FEEDS)
    source = BestEffortSource(client, ["meter/+/raw"], IngestConfig(), SystemClock())
    await source.start(None)
    await client.flush()
    credential = engine.credential(User.FEEDS)
    async with Device(
        (engine.info.mqtt_host, engine.info.mqtt_port), "q0", credential.user, credential.password
    ) as device:
        await device.publish_qos0("meter/7/raw", b"a")
        await device.publish_qos0("other/7/raw", b"no")
        await device.publish([("meter/7/raw", b"qos 1 copy")])
        await device.publish_qos0("meter/8/raw", b"b")
        messages = await take(source, 2)
    assert [(m.topic, m.payload, m.best_effort) for m in messages] == [
        ("meter/7/raw", b"a", True),
        ("meter/8/raw", b"b", True),
    ]
    await source.stop()
    await client.close()


async def test_other_topics_while_it_runs(engine: Engine) -> None:
    """A release that names other topics is heard without a restart; what both name is never taken twice."""
    client = await engine.connect(User.FEEDS)
    source = BestEffortSource(client, ["meter/+/raw"], IngestConfig(), SystemClock())
    await source.start(None)
    await client.flush()
    credential = engine.credential(User.FEEDS)
    address = (engine.info.mqtt_host, engine.info.mqtt_port)
    async with Device(address, "q0", credential.user, credential.password) as device:
        source.subscribe(["meter/+/raw", "lamp/+/raw"])
        source.subscribe(["lamp/+/raw", "meter/7/raw"])
        assert source._resubscribing is not None
        await source._resubscribing
        await client.flush()
        for topic in ("meter/7/raw", "lamp/1/raw", "meter/8/raw", "lamp/2/raw"):
            await device.publish_qos0(topic, topic.encode())
        messages = await take(source, 3)
    assert [message.topic for message in messages] == ["meter/7/raw", "lamp/1/raw", "lamp/2/raw"]
    source.subscribe([])
    await source.stop()
    assert source._subscriptions == {}
    await client.close()


async def test_order_holds_across_topics_that_begin_alike(engine: Engine) -> None:
    """A birth comes before what follows it under another topic; what is not wanted of the same beginning is passed."""
    client = await engine.connect(User.FEEDS)
    kinds = ["NBIRTH", "DBIRTH", "NDATA", "DDATA"]
    source = BestEffortSource(client, [f"sp/+/{kind}/+" for kind in kinds], IngestConfig(), SystemClock())
    await source.start(None)
    await client.flush()
    credential = engine.credential(User.FEEDS)
    sent = [(f"sp/g/{kinds[at % 4]}/n{at % 3}", b"%d" % at) for at in range(400)]
    async with Device(
        (engine.info.mqtt_host, engine.info.mqtt_port), "q0", credential.user, credential.password
    ) as device:
        for at, (topic, payload) in enumerate(sent):
            await device.publish_qos0(topic, payload)
            if at % 50 == 0:
                await device.publish_qos0("sp/g/STATE/n1", b"no")
        messages = await take(source, len(sent))
    assert [(message.topic, message.payload) for message in messages] == sent
    await source.stop()
    await client.close()


MATCHES = [
    ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.*", "a.b", True), ("a.*", "a.b.c", False), ("a.>", "a.b.c", True),
    ("a.>", "a", False), (">", "a", True), ("*.b", "a.b", True), ("a.*.c", "a.b.d", False),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "subject", "does"), MATCHES)
def test_subjects_match_as_the_server_matches_them(wanted: str, subject: str, does: bool) -> None:  # noqa: FBT001
    """One token, or all that are left."""
    assert _matches(wanted, subject) is does


def test_topics_that_begin_alike_share_a_subscription() -> None:
    """Others keep their own."""
    assert _grouped(["a", "a.b", "a.*.c", "b.c", "*.x", "*.y"]) == ["*.x", "*.y", "a", "a.>", "b.c"]


async def test_what_does_not_fit_is_dropped_and_counted(engine: Engine) -> None:
    """At most `depth_messages_max` wait; the next ones move the counter."""
    client = await engine.connect(User.FEEDS)
    source = BestEffortSource(client, ["#"], IngestConfig(depth_messages_max=3), SystemClock())
    await source.start(None)
    await client.flush()
    limited = metrics.LIMIT_HITS.labels("qos0")._value
    before = limited.get()
    for number in range(5):
        await client.publish("a.b", b"%d" % number, headers={"Nmqtt-Pub": "0"})
    async with asyncio.timeout(10):
        while limited.get() < before + 2:
            await asyncio.sleep(0.01)
    assert [message.payload for message in await take(source, 3)] == [b"0", b"1", b"2"]
    await source.stop()
    await client.close()
