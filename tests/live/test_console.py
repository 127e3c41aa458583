"""The console in a real browser: every page in both languages and at two widths, and a story by clicks alone.

``SENSEGATE_SHOTS`` names a folder for pictures of the pages.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.browsing import MARK, moved, needs_chromium, page_of, shown
from tests.live.page_checks import PageChecker
from tests.live.site import Made, Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


def moment(minutes_ago: int) -> str:
    """Return a time as devices send it; the series of a device shows its last 24 hours."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60 * minutes_ago))


PAGES = [
    "devices",
    "devices/console-air",
    "alarms",
    "records",
    "records?form=newest",
    "quarantine",
    "profiles",
    "profiles/sensegate/plain",
    "editor?profile=sensegate/plain",
    "feeds",
    "feeds/console-feed",
    "catalogue",
    "applications",
    "grants",
    "bundles",
    "subscribers",
    "map",
    "video",
    "survey",
    "labels",
    "assessment",
    "channels",
    "sites",
    "settings",
    "quality",
    "nodes",
    "tasks",
    "modes",
    "people",
    "tokens",
    "audit",
    "system",
    "nowhere",
]


async def prepared(site: Site) -> Made:
    """Register a device with marks in its name, with readings and a message in quarantine."""
    device = await site.device("console-air", owner=f"air {MARK}"[:60])
    for minute, value in enumerate((20.5, 21.0, 21.25)):
        assert (await site.push(device, reading(value, f"2026-01-01T00:{minute:02d}:00Z"))).status == 202
    assert (await site.push(device, MARK)).status == 202
    feed = {"name": "console-feed", "divisions": ["4401"], "description": MARK}
    assert (await site.ask("POST", "/api/v1/feeds", json=feed)).status == 201
    return device


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(centre: Site) -> Made:
    return await prepared(centre)


@needs_chromium
@pytest.mark.parametrize(("language", "width", "theme"), [("en-US", 1440, "light"), ("zh-CN", 390, "dark")])
async def test_every_page(centre: Site, device: Made, language: str, width: int, theme: str, browser: Any) -> None:
    """No error, no request elsewhere, nothing cut or too wide, no serious fault of accessibility, no mark executed."""
    folder, soak = os.environ.get("SENSEGATE_SHOTS"), "SENSEGATE_SOAK" in os.environ
    async with page_of(browser, centre, centre.admin, language, width, theme) as (page, faults):
        checker = PageChecker(page, Path(folder) if folder else None)
        for number, path in enumerate(("", *PAGES)):
            await moved(page, path)
            assert "executed" not in await page.title(), path
            # Each page is judged once in a run, half of them light and half dark; all in both by `make soak`.
            await checker.check(path, accessible=soak or number % 2 == (theme == "dark"))
        assert [*checker.faults, *faults] == []
    assert device.id == "console-air"


@needs_chromium
async def test_a_device_is_added_and_seen_by_clicks(centre: Site, browser: Any) -> None:
    """Its password is shown once; what it publishes with it is on its page and drawn; disabled, it is refused."""
    async with page_of(browser, centre, centre.admin, "zh-CN", 1440, "light") as (page, faults):
        await shown(page, centre, "devices")
        await page.click("button:has-text('登记设备')")
        await page.fill("dialog [name=id]", "clicked-1")
        await page.fill("dialog [name=division]", "440106")
        await page.click("dialog button[type=submit]")
        password = await page.inner_text("dialog .secret")
        await page.click("dialog button:has-text('关闭')")
        for minutes_ago, value in ((1, 18.5), (0, 19.5)):
            sent = await centre.push(Made("clicked-1", password, []), reading(value, moment(minutes_ago)))
            assert sent.status == 202
        await page.click("a:has-text('clicked-1')")

        async def has_value() -> bool:
            return "19.5" in await page.inner_text("main")

        await eventually(has_value, 30)
        await page.wait_for_selector(".chart canvas")
        await page.click("button:has-text('停用')")
        assert "2 秒" in await page.inner_text("dialog")
        await page.click("dialog button[type=submit]")
        await page.wait_for_selector(".badge:has-text('已停用')")
        assert (await centre.push(Made("clicked-1", password, []), reading(1.0, "2026-01-02T00:05:00Z"))).status in {
            401,
            403,
        }
        assert faults == []


