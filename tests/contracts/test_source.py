"""What every `ports.Source` promises; the sources of `collect` pass the same suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from sensegate.bus import streams
from sensegate.bus.engine import Engine, User
from sensegate.clock import SystemClock
from sensegate.collect.contract import Source
from sensegate.collect.http import HttpSource
from sensegate.collect.intake.source import IntakeSource
from sensegate.collect.mqtt import MqttSource
from sensegate.collect.tcp import TcpSource
from sensegate.config import EngineConfig, ExternalBrokerConfig, IngestConfig, StoreConfig, TcpConfig
from sensegate.model import Delivery, Message, SourcePosition
from sensegate.video.pseudonyms import KeyedPseudonymiser
from sensegate.viid.source import ViidSource
from tests.collect.mosquitto import Mosquitto
from tests.support.front import BatchWriter

DEADLINE_S = 20.0
LIMITS = IngestConfig(commit_messages_max=50)
MIB = 1024**2


class Outside:
    """An outside world with one source: what was published, and how a process that starts anew sees it."""

    def __init__(
        self,
        make: Callable[[], Source],
        publish: Callable[[list[bytes]], Awaitable[None]],
        *,
        durable: bool = True,
        positions: bool = True,
    ) -> None:
        self.make = make
        self.publish = publish
        self.durable = durable
        """What was not acknowledged outlives the process."""
        self.positions = positions


class NoDevices:
    """A registry that knows nobody: this suite is about what was taken, not about who may speak."""

    enabled = np.zeros(0, np.bool_)

    def find(self, name: str, /) -> int:
        return -1

    def id(self, at: int, /) -> str:
        raise AssertionError


async def _intake(directory: Path) -> AsyncIterator[Outside]:
    store = StoreConfig(log_bytes=MIB, intake_bytes=8 * MIB, ledger_bytes=MIB, registry_bytes=MIB)
    async with Engine(EngineConfig(), store, directory, name="4401") as engine:
        connection = await engine.connect(User.GATEWAY)
        await streams.ensure_streams(connection, store)
        writer = BatchWriter(connection)

        async def publish(payloads: list[bytes]) -> None:
            for start in range(0, len(payloads), 7):
                await writer.write(payloads[start : start + 7])

        yield Outside(lambda: IntakeSource(connection, LIMITS, SystemClock()), publish)
        await connection.close()


async def _http(_: Path) -> AsyncIterator[Outside]:
    source = HttpSource(LIMITS, SystemClock(), timeout_s=DEADLINE_S)
    pushes: list[asyncio.Task[None]] = []

    async def publish(payloads: list[bytes]) -> None:
        pushes.extend(asyncio.create_task(source.push("d1", payload)) for payload in payloads)
        await asyncio.sleep(0)

    yield Outside(lambda: source, publish, durable=False, positions=False)
    for push in pushes:
        push.cancel()
    await asyncio.gather(*pushes, return_exceptions=True)


async def _tcp(_: Path) -> AsyncIterator[Outside]:
    source = TcpSource(TcpConfig(protocol="hj212"), LIMITS, SystemClock(), NoDevices())

    async def publish(payloads: list[bytes]) -> None:
        for payload in payloads:
            source.put("tcp/hj212/d1", payload, "d1")
        await asyncio.sleep(0)

    yield Outside(lambda: source, publish, durable=False, positions=False)


async def _viid(_: Path) -> AsyncIterator[Outside]:
    async def adopt(_sender: object, _entries: object) -> None:
        raise AssertionError

    source = ViidSource(LIMITS, SystemClock(), KeyedPseudonymiser(b"a key"), lambda _camera: None, adopt)

    async def publish(payloads: list[bytes]) -> None:
        for payload in payloads:
            source.put("http/d1", payload, "d1", redacted=True)
        await asyncio.sleep(0)

    yield Outside(lambda: source, publish, durable=False, positions=False)


async def _foreign(directory: Path, version: Literal["3.1.1", "5"]) -> AsyncIterator[Outside]:
    async with Mosquitto(directory) as broker:
        config = ExternalBrokerConfig(
            name="vendor", host="127.0.0.1", port=broker.port, version=version, topics=("sg/#",)
        )
        first = MqttSource(config, LIMITS, SystemClock(), jitter=lambda: 0.0)
        await first.start(None)  # the session begins with the first subscription
        await asyncio.wait_for(first.connected.wait(), DEADLINE_S)
        await first.stop()

        async def publish(payloads: list[bytes]) -> None:
            await broker.publish([("sg/d1/up", payload) for payload in payloads])

        yield Outside(lambda: MqttSource(config, LIMITS, SystemClock(), jitter=lambda: 0.0), publish, positions=False)


WITH_SERVERS = [pytest.param(name, marks=pytest.mark.live) for name in ("intake", "mqtt-3.1.1", "mqtt-5")]


@pytest.fixture(params=["http", "tcp", "viid", *WITH_SERVERS])
async def outside(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outside]:
    """Each source with its outside world."""
    worlds: dict[str, Callable[[], AsyncIterator[Outside]]] = {
        "intake": lambda: _intake(tmp_path),
        "http": lambda: _http(tmp_path),
        "tcp": lambda: _tcp(tmp_path),
        "viid": lambda: _viid(tmp_path),
        "mqtt-3.1.1": lambda: _foreign(tmp_path, "3.1.1"),
        "mqtt-5": lambda: _foreign(tmp_path, "5"),
    }
    async for world in worlds[request.param]():
        yield world


async def take(source: Source, count: int) -> tuple[list[Message], list[Delivery]]:
    """Return at least `count` messages and the deliveries that held them, not acknowledged."""
    messages: list[Message] = []
    deliveries: list[Delivery] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(source.deliveries()) as arriving:  # type: ignore[type-var]
        async for delivery in arriving:
            deliveries.append(delivery)
            messages += delivery.messages
            if len(messages) >= count:
                break
    return messages, deliveries


def payloads(first: int, last: int) -> list[bytes]:
    """Numbered payloads."""
    return [b"%d" % number for number in range(first, last + 1)]


async def test_each_message_comes_in_order_with_its_bytes(outside: Outside) -> None:
    """Payloads are untouched, sequences rise, deliveries hold at most `commit_messages_max` and name their source."""
    source = outside.make()
    await outside.publish(payloads(1, 120))
    await source.start(None)
    messages, deliveries = await take(source, 120)
    assert [message.payload for message in messages] == payloads(1, 120)
    sequences = [message.sequence for message in messages]
    assert sequences == sorted(set(sequences))
    assert {delivery.source for delivery in deliveries} == {source.name}
    assert all(len(delivery.messages) <= LIMITS.commit_messages_max for delivery in deliveries)
    for delivery in deliveries:
        if outside.positions:
            assert delivery.position is not None
            assert delivery.position.sequence == delivery.messages[-1].sequence
        else:
            assert delivery.position is None
    await source.stop()


async def test_what_was_not_acknowledged_comes_again(outside: Outside) -> None:
    """After a start nothing unacknowledged is missing, in the old order, the acknowledged never again."""
    source = outside.make()
    await outside.publish(payloads(1, 60))
    await source.start(None)
    messages, deliveries = await take(source, 60)
    done = deliveries[0].messages
    await deliveries[0].ack()
    await source.stop()
    await outside.publish(payloads(61, 70))
    repeated = outside.make()
    await repeated.start(deliveries[0].position)
    rest = [message.payload for message in messages[len(done) :]] + payloads(61, 70)
    messages, deliveries = await take(repeated, len(rest))
    assert [message.payload for message in messages] == rest
    for delivery in deliveries:
        await delivery.ack()
    await repeated.stop()


async def test_an_acknowledgement_of_an_earlier_life_does_nothing(outside: Outside) -> None:
    """A delivery from before the last start cannot acknowledge what is delivered after it."""
    source = outside.make()
    await outside.publish(payloads(1, 30))
    await source.start(None)
    _, deliveries = await take(source, 30)
    await source.stop()
    await source.start(None)
    for delivery in deliveries:
        await delivery.ack()
    messages, _ = await take(source, 30)
    assert [message.payload for message in messages] == payloads(1, 30)
    await source.stop()


async def test_nothing_at_or_below_the_committed_position_is_given_again(outside: Outside) -> None:
    """A commit whose acknowledgement was lost is not given twice; one of another life of the source means nothing."""
    if not outside.positions:
        pytest.skip("the source has no positions")
    source = outside.make()
    await outside.publish(payloads(1, 60))
    await source.start(None)
    messages, deliveries = await take(source, 60)
    position = deliveries[0].position
    assert position
    await source.stop()
    await source.start(SourcePosition("another life", position.sequence))
    everything, _ = await take(source, 60)
    assert [message.payload for message in everything] == payloads(1, 60)
    await source.stop()
    await source.start(position)
    rest, _ = await take(source, 60 - len(deliveries[0].messages))
    assert [m.sequence for m in rest] == [m.sequence for m in messages if m.sequence > position.sequence]
    await source.stop()


async def test_stop_ends_the_deliveries(outside: Outside) -> None:
    """The iterator of a stopped source ends; it can be started again."""
    source = outside.make()
    await source.start(None)

    async def drain() -> int:
        return len([delivery async for delivery in source.deliveries()])

    task = asyncio.create_task(drain())
    await asyncio.sleep(0)
    await source.stop()
    async with asyncio.timeout(DEADLINE_S):
        assert await task == 0
    await outside.publish(payloads(1, 3))
    await source.start(None)
    messages, _ = await take(source, 3)
    assert len(messages) == 3
    await source.stop()
