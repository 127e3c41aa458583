"""REST: devices, tokens, registry, ledger, quality, quarantine, audit, ingest; all cut to the caller."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import numpy as np
import pytest

from sensegate.authority.refusals import DeniedOperation, LastRefusal
from sensegate.authority.scope import Role
from sensegate.bus import raw
from sensegate.clock import HOUR_US, SystemClock
from sensegate.errors import Overloaded, Rejected, Unavailable
from sensegate.model import LogMessage, Message, QualityRow
from tests.share.made import Place, make_batch, members
from tests.web.serving import Gateway

DEVICES = "/api/v1/devices"


@pytest.fixture
async def city(gateway: Gateway) -> Gateway:
    """Five devices of two cities and two departments."""
    for name, division, department in (
        ("gz-1", "440106", "env"),
        ("gz-2", "440103", "env"),
        ("gz-3", "440106", "police"),
        ("sz-1", "440304", "env"),
        ("dg-1", "441900003", "env"),
    ):
        await gateway.device(name, division, department=department, name=f"device {name}")
    return gateway


def ids(body: dict[str, Any]) -> list[str]:
    """Return the ids of a list."""
    return [row["id"] for row in body["rows"]]


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_device_is_registered_once_with_its_password(gateway: Gateway) -> None:
    """201 with the password; it works; never shown again; a second registration is 409."""
    token = await gateway.token()
    body = {"id": "air-1", "division": "440106", "profile": "acme/th10", "lon": 113.3, "lat": 23.1, "datum": "gcj02"}
    _, made, _ = await gateway.ask("POST", DEVICES, token, json=body, expect=201)
    assert (made["username"], made["topics"]) == ("air-1", ["sg/air-1/up"])
    assert gateway.devices.verify("air-1", made["password"])
    _, row, _ = await gateway.ask("GET", f"{DEVICES}/air-1", token, expect=200)
    assert (row["datum"], row["lon"]) == ("gcj02", 113.3)
    assert "password" not in row
    await gateway.ask("POST", DEVICES, token, json=body, expect=409)
    _, problem, _ = await gateway.ask("POST", DEVICES, token, json={**body, "id": "b", "colour": 1}, expect=400)
    assert "colour" in problem["detail"]
    await gateway.ask("POST", DEVICES, token, json={**body, "id": "a b"}, expect=400)
    await gateway.ask("POST", DEVICES, token, json={**body, "id": "b", "division": "9999"}, expect=400)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("44", ["dg-1", "gz-1", "gz-2", "gz-3", "sz-1"]), ("4401", ["gz-1", "gz-2", "gz-3"]), ("440106/police", ["gz-3"])],
)
async def test_lists_and_single_devices_are_cut(city: Gateway, where: str, expected: list[str]) -> None:
    """What is outside the scope is not listed, not counted, and 404 by name; changing it is refused the same way."""
    token = await city.token(Role.COUNTY_OPERATOR if len(where) > 4 else Role.ADMIN, where)
    _, body, _ = await city.ask("GET", DEVICES, token, expect=200)
    assert (ids(body), body["total"]) == (expected, len(expected))
    _, body, _ = await city.ask("GET", f"{DEVICES}?sort=-name", token, expect=200)
    assert ids(body) == expected[::-1]
    for name in ("dg-1", "gz-1", "gz-2", "gz-3", "sz-1", "nobody"):
        status = 200 if name in expected else 404
        await city.ask("GET", f"{DEVICES}/{name}", token, expect=status)
        if status == 404:
            await city.ask("PATCH", f"{DEVICES}/{name}", token, json={}, headers={"If-Match": "1"}, expect=404)
            await city.ask("POST", f"{DEVICES}/{name}/disable", token, expect=404)
            await city.ask("POST", f"{DEVICES}/{name}/rotate", token, json={}, expect=404)
            await city.ask("DELETE", f"{DEVICES}/{name}", token, expect=404)


async def test_lists_filter_sort_and_page(city: Gateway) -> None:
    """By field, by text, by division prefix; pages chain by `next`."""
    token = await city.token()
    for query, expected in (
        ("division=4401", ["gz-1", "gz-2", "gz-3"]),
        ("department=police", ["gz-3"]),
        ("q=GZ-2", ["gz-2"]),
        ("state=registered&division=4403", ["sz-1"]),
        ("state=disabled", []),
        ("sort=-department,id", ["gz-3", "dg-1", "gz-1", "gz-2", "sz-1"]),
        ("id=gz-1,sz-1", ["gz-1", "sz-1"]),
    ):
        _, body, _ = await city.ask("GET", f"{DEVICES}?{query}", token, expect=200)
        assert (ids(body), body["total"]) == (expected, len(expected)), query
    results: list[str] = []
    after = ""
    for _ in range(3):
        _, body, _ = await city.ask("GET", f"{DEVICES}?limit=2&after={after}", token, expect=200)
        results += ids(body)
        assert body["total"] == 5
        after = body.get("next", "")
    assert results == ["dg-1", "gz-1", "gz-2", "gz-3", "sz-1"]
    assert after == ""
    await city.ask("GET", f"{DEVICES}?state=broken", token, expect=400)
    await city.ask("GET", f"{DEVICES}?limit=0", token, expect=400)
    county = await city.token(Role.COUNTY_OPERATOR, "440106")
    await city.ask("GET", f"{DEVICES}?division=4403", county, expect=403)


async def test_changes_need_the_revision_read(city: Gateway) -> None:
    """PATCH changes what is named and nothing else; a stale revision is 412, none 428."""
    token = await city.token()
    _, row, response = await city.ask("GET", f"{DEVICES}/gz-1", token, expect=200)
    assert response.headers["ETag"] == f'"{row["revision"]}"'
    tag = {"If-Match": response.headers["ETag"]}
    await city.ask("PATCH", f"{DEVICES}/gz-1", token, json={"name": "x"}, expect=428)
    _, changed, _ = await city.ask(
        "PATCH", f"{DEVICES}/gz-1", token, json={"name": "x", "lon": 113.0, "lat": 23.0}, headers=tag, expect=200
    )
    assert {key for key in row if row[key] != changed[key]} == {"name", "lon", "lat", "revision"}
    await city.ask("PATCH", f"{DEVICES}/gz-1", token, json={"name": "y"}, headers=tag, expect=412)
    tag = {"If-Match": str(changed["revision"])}
    _, changed, _ = await city.ask(
        "PATCH", f"{DEVICES}/gz-1", token, json={"state": "disabled"}, headers=tag, expect=200
    )
    assert changed["state"] == "disabled"
    _, changed, _ = await city.ask("POST", f"{DEVICES}/gz-1/enable", token, expect=200)
    assert changed["state"] == "registered"
    _, changed, _ = await city.ask("DELETE", f"{DEVICES}/gz-1", token, expect=200)
    assert changed["state"] == "retired"
    await city.ask("POST", f"{DEVICES}/gz-1/enable", token, expect=409)


async def test_rotation_gives_a_new_password(city: Gateway) -> None:
    """The new one works; the old one ends with its grace."""
    token = await city.token()
    old = await city.device("r-1")
    _, made, _ = await city.ask("POST", f"{DEVICES}/r-1/rotate", token, json={"grace_s": 0}, expect=200)
    assert city.devices.verify("r-1", made["password"])
    assert not city.devices.verify("r-1", old)


async def test_a_file_is_imported_with_a_report(city: Gateway) -> None:
    """A dry run changes nothing; each row has its outcome."""
    token = await city.token()
    table = b"id,division,profile\nnew-1,440106,acme/th10\ngz-1,4403,acme/th10\nbad,x,acme/th10\n"
    kind = {"Content-Type": "text/csv"}
    for query, present in (("?dry_run=true", False), ("", True)):
        _, body, _ = await city.ask("POST", f"{DEVICES}/import{query}", token, data=table, headers=kind, expect=200)
        assert [row["outcome"] for row in body["rows"]] == ["added", "refused", "refused"]
        assert all(bool(row["problem"]) == (row["outcome"] == "refused") for row in body["rows"])
        await city.ask("GET", f"{DEVICES}/new-1", token, expect=200 if present else 404)


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────


async def test_tokens_are_made_listed_and_revoked(gateway: Gateway) -> None:
    """The text works at once and is shown once; after the revocation it is 401."""
    admin = await gateway.token()
    body = {"role": "subscriber", "scope": "440100", "department": "env", "expires_s": 60, "name": "city platform"}
    _, made, _ = await gateway.ask("POST", "/api/v1/tokens", admin, json=body, expect=201)
    _, me, _ = await gateway.ask("GET", "/api/v1/me", made["token"], expect=200)
    assert (me["role"], me["scope"], me["department"]) == ("subscriber", "4401", "env")
    _, listed, _ = await gateway.ask("GET", "/api/v1/tokens?role=subscriber", admin, expect=200)
    assert [row["name"] for row in listed["rows"]] == ["city platform"]
    assert made["token"].split("_", 2)[2] not in str(listed)
    await gateway.ask("DELETE", f"/api/v1/tokens/{made['id']}", admin, expect=200)
    _, problem, _ = await gateway.ask("GET", "/api/v1/me", made["token"], expect=401)
    assert "revoked" in problem["detail"]


async def test_nobody_gives_more_than_it_has(gateway: Gateway) -> None:
    """A city operator makes no token of another city, no wider one, no admin; a subscriber none at all."""
    city = await gateway.token(Role.CITY_OPERATOR, "4401")
    for body in (
        {"role": "subscriber", "scope": "4403"},
        {"role": "subscriber", "scope": "44"},
        {"role": "admin", "scope": "4401"},
    ):
        await gateway.ask("POST", "/api/v1/tokens", city, json=body, expect=403)
    await gateway.ask("POST", "/api/v1/tokens", city, json={"role": "subscriber", "scope": "440106"}, expect=201)
    subscriber = await gateway.token(Role.SUBSCRIBER, "4401")
    await gateway.ask("POST", "/api/v1/tokens", subscriber, json={"role": "subscriber", "scope": "4401"}, expect=403)
    await gateway.ask("GET", "/api/v1/tokens", subscriber, expect=403)


# ── registry ──────────────────────────────────────────────────────────────────────────────────────────


async def test_divisions_properties_profiles_nodes(gateway: Gateway) -> None:
    """Lists and single records; nodes cut to the scope, divisions not."""
    token = await gateway.token(Role.CITY_OPERATOR, "4401")
    _, body, _ = await gateway.ask("GET", "/api/v1/divisions?level=county&parent=4401", token, expect=200)
    assert len(body["rows"]) == 11
    assert {row["code"][:4] for row in body["rows"]} == {"4401"}
    await gateway.ask("GET", "/api/v1/divisions/440106", token, expect=200)
    await gateway.ask("GET", "/api/v1/divisions/440304", token, expect=200)
    await gateway.ask("GET", "/api/v1/divisions/999999", token, expect=404)
    _, body, _ = await gateway.ask("GET", "/api/v1/properties?q=temperature&limit=3", token, expect=200)
    assert len(body["rows"]) == 3
    assert body["next"] == body["rows"][-1]["name"]
    _, body, _ = await gateway.ask("GET", "/api/v1/properties/air_temperature", token, expect=200)
    assert body["unit"] == "Cel"
    _, body, _ = await gateway.ask("GET", "/api/v1/properties/lift_direction", token, expect=200)
    assert body["codes"][0] == {"code": "up", "label_zh": "上行", "label_en": "up"}
    _, problem, _ = await gateway.ask("GET", "/api/v1/properties/air_temprature", token, expect=404)
    assert "air_temperature" in problem["detail"]
    _, body, _ = await gateway.ask("GET", "/api/v1/profiles/acme/th10", token, expect=200)
    assert body["version"] == 3
    _, body, _ = await gateway.ask("GET", "/api/v1/nodes", token, expect=200)
    assert [row["division"] for row in body["rows"]] == ["4401"]


async def test_numbers_in_other_scripts_are_no_fault_of_ours(city: Gateway) -> None:
    """A raised two counts as a digit and is no number; a time before all times is one."""
    token = await city.token(Role.ADMIN, "44")
    for since in ("²d", "²", "1.²", "٣d"):
        await city.ask("GET", f"/api/v1/ledger?since={since}", token, expect=400)
    for since in ("999999999d", "0001-01-01"):
        await city.ask("GET", f"/api/v1/ledger?since={since}", token, expect=200)
    for after in ("²", "9" * 5_000):
        await city.ask("GET", f"{DEVICES}?sort=-name&after={after}", token, expect=200)


# ── books ─────────────────────────────────────────────────────────────────────────────────────────────


async def _ledger(gateway: Gateway, token: str, rows: int, query: str = "") -> dict[str, Any]:
    """Return the ledger once it counts this many messages."""
    async with asyncio.timeout(30):
        while True:
            _, body, _ = await gateway.ask("GET", f"/api/v1/ledger?since=10000d{query}", token, expect=200)
            if body["totals"].get("messages", 0) == rows:
                answer: dict[str, Any] = body
                return answer
            await asyncio.sleep(0)


async def _fill(gateway: Gateway) -> None:
    gz = [Place("gz-1"), Place("gz-2", "440103"), Place("gz-3", "440106", "police")]
    await gateway.log.write(members(make_batch([(0, "pm2_5", 1.0), (1, "pm2_5", 1.0), (2, "pm2_5", 2.0)], places=gz)))
    sz = [Place("sz-1", "440304")]
    await gateway.log.write(members(make_batch([(0, "pm2_5", 1.0)], places=sz, node="4403")))


async def test_the_ledger_sums_and_balances(city: Gateway) -> None:
    """By node, division, device, hour, reason; totals by kind; balanced."""
    await _fill(city)
    token = await city.token()
    body = await _ledger(city, token, 4)
    assert body["balanced"] is True
    assert [(row["node"], row["messages"], row["rejected"]) for row in body["rows"]] == [("4401", 3, 3), ("4403", 1, 1)]
    assert body["totals"] == {"accepted": 4, "decoded": 4, "messages": 4, "rejected.wrong_type": 4, "values": 8}
    body = await _ledger(city, token, 4, "&by=division")
    assert [(row["division"], row["messages"]) for row in body["rows"]] == [("440103", 1), ("440106", 2), ("440304", 1)]
    body = await _ledger(city, token, 4, "&by=device")
    assert [row["device"] for row in body["rows"]] == ["gz-1", "gz-2", "gz-3", "sz-1"]
    body = await _ledger(city, token, 4, "&by=reason")
    assert {row["reason"]: row["count"] for row in body["rows"]}["rejected.wrong_type"] == 4
    await city.ask("GET", "/api/v1/ledger?by=colour", token, expect=400)


@pytest.mark.parametrize(
    ("where", "messages"), [("44", 4), ("4401", 3), ("440106", 2), ("440106/police", 1), ("4403", 1), ("4404", 0)]
)
async def test_the_ledger_is_cut(city: Gateway, where: str, messages: int) -> None:
    """Counts outside the scope are not inferable: not in rows, not in totals."""
    await _fill(city)
    role = Role.COUNTY_OPERATOR if len(where) > 4 else Role.CITY_OPERATOR
    token = await city.token(Role.ADMIN if where == "44" else role, where)
    await _ledger(city, await city.token(), 4)
    for by in ("node", "division", "device", "hour"):
        body = await _ledger(city, token, messages, f"&by={by}")
        assert sum(row.get("messages", 0) for row in body["rows"]) == messages
        assert body["balanced"] is True


async def test_the_books_do_not_balance_when_something_is_missing(city: Gateway) -> None:
    """A count that is not accounted for is shown, not hidden."""
    await _fill(city)
    batch = members(make_batch([(0, "pm2_5", 1.0)]))
    from sensegate.bus.ledger import Ledger

    wrong = Ledger()
    wrong.add(490_000, "gz-1", "mqtt", "messages", 2)
    wrong.add(490_000, "gz-1", "mqtt", "decoded", 1)
    await city.log.write([*batch[:2], LogMessage("ledger.4401-0", wrong.encode(), 168)])
    body = await _ledger(city, await city.token(), 6)
    assert body["balanced"] is False


async def test_refusals_are_shown_beside_the_balance(city: Gateway) -> None:
    """Per device and in all, cut to the caller; names that nobody knows only to who sees everything."""
    city.refused = {"gz-1": {"publish": 3}, "sz-1": {"publish": 1}, "stranger": {"connect": 5}}
    _, body, _ = await city.ask("GET", "/api/v1/ledger?by=device", await city.token(), expect=200)
    assert {row["device"]: row["refused"] for row in body["rows"]} == {"gz-1": 3, "sz-1": 1, "stranger": 5}
    assert body["refused"] == {"connect": 5, "publish": 4}
    assert body["totals"] == {}
    assert body["balanced"] is True
    county = await city.token(Role.COUNTY_OPERATOR, "440106")
    _, body, _ = await city.ask("GET", "/api/v1/ledger?by=device", county, expect=200)
    assert {row["device"]: row["refused"] for row in body["rows"]} == {"gz-1": 3}
    assert body["refused"] == {"publish": 3}


async def test_quality_is_cut(city: Gateway) -> None:
    """Indicators of the caller's devices only."""
    city.quality = [QualityRow(name, 0, 10, 1.0, 1.0, 0.9, None) for name in ("gz-1", "sz-1")]
    _, body, _ = await city.ask("GET", "/api/v1/quality", await city.token(), expect=200)
    assert len(body["rows"]) == 2
    _, body, _ = await city.ask("GET", "/api/v1/quality", await city.token(Role.COUNTY_OPERATOR, "440106"), expect=200)
    assert [row["device"] for row in body["rows"]] == ["gz-1"]


