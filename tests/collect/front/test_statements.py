"""Normative statements of MQTT that a server could break, each against a running front; the table names the others."""

from __future__ import annotations

import asyncio

import pytest

from sensegate.clock import FakeClock
from sensegate.collect.front import codec
from sensegate.collect.front.codec import PacketReader
from sensegate.collect.front.packets import (
    Acknowledgement,
    Auth,
    ConnAck,
    Disconnect,
    Packet,
    PacketProperties,
    PacketType,
    Ping,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)
from sensegate.collect.front.rights import TopicMatcher
from sensegate.collect.front.subscriptions import ClientSubscriptions
from sensegate.collect.front.upstream import BrokerAddress, Upstream
from sensegate.collect.intake.batch import RETAIN
from tests.collect.front.fake_client import FakeClient
from tests.collect.front.front_rig import WAIT_S, FrontRig, running_front

SIZES = ((21, 1), (20, 1), (21, 2))
"""Payload bytes and QoS of messages that the broker sends."""
VERSIONS = pytest.mark.parametrize("version", list(Version))


async def _until_stored(rig: FrontRig, count: int) -> None:
    async with asyncio.timeout(WAIT_S * 6):
        while len(rig.store.messages) < count:
            await asyncio.sleep(0.005)


@VERSIONS
async def test_what_follows_a_refused_connect_is_not_handled(version: Version) -> None:
    """MQTT-3.1.4-6, 3.14.0-1: CONNACK alone is sent. Control: behind an accepted CONNECT it is."""
    async with running_front() as rig:
        async with rig.client("d1", version, password=b"wrong").silent() as client:
            client.send(client.connect, Publish("up/d1", b"refused", 1, packet_id=1), Ping(PacketType.PINGREQ))
            answer = await client.receive()
            assert isinstance(answer, ConnAck)
            assert answer.code
            assert not answer.session_present
            assert await client.receive() is None
        async with rig.client("d1", version).silent() as client:
            client.send(client.connect, Publish("up/d1", b"accepted", 1, packet_id=1))
            assert isinstance(await client.receive(), ConnAck)
            assert await client.acknowledged(1) == [1]
        assert rig.store.messages == [("up/d1", b"accepted")]


@VERSIONS
async def test_connack_comes_first_and_once(version: Version) -> None:
    """MQTT-3.2.0-1, 3.2.0-2: before all other packets, and no second one."""
    async with running_front() as rig, rig.client("d1", version).silent() as client:
        client.send(client.connect, Ping(PacketType.PINGREQ), Publish("up/d1", b"x", 1, packet_id=9))
        assert isinstance(await client.receive(), ConnAck)
        answers = [await client.receive(), await client.receive()]
        assert Ping(PacketType.PINGRESP) in answers
        assert Acknowledgement(PacketType.PUBACK, 9) in answers
        await client.silence()


@VERSIONS
async def test_a_packet_id_is_free_after_its_acknowledgement(version: Version) -> None:
    """MQTT-4.3.2-5: the same packet id after PUBACK is a new message, with DUP or without."""
    async with running_front() as rig, rig.client("d1", version) as client:
        for payload, duplicate in (("first", False), ("second", False), ("third", True)):
            client.publish(payload, 7, duplicate=duplicate)
            assert await client.acknowledged(1) == [7]
        assert [payload for _, payload in rig.store.messages] == [b"first", b"second", b"third"]


async def test_a_packet_id_is_free_after_a_refusal() -> None:
    """MQTT-4.3.3-9: after PUBREC with a reason of failure the same packet id is a new message."""
    async with running_front() as rig, rig.client() as client:
        client.publish("not mine", 7, topic="up/d2", qos=2)
        assert await client.receive() == Acknowledgement(PacketType.PUBREC, 7, ReasonCode.NOT_AUTHORIZED)
        client.publish("mine", 7, qos=2)
        assert await client.receive() == Acknowledgement(PacketType.PUBREC, 7)
        assert rig.store.messages == [("up/d1", b"mine")]


async def test_topics_are_not_normalised() -> None:
    """MQTT-4.7.3-4, 1.5.4-3: each character is kept as it was sent; U+FEFF is no byte order mark."""
    topics = ["up/d1/\u00e9", "up/d1/e\u0301", "up/d1/\ufeffx", "up/d1//y", "up/d1/"]
    async with running_front() as rig, rig.client() as client:
        for number, topic in enumerate(topics, 1):
            client.publish("x", number, topic=topic)
        await client.acknowledged(len(topics))
        assert [topic for topic, _ in rig.store.messages] == topics


