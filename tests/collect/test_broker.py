"""The broker's source against a real nats-server and real MQTT publishes: rules 1 to 3 of the engine, and controls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import consumer, streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import Clock, FakeClock, SystemClock
from sensegate.collect.broker import BrokerSource
from sensegate.config import IngestConfig, StoreConfig
from sensegate.errors import Unavailable
from sensegate.model import Message, SourcePosition
from tests.collect.deliveries import delivery
from tests.collect.device import Device

DEADLINE_S = 30.0
DURABLE = "ingest-0"

Publish = Callable[[int, int], Coroutine[None, None, int]]
Make = Callable[..., Awaitable[BrokerSource]]


@pytest.fixture
async def devices(engine: Engine, store_config: StoreConfig) -> AsyncIterator[Client]:
    """A connection in an account whose user may also publish by MQTT; the broker's streams are made."""
    client = await engine.connect(User.FEEDS)
    await streams.ensure_intake(client, store_config)
    yield client
    await client.close()


@pytest.fixture
async def make(engine: Engine) -> AsyncIterator[Make]:
    """Makes a source on a connection of its own, as each process has one."""
    made: list[tuple[Client, BrokerSource]] = []

    async def one(limits: IngestConfig | None = None, clock: Clock | None = None) -> BrokerSource:
        client = await engine.connect(User.FEEDS)
        made.append((client, BrokerSource(client, limits or IngestConfig(), clock or SystemClock())))
        return made[-1][1]

    yield one
    for client, source in made:
        await source.stop()
        await client.close()


@pytest.fixture
def publish(engine: Engine) -> Publish:
    """Publishes numbered payloads by MQTT at QoS 1; returns the count of PUBACKs, also when the server dies."""

    async def numbered(first: int, last: int) -> int:
        credential = engine.credential(User.FEEDS)
        while True:
            device = Device(
                (engine.info.mqtt_host, engine.info.mqtt_port),
                f"d{first}",
                credential.user,
                credential.password,
                window=200,
            )
            try:
                async with device:
                    await device.publish([(f"sg/d{n % 7}/up", b"%d" % n) for n in range(first, last + 1)])
            except (ConnectionError, asyncio.IncompleteReadError):
                if not device.acknowledged:
                    await asyncio.sleep(0.02)  # the server is not back yet
                    continue
            return device.acknowledged

    return numbered


async def take(source: BrokerSource, count: int, *, ack: bool = False) -> list[Message]:
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


def numbers(messages: list[Message]) -> list[int]:
    """The numbers that were published."""
    return [int(message.payload) for message in messages]


