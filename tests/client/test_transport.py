"""What the client does when the gateway refuses, limits, ends connections or is away."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
import zstandard
from aiohttp import web

from sensegate.share import records
from sensegate_client import (
    AccessDenied,
    Client,
    ClientError,
    CursorExpired,
    CursorFile,
    InvalidRequest,
    NotAuthenticated,
    NotFoundError,
    QuotaExceeded,
    SyncClient,
    TooManyRows,
    Unreachable,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EMPTY = b'{"records":[],"next":""}'
RECORD = (
    b'{"id":"a-1","cursor":"c1","device":"d","property":"p","value":1,"time":"2026-01-01T00:00:00Z",'
    b'"received":"2026-01-01T00:00:00Z"}'
)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve every path by a handler; yield the address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def problem(status: int, **more: str) -> web.Response:
    """Return an error response as the gateway sends it."""
    body = {"title": "Error", "status": status, "detail": "because", "instance": "r-1", **more}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/problem+json")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, NotAuthenticated),
        (403, AccessDenied),
        (404, NotFoundError),
        (410, CursorExpired),
        (413, TooManyRows),
        (422, InvalidRequest),
    ],
)
async def test_each_refusal_has_its_error_and_is_not_repeated(status: int, kind: type[ClientError]) -> None:
    """The caller gets class, status, detail and the id of the request; the gateway is asked once."""
    results: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        results.append(request.path)
        return problem(status, first="c1.first")

    async with serving(handler) as url, Client(url, "t") as client:
        with pytest.raises(kind, match=f"{status} Error: because") as raised:
            await anext(client.feed("air").records())
    assert len(results) == 1
    assert getattr(raised.value, "request_id", "") == "r-1"
    if isinstance(raised.value, CursorExpired):
        assert raised.value.first == "c1.first"


async def test_a_limit_is_waited_for() -> None:
    """429 is asked again after `Retry-After`; where it lasts longer than the patience, it is the error."""
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 2:
            return web.Response(body=EMPTY, content_type="application/json")
        answer = problem(429)
        answer.headers["Retry-After"] = "1" if len(times) == 1 else "30"
        return answer

    async with serving(handler) as url, Client(url, patience_s=5) as client:
        assert [record async for record in client.feed("air").records(follow=False)] == []
        assert times[1] - times[0] >= 1
        with pytest.raises(QuotaExceeded):
            await anext(client.feed("air").records())
        assert len(times) == 3


async def test_it_goes_to_the_other_centre_and_stays_there() -> None:
    """An address that refuses connections, and one that answers 503, are left for the other one."""
    served: list[str] = []

    async def away(request: web.Request) -> web.Response:
        served.append("away")
        return problem(503)

    async def active(request: web.Request) -> web.Response:
        served.append("active")
        return web.Response(body=b'{"records":[%s],"next":"c1"}' % RECORD, content_type="application/json")

    async with serving(away) as first, serving(active) as second, Client([first, second], patience_s=20) as client:
        feed = client.feed("air")
        assert [(await anext(feed.records())).device for _ in range(3)] == ["d", "d", "d"]
        assert client.address == second
    assert served == ["away", "active", "active", "active"]
    async with Client([first, second], patience_s=0.5) as client:
        with pytest.raises(Unreachable, match=r"no answer for 0\.5 s"):
            await anext(client.feed("air").records())


async def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    """Half a body is no page: the same page is asked for again, with the same cursor."""
    queries: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        queries.append(request.query_string)
        if len(queries) == 1:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"records":[')
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(body=EMPTY, content_type="application/json")

    async with serving(handler) as url, Client(url) as client:
        assert [record async for record in client.feed("air").records(after="c1", follow=False)] == []
    assert queries == [queries[0]] * 2


@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity"])
async def test_compressed_answers(coding: str) -> None:
    """The codings that are asked for are decoded, one that was not asked for is an error."""
    codings: dict[str, Callable[[bytes], bytes]] = {
        "zstd": zstandard.ZstdCompressor().compress,
        "gzip": gzip.compress,
        "identity": bytes,
    }
    encode = codings[coding]
    body = records.columns([], "")

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "zstd, gzip"
        name = "br" if "history" in request.path else coding
        return web.Response(body=encode(body), headers={"Content-Encoding": name})

    async with serving(handler) as url, Client(url) as client:
        assert [page async for page in client.feed("air").columns(follow=False)] == []
        with pytest.raises(ClientError, match="content coding br"):
            await anext(client.feed("air").history())


async def test_the_selection_reaches_the_gateway() -> None:
    """Every part of a selection is a query parameter; a time without a zone is refused here."""
    results: list[list[tuple[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        results.append([*request.query.items()])
        return web.Response(body=EMPTY, content_type="application/json")

    async with serving(handler) as url, Client(url) as client:
        feed = client.feed("a", devices=["x", "y"], bbox=(1, 2, 3, 4.5), near=(1, 2, 50), begin="24h", end="1h")
        assert [record async for record in feed.latest(rows=5)] == []
        naive = client.feed("a", begin=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
        with pytest.raises(ClientError, match=r"from: .* has no zone"):
            await anext(naive.latest())
    assert results == [
        [
            ("device", "x"),
            ("device", "y"),
            ("bbox", "1.0,2.0,3.0,4.5"),
            ("near", "1.0,2.0,50.0"),
            ("from", "24h"),
            ("to", "1h"),
            ("limit", "5"),
        ]
    ]


async def test_the_cursor_is_saved_once_a_page_is_processed(tmp_path: Path) -> None:
    """Not before: a page whose processing failed comes again."""
    store = CursorFile(tmp_path / "cursor")
    after: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        after.append(request.query.get("after", ""))
        page = len(after)
        return web.Response(body=b'{"records":[%s],"next":"c%d"}' % (RECORD, page), content_type="application/json")

    async with serving(handler) as url, Client(url) as client:
        reading = client.feed("air").records(store=store)
        await anext(reading)
        assert store.load() == ""
        await anext(reading)
        assert store.load() == "c1"
        await anext(client.feed("air").records(store=store))
    assert after == ["", "c1", "c1"]


@pytest.mark.parametrize("form", ["records", "columns"])
async def test_what_is_there_is_read_past_empty_pages(form: str) -> None:
    """A page without rows may lead on; the end is where no page follows, or the same one."""
    after: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        after.append(request.query.get("after", ""))
        following = ("c1", "c2", "c3", "c3")[len(after) - 1]
        if form == "columns":
            return web.Response(body=records.columns([], following))
        rows = RECORD if len(after) == 3 else b""
        return web.Response(body=b'{"records":[%s],"next":"%s"}' % (rows, following.encode()))

    async with serving(handler) as url, Client(url) as client:
        pages = [page async for page in getattr(client.feed("air"), form)(follow=False)]
    assert after == ["", "c1", "c2", "c3"]
    assert len(pages) == (form == "records")


async def test_the_synchronous_twin_does_the_same() -> None:
    """Iterators and errors reach the calling thread; the thread of the loop ends with the client."""
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if count > 2:
            return problem(401)
        return web.Response(body=b'{"records":[%s],"next":"c1"}' % RECORD, content_type="application/json")

    def use(url: str) -> list[str]:
        with SyncClient(url, "t") as client:
            reading = client.feed("air").records()
            devices = [next(reading).device, next(reading).device]
            with pytest.raises(NotAuthenticated):
                next(reading)
        return devices

    async with serving(handler) as url:
        assert await asyncio.to_thread(use, url) == ["d", "d"]


def test_an_address_without_a_scheme_is_refused() -> None:
    """With what to give."""
    with pytest.raises(ClientError, match="give http"):
        Client("localhost:8080")
    with pytest.raises(ClientError, match="not open"):
        SyncClient("http://localhost").feeds()
