"""Open connections: those of a user are closed twice, the second time when its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from sensegate.authority.connections import DeviceConnections
from sensegate.bus import server_conf
from sensegate.bus.engine import Connection
from sensegate.clock import FakeClock
from sensegate.errors import Unavailable


class _Server:
    """A server that remembers which users it was asked to list."""

    def __init__(self) -> None:
        self.open: dict[int, str] = {}
        self.listed: list[str] = []
        self.failing: set[str] = set()
        """Users whose connections it does not list."""

    async def connect(self, user: server_conf.User) -> Client:
        raise AssertionError(f"nothing connects as {user} here")

    async def connections(self, account: str, **selection: object) -> list[Connection]:
        assert account == "devices"
        self.listed.append(str(selection["user"]))
        if selection["user"] in self.failing:
            raise Unavailable("the server did not answer CONNZ")
        return [
            Connection(cid=cid, authorized_user=user, mqtt_client=f"c{cid}")
            for cid, user in self.open.items()
            if user == selection["user"]
        ]

    async def close_connection(self, cid: int) -> None:
        del self.open[cid]


@pytest.fixture
async def server() -> _Server:
    return _Server()


@pytest.fixture
async def connections(server: _Server, clock: FakeClock) -> AsyncIterator[DeviceConnections]:
    """The closing of connections, as `start` runs it."""
    opened = DeviceConnections(server, "devices", clock)
    task = asyncio.create_task(opened._close_all())
    yield opened
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def passed(clock: FakeClock, seconds: float) -> None:
    """Let tasks begin to wait, then let the time pass."""
    for _ in range(10):
        await asyncio.sleep(0)
    await clock.advance(seconds)


async def test_the_second_pass_of_a_user_has_its_own_time(
    connections: DeviceConnections, server: _Server, clock: FakeClock
) -> None:
    """Another close neither brings it forward nor cancels it: what was accepted meanwhile is closed too."""
    server.open[1] = "a"
    connections.close("a", for_good=True)
    await passed(clock, 0.1)
    assert server.open == {}
    connections.close("b")
    await passed(clock, 0.1)
    server.open[2] = "a"
    assert server.listed == ["a", "b"]
    await passed(clock, 1)
    assert server.listed == ["a", "b", "a", "b"]
    assert server.open == {}


async def test_a_user_who_waits_for_the_server_holds_up_nobody(
    connections: DeviceConnections, server: _Server, clock: FakeClock
) -> None:
    """The server does not answer for one user: others are closed, and that one as soon as it does, twice too."""
    server.open = {1: "a", 2: "b"}
    server.failing.add("a")
    connections.close("a", for_good=True)
    await passed(clock, 0.1)
    connections.close("b", for_good=True)
    await passed(clock, 0.1)
    assert server.open == {1: "a"}
    connections.close("a")  # which may connect again by now: what was promised for good is still closed
    await passed(clock, 0.3)
    server.failing.clear()
    server.open[3] = "a"
    await passed(clock, 0.3)
    assert server.open == {}
    server.open[4] = "a"
    await passed(clock, 0.6)
    assert server.open == {}


async def test_a_restarted_server_gives_the_same_ids_to_others(server: _Server, clock: FakeClock) -> None:
    """It does not report the end of its earlier connections: new ones replace their entries."""
    opened = DeviceConnections(server, "devices", clock)
    opened.opened(7, "a", "ca")
    opened.opened(7, "b", "cb")
    assert opened.rival("b", "another") == 7
    assert opened.rival("c", "cb") == 7
    assert opened.rival("a", "another") is None
    assert len(opened) == 1
