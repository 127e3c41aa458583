"""Feeds over HTTP: scopes, forms, cursors, streams, slow and revoked subscribers, metering."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgpack
import pyarrow.parquet as pq
import pytest

from sensegate import metrics
from sensegate.authority.scope import Role
from sensegate.config import WebConfig
from sensegate.share import cursor
from sensegate.web import limits
from tests.conftest import eventually
from tests.share.made import Place, make_batch, members
from tests.support.timing import WITHIN_TWO_SECONDS
from tests.web.serving import ADMIN, Gateway, serving

ALL = "/api/v1/feeds/all/records"
PLACES = (
    Place("gz-air", "440106", "env"),
    Place("gz-noise", "440103", "env"),
    Place("gz-cam", "440106", "police"),
    Place("sz-air", "440304", "env"),
    Place("gz-core", "440106", "env", grade=4),
)


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    """A centre whose log holds 25 readings of five devices of two cities."""
    for number in range(5):
        rows = [(place, "air_temperature", number + place / 10) for place in range(len(PLACES))]
        await gateway.log.write(members(make_batch(rows, places=PLACES), subject="readings.4401.all.1"))
    return gateway


def devices(body: dict[str, Any]) -> set[str]:
    """Return the devices of a page."""
    return {record["device"] for record in body["records"]}


# ── scope ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("44", {"gz-air", "gz-noise", "gz-cam", "sz-air"}),
        ("4401", {"gz-air", "gz-noise", "gz-cam"}),
        ("440106", {"gz-air", "gz-cam"}),
        ("440106/police", {"gz-cam"}),
        ("4403", {"sz-air"}),
        ("4404", set()),
        ("4403/police", set()),
    ],
)
async def test_the_scope_cuts_every_form(filled: Gateway, where: str, expected: set[str]) -> None:
    """What a subscriber gets of a feed is what lies in its division and department, in every form."""
    token = await filled.token(Role.SUBSCRIBER, where)
    _, body, _ = await filled.ask("GET", ALL, token, expect=200)
    assert devices(body) == expected
    _, raw, _ = await filled.ask("GET", ALL, token, headers={"Accept": "text/csv"}, expect=200)
    assert {row["device"] for row in csv.DictReader(io.StringIO(raw.decode()))} == expected
    _, raw, _ = await filled.ask("GET", ALL, token, headers={"Accept": "application/x-ndjson"}, expect=200)
    assert {json.loads(line)["device"] for line in raw.splitlines()} == expected
    _, raw, _ = await filled.ask("GET", ALL, token, headers={"Accept": "application/vnd.msgpack"}, expect=200)
    assert set(msgpack.unpackb(raw)["origins"]["device"]) == expected
    async with stream_of(filled, token, "all") as events:
        received = [await anext(events) for _ in range(5 * len(expected))]
    assert {record["device"] for _, record in received} == expected


async def test_a_foreign_division_is_refused(filled: Gateway) -> None:
    """A subscriber of 4401 that asks for 4403 gets 403, by page and by stream; devices of it are just absent."""
    token = await filled.token(Role.SUBSCRIBER, "4401")
    for path in (f"{ALL}?division=4403", f"{ALL}?division=440106,440304", "/api/v1/feeds/all/stream?division=4403"):
        _, body, _ = await filled.ask("GET", path, token, expect=403)
        assert "outside your scope" in body["detail"]
    _, body, _ = await filled.ask("GET", f"{ALL}?device=sz-air", token, expect=200)
    assert body["records"] == []
    _, body, _ = await filled.ask("GET", f"{ALL}?division=44", token, expect=200)
    assert devices(body) == {"gz-air", "gz-noise", "gz-cam"}


async def test_a_feed_outside_the_scope_does_not_exist(filled: Gateway) -> None:
    """A feed of another city or department is not listed and answers exactly as one that is not there."""
    admin = await filled.token()
    for name, more in (("shenzhen", {"divisions": ["4403"]}), ("police", {"departments": ["police"]})):
        await filled.ask("POST", "/api/v1/feeds", admin, json={"name": name, **more}, expect=201)
    token = await filled.token(Role.SUBSCRIBER, "4401/env")
    _, body, _ = await filled.ask("GET", "/api/v1/feeds", token, expect=200)
    assert [row["name"] for row in body["rows"]] == ["alarms", "all"]
    details = set()
    for name in ("shenzhen", "police", "nothing0"):
        for path in ("", "/records", "/stream"):
            _, body, _ = await filled.ask("GET", f"/api/v1/feeds/{name}{path}", token, expect=404)
            details.add(body["detail"].replace(name, "*"))
    assert len(details) == 1


async def test_a_token_bound_to_feeds_reads_no_other(filled: Gateway) -> None:
    """Its list is the limit, whatever its scope."""
    admin = await filled.token()
    await filled.ask(
        "POST", "/api/v1/feeds", admin, json={"name": "air", "properties": ["air_temperature"]}, expect=201
    )
    token = await filled.token(Role.SUBSCRIBER, "44", feeds=("air",))
    await filled.ask("GET", "/api/v1/feeds/air/records", token, expect=200)
    await filled.ask("GET", ALL, token, expect=404)


async def test_roles_that_read_nothing_are_refused(filled: Gateway) -> None:
    """An auditor sees the books, never the readings."""
    token = await filled.token(Role.AUDITOR, "44")
    await filled.ask("GET", ALL, token, expect=403)
    await filled.ask("GET", "/api/v1/feeds", token, expect=403)
    await filled.ask("GET", "/api/v1/feeds/all/stream", token, expect=403)


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_pages_chain_in_every_form(filled: Gateway) -> None:
    """`next` in the body, `X-Next-Cursor` and `Link` say the same and chain without gap or repeat."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    for accept in ("application/json", "application/x-ndjson", "text/csv", "application/vnd.msgpack"):
        count, path = 0, f"{ALL}?limit=7"
        for _ in range(4):
            _, body, response = await filled.ask("GET", path, token, headers={"Accept": accept}, expect=200)
            assert response.content_type == accept
            count += int(response.headers["X-Count"])
            following = response.headers["X-Next-Cursor"]
            if accept == "application/json":
                assert body["next"] == following
            link = str(response.links["next"]["url"])
            assert following in link
            path = link
        assert count == 20


