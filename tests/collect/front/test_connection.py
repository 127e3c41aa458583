"""A connection at the front: what is acknowledged is stored, what is refused is said, what is too much is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    Unsubscribe,
    Version,
    Will,
)
from sensegate.collect.intake.batch import DUP, QOS_SHIFT, RETAIN, WILL
from tests.collect.front.front_rig import FrontRig, running_front
from tests.conftest import eventually

VERSIONS = pytest.mark.parametrize("version", list(Version))


async def _until_stored(rig: FrontRig, count: int) -> None:
    async with asyncio.timeout(30):
        while len(rig.store.messages) < count:
            await asyncio.sleep(0.005)


@VERSIONS
async def test_qos_1_is_acknowledged_once_stored(version: Version) -> None:
    """No PUBACK before the store has the batch; then one for each message, in order, whatever the order of answers."""
    async with running_front() as rig, rig.client("d1", version) as client:
        assert client.answer.code == 0
        rig.store.held = True
        for number in range(1, 4):
            client.publish(str(number), number)
            await _until_stored(rig, number)
        await client.silence()
        rig.store.release()
        assert await client.acknowledged(3) == [1, 2, 3]
        assert rig.store.messages == [("up/d1", b"1"), ("up/d1", b"2"), ("up/d1", b"3")]


@VERSIONS
async def test_qos_2_is_stored_once(version: Version) -> None:
    """PUBREC after the store; a message sent again before PUBREL is answered and not stored a second time."""
    async with running_front() as rig, rig.client("d1", version) as client:
        client.publish("a", 7, qos=2)
        assert await client.acknowledged(1, PacketType.PUBREC) == [7]
        client.publish("a", 7, qos=2, duplicate=True)
        assert await client.acknowledged(1, PacketType.PUBREC) == [7]
        client.send(Acknowledgement(PacketType.PUBREL, 7))
        assert await client.acknowledged(1, PacketType.PUBCOMP) == [7]
        client.publish("b", 7, qos=2)
        assert await client.acknowledged(1, PacketType.PUBREC) == [7]
        assert [payload for _, payload in rig.store.messages] == [b"a", b"b"]
        assert rig.store.flags == [7 | 2 << QOS_SHIFT] * 2


async def test_qos_2_goes_on_after_a_reconnect() -> None:
    """MQTT-4.3.3-12: a session remembers which messages it has; PUBREL of an unknown one is told so."""
    async with running_front() as rig:
        async with rig.client(clean=False, session_expiry_s=60) as client:
            client.publish("a", 7, qos=2)
            await client.acknowledged(1, PacketType.PUBREC)
        async with rig.client(clean=False, session_expiry_s=60) as client:
            assert client.answer.session_present
            client.publish("a", 7, qos=2, duplicate=True)
            await client.acknowledged(1, PacketType.PUBREC)
            client.send(Acknowledgement(PacketType.PUBREL, 7), Acknowledgement(PacketType.PUBREL, 8))
            assert await client.receive() == Acknowledgement(PacketType.PUBCOMP, 7)
            answer = await client.receive()
            assert answer == Acknowledgement(PacketType.PUBCOMP, 8, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
        assert rig.store.messages == [("up/d1", b"a")]


async def test_flags_and_properties_are_kept() -> None:
    """DUP and RETAIN, content type and user properties of a message reach the batch."""
    async with running_front() as rig, rig.client() as client:
        properties = PacketProperties(content_type="text/csv", user=(("unit", "Cel"),))
        client.publish("1", 3, retain=True, duplicate=True, properties=properties)
        await client.acknowledged(1)
        [batch] = rig.store.stored.values()
        assert batch.flags.tolist() == [3 | 1 << QOS_SHIFT | DUP | RETAIN]
        assert (batch.properties[0].content_type, batch.properties[0].user) == ("text/csv", (("unit", "Cel"),))
        assert (batch.clients, batch.credentials) == (["d1"], ["d1"])


@pytest.mark.parametrize(("version", "code"), [(Version.MQTT_3_1_1, 0), (Version.MQTT_5, ReasonCode.NOT_AUTHORIZED)])
@pytest.mark.parametrize(("qos", "kind"), [(1, PacketType.PUBACK), (2, PacketType.PUBREC)])
async def test_a_message_without_a_right_is_refused(version: Version, code: int, qos: int, kind: PacketType) -> None:
    """5.0 is told so; 3.1.1 has no word for it: acknowledged, not taken, counted. Its answer keeps its place."""
    async with running_front() as rig, rig.client("d1", version) as client:
        rig.store.held = True
        client.publish("mine", 1, qos=qos)
        await _until_stored(rig, 1)
        client.publish("not mine", 2, topic="up/d2", qos=qos)
        await client.silence()
        rig.store.release()
        answers = [await client.receive(), await client.receive()]
        assert answers == [Acknowledgement(kind, 1), Acknowledgement(kind, 2, code)]
        assert rig.store.messages == [("up/d1", b"mine")]
        assert rig.counts.refusals == [("d1", "publish", "up/d2")]


async def test_qos_0_is_taken_where_a_profile_asks_for_it() -> None:
    async with running_front() as rig, rig.client() as client:
        client.publish("dropped", qos=0)
        client.publish("taken", qos=0, topic="fast/d1")
        await _until_stored(rig, 1)
        client.send(Ping(PacketType.PINGREQ))
        assert await client.receive() == Ping(PacketType.PINGRESP)
        assert rig.store.messages == [("fast/d1", b"taken")]


async def test_topic_aliases() -> None:
    """MQTT-3.3.2-12: an alias stands for the topic that came with it last; one that stands for nothing is an error."""
    async with running_front() as rig, rig.client() as client:
        alias = PacketProperties(topic_alias=1)
        client.publish("a", 1, topic="up/d1", properties=alias)
        client.send(Publish("", b"b", 1, packet_id=2, properties=alias))
        client.publish("c", 3, topic="up/d1/x", properties=alias)
        client.send(Publish("", b"d", 1, packet_id=4, properties=alias))
        await client.acknowledged(4)
        assert [topic for topic, _ in rig.store.messages] == ["up/d1", "up/d1", "up/d1/x", "up/d1/x"]
        client.send(Publish("", b"e", 1, packet_id=5, properties=PacketProperties(topic_alias=2)))
        assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)
        assert await client.receive() is None


@pytest.mark.parametrize(("version", "code"), [(Version.MQTT_3_1, 5), (Version.MQTT_3_1_1, 5), (Version.MQTT_5, 0x87)])
async def test_a_wrong_password_is_answered(version: Version, code: int) -> None:
    """MQTT-3.1.4-5: CONNACK with a code other than 0, and the connection is closed."""
    async with running_front() as rig, rig.client("d1", version, password=b"wrong") as client:
        assert client.answer == ConnAck(code)
        assert await client.receive() is None


async def test_client_ids() -> None:
    """MQTT-3.1.3-8: without a client id a session cannot persist; 5.0 is told the one that it gets. Any characters."""
    async with running_front() as rig:
        async with rig.client("d1", Version.MQTT_3_1_1, client_id="", clean=False) as client:
            assert client.answer == ConnAck(2)
        async with rig.client("d1", Version.MQTT_3_1, client_id="") as client:
            assert client.answer == ConnAck(2)
        async with rig.client("d1", Version.MQTT_3_1_1, client_id="") as client:
            assert client.answer == ConnAck(0)
        async with rig.client("d1", client_id="") as client:
            assert client.answer.properties.assigned_client_id
        for client_id in ("sensor.01", "a b", "*", "x>y", "温度"):
            async with rig.client("d1", client_id=client_id) as client:
                assert client.answer.code == 0
                client.publish("1", 1)
                await client.acknowledged(1)
        assert [batch.clients for batch in rig.store.stored.values()][-1] == ["温度"]


async def test_connack_states_the_limits() -> None:
    limits: dict[str, Any] = {"inflight_max": 50, "packet_bytes_max": 2_000, "session_expiry_max_s": 10}
    async with running_front(**limits) as rig, rig.client(session_expiry_s=100) as client:
        stated = client.answer.properties
        assert (stated.receive_maximum, stated.maximum_packet_size, stated.session_expiry_s) == (50, 2_000, 10)
        assert (stated.shared_available, stated.subscription_ids_available, stated.retain_available) == (0, None, None)


@VERSIONS
async def test_the_newest_connection_of_a_device_takes_over(version: Version) -> None:
    """MQTT-3.1.4-3: the older one is closed, in 5.0 with 0x8E; what it had sent stands before what the newer sends."""
    async with running_front() as rig, rig.client("d1", version) as older:
        rig.store.held = True
        older.publish("old", 1)
        await _until_stored(rig, 1)
        async with rig.client("d1", version) as newer:
            newer.publish("new", 1)
            if version == Version.MQTT_5:
                assert await older.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
            assert await older.receive() is None
            await _until_stored(rig, 2)
            rig.store.release()
            assert await newer.acknowledged(1) == [1]
            assert [payload for _, payload in rig.store.messages] == [b"old", b"new"]


async def test_an_announcement_that_comes_late_closes_no_newer_connection() -> None:
    """Fronts tell each other who connected; the time of birth decides, not the time of arrival."""
    async with running_front() as rig, rig.client() as client:
        [connection] = rig.front._connections
        assert connection.key
        assert not rig.front.taken_over(connection.key, connection.born - 1)
        await client.silence()
        assert rig.front.taken_over(connection.key, connection.born + 1)
        assert await client.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)


async def test_a_disabled_device_is_disconnected() -> None:
    async with running_front() as rig, rig.client() as client:
        rig.front.disconnect("d1", ReasonCode.ADMINISTRATIVE_ACTION)
        assert await client.receive() == Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)
        assert await client.receive() is None


async def test_sessions_are_told() -> None:
    """MQTT-3.1.2-4..6: clean start ends a session; a session lives for its expiry interval, in 3.1.1 on and on."""
    async with running_front() as rig:
        for version, clean, present in (
            (Version.MQTT_3_1_1, False, False),
            (Version.MQTT_3_1_1, False, True),
            (Version.MQTT_3_1_1, True, False),
            (Version.MQTT_3_1_1, False, False),
            (Version.MQTT_5, False, True),
            (Version.MQTT_5, False, False),
        ):
            async with rig.client("d1", version, clean=clean) as client:
                assert client.answer.session_present is present, (version, clean)
                client.send(Disconnect())


async def test_a_session_expires() -> None:
    async with running_front() as rig:
        async with rig.client(clean=False, session_expiry_s=1):
            pass
        await asyncio.sleep(0.05)
        rig.front.sessions._sessions[next(iter(rig.front.sessions._sessions))].ended -= 1.0
        async with rig.client(clean=False) as client:
            assert not client.answer.session_present


@pytest.mark.slow
async def test_keep_alive() -> None:
    """MQTT-3.1.2-22: closed after one and a half intervals of silence; while we hold back reading, silence is ours."""
    async with (
        running_front() as rig,
        rig.client("d1", keep_alive_s=1) as silent,
        rig.client("d2", keep_alive_s=1) as held,
    ):
        [connection] = [each for each in rig.front._connections if each.device == "d2"]
        connection._hold("queue")
        assert await silent.receive() == Disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT)
        await held.silence(0.5)
        connection.resume()
        held.publish("alive", 1)
        await held.acknowledged(1)


async def test_limits() -> None:
    """A packet that is too large, more messages than the Receive Maximum, a topic alias or topic beyond the limits."""
    async with running_front(packet_bytes_max=1_000, inflight_max=4, topic_bytes_max=20) as rig:
        async with rig.client() as client:
            client.publish(bytes(1_001), 1)
            assert await client.receive() == Disconnect(ReasonCode.PACKET_TOO_LARGE)
        async with rig.client() as client:
            rig.store.held = True
            client.write(b"")
            for number in range(1, 6):
                client.publish("x", number)
            assert await client.receive() == Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
            rig.store.release()
        async with rig.client() as client:
            client.publish("x", 1, properties=PacketProperties(topic_alias=65))
            assert await client.receive() == Disconnect(ReasonCode.TOPIC_ALIAS_INVALID)
        async with rig.client() as client:
            client.publish("x", 1, topic=f"up/d1/{'x' * 20}")
            assert await client.receive() == Acknowledgement(PacketType.PUBACK, 1, ReasonCode.NOT_AUTHORIZED)
        assert rig.counts.limits["topic_bytes"] == 1


async def test_connections_are_limited() -> None:
    async with running_front(connections_per_address_max=1) as rig, rig.client(), rig.client("d2").silent() as other:
        other.send(other.connect)
        assert await other.receive() is None
        assert rig.counts.limits["mqtt_connections_per_address"] == 1
    async with running_front(connections_max=1) as rig, rig.client(), rig.client("d2").silent() as other:
        other.send(other.connect)
        assert await other.receive() is None
        assert rig.counts.limits["mqtt_connections"] == 1


async def test_a_connection_without_connect_is_closed() -> None:
    async with running_front(connect_timeout_s=0.2) as rig, rig.client().silent() as client:
        assert await client.receive() is None


async def test_a_connect_that_comes_byte_by_byte_is_closed() -> None:
    async with running_front(connect_timeout_s=0.6) as rig, rig.client().silent() as client:
        client.write(b"\x10\xff\x7f")
        closed = asyncio.ensure_future(client.receive())

        def next_byte() -> bool:
            client.write(b"a")
            return closed.done()

        assert await eventually(next_byte)
        assert closed.result() is None


async def test_a_client_of_3_1_1_is_held_back() -> None:
    """3.1.1 knows no Receive Maximum: its connection is not read while too much is not acknowledged."""
    async with running_front(inflight_max=4) as rig, rig.client("d1", Version.MQTT_3_1_1) as client:
        rig.store.held = True
        for number in range(1, 7):
            client.publish("x", number)
            if number <= 4:
                await _until_stored(rig, number)
        await client.silence()
        rig.store.release()
        assert await client.acknowledged(6) == [1, 2, 3, 4, 5, 6]


async def test_a_full_queue_holds_back_all() -> None:
    """Messages that the store does not take are bounded by bytes; reading goes on when there is room."""
    async with running_front(queue_bytes_max=4_000) as rig, rig.client("d1", Version.MQTT_3_1_1) as client:
        rig.store.away = True
        for number in range(1, 101):
            client.publish(bytes(1_000), number)
            await asyncio.sleep(0)
        await client.silence()
        waiting = sum(batch.bytes for batch in rig.front.writer._unstored) + rig.front.writer.open.bytes
        assert waiting < 4_000 + 300_000
        rig.store.away = False
        assert await client.acknowledged(100) == list(range(1, 101))


@VERSIONS
async def test_a_will_is_stored_when_a_connection_breaks(version: Version) -> None:
    """MQTT-3.1.2-8, 3.14.4-3: stored without DISCONNECT, dropped with it; in 5.0 after its delay, if at all."""
    will = Will("up/d1", b"gone", 1, retain=True)
    async with running_front() as rig:
        async with rig.client("d1", version, will=will) as client:
            client.send(Disconnect())
            assert await client.receive() is None
        async with rig.client("d1", version, will=will):
            pass
        await _until_stored(rig, 1)
        assert rig.store.flags == [1 << QOS_SHIFT | RETAIN | WILL]


async def test_a_delayed_will_is_dropped_when_the_client_is_back() -> None:
    will = Will("up/d1", b"gone", 1, properties=PacketProperties(will_delay_s=1))
    async with running_front() as rig:
        async with rig.client(session_expiry_s=60, will=will):
            pass
        async with rig.client(clean=False, session_expiry_s=60, will=will):
            pass
        assert rig.store.messages == []
        await _until_stored(rig, 1)
        assert rig.store.messages == [("up/d1", b"gone")]


async def test_a_will_without_a_right_is_refused() -> None:
    async with running_front() as rig, rig.client(will=Will("up/d2", b"x")) as client:
        assert client.answer == ConnAck(ReasonCode.NOT_AUTHORIZED)


async def test_subscriptions_that_are_not_offered_are_refused() -> None:
    """A filter without a right, shared or not valid has its code, also with an identifier; the connection goes on."""
    async with running_front() as rig, rig.client() as client:
        filters = ("down/d2", "$share/g/down/d1", "a#", "#")
        client.send(Subscribe(1, tuple(Subscription(topic_filter) for topic_filter in filters)))
        assert await client.receive() == SubAck(PacketType.SUBACK, 1, (0x87, 0x9E, 0x8F, 0x87))
        client.send(Unsubscribe(2, ("a", "b")))
        assert await client.receive() == SubAck(PacketType.UNSUBACK, 2, (0x11, 0x11))
        client.send(Subscribe(3, (Subscription("down/d2"),), PacketProperties(subscription_ids=(1,))))
        assert await client.receive() == SubAck(PacketType.SUBACK, 3, (0x87,))
        assert [refusal[1] for refusal in rig.counts.refusals] == ["subscribe"] * 3


async def test_an_unknown_version_is_answered_in_the_form_of_3_1_1() -> None:
    """MQTT-3.1.2-2: return code 1, then the connection is closed."""
    async with running_front() as rig, rig.client("d1", Version.MQTT_3_1_1).silent() as client:
        client.write(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01c")
        assert await client.receive() == ConnAck(1)
        assert await client.receive() is None


@pytest.mark.parametrize(
    "first",
    [
        b"\xc0\x00",
        b"\x30\x03\x00\x01a",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x10\xff\xff\xff\xff",
    ],
)
async def test_what_is_no_connect_is_closed(first: bytes) -> None:
    """MQTT-3.1.0-1: the first packet is CONNECT, or the connection is closed without an answer."""
    async with running_front() as rig, rig.client("d1", Version.MQTT_3_1_1).silent() as client:
        client.write(first)
        assert await client.receive() is None


async def test_a_front_that_ends_waits_for_no_client_that_has_gone() -> None:
    """A connection that the front has closed is read until its client has closed its side, also while it ends."""
    async with (
        running_front(close_timeout_s=60) as rig,
        rig.client("d1", Version.MQTT_3_1_1).silent() as client,
        asyncio.timeout(30),
    ):
        client.write(b"\xc0\x00")
        assert await client.receive() is None
        await rig.front.close(1.0)


async def test_a_second_connect_is_an_error() -> None:
    """MQTT-3.1.0-2."""
    async with running_front() as rig, rig.client() as client:
        client.send(client.connect)
        assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)


async def test_enhanced_authentication_is_refused() -> None:
    async with running_front() as rig, rig.client(authentication_method="SCRAM-SHA-256") as client:
        assert client.answer == ConnAck(ReasonCode.BAD_AUTHENTICATION_METHOD)


async def test_a_subscription_identifier_in_a_publish_is_an_error() -> None:
    """MQTT-3.3.4-6."""
    async with running_front() as rig, rig.client() as client:
        client.publish("1", 1, properties=PacketProperties(subscription_ids=(1,)))
        assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)


async def test_disconnect_sets_no_expiry_where_connect_had_none() -> None:
    """MQTT-3.14.2-2; a shorter or longer one is taken where there was one."""
    async with running_front() as rig:
        async with rig.client() as client:
            client.send(Disconnect(properties=PacketProperties(session_expiry_s=10)))
            assert await client.receive() == Disconnect(ReasonCode.PROTOCOL_ERROR)
        async with rig.client(session_expiry_s=60) as client:
            client.send(Disconnect(properties=PacketProperties(session_expiry_s=0)))
            assert await client.receive() is None
        async with rig.client(clean=False) as client:
            assert not client.answer.session_present


async def test_packets_behind_connect_are_not_lost() -> None:
    """MQTT-3.1.4-5 of 3.1.1: a client may send before the CONNACK has arrived."""
    async with running_front() as rig, rig.client("d1", Version.MQTT_3_1_1).silent() as client:
        client.send(client.connect, Publish("up/d1", b"early", 1, packet_id=1))
        assert await client.receive() == ConnAck(0)
        assert await client.acknowledged(1) == [1]


async def test_messages_taken_before_a_broken_packet_are_stored() -> None:
    """A packet that breaks the protocol costs itself and the connection."""
    async with running_front() as rig, rig.client() as client:
        client.send(Publish("up/d1", b"good", 1, packet_id=1), Publish("up/d1/+", b"bad", 1, packet_id=2))
        assert await client.receive() == Disconnect(ReasonCode.TOPIC_NAME_INVALID)
        await _until_stored(rig, 1)
        assert rig.store.messages == [("up/d1", b"good")]


async def test_a_stopping_front_acknowledges_what_it_took() -> None:
    async with running_front() as rig, rig.client() as client:
        rig.store.held = True
        client.publish("last", 1)
        await _until_stored(rig, 1)
        closing = asyncio.create_task(rig.front.close())
        rig.store.release()
        assert await client.acknowledged(1) == [1]
        assert await client.receive() == Disconnect(ReasonCode.SERVER_SHUTTING_DOWN)
        await client.drop()
        await closing


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_garbage_costs_its_own_connection_only(chunks: list[bytes]) -> None:
    """Whatever a client sends behind a good CONNECT, no error leaves the front, and another client is served."""

    async def scenario() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        async with running_front() as rig, rig.client("d1") as garbler, rig.client("d2") as other:
            for chunk in chunks:
                garbler.write(chunk)
                await asyncio.sleep(0)
            other.publish("1", 1)
            assert await other.acknowledged(1) == [1]
        assert errors == []

    asyncio.run(scenario())
