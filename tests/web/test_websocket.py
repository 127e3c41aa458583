"""A feed by WebSocket, read by the client of PyPI `websockets`, which knows nothing of us."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sensegate.authority.scope import Role
from sensegate.web import websocket
from tests.conftest import eventually
from tests.share.made import Place, make_batch, members
from tests.support.timing import WITHIN_TWO_SECONDS
from tests.web.serving import ADMIN, Gateway

PLACES = (Place("gz-air", "440106"), Place("sz-air", "440304"))


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    """A centre whose log holds 40 readings of two cities."""
    for number in range(4):
        await write(gateway, number)
    return gateway


async def write(gateway: Gateway, number: int) -> None:
    """Commit ten readings."""
    rows = [(row % 2, "air_temperature", number + row / 10) for row in range(10)]
    await gateway.log.write(members(make_batch(rows, places=PLACES), subject="readings.4401.all.1"))


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, token: str, query: str = "", **headers: str) -> AsyncIterator[ClientConnection]:
    """Open the feed `all`."""
    url = f"{gateway.url.replace('http', 'ws', 1)}/api/v1/feeds/all/ws{query}"
    async with connect(url, additional_headers={"Authorization": f"Bearer {token}", **headers}) as socket:
        yield socket


async def records_of(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next `count` records; it must be exactly so many."""
    records: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            document = json.loads(await socket.recv())
            assert "problem" not in document, document
            records += document["records"]
    assert len(records) == count
    return records


async def expected(gateway: Gateway, token: str) -> list[str]:
    """Return the cursors of all records as a page gives them."""
    _, body, _ = await gateway.ask("GET", "/api/v1/feeds/all/records", token, expect=200)
    return [record["cursor"] for record in body["records"]]


async def test_history_then_live_with_the_cursors_of_a_page(filled: Gateway) -> None:
    """All that is there, then what comes, each once and with the cursor that the page gives it."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, token) as socket:
        records = await records_of(socket, 40)
        await write(filled, 9)
        records += await records_of(socket, 10)
    assert [record["cursor"] for record in records] == await expected(filled, token)


async def test_never_more_than_the_credit(filled: Gateway) -> None:
    """Seven records for a credit of seven, however much is there; five more for five more."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, token, "?credit=7") as socket:
        records = await records_of(socket, 7)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await socket.recv()
        await socket.send('{"credit": 5}')
        records += await records_of(socket, 5)
        await socket.send('{"credit": 1000}')
        records += await records_of(socket, 28)
    assert [record["cursor"] for record in records] == await expected(filled, token)


