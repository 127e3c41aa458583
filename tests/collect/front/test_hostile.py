"""Sequences that are meant to harm: what one client sends costs that client, not the front."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from sensegate.collect.front import batcher, codec, connection
from sensegate.collect.front.batcher import IN_FLIGHT
from sensegate.collect.front.front import FrontPeers
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    Disconnect,
    PacketProperties,
    PacketType,
    Ping,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from tests.collect.front.front_rig import FrontRig, PacketClient, running_front
from tests.collect.front.stand_in_broker import stand_in_broker

STORE_BYTES_MAX = 1024**2
"""Largest message of the engine, as configured if nothing else is said."""
HEADER_BYTES = 256
"""Room for the headers of a batch."""
PACKET_BYTES_MAX = FrontLimits().packet_bytes_max
_TEXTS = (("k", "x" * 60_000),) * 5


async def _until_sent(rig: FrontRig, count: int) -> None:
    async with asyncio.timeout(30):
        while len(rig.store.sent) < count:
            await asyncio.sleep(0.005)


async def _until_not_read(rig: FrontRig) -> None:
    """Wait until a connection is not read any more: too many of its messages wait, or it has to end."""
    async with asyncio.timeout(30):
        while not any("inflight" in held._holds or held._is_ending for held in rig.front._connections):
            await asyncio.sleep(0.001)


async def _busy(rig: FrontRig, client: PacketClient) -> None:
    """Have as many batches in flight as there may be, so that what follows gathers in the open batch."""
    rig.store.held = True
    for number in range(1, IN_FLIGHT + 1):
        client.publish("small", number)
        await _until_sent(rig, number)


async def _largest_batch(packets: list[Publish], *, client_id: str = "d1", will: Will | None = None) -> int:
    """Return the bytes of the largest batch for messages that gather while the store is busy."""
    async with running_front() as rig, rig.client("d1", client_id=client_id, will=will) as client:
        await _busy(rig, client)
        for packet in packets:
            client.send(packet)
        client.publish("last", 1_000)
        async with asyncio.timeout(30):
            while (
                len(rig.front.writer.open.builder) + sum(len(batch.builder) for batch in rig.front.writer._unstored)
                < IN_FLIGHT + len(packets) + 1
            ):
                await asyncio.sleep(0.005)
        if will:
            await client.drop()
            async with asyncio.timeout(30):
                while rig.front.connection_count:
                    await asyncio.sleep(0.005)
        rig.store.release()
        count = IN_FLIGHT + len(packets) + 1 + bool(will)
        async with asyncio.timeout(30):
            while len(rig.store.messages) < count:
                await asyncio.sleep(0.005)
        return rig.store.largest


def _message(number: int, size: int, **more: Any) -> Publish:
    return Publish("up/d1", bytes(size), 1, packet_id=100 + number, **more)


_LARGEST = PACKET_BYTES_MAX - 100
_GATHERED = {
    "large behind small": [*(_message(number, 15_000) for number in range(15)), _message(50, _LARGEST)],
    "user properties": [_message(number, 1, properties=PacketProperties(user=_TEXTS)) for number in range(8)],
    "content types": [
        _message(number, 1, properties=PacketProperties(content_type="x" * 60_000)) for number in range(40)
    ],
}


@pytest.mark.parametrize("kind", _GATHERED)
async def test_no_batch_is_larger_than_the_store_takes(kind: str) -> None:
    """Such a batch would be refused for ever, and with it everything that all devices send afterwards."""
    assert await _largest_batch(_GATHERED[kind]) < STORE_BYTES_MAX - HEADER_BYTES


async def test_control_a_batch_too_large_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: were a batch closed only after the message that fills it, it would be too large."""
    monkeypatch.setattr(connection, "LARGE", PACKET_BYTES_MAX)
    assert await _largest_batch(_GATHERED["large behind small"]) > STORE_BYTES_MAX


