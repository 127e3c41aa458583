"""The thin thread of sharing by REST, at a centre with devices of two cities: apply, decide, read, quota, revoke."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from sensegate.authority.heads import public_key
from sensegate.cli import app
from sensegate.errors import ConfigError
from sensegate.share import delivery
from sensegate.share.usage_statements import verify_statement
from tests.conftest import eventually
from tests.live.granting import ENTRY
from tests.live.site import Made, Site, reading
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

FEED = "gz-air"


class Cast(msgspec.Struct):
    """Who plays."""

    device: Made
    owner: str
    """City operator of 4401."""
    reader: str
    """Subscriber of 4403."""
    reader_id: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(centre: Site) -> AsyncIterator[Cast]:
    """A feed of 4401 with readings, and people of two cities."""
    device = await centre.device("share-gz-1", "440106", lon=113.36123, lat=23.12345, grade=2)
    owner, _ = await centre.token("city_operator", "4401")
    reader, reader_id = await centre.token("subscriber", "4403")
    answer = await centre.ask("POST", "/api/v1/feeds", owner, json={"name": FEED, "divisions": ["4401"]})
    assert answer.status == 201, answer.body
    for minute in range(10):
        sample = reading(20.123 + minute, f"2026-01-01T00:{minute:02}:30Z")
        assert (await centre.push(device, sample)).status == 202
    await eventually(lambda: centre.records(device=device.id))
    yield Cast(device, owner, reader, reader_id)


async def _read(centre: Site, token: str, **query: Any) -> Any:
    return await centre.ask("GET", f"/api/v1/feeds/{FEED}/records", token, params=query)


async def _later(centre: Site, token: str, count: int) -> bool:
    records = (await _read(centre, token)).body["records"]
    return len([row for row in records if row["time"] > "2026-01-01T05"]) >= count


async def test_an_entry_is_a_draft_until_it_is_complete(centre: Site, cast: Cast) -> None:
    """Nobody outside sees it, and it cannot be applied for; each missing field is named; then all see it."""
    path = f"/api/v1/catalogue/{FEED}"
    empty = (await centre.ask("GET", path, cast.owner)).body
    assert empty["state"] == "draft"
    assert any(text.startswith("department") for text in empty["missing"])
    assert (await centre.ask("GET", path, cast.reader)).status == 404
    wish = {"feeds": [FEED], "purpose": "p", "legal_basis": "l"}
    assert (await centre.ask("POST", "/api/v1/applications", cast.reader, json=wish)).status == 404
    half = {key: value for key, value in ENTRY.items() if key != "usage"}
    answer = await centre.ask("PATCH", path, cast.owner, json=half)
    assert answer.status == 200, answer.body
    assert answer.body["missing"] == ["usage: is missing; every entry needs it"]
    etag = {"If-Match": str(answer.body["revision"])}
    whole = await centre.ask("PATCH", path, cast.owner, json={"usage": ENTRY["usage"]}, headers=etag)
    assert whole.body["state"] == "published", whole.body
    assert whole.body["code"] == "440100-theme-000001"
    body = (await centre.ask("GET", path, cast.reader)).body
    assert [column["name"] for column in body["columns"]] == ["air_temperature"]
    assert len(body["sample"]) == 5
    assert cast.device.id not in json.dumps(body["sample"]), "devices are pseudonyms in a sample"
    assert body["sample"][0]["lon"] is None
    assert not body["can_read"]
    for words in ("廣州 溫度", "guangzhou temperature", "440100-theme"):
        rows = (await centre.ask("GET", "/api/v1/catalogue", cast.reader, params={"q": words})).body["rows"]
        assert [row["feed"] for row in rows] == [FEED], words
    assert (await centre.ask("GET", "/api/v1/catalogue", cast.reader, params={"q": "深圳"})).body["rows"] == []
    dcat = await centre.ask("GET", "/api/v1/catalogue", cast.reader, headers={"Accept": "application/ld+json"})
    assert dcat.body["dcat:dataset"][0]["dct:identifier"] == whole.body["code"]
    sheet = await centre.ask("GET", "/api/v1/catalogue", cast.reader, headers={"Accept": "text/csv"})
    assert whole.body["code"] in sheet.body.decode()


async def test_the_thread(centre: Site, cast: Cast) -> None:  # noqa: PLR0915 - one story
    """Apply, approve with masks and a quota, read masked, the quota bites, revocation stops, metering equals."""
    assert (await _read(centre, cast.reader)).status == 404
    wish = {
        "feeds": [FEED],
        "purpose": "聯合預報",
        "legal_basis": "國務院令第809號",
        "days": 30,
        "deliveries": ["http", "sse", "ws"],
        "rate": 0,
    }
    made = await centre.ask("POST", "/api/v1/applications", cast.reader, json=wish)
    assert made.status == 201, made.body
    name = made.body["id"]
    assert made.body["state"] == "pending"
    assert made.body["level"] == "4401"
    decision = {
        "approve": True,
        "volume": 12,
        "mask": {
            "hash": ["device"],
            "grid_m": 1000,
            "time_s": 60,
            "round": [{"property": "air_temperature", "step": 0.5}],
        },
    }
    refused = await centre.ask("POST", f"/api/v1/applications/{name}/decision", cast.reader, json=decision)
    assert refused.status == 403
    other, _ = await centre.token("city_operator", "4403")
    assert (await centre.ask("POST", f"/api/v1/applications/{name}/decision", other, json=decision)).status == 403, (
        "the applicant's own city sees it and does not decide"
    )
    done = await centre.ask("POST", f"/api/v1/applications/{name}/decision", cast.owner, json=decision)
    assert done.status == 200, done.body
    grant = done.body["grants"][0]
    shown = (await centre.ask("GET", f"/api/v1/grants/{grant}", cast.reader)).body
    assert (shown["state"], shown["volume"], shown["used"]) == ("active", 12, 0)

    raw = (await _read(centre, centre.admin, limit="8")).body["records"]
    page = await _read(centre, cast.reader, limit="8")
    assert page.status == 200, page.body
    assert page.headers["X-Quota-Left"] == "4"
    rows = page.body["records"]
    assert [row["cursor"] for row in rows] == [row["cursor"] for row in raw]
    assert {row["device"] for row in raw} == {cast.device.id}, "the control: unmasked it is there"
    assert len({row["device"] for row in rows}) == 1
    assert cast.device.id not in json.dumps(page.body)
    assert all(row["value"] * 2 == int(row["value"] * 2) for row in rows)
    assert {row["time"][17:19] for row in rows} == {"00"}
    assert {row["time"][17:19] for row in raw} == {"30"}
    assert {(row["lon"], row["lat"]) for row in rows} != {(row["lon"], row["lat"]) for row in raw}

    after = rows[-1]["cursor"]
    async with centre.stream(cast.reader, FEED, after=after) as stream:
        assert [(await stream.record())["cursor"] for _ in range(2)] == [
            row["cursor"] for row in (await _read(centre, centre.admin, after=after)).body["records"]
        ]
        for minute in range(3):
            sample = reading(30.0, f"2026-01-01T01:{minute:02}:30Z")
            assert (await centre.push(cast.device, sample)).status == 202
        assert [(await stream.record())["value"] for _ in range(2)] == [30.0, 30.0]
        event = await stream.next()
        assert event is not None
        problem = json.loads(event["data"])
        assert problem["status"] == 429, problem
        assert await stream.next() is None
    bitten = await _read(centre, cast.reader, after=after)
    assert bitten.status == 429
    assert int(bitten.headers["Retry-After"]) > 1

    # More by the owner, then taken back while a stream is open.
    etag = {"If-Match": str((await centre.ask("GET", f"/api/v1/grants/{grant}", cast.owner)).body["revision"])}
    more = await centre.ask("PATCH", f"/api/v1/grants/{grant}", cast.owner, json={"volume": 20}, headers=etag)
    assert more.status == 200, more.body
    third = await _read(centre, cast.reader, after=after)
    assert len(third.body["records"]) == 5
    end = third.body["next"]
    async with centre.stream(cast.reader, FEED, after=end) as stream, centre.stream(cast.owner, FEED, after=end) as own:
        began = time.monotonic()
        gone = await centre.ask("DELETE", f"/api/v1/grants/{grant}", cast.owner, params={"reason": "misuse"})
        assert gone.body["state"] == "revoked"
        event = await stream.next(60.0)
        assert event is not None
        assert json.loads(event["data"])["status"] == 403
        assert "misuse" in event["data"]
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        assert (await centre.push(cast.device, reading(40.0, "2026-01-01T02:00:30Z"))).status == 202
        assert (await own.record())["value"] == 40.0, "the control: the owner's own stream goes on"
    assert (await _read(centre, cast.reader)).status == 403

    usage = (await centre.ask("GET", f"/api/v1/grants/{grant}/usage", cast.reader)).body
    assert {row["delivery"]: row["records"] for row in usage["rows"]} == {"json": 13, "sse": 4}
    line = await centre.ask("GET", f"/api/v1/grants/{grant}/statements/{usage['month']}", cast.reader)
    assert line.body["records"] == 17
    key = public_key(centre.config_file("statements.pub"))
    text = msgspec.json.encode(line.body)
    assert verify_statement(text, key=key).records == 17
    with pytest.raises(ConfigError, match="changed"):
        verify_statement(text.replace(b'"records":17', b'"records":16'), key=key)
    actions = {row["action"] for row in await centre.audit() if row["target"] in {name, grant, FEED}}
    assert {"application.create", "application.approve", "grant.create", "grant.change", "grant.revoke"} <= actions


async def test_a_planted_delay_of_revocation_is_found(
    centre: Site, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that looks at its grant too seldom is open after two seconds: the thread above would see it."""
    reader, _ = await centre.token("subscriber", "4403")
    wish = {"feeds": [FEED], "purpose": "p", "legal_basis": "l"}
    name = (await centre.ask("POST", "/api/v1/applications", reader, json=wish)).body["id"]
    done = await centre.ask("POST", f"/api/v1/applications/{name}/decision", cast.owner, json={"approve": True})
    end = (await _read(centre, reader)).body["next"]
    monkeypatch.setattr(delivery, "_RECHECK_S", 60.0)
    async with centre.stream(reader, FEED, after=end) as stream:
        await centre.ask("DELETE", f"/api/v1/grants/{done.body['grants'][0]}", cast.owner)
        with pytest.raises(TimeoutError):
            await stream.next(2.0)


