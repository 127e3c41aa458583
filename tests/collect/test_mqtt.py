"""Foreign brokers: Mosquitto, MQTT 3.1.1 and 5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import pytest

from sensegate.clock import FakeClock, SystemClock
from sensegate.collect import mqtt
from sensegate.collect.front import codec
from sensegate.collect.front.packets import PacketType
from sensegate.collect.mqtt import MqttSource
from sensegate.config import ExternalBrokerConfig, IngestConfig
from sensegate.errors import Unavailable
from sensegate.model import Message
from tests.collect.device import Device
from tests.collect.mosquitto import Mosquitto

pytestmark = pytest.mark.live

DEADLINE_S = 60.0
Version = Literal["3.1.1", "5"]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """A Mosquitto of its own."""
    async with Mosquitto(tmp_path) as broker:
        yield broker


def source_of(broker: Mosquitto, *, version: Version = "3.1.1", inflight_max: int = 5_000, port: int = 0) -> MqttSource:
    """A source on that broker."""
    config = ExternalBrokerConfig(
        name="vendor",
        host="127.0.0.1",
        port=port or broker.port,
        version=version,
        topics=("a/#",),
        inflight_max=inflight_max,
    )
    return MqttSource(config, IngestConfig(), SystemClock(), jitter=lambda: 0.1)


async def take(source: MqttSource, count: int, *, ack: bool = False) -> list[Message]:
    """Return at least `count` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries()) as arriving:  # type: ignore[type-var]
        async for delivery in arriving:
            messages += delivery.messages
            if ack:
                await delivery.ack()
            if len(messages) >= count:
                break
    return messages


async def connected(source: MqttSource) -> None:
    """Wait until it has subscribed."""
    async with asyncio.timeout(DEADLINE_S):
        await source.connected.wait()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_the_session_survives_the_broker(broker: Mosquitto, version: Version) -> None:
    """The broker goes away and comes back: the source connects by itself; what it had not acknowledged comes again."""
    source = source_of(broker, version=version)
    await source.start(None)
    await connected(source)
    await broker.publish([("a/1", b"%d" % n) for n in range(5)])
    async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries()) as arriving:  # type: ignore[type-var]
        delivery = await anext(arriving)
        await broker.kill()
        while source.connected.is_set():
            await asyncio.sleep(0.01)
        await broker.start()
        await connected(source)
        await delivery.ack()  # of the connection before: it must not acknowledge anything here
    repeated = await take(source, 5, ack=True)
    assert [message.payload for message in repeated[-5:]] == [b"%d" % n for n in range(5)]
    await source.stop()


async def test_at_most_inflight_max_are_held(broker: Mosquitto) -> None:
    """With 3.1.1 reading stops at the limit and goes on after acknowledgements; nothing is lost."""
    source = source_of(broker, inflight_max=10)
    await source.start(None)
    await connected(source)
    await broker.publish([("a/1", b"%d" % n) for n in range(300)])
    async with asyncio.timeout(DEADLINE_S):
        while source._unacknowledged < 10:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert source._unacknowledged <= 11
    messages = await take(source, 300, ack=True)
    assert [message.payload for message in messages] == [b"%d" % n for n in range(300)]
    await source.stop()


async def test_qos_0_is_marked_and_not_acknowledged(broker: Mosquitto) -> None:
    """What the publisher sent at QoS 0 has no PUBACK and is marked best effort."""
    source = source_of(broker)
    await source.start(None)
    await connected(source)
    await broker.publish([("a/1", b"x")], qos=0)
    (message,) = await take(source, 1, ack=True)
    assert message.best_effort
    await source.stop()


async def test_a_command_goes_to_the_broker_that_a_device_is_on(broker: Mosquitto) -> None:
    """It is published there; a broker whose topics are others is not the one, one that is away says so."""
    source = source_of(broker)
    assert source.reaches("a/NDATA/1")
    assert not source.reaches("b/NDATA/1")
    with pytest.raises(Unavailable, match="not connected"):
        await source.send("a/NCMD/1", b"rebirth")
    await source.start(None)
    await connected(source)
    await source.send("a/NCMD/1", b"rebirth")
    (message,) = await take(source, 1, ack=True)  # it subscribes to what it publishes here
    assert (message.topic, message.payload) == ("a/NCMD/1", b"rebirth")
    await source.stop()


