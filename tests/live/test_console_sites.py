"""The page of two sites over two real centres: which one is active, by which term, and that it changes with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sensegate.failover import terms
from tests.conftest import eventually
from tests.live.browsing import chromium, needs_chromium
from tests.live.centres import Centre, two_sites

pytestmark = [
    pytest.mark.live,
    needs_chromium,
    pytest.mark.skipif("SENSEGATE_SOAK" not in os.environ, reason="two centres and a browser: SENSEGATE_SOAK=1"),
]


async def sites_page(browser: Any, url: str, token: str) -> Any:
    """Open the page of two sites of a gateway; return it."""
    context = await browser.new_context(locale="en-US", viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(60_000)
    await page.goto(f"{url}/console/")
    await page.fill("#token", token)
    await page.click("#tokenForm button")
    await page.click("nav a:has-text('Two sites')")
    await page.wait_for_selector("dl.facts")
    folder = os.environ.get("SENSEGATE_SHOTS")
    if folder:
        await page.screenshot(path=f"{folder}/sites-{url.rpartition(':')[2]}.png", full_page=True)
    return page


def known_to_node(directory: Path, centre: Centre) -> bool:
    """Return whether a node has granted a term to a centre that has all of the other."""
    return terms.read(directory).voters_version != (0, 0) and terms.read(centre.directory).voters[-1].nodes != ()


async def test_the_page_follows_the_active_centre(tmp_path: Path) -> None:
    """The active centre and the node show the term and its voter; when the centre is killed, the other one does."""
    async with two_sites(tmp_path, automatic=True) as (first, second, node), chromium() as browser:
        token = (first.directory / "admin.token").read_text().strip()
        await eventually(second.copied, 60)
        await eventually(lambda: known_to_node(Path(node.config.directory), first), 60)
        page = await sites_page(browser, first.url, token)
        await page.wait_for_selector(".headline .badge:has-text('active')")
        await page.wait_for_selector("dl.facts div:has(dt:has-text('Voters')) dd:has-text('4401')")
        at_node = await sites_page(browser, node.addresses.http, node.admin)
        await at_node.wait_for_selector("dl.facts div:has(dt:text-is('Term')) dd:has-text('1')")
        await first.kill()
        await second.active(60)
        later = await sites_page(browser, second.url, token)
        await later.wait_for_selector(".headline .badge:has-text('active')")
        await later.wait_for_selector("dl.facts div:has(dt:text-is('Term')) dd:has-text('2')")
        await at_node.wait_for_selector("dl.facts div:has(dt:has-text('Granted term')) dd:has-text('2')")