async def test_long_client_ids_count_in_a_batch() -> None:
    """A batch holds the client id of each read; one that is longer than the limit is refused."""
    longest = "x" * 1_024
    async with running_front() as rig:
        async with rig.client("d1", client_id=longest + "x") as client:
            assert client.answer == ConnAck(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
            assert await client.receive() is None
        async with rig.client("d1", Version.MQTT_3_1_1, client_id=longest + "x") as client:
            assert client.answer == ConnAck(2)
        async with rig.client("d1", client_id=longest) as client:
            await _busy(rig, client)
            before = rig.front.writer.open.bytes
            client.publish("x", 50)
            async with asyncio.timeout(30):
                while not len(rig.front.writer.open.builder):
                    await asyncio.sleep(0.005)
            assert rig.front.writer.open.bytes - before > len(longest)


async def test_a_will_with_large_properties_begins_a_batch() -> None:
    """A will is bounded by its CONNECT only: it does not make the open batch too large either."""
    will = Will("up/d1", bytes(60_000), 1, properties=PacketProperties(user=_TEXTS * 3))
    packets = [_message(number, 12_000) for number in range(20)]
    assert await _largest_batch(packets, will=will) < STORE_BYTES_MAX - HEADER_BYTES


async def test_topics_that_are_cached_are_bounded_by_bytes() -> None:
    """Topics of any length, granted or not, and aliases for them: a connection keeps little of them."""
    async with running_front() as rig, rig.client() as client:
        for number in range(1, 301):
            client.publish("x", number, topic=f"up/d1/{'x' * 900}/{number}")
            client.publish("x", 0, topic=f"{'y' * 60_000}{number}", qos=0)
        await client.acknowledged(300)
        [held] = rig.front._connections
        assert sum(map(len, held._topics)) < 2 * rig.front.limits.topics_bytes_max
        client.publish("x", 1, topic="z" * 2_000, properties=PacketProperties(topic_alias=1))
        assert await client.receive() == Disconnect(ReasonCode.TOPIC_NAME_INVALID)


async def test_messages_are_taken_after_one_that_filled_a_batch() -> None:
    """Order and acknowledgements are kept where a message begins a new batch in the middle of a read."""
    async with running_front() as rig, rig.client() as client:
        sizes = [10, 20_000, 250_000, 10, 250_000, 250_000, 10, 20_000]
        client.send(*(_message(number, size) for number, size in enumerate(sizes)))
        assert await client.acknowledged(len(sizes)) == [100 + number for number in range(len(sizes))]
        assert [len(payload) for _, payload in rig.store.messages] == sizes
        assert rig.store.largest < batcher.BYTES_MAX + 32_000


async def test_a_refused_large_message_keeps_its_place() -> None:
    """Its answer stands behind those to messages before it, though it is in no batch."""
    async with running_front() as rig, rig.client() as client:
        client.send(
            _message(0, 240_000), Publish("up/d2", bytes(200_000), 1, packet_id=101), _message(2, 10),
        )  # fmt: skip
        answers = [await client.receive() for _ in range(3)]
        assert answers == [
            Acknowledgement(PacketType.PUBACK, 100),
            Acknowledgement(PacketType.PUBACK, 101, ReasonCode.NOT_AUTHORIZED),
            Acknowledgement(PacketType.PUBACK, 102),
        ]


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("qos", [1, 2])
async def test_answers_that_wait_are_bounded(version: Version, qos: int) -> None:
    """Refusals wait behind messages that are not stored: beyond the Receive Maximum their client is not served."""
    async with running_front(inflight_max=10) as rig, rig.client("d1", version) as client:
        rig.store.held = True
        client.publish("taken", 1)
        await _until_sent(rig, 1)
        for number in range(2, 402):
            client.publish("", number, topic="up/d2", qos=qos)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        await _until_not_read(rig)
        [batch] = rig.front.writer._unstored
        assert sum(len(answers) for answers, _ in batch.answers.values()) < 200
        rig.store.release()
        if version == Version.MQTT_5:
            assert await client.receive() == Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
        else:
            assert await client.receive() == Acknowledgement(PacketType.PUBACK, 1)
            kind = PacketType.PUBACK if qos == 1 else PacketType.PUBREC
            assert await client.acknowledged(400, kind) == list(range(2, 402))


async def test_repetitions_that_wait_are_bounded() -> None:
    """A QoS 2 message that is sent again and again before it is stored gets no answers without end."""
    async with running_front(inflight_max=10) as rig, rig.client("d1", Version.MQTT_3_1_1) as client:
        rig.store.held = True
        for _ in range(400):
            client.publish("x", 1, qos=2)
            await asyncio.sleep(0)
        await _until_not_read(rig)
        [batch] = rig.front.writer._unstored
        assert sum(len(answers) for answers, _ in batch.answers.values()) < 400
        rig.store.release()
        assert await client.acknowledged(400, PacketType.PUBREC) == [1] * 400


async def test_closed_connections_are_not_kept() -> None:
    """A device that connects for each message leaves messages behind while the store is away, and no connections."""
    async with running_front() as rig:
        rig.store.away = True
        for number in range(1, 31):
            async with rig.client(will=Will("up/d1", b"gone", 1)) as client:
                client.publish(str(number), number)
                async with asyncio.timeout(30):
                    while rig.front.writer.queued_bytes < number * 20:
                        await asyncio.sleep(0.001)
        async with asyncio.timeout(30):
            while rig.front.connection_count:
                await asyncio.sleep(0.001)
        writer = rig.front.writer
        assert not any(batch.answers for batch in (writer.open, *writer._unstored))
        rig.store.away = False
        async with asyncio.timeout(30):
            while len(rig.store.messages) < 60:
                await asyncio.sleep(0.005)
        stored = [payload for _, payload in rig.store.messages]
        assert stored[::2] == [str(number).encode() for number in range(1, 31)]
        assert stored[1::2] == [b"gone"] * 30


async def test_a_read_beyond_the_receive_maximum_is_ended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages up to the violation are stored, with no batch of nothing behind them."""
    ended: list[tuple[int, int]] = []
    end_read = batcher.BatchWriter.end_read

    def note(writer: batcher.BatchWriter, receiver: batcher.Acknowledged, **read: Any) -> None:
        ended.append((len(writer.open.builder), read["waiting"]))
        end_read(writer, receiver, **read)

    monkeypatch.setattr(batcher.BatchWriter, "end_read", note)
    monkeypatch.setattr(connection, "PACKETS_MAX", 10_000)
    async with running_front(inflight_max=batcher.MESSAGES_MAX - 1) as rig, rig.client() as client:
        rig.store.held = True
        client.send(*(_message(number, 1) for number in range(batcher.MESSAGES_MAX + 10)))
        assert await client.receive() == Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
        assert ended == [(batcher.MESSAGES_MAX, batcher.MESSAGES_MAX)]
        assert not rig.front.writer.open.bytes


async def test_an_ended_session_keeps_few_packet_ids() -> None:
    """A client that never sends PUBREL, under many client ids, leaves no 65,535 packet ids in each of its sessions."""
    async with running_front(inflight_max=10) as rig:
        async with rig.client("d1", Version.MQTT_3_1_1, clean=False) as client:
            for number in range(1, 101):
                client.publish("x", number, qos=2)
            await client.acknowledged(100, PacketType.PUBREC)
        async with asyncio.timeout(30):
            while rig.front.connection_count:
                await asyncio.sleep(0.001)
        [session] = rig.front.sessions._sessions.values()
        assert not session.received


@pytest.mark.parametrize("version", [Version.MQTT_3_1_1, Version.MQTT_5])
@pytest.mark.parametrize("kind", [PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE])
async def test_filters_of_a_packet_are_limited(version: Version, kind: PacketType) -> None:
    """A megabyte of filters took seconds, in which no other client of the front was served."""
    end = b"\0" if kind is PacketType.SUBSCRIBE else b""
    properties = b"\0" if version == Version.MQTT_5 else b""
    async with running_front() as rig, rig.client("d1", version) as client:
        most = codec.FILTERS_MAX
        client.write(codec.frame(kind, b"\0\7" + properties + (b"\0\1x" + end) * most, 2))
        answer = await client.receive()
        assert isinstance(answer, SubAck)
        assert len(answer.codes) == (most if kind is PacketType.SUBSCRIBE or properties else 0)
        client.write(codec.frame(kind, b"\0\7" + properties + (b"\0\1x" + end) * (most + 1), 2))
        assert await client.receive() == (Disconnect(ReasonCode.QUOTA_EXCEEDED) if properties else None)
        assert rig.counts.limits["mqtt_quota_exceeded"] == 1


def test_a_packet_that_comes_in_crumbs_takes_little_memory() -> None:
    """A chunk of two bytes is an object of fifty: those of an incomplete packet are joined now and then."""
    reader = codec.PacketReader(PACKET_BYTES_MAX)
    packet = codec.frame(PacketType.PUBLISH, bytes(200_000))
    for at in range(0, len(packet) - 2, 2):
        assert reader.feed(packet[at : at + 2]) == []
    assert sum(map(sys.getsizeof, reader._held)) < 2 * len(packet)
    assert reader.feed(packet[-2:]) == [(packet[0], bytes(200_000))]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of packets that connections handle at once."""
    counts: list[int] = []
    take = connection.MqttConnection._take

    def count(held: connection.MqttConnection, packets: list[tuple[int, bytes]]) -> None:
        counts.append(len(packets))
        take(held, packets)

    monkeypatch.setattr(connection.MqttConnection, "_take", count)
    monkeypatch.setattr(connection, "PACKETS_MAX", 10)
    return counts


async def test_small_packets_leave_room_for_others(taken: list[int]) -> None:
    """A read holds 130,000 PINGREQs, which took most of a second; all are answered, in their order."""
    async with running_front() as rig, rig.client().silent() as client:
        connect = codec.encode(client.connect, client.version)
        client.write(connect + b"\xc0\0" * 95)
        client.publish("x", 7)
        client.write(b"\xc0\0" * 3)
        answers = [await client.receive() for _ in range(100)]
        assert isinstance(answers[0], ConnAck)
        assert sum(isinstance(answer, Ping) for answer in answers) == 98
        assert Acknowledgement(PacketType.PUBACK, 7) in answers
        assert max(taken) == 10
        assert not rig.front.turns._waiting
        client.publish("y", 8)
        assert await client.acknowledged(1) == [8]


@pytest.mark.parametrize("is_ended", [False, True])
async def test_packets_that_wait_are_not_lost_with_their_connection(taken: list[int], *, is_ended: bool) -> None:
    """Messages of the last read are stored, and its DISCONNECT drops the will, though many packets are before them."""
    async with running_front() as rig:
        async with rig.client(will=Will("up/d1", b"gone", 1)) as client:
            end = codec.encode(Disconnect(0), client.version) if is_ended else b""
            messages = b"".join(codec.encode(_message(number, 1), client.version) for number in range(25))
            client.write(b"\xc0\0" * 95 + messages + b"\xc0\0" * 20 + end)
        async with asyncio.timeout(30):
            while rig.front.connection_count or rig.front.writer.queued_bytes:
                await asyncio.sleep(0.005)
        payloads = [payload for _, payload in rig.store.messages]
        assert payloads == [bytes(1)] * 25 + [b"gone"] * (not is_ended)
        assert max(taken) <= 10


async def test_a_disconnect_behind_a_subscription_that_fails_drops_the_will() -> None:
    """It came before we closed. What was published between is not acknowledged, and comes again."""
    async with stand_in_broker() as (broker, address):
        broker.closes = 2
        async with running_front(beside=FrontPeers(broker=address)) as rig:
            async with rig.client("d1", will=Will("up/d1", b"gone", 1)) as client:
                subscribe = Subscribe(7, (Subscription("down/d1"),))
                client.send(subscribe, Publish("up/d1", b"between", 1, packet_id=1), Disconnect())
                assert await client.receive() == Disconnect(ReasonCode.SERVER_BUSY)
            async with asyncio.timeout(30):
                while rig.front.connection_count:
                    await asyncio.sleep(0.001)
            async with rig.client("d1", client_id="other") as other:
                other.publish("last", 1)
                await other.acknowledged(1)
            assert rig.store.messages == [("up/d1", b"last")]