@needs_chromium
async def test_imported_devices_get_their_passwords(centre: Site, browser: Any) -> None:
    """A dry run changes nothing; an import shows the password of each device, which nobody can read again."""
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, faults):
        await shown(page, centre, "devices")
        for choice in ("", "yes"):
            await page.click("button:has-text('Import CSV')")
            await page.fill("dialog textarea", "id,division,profile\nbulk-1,440106,sensegate/plain\n")
            await page.select_option("dialog select", choice)
            await page.click("dialog button[type=submit]")
            await page.wait_for_selector("dialog td:has-text('bulk-1')")
            assert await page.locator("dialog .secret").count() == bool(choice)
            there = (await centre.ask("GET", "/api/v1/devices/bulk-1")).status
            assert there == (200 if choice else 404)
            if choice:
                password = await page.inner_text("dialog .secret")
            await page.click("dialog button:has-text('Close')")
        sent = await centre.push(Made("bulk-1", password, []), reading(1.0, "2026-01-03T00:00:00Z"))
        assert sent.status == 202
        assert faults == []


@needs_chromium
async def test_a_list_is_its_address(centre: Site, device: Made, browser: Any) -> None:
    """Search and filter stand in the URL: loaded anew, the list is the same; `/` and `g n` lead to search and nodes."""
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, _faults):
        await shown(page, centre, "devices?q=console-air&state=active")
        await page.wait_for_selector(f"tbody a:has-text('{device.id}')")
        assert await page.locator("tbody tr").count() == 1
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.id") == "find"
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("g")
        await page.keyboard.press("n")
        await page.wait_for_url("**/console/nodes")
        await page.go_back()
        await page.wait_for_url("**q=console-air**")


@needs_chromium
async def test_a_choice_of_scope_and_a_page_that_fails(centre: Site, browser: Any) -> None:
    """The overview of another scope waits for its answer; a page that fails leaves the menu."""
    async with page_of(browser, centre, centre.admin, "en-US", 390, "light") as (page, faults):
        await shown(page, centre, "")
        await page.select_option(".scope select", "4403")
        await page.wait_for_selector(".scope strong:has-text('4403')")
        await page.wait_for_selector(".loading", state="detached")
        assert (faults, await page.locator("main .problem").count()) == ([], 0)
        await page.route("**/api/v1/ledger**", lambda route: route.fulfill(json={"rows": [None]}))
        await page.click(".scope button:has-text('44')")
        await page.select_option(".scope select", "4401")
        await page.wait_for_selector("main .problem:has-text('This page cannot be shown')")
        await page.unroute("**/api/v1/ledger**")
        await page.click("nav summary")
        await page.click("nav a:has-text('Devices')")
        await page.wait_for_selector("nav details:not([open])")


