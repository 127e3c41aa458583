"""What subscribers and operators may not see, at a centre that holds two cities, two departments and a grade apart."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.site import Made, Site, reading
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

OURS, THEIRS = "440106", "440304"
FEED = "/api/v1/feeds/all"
FORMS = ("application/json", "application/x-ndjson", "text/csv", "application/vnd.msgpack")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(centre: Site) -> AsyncIterator[dict[str, Made]]:
    """Devices with one reading each: of our city, of the other, of another department, of a higher grade."""
    made = {
        "ours": await centre.device("ours-env", OURS, department="env"),
        "water": await centre.device("ours-water", OURS, department="water"),
        "theirs": await centre.device("canary-theirs", THEIRS, department="env"),
        "core": await centre.device("canary-core", OURS, department="env", grade=4),
    }
    for value, device in enumerate(made.values(), 20):
        assert (await centre.push(device, reading(value))).status == 202
    broken = await centre.push(made["theirs"], b"canary, not JSON")
    assert broken.status == 202
    answer = await centre.ask("POST", "/api/v1/feeds", json={"name": "canary-feed", "divisions": ["4403"]})
    assert answer.status == 201
    await eventually(lambda: centre.records(device="canary-theirs"))
    yield made


def _without_cursor(answer: Any) -> Any:
    return {key: value for key, value in answer.body.items() if key != "next"}


@pytest.mark.parametrize("media", FORMS)
async def test_a_subscriber_of_a_city_gets_that_city(centre: Site, fleet: dict[str, Made], media: str) -> None:
    """In every form: all of 4401 up to the feed's grade, nothing of 4403; one of 4403 gets that (the control)."""
    ours, _ = await centre.token(scope="4401")
    theirs, _ = await centre.token(scope="4403")
    pages = {}
    for name, token in (("ours", ours), ("theirs", theirs)):
        answer = await centre.ask("GET", f"{FEED}/records", token, headers={"Accept": media})
        assert answer.status == 200
        pages[name] = json.dumps(answer.body).encode() if isinstance(answer.body, dict) else answer.body
    assert b"ours-env" in pages["ours"]
    assert b"ours-water" in pages["ours"]
    assert b"canary" not in pages["ours"]
    assert b"canary-theirs" in pages["theirs"]
    assert b"ours" not in pages["theirs"]


@pytest.mark.parametrize("wanted", ["4403", "440304", "4401,4403", "440304000000"])
async def test_a_filter_does_not_widen_the_scope(centre: Site, fleet: dict[str, Made], wanted: str) -> None:
    """Asking for another division is refused with 403, by page and by stream; for the province it is cut to ours."""
    token, _ = await centre.token(scope="4401")
    for route in ("records", "stream"):
        assert (await centre.ask("GET", f"{FEED}/{route}", token, params={"division": wanted})).status == 403
    rows = await centre.records(token, division="44")
    assert {row["division"] for row in rows} == {OURS}


async def test_a_higher_grade_comes_only_with_a_feed_of_that_grade(centre: Site, fleet: dict[str, Made]) -> None:
    """`all` gives grades up to 3 even to the admin; a feed that says 4 gives it (the control)."""
    feed = {"name": "core", "divisions": ["4401"], "grade_max": 4}
    assert (await centre.ask("POST", "/api/v1/feeds", json=feed)).status == 201
    assert "canary-core" not in {row["device"] for row in await centre.records()}
    token, _ = await centre.token(scope="4401", feeds=["core"])
    page = await centre.ask("GET", "/api/v1/feeds/core/records", token)
    assert "canary-core" in {row["device"] for row in page.body["records"]}


async def test_a_device_of_another_city_is_as_one_that_is_not_there(centre: Site, fleet: dict[str, Made]) -> None:
    """The same answer, but for the cursor, which says nothing of either."""
    token, _ = await centre.token(scope="4401")
    answers = [
        await centre.ask("GET", f"{FEED}/records", token, params={"device": name})
        for name in ("canary-theirs", "nobody-has-this-name")
    ]
    assert [answer.status for answer in answers] == [200, 200]
    assert _without_cursor(answers[0]) == _without_cursor(answers[1]) == {"records": []}
    assert answers[0].headers["X-Count"] == answers[1].headers["X-Count"] == "0"


async def test_a_feed_of_another_city_is_as_one_that_is_not_there(centre: Site, fleet: dict[str, Made]) -> None:
    """Not listed; its description, records and stream are 404 in the same words."""
    token, _ = await centre.token(scope="4401")
    listed = await centre.ask("GET", "/api/v1/feeds", token)
    assert [row["name"] for row in listed.body["rows"] if "canary" in row["name"]] == []
    for path in ("", "/records", "/stream"):
        results = []
        for name in ("canary-feed", "no-such-feed"):
            answer = await centre.ask("GET", f"/api/v1/feeds/{name}{path}", token)
            assert answer.status == 404
            results.append(answer.body["detail"].replace(name, "NAME"))
        assert results[0] == results[1]


