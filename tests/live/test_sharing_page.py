"""The console page of sharing in a real browser, in Chinese and in English: find, apply, approve, revoke.

The browser is Chromium by playwright: ``SENSEGATE_CHROMIUM`` names it, or it is on the path.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live.site import Site
from tests.live.test_sharing import ENTRY

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
CHROMIUM = os.environ.get("SENSEGATE_CHROMIUM") or shutil.which("chromium")


async def entered(browser: Any, site: Site, token: str, language: str) -> tuple[Any, list[str]]:
    """Return the page as somebody sees it, and what it complained of."""
    context = await browser.new_context(locale=language, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda why: faults.append(str(why)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    await page.goto(f"{site.addresses.http}/sharing")
    await page.fill("#token", token)
    await page.click("#form button")
    await page.wait_for_selector("#board:not([hidden])")
    return page, faults


async def others_begin(page: Any, site: Site) -> None:
    """See that the ledger and the list of operations begin, for somebody who has entered."""
    await page.goto(f"{site.addresses.http}/")
    await page.wait_for_selector("#verdict.yes, #verdict.no")
    await page.click("#language")
    assert "数据去向" in await page.inner_text("#board")
    await page.goto(f"{site.addresses.http}/docs")
    await page.wait_for_selector("#operations .op")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: set SENSEGATE_CHROMIUM")
async def test_the_page_of_sharing(centre: Site) -> None:
    """A subscriber finds and applies in Chinese, the owner approves in English with a mask, then takes it back."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    owner, _ = await centre.token("city_operator", "4401")
    reader, _ = await centre.token("subscriber", "4403")
    assert (
        await centre.ask("POST", "/api/v1/feeds", owner, json={"name": "paged", "divisions": ["4401"]})
    ).status == 201
    assert (await centre.ask("PATCH", "/api/v1/catalogue/paged", owner, json=ENTRY)).status == 200
    async with playwright.async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            page, faults = await entered(browser, centre, reader, "zh-CN")
            assert "共享目录" in await page.inner_text("#tabs")
            await page.fill("#query", "廣州")
            await page.press("#query", "Enter")
            await page.click("#entries button:has-text('廣州空氣溫度')")
            await page.wait_for_selector("#detail:not([hidden])")
            assert "廣州市氣象局" in await page.inner_text("#detail")
            await page.click("#detail button:has-text('申请')")
            await page.fill("#fields [name=purpose]", "联合预报")
            await page.fill("#fields [name=legal_basis]", "国务院令第809号")
            await page.click("#dialog button[type=submit]")
            await page.wait_for_selector("#status:has-text('已完成')")
            await page.click("[data-tab=applications]")
            await page.wait_for_selector("#applicationRows .state.pending")

            theirs, other_faults = await entered(browser, centre, owner, "en-US")
            await theirs.click("[data-tab=applications]")
            assert "联合预报" in await theirs.inner_text("#applicationRows")
            await theirs.click("#applicationRows button:has-text('Approve')")
            await theirs.check("#fields [name=hashDevice]")
            await theirs.fill("#fields [name=volume]", "500")
            await theirs.click("#dialog button[type=submit]")
            await theirs.wait_for_selector("#applicationRows .state.approved")
            grants = (await centre.ask("GET", "/api/v1/grants", reader)).body["rows"]
            assert [(one["volume"], one["mask"]["hash"]) for one in grants] == [(500, ["device"])]

            await theirs.click("[data-tab=grants]")
            await theirs.click("#grantRows button:has-text('Revoke')")
            await theirs.fill("#fields [name=reason]", "enough")
            await theirs.click("#dialog button[type=submit]")
            await theirs.wait_for_selector("#grantRows .state.revoked")

            async def revoked() -> bool:
                await page.click("[data-tab=grants]")
                return "已撤销" in await page.inner_text("#grantRows")

            await eventually(revoked)
            if folder := os.environ.get("SENSEGATE_SHOTS"):
                await page.click("[data-tab=catalogue]")
                await page.screenshot(path=f"{folder}/zh.png", full_page=True)
                await theirs.screenshot(path=f"{folder}/en.png", full_page=True)
            await others_begin(theirs, centre)
            # That nobody is signed in is asked with a 401 for answer.
            assert [one for one in (*faults, *other_faults) if "401" not in one] == []
        finally:
            await browser.close()
