"""Sessions of devices in a bucket: every front knows which exist, also after the death of the one that had them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client

from sensegate.bus.kv import KvBucket
from sensegate.clock import FakeClock
from sensegate.collect.front.session_memory import ALIVE_SLACK_US, BUCKET, SharedSessions
from sensegate.collect.front.sessions import NEVER, MqttSession, SessionKey
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
        found = second.memory.find(KEY)
        assert found is not None
        assert (found.expiry_s, found.subscribed) == (60, True)
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
            found = first.memory.find(KEY)
            return found and found.expiry_s == 90

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
