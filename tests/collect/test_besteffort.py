"""QoS 0 from the core subject: a loss class of its own."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from sensegate import metrics
from sensegate.bus.engine import Engine, Role
from sensegate.clock import SystemClock
from sensegate.collect.besteffort import BestEffortSource
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
    client = await engine.connect(Role.FEEDS)
    source = BestEffortSource(client, ["meter/+/raw"], IngestConfig(), SystemClock())
    await source.start(None)
    await client.flush()
    credential = engine.credential(Role.FEEDS)
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


async def test_what_does_not_fit_is_dropped_and_counted(engine: Engine) -> None:
    """At most `depth_messages_max` wait; the next ones move the counter."""
    client = await engine.connect(Role.FEEDS)
    source = BestEffortSource(client, ["#"], IngestConfig(depth_messages_max=3), SystemClock())
    await source.start(None)
    await client.flush()
    limited = metrics.LIMITED.labels("qos0")._value
    before = limited.get()
    for number in range(5):
        await client.publish("a.b", b"%d" % number, headers={"Nmqtt-Pub": "0"})
    async with asyncio.timeout(10):
        while limited.get() < before + 2:
            await asyncio.sleep(0.01)
    assert [message.payload for message in await take(source, 3)] == [b"0", b"1", b"2"]
    await source.stop()
    await client.close()