async def test_pages_of_quality_hold_each_row_once(city: Gateway) -> None:
    """In the order by device a page may end between two hours of one device; other orders and filters page too."""
    names = ("gz-1", "gz-2", "gz-3")
    city.quality = [
        QualityRow(name, hour * HOUR_US, 10 * place + hour, 1.0, 0.5 + place / 10, None if place else 0.9, 1 / 3)
        for hour in range(3)
        for place, name in enumerate(names)
    ]
    token = await city.token()

    async def paged(query: str, *, limit: int = 2) -> list[tuple[str, int]]:
        rows: list[tuple[str, int]] = []
        after = ""
        while True:
            path = f"/api/v1/quality?since=1970-01-01T00:00:00Z&limit={limit}&after={after}&{query}"
            _, body, _ = await city.ask("GET", path, token, expect=200)
            rows += [(row["device"], row["hour"] // HOUR_US) for row in body["rows"]]
            assert len(body["rows"]) <= limit
            if not (after := body.get("next", "")):
                return rows

    for name in ("device", "hour", "received", "accuracy", "continuity", "completeness"):
        for sort in (name, f"-{name}"):
            assert await paged(f"sort={sort}", limit=1) == await paged(f"sort={sort}", limit=9)
    assert await paged("") == [(name, hour) for name in names for hour in (2, 1, 0)]
    assert await paged("sort=-accuracy,hour") == [(name, hour) for name in reversed(names) for hour in (0, 1, 2)]
    assert (await paged("sort=received"))[:3] == [("gz-1", 0), ("gz-1", 1), ("gz-1", 2)]
    assert await paged("q=DEVICE+gz-2") == [("gz-2", hour) for hour in (2, 1, 0)]
    assert await paged("device=!gz-2&accuracy=0.7,0.6") == [("gz-3", hour) for hour in (2, 1, 0)]
    assert await paged("continuity=None&device=gz-1") == []
    _, body, _ = await city.ask("GET", "/api/v1/quality?limit=1", token, expect=200)
    row = body["rows"][0]
    assert (row["received"], row["continuity"], row["completeness"]) == (2, 0.9, 0.3333)
    for wrong in ("after=gz-1", "sort=colour"):
        await city.ask("GET", f"/api/v1/quality?{wrong}", token, expect=400)


async def test_a_sorted_list_of_devices_is_as_complete_as_the_other(city: Gateway) -> None:
    """The last message stands in every order; filters of any field hold, several, and negated; pages skip none."""
    token = await city.token()
    now = city.web.deps.clock.now()
    for place, name in enumerate(("gz-3", "gz-1", "sz-1")):
        at = city.devices.find(name)
        city.devices.observe(np.array([at], np.int32), np.array([now - 1_000_000 * place], np.int64))
    _, body, _ = await city.ask("GET", f"{DEVICES}?sort=-last_seen", token, expect=200)
    assert ids(body) == ["gz-3", "gz-1", "sz-1", "dg-1", "gz-2"]
    assert [row["last_seen"] is None for row in body["rows"]] == [False, False, False, True, True]
    rows: list[str] = []
    after = ""
    while True:
        path = f"{DEVICES}?sort=-department,id&limit=2&after={after}"
        _, body, _ = await city.ask("GET", path, token, expect=200)
        rows += ids(body)
        if not (after := body.get("next", "")):
            break
    assert rows == ["gz-3", "dg-1", "gz-1", "gz-2", "sz-1"]
    for query, expected in (
        ("state=active", ["gz-1", "gz-3", "sz-1"]),
        ("state=!active", ["dg-1", "gz-2"]),
        ("department=police", ["gz-3"]),
        ("department=!police&division=4401", ["gz-1", "gz-2"]),
        ("name=device+gz-2,device+sz-1", ["gz-2", "sz-1"]),
        ("id=!gz-1&q=gz", ["gz-2", "gz-3"]),
    ):
        _, body, _ = await city.ask("GET", f"{DEVICES}?{query}", token, expect=200)
        assert ids(body) == expected, query
        _, body, _ = await city.ask("GET", f"{DEVICES}?{query}&sort=-id", token, expect=200)
        assert ids(body) == expected[::-1], query
    for wrong in ("state=asleep", "sort=colour"):
        await city.ask("GET", f"{DEVICES}?{wrong}", token, expect=400)


async def test_a_large_import_reports_while_it_runs(city: Gateway) -> None:
    """A file above the usual limit is taken, one at a time; each line of the answer is a row, passwords included."""
    token = await city.token()
    row = ",440106,sensegate/plain,"
    head = "id,division,profile,name\n"
    file = head + "".join(f"new-{number}{row}{'x' * 120}\n" for number in range(9_000))
    assert len(file) > city.web.deps.config.body_bytes_max
    headers = {"Content-Type": "text/csv", "Accept": "application/x-ndjson"}
    path = f"{DEVICES}/import?dry_run=true"
    _, raw, _ = await city.ask("POST", path, token, data=io.BytesIO(file.encode()), headers=headers, expect=200)
    reported = [json.loads(line) for line in (raw if isinstance(raw, bytes) else raw.encode()).splitlines()]
    assert [line["outcome"] for line in reported] == ["added"] * 9_000
    assert city.devices.find("new-0") < 0
    async with city.devices.importing:
        await city.ask("POST", path, token, data=io.BytesIO(file.encode()), headers=headers, expect=429)
        small = f"{head}few{row}\nfew{row}\n".encode()
        _, raw, _ = await city.ask(
            "POST", f"{DEVICES}/import", token, data=small, headers={"Content-Type": "text/csv"}, expect=200
        )
    assert [(line["outcome"], bool(line["password"])) for line in raw["rows"]] == [("added", True), ("refused", False)]
    assert city.devices.verify("few", raw["rows"][0]["password"])


async def test_quarantine_shows_messages_whole_and_cut(city: Gateway) -> None:
    """Payload and reason; those of foreign and unknown devices only to who sees the whole node."""
    now = SystemClock().now()
    kept = [
        raw.StoredMessage(Message("t/gz-1", b"{broken", now, 1), "mqtt", "malformed", "line 1", "gz-1"),
        raw.StoredMessage(Message("t/sz-1", b"\xff\x00", now, 2), "mqtt", "not_utf8", "", "sz-1"),
        raw.StoredMessage(Message("t/who", b"{}", now, 3), "mqtt", "unknown_device", "", ""),
    ]
    await city.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined(kept), 720)])
    _, body, _ = await city.ask("GET", "/api/v1/quarantine", await city.token(), expect=200)
    assert [(row["reason"], row["payload"]) for row in body["rows"]] == [
        ("malformed", "{broken"),
        ("not_utf8", "base64:/wA="),
        ("unknown_device", "{}"),
    ]
    token, rows, after = await city.token(), [], ""
    for _ in range(3):
        _, body, _ = await city.ask("GET", f"/api/v1/quarantine?limit=1&after={after}", token, expect=200)
        rows += [row["device"] for row in body["rows"]]
        after = body["next"]
    assert rows == ["gz-1", "sz-1", ""]
    _, body, _ = await city.ask("GET", f"/api/v1/quarantine?after={after}", token, expect=200)
    assert body["rows"] == []
    await city.ask("GET", "/api/v1/quarantine?after=x", token, expect=400)
    _, body, _ = await city.ask("GET", "/api/v1/quarantine?reason=malformed", await city.token(), expect=200)
    assert len(body["rows"]) == 1
    county = await city.token(Role.COUNTY_OPERATOR, "440106")
    _, body, _ = await city.ask("GET", "/api/v1/quarantine", county, expect=200)
    assert [row["device"] for row in body["rows"]] == ["gz-1"]
    await city.ask("GET", "/api/v1/quarantine", await city.token(Role.AUDITOR, "44"), expect=403)