async def test_the_cursor_of_another_token_opens_nothing(centre: Site, fleet: dict[str, Made]) -> None:
    """A cursor is a place, not a right: with one from before their reading, by page and stream, we get only ours."""
    admin = await centre.ask("GET", f"{FEED}/records", params={"limit": "1"})
    place = admin.body["next"]
    theirs = await centre.records(device="canary-theirs", after=place)
    assert theirs, "the control: the reading lies after the cursor"
    token, _ = await centre.token(scope="4401")
    rows = await centre.records(token, after=place)
    assert {row["device"] for row in rows} == {"ours-water"}
    async with centre.stream(token, after=theirs[0]["cursor"]) as stream:
        await centre.push(fleet["theirs"], reading(30, "2026-01-01T00:10:00Z"))
        await centre.push(fleet["ours"], reading(31, "2026-01-01T00:10:00Z"))
        assert (await stream.record())["device"] == "ours-env"


async def test_a_stream_and_a_long_poll_do_not_wake_for_others(centre: Site, fleet: dict[str, Made]) -> None:
    """Readings of another city neither come nor end the waiting; one of ours does."""
    token, _ = await centre.token(scope="4401")
    end = (await centre.ask("GET", f"{FEED}/records", token, params={"limit": "5000"})).body["next"]
    query = {"after": end, "wait": "20"}
    poll = asyncio.create_task(centre.ask("GET", f"{FEED}/records", token, params=query))
    control = asyncio.create_task(centre.ask("GET", f"{FEED}/records", params=query))
    async with centre.stream(token, after=end) as stream:
        await centre.push(fleet["theirs"], reading(40, "2026-01-01T00:20:00Z"))
        assert [row["device"] for row in (await control).body["records"]] == ["canary-theirs"]
        assert not poll.done()
        await centre.push(fleet["ours"], reading(41, "2026-01-01T00:20:00Z"))
        assert (await stream.record())["value"] == 41
        assert [row["value"] for row in (await poll).body["records"]] == [41]


async def test_another_department(centre: Site, fleet: dict[str, Made]) -> None:
    """A token of one department sees nothing of another in the same division, nor of devices without one."""
    water, _ = await centre.token(scope="4401", department="water")
    other, _ = await centre.token(scope="4401", department="police")
    assert {row["device"] for row in await centre.records(water)} == {"ours-water"}
    assert await centre.records(water, device="ours-env") == []
    assert await centre.records(other) == []
    operator, _ = await centre.token("city_operator", "4401", department="water")
    rows = (await centre.ask("GET", "/api/v1/devices", operator)).body["rows"]
    assert {row["id"] for row in rows} == {"ours-water"}
    assert (await centre.ask("GET", "/api/v1/devices/ours-env", operator)).status == 404


async def test_a_token_of_one_feed_reads_no_other(centre: Site, fleet: dict[str, Made]) -> None:
    """It gets that feed; `all` is 404 to it."""
    assert (await centre.ask("POST", "/api/v1/feeds", json={"name": "air", "divisions": ["4401"]})).status == 201
    token, _ = await centre.token(scope="4401", feeds=["air"])
    assert (await centre.ask("GET", "/api/v1/feeds/air/records", token)).body["records"]
    assert (await centre.ask("GET", f"{FEED}/records", token)).status == 404


BOOKS = (
    "/api/v1/devices",
    "/api/v1/ledger?by=device",
    "/api/v1/ledger?by=division",
    "/api/v1/quality",
    "/api/v1/quarantine",
    "/api/v1/tokens",
    "/api/v1/usage",
    "/api/v1/nodes",
    "/api/v1/feeds",
)


OTHER_CITY = re.compile(r"(?<![\w.])4403(\d\d)*(?!\w)")
"""Its division code, and those of its counties; not four digits of a random id."""


@pytest.mark.parametrize("path", BOOKS)
async def test_an_operator_of_a_city_sees_the_books_of_that_city(
    centre: Site, fleet: dict[str, Made], path: str
) -> None:
    """Registry and books hold nothing of the other city; the admin's do (the control, where there is anything)."""
    token, _ = await centre.token("city_operator", "4401")
    answer = await centre.ask("GET", path, token)
    assert answer.status == 200
    assert "canary-theirs" not in json.dumps(answer.body)
    assert not OTHER_CITY.search(json.dumps(answer.body))
    if path in {"/api/v1/devices", "/api/v1/ledger?by=device", "/api/v1/quarantine"}:

        async def control() -> bool:
            text = json.dumps((await centre.ask("GET", path)).body)
            # The rows of devices alone name the division.
            return "canary-theirs" in text and (path != "/api/v1/devices" or OTHER_CITY.search(text) is not None)

        await eventually(control)