async def test_core_is_refused_and_recorded(centre: Site, cast: Cast) -> None:
    """A feed whose entry is graded core is in the catalogue and not granted, whoever asks."""
    feed = {"name": "gz-core", "divisions": ["4401"], "grade_max": 4}
    assert (await centre.ask("POST", "/api/v1/feeds", cast.owner, json=feed)).status == 201
    entry = {**ENTRY, "grade": 2}
    low = await centre.ask("PATCH", "/api/v1/catalogue/gz-core", cast.owner, json=entry)
    assert [text.partition(":")[0] for text in low.body["missing"]] == ["grade"], "grades are inherited"
    etag = {"If-Match": str(low.body["revision"])}
    full = await centre.ask("PATCH", "/api/v1/catalogue/gz-core", cast.owner, json={"grade": 4}, headers=etag)
    assert full.body["state"] == "published"
    wish = {"feeds": ["gz-core"], "purpose": "p", "legal_basis": "l"}
    for token in (cast.reader, centre.admin):
        answer = await centre.ask("POST", "/api/v1/applications", token, json=wish)
        assert answer.status == 403, answer.body
    assert [row for row in await centre.audit() if row["action"] == "grant.refuse_core"]


async def test_a_pre_approved_bundle_is_granted_at_once(centre: Site, cast: Cast) -> None:
    """Whom it names, on its terms; another city waits for the owner; who does not own all feeds makes none."""
    until = time.time_ns() // 1_000 + 3_600_000_000
    terms = {"approve": True, "days": 10, "mask": {"drop": ["place"]}, "deliveries": ["http"]}
    wanted = {
        "name": "flood",
        "feeds": [FEED],
        "pre_approvals": [{"applicants": ["4403"], "until": until, "terms": terms, "reason": "防汛"}],
    }
    stranger, _ = await centre.token("city_operator", "4403")
    assert (await centre.ask("POST", "/api/v1/bundles", stranger, json=wanted)).status == 403
    made = await centre.ask("POST", "/api/v1/bundles", cast.owner, json=wanted)
    assert made.status == 201, made.body
    wish = {"bundle": "flood", "purpose": "p", "legal_basis": "l"}
    ours, _ = await centre.token("subscriber", "440304")
    theirs, _ = await centre.token("subscriber", "4406")
    given = await centre.ask("POST", "/api/v1/applications", ours, json=wish)
    assert (given.body["state"], given.body["reason"]) == ("approved", "防汛"), given.body
    grant = (await centre.ask("GET", f"/api/v1/grants/{given.body['grants'][0]}", ours)).body
    assert grant["deliveries"] == ["http"]
    assert (await _read(centre, ours, limit="1")).body["records"][0]["lon"] is None
    waits = await centre.ask("POST", "/api/v1/applications", theirs, json=wish)
    assert waits.body["state"] == "pending"
    other = await centre.ask("POST", f"/api/v1/applications/{waits.body['id']}/withdraw", theirs)
    assert other.body["state"] == "withdrawn"


