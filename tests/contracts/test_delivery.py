"""What every delivery of a feed must do: history first, then live, each record once and in order, from any cursor."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext

import msgpack
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from nats.aio.client import Client

from sensegate.bus.contract import Log
from sensegate.bus.log import JetStreamLog
from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.share import cursor
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.cursor import Cursor
from sensegate.share.delivery import BLOCK_ROWS, EVENT_ROWS, FeedServer, RecordEncoding
from sensegate.share.feeds import ALL_FEED, FeedSelection
from sensegate.share.grants import Admission
from sensegate.share.pages import FeedPages
from sensegate.share.reader import LogReader
from sensegate.web.websocket import Credit, send_pages, take_commands
from tests.share.made import make_batch, members

Take = Callable[[FeedServer, FeedSelection, Cursor, int], Awaitable[list[tuple[str, str]]]]
"""Returns at least `n` records as (id, cursor) after a place, in the order of delivery."""
PROPERTIES = ("air_temperature", "pm2_5", "relative_humidity")


@pytest.fixture
async def durable(gateway: Client) -> AsyncIterator[Log]:
    """The LOG of a real engine."""
    opened = JetStreamLog(gateway)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", pytest.param("durable", marks=pytest.mark.live)])
def log(request: pytest.FixtureRequest) -> Log:
    """The log in memory, and the real one."""
    made: Log = MemoryLog() if request.param == "memory" else request.getfixturevalue("durable")
    return made


@pytest.fixture
async def delivery(log: Log) -> AsyncIterator[FeedServer]:
    """Pages and streams of the log, following it."""
    reader = LogReader(log, SystemClock())
    running = asyncio.create_task(reader.run())
    yield FeedServer(reader)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def records_of(body: bytes, form: RecordEncoding) -> list[tuple[str, str]]:
    """Return (id, cursor) of each record; MessagePack columns have no cursor of each."""
    if form is RecordEncoding.CSV:
        return [(row["id"], row["cursor"]) for row in csv.DictReader(io.StringIO(body.decode(), newline=""))]
    if form is RecordEncoding.MSGPACK:
        tree = msgpack.unpackb(body)
        node, sequence, index = (
            np.frombuffer(tree["columns"][name], tree["types"][name]).tolist() for name in ("node", "sequence", "index")
        )
        return [(f"{tree['nodes'][n]}-{s:014d}-{i}", "") for n, s, i in zip(node, sequence, index, strict=True)]
    lines = (
        json.loads(body)["records"] if form is RecordEncoding.JSON else [json.loads(line) for line in body.splitlines()]
    )
    return [(record["id"], record["cursor"]) for record in lines]


def paged(form: RecordEncoding, limit: int) -> Take:
    """Read page after page with `next`."""

    async def take(delivery: FeedServer, selection: FeedSelection, place: Cursor, count: int) -> list[tuple[str, str]]:
        results: list[tuple[str, str]] = []
        while len(results) < count:
            page = await delivery.page(selection, place, form, limit, 5.0)
            records = records_of(page.body, form)
            assert page.count == len(records)
            assert page.count or page.next != str(place), "an empty page without progress: the log has ended"
            results += records
            place = cursor.parse(page.next)
        return results

    return take


async def streamed(delivery: FeedServer, selection: FeedSelection, place: Cursor, count: int) -> list[tuple[str, str]]:
    """Read the event stream as a browser would."""
    results: list[tuple[str, str]] = []
    async with aclosing(delivery.stream(lambda: Admission(ALL_FEED, selection), place, heartbeat_s=0.2)) as stream:
        async for events in stream:
            for block in events.body.decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                if "data" in fields:
                    assert json.loads(fields["data"])["cursor"] == fields["id"]
                    results.append((json.loads(fields["data"])["id"], fields["id"]))
            if len(results) >= count:
                break
    return results


def by_websocket(granted: int) -> Take:
    """Read by WebSocket as a subscriber that grants so many records at a time."""

    async def take(delivery: FeedServer, selection: FeedSelection, place: Cursor, count: int) -> list[tuple[str, str]]:
        results: list[tuple[str, str]] = []
        pages = FeedPages(delivery, lambda: Admission(ALL_FEED, selection), place, RecordEncoding.JSON)
        consumer = ActiveConsumers(SystemClock(), lambda: 0).add("t", "all", "ws")

        async def serve(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            credit = Credit(granted)
            sending = asyncio.create_task(
                send_pages(socket, pages, credit, "json", lambda _: nullcontext(), lambda _: None, consumer)
            )
            await take_commands(socket, credit)
            sending.cancel()
            return socket

        app = web.Application()
        app.router.add_get("/ws", serve)
        async with TestClient(TestServer(app)) as client, client.ws_connect("/ws", max_msg_size=2**24) as socket:
            left = granted
            while len(results) < count:
                page = records_of((await socket.receive_str()).encode(), RecordEncoding.JSON)
                left -= len(page)
                assert left >= 0, "more than the credit"
                results += page
                if not left:
                    left = granted
                    await socket.send_json({"credit": granted})
        return results

    return take


DELIVERIES = {
    "json": paged(RecordEncoding.JSON, 700),
    "json by one": paged(RecordEncoding.JSON, 1),
    "ndjson": paged(RecordEncoding.NDJSON, 999),
    "csv": paged(RecordEncoding.CSV, 10_000),
    "msgpack": paged(RecordEncoding.MSGPACK, 37),
    "sse": streamed,
    "ws": by_websocket(1_000_000),
    "ws by few": by_websocket(7),
}


async def write(log: Log, number: int, rows: int) -> list[str]:
    """Commit a batch of rows of three devices; return the ids of those in 440106, in the order of delivery."""
    batch = make_batch(
        [(row % 3, PROPERTIES[row % 7 % 3], float(row)) for row in range(rows)], start=1_767_225_600_000_000 + number
    )
    last = await log.write(members(batch))
    inside = np.flatnonzero(np.isin(batch.origin, [0, 2]))
    return [f"4401-0-{last - 2:014d}-{index}" for index in inside]


SELECTION = FeedSelection(divisions=("440106",), grade_max=3)


@pytest.mark.parametrize("name", list(DELIVERIES))
async def test_history_then_live_without_gap_or_repeat(name: str, log: Log, delivery: FeedServer) -> None:
    """Records written before and while reading come once each and in the order of the log."""
    sizes = (
        (3, 1, 40, 1) if name in {"json by one", "ws by few"} else (max(BLOCK_ROWS, EVENT_ROWS) * 2 + 500, 1, 3, 700)
    )
    expected = [record for number, rows in enumerate(sizes) for record in await write(log, number, rows)]
    await log.write([members(make_batch([(0, "pm2_5", 1.0)]))[0]])
    start = await delivery.reader.first()
    live = asyncio.create_task(_write_slowly(log, 4))
    total = len(expected) + 4 * len(await _ids(3))
    got = await DELIVERIES[name](delivery, SELECTION, start, total)
    expected += await live
    assert [record for record, _ in got] == expected
    cursors = [place for _, place in got if place]
    assert len(set(cursors)) == len(cursors)


async def _write_slowly(log: Log, commits: int) -> list[str]:
    written: list[str] = []
    for number in range(commits):
        written += await write(log, 100 + number, 3)
        for _ in range(20):
            await asyncio.sleep(0)
    return written


async def _ids(rows: int) -> list[str]:
    return await write(MemoryLog(), 0, rows)


@pytest.mark.parametrize("name", list(DELIVERIES))
async def test_every_cursor_resumes_right_after_its_record(name: str, log: Log, delivery: FeedServer) -> None:
    """A cursor given out by one delivery is good on each other: what follows is exactly the rest."""
    for number, rows in enumerate((5, 30, 2)):
        await write(log, number, rows)
    start = await delivery.reader.first()
    whole = await DELIVERIES["json"](delivery, SELECTION, start, 1)
    assert len(whole) == 24
    for position in (0, 3, 4, 12, 22):
        place = await delivery.reader.resume(whole[position][1])
        rest = await DELIVERIES[name](delivery, SELECTION, place, len(whole) - position - 1)
        assert [record for record, _ in rest] == [record for record, _ in whole[position + 1 :]]


async def test_a_page_repeats_itself(log: Log, delivery: FeedServer) -> None:
    """The same cursor gives the same page again, however often and however many ask at once."""
    for number in range(5):
        await write(log, number, 50)
    start = await delivery.reader.first()
    pages = await asyncio.gather(*(delivery.page(SELECTION, start, RecordEncoding.JSON, 20, 0) for _ in range(8)))
    assert len({page.body for page in pages}) == 1
    assert pages[0].count == 20


async def test_an_empty_selection_moves_on(log: Log, delivery: FeedServer) -> None:
    """Nothing of the log belongs to it: no record, but the cursor stands at the end."""
    await write(log, 0, 5)
    start = await delivery.reader.first()
    for selection in (None, FeedSelection(divisions=("4403",)), FeedSelection(devices=("nobody",))):
        page = await delivery.page(selection, start, RecordEncoding.JSON, 10, 0)
        assert page.count == 0
        assert cursor.parse(page.next).sequence == (await log.bounds())[1]