async def test_the_audit_trail_is_read_by_its_roles(city: Gateway) -> None:
    """Auditor and admin read it; every change is there; operators and subscribers are refused."""
    auditor = await city.token(Role.AUDITOR, "44")
    _, body, _ = await city.ask("GET", "/api/v1/audit?limit=3", auditor, expect=200)
    assert [row["action"] for row in body["rows"]] == ["device.add"] * 3
    _, body, _ = await city.ask("GET", f"/api/v1/audit?after={body['next']}", auditor, expect=200)
    assert [row["action"] for row in body["rows"]] == ["device.add", "device.add", "token.create"]
    for role in (Role.CITY_OPERATOR, Role.SUBSCRIBER):
        await city.ask("GET", "/api/v1/audit", await city.token(role, "4401"), expect=403)


# ── ingest ────────────────────────────────────────────────────────────────────────────────────────────


async def test_ingest_answers_after_the_commit(gateway: Gateway) -> None:
    """202 once it is committed, not before; Basic or Bearer with the device's own password."""
    password = await gateway.device("air-1")
    committed = asyncio.Event()

    async def push() -> None:
        await committed.wait()

    gateway.push = push
    result = asyncio.create_task(
        gateway.ask("POST", "/api/v1/ingest/air-1", password, data=b"{}", headers={"Content-Type": "application/json"})
    )
    done, _ = await asyncio.wait((result,), timeout=0.1)
    assert not done
    committed.set()
    status, body, _ = await result
    assert (status, body) == (202, {"committed": True})
    headers = {"Authorization": aiohttp.encode_basic_auth("air-1", password)}
    await gateway.ask("POST", "/api/v1/ingest/air-1", headers=headers, data=b"[]", expect=202)
    assert gateway.pushed == [
        ("air-1", "air-1", b"{}", "application/json"),
        ("air-1", "air-1", b"[]", "application/octet-stream"),
    ]