async def test_by_command(centre: Site, cast: Cast, tmp_path: Path) -> None:
    """The whole way by the command line, to a receipt that is checked offline."""
    reader, _ = await centre.token("subscriber", "4403")

    async def call(token: str, *words: str, code: int = 0) -> str:
        arguments = [*words, "--url", centre.addresses.http, "--token", token] if token else [*words]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert result.exit_code == code, result.output
        return result.output

    await call(cast.owner, "feed", "create", "by-command", "--division", "4401")
    texts = [f"{key}={value}" for key, value in ENTRY.items() if key != "usage"]
    assert "missing: usage" in await call(cast.owner, "catalogue", "describe", "by-command", *texts)
    assert "published" in await call(cast.owner, "catalogue", "describe", "by-command", "usage=研究")
    text = await call(reader, "catalogue", "list", "廣州", "temperature", "--json")
    assert "by-command" in {row["feed"] for row in json.loads(text)}
    assert "air_temperature" in await call(reader, "catalogue", "show", "by-command")
    await call(cast.owner, "catalogue", "sample", "by-command", "--rows", "2", "--mask", '{"drop": ["place"]}')
    assert "dcat:Dataset" in await call(reader, "catalogue", "export")
    text = await call(reader, "application", "apply", "by-command", "--purpose", "p", "--legal-basis", "l", "--json")
    name = json.loads(text)["id"]
    assert name in await call(cast.owner, "application", "list", "--state", "pending", "--json")
    text = await call(cast.owner, "application", "approve", name, "--mask", '{"hash": ["device"]}', "--json")
    grant = json.loads(text)["grants"][0]
    await call(reader, "feed", "tail", "by-command", "--limit", "3", "--format", "json")
    assert "3" in await call(reader, "grant", "usage", grant)
    assert '"volume": 9' in await call(cast.owner, "grant", "change", grant, "--volume", "9", "--json")
    file = tmp_path / "statement.json"
    month = json.loads(await call(reader, "grant", "usage", grant, "--json"))[0]["month"]
    await call(reader, "statement", "get", grant, month, "--out", str(file))
    key = str(centre.config_file("statements.pub"))
    assert "valid" in await call("", "statement", "verify", str(file), "--key", key)
    file.write_text(file.read_text().replace('"records":3', '"records":2'))
    assert "INVALID" in await call("", "statement", "verify", str(file), "--key", key, code=1)
    await call(cast.owner, "bundle", "create", "pair", "by-command", "--pre-approve", "4406", "--days", "5")
    assert "pair" in await call(reader, "bundle", "list")
    sixth, _ = await centre.token("subscriber", "4406")
    text = await call(
        sixth, "application", "apply", "--bundle", "pair", "--purpose", "p", "--legal-basis", "l", "--json"
    )
    assert json.loads(text)["state"] == "approved"
    await call(cast.owner, "bundle", "delete", "pair")
    await call(cast.owner, "grant", "revoke", grant, "--reason", "enough")
    assert "revoked" in await call(reader, "grant", "list")