async def test_an_operator_of_a_city_changes_nothing_of_another(centre: Site, fleet: dict[str, Made]) -> None:
    """Devices of others are 404 for every verb, new ones there and wider tokens 403, and nothing has changed."""
    token, _ = await centre.token("city_operator", "4401")
    before = (await centre.ask("GET", "/api/v1/devices/canary-theirs")).body
    device = "/api/v1/devices/canary-theirs"
    etag = {"If-Match": str(before["revision"])}
    assert (await centre.ask("GET", device, token)).status == 404
    assert (await centre.ask("PATCH", device, token, json={"name": "x"}, headers=etag)).status == 404
    assert (await centre.ask("DELETE", device, token)).status == 404
    for verb in ("rotate", "disable", "enable"):
        assert (await centre.ask("POST", f"{device}/{verb}", token)).status == 404, verb
    new = {"id": "intruder", "division": THEIRS, "profile": "sensegate/plain"}
    assert (await centre.ask("POST", "/api/v1/devices", token, json=new)).status == 403
    for scope, role in (("44", "subscriber"), ("4403", "subscriber"), ("4401", "admin")):
        body = {"role": role, "scope": scope}
        assert (await centre.ask("POST", "/api/v1/tokens", token, json=body)).status == 403, body
    feed = {"name": "wide", "divisions": ["4403"]}
    assert (await centre.ask("POST", "/api/v1/feeds", token, json=feed)).status == 403
    assert (await centre.ask("DELETE", "/api/v1/feeds/canary-feed", token)).status == 404
    assert (await centre.ask("GET", "/api/v1/devices/canary-theirs")).body == before


SUBSCRIBER_MAY_NOT = [
    ("GET", "/api/v1/devices"),
    ("POST", "/api/v1/devices"),
    ("GET", "/api/v1/devices/ours-env"),
    ("POST", "/api/v1/devices/ours-env/rotate"),
    ("DELETE", "/api/v1/devices/ours-env"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/ledger"),
    ("GET", "/api/v1/quality"),
    ("GET", "/api/v1/quarantine"),
    ("GET", "/api/v1/audit"),
    ("GET", "/api/v1/tokens"),
    ("POST", "/api/v1/tokens"),
    ("POST", "/api/v1/feeds"),
    ("DELETE", "/api/v1/feeds/air"),
    ("POST", "/api/v1/ingest/ours-env"),
]


@pytest.mark.parametrize(("method", "path"), SUBSCRIBER_MAY_NOT)
async def test_a_subscriber_only_reads(centre: Site, fleet: dict[str, Made], method: str, path: str) -> None:
    """Everything else is 403 for its role; without a token it is 401."""
    token, _ = await centre.token(scope="44")
    assert (await centre.ask(method, path, token)).status == 403
    if method == "GET":
        assert (await centre.ask(method, path, "")).status == 401


async def test_an_expired_token(centre: Site, fleet: dict[str, Made]) -> None:
    """Good before; at its end its open stream is cut within 2 s, and pages are 401."""
    lasts_s = 1.0  # more where the machine stood still meanwhile
    token, _ = await centre.token(scope="4401", expires_s=lasts_s)
    while (await centre.ask("GET", f"{FEED}/records", token)).status != 200 and lasts_s < 100:
        lasts_s *= 8
        token, _ = await centre.token(scope="4401", expires_s=lasts_s)
    began = time.monotonic()
    async with centre.stream(token, device="nobody") as stream:
        event = await stream.next(2 * lasts_s + 60)
        assert event is not None
        assert event["event"] == "problem"
        assert json.loads(event["data"])["status"] == 401
        assert await stream.next() is None
    assert time.monotonic() - began < lasts_s + WITHIN_TWO_SECONDS
    assert (await centre.ask("GET", f"{FEED}/records", token)).status == 401
    assert (await centre.ask("GET", f"{FEED}/stream", token)).status == 401


async def test_a_revoked_token(centre: Site, fleet: dict[str, Made]) -> None:
    """Its open stream is cut within 2 s while another's goes on; a long poll gives nothing; pages are 401."""
    token, name = await centre.token(scope="4401")
    other, _ = await centre.token(scope="4401")
    end = (await centre.ask("GET", f"{FEED}/records", token, params={"limit": "5000"})).body["next"]
    query = {"after": end, "wait": "20"}
    poll = asyncio.create_task(centre.ask("GET", f"{FEED}/records", token, params=query))
    async with centre.stream(token, after=end) as stream, centre.stream(other, after=end) as bystander:
        began = time.monotonic()
        assert (await centre.ask("DELETE", f"/api/v1/tokens/{name}")).status == 200
        event = await stream.next(60)
        assert event is not None
        assert event["event"] == "problem"
        assert await stream.next() is None
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        await centre.push(fleet["ours"], reading(50, "2026-01-01T00:30:00Z"))
        assert (await bystander.record())["value"] == 50
    assert (await poll).status == 401
    assert (await centre.ask("GET", f"{FEED}/records", token)).status == 401