async def test_ingest_is_for_the_device_itself(gateway: Gateway) -> None:
    """Wrong password, another device, a subscriber, a disabled device: refused; a gateway may push for its own."""
    password = await gateway.device("air-1")
    await gateway.device("air-2")
    await gateway.device("air-3", gateway="air-1")
    path = "/api/v1/ingest/"
    auth = aiohttp.encode_basic_auth("air-1", password)
    await gateway.ask("POST", f"{path}air-1", data=b"{}", expect=401)
    await gateway.ask("POST", f"{path}air-1", "wrong", data=b"{}", expect=401)
    await gateway.ask("POST", f"{path}air-2", password, data=b"{}", expect=401)
    await gateway.ask("POST", f"{path}nobody", password, data=b"{}", expect=401)
    await gateway.ask("POST", f"{path}air-2", headers={"Authorization": auth}, data=b"{}", expect=403)
    await gateway.ask("POST", f"{path}nobody", headers={"Authorization": auth}, data=b"{}", expect=403)
    await gateway.ask("POST", f"{path}air-3", headers={"Authorization": auth}, data=b"{}", expect=202)
    await gateway.ask("POST", f"{path}air-1", await gateway.token(Role.SUBSCRIBER, "44"), data=b"{}", expect=403)
    await gateway.devices.disable("air-1", by=(await _admin(gateway)))
    await gateway.ask("POST", f"{path}air-1", password, data=b"{}", expect=401)
    await gateway.ask("POST", f"{path}air-3", headers={"Authorization": auth}, data=b"{}", expect=401)
    assert [device for device, *_ in gateway.pushed] == ["air-3"]


