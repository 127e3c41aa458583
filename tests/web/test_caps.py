"""Caps of connections by address, of requests and streams by caller, and the reserve for health and administrators."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sensegate import metrics
from sensegate.authority.scope import Role
from sensegate.config import WebConfig
from sensegate.errors import Overloaded
from sensegate.web import limits
from sensegate.web.quotas import CallerQuota
from tests.conftest import eventually
from tests.web.serving import Gateway, serving

CONNECTIONS = 4_000 if os.environ.get("SENSEGATE_SOAK") else 320
HALF_BODY = (
    b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
STREAM = "/api/v1/feeds/all/stream"
LONG_POLL = "/api/v1/feeds/all/records?wait=30"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Flood:
    """Connections from addresses of their own, which send half a request and wait."""

    def __init__(self, gateway: Gateway) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self.open: list[Connection] = []

    async def send(self, count: int, address: str, data: bytes = HALF_BODY) -> None:
        """Open connections from an address, fifty at a time."""
        for start in range(0, count, 50):
            batch = (self._connect(address, data) for _ in range(min(50, count - start)))
            self.open += await asyncio.gather(*batch)

    async def _connect(self, address: str, data: bytes) -> Connection:
        reader, writer = await asyncio.open_connection(*self._target, local_addr=(address, 0))
        writer.write(data)
        return reader, writer

    async def refusals(self) -> list[bytes]:
        """Return the responses to the connections that were closed at once."""
        await asyncio.sleep(0)
        return [await reader.read() for reader, _ in self.open if reader._buffer]  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self.open:
            writer.transport.abort()
        self.open.clear()


@contextlib.contextmanager
def flooding(gateway: Gateway) -> Iterator[Flood]:
    flood = Flood(gateway)
    try:
        yield flood
    finally:
        flood.close()


async def request(gateway: Gateway, path: str, token: str = "") -> tuple[int, Any, Mapping[str, str]]:
    """Ask over a new connection; return status, body and headers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.get(gateway.url + path, headers=headers) as response:
        body = await response.read()
        is_json = response.content_type.endswith("json")
        return response.status, msgspec.json.decode(body) if is_json else body, response.headers


async def test_half_bodies_of_one_address_leave_the_others_served() -> None:
    """An address has at most half of the connections: the rest gets 429 with Retry-After and the key."""
    async with serving(WebConfig(connections_max=CONNECTIONS)) as gateway:
        subscriber = await gateway.token(Role.SUBSCRIBER)
        with flooding(gateway) as flood:
            await flood.send(CONNECTIONS, "127.0.0.2")
            for path, token in (("/healthz", ""), ("/api/v1/feeds", subscriber), ("/readyz", "")):
                assert (await request(gateway, path, token))[0] == 200
            refusals = await flood.refusals()
            assert len(refusals) >= CONNECTIONS // 2 - limits.RESERVED_PER_ADDRESS_MAX
            head, _, body = refusals[0].partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 Too Many Requests")
            assert b"Retry-After: 5" in head
            assert b"application/problem+json" in head
            problem = msgspec.json.decode(body)
            assert problem["status"] == 429
            assert "web.connections_per_address_max" in problem["detail"]