async def test_a_response_topic_has_no_wildcard() -> None:
    """MQTT-3.3.2-14; control: one without is taken."""
    async with running_front() as rig, rig.client() as client:
        client.publish("x", 1, properties=PacketProperties(response_topic="down/d1"))
        assert await client.acknowledged(1) == [1]
        client.publish("x", 2, properties=PacketProperties(response_topic="down/#"))
        assert await client.receive() == Disconnect(ReasonCode.TOPIC_NAME_INVALID)
        assert await client.receive() is None


@VERSIONS
async def test_a_will_is_dropped_once_published(version: Version) -> None:
    """MQTT-3.1.2-10: a will belongs to one connection; the next that breaks without one publishes nothing."""
    async with running_front() as rig:
        async with rig.client("d1", version, will=Will("up/d1", b"gone", 1)):
            pass
        await _until_stored(rig, 1)
        async with rig.client("d1", version) as client:
            client.publish("after", 1)
            await client.acknowledged(1)
        async with rig.client("d1", version) as client:
            client.publish("last", 1)
            await client.acknowledged(1)
        assert [payload for _, payload in rig.store.messages] == [b"gone", b"after", b"last"]


async def test_disconnect_with_will_publishes_it() -> None:
    """MQTT-3.14.4-3: only DISCONNECT with 0x00 drops the will; 0x04 asks for it."""
    async with running_front() as rig:
        async with rig.client(will=Will("up/d1", b"gone", 1)) as client:
            client.send(Disconnect(ReasonCode.DISCONNECT_WITH_WILL))
            assert await client.receive() is None
        await _until_stored(rig, 1)
        assert rig.store.messages == [("up/d1", b"gone")]


@VERSIONS
async def test_answers_carry_the_packet_id_of_their_question(version: Version) -> None:
    """MQTT-2.2.1-5, 2.2.1-6, 3.8.4-1, 3.8.4-2, 3.10.4-4, 3.10.4-5: also where nothing was granted or subscribed."""
    async with running_front() as rig, rig.client("d1", version) as client:
        client.publish("x", 65_535, qos=2)
        assert await client.acknowledged(1, PacketType.PUBREC) == [65_535]
        client.send(Subscribe(513, (Subscription("down/d2"), Subscription("down/d3"))))
        answer = await client.receive()
        assert isinstance(answer, SubAck)
        assert (answer.kind, answer.packet_id, len(answer.codes)) == (PacketType.SUBACK, 513, 2)
        client.send(Unsubscribe(514, ("down/d2",)))
        answer = await client.receive()
        assert isinstance(answer, SubAck)
        assert (answer.kind, answer.packet_id) == (PacketType.UNSUBACK, 514)


@pytest.mark.parametrize("problems", [0, 1])
async def test_answers_carry_no_texts(problems: int) -> None:
    """MQTT-3.1.2-29, 3.4.2-2, 3.4.2-3: neither reason string nor user property, whether a client wants them or not."""
    async with running_front() as rig, rig.client(request_problem=problems, maximum_packet_size=100) as client:
        client.publish("x", 1, topic="up/d2")
        answer = await client.receive()
        assert answer == Acknowledgement(PacketType.PUBACK, 1, ReasonCode.NOT_AUTHORIZED)
        client.send(Subscribe(2, (Subscription("down/d2"),)))
        assert await client.receive() == SubAck(PacketType.SUBACK, 2, (ReasonCode.NOT_AUTHORIZED,))


