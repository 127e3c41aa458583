"""Take-over: what the older connection of a device leaves behind, here and at other fronts."""

from __future__ import annotations

import asyncio

import pytest

from sensegate.collect.front.front import Alone
from sensegate.collect.front.packets import Disconnect, PacketProperties, PacketType, Ping, ReasonCode, Will
from sensegate.collect.front.sessions import MqttSession, SessionKey
from tests.collect.front.front_rig import FrontRig, PacketClient, running_front
from tests.conftest import eventually

KEY = SessionKey("d1", "d1")


def _will(payload: bytes, delay_s: int) -> Will:
    return Will("up/d1", payload, 1, properties=PacketProperties(will_delay_s=delay_s))


class Memory(Alone):
    """Notes which sessions are said to be begun and ended."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def put(self, key: SessionKey, session: MqttSession) -> bool:
        self.events.append(f"begun {key.client_id}")
        return True

    def end(self, key: SessionKey, session: MqttSession) -> None:
        self.events.append(f"ended {key.client_id}")


@pytest.mark.parametrize(("clean", "published"), [(False, []), (True, [b"gone"])])
async def test_the_delayed_will_of_a_connection_that_is_taken_over(*, clean: bool, published: list[bytes]) -> None:
    """MQTT-3.1.3-9: dropped, as the client is back; published where its session ends by Clean Start."""
    async with running_front() as rig, rig.client(session_expiry_s=60, will=_will(b"gone", 1)) as older:
        async with rig.client(clean=clean, session_expiry_s=60) as newer:
            assert await older.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
            assert await older.receive() is None
            await eventually(lambda: rig.front.connection_count == 1)
            assert not len(rig.front.delayed_wills)
            newer.publish("after", 1)
            await newer.acknowledged(1)
        assert [payload for _, payload in rig.store.messages] == [*published, b"after"]


@pytest.mark.parametrize(("clean", "published"), [(False, []), (True, [b"gone"])])
@pytest.mark.parametrize("is_open", [True, False])
async def test_the_will_of_a_client_that_is_back_at_another_front(
    *, is_open: bool, clean: bool, published: list[bytes]
) -> None:
    """MQTT-3.1.3-9: also where its connection was lost before. Control: a will without a delay is published."""
    async with running_front() as rig:
        client = await rig.client(session_expiry_s=60, will=_will(b"gone", 30)).__aenter__()
        if not is_open:
            await client.drop()
            await eventually(lambda: len(rig.front.delayed_wills))
        rig.front.taken_over(KEY, rig.front.clock.now() + 1, clean=clean)
        if is_open:
            assert await client.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
            await client.drop()
        await eventually(lambda: rig.front.connection_count == 0)
        assert not len(rig.front.delayed_wills)
        async with rig.client(session_expiry_s=60, will=_will(b"at once", 0)) as client:
            rig.front.taken_over(KEY, rig.front.clock.now() + 1)
            assert await client.receive() == Disconnect(ReasonCode.SESSION_TAKEN_OVER)
        await eventually(lambda: [payload for _, payload in rig.store.messages] == [*published, b"at once"])


async def test_a_device_has_one_will_that_waits() -> None:
    """Under many client ids a device would otherwise leave as many; the earlier one is published, not lost."""
    async with running_front() as rig:
        for number in range(5):
            will = _will(str(number).encode(), 1_000)
            async with rig.client(client_id=f"c{number}", session_expiry_s=2_000, will=will):
                pass
            await eventually(lambda: rig.front.connection_count == 0)
        assert len(rig.front.delayed_wills) == 1
        await eventually(lambda: [payload for _, payload in rig.store.messages] == [b"0", b"1", b"2", b"3"])


async def test_an_older_connection_does_not_end_the_session_of_a_newer_one() -> None:
    """The older connection ends after the newer one has begun; the session stays that of the newer one."""
    memory = Memory()
    async with running_front(memory=memory) as rig:
        older = await rig.client(session_expiry_s=60).__aenter__()
        async with rig.client(clean=False, session_expiry_s=60) as newer:
            assert newer.answer.session_present
            await older.drop()
            await eventually(lambda: rig.front.connection_count == 1)
            assert memory.events == ["begun d1", "begun d1"]
            [session] = rig.front.sessions._sessions.values()
            assert session.holder is not None
        await eventually(lambda: memory.events == ["begun d1", "begun d1", "ended d1"])


async def _waiting(rig: FrontRig) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(rig.front.writer.drain(30.0)) for _ in range(2)]


async def test_a_take_over_waits_for_what_was_taken_before_it() -> None:
    """Not for what comes afterwards: under load something always does. Without messages it does not wait."""
    async with running_front() as rig, rig.client() as client:
        assert await rig.front.writer.drain(0.0)
        rig.store.held = True
        client.publish("before", 1)
        await eventually(lambda: rig.store.sent == [1])
        drains = await _waiting(rig)
        await eventually(lambda: len(rig.front.writer._drains) == 2)
        client.publish("after", 2)
        await eventually(lambda: rig.store.sent == [1, 2])
        assert not any(task.done() for task in drains)
        rig.front.writer.answered(1, 1, "")
        assert await asyncio.gather(*drains) == [True, True]
        assert not await rig.front.writer.drain(0.0)


async def _alive(clients: list[PacketClient]) -> list[PacketClient]:
    """Return the clients that are not disconnected; each that is has been told why, if it was let in."""
    alive = []
    for client in clients:
        client.send(Ping(PacketType.PINGREQ))
        while packet := await client.receive():
            if isinstance(packet, Ping):
                alive.append(client)
                break
    return alive


async def test_of_connections_that_come_at_once_one_remains() -> None:
    """The newest of a device, whatever the order in which their CONNECTs are done: an older one would be forgotten.

    What is forgotten is not closed either when the device is disabled.
    """
    async with running_front(memory=SlowMemory()) as rig:
        clients = [rig.client(clean=False, session_expiry_s=60) for _ in range(12)]
        for client in clients:
            await client.open()
            client.send(client.connect)
        await eventually(lambda: rig.front.connection_count == 1)
        [remaining] = await _alive(clients)
        rig.front.disconnect("d1", ReasonCode.ADMINISTRATIVE_ACTION)
        assert await remaining.receive() == Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)
        for client in clients:
            await client.drop()


class SlowMemory(Memory):
    """Answers after all who wait have asked."""

    async def put(self, key: SessionKey, session: MqttSession) -> bool:
        for _ in range(50):
            await asyncio.sleep(0)
        return await super().put(key, session)


async def test_a_connection_that_waits_is_taken_over_by_another_front() -> None:
    """Two fronts that admit a device at the same time: the newer announces itself, the other is not answered."""
    async with running_front(memory=SlowMemory()) as rig, rig.client(session_expiry_s=60).silent() as client:
        client.send(client.connect)
        await eventually(rig.front.devices, every_s=0)
        assert rig.front.taken_over(KEY, rig.front.clock.now() + 1)
        assert await client.receive() is None
        await eventually(lambda: rig.front.connection_count == 0)
        assert rig.front.devices() == []
