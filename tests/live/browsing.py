"""A real browser on the console: Chromium by playwright (`tests/support/chromium.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.live.site import Site
from tests.support.chromium import CHROMIUM, OPTIONS

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: set SENSEGATE_CHROMIUM")
TIMEOUT_MS = 30_000
MARK = "<img src=x onerror=\"document.title='executed'\"><script>document.title='executed'</script>"
"""A name that would run a script, were it not escaped."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """Start a browser for the tests of a file; yield it."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with playwright.async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        try:
            yield browser
        finally:
            await browser.close()


class Visitor:
    """Somebody who has entered the console, and the faults that the browser reported meanwhile."""

    def __init__(self, site: Site, page: Any, faults: list[str]) -> None:
        self.site = site
        self.page = page
        self.faults = faults

    async def open(self, path: str) -> None:
        """Go to a page of the console, as a link of it does, and wait until it is drawn."""
        move = "(to) => { history.pushState({}, '', to); dispatchEvent(new Event('moved')); }"
        await self.page.evaluate(move, f"/console/{path}")
        await self.page.wait_for_selector("main h1")

    async def click(self, text: str, role: str = "button", inside: str = "main") -> None:
        """Click what bears a text."""
        await self.page.click(f"{inside} {'a' if role == 'link' else role}:has-text('{text}')")

    async def send(self, **values: str) -> None:
        """Fill the fields of the open dialog and send it; wait until it is closed or shows an outcome."""
        for name, value in values.items():
            field = self.page.locator(f"dialog [name={name}]")
            if await field.evaluate("(field) => field.tagName") == "SELECT":
                await field.select_option(value)
            else:
                await field.fill(value)
        await self.page.click("dialog form button[type=submit]")
        await self.page.wait_for_selector("dialog form .problem, body:not(:has(dialog form))")
        if await self.page.locator("dialog form .problem").count():
            raise AssertionError(await self.page.inner_text("dialog form .problem"))

    async def sees(self, text: str, inside: str = "main") -> None:
        """Wait until a text is shown."""
        await self.page.wait_for_selector(f"{inside} :text('{text}')")


@asynccontextmanager
async def visitor(
    browser: Any, site: Site, token: str, *, language: str = "en-US", width: int = 1440, theme: str = "light"
) -> AsyncIterator[Visitor]:
    """Enter the console with a token; requests to other hosts and errors of scripts are faults."""
    context = await browser.new_context(
        locale=language, viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True
    )
    try:
        page = await context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        faults: list[str] = []
        page.on("pageerror", lambda why: faults.append(str(why)))
        # What is not there or not permitted is shown as such, and the browser writes a line of its own about it.
        page.on(
            "console",
            lambda line: faults.append(line.text) if line.type == "error" and "status of 4" not in line.text else None,
        )
        page.on(
            "request",
            lambda request: (
                faults.append(request.url)
                if not request.url.startswith((site.addresses.http, "blob:", "data:"))
                else None
            ),
        )
        await page.goto(f"{site.addresses.http}/console/")
        await page.fill("#token", token)
        await page.click("#tokenForm button")
        await page.wait_for_selector("nav")
        yield Visitor(site, page, faults)
    finally:
        await context.close()


@asynccontextmanager
async def page_of(
    browser: Any, site: Site, token: str, language: str, width: int, theme: str
) -> AsyncIterator[tuple[Any, list[str]]]:
    """Enter the console with a token; yield its page and the faults that the browser reports."""
    async with visitor(browser, site, token, language=language, width=width, theme=theme) as visit:
        yield visit.page, visit.faults


async def shown(page: Any, site: Site, path: str) -> None:
    """Open a page and wait until it has answered."""
    await page.goto(f"{site.addresses.http}/console/{path}")
    await page.wait_for_selector("main h1")
    await page.wait_for_selector(".loading", state="detached")


async def moved(page: Any, path: str) -> None:
    """Go to a page as a link of the console does, without loading everything anew; wait until it has answered."""
    move = """async (to) => {
        history.pushState({}, '', to);
        dispatchEvent(new Event('moved'));
        for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
    }"""
    await page.evaluate(move, f"/console/{path}")
    await page.wait_for_selector("main h1")
    await page.wait_for_selector(".loading", state="detached")