class SmallClient(FakeClient):
    """A connection whose client takes packets of at most 20 bytes."""

    def send(self, packet: Packet) -> bool:
        return not (isinstance(packet, Publish) and len(packet.payload) > 20) and super().send(packet)


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[Packet] = []

    def resume_reading(self) -> None:
        """Nothing is read from it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        packets = PacketReader(1_000).feed(bytes(data))
        self.packets += [codec.decode(head, body, Version.MQTT_3_1_1) for head, body in packets]


async def test_a_message_too_large_for_a_client_is_done_with() -> None:
    """MQTT-3.1.2-24, -25: it is not sent, and the broker is answered; control: a smaller one waits for the client."""
    client, written = SmallClient(), Written()
    upstream = Upstream(BrokerAddress("127.0.0.1", 1, b""), client, FakeClock(), ClientSubscriptions({}, 8, 100))
    upstream.connection_made(written)
    upstream.begin()
    messages = [Publish("down/d1", bytes(size), qos, packet_id=number) for number, (size, qos) in enumerate(SIZES, 1)]
    upstream.data_received(b"".join(codec.encode(message, Version.MQTT_3_1_1) for message in messages))
    assert [message.packet_id for message in client.sent if isinstance(message, Publish)] == [2]
    assert written.packets == [Acknowledgement(PacketType.PUBACK, 1), Acknowledgement(PacketType.PUBREC, 3)]


async def test_a_session_ends_with_its_connection_where_nothing_else_was_asked() -> None:
    """MQTT-3.1.2-23, 3.2.2-2, 3.2.2-3, 4.1.0-2: 5.0 without an expiry has no session afterwards; with one it has."""
    async with running_front() as rig:
        for expiry_s, present in ((None, False), (60, False), (60, True)):
            async with rig.client(clean=False, session_expiry_s=expiry_s) as client:
                assert client.answer.session_present is present
                client.send(Disconnect())
                assert await client.receive() is None
        async with rig.client(clean=True, session_expiry_s=60) as client:
            assert not client.answer.session_present


async def test_aliases_end_with_their_connection() -> None:
    """MQTT-3.3.2-7, -12: the highest alias that CONNACK allows is taken; the next connection knows none."""
    async with running_front() as rig:
        async with rig.client(session_expiry_s=60) as client:
            highest = client.answer.properties.topic_alias_maximum
            assert highest == rig.front.limits.topic_aliases_max
            alias = PacketProperties(topic_alias=highest)
            client.send(
                Publish("up/d1/x", b"a", 1, packet_id=1, properties=alias),
                Publish("", b"b", 1, packet_id=2, properties=alias),
            )
            assert await client.acknowledged(2) == [1, 2]
        async with rig.client(clean=False, session_expiry_s=60) as client:
            assert client.answer.session_present
            client.send(Publish("", b"c", 1, packet_id=3, properties=alias))
            assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)
        assert rig.store.messages == [("up/d1/x", b"a"), ("up/d1/x", b"b")]


@pytest.mark.parametrize("wanted", [None, 0, 1])
async def test_connack_has_no_response_information(wanted: int | None) -> None:
    """MQTT-3.1.2-28: none is sent where a client did not ask for it; one that asks may get none."""
    async with running_front() as rig, rig.client(request_response=wanted) as client:
        assert client.answer.code == 0
        assert client.answer.properties.response_information is None


@pytest.mark.parametrize("retain", [False, True])
async def test_a_will_is_stored_as_it_was_given(*, retain: bool) -> None:
    """MQTT-3.1.2-14, -15, 3.1.3-10: its RETAIN, and its user properties in their order."""
    user = (("b", "1"), ("a", "2"), ("b", "0"))
    will = Will("up/d1", b"gone", 1, retain, PacketProperties(content_type="text/plain", user=user))
    async with running_front() as rig:
        async with rig.client(will=will):
            pass
        await _until_stored(rig, 1)
        [batch] = rig.store.stored.values()
        assert bool(batch.flags.tolist()[0] & RETAIN) is retain
        assert (batch.properties[0].content_type, batch.properties[0].user) == ("text/plain", user)


@pytest.mark.parametrize(
    "packet", [ConnAck(0), SubAck(PacketType.SUBACK, 1, (0,)), Ping(PacketType.PINGRESP), Auth(0x19)], ids=repr
)
async def test_packets_that_a_client_does_not_send_are_errors(packet: Packet) -> None:
    """MQTT-4.13.1-1, 4.13.2-1: also AUTH without an authentication method; DISCONNECT has no expiry (3.14.2-2)."""
    async with running_front() as rig, rig.client() as client:
        client.send(packet)
        assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)
        assert await client.receive() is None


def test_wildcards_do_not_match_topics_of_the_server() -> None:
    """MQTT-4.7.2-1: nor at the second level alone; control: other topics are matched."""
    for topic_filter in ("#", "+/x", "+/#"):
        matcher = TopicMatcher((topic_filter,))
        assert not matcher.matches("$SYS/x")
        assert matcher.matches("a/x")
    assert TopicMatcher(("a/#",)).matches("a/$b")