async def test_what_was_built_twice_is_told(centre: Site, cast: Cast) -> None:
    """A warning in the answer to a registration, a list; another county's device has no name."""
    place = {"profile": "sensegate/plain", "lon": 113.30001, "lat": 23.10001}
    first = {"id": "twice-1", "division": "440106", "owner": "水務局", **place}
    assert (await centre.ask("POST", "/api/v1/devices", cast.owner, json=first)).body["warnings"] == []
    county, _ = await centre.token("county_operator", "440103")
    second = {"id": "twice-2", "division": "440103", "owner": "氣象局", **place, "lon": 113.30011}
    answer = await centre.ask("POST", "/api/v1/devices", county, json=second)
    assert answer.status == 201
    (warning,) = answer.body["warnings"]
    assert "440106" in warning
    assert "twice-1" not in warning
    assert "水務局" not in warning
    rows = (await centre.ask("GET", "/api/v1/devices/duplicates", cast.owner)).body["rows"]
    assert [(row["device"], row["other"], row["owner"]) for row in rows] == [("twice-1", "twice-2", "水務局")]
    assert 9 < rows[0]["metres"] < 12


async def test_a_second_source_is_a_shadow(centre: Site, cast: Cast) -> None:
    """Told at registration, in no feed but one that asks for it, compared; not made a second authority by the way."""
    place = {"division": "440112", "profile": "sensegate/plain", "asset": "gate-7"}
    first = await centre.device("gate-a", **place)
    answer = await centre.ask("POST", "/api/v1/devices", json={"id": "gate-b", **place, "secondary": False})
    assert answer.status == 409
    answer = await centre.ask("POST", "/api/v1/devices", json={"id": "gate-b", **place})
    assert answer.body["device"]["secondary"] is True
    assert "gate-a is the source" in answer.body["warnings"][0]
    second = Made("gate-b", answer.body["password"], answer.body["topics"])
    wide = {"name": "with-secondary", "divisions": ["440112"], "secondary_sources": True}
    assert (await centre.ask("POST", "/api/v1/feeds", json=wide)).status == 201
    assert (await centre.push(first, reading(20.0, "2026-01-02T00:00:00Z"))).status == 202
    assert (await centre.push(second, reading(27.0, "2026-01-02T00:00:01Z"))).status == 202

    async def both() -> Any:
        rows = (await centre.ask("GET", "/api/v1/feeds/with-secondary/records")).body["records"]
        return rows if len(rows) == 2 else []

    rows = await eventually(both)
    assert [("secondary" in row["flags"], row["device"]) for row in rows] == [(False, "gate-a"), (True, "gate-b")]
    assert {row["device"] for row in await centre.records(division="440112")} == {"gate-a"}
    (entries,) = (await centre.ask("GET", "/api/v1/devices/secondary-sources", cast.owner)).body["rows"]
    assert (entries["authority"], entries["secondary"], entries["different"], entries["max"]) == (
        "gate-a",
        "gate-b",
        1,
        7.0,
    )
    assert await centre.metric("sensegate_secondary_different_total") >= 1
    other, _ = await centre.token("city_operator", "4403")
    assert (await centre.ask("GET", "/api/v1/devices/secondary-sources", other)).body["rows"] == []


