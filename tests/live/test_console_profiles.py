"""Stories of profiles in a real browser, by clicks alone: a profile mended and tried on a canary, the inbox emptied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.live.browsing import needs_chromium, visitor
from tests.live.releasing import version
from tests.live.site import PLAIN, Made, Site, config_of, running
from tests.support.thermometer import write

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node with the thermometer, version 1, in its folder."""
    folder = tmp_path_factory.mktemp("profiles")
    write(folder, version(1))
    async with running(config_of(tmp_path_factory.mktemp("node"), profiles=(str(folder), str(PLAIN)))) as site:
        yield site


async def test_a_profile_is_mended_and_tried_on_a_canary(node: Site, browser: Any) -> None:
    """A device's first message is refused; its profile is mended in the browser, released to a canary, and seen."""
    async with visitor(browser, node, node.admin) as operator:
        page = operator.page
        await operator.open("devices")
        await operator.click("Add a device")
        await operator.send(id="story-a", division="440106", profile="acme/th")
        device = Made("story-a", await page.inner_text("dialog .secret"), [])
        await page.click("dialog button:has-text('Close')")
        assert (await node.push(device, '{"temp": 215}')).status == 202
        await page.click("tbody a:has-text('story-a')")
        await page.click("a:has-text('Try in the editor')")

        text = page.locator("#profileText")
        await page.wait_for_selector(".stages h3:has-text('quarantine'), .stages pre:has-text('quarantined')")
        written = await text.input_value()
        await text.fill(written.replace("field: t,", "field: tmp,").replace("air_temperature", "air_temprature", 1))
        await page.wait_for_selector(".findings li.error:has-text('air_temprature')")
        await page.click(".findings li.error button")
        assert await page.evaluate("getSelection().toString()") == "air_temprature"
        await text.fill(written.replace("field: t,", "fields: [t, temp],"))
        await page.wait_for_selector("p.fine")
        await page.wait_for_selector(".stages pre:has-text('21.5')")
        await page.click(".steps button:has-text('Save draft')")
        await operator.sees("Version 2 is saved")
        await page.click(".steps button:has-text('Compare')")
        await page.wait_for_selector("#differences td:has-text('story-a')")
        assert await page.locator("svg.bars rect").count() > 0
        await page.click(".steps button:has-text('Propose')")
        await operator.send(note="other name of the member")
        await page.click(".steps button:has-text('Canary')")
        await operator.send(devices="story-a", share="")
        await page.wait_for_selector("table.canary")
        assert (await node.push(device, '{"temp": 221}')).status == 202
        await page.wait_for_selector("table.canary tr:has-text('canary') td.number:text-is('1')")
        await operator.open("records?form=newest&device=story-a")
        await page.wait_for_selector("tbody td.number:has-text('22.1')")
        assert "acme/th@2" in await page.inner_text("tbody")
        await operator.open("profiles/acme/th")
        await operator.click("Release")
        await operator.send(note="no worse than the others")
        await page.wait_for_selector("td .badge:has-text('released')")
        await operator.click("Roll back")
        await operator.send(note="the members were right before")
        await page.wait_for_selector(".headline .badge:has-text('v1')")
        assert (await node.push(device, '{"temp": 230}')).status == 202
        await operator.open("devices/story-a")
        await page.wait_for_selector(".needs pre:has-text('230')")
        assert operator.faults == []


async def test_the_inbox_is_emptied(node: Site, browser: Any) -> None:
    """Group, draft, mended profile, comparison, release, decoded again: what was recovered leaves, exactly once."""
    device = await node.device("story-d", profile="acme/th")
    for value in (200, 210):
        assert (await node.push(device, f'{{"tmp": {value}}}')).status == 202
    async with visitor(browser, node, node.admin, language="zh-CN") as operator:
        page = operator.page
        await operator.open("quarantine?device=story-d")
        await page.click(".inbox li button")
        async with page.expect_download() as started:
            await operator.click("厂家资料包")
        assert (await started.value).suggested_filename == "acme-th.zip"
        await operator.click("生成物模型草稿")
        await page.wait_for_selector(".draft tr:has-text('tmp')")
        await operator.click("修改物模型")
        text = page.locator("#profileText")
        await page.wait_for_selector(".stages pre:has-text('quarantined')")
        written = (await text.input_value()).replace("fields: [t, temp],", "field: t,")
        await text.fill(written.replace("field: t,", "fields: [t, temp, tmp],"))
        await page.wait_for_selector(".stages pre:has-text('21')")
        for step in ("保存草稿", "比对", "提交", "发布"):
            await page.click(f".steps button:has-text('{step}'):not([disabled])")
            if step == "比对":
                await page.wait_for_selector("#differences td:has-text('story-d')")
            elif step != "保存草稿":
                await operator.send(note=step)
        await page.wait_for_selector(".headline .badge:has-text('已发布')")

        await operator.open("quarantine?device=story-d")
        await page.click(".inbox li button")
        await page.click(".group button:has-text('重新解析')")
        await operator.send(note="字段改名")
        await operator.sees("没有待处理消息")
        await page.wait_for_selector(".needs li.fine:has-text('完成')")
        await operator.open("records?form=newest&device=story-d")
        await page.wait_for_selector("tbody td.number:has-text('21')")
        assert await page.locator("tbody tr").count() == 2
        # Who did it stands on the page of the profile.
        await operator.open("profiles/acme/th")
        for step in ("起草", "提交", "发布", "重新解析完成"):
            await page.wait_for_selector(f".changes strong:text-is('{step}')")
        assert operator.faults == []
    assert await node.quarantine(device="story-d") == []
