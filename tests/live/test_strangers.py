"""Clients that know nothing of us: curl, and a browser's EventSource. paho, nats-py, websockets: in their own files.

The browser is Chromium by playwright (`tests/support/chromium.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from sensegate.demo.link import FaultyLink
from tests.conftest import eventually
from tests.live.site import Made, Site, reading
from tests.support.chromium import CHROMIUM, OPTIONS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
PASSWORD = "Kapok-tree 2026"
_minute = iter(range(1, 10_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(node: Site) -> Made:
    return await node.device("stranger-air")


async def push(site: Site, device: Made, *values: float) -> None:
    """Have readings with times of their own."""
    for value in values:
        minute = next(_minute)
        sample = reading(value, f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00Z")
        assert (await site.push(device, sample)).status == 202


# ── curl ──────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def curl(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run it; killed at the end, if it has not ended."""
    process = await asyncio.create_subprocess_exec("curl", "-sS", *words, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_curl_by_page_and_by_events(node: Site, device: Made) -> None:
    """Pages on, by the `Link` of each answer; a long poll waits for what comes; events resumed by Last-Event-ID."""
    await push(node, device, 1, 2, 3, 4, 5)
    await eventually(lambda: _least(node, 5))
    token, _ = await node.token()
    feed = f"{node.addresses.http}/api/v1/feeds/all"
    bearer = ("-H", f"Authorization: Bearer {token}")
    result: list[dict[str, Any]] = []
    url = f"{feed}/records?limit=2"
    while True:
        async with curl(*bearer, "-D", "/dev/stderr", "-w", "\n%header{link}", url) as process:
            out, _ = await process.communicate()
        body, _, link = out.decode().rpartition("\n")
        document = json.loads(body)
        if not document["records"]:
            break
        result += document["records"]
        url = node.addresses.http + link[1 : link.index(">")]
    whole = await node.records(token)
    assert [row["cursor"] for row in result] == [row["cursor"] for row in whole]

    async with curl(*bearer, f"{feed}/records?wait=20&after={document['next']}") as process:
        await push(node, device, 6)
        out, _ = await process.communicate()
    assert [row["value"] for row in json.loads(out)["records"]] == [6]

    async with curl(*bearer, "-N", "-H", f"Last-Event-ID: {result[1]['cursor']}", f"{feed}/stream") as process:
        status = await _curled(process, len(result) - 2 + 1)
    assert [status["id"] for status in status] == [row["cursor"] for row in (await node.records(token))[2:]]


async def _curled(process: asyncio.subprocess.Process, count: int) -> list[dict[str, str]]:
    """Return the next events that hold data."""
    assert process.stdout
    result: list[dict[str, str]] = []
    event: dict[str, str] = {}
    async with asyncio.timeout(60):
        while len(result) < count:
            key, _, value = (await process.stdout.readline()).decode().rstrip("\n").partition(": ")
            if key:
                event[key] = value
            elif "data" in event:
                result.append(event)
                event = {}
    return result


async def _least(site: Site, count: int) -> bool:
    return len(await site.records()) >= count


# ── a browser ─────────────────────────────────────────────────────────────────────────────────────────

SIGN_IN = """async ([name, password, fresh]) => {
  const answer = await fetch('/api/v1/session', {method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({name, password, new_password: fresh})});
  return answer.status;
}"""
LISTEN = """(after) => {
  window.seen = []; window.opened = 0;
  const source = new EventSource('/api/v1/feeds/all/stream?after=' + after);
  source.onopen = () => { window.opened += 1; };
  source.onmessage = (event) => window.seen.push([event.lastEventId, JSON.parse(event.data).value]);
}"""


async def _has_received(page: Any, count: int) -> bool:
    return bool(await page.evaluate("window.seen.length") == count)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install it, or name it in SENSEGATE_CHROMIUM")
async def test_a_browsers_event_source(node: Site, device: Made) -> None:
    """Signed in by cookie; history, then live; its connection cut, it comes again by itself and has each once."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    made = await node.ask("POST", "/api/v1/people", json={"id": "eve", "role": "city_operator", "scope": "4401"})
    assert made.status == 201, made.body
    start = (await node.ask("GET", "/api/v1/feeds/all/records", params={"since": "0s"})).body["next"]
    link = FaultyLink("127.0.0.1", urlsplit(node.addresses.http).port or 0)
    await link.start()
    try:
        async with playwright.async_playwright() as play:
            browser = await play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{link.port}/docs")
            assert await page.evaluate(SIGN_IN, ["eve", made.body["password"], PASSWORD]) == 201
            await push(node, device, 10, 11)
            await page.evaluate(LISTEN, start)
            await eventually(partial(_has_received, page, 2))
            await push(node, device, 12)
            await eventually(partial(_has_received, page, 3))
            await link.cut()
            await push(node, device, 13, 14)
            link.restore()
            await eventually(partial(_has_received, page, 5))
            await push(node, device, 15)
            await eventually(partial(_has_received, page, 6))
            result = await page.evaluate("window.seen")
            assert await page.evaluate("window.opened") >= 2, "the control: it did connect again"
            await browser.close()
    finally:
        await link.stop()
    whole = (await node.ask("GET", "/api/v1/feeds/all/records", params={"after": start})).body["records"]
    assert result == [[row["cursor"], row["value"]] for row in whole]
    assert [value for _, value in result] == [10, 11, 12, 13, 14, 15]