async def test_a_store_that_has_lost_its_end_gives_its_numbers_to_new_messages(
    devices: Client, make: Make, publish: Publish
) -> None:
    """After a power cut the store may number new messages as those that were committed: their arrival tells them."""
    source = await make()
    await source.prepare()
    await publish(1, 3)
    await source.start(None)
    first = await take(source, 3)
    life = source._epoch
    await source.start(SourcePosition(life, first[-1].sequence + 5, first[0].received))
    assert numbers(await take(source, 2)) == [2, 3]
    # Negative control: by the number alone they would be skipped, and acknowledged.
    await source.start(SourcePosition(life, first[-1].sequence + 5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), aclosing(source.deliveries()) as arriving:  # type: ignore[type-var]
            await anext(arriving)


async def test_a_successor_gets_everything_unacknowledged_in_order(
    devices: Client, make: Make, publish: Publish
) -> None:
    """Rule 2: a killed worker's unacknowledged messages come first, then the new ones; none is destroyed."""
    first = await make()
    await first.prepare()
    await publish(1, 10)
    await first.start(None)
    assert numbers(await take(first, 10)) == list(range(1, 11))
    await first._connection.close()  # killed: no stop
    await publish(11, 15)
    second = await make()
    await second.start(None)
    assert numbers(await take(second, 15, ack=True)) == list(range(1, 16))
    await second.start(None)
    await publish(16, 16)
    assert numbers(await take(second, 1)) == [16]


async def test_a_start_while_another_still_listens(devices: Client, make: Make, publish: Publish) -> None:
    """A worker not yet gone has the first message before we listen: the consumer is reset once more, under us."""
    forgotten = await make()
    await forgotten.prepare()
    await publish(1, 50)
    await forgotten.start(None)
    await take(forgotten, 50)
    second = await make()
    await second.start(None)
    assert numbers(await take(second, 50, ack=True)) == list(range(1, 51))
    await publish(51, 52)
    assert numbers(await take(second, 2, ack=True)) == [51, 52]
    with pytest.raises(Unavailable):
        await take(forgotten, 1)


async def test_control_without_reset_the_acknowledged_are_lost(devices: Client, make: Make, publish: Publish) -> None:
    """Negative control of rule 2: a plain consumer gives the new messages first; acknowledging them loses the old."""
    first = await make()
    await first.prepare()
    await publish(1, 10)
    await first.start(None)
    await take(first, 10)
    await first._connection.close()
    await publish(11, 15)
    got: list[Msg] = []
    done = asyncio.Event()

    async def plain(msg: Msg) -> None:
        if msg.reply and not msg.reply.startswith("$JS.FC"):
            got.append(msg)
            await msg.ack()
        if len(got) >= 5:
            done.set()

    await devices.subscribe(f"_SG.deliver.{DURABLE}", cb=plain)
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
    assert [int(msg.data) for msg in got] == [11, 12, 13, 14, 15]
    await devices.flush()
    second = await make()
    await second.start(None)
    await publish(16, 16)
    assert numbers(await take(second, 1)) == [16]  # 1 to 10 are gone, PUBACKed as they were


async def test_control_acknowledging_before_the_commit_loses(devices: Client, make: Make, publish: Publish) -> None:
    """Negative control: what is acknowledged on receipt and not committed when the worker dies never comes again."""
    first = await make()
    await first.prepare()
    await publish(1, 10)
    await first.start(None)
    await take(first, 10, ack=True)  # and dies before its commit
    await first._connection.flush()
    await first._connection.close()
    await publish(11, 11)
    second = await make()
    await second.start(None)
    assert numbers(await take(second, 1)) == [11]


async def test_control_a_capturing_stream_has_not_what_was_acknowledged(
    devices: Client, make: Make, publish: Publish
) -> None:
    """Negative control of rule 1: a stream on the topics misses messages whose PUBACK the device has."""
    capture = {"name": "CAPTURE", "subjects": ["sg.>"], "max_msgs": 50, "discard": "new", "storage": "file"}
    await devices.request("$JS.API.STREAM.CREATE.CAPTURE", json.dumps(capture).encode())
    source = await make()
    await source.prepare()
    assert await publish(1, 100) == 100
    state = json.loads((await devices.request("$JS.API.STREAM.INFO.CAPTURE", b"")).data)["state"]
    assert state["messages"] == 50
    await source.start(None)
    assert numbers(await take(source, 100)) == list(range(1, 101))


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    engine: Engine, devices: Client, make: Make, publish: Publish
) -> None:
    """Rule 2 under `kill -9` of the server: each PUBACKed message is committed exactly once, in order."""
    committed: dict[int, int] = {}
    position: SourcePosition | None = None
    source = await make(IngestConfig(commit_messages_max=300))
    await source.prepare()

    async def ingest() -> None:
        nonlocal position
        while True:
            try:
                await source.start(position)
                async for delivery in source.deliveries():
                    for message in delivery.messages:
                        assert message.sequence not in committed, "given twice"
                        committed[message.sequence] = int(message.payload)
                    position = delivery.position
                    await delivery.ack()
            except Unavailable:
                await asyncio.sleep(0.02)  # as `flow` waits before it starts again

    task = asyncio.create_task(ingest())
    first, acknowledged = 1, 0
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            publishing = asyncio.create_task(publish(first, first + 3_999))
            before = len(committed)
            while len(committed) < before + 500:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.002)
            os.kill(engine.info.pid, signal.SIGKILL)
            owed = set(range(first, first + await publishing))
            acknowledged += len(owed)
            while owed - set(committed.values()):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
            first += 4_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    in_order = [committed[sequence] for sequence in sorted(committed)]
    assert in_order == sorted(set(in_order))
    assert acknowledged >= 1_500