async def _admin(gateway: Gateway) -> Any:
    return gateway.tokens.verify(await gateway.token())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("full"), 429),
        (Unavailable("unknown"), 503),
        (Rejected("content_type", "x"), 422),
        (Rejected("too_large"), 422),
    ],
)
async def test_ingest_says_when_it_did_not_take(gateway: Gateway, error: Exception, status: int) -> None:
    """Back-pressure is 429 with a time, an unknown outcome 503: the device sends it again."""
    password = await gateway.device("air-1")

    async def push() -> None:
        raise error

    gateway.push = push
    _, _, response = await gateway.ask("POST", "/api/v1/ingest/air-1", password, data=b"{}", expect=status)
    if status in {429, 503}:
        assert int(response.headers["Retry-After"]) >= 1


async def test_a_device_says_why_it_was_refused(gateway: Gateway) -> None:
    """Its latest rejected operation, with time, reason and address; null before there is one."""
    await gateway.device("a", "440106")
    token = await gateway.token()
    _, row, _ = await gateway.ask("GET", "/api/v1/devices/a", token, expect=200)
    assert row["last_refused"] is None
    gateway.last_refusals["a"] = LastRefusal(
        1_767_225_600_000_000, DeniedOperation.CONNECT, "wrong password", "192.0.2.7", 9
    )
    expected = {"time": "2026-01-01T00:00:00.000Z", "operation": "connect", "detail": "wrong password"}
    expected |= {"address": "192.0.2.7"}
    _, row, _ = await gateway.ask("GET", "/api/v1/devices/a", token, expect=200)
    assert row["last_refused"] == {**expected, "count": 9}
    _, page, _ = await gateway.ask("GET", "/api/v1/devices", token, expect=200)
    assert page["rows"][0]["last_refused"]["detail"] == "wrong password"
