"""Stories over two tiers in a real browser, by clicks alone: sharing with a mask, an alarm, the lag of a city."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.config import NodeUserConfig, UplinkConfig
from sensegate.config.sites import NodeQuotaConfig
from tests.conftest import eventually
from tests.live.browsing import Visitor, needs_chromium, visitor
from tests.live.granting import ENTRY
from tests.live.site import SMALL, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Site]]:
    """A node (4401) and its centre, whose log has room for 64 kB of the node's rows; yield (node, centre)."""
    directory: Path = tmp_path_factory.mktemp("tiers")
    secret = directory / "secret"
    secret.write_text("secret-of-4401", encoding="utf-8")
    above = msgspec.structs.replace(
        config_of(directory / "centre", "44", store=msgspec.structs.replace(SMALL, log_bytes=64 * 1024**2)),
        nodes=(NodeUserConfig(division="4401", secret_file=str(secret)),),
        node_quota=NodeQuotaConfig(log_share=0.001),
    )
    with pytest.MonkeyPatch.context() as patch:
        # The engine looks every five seconds for what falls silent; the story has two such looks.
        patch.setattr("sensegate.alarms.engine.TICK_S", 0.5)
        # Indicators are summed twice a minute, and read by the page once.
        patch.setattr("sensegate.tiers.indicator_hours.REFRESH_S", 0.2)
        patch.setattr("sensegate.tiers.indicator_history.STORE_S", 0.5)
        async with running(above) as centre:
            uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
            async with running(msgspec.structs.replace(config_of(directory / "node"), uplink=uplink)) as node:
                yield node, centre


async def entry_completed(owner: Visitor) -> None:
    """Fill what the entry of the feed `shared` lacks; see it published."""
    await owner.open("feeds/shared")
    await owner.sees("Missing before it is published")
    await owner.click("Edit the entry")
    await owner.page.fill("form.grid [name=title_en]", "Air of Guangzhou")
    await owner.page.select_option("form.grid [name=cadence]", "realtime")
    await owner.click("Save the entry")
    await owner.page.wait_for_selector(".headline .badge:has-text('published')")


async def test_a_feed_is_shared_with_a_mask(pair: tuple[Site, Site], browser: Any) -> None:
    """The owner completes the entry; a bureau applies; approved with a mask it reads; revoked, its stream ends."""
    _, centre = pair
    device = await centre.device("story-b", "440103")
    owner_token, _ = await centre.token("city_operator", "4401")
    reader_token, _ = await centre.token("subscriber", "4403")
    made = await centre.ask("POST", "/api/v1/feeds", owner_token, json={"name": "shared", "divisions": ["4401"]})
    assert made.status == 201
    incomplete = {key: value for key, value in ENTRY.items() if key not in {"title_en", "cadence"}}
    assert (await centre.ask("PATCH", "/api/v1/catalogue/shared", owner_token, json=incomplete)).status == 200
    async with (
        visitor(browser, centre, owner_token) as owner,
        visitor(browser, centre, reader_token, language="zh-CN") as reader,
    ):
        await entry_completed(owner)
        await reader.open("catalogue?q=廣州")
        await reader.click("廣州空氣溫度", "link")
        await reader.click("申请共享")
        await reader.send(purpose="联合预报", legal_basis="国务院令第809号")
        await reader.page.click("dialog button:has-text('关闭')")

        await owner.open("applications?state=pending")
        await owner.sees("联合预报")
        await owner.click("Approve")
        await owner.page.check("dialog [name=hash][value=device]")
        await owner.page.check("dialog [name=drop][value=place]")
        await owner.send(time_s="3600", round="air_temperature=0.5", division_digits="4")
        await owner.page.wait_for_selector("text=No application")

        async with centre.stream(reader_token, "shared") as stream:
            assert (await centre.push(device, reading(21.3, "2026-01-01T00:12:34Z"))).status == 202
            record = await stream.record(20.0)
            assert (record["value"], record["time"][:19], record["division"]) == (21.5, "2026-01-01T00:00:00", "4401")
            assert record["device"] != "story-b"
            await reader.open("feeds/shared")
            await reader.click("读取", "link")
            await reader.page.wait_for_selector("tbody td.number:has-text('21.5')")

            await owner.open("grants")
            await owner.page.click("tbody td a")
            await owner.sees("air_temperature in steps of 0.5")
            await owner.click("Revoke the grant")
            await owner.send(reason="the purpose has ended")
            await owner.page.wait_for_selector(".headline .badge:has-text('revoked')")
            end = await stream.next(60.0)
            assert end is not None
            assert end["event"] == "problem"
            assert "the purpose has ended" in end["data"]
            assert await stream.next(60.0) is None
        await reader.open("feeds/shared")
        await reader.page.wait_for_selector("button:has-text('申请共享')")
        assert [*owner.faults, *reader.faults] == []


async def score_of(centre: Site, city: str) -> float | None:
    """Return the score of a city at the centre; None: it is not known."""
    answer = await centre.ask("GET", "/api/v1/indicators")
    return next((row["score"] for row in answer.body["rows"] if row["division"] == city), None)


