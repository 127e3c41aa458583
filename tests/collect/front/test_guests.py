"""Clients that are no devices at a front: who takes over from them, what becomes of their wills and messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sensegate.collect.front import front as front_module
from sensegate.collect.front.front import FrontPeers
from sensegate.collect.front.messages import ServicePublish, ServiceSubscribe
from sensegate.collect.front.packets import (
    Acknowledgement,
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
from sensegate.collect.front.services import FEEDS, ServiceConversation, ServiceUser
from sensegate.collect.front.sessions import SESSIONS_PER_CREDENTIAL, SessionKey
from sensegate.collect.front.wills import GUEST_WILLS_MAX, DelayedWills, GuestWills, PendingWill
from sensegate.errors import Unavailable
from tests.collect.front.front_rig import FrontRig, PacketClient, running_front
from tests.collect.front.stand_in_broker import StandInBroker, stand_in_broker
from tests.conftest import eventually

TOKEN = "sg_1"
CONTROL = "sg/control/g1/mqtt"
KEY = SessionKey(TOKEN, TOKEN)


@pytest.fixture(autouse=True)
def short_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what the front waits for."""
    monkeypatch.setattr(front_module, "TICK_S", 0.02)
    monkeypatch.setattr(front_module, "TAKE_OVER_NOTICE_S", 0.05)


