"""Pages of the console under hostile content, foreign scopes and forged writes, in a real browser.

``SENSEGATE_SOAK`` adds the full matrix: each role, both languages, both themes, both widths.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.config import AlarmsConfig, MailConfig
from sensegate.web import app
from tests.live.browsing import MARK, moved, needs_chromium, page_of, shown, visitor
from tests.live.granting import ENTRY, Granted, granted
from tests.live.page_checks import PageChecker
from tests.live.site import Made, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
SOAK = bool(os.environ.get("SENSEGATE_SOAK"))
PAGES_FILE = Path(app.__file__).parent / "page" / "console" / "pages.js"
ADDRESSES = [path for path in re.findall(r'path: "/console/([^"]*)"', PAGES_FILE.read_text()) if ":" not in path]
"""Every page without a parameter, as the console itself lists them."""
OF_DEVICES = ("", "devices", "map", "survey", "labels", "alarms", "records", "quarantine", "assessment")
ROLES = (
    ("admin", "44"),
    ("auditor", "44"),
    ("province_operator", "44"),
    ("city_operator", "4401"),
    ("county_operator", "440106"),
)
"""Operators of each level approve what others of their scope apply for."""
MATRIX = list(itertools.product(ROLES, ("en-US", "zh-CN"), ("light", "dark"), (390, 1440)))


async def put(site: Site, path: str, body: dict[str, Any], method: str = "PUT") -> Any:
    """Write a record; return the answer, which must be a success."""
    answer = await site.ask(method, path, json=body)
    assert answer.status < 300, (path, answer.body)
    return answer.body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The centre, 44, with a mail server that it never reaches."""
    mail = AlarmsConfig(mail=MailConfig(host="127.0.0.1", port=9))
    async with running(
        msgspec.structs.replace(config_of(tmp_path_factory.mktemp("centre"), "44"), alarms=mail)
    ) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostile(centre: Site) -> Made:
    """A gateway whose names, notes, titles, payloads and errors all carry marks."""
    short = MARK[:60]
    wanted = {"id": "marked-1", "division": "440106", "profile": "sensegate/plain", "lon": 113.3, "lat": 23.1}
    names = {"name": short, "owner": short, "department": MARK[:40], "asset": MARK[:40]}
    made = await put(centre, "/api/v1/devices", {**wanted, **names}, "POST")
    device = Made(made["id"], made["password"], made["topics"])
    for minute in range(3):
        await centre.push(device, reading(20.0 + minute, f"2026-01-01T00:{minute:02d}:00Z"))
    await centre.push(device, MARK)
    await centre.push(device, json.dumps({"values": {MARK: MARK}}))
    rule = {"kind": "threshold", "property": "air_temperature", "above": 1.0, "title": MARK, "severity": "critical"}
    await put(centre, "/api/v1/alarm-rules/marked", rule)
    await centre.push(device, reading(50.0, "2026-01-01T00:10:00Z"))
    channel = {"kind": "mail", "recipients": ["a@example.cn"], "on_call": MARK[:200]}
    await put(centre, "/api/v1/alarm-channels/marked", channel)
    await put(centre, "/api/v1/tokens", {"role": "subscriber", "scope": "44", "name": short}, "POST")
    await put(
        centre, "/api/v1/people", {"id": "marked", "role": "city_operator", "scope": "4401", "title": short}, "POST"
    )
    await put(centre, "/api/v1/feeds", {"name": "marked", "description": MARK}, "POST")
    return device


@needs_chromium
async def test_marked_content_is_text_on_every_page(centre: Site, hostile: Made, browser: Any) -> None:
    """No page executes what a name, a payload or an error contains; the marks are really there, as text."""
    result = 0
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, faults):
        for path in (
            *ADDRESSES,
            f"devices/{hostile.id}",
            f"devices/{MARK}",
            f"records?feed={MARK}",
            f"devices?q={MARK}",
        ):
            await shown(page, centre, path.replace("/<", "/%3C").replace("<", "%3C").replace('"', "%22"))
            assert "executed" not in await page.title(), path
            assert await page.locator("main img[src=x], main script").count() == 0, path
            result += "onerror=" in await page.inner_text("main")
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert "executed" not in await page.title()
        assert faults == []
        # Control: where a page inserted the mark as HTML, without its policy, the title would change.
        await page.goto("about:blank")
        await page.evaluate("(mark) => { document.body.innerHTML = mark; }", MARK)
        await page.wait_for_function("document.title === 'executed'")
    assert result >= 5


@needs_chromium
async def test_no_page_shows_another_city(centre: Site, hostile: Made, browser: Any) -> None:
    """An operator of another city meets the device, its name and its owner on no page; its own page is 404."""
    operator, _ = await centre.token("city_operator", "4403")
    async with page_of(browser, centre, operator, "en-US", 1440, "light") as (page, _faults):
        for path in ADDRESSES if SOAK else OF_DEVICES:
            await shown(page, centre, path)
            assert hostile.id not in await page.inner_text("main"), path
        await shown(page, centre, f"devices/{hostile.id}")
        await page.wait_for_selector("main:has-text('Not found')")