@needs_chromium
async def test_the_frame(centre: Site, device: Made, browser: Any) -> None:
    """The scope narrows lists and stays; several states or their contrary; back is where it was; a lost gateway."""
    for number in range(45):
        await centre.device(f"frame-{number:02d}", "440305")
    async with page_of(browser, centre, centre.admin, "en-US", 390, "light") as (page, _faults):
        await shown(page, centre, "devices")
        await page.select_option(".scope select", "4403")
        await page.wait_for_url("**scope=4403**")
        await page.wait_for_selector(f"tbody:not(:has-text('{device.id}')):has-text('frame-00')")
        await page.click("nav summary")
        await page.click("nav a:has-text('Alarms')")
        await page.wait_for_url("**/alarms?scope=4403")
        await page.go_back()
        await page.wait_for_selector("tbody tr >> nth=44")
        await page.click(".choice summary")
        word = await page.locator(".choice label:has([value=retired])").bounding_box()
        box = await page.locator(".choice input[value=retired]").bounding_box()
        assert box["width"] < 30
        assert word["x"] + word["width"] <= 390
        await page.check(".choice input[value=retired]")
        await page.wait_for_selector("main:not(:has(tbody tr))")
        await page.click(".choice button:has-text('Not these')")
        await page.wait_for_selector("tbody tr >> nth=44")
        await page.click(".choice summary")
        await page.locator("tbody a:has-text('frame-30')").scroll_into_view_if_needed()
        await page.wait_for_timeout(300)
        before = await page.evaluate("scrollY")
        assert before > 500
        await page.click("tbody a:has-text('frame-30')")
        await page.wait_for_selector("main h1:has-text('frame-30')")
        assert await page.evaluate("scrollY") == 0
        await page.go_back()

        async def is_back() -> bool:
            return bool(abs(await page.evaluate("scrollY") - before) < 3)

        await eventually(is_back, 30)
        await page.route("**/api/**", lambda route: route.abort())
        await page.fill("input[type=search]", "frame-3")
        await page.wait_for_selector(".away:has-text('The gateway is away')")
        assert await page.locator("tbody a:has-text('frame-30')").count() == 1, "the last answer stays"
        await page.unroute("**/api/**")
        await page.click("button:has-text('Try again')")
        await page.wait_for_selector(".away", state="detached")


@needs_chromium
async def test_ledger_and_operations_begin(centre: Site, device: Made, browser: Any) -> None:
    """Whoever has entered the console sees the ledger, in both languages, and the list of operations."""
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, faults):
        await page.goto(f"{centre.addresses.http}/")
        await page.wait_for_selector("#verdict.yes, #verdict.no")
        await page.click("#language")
        assert "数据去向" in await page.inner_text("#board")
        await page.goto(f"{centre.addresses.http}/docs")
        await page.wait_for_selector("#operations .op")
        assert faults == []


NEEDS = """async ([nodes, ready]) => (await import("/static/console/overview.js"))
    .needs({gateway_role: "centre"}, ready, nodes, {}, true, [], []).map(([rank, text]) => text)"""


@needs_chromium
async def test_a_cut_link_is_one_line(centre: Site, browser: Any) -> None:
    """Node, centre and readiness name it; other problems, and links of nodes that are heard, stay as they are."""
    cut = "link: not connected; silent for 12 s"
    nodes = [
        {"member": "44", "role": "centre", "state": "up", "problems": [f"node 4401: {cut}", "disk: 2 GB left"]},
        {"member": "4401", "role": "node", "state": "silent", "problems": [cut, "profiles: one does not load"]},
        {"member": "4403", "role": "node", "state": "up", "problems": ["link: slow"]},
    ]
    ready = {"reasons": [], "warnings": [f"node 4401: {cut}", "certificate: ends in 3 days"]}
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, _):
        assert await page.evaluate(NEEDS, [nodes, ready]) == [
            f"Node 4401 is not heard: {cut}",
            "44: disk: 2 GB left",
            "4401: profiles: one does not load",
            "4403: link: slow",
            "certificate: ends in 3 days",
        ]


@needs_chromium
async def test_unknown_gaps_are_not_none(centre: Site, browser: Any) -> None:
    """Where the gateway cannot know the gaps of a node, the page says so instead of "No gap."."""
    async with page_of(browser, centre, centre.admin, "en-US", 1440, "light") as (page, _):
        await shown(page, centre, "nodes/4404")
        await page.wait_for_selector("main :text('Only the node itself knows its gaps.')")
        assert "No gap." not in await page.inner_text("main")


@needs_chromium
async def test_another_city_is_not_found(centre: Site, device: Made, browser: Any) -> None:
    """An operator of another city sees neither the device in the list nor its page."""
    operator, _ = await centre.token("city_operator", "4403")
    async with page_of(browser, centre, operator, "en-US", 1440, "light") as (page, _faults):
        await shown(page, centre, f"devices/{device.id}")
        assert "Not found" in await page.inner_text("main")
        await shown(page, centre, "devices")
        assert device.id not in await page.inner_text("main")
