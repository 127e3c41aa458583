"""The page of a device in a real browser: its last messages live, its changes, the pack for its maker; the trail."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live.browsing import MARK, needs_chromium, visitor
from tests.live.site import PLAIN, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]

TWO_PROBES = """\
profile: acme/two
version: 1
label: {zh: 双探头, en: two probes}
source: made for the test
messages:
  - label: telemetry
    topics: ["two/{device}/up"]
    readings:
      - {field: a, property: air_temperature, unit: Cel, channel: roof}
      - {field: b, property: air_temperature, unit: Cel}
examples:
  - label: both
    topic: two/d1/up
    payload: {"a": 30.5, "b": 20.5}
    expect:
      - {property: air_temperature, value: 30.5, channel: roof}
      - {property: air_temperature, value: 20.5}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "acme").mkdir()
    (folder / "acme" / "two.yaml").write_text(TWO_PROBES, encoding="utf-8")
    async with running(config_of(tmp_path_factory.mktemp("node"), profiles=(str(folder), str(PLAIN)))) as site:
        yield site


async def test_messages_come_live_and_a_pack_goes_to_the_maker(node: Site, browser: Any) -> None:
    """What is sent while the page is open appears there, refused or not; the pack has it without names and numbers."""
    device = await node.device("maker-1")
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert (await node.push(device, reading(20.5, now))).status == 202
    async with visitor(browser, node, node.admin) as operator:
        page = operator.page
        await operator.open("devices/maker-1")
        await page.wait_for_selector(".messages li.taken:has-text('20.5')")
        # The log is younger than the day that is asked for; what it has is drawn all the same.
        await page.wait_for_selector(".uplot")
        assert (await node.push(device, '{"values": {"owner": "张三", "call": 13812345678}} ' + MARK)).status == 202
        await page.wait_for_selector(".messages li:has-text('张三'):has-text('in quarantine')")
        await page.click(".messages button:has-text('Live'), section:has(.messages) button:has-text('Live')")
        assert (await node.push(device, reading(21.5))).status == 202
        await page.click("section:has(.messages) button:has-text('go on')")
        await page.wait_for_selector(".messages li:first-child:has-text('21.5')")

        await page.wait_for_selector(".changes li:has-text('registered')")
        await page.click("button:has-text('Disable')")
        await page.click("dialog form button[type=submit]")
        await page.reload()
        await page.wait_for_selector(".changes li:has-text('disabled')")

        await page.click("dl.facts a:has-text('sensegate/plain')")
        async with page.expect_download() as started:
            await page.click("button:has-text('Pack for the maker')")
        download = await started.value
        archive = zipfile.ZipFile(io.BytesIO(Path(await download.path()).read_bytes()))
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
        assert {"README.txt", "counts.json"} < set(texts)
        assert any(name.startswith("profile/plain@") for name in texts)
        sample = next(text for name, text in texts.items() if name.startswith("samples/") and name.endswith(".json"))
        assert '"device": "device-1"' in sample
        outside = "".join(text for name, text in texts.items() if not name.startswith("profile/"))
        assert [word for word in ("张三", "13812345678", "maker-1", "<img") if word in outside] == []
        assert operator.faults == []
    subscriber, _ = await node.token("subscriber")
    elsewhere, _ = await node.token("county_operator", "440103")
    for path, token, status in (
        ("devices/maker-1/messages", subscriber, 403),
        ("devices/maker-1/messages", elsewhere, 404),
        ("devices/maker-1/changes", elsewhere, 404),
        ("profiles/sensegate/plain/pack", subscriber, 403),
    ):
        assert (await node.ask("GET", f"/api/v1/{path}", token)).status == status, path
    pack = await node.ask("GET", "/api/v1/profiles/sensegate/plain/pack", elsewhere)
    assert pack.status == 200
    assert not [name for name in zipfile.ZipFile(io.BytesIO(pack.body)).namelist() if name.startswith("samples/")]


async def test_each_channel_has_its_series(node: Site, browser: Any) -> None:
    """Of two probes each is drawn alone: the newest value of the legend is its own."""
    device = await node.device("probe-1", profile="acme/two")
    for step in range(3):
        assert (await node.push(device, f'{{"a": {30.5 + step}, "b": {20.5 + step}}}')).status == 202
    async with visitor(browser, node, node.admin) as operator:
        page = operator.page
        await operator.open("devices/probe-1")
        for name, points in (("air temperature · roof", 3), ("air temperature", 3)):
            channel = name.partition(" · ")[2]
            row = f"tbody tr:has(td:text-is('{channel}'))" if channel else "tbody tr:not(:has(td:text-is('roof')))"
            await page.click(f"{row} button.plain")
            await page.wait_for_selector(f"section:has(h2:text-is('{name}')) :text('{points} values')")
            assert await page.locator(f"section:has(h2:text-is('{name}')) .uplot").count() == 1
        assert operator.faults == []


async def test_the_trail_is_filtered_from_its_end(node: Site, browser: Any) -> None:
    """An auditor finds who did what to which, the newest first, in both directions of the filter."""
    await node.device("trail-1")
    await node.device("trail-2")
    auditor = node.config_file("auditor.token").read_text(encoding="ascii").strip()
    async with visitor(browser, node, auditor, language="zh-CN") as reader:
        page = reader.page
        await reader.open("audit")
        await page.wait_for_selector("tbody tr:first-child:has-text('trail-2')")
        target = page.locator(".tools > label:has-text('对象') input")
        await target.fill("trail-1")
        await target.press("Enter")
        await page.wait_for_selector("tbody:not(:has-text('trail-2')) tr:has-text('trail-1'):has-text('登记')")
        await page.click("tbody a:has-text('trail-1')")
        await page.wait_for_selector(".changes li:has-text('登记')")
        await page.click("section:has(.changes) a:has-text('审计')")
        await page.wait_for_selector("tbody:not(:has-text('trail-2')) tr:has-text('trail-1')")
        async with page.expect_download() as started:
            await page.click("button:has-text('导出')")
        download = await started.value
        assert "trail-2" in Path(await download.path()).read_text(encoding="utf-8")
        assert reader.faults == []


async def test_too_much_log_is_drawn_from_where_it_can_be_read(node: Site, browser: Any) -> None:
    """The chart takes the time that the gateway names, says so, and asks no more by itself; else it shows why."""
    device = await node.device("much-1")
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert (await node.push(device, reading(20.5, now))).status == 202
    async with visitor(browser, node, node.admin) as operator:
        page, asked, detail = operator.page, list[str](), "the log holds too much; give a `from` after {}, or more"
        readable = f"{dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"

        async def refuse(route: Any) -> None:
            asked.append(route.request.url)
            if is_readable and len(asked) > 1:
                # What the log lacks before is no matter here.
                await route.fulfill(json={"records": [{"time": now, "value": 20.5, "unit": "Cel", "quality": "good"}]})
                return
            problem = {"status": 413, "title": "too much", "detail": detail.format(readable)}
            await route.fulfill(status=413, json=problem, content_type="application/problem+json")

        is_readable = True
        await page.route("**/feeds/all/history?**", refuse)
        await operator.open("devices/much-1")
        await page.wait_for_selector("p:has-text('too much to read from the log') button:has-text('Try again')")
        assert len(asked) == 2
        assert readable.replace(":", "%3A") in asked[1]
        is_readable = False
        await page.click("p:has-text('too much to read from the log') button")
        await page.wait_for_selector(".problem:has-text('the log holds too much') button:has-text('Try again')")
        assert len(asked) == 4, "once more as before, then from the time named"