async def test_a_broker_that_is_not_there_is_tried_with_growing_jittered_waits(broker: Mosquitto) -> None:
    """Each wait is a random part of a time that doubles up to `backoff_max_s`."""
    await broker.kill()
    parts: list[float] = []

    def jitter() -> float:
        parts.append(1.0)
        return 1.0

    clock = FakeClock()
    config = ExternalBrokerConfig(name="vendor", host="127.0.0.1", port=broker.port, backoff_max_s=4.0)
    source = MqttSource(config, IngestConfig(), clock, jitter=jitter)
    await source.start(None)
    waits: list[float] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(waits) < 5:
            if clock._sleepers:
                waits.append((clock._sleepers[0][0] - clock.now()) / 1e6)
                await clock.advance(waits[-1])
            await asyncio.sleep(0.005)
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0]
    await source.stop()


async def test_a_password_that_cannot_be_read_now_is_read_later(broker: Mosquitto, tmp_path: Path) -> None:
    """While its file is being replaced the source goes on trying: its end would be seen by nobody."""
    file = tmp_path / "password"
    config = ExternalBrokerConfig(
        name="vendor", host="127.0.0.1", port=broker.port, username="us", password_file=str(file), topics=("a/#",)
    )
    refused = asyncio.Event()

    def jitter() -> float:
        refused.set()
        return 0.1

    source = MqttSource(config, IngestConfig(), SystemClock(), jitter=jitter)
    await source.start(None)
    async with asyncio.timeout(DEADLINE_S):
        await refused.wait()
    file.write_text("secret", encoding="ascii")
    await connected(source)
    await source.stop()


async def test_a_topic_that_is_not_utf8_is_given_and_settled() -> None:
    """It would hold its place in the session for ever: it comes with its bytes visible, and its PUBACK is sent."""
    acknowledged = asyncio.Event()

    async def odd_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x02\x00\x00")
        subscribe = await reader.read(1_000)
        writer.write(b"\x90\x03" + subscribe[2:4] + b"\x01" + b"\x32\x08\x00\x03a/\xff\x00\x07x")
        if await reader.readexactly(4) == b"\x40\x02\x00\x07":
            acknowledged.set()
        writer.close()

    server = await asyncio.start_server(odd_broker, "127.0.0.1", 0)
    config = ExternalBrokerConfig(
        name="odd", host="127.0.0.1", port=server.sockets[0].getsockname()[1], topics=("a/#",)
    )
    source = MqttSource(config, IngestConfig(), SystemClock())
    await source.start(None)
    (message,) = await take(source, 1, ack=True)
    assert (message.topic, message.payload) == ("a/\\xff", b"x")
    async with asyncio.timeout(DEADLINE_S):
        await acknowledged.wait()
    await source.stop()
    server.close()


async def test_messages_are_held_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand messages of any size would be the memory of the process; reading goes on as they are committed."""
    monkeypatch.setattr(mqtt, "INFLIGHT_BYTES_MAX", 500_000, raising=False)
    done = asyncio.Event()

    async def generous_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x02\x00\x00")
        subscribe = await reader.read(1_000)
        writer.write(b"\x90\x03" + subscribe[2:4] + b"\x01")
        for number in range(1, 41):
            body = b"\x00\x03a/1" + number.to_bytes(2) + b"%06d" % number + bytes(100_000)
            writer.write(codec.frame(PacketType.PUBLISH, body, 2))
        while await reader.read(1_000):
            pass
        writer.close()
        await writer.wait_closed()
        done.set()

    server = await asyncio.start_server(generous_broker, "127.0.0.1", 0)
    config = ExternalBrokerConfig(
        name="generous", host="127.0.0.1", port=server.sockets[0].getsockname()[1], topics=("a/#",)
    )
    source = MqttSource(config, IngestConfig(), SystemClock())
    await source.start(None)
    async with asyncio.timeout(DEADLINE_S):
        while source._unacknowledged < 5:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert source._unacknowledged <= 6
    messages = await take(source, 40, ack=True)
    assert [int(message.payload[:6]) for message in messages] == list(range(1, 41))
    await source.stop()
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
    server.close()


async def test_throughput_is_not_one_at_a_time(broker: Mosquitto) -> None:
    """A thousand messages come in deliveries of many, in order."""
    source = source_of(broker)
    await source.start(None)
    await connected(source)
    async with Device(("127.0.0.1", broker.port), "device", "x", "y") as device:
        await device.publish([("a/1", b"%d" % n) for n in range(1_000)])
    messages = await take(source, 1_000, ack=True)
    assert [int(message.payload) for message in messages] == list(range(1_000))
    await source.stop()
