"""Stories of a desk in a real browser, by clicks alone: a list as CSV, a grant renewed, a plan put in force, labels."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.browsing import needs_chromium, visitor
from tests.live.granting import granted
from tests.live.site import Site, reading

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]


def moment_now() -> str:
    """Return the present as devices send it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def test_a_list_is_saved_and_its_labels_are_printed(centre: Site, browser: Any, tmp_path: Path) -> None:
    """The CSV has every row of the filter, not one page; labels are a PDF in which Chinese has a font."""
    for number in range(60):
        wanted = {"id": f"desk-{number:02d}", "division": "440305", "profile": "sensegate/plain"}
        name = "=2+3" if number == 7 else f"路灯{number}"
        assert (await centre.ask("POST", "/api/v1/devices", json={**wanted, "name": name})).status == 201
    await centre.device("elsewhere", "440106")
    async with visitor(browser, centre, centre.admin, language="zh-CN") as operator:
        page = operator.page
        await operator.open("devices?q=desk-")
        await operator.sees("desk-00")
        async with page.expect_download() as saving:
            await operator.click("CSV")
        saved = tmp_path / "devices.csv"
        await (await saving.value).save_as(saved)
        text = await asyncio.to_thread(saved.read_text, encoding="utf-8-sig")
        rows = text.splitlines()
        assert len(rows) == 61
        assert "elsewhere" not in text
        assert "'=2+3" in rows[8], "a spreadsheet would take the name for a formula"

        await operator.open("labels?q=desk-")
        await page.wait_for_selector(".labels figure >> nth=59")
        document = await page.pdf(format="A4", print_background=True)
        folder = os.environ.get("SENSEGATE_SHOTS")
        if folder:
            await asyncio.to_thread(Path(folder, "labels.pdf").write_bytes, document)
        assert document.startswith(b"%PDF-")
        assert document.count(b"/Type /Page\n") == 2, "30 labels a sheet"
        assert any(name in document for name in (b"WenQuanYi", b"CJK", b"Song", b"Hei"))
        assert operator.faults == []


async def test_a_grant_is_renewed(centre: Site, browser: Any) -> None:
    """Whoever holds a grant asks for more days; the owner approves, and the grant that is used ends later."""
    grant = await granted(centre, "desk-feed")
    before = (await centre.ask("GET", f"/api/v1/grants/{grant.id}")).body["expires"]
    async with visitor(browser, centre, grant.token) as reader, visitor(browser, centre, centre.admin) as owner:
        await reader.open("grants")
        await reader.page.click(f"tbody a:has-text('{grant.id}')")
        await reader.click("Renew")
        await reader.send(days="200")
        await reader.page.click("dialog button:has-text('Close')")
        await owner.open("applications?state=pending")
        await owner.click("Approve")
        await owner.send(days="200")
        await owner.page.wait_for_selector("text=No application")
        assert [*reader.faults, *owner.faults] == []
    rows = (await centre.ask("GET", "/api/v1/grants", params={"feed": "desk-feed", "state": "active"})).body["rows"]
    assert max(row["expires"] for row in rows) > before


async def test_a_plan_is_approved_by_another_and_ended(centre: Site, browser: Any) -> None:
    """Its writer cannot approve a plan; approved by another it is put in force for hours, and ended before its time."""
    writer, _ = await centre.token("province_operator", "44")
    approver, _ = await centre.token("province_operator", "44")
    async with visitor(browser, centre, writer) as author, visitor(browser, centre, approver) as other:
        await author.open("modes")
        await author.click("Write a plan")
        await author.send(name="flood", title="Flood", hours_max="12", shed="pm2_5")
        await author.click("Approve")
        with pytest.raises(AssertionError, match="their own plans"):
            await author.send()
        await author.page.click("dialog button:has-text('Cancel')")
        await other.open("modes")
        await other.click("Approve")
        await other.send()
        await other.click("Put in force")
        await other.send(hours="2", reason="typhoon")
        await other.page.click("tbody td a")
        await other.page.wait_for_selector("h2:has-text('Order by')")
        await other.click("End it")
        await other.send()
        await other.page.wait_for_selector("tbody .badge:has-text('ended'), tbody .badge:has-text('ending')")
        assert [*author.faults, *other.faults] == []


