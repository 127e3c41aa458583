"""Sessions of devices in a bucket: every front knows which exist, also after the death of the one that had them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from nats.aio.client import Client

from sensegate.bus.kv import KvBucket
from sensegate.clock import FakeClock
from sensegate.collect.front.packets import Acknowledgement, PacketType, Version
from sensegate.collect.front.session_memory import (
    ALIVE_SLACK_US,
    BUCKET,
    SharedSessions,
    StoredSession,
)
from sensegate.collect.front.sessions import NEVER, SESSIONS_PER_CREDENTIAL, MqttSession, SessionKey
from tests.collect.front.front_rig import FrontRig, running_front
from tests.conftest import eventually

KEY = SessionKey("d1", "client " * 40)


def session(expiry_s: int, *, subscribed: bool = False) -> MqttSession:
    """Return a session."""
    made = MqttSession()
    made.expiry_s, made.subscribed = expiry_s, subscribed
    return made


class OneFront:
    """A front's memory of sessions, with what it was told to forget."""

    def __init__(self, memory: SharedSessions, forgotten: list[SessionKey]) -> None:
        self.memory = memory
        self.forgotten = forgotten


@contextlib.asynccontextmanager
async def front(connection: Client, name: str, clock: FakeClock) -> AsyncIterator[OneFront]:
    """Run the memory of a front; what ends without `end` is as after a kill."""
    bucket = await KvBucket.open(connection, BUCKET, bytes_max=1024**2)
    forgotten: list[SessionKey] = []
    memory = SharedSessions(bucket, name, clock, forgotten.append)
    await memory.open()
    running = asyncio.create_task(memory.run())
    try:
        yield OneFront(memory, forgotten)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bucket.close()


async def test_a_session_is_present_at_another_front(gateway: Client) -> None:
    """After its front has died, until its expiry since that front was last alive; without expiry it ends at once.

    Control: a client that asked for no session has none.
    """
    clock = FakeClock()
    async with front(gateway, "a", clock) as first:
        await first.memory.put(KEY, session(60, subscribed=True))
        await first.memory.put(SessionKey("d2", "d2"), session(0))
        await first.memory.put(SessionKey("d3", "d3"), session(NEVER))
    async with front(gateway, "b", clock) as second:
        match = second.memory.find(KEY)
        assert match is not None
        assert (match.expiry_s, match.subscribed) == (60, True)
        assert second.memory.find(SessionKey("d2", "d2")) is None
        await clock.advance(ALIVE_SLACK_US / 1e6 + 1)
        assert second.memory.find(KEY) is not None
        await clock.advance(60)
        assert second.memory.find(KEY) is None, "expired"
        assert second.memory.find(SessionKey("d3", "d3")) is not None, "never expires"


async def test_a_session_that_moves_is_forgotten_where_it_was(gateway: Client) -> None:
    """What another front continues, or ends, is not continued from the memory of the one before."""
    clock = FakeClock()
    async with front(gateway, "a", clock) as first, front(gateway, "b", clock) as second:
        await first.memory.put(KEY, session(60))
        await eventually(lambda: second.memory.find(KEY))
        await second.memory.put(KEY, session(90))
        await eventually(lambda: first.forgotten == [KEY])

        def is_updated() -> Any:
            match = first.memory.find(KEY)
            return match and match.expiry_s == 90

        assert is_updated()
        first.memory.end(KEY, session(60))  # the older connection ends after the newer has begun
        await second.memory.put(KEY, session(0))
        await eventually(lambda: first.memory.find(KEY) is None)


async def test_an_ended_connection_begins_the_expiry(gateway: Client) -> None:
    """The other fronts count from the end of the connection, not from its begin."""
    clock = FakeClock()
    async with front(gateway, "a", clock) as first, front(gateway, "b", clock) as second:
        await first.memory.put(KEY, session(60))
        await clock.advance(1_000)
        first.memory.end(KEY, session(60))
        await clock.advance(59)

        def is_ended() -> bool:
            rows = list(second.memory._rows.values())
            return bool(rows) and not rows[0].holder

        await eventually(is_ended)
        assert second.memory.find(KEY) is not None
        await clock.advance(1)
        assert second.memory.find(KEY) is None
        assert first.memory.find(KEY) is None