async def test_a_cursor_resumes_after_a_cut(filled: Gateway) -> None:
    """A subscriber that dies goes on with the cursor of its last record, wherever that stood."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    every = await expected(filled, token)
    for cut in (1, 4, 20, 39):
        async with opened(filled, token, f"?credit={cut}") as socket:
            first = await records_of(socket, cut)
            socket.transport.abort()
        async with opened(filled, token, f"?after={first[-1]['cursor']}") as socket:
            rest = await records_of(socket, 40 - cut)
        assert [record["cursor"] for record in first + rest] == every


async def test_message_pack_gives_columns(filled: Gateway) -> None:
    """Binary messages, the same columns as the page; commands may be MessagePack too."""
    token = await filled.token(Role.SUBSCRIBER, "4403")
    async with opened(filled, token, "?form=msgpack&credit=3") as socket:
        tree = msgpack.unpackb(await socket.recv())
        assert (tree["count"], tree["origins"]["device"]) == (3, ["sz-air"])
        await socket.send(msgpack.packb({"credit": 30}))
        counts = 0
        while counts < 17:
            counts += msgpack.unpackb(await socket.recv())["count"]
        assert counts == 17


async def test_a_revoked_token_is_told_and_cut_within_two_seconds(filled: Gateway) -> None:
    """With credit or without: the problem, then the close; the control stays open."""
    text, token = await filled.tokens.create(Role.SUBSCRIBER, ADMIN.scope, by=ADMIN)
    other = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, text) as rich, opened(filled, text, "?credit=40") as poor, opened(filled, other) as good:
        for socket in (rich, poor, good):
            await records_of(socket, 40)
        await filled.tokens.revoke(token.id, by=ADMIN)
        async with asyncio.timeout(WITHIN_TWO_SECONDS):
            for socket in (rich, poor):
                assert json.loads(await socket.recv())["problem"]["status"] == 401
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
        await write(filled, 5)
        await records_of(good, 10)


@pytest.mark.parametrize(
    "command", ['{"credit": 0}', '{"credit": "x"}', "[]", "{", '{"credit": 1, "more": 2}', b"\xc1"]
)
async def test_what_is_no_command_ends_the_connection(filled: Gateway, command: str | bytes) -> None:
    """It is said what was wrong."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, token, "?credit=40") as socket:
        await records_of(socket, 40)
        await socket.send(command)
        assert json.loads(await socket.recv())["problem"]["status"] == 400
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_what_is_refused_is_refused_before_the_upgrade(filled: Gateway) -> None:
    """No token, no feed, a cursor that is none, a page of another site: 401, 404, 400, 403."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    for path, given, headers, status in (
        ("all/ws", "sg_wrong", {}, 401),
        ("nothing/ws", token, {}, 404),
        ("all/ws?after=nonsense", token, {}, 400),
        ("all/ws?form=xml", token, {}, 400),
        ("all/ws", token, {"Origin": "https://elsewhere.example"}, 403),
    ):
        url = f"{filled.url.replace('http', 'ws', 1)}/api/v1/feeds/{path}"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, additional_headers={"Authorization": f"Bearer {given}", **headers}):
                pass
        assert refused.value.response.status_code == status, path
    await filled.ask("GET", "/api/v1/feeds/all/ws", token, expect=426)


async def test_a_page_of_our_own_may_open_it(filled: Gateway) -> None:
    """The control of the refused origin."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, token, Origin=filled.url) as socket:
        await records_of(socket, 40)


async def test_a_quiet_feed_gives_signs_of_life(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the place to go on from and the credit that is left."""
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.2)
    token = await filled.token(Role.SUBSCRIBER, "44")
    async with opened(filled, token, "?credit=50") as socket:
        await records_of(socket, 40)
        async with asyncio.timeout(30):
            alive = json.loads(await socket.recv())
    assert alive["records"] == []
    assert alive["credit"] == 10
    _, body, _ = await filled.ask("GET", f"/api/v1/feeds/all/records?after={alive['next']}", token, expect=200)
    assert body["records"] == []


async def test_what_was_sent_is_metered(filled: Gateway) -> None:
    """One connection, and as many records as came."""
    text, token = await filled.tokens.create(Role.SUBSCRIBER, ADMIN.scope, by=ADMIN)
    async with opened(filled, text) as socket:
        await records_of(socket, 40)
    rows = [row for row in filled.sharing.usage() if row.token == token.id and row.delivery == "ws"]
    assert [(row.requests, row.records) for row in rows] == [(1, 40)]


async def test_who_reads_is_shown_with_how_far_behind(filled: Gateway) -> None:
    """One without credit waits and lags; one by events is live and at the end; strangers do not see them."""
    token, other = await filled.token(Role.SUBSCRIBER, "44"), await filled.token(Role.SUBSCRIBER, "44")
    admin = await filled.token()

    async def rows(reader: str) -> dict[str, dict[str, Any]]:
        _, body, _ = await filled.ask("GET", "/api/v1/subscribers", reader, expect=200)
        return {row["delivery"]: row for row in body["rows"]}

    headers = {"Authorization": f"Bearer {token}"}
    url = f"{filled.url}/api/v1/feeds/all/stream"
    async with opened(filled, token, "?credit=5") as socket, filled.session.get(url, headers=headers) as events:
        await records_of(socket, 5)

        async def settled() -> bool:
            records = await rows(token)
            return bool(records["ws"]["state"] == "waiting" and records["sse"]["lag_entries"] == 0)

        await write(filled, 9)
        while b"9.9" not in await events.content.readline():
            pass
        await eventually(settled)
        records = await rows(admin)
        assert (records["ws"]["records"], records["ws"]["reason"]) == (5, "the subscriber has given no credit")
        assert records["ws"]["lag_entries"] > 0
        assert (records["sse"]["state"], records["sse"]["records"]) == ("live", 50)
        assert await rows(other) == {}

    async def gone() -> bool:
        return not await rows(admin)

    await eventually(gone)