async def test_a_page_is_cut_to_the_limit_of_the_configuration() -> None:
    """A caller that asks for more gets `web.page_max` records, and the cursor to go on with."""
    async with serving(WebConfig(page_max=3)) as gateway:
        rows = [(0, "air_temperature", float(number)) for number in range(5)]
        await gateway.log.write(members(make_batch(rows, places=PLACES), subject="readings.4401.all.1"))
        token = await gateway.token(Role.SUBSCRIBER, "44")
        _, body, _ = await gateway.ask("GET", f"{ALL}?limit=1000", token, expect=200)
        assert len(body["records"]) == 3
        _, body, _ = await gateway.ask("GET", f"{ALL}?limit=1000&after={body['next']}", token, expect=200)
        assert len(body["records"]) == 2


async def test_filters_narrow(filled: Gateway) -> None:
    """By division, property and device; several of each; an unknown parameter is an error."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    for query, expected in (
        ("division=440304", {"sz-air"}),
        ("division=440304&division=440103", {"sz-air", "gz-noise"}),
        ("device=gz-air,gz-cam", {"gz-air", "gz-cam"}),
        ("property=pm2_5", set()),
        ("property=air_temperature&device=sz-air", {"sz-air"}),
    ):
        _, body, _ = await filled.ask("GET", f"{ALL}?{query}", token, expect=200)
        assert devices(body) == expected, query
    await filled.ask("GET", f"{ALL}?devices=gz-air", token, expect=400)


async def test_a_channel_is_chosen(gateway: Gateway) -> None:
    """Of several equal sensors of a device, in records, in the last values and back from the newest, page by page."""
    token = await gateway.token(Role.SUBSCRIBER, "44")
    names = ("air_temperature", "air_temperature#roof", "air_temperature#cellar", "humidity#roof")
    for _ in range(3):
        batch = make_batch([(0, name, float(place)) for place, name in enumerate(names)], places=PLACES)
        await gateway.log.write(members(batch, subject="readings.4401.all.1"))
    for path, count in (
        (f"{ALL}?channel=roof", 6),
        (f"{ALL}?channel=roof&property=air_temperature", 3),
        (f"{ALL}?channel=roof,cellar&order=desc", 9),
        (f"{ALL}?channel=garden", 0),
        ("/api/v1/feeds/all/latest?channel=roof", 2),
        ("/api/v1/feeds/all/latest?channel=roof&channel=cellar", 3),
    ):
        read: list[dict[str, Any]] = []
        after = ""
        while True:
            _, body, _ = await gateway.ask("GET", f"{path}&limit=2{after and f'&after={after}'}", token, expect=200)
            read += body["records"]
            after = body["next"]
            if not after or not body["records"]:
                break
        assert len(read) == count, path
        assert {record["channel"] for record in read} <= {"roof", "cellar"}


async def test_since_starts_by_time_of_arrival(filled: Gateway) -> None:
    """Before the first: all; after the last: nothing, and the cursor stands at the end."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    for since in ("1h", "2020-01-01T00:00:00Z", "2020-01-01T08:00:00+08:00", "1577836800"):
        _, body, _ = await filled.ask("GET", ALL, token, params={"since": since}, expect=200)
        assert len(body["records"]) == 20, since
    _, body, _ = await filled.ask("GET", f"{ALL}?since=2100-01-01T00:00:00Z", token, expect=200)
    assert body["records"] == []
    await filled.ask("GET", f"{ALL}?since=yesterday", token, expect=400)