async def test_the_centre_shows_indicators_of_its_cities(pair: tuple[Site, Site], browser: Any) -> None:
    """What a node's devices sent becomes a score of its city at the centre: on the tile, as figures, with a trend."""
    node, centre = pair
    device = await node.device("story-f")
    # One of two readings is out of range for air.
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    rows = [{"time": now, "values": {"air_temperature": value}} for value in (20.0, 500.0)]
    before = await score_of(node, "4401")

    async def is_judged() -> bool:
        assert (await node.push(device, json.dumps(rows))).status == 202
        return await score_of(centre, "4401") is not None and await score_of(node, "4401") is not None

    await eventually(is_judged, every_s=0.5)
    assert before is None or before <= 100
    elsewhere, _ = await centre.token("city_operator", "4403")
    assert (await centre.ask("GET", "/api/v1/indicators", elsewhere)).body["rows"] == [], "not those of another city"
    async with visitor(browser, centre, centre.admin, language="zh-CN") as governor:
        page = governor.page
        await page.wait_for_selector(".tile:has-text('广州'):has-text('得分')")
        await page.wait_for_selector(".indicators .step:has-text('本月得分') strong")
        for word in ("真实性", "准确性", "连续性", "完整性"):
            assert await page.locator(f".indicators .step:has-text('{word}')").count() == 1
        assert governor.faults == []


async def alarm_is(node: Site, state: str) -> bool:
    """Return whether the alarm of the silent device has a state."""
    answer = await node.ask("GET", "/api/v1/alarms", params={"device": "story-c", "state": state})
    return bool(answer.body["rows"])


async def test_a_silent_device_raises_an_alarm(pair: tuple[Site, Site], browser: Any) -> None:
    """A rule by form; the device falls silent, the alarm is acknowledged, and closes when the device speaks."""
    node, _ = pair
    device = await node.device("story-c")
    async with visitor(browser, node, node.admin) as operator:
        page = operator.page
        await operator.open("alarms")
        await operator.click("Add a rule")
        await operator.send(name="mute", kind="silence", severity="major", device="story-c", after_s="2")
        assert (await node.push(device, reading(20.0))).status == 202
        row = "tbody tr:has(a:has-text('story-c'))"
        await eventually(lambda: alarm_is(node, "open"))
        await operator.open("")
        await page.click(".needs a:has-text('story-c')")
        await page.click(f"{row} button:has-text('Acknowledge')")
        await operator.send(note="on the way")
        await operator.open("alarms")
        await page.wait_for_selector(f"{row} .badge:has-text('acknowledged')")

        async def is_closed() -> bool:
            # Between two looks of the engine the device speaks often enough.
            assert (await node.push(device, reading(20.5))).status == 202
            return await alarm_is(node, "closed")

        await eventually(is_closed, every_s=0.2)
        await operator.open("alarms?state=closed")
        await page.wait_for_selector(f"{row} .badge:has-text('closed')")
        assert operator.faults == []


async def test_a_device_is_moved_by_clicks(pair: tuple[Site, Site], browser: Any) -> None:
    """Begun at the centre, the move ends by itself: the node's device is the centre's own, and its change is told."""
    node, centre = pair
    device = await node.device("story-m")
    assert (await node.push(device, reading(20.0))).status == 202

    async def is_known() -> bool:
        rows = (await centre.ask("GET", "/api/v1/feeds/all/latest", params={"device": "story-m"})).body["records"]
        return bool(rows)

    await eventually(is_known)
    async with visitor(browser, centre, centre.admin) as operator:
        await operator.open("moves")
        await operator.click("Move a device")
        await operator.send(device="story-m", target="44", division="440305")
        await operator.page.wait_for_selector("tbody tr:has-text('story-m') .badge:has-text('done')")
        await operator.page.click("tbody a:has-text('story-m')")
        await operator.page.wait_for_selector(".changes li:has-text('moved here')")
        assert operator.faults == []
    assert (await node.ask("GET", "/api/v1/devices/story-m")).body["state"] == "retired"


async def test_the_reason_of_a_lag_is_found(pair: tuple[Site, Site], browser: Any) -> None:
    """The province sees the lag of a city on the overview, opens its node, and reads why."""
    node, centre = pair
    device = await node.device("story-e")
    for push in range(6):
        rows = [
            {
                "time": f"2026-01-0{push + 1}T00:{at // 60:02d}:{at % 60:02d}Z",
                "values": {"state": secrets.token_hex(60)},
            }
            for at in range(200)
        ]
        assert (await node.push(device, json.dumps(rows))).status == 202
    province, _ = await centre.token("province_operator", "44")
    async with visitor(browser, centre, province, language="zh-CN") as governor:
        page = governor.page
        await page.wait_for_selector(".tile.warn:has-text('广州')")
        await page.click(".tile.warn:has-text('广州')")
        await governor.sees("其日志份额已用完")
        assert governor.faults == []