async def test_a_rate_is_waited_for_by_streams_and_told_to_pages(centre: Site, cast: Cast) -> None:
    """By page 429 with Retry-After once the burst is used; a stream goes on slowly and loses nothing."""
    reader, _ = await centre.token("subscriber", "4403")
    wish = {"feeds": [FEED], "purpose": "p", "legal_basis": "l", "rate": 1}
    name = (await centre.ask("POST", "/api/v1/applications", reader, json=wish)).body["id"]
    done = await centre.ask("POST", f"/api/v1/applications/{name}/decision", cast.owner, json={"approve": True})
    assert done.status == 200, done.body
    for minute in range(4):
        assert (await centre.push(cast.device, reading(10.0, f"2026-01-01T05:{minute:02}:30Z"))).status == 202
    await eventually(lambda: _later(centre, cast.owner, 4))
    every = [row["cursor"] for row in (await _read(centre, cast.owner)).body["records"]]
    assert len(every) > 10
    first = await _read(centre, reader)
    assert len(first.body["records"]) == 10, "the burst of ten seconds"
    second = await _read(centre, reader, after=first.body["next"])
    assert second.status == 429
    async with centre.stream(reader, FEED, after=first.body["next"]) as stream:
        began = time.monotonic()
        assert [(await stream.record())["cursor"] for _ in range(2)] == every[10:12]
        assert time.monotonic() - began > 0.9