@needs_chromium
async def test_a_map_that_is_left_draws_nothing(centre: Site, hostile: Made, browser: Any) -> None:
    """Left at once while it still draws, the map page ends without an error of a script."""
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, faults):
        for _ in range(3):
            await moved(page, "map")
            await page.wait_for_selector(".map canvas", state="attached")
            # What is read again has shapes that are younger than their canvas.
            async with page.expect_response(lambda answer: "/api/v1/map/devices" in answer.url):
                await page.click(".leaflet-control-zoom-out")
            await page.evaluate("() => new Promise((done) => setTimeout(done))")
            await moved(page, "tokens")
        assert faults == []


async def test_writes_need_the_token_of_the_session(centre: Site) -> None:
    """Signed in by cookie, each write of the interface is refused without the session's token, whatever it is."""
    made = await put(centre, "/api/v1/people", {"id": "forged", "role": "province_operator", "scope": "44"}, "POST")
    signed_in = {"name": "forged", "password": made["password"], "new_password": "a long new pass phrase 1"}
    answer = await centre.ask("POST", "/api/v1/session", "", json=signed_in)
    assert answer.status == 201, answer.body
    cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    document = (await centre.ask("GET", "/openapi.json", "")).body
    open_to_all = {"/api/v1/session", "/api/v1/nodes/join", "/api/v1/nodes/{member}/leave"}
    tried = 0
    for path, operations in document["paths"].items():
        if not path.startswith("/api/v1/") or path in open_to_all or path.startswith("/api/v1/ingest"):
            continue
        for method in sorted(set(operations) & {"post", "put", "patch", "delete"}):
            address = re.sub(r"\{[^}]*\}", "x", path)
            refused = await centre.ask(method.upper(), address, "", json={}, headers=cookie)
            assert refused.status in {401, 403}, (method, path, refused.status)
            tried += 1
    assert tried > 60
    own = await centre.ask("PUT", "/api/v1/alarm-rules/forged", "", json={}, headers=cookie)
    assert own.status == 403
    headers = {**cookie, "X-CSRF-Token": answer.body["csrf"]}
    rule = {"kind": "silence", "after_s": 60}
    assert (await centre.ask("PUT", "/api/v1/alarm-rules/own", "", json=rule, headers=headers)).status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_feed(centre: Site, hostile: Made) -> Granted:
    """A feed with its entry and a grant, an application that waits, an invited node."""
    feed = await granted(centre, "matrix", divisions=("4401",))
    await put(centre, "/api/v1/feeds", {"name": "waited-for", "divisions": ["440106"], "description": "roads"}, "POST")
    await put(centre, "/api/v1/catalogue/waited-for", {**ENTRY, "title": "天河区道路"}, "PATCH")
    wish = {"feeds": ["waited-for"], "purpose": "联合预报", "legal_basis": "国务院令第809号", "days": 30}
    made = await centre.ask("POST", "/api/v1/applications", feed.token, json=wish)
    assert made.status == 201, made.body
    await put(centre, "/api/v1/bundles", {"name": "roads", "title": "道路", "feeds": ["matrix", "waited-for"]}, "POST")
    await put(centre, "/api/v1/nodes", {"division": "4406"}, "POST")
    return feed


@needs_chromium
@pytest.mark.skipif(not SOAK, reason="the full matrix: SENSEGATE_SOAK=1")
@pytest.mark.parametrize("case", MATRIX, ids=lambda case: f"{case[0][0]}-{case[1]}-{case[2]}-{case[3]}")
async def test_the_full_matrix(
    centre: Site,
    hostile: Made,
    shared_feed: Granted,
    browser: Any,
    case: tuple[tuple[str, str], str, str, int],
) -> None:
    """Each page as each role: no error, no failed request, nothing cut, no serious fault of accessibility."""
    (role, scope), language, theme, width = case
    token = centre.admin
    if role == "auditor":
        token = centre.config_file("auditor.token").read_text(encoding="ascii").strip()
    elif role != "admin":
        token, _ = await centre.token(role, scope)
    folder = os.environ.get("SENSEGATE_SHOTS")
    pictures = Path(folder, f"{role}-{language}-{theme}-{width}") if folder else None
    if pictures:
        await asyncio.to_thread(pictures.mkdir, parents=True, exist_ok=True)
    async with visitor(browser, centre, token, language=language, width=width, theme=theme) as visit:
        failed: list[str] = []
        visit.page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 500 else None)
        checker = PageChecker(visit.page, pictures)
        for path in (
            *ADDRESSES,
            f"devices/{hostile.id}",
            "profiles/sensegate/plain",
            "editor?profile=sensegate/plain",
            f"feeds/{shared_feed.feed}",
            f"grants/{shared_feed.id}",
            "nodes/4406",
            "nowhere",
        ):
            await moved(visit.page, path)
            await checker.check(path)
        faults = [*checker.faults, *visit.faults, *failed]
        assert not faults, "\n".join(faults)