async def test_a_secret_shown_once_is_copied_and_not_lost_by_escape(centre: Site, browser: Any) -> None:
    """Escape leaves a new token on the page; it is copied over HTTP too; only the button closes; focus returns."""
    async with visitor(browser, centre, centre.admin) as operator:
        page = operator.page
        await operator.open("tokens")
        await operator.click("Create a token")
        await page.wait_for_selector("dialog[open]")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("body:not(:has(dialog))")
        assert await page.evaluate("document.activeElement.textContent") == "Create a token", "focus returns"
        await operator.click("Create a token")
        await operator.send(name="kept", role="subscriber", scope="4401")
        secret = await page.inner_text("dialog .secret")
        for _ in range(3):
            await page.keyboard.press("Escape")
        assert await page.inner_text("dialog[open] .secret") == secret
        await page.click("dialog button:has-text('Copy')")
        await page.wait_for_selector("dialog :text('copied')")
        assert await page.evaluate("String(getSelection())") == secret
        folder = os.environ.get("SENSEGATE_SHOTS")
        if folder:
            await page.screenshot(path=str(Path(folder, "secret.png")))
        await page.click("dialog button:has-text('Close')")
        await page.wait_for_selector("body:not(:has(dialog))")
        assert operator.faults == []


async def test_actions_that_the_role_forbids_are_not_offered(centre: Site, browser: Any) -> None:
    """A county operator adds and deletes no feed; a subscriber decides nothing, and may apply."""
    feed = {"name": "roles-feed", "divisions": ["440305"]}
    assert (await centre.ask("POST", "/api/v1/feeds", json=feed)).status == 201
    county, _ = await centre.token("county_operator", "440305")
    async with visitor(browser, centre, county) as operator, visitor(browser, centre, centre.admin) as admin:
        for visit, offered in ((operator, 0), (admin, 1)):
            await visit.open("feeds")
            await visit.sees("roles-feed")
            assert await visit.page.locator("button:has-text('Add a feed')").count() == offered
            await visit.open("feeds/roles-feed")
            await visit.sees("What the feed selects")
            assert await visit.page.locator("main button:has-text('Delete')").count() == offered
        assert [*operator.faults, *admin.faults] == []


async def test_an_acknowledged_alarm_shows_by_whom_and_why(centre: Site, browser: Any) -> None:
    """Note and end of a silence stand in the list, in both languages; the form names the limit of the silence."""
    rule = {"kind": "threshold", "property": "air_temperature", "above": 30, "place": "44"}
    assert (await centre.ask("PUT", "/api/v1/alarm-rules/desk-hot", json=rule)).status == 200
    device = await centre.device("desk-hot", "440305")
    assert (await centre.push(device, reading(45.0, moment_now()))).status == 202
    async with visitor(browser, centre, centre.admin) as operator:
        await operator.open("alarms")
        await operator.sees("desk-hot")
        await operator.click("Acknowledge", inside="tbody")
        await operator.send(note="crew is on its way")
        await operator.sees("crew is on its way")
        await operator.click("Silence", inside="tbody")
        await operator.sees("At most 720", "dialog")
        await operator.send(hours="720")
        await operator.sees("in 30 days")
        assert operator.faults == []
        folder = os.environ.get("SENSEGATE_SHOTS")
        if folder:
            await operator.page.screenshot(path=str(Path(folder, "alarms.png")))


async def test_the_keyboard_skips_the_navigation_and_closes_a_menu(centre: Site, browser: Any) -> None:
    """The first Tab offers the page; Escape closes an open menu and gives its heading the focus."""
    async with visitor(browser, centre, centre.admin, language="zh-CN") as operator:
        page = operator.page
        await page.reload()
        await page.wait_for_selector("main h1")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "跳到正文"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.tagName") == "MAIN"
        await operator.open("tokens")
        await page.click("details.menu summary:has-text('列')")
        await page.locator("details.menu[open] input").first.focus()
        await page.keyboard.press("Escape")
        assert await page.locator("details.menu[open]").count() == 0
        assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert operator.faults == []


async def test_a_page_that_the_scope_does_not_narrow_says_so(centre: Site, browser: Any) -> None:
    """Feeds are listed whole whatever division is chosen, and the page says it; devices follow the scope."""
    async with visitor(browser, centre, centre.admin) as operator:
        note = operator.page.locator("main [role=note]")
        for path, count in (("feeds?scope=4403", 1), ("feeds", 0), ("devices?scope=4403", 0)):
            await operator.open(path)
            await operator.page.wait_for_selector(".tools")
            assert await note.count() == count, path
        assert operator.faults == []


async def test_a_list_that_cannot_be_read_says_why_and_is_read_anew(centre: Site, browser: Any) -> None:
    """An answer of an error leaves the page with its heading and a button, by which the list comes back."""
    async with visitor(browser, centre, centre.admin) as operator:
        page = operator.page
        problem = {"title": "Not Found", "status": 404, "detail": "no such list"}
        await page.route("**/api/v1/tokens?*", lambda route: route.fulfill(status=404, json=problem))
        await operator.open("tokens")
        await operator.sees("no such list")
        assert await page.inner_text("main h1") == "Tokens"
        await page.unroute("**/api/v1/tokens?*")
        await operator.click("Try again")
        await operator.sees("first admin")
        assert operator.faults == []