async def test_a_packet_id_released_at_another_front_is_free(gateway: Client) -> None:
    """A new QoS 2 message with an id that this front still remembers is stored, not taken for a repeated one.

    The device leaves the first front between PUBREC and PUBREL, releases the id at the second and comes back. Control:
    a device that was nowhere else meanwhile has its repeated message answered and not stored again.
    """
    clock = FakeClock()
    async with front(gateway, "a", clock) as a, front(gateway, "b", clock) as b:
        async with running_front(memory=a.memory) as first, running_front(memory=b.memory) as second:
            await publish(first, "moving", 7, "1")
            await publish(first, "staying", 7, "1")
            # The second front is new to the session; nothing of the first may be in the way of the release.
            await publish(second, "moving", 7, "1", duplicate=True, release=True)
            await publish(second, "moving", 7, "2", release=True)
            await publish(first, "moving", 7, "3", release=True)
            await publish(first, "staying", 7, "1", duplicate=True, release=True)
        assert first.store.messages == [("up/moving", b"1"), ("up/staying", b"1"), ("up/moving", b"3")]
        assert second.store.messages == [("up/moving", b"1"), ("up/moving", b"2")]


async def test_a_late_end_does_not_overwrite_another_front(gateway: Client) -> None:
    """A connection's end that is written after another front took the session over is not written."""
    clock = FakeClock()
    async with front(gateway, "a", clock) as a, front(gateway, "b", clock) as b:
        assert not await a.memory.put(KEY, session(60)), "nobody knows who held it before"
        assert await a.memory.put(KEY, session(60)), "only this front has"
        await b.memory.put(KEY, session(60))
        a.memory.end(KEY, session(60))
        await eventually(lambda: not a.memory._ended)
        await a.memory.put(SessionKey("d2", "d2"), session(60))  # answered after the end, if that was sent
        bucket = await KvBucket.open(gateway, BUCKET, bytes_max=1024**2)
        rows, _ = await bucket.load_all()
        holders = {
            msgspec.msgpack.decode(row.value or b"", type=StoredSession).holder for row in rows if len(row.key) == 32
        }
        assert holders == {"a", "b"}
        await bucket.close()


async def publish(
    rig: FrontRig, device: str, packet_id: int, payload: str, *, duplicate: bool = False, release: bool = False
) -> None:
    """Connect, publish at QoS 2 until PUBREC or, with `release`, PUBCOMP, and break the connection."""
    async with rig.client(device, Version.MQTT_3_1_1, clean=False) as client:
        client.publish(payload, packet_id, qos=2, duplicate=duplicate)
        assert await client.acknowledged(1, PacketType.PUBREC) == [packet_id]
        if release:
            client.send(Acknowledgement(PacketType.PUBREL, packet_id))
            assert await client.acknowledged(1, PacketType.PUBCOMP) == [packet_id]
    key = SessionKey(device, device)
    await eventually(lambda: (known := rig.front.sessions.find(key, 0.0)) is None or known.holder is None)


async def test_client_ids_without_end_cost_their_credential_only(gateway: Client) -> None:
    """A client id of its own making at each connect: the oldest sessions of that credential go, at every front.

    One that is connected stays, and so do those of others.
    """
    clock = FakeClock()
    held, other = SessionKey("d1", "held"), SessionKey("d2", "d2")
    async with front(gateway, "a", clock) as first, front(gateway, "b", clock) as second:
        await first.memory.put(other, session(60))
        await first.memory.put(held, session(60))
        keys = [SessionKey("d1", f"c{number}") for number in range(2 * SESSIONS_PER_CREDENTIAL)]
        for key in keys:
            await first.memory.put(key, session(60))
            first.memory.end(key, session(60))
        for memory in (first.memory, second.memory):

            def kept(memory: SharedSessions = memory) -> Any:
                selected = [key for key in keys if memory.find(key)]
                return selected == keys[-len(selected) :] and len(selected) <= SESSIONS_PER_CREDENTIAL and selected

            await eventually(kept)
            assert memory.find(held)
            assert memory.find(other)


async def test_sessions_of_a_process_are_limited_for_each_credential() -> None:
    """A front keeps as few sessions without a connection for a credential as the memory of all fronts does."""
    async with running_front() as rig:
        async with rig.client("d2", session_expiry_s=60):
            pass
        for number in range(2 * SESSIONS_PER_CREDENTIAL):
            async with rig.client("d1", client_id=f"c{number}", session_expiry_s=60) as client:
                assert client.answer.code == 0
        await eventually(lambda: rig.front.connection_count == 0)
        assert len(rig.front.sessions) <= SESSIONS_PER_CREDENTIAL + 1
        assert rig.front.sessions.find(SessionKey("d2", "d2"), rig.front.seconds)
        assert rig.front.sessions.find(SessionKey("d1", f"c{number}"), rig.front.seconds)