class FeedsGateway:
    """A gateway that takes control messages of one grant, or does not answer."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.refused = self.unanswered = 0
        self.is_away = False

    async def publish(self, request: ServicePublish) -> int:
        if self.is_away:
            self.unanswered += 1
            raise Unavailable("no answer")
        if (request.token, request.service, request.topic) != (TOKEN, FEEDS, CONTROL):
            self.refused += 1
            return ReasonCode.NOT_AUTHORIZED
        self.taken.append(request.payload)
        return ReasonCode.SUCCESS

    async def subscribe(self, request: ServiceSubscribe) -> tuple[int, ...]:
        raise AssertionError("the broker behind decides on subscriptions to feeds")


class GuestRig(msgspec.Struct, frozen=True, eq=False):
    """A front with a broker and a gateway behind it."""

    front: FrontRig
    broker: StandInBroker
    gateway: FeedsGateway

    def client(self, name: str = TOKEN, version: Version = Version.MQTT_5, **connect: Any) -> PacketClient:
        return self.front.client(TOKEN, version, client_id=name, **connect)

    @property
    def guests(self) -> int:
        return len(self.front.front._guests)


@contextlib.asynccontextmanager
async def guests() -> AsyncIterator[GuestRig]:
    """Run a front on which the clients with the user name `TOKEN` are guests."""
    gateway = FeedsGateway()
    async with (
        stand_in_broker() as (broker, address),
        running_front(beside=FrontPeers(address, services=gateway), guests={TOKEN}) as front,
    ):
        yield GuestRig(front, broker, gateway)


def _will(payload: bytes, delay_s: int, topic: str = CONTROL) -> Will:
    return Will(topic, payload, 1, properties=PacketProperties(will_delay_s=delay_s))


# ── take-over ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_newer_connection_takes_over_however_slow_the_broker_is() -> None:
    """MQTT-3.1.4-3: the broker closes the older connection before it answers the newer one: 0x8E all the same.

    Control: a client of the same token with another client id stays.
    """
    async with guests() as rig, rig.client() as older, rig.client(f"{TOKEN}-b") as other:
        rig.broker.hold()
        newer = rig.client()
        connecting = asyncio.create_task(newer.__aenter__())
        await eventually(lambda: rig.front.front._cut_off)
        [due] = rig.front.front._cut_off.values()
        await eventually(lambda: rig.front.front.seconds > due + 0.1)
        rig.broker.release()
        await connecting
        assert await older.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
        assert await older.receive() is None
        other.send(Ping(PacketType.PINGREQ))
        assert await other.receive() == Ping(PacketType.PINGRESP)
        await newer.drop()


async def test_a_newer_connection_at_another_front_takes_over() -> None:
    """A take-over is announced; an older connection, and another client id, take nothing over (controls)."""
    async with guests() as rig, rig.client() as client:
        front = rig.front.front
        [connection] = front._guests.values()
        assert not front.taken_over(KEY, connection.born - 1)
        assert not front.taken_over(SessionKey(TOKEN, "another"), connection.born + 1)
        front.announced(KEY)
        rig.broker.drop(TOKEN)
        await eventually(lambda: front._cut_off)
        [due] = front._cut_off.values()
        await eventually(lambda: front.seconds > due + 0.1)  # the broker takes its time with the newer one
        assert front.taken_over(KEY, connection.born + 1)
        assert await client.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
        assert await client.receive() is None
        await eventually(lambda: not rig.guests)


@pytest.mark.parametrize("version", [Version.MQTT_3_1_1, Version.MQTT_5])
async def test_a_client_whose_broker_is_lost_has_to_come_back(version: Version) -> None:
    """Nobody has taken it over: 0x89; what it had not acknowledged is forgotten, as a new broker reuses packet ids."""
    async with guests() as rig, rig.client(version=version) as client:
        [connection] = rig.front.front._guests.values()
        connection.session.unacknowledged.add(Publish("a", b"x", 1, packet_id=1), 0.0)
        rig.broker.drop(TOKEN)
        if version == Version.MQTT_5:
            assert await client.receive() == Disconnect(ReasonCode.SERVER_BUSY)
        assert await client.receive() is None
        assert not len(connection.session.unacknowledged)
        await eventually(lambda: not rig.guests)


@pytest.mark.parametrize(("closes", "code"), [(1, ReasonCode.SUCCESS), (2, ReasonCode.SERVER_UNAVAILABLE)])
async def test_a_broker_that_closes_without_an_answer_is_asked_once_more(closes: int, code: ReasonCode) -> None:
    """The server closes without an answer when a client id is taken over twice a second; that refuses no client."""
    async with guests() as rig:
        rig.broker.closes = closes
        async with rig.client() as client:
            assert client.answer.code == code


# ── wills ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("clean", "published"), [(False, []), (True, [b"gone"])])
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_delayed_will_of_a_client_that_is_back(*, is_open: bool, clean: bool, published: list[bytes]) -> None:
    """MQTT-3.1.3-9: dropped, also where its connection was lost before; published where Clean Start ends the session.

    Control: a will without a delay is published.
    """
    async with guests() as rig:
        client = await rig.client(session_expiry_s=60, will=_will(b"gone", 30)).__aenter__()
        assert rig.broker.connects[-1].will is None, "the broker would publish it at once"
        if not is_open:
            await client.drop()
            await eventually(lambda: len(rig.front.front.delayed_wills) == 1)
        async with rig.client(clean=clean, session_expiry_s=60, will=_will(b"at once", 0)):
            if is_open:
                assert await client.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
                await client.drop()
            await eventually(lambda: rig.guests == 1)
            assert not len(rig.front.front.delayed_wills)
        await eventually(lambda: rig.gateway.taken == [*published, b"at once"])


async def test_a_disconnect_drops_the_will_and_another_asks_for_it() -> None:
    """MQTT-3.14.4-3: DISCONNECT with 0x00 drops it, with 0x04 publishes it."""
    async with guests() as rig:
        for code in (ReasonCode.SUCCESS, ReasonCode.DISCONNECT_WITH_WILL):
            async with rig.client(will=_will(code.name.encode(), 0)) as client:
                client.send(Disconnect(code))
                assert await client.receive() is None
            await eventually(lambda: not rig.guests)
        await eventually(lambda: rig.gateway.taken == [b"DISCONNECT_WITH_WILL"])


async def test_a_will_that_the_gateway_does_not_take_holds_up_no_other() -> None:
    """A will without a right, and a will while the gateway is away, are lost; the next will is published."""
    gateway, hits = FeedsGateway(), list[str]()
    wills, service = GuestWills(hits.append), ServiceConversation(ServiceUser(TOKEN, FEEDS), gateway)
    running = asyncio.create_task(wills.run())
    wills.publish(service, _will(b"refused", 0, "elsewhere"))
    await eventually(lambda: gateway.refused)
    gateway.is_away = True
    wills.publish(service, _will(b"lost", 0))
    await eventually(lambda: gateway.unanswered)
    gateway.is_away = False
    wills.publish(service, _will(b"published", 0))
    await eventually(lambda: gateway.taken == [b"published"])
    running.cancel()
    for number in range(GUEST_WILLS_MAX + 1):
        wills.publish(service, _will(str(number).encode(), 0))
    assert hits == ["mqtt_wills"]


def test_wills_wait_for_their_delay() -> None:
    """Each is published when it is due, not before; of too many of a credential the oldest at once."""
    published: list[bytes] = []
    wills = DelayedWills()

    def wait(client_id: str, due: float) -> None:
        will = PendingWill(lambda will: published.append(will.payload))
        will.keep(_will(client_id.encode(), 5))
        assert will.connection_lost(60) == 5
        wills.add(SessionKey(TOKEN, client_id), will, due, most=SESSIONS_PER_CREDENTIAL)

    wait("a", 5.0)
    wait("b", 6.0)
    wills.publish_due(4.9)
    assert published == []
    wills.publish_due(5.0)
    assert published == [b"a"]
    wait("b", 7.0)
    assert published == [b"a", b"b"], "a later connection of the client has ended: its will replaces the earlier one"
    for number in range(SESSIONS_PER_CREDENTIAL):
        wait(f"c{number}", 9.0)
    assert published == [b"a", b"b", b"b"]
    assert len(wills) == SESSIONS_PER_CREDENTIAL


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [Version.MQTT_3_1_1, Version.MQTT_5])
async def test_a_message_without_a_right_is_refused(version: Version) -> None:
    """5.0 is told 0x87, 3.1.1 has no word for it; it is counted. Control: a control message is taken."""
    async with guests() as rig, rig.client(version=version) as client:
        refused = ReasonCode.NOT_AUTHORIZED if version == Version.MQTT_5 else 0
        for number, topic in enumerate(("sg/control/g2/mqtt", "white space", CONTROL), 1):
            client.publish("x", number, topic=topic)
            code = 0 if topic == CONTROL else refused
            assert await client.receive() == Acknowledgement(PacketType.PUBACK, number, code)
        client.publish("y", 0, topic=CONTROL, qos=0)
        await eventually(lambda: rig.gateway.taken == [b"x", b"y"])
        refusals = [(TOKEN, "publish", topic) for topic in ("sg/control/g2/mqtt", "white space")]
        assert rig.front.counts.refusals == refusals


async def test_packets_behind_a_message_wait_for_its_answer() -> None:
    """The answers are in the order of the packets, though the gateway answers some and the broker others."""
    async with guests() as rig, rig.client() as client:
        client.send(
            Publish(CONTROL, b"1", 1, packet_id=1),
            Publish(CONTROL, b"2", 1, packet_id=2),
            Subscribe(3, (Subscription("sg/grants/g1/#", 1),)),
            Publish(CONTROL, b"3", 1, packet_id=4),
            Ping(PacketType.PINGREQ),
        )
        assert [await client.receive() for _ in range(5)] == [
            Acknowledgement(PacketType.PUBACK, 1),
            Acknowledgement(PacketType.PUBACK, 2),
            SubAck(PacketType.SUBACK, 3, (1,)),
            Acknowledgement(PacketType.PUBACK, 4),
            Ping(PacketType.PINGRESP),
        ]
        assert rig.gateway.taken == [b"1", b"2", b"3"]


async def test_a_message_that_the_gateway_does_not_take_is_not_acknowledged() -> None:
    """The client is disconnected (0x89), so that it sends the message again."""
    async with guests() as rig, rig.client() as client:
        rig.gateway.is_away = True
        client.publish("x", 1, topic=CONTROL)
        assert await client.receive() == Disconnect(ReasonCode.SERVER_BUSY)
        assert await client.receive() is None
        await eventually(lambda: not rig.guests)