async def test_the_reserve_serves_health_and_administrators_alone() -> None:
    """With all ordinary connections held, others get 503 with what to do; when the flood ends they are served."""
    async with serving(WebConfig(connections_max=CONNECTIONS)) as gateway:
        admin, subscriber = await gateway.token(Role.ADMIN), await gateway.token(Role.SUBSCRIBER)
        with flooding(gateway) as flood:
            for number in range(2, 8):
                await flood.send(CONNECTIONS // 5, f"127.0.0.{number}")
            for path, token in (("/healthz", ""), ("/readyz", ""), ("/metrics", ""), ("/api/v1/devices", admin)):
                status, _, headers = await request(gateway, path, token)
                assert (path, status) == (path, 200)
                assert headers["Connection"] == "close"
            status, problem, headers = await request(gateway, "/api/v1/feeds", subscriber)
            assert status == 503
            assert headers["Retry-After"] == "5"
            assert "web.connections_max" in problem["detail"]
        async with asyncio.timeout(60):
            while (await request(gateway, "/api/v1/feeds", subscriber))[0] != 200:
                await asyncio.sleep(0)


async def test_the_reserve_cannot_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that hold the reserve with half a head or half a body are cut soon."""
    monkeypatch.setattr(limits, "RESERVED_TIMEOUT_S", 0.3)
    async with serving(WebConfig(connections_max=CONNECTIONS)) as gateway:
        with flooding(gateway) as flood:
            for number in range(2, 8):
                await flood.send(CONNECTIONS // 5, f"127.0.0.{number}")
            for number in range(10, 20):
                await flood.send(2, f"127.0.0.{number}", b"GET /hea")
                await flood.send(2, f"127.0.0.{number}")
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        if (await request(gateway, "/healthz"))[0] == 200:
                            break
                    await asyncio.sleep(0)


async def test_without_caps_a_flood_shuts_the_listener() -> None:
    """Control: with a cap by address as high as that of all, and too few connections for a reserve, health fails."""
    async with serving(WebConfig(connections_max=15, connections_per_address_max=15)) as gateway:
        with flooding(gateway) as flood:
            await flood.send(15, "127.0.0.2")
            reader, writer = await flood._connect("127.0.0.1", b"")
            async with asyncio.timeout(30):
                response = await reader.read()
            writer.close()
            assert response.startswith(b"HTTP/1.1 503")
            assert b"web.connections_max" in response


@contextlib.asynccontextmanager
async def streams(gateway: Gateway, token: str, count: int) -> AsyncIterator[list[aiohttp.ClientResponse]]:
    """Open server-sent events of one token, fifty at a time."""
    headers = {"Authorization": f"Bearer {token}"}
    responses: list[aiohttp.ClientResponse] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        for start in range(0, count, 50):
            batch = (session.get(gateway.url + STREAM) for _ in range(min(50, count - start)))
            responses += await asyncio.gather(*batch)
        yield responses
        for response in responses:
            response.close()


async def test_streams_of_one_caller_are_capped() -> None:
    """One more stream of a token gets 429 by SSE and WebSocket; others are served; a closed one makes room."""
    most = 4_000 if os.environ.get("SENSEGATE_SOAK") else 20
    config = WebConfig(streams_per_caller_max=most, connections_per_address_max=most + 100, connections_max=most * 2)
    async with serving(config) as gateway:
        greedy, other = await gateway.token(Role.SUBSCRIBER), await gateway.token(Role.SUBSCRIBER)
        async with streams(gateway, greedy, most) as responses:
            assert {response.status for response in responses} == {200}
            status, problem, response = await gateway.ask("GET", STREAM, greedy)
            assert status == 429
            assert response.headers["Retry-After"] == "5"
            assert f"{most} streams open" in problem["detail"]
            assert "web.streams_per_caller_max" in problem["detail"]
            url = f"{gateway.url.replace('http', 'ws', 1)}/api/v1/feeds/all/ws"
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url, additional_headers={"Authorization": f"Bearer {greedy}"}):
                    pass
            assert refused.value.response.status_code == 429
            await gateway.ask("GET", "/api/v1/feeds", greedy, expect=200)
            async with streams(gateway, other, 1) as served:
                assert served[0].status == 200
            responses[0].close()

            async def has_room() -> bool:
                async with streams(gateway, greedy, 1) as reconnected:
                    return reconnected[0].status == 200

            async with asyncio.timeout(60):
                while not await has_room():
                    await asyncio.sleep(0)


async def test_open_requests_of_one_caller_are_capped() -> None:
    """Long polls of a token and half bodies of a device: one more gets 429, and others are served."""
    async with serving(WebConfig(requests_per_caller_max=2)) as gateway:
        token, other = await gateway.token(Role.SUBSCRIBER), await gateway.token(Role.SUBSCRIBER)
        polls = [asyncio.create_task(gateway.ask("GET", LONG_POLL, token)) for _ in range(2)]
        requests = gateway.web._requests._open
        await eventually(lambda: requests.total() == 2)
        _, problem, response = await gateway.ask("GET", LONG_POLL, token, expect=429)
        assert "web.requests_per_caller_max" in problem["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        await gateway.ask("GET", "/api/v1/feeds", other, expect=200)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

        password = await gateway.device("d1")
        authorization = aiohttp.encode_basic_auth("d1", password)
        half = HALF_BODY.replace(b"session", b"ingest/d1").replace(
            b"Host: x", f"Host: x\r\nAuthorization: {authorization}".encode()
        )
        with flooding(gateway) as flood:
            await flood.send(2, "127.0.0.1", half)
            await eventually(lambda: requests["d1"] == 2)
            headers = {"Authorization": authorization}
            await gateway.ask("POST", "/api/v1/ingest/d1", headers=headers, json={}, expect=429)
        await eventually(lambda: not requests)
        await gateway.ask("POST", "/api/v1/ingest/d1", headers=headers, json={}, expect=202)


def test_a_quota_forgets_callers_without_requests() -> None:
    """The count of a caller goes with its last request, also when the request fails."""
    quota = CallerQuota("web.requests_per_caller_max", "requests", 1)
    with contextlib.suppress(RuntimeError), quota.held("a"):
        with pytest.raises(Overloaded), quota.held("a"):
            pass
        raise RuntimeError
    assert not quota._open


async def test_a_process_that_did_not_run_takes_nobody_for_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client read while the event loop was blocked is seen before the limit counts; control: without it not."""
    monkeypatch.setattr(limits, "STALL_S", 0.2)
    stalled, loop = metrics.LIMIT_HITS.labels("http_stalled")._value, asyncio.get_running_loop()

    def soon(rounds: int, resume: Callable[[], None]) -> None:
        """Resume after some rounds of the event loop, as its transport does once the socket is writable."""
        if rounds:
            loop.call_soon(soon, rounds - 1, resume)
        else:
            resume()

    async def stalls() -> float:
        """Return how many connections were cut although their client reads."""
        async with serving() as gateway:
            runner = gateway.web._listener._runner
            assert runner is not None
            assert runner.server is not None
            server = runner.server
            host, port = gateway.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            await eventually(lambda: server.connections)
            [connection] = server.connections
            assert isinstance(connection, limits.LimitedConnection)
            before = stalled.get()
            connection.pause_writing()
            time.sleep(0.3)  # noqa: ASYNC251 - blocks the event loop, as a busy machine would
            soon(3, connection.resume_writing)
            await eventually(lambda: connection._stall is None)
            writer.close()
            return float(stalled.get() - before)

    assert await stalls() == 0
    monkeypatch.setattr(limits, "STALL_ROUNDS", 0)
    assert await stalls() == 1