async def test_an_unknown_form_is_not_acceptable(filled: Gateway) -> None:
    """406 names the forms."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, body, _ = await filled.ask("GET", ALL, token, headers={"Accept": "application/xml"}, expect=406)
    assert "text/csv" in body["detail"]


async def test_foreign_cursors(filled: Gateway) -> None:
    """Nonsense is 400; a cursor of another log is 410 with the first valid one, from which everything comes."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    await filled.ask("GET", f"{ALL}?after=nonsense", token, expect=400)
    other = cursor.after(b"absent", 3, 1_767_225_600_000_000)
    _, body, _ = await filled.ask("GET", f"{ALL}?after={other}", token, expect=410)
    _, body, _ = await filled.ask("GET", f"{ALL}?after={body['first']}", token, expect=200)
    assert len(body["records"]) == 20
    beyond = cursor.after(filled.log.timelines.timeline_at(1), 10_000, 1_767_225_600_000_000)
    await filled.ask("GET", f"{ALL}?after={beyond}", token, expect=400)
    await filled.ask("GET", "/api/v1/feeds/all/stream", token, headers={"Last-Event-ID": str(other)}, expect=410)


async def test_long_poll_wakes(filled: Gateway) -> None:
    """A waiting page is answered as soon as its first record is there."""
    token = await filled.token(Role.SUBSCRIBER, "4403")
    _, body, _ = await filled.ask("GET", ALL, token, expect=200)
    waiting = asyncio.create_task(filled.ask("GET", f"{ALL}?after={body['next']}&wait=30", token))
    for place in (0, 3):
        await asyncio.sleep(0)
        batch = make_batch([(place, "pm2_5", 7.0)], places=PLACES)
        await filled.log.write(members(batch, subject="readings.4403.all.1"))
    async with asyncio.timeout(30):
        _, body, _ = await waiting
    assert [record["property"] for record in body["records"]] == ["pm2_5"]


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def stream_of(
    gateway: Gateway, token: str, feed: str, last: str = "", path: str = "/stream"
) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
    """Yield (id, record) of an event stream, as a browser reads it; ends where the server ends it."""
    headers = {"Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
    async with gateway.session.get(f"{gateway.url}/api/v1/feeds/{feed}{path}", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"

        async def events() -> AsyncIterator[tuple[str, dict[str, Any]]]:
            fields: dict[str, str] = {}
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    if "data" in fields:
                        yield fields.get("id", ""), {**json.loads(fields["data"]), "event": fields.get("event", "")}
                    fields = {}

        yield events()


async def test_a_stream_resumes_after_its_last_event(filled: Gateway) -> None:
    """`Last-Event-ID` goes on right after; the same cursors as the pages give."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, body, _ = await filled.ask("GET", ALL, token, expect=200)
    expected = [record["cursor"] for record in body["records"]]
    async with stream_of(filled, token, "all") as events:
        first = [(await anext(events))[0] for _ in range(8)]
    async with stream_of(filled, token, "all", last=first[-1]) as events:
        rest = [(await anext(events))[0] for _ in range(12)]
        await filled.log.write(members(make_batch([(0, "pm2_5", 1.0)], places=PLACES)))
        async with asyncio.timeout(30):
            live = await anext(events)
    assert first + rest == expected
    assert live[1]["property"] == "pm2_5"


async def test_a_revoked_token_ends_its_streams(filled: Gateway) -> None:
    """Within two seconds the stream says why and ends; a waiting page is refused."""
    text, token = await filled.tokens.create(Role.SUBSCRIBER, ADMIN.scope, by=ADMIN)
    _, body, _ = await filled.ask("GET", ALL, text, expect=200)
    waiting = asyncio.create_task(filled.ask("GET", f"{ALL}?after={body['next']}&wait=2", text))
    async with stream_of(filled, text, "all") as events:
        for _ in range(20):
            await anext(events)
        await filled.tokens.revoke(token.id, by=ADMIN)
        async with asyncio.timeout(WITHIN_TWO_SECONDS):
            _, event = await anext(events)
            assert (event["event"], event["status"]) == ("problem", 401)
            with pytest.raises(StopAsyncIteration):
                await anext(events)
    status, _, _ = await waiting
    assert status == 401


async def test_an_expired_token_reads_nothing(filled: Gateway) -> None:
    """At its end it is refused on new requests and on the stream that it had open."""
    text = await filled.token(Role.SUBSCRIBER, "44", lifetime_s=0.3)
    async with stream_of(filled, text, "all") as events:
        for _ in range(20):
            await anext(events)
        async with asyncio.timeout(30):
            assert (await anext(events))[1]["status"] == 401
    _, body, _ = await filled.ask("GET", ALL, text, expect=401)
    assert "expired" in body["detail"]


async def test_a_removed_feed_ends_its_streams(filled: Gateway) -> None:
    """Whoever reads it is told that it is gone."""
    admin = await filled.token()
    await filled.ask("POST", "/api/v1/feeds", admin, json={"name": "short"}, expect=201)
    async with stream_of(filled, admin, "short") as events:
        for _ in range(20):
            await anext(events)
        await filled.ask("DELETE", "/api/v1/feeds/short", admin, expect=204)
        async with asyncio.timeout(30):
            assert (await anext(events))[1]["status"] == 404


@pytest.mark.slow
async def test_a_slow_subscriber_is_cut_and_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes nothing is cut off; others get all meanwhile.

    The limit is far above the time that the fast one needs for a chunk, also where eight processes share a core.
    """
    monkeypatch.setattr(limits, "STALL_S", 2.0)
    loop = asyncio.get_running_loop()
    async with serving() as gateway:
        rows = [(place % 2, "air_temperature", float(place)) for place in range(4_000)]
        for _ in range(10):
            await gateway.log.write(members(make_batch(rows, places=PLACES)))
        token = await gateway.token(Role.SUBSCRIBER, "44")
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            slow.setblocking(False)
            await loop.sock_connect(slow, (host, int(port)))
            head = f"GET /api/v1/feeds/all/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            await loop.sock_sendall(slow, head.encode())
            got = len(await loop.sock_recv(slow, 1_000))
            before = metrics.LIMIT_HITS.labels("http_stalled")._value.get()
            async with stream_of(gateway, token, "all") as events:
                for _ in range(40_000):
                    await anext(events)
            stalled = metrics.LIMIT_HITS.labels("http_stalled")._value
            await eventually(lambda: stalled.get() > before, 30.0)
            async with asyncio.timeout(30):
                with contextlib.suppress(ConnectionError):
                    while part := await loop.sock_recv(slow, 65_536):
                        got += len(part)
            assert 0 < got < 40_000 * 300


async def test_deliveries_are_metered(filled: Gateway) -> None:
    """Records by token, feed and delivery; a subscriber sees its own row, an operator all of its scope."""
    text, token = await filled.tokens.create(Role.SUBSCRIBER, ADMIN.scope, by=ADMIN)
    await filled.ask("GET", f"{ALL}?limit=7", text, expect=200)
    await filled.ask("GET", ALL, text, headers={"Accept": "text/csv"}, expect=200)
    async with stream_of(filled, text, "all") as events:
        for _ in range(20):
            await anext(events)
    other = await filled.token(Role.SUBSCRIBER, "44")
    _, body, _ = await filled.ask("GET", "/api/v1/usage", text, expect=200)
    counts = {(row["token"], row["delivery"]): row["records"] for row in body["rows"]}
    assert counts == {(token.id, "json"): 7, (token.id, "csv"): 20, (token.id, "sse"): 20}
    _, body, _ = await filled.ask("GET", "/api/v1/usage", other, expect=200)
    assert body["rows"] == []
    _, body, _ = await filled.ask("GET", "/api/v1/usage", await filled.token(), expect=200)
    assert sum(row["records"] for row in body["rows"]) == 47


# ── the catalogue ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_feed_is_made_changed_and_removed(filled: Gateway) -> None:
    """Create, read, change with If-Match, delete; a stale revision is 412, none 428, a taken name 409."""
    admin = await filled.token()
    _, made, response = await filled.ask(
        "POST", "/api/v1/feeds", admin, json={"name": "air", "divisions": ["440100"]}, expect=201
    )
    assert made["divisions"] == ["4401"]
    await filled.ask("POST", "/api/v1/feeds", admin, json={"name": "air"}, expect=409)
    path = "/api/v1/feeds/air"
    await filled.ask("PATCH", path, admin, json={"description": "x"}, expect=428)
    tag = {"If-Match": response.headers["ETag"]}
    _, changed, _ = await filled.ask(
        "PATCH", path, admin, json={"description": "x", "grade_max": 2}, headers=tag, expect=200
    )
    assert (changed["description"], changed["grade_max"], changed["divisions"]) == ("x", 2, ["4401"])
    await filled.ask("PATCH", path, admin, json={"description": "y"}, headers=tag, expect=412)
    await filled.ask(
        "PATCH", path, admin, json={"colour": "y"}, headers={"If-Match": str(changed["revision"])}, expect=400
    )
    await filled.ask("DELETE", path, admin, expect=204)
    await filled.ask("GET", path, admin, expect=404)
    await filled.ask("POST", "/api/v1/feeds", admin, json={"name": "air"}, expect=201)
    actions = [action for _, action, target, _, _ in filled.trail.records if target == "air"]
    assert actions == ["feed.create", "feed.change", "feed.delete", "feed.create"]


async def test_operators_make_feeds_of_their_own_only(filled: Gateway) -> None:
    """Within the scope; without divisions a feed gets the maker's; the built-in one does not change."""
    token = await filled.token(Role.CITY_OPERATOR, "4401/env")
    _, made, _ = await filled.ask("POST", "/api/v1/feeds", token, json={"name": "mine"}, expect=201)
    assert (made["divisions"], made["departments"]) == (["4401"], ["env"])
    await filled.ask("POST", "/api/v1/feeds", token, json={"name": "theirs", "divisions": ["4403"]}, expect=403)
    await filled.ask("POST", "/api/v1/feeds", token, json={"name": "theirs", "departments": ["police"]}, expect=403)
    await filled.ask("POST", "/api/v1/feeds", await filled.token(Role.SUBSCRIBER, "44"), json={"name": "s"}, expect=403)
    await filled.ask("DELETE", "/api/v1/feeds/all", await filled.token(), expect=409)
    for bad in (
        {"name": "Bad Name"},
        {"name": "x", "grade_max": 9},
        {"name": "x", "kinds": ["film"]},
        {"name": "x", "divisions": ["9"]},
    ):
        await filled.ask("POST", "/api/v1/feeds", await filled.token(), json=bad, expect=400)


async def test_a_browser_of_another_site_gets_nothing(filled: Gateway) -> None:
    """No answer allows another origin."""
    token = await filled.token(Role.SUBSCRIBER, "44")
    _, _, response = await filled.ask("GET", ALL, token, headers={"Origin": "http://evil.example"}, expect=200)
    assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert isinstance(response, aiohttp.ClientResponse)


async def test_a_page_as_parquet(filled: Gateway) -> None:
    """The records of the JSON page, read by pyarrow; the cursor to go on from stands in header and file."""
    token = await filled.token(Role.SUBSCRIBER, "4401")
    path = "/api/v1/feeds/all/records?limit=5"
    _, answer, _ = await filled.ask("GET", path, token, expect=200)
    headers = {"Accept": "application/vnd.apache.parquet"}
    _, body, response = await filled.ask("GET", path, token, expect=200, headers=headers)
    table = pq.read_table(io.BytesIO(body))
    assert table["cursor"].to_pylist() == [row["cursor"] for row in answer["records"]]
    assert response.headers["X-Next-Cursor"] == table.schema.metadata[b"sensegate.next"].decode() == answer["next"]
    assert response.headers["Content-Disposition"].endswith('.parquet"')


async def test_a_feed_of_an_unknown_property_is_refused_with_the_nearest(gateway: Gateway) -> None:
    """A feed whose property is misspelt would never deliver; created and changed it is refused."""
    admin = await gateway.token()
    wanted = {"name": "air", "properties": ["air_temprature"]}
    _, answer, _ = await gateway.ask("POST", "/api/v1/feeds", admin, json=wanted, expect=400)
    assert answer["detail"] == "properties: there is no property 'air_temprature'; did you mean 'air_temperature'?"
    await gateway.ask("POST", "/api/v1/feeds", admin, json={"name": "air", "properties": ["pm2_5"]}, expect=201)
    change = {"properties": ["pm2_5", "air_temprature"]}
    _, made, _ = await gateway.ask("GET", "/api/v1/feeds/air", admin)
    headers = {"If-Match": f'"{made["revision"]}"'}
    _, answer, _ = await gateway.ask("PATCH", "/api/v1/feeds/air", admin, json=change, headers=headers, expect=400)
    assert "did you mean 'air_temperature'?" in answer["detail"]