@pytest.mark.parametrize("odd", [delivery(9), delivery(4, delivered=2)], ids=["gap", "redelivery"])
async def test_a_gap_or_a_redelivery_is_lost(devices: Client, make: Make, publish: Publish, odd: bytes) -> None:
    """A gap in the consumer sequence, or a redelivery, ends the deliveries with `Unavailable`; a start repeats all."""
    source = await make()
    await source.prepare()
    await publish(1, 3)
    await source.start(None)
    assert len(await take(source, 3)) == 3
    assert source._subscription
    await source._tap.parse(odd.replace(b" 7 $JS", b" %d $JS" % source._subscription._id))
    with pytest.raises(Unavailable):
        await take(source, 1)
    await source.start(None)
    assert numbers(await take(source, 3)) == [1, 2, 3]


async def test_depth_is_bounded_by_unacknowledged_messages(devices: Client, make: Make, publish: Publish) -> None:
    """At most `depth_messages_max` messages come without an acknowledgement; then the rest."""
    source = await make(IngestConfig(depth_messages_max=100))
    await source.prepare()
    await publish(1, 250)
    await source.start(None)
    async with asyncio.timeout(DEADLINE_S):
        while source._received < 100:
            await asyncio.sleep(0.01)
    assert (await consumer.status(devices, streams.MQTT_MESSAGES, DURABLE)).num_ack_pending == 100
    assert source._received == 100
    assert numbers(await take(source, 250, ack=True)) == list(range(1, 251))


async def test_bytes_are_bounded_by_flow_control(engine: Engine, devices: Client, make: Make, publish: Publish) -> None:
    """What is received and not committed stays below the server's window of 32 MB, and goes on after commits."""
    source = await make()
    await source.prepare()
    payload = b"x" * 400_000
    credential = engine.credential(User.FEEDS)
    async with Device(
        (engine.info.mqtt_host, engine.info.mqtt_port), "big", credential.user, credential.password, window=20
    ) as device:
        await device.publish([("sg/d1/up", payload)] * 120)  # 48 MB
    await source.start(None)
    quiet = 0
    async with asyncio.timeout(DEADLINE_S):
        seen = -1
        while quiet < 5:
            quiet = quiet + 1 if source._received == seen else 0
            seen = source._received
            await asyncio.sleep(0.1)
    assert 0 < seen < 90
    assert len(await take(source, 120, ack=True)) == 120


async def test_silence_is_a_break(engine: Engine, devices: Client, make: Make) -> None:
    """Neither message nor heartbeat for `stall_timeout_s`: the watchdog demands a new start."""
    clock = FakeClock()
    source = await make(IngestConfig(stall_timeout_s=30), clock)
    await source.prepare()
    await source.start(None)
    taking = asyncio.create_task(take(source, 1))
    await asyncio.sleep(0)
    os.kill(engine.info.pid, signal.SIGSTOP)
    try:
        await clock.advance(29)
        assert not taking.done()
        await clock.advance(10)
        with pytest.raises(Unavailable, match="heartbeat"):
            await taking
    finally:
        os.kill(engine.info.pid, signal.SIGCONT)


async def test_messages_that_wait_and_do_not_come_are_a_break(devices: Client, make: Make, publish: Publish) -> None:
    """Heartbeats do not satisfy the watchdog: pending messages and no delivery for `stall_timeout_s` is a stall."""
    clock = FakeClock()
    source = await make(IngestConfig(stall_timeout_s=30), clock)
    await source.prepare()
    await source.start(None)
    pause = b'{"pause_until":"2100-01-01T00:00:00Z"}'
    await devices.request(f"$JS.API.CONSUMER.PAUSE.{streams.MQTT_MESSAGES}.{DURABLE}", pause)
    await publish(1, 5)
    source._last_heard = clock.monotonic() + 1e9
    taking = asyncio.create_task(take(source, 1))
    for _ in range(200):
        await clock.advance(5)
        await asyncio.sleep(0.01)
        if taking.done():
            break
    with pytest.raises(Unavailable, match="are pending and none arrived"):
        await taking
