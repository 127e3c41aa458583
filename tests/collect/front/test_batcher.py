"""Batches are stored in their order, whatever the store answers; what would break the order is caught."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from sensegate.clock import FakeClock
from sensegate.collect.front import batcher
from sensegate.collect.front.batcher import BatchWriter
from sensegate.collect.intake.batch import new_instance
from tests.collect.front.front_rig import FrontRig, HeldStore, PacketClient, running_front


async def _publish(rig: FrontRig, client: PacketClient, first: int, count: int) -> None:
    """Send messages, each in a batch of its own as far as batches are sent at all."""
    for number in range(first, first + count):
        client.publish(str(number), number)
        await asyncio.sleep(0.004)


async def _refused_in_flight() -> list[bytes]:
    """Return what is stored when all batches in flight are refused, and what came meanwhile is waiting."""
    async with running_front() as rig, rig.client() as client:
        await _publish(rig, client, 1, 1)
        await client.acknowledged(1)
        rig.store.doubtful = True
        await _publish(rig, client, 2, 8)
        async with asyncio.timeout(30):
            while len(rig.store.sent) < 5:
                await asyncio.sleep(0.005)
        rig.store.refuse()
        assert await client.acknowledged(8) == list(range(2, 10))
        return [payload for _, payload in rig.store.messages]


async def test_a_refused_batch_is_sent_again_before_newer_ones() -> None:
    """Oldest first, one at a time: a device's messages stay in order, and its PUBACKs too."""
    assert await _refused_in_flight() == [str(number).encode() for number in range(1, 10)]


async def test_control_newest_first_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: were the newest batch sent first, the order would be seen to break."""
    send_again = BatchWriter._send_again

    def newest_first(writer: BatchWriter) -> None:
        send_again(writer)
        writer._unsent = deque(reversed(writer._unsent))

    monkeypatch.setattr(BatchWriter, "_send_again", newest_first)
    assert await _refused_in_flight() != [str(number).encode() for number in range(1, 10)]


async def test_control_an_acknowledgement_before_the_store_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a PUBACK at the arrival of a message is one without a stored message."""

    def at_once(writer: BatchWriter, connection: batcher.Acknowledged, *, answers: bytes, **_more: object) -> None:
        connection.acknowledge(answers, 0)

    monkeypatch.setattr(BatchWriter, "end_read", at_once)
    async with running_front() as rig, rig.client() as client:
        client.publish("1", 1)
        assert await client.acknowledged(1) == [1]
        assert rig.store.messages == []
        rig.front.writer.open = batcher.FrontBatch()


async def test_a_batch_without_an_answer_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number again, so that the reader can tell; the device has its PUBACK after the second answer."""
    monkeypatch.setattr(batcher, "ANSWER_S", 0.2)
    async with running_front() as rig, rig.client() as client:
        rig.store.refusals = [""]
        client.publish("1", 1)
        assert await client.acknowledged(1) == [1]
        assert rig.store.sent == [1, 1]


async def test_the_store_is_away_and_back() -> None:
    """Connections stay; what was taken is stored once the store is back, in order."""
    async with running_front() as rig, rig.client() as client:
        rig.store.away = True
        await _publish(rig, client, 1, 5)
        assert rig.front.writer.problem
        rig.store.away = False
        assert await client.acknowledged(5) == [1, 2, 3, 4, 5]
        assert [payload for _, payload in rig.store.messages] == [b"1", b"2", b"3", b"4", b"5"]
        assert not rig.front.writer.problem


async def test_a_batch_is_sealed_at_its_limit() -> None:
    """A batch that cannot be sent does not grow beyond its limit, which the server would refuse for ever."""
    async with running_front(inflight_max=5_000) as rig, rig.client() as client:
        rig.store.away = True
        for number in range(1, 901):
            client.publish(bytes(1_000), number)
        async with asyncio.timeout(30):
            while sum(len(batch.builder) for batch in rig.front.writer._unstored) < 600:
                await asyncio.sleep(0.01)
        assert all(batch.bytes < 2 * batcher.BYTES_MAX for batch in rig.front.writer._unstored)
        assert all(len(batch.builder) <= batcher.MESSAGES_MAX for batch in rig.front.writer._unstored)
        rig.store.away = False
        assert await client.acknowledged(900) == list(range(1, 901))


async def test_connections_share_batches() -> None:
    """One message of the stream holds messages of many connections."""
    async with running_front() as rig:
        clients = [rig.client(f"d{number}") for number in range(20)]
        for client in clients:
            await client.__aenter__()
        for client in clients:
            client.publish("1", 1)
        for client in clients:
            assert await client.acknowledged(1) == [1]
        assert len(rig.store.stored) < 20
        for client in clients:
            await client.drop()


class _Connection:
    """A connection that answers nobody."""

    def acknowledge(self, answers: bytes, count: int) -> None:
        """Send nothing."""

    def resume(self) -> None:
        """Read nothing."""


def _take(writer: BatchWriter, connection: _Connection, count: int) -> None:
    builder = writer.open.builder
    builder.topics += ["up/d1"] * count
    builder.payloads += [b"1"] * count
    builder.flags += [1] * count
    writer.end_read(connection, client="d1", credential="d1", arrival=1, answers=b"", waiting=count, size=6 * count)


async def _let_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("count", "gaps"), [(1, 1.0), (batcher.SHARED_MIN, batcher.SHARED_GAPS), (batcher.MESSAGES_MAX, 1.0)]
)
async def test_the_gap_is_longer_where_messages_share_batches(count: int, gaps: float) -> None:
    """An idle front sends at once; the next batch waits for the gap, after a batch of many for a longer one."""
    clock, store = FakeClock(), HeldStore()
    store.held = True
    writer = store.writer = BatchWriter(store, new_instance(), clock, queue_bytes_max=10**6)
    running = asyncio.create_task(writer.run())
    try:
        await _let_run()
        _take(writer, _Connection(), count)
        await _let_run()
        assert store.sent == [1]
        _take(writer, _Connection(), 1)
        await clock.advance(batcher.GAP_S * gaps - 0.0005)
        assert store.sent == [1]
        await clock.advance(0.001)
        assert store.sent == [1, 2]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Answered(_Connection):
    """A connection that notes each write."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, int]] = []

    def acknowledge(self, answers: bytes, count: int) -> None:
        self.written.append((answers, count))


async def test_answers_to_several_reads_of_a_batch_are_one_write() -> None:
    """Each write is a system call; the answers of a connection stay in their order, also those that need no store."""
    store = HeldStore()
    writer = store.writer = BatchWriter(store, new_instance(), FakeClock(), queue_bytes_max=10**6)
    first, second = _Answered(), _Answered()
    for connection, answers in ((first, b"a"), (second, b"x"), (first, b"b")):
        writer.open.builder.topics.append("t")
        writer.open.builder.payloads.append(b"")
        writer.open.builder.flags.append(0)
        writer.end_read(connection, client="d", credential="d", arrival=1, answers=answers, waiting=1, size=1)
    writer.answer(first, b"c", 0)
    running = asyncio.create_task(writer.run())
    try:
        await _let_run()
        assert first.written == [(b"abc", 2)]
        assert second.written == [(b"x", 1)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
