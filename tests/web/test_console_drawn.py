"""Pages of the console as a browser draws them: times, tables on a phone, filters, and who has which data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.browsing import chromium, needs_chromium
from tests.web.drawing import ME, ORIGIN, Drawn, Failure, Sent, drawn

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), needs_chromium]
BEGIN = "2026-01-31T18:30:00.000000Z"
ASSESSED: dict[str, Any] = {
    "month": "2026-01",
    "by": "division",
    "since": BEGIN,
    "hours_known": 5,
    "hours_of_month": 744,
    "rows": [
        {"name": "440106", "devices": 2, "received": 9, "authenticity": 1, "accuracy": 1, "continuity": 1}
        | {"completeness": 1, "score": 100.0}
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """A Chromium that the tests of this file share."""
    async with chromium() as started:
        yield started


async def test_times_are_local_and_name_their_zone(browser: Any) -> None:
    """A moment stands in the reader's time with its zone; the present month is the one that the gateway names."""
    async with drawn(browser, "assessment", {"/api/v1/assessment*": ASSESSED}) as shown:
        text = await shown.text()
        assert "2026/2/1 02:30:00 GMT+8" in text
        assert "质量考核 2026-01" in text
        assert "month=" not in "".join(shown.asked)


async def test_a_table_is_read_on_a_phone(browser: Any) -> None:
    """Each row is a block of labelled lines within the window."""
    async with drawn(browser, "assessment", {"/api/v1/assessment*": ASSESSED}, width=390) as shown:
        await shown.text()
        cell = shown.page.locator("td[data-label=得分]")
        box = await cell.bounding_box()
        assert box["x"] + box["width"] <= 390
        assert await shown.page.locator("thead").is_visible() is False


NODES = {
    "rows": [
        {"member": "44", "division": "44", "role": "centre", "state": "up", "devices": 0},
        {"member": "4401", "division": "4401", "role": "node", "state": "up", "devices": 12},
        {"member": "4403", "division": "4403", "role": "node", "state": "up", "devices": 7},
    ]
}


async def test_a_centre_says_what_lies_at_its_nodes(browser: Any) -> None:
    """Where a centre has nothing of its own it names its nodes with their numbers, and never says "none"."""
    answers: dict[str, Any] = {
        "/api/v1/nodes": NODES,
        "/api/v1/survey*": {"rows": []},
        "/api/v1/quarantine/groups*": {"rows": [], "messages": 0, "more": False},
        "/api/v1/ledger*": {"rows": [{"node": "4401", "quarantined": 41}], "totals": {}},
        "/api/v1/assessment*": ASSESSED | {"rows": [], "since": ""},
        "/api/v1/indicators*month=2026-01*": {"rows": [ASSESSED["rows"][0] | {"division": "4401"}]},
    }
    for path, seen, absent in (
        ("video", "4401 (各类设备 12 台) · 4403 (各类设备 7 台)", "没有登记的摄像机"),
        ("survey", "4401 (12 台设备)", "权限范围内没有登记"),
        ("quarantine", "4401 (41 条消息) · 4403 (0 条消息)", "全部消息均已解析"),
        ("assessment", "4401\t2\t9", "没有质量指标"),
    ):
        async with drawn(browser, path, answers, role="centre") as shown:
            await shown.page.wait_for_selector("main a[href$='/nodes/4401'], main td:text-is('4401')")
            text = await shown.text()
            assert seen in text, path
            assert absent not in text, path
    async with drawn(browser, "quarantine", answers) as shown:
        assert "全部消息均已解析" in await shown.text()


async def test_a_filter_of_the_address_is_seen_and_removed(browser: Any) -> None:
    """A filter without a field of its own is a chip; without it the list is asked for anew, other filters stay."""
    answers: dict[str, Any] = {"/api/v1/alarms*": {"rows": []}, "/api/v1/alarm-rules*": {"rows": []}}
    async with drawn(browser, "alarms?state=open&rule=water-high&sort=opened", answers) as shown:
        await shown.text()
        assert await shown.page.locator(".chip").all_inner_texts() == ["规则: water-high ✕"]
        await shown.page.click(".chip")
        await shown.page.wait_for_selector(".chip", state="detached")
        await shown.text()
        assert shown.page.url.endswith("/alarms?sort=opened&state=open")
        assert "rule=" not in [path for path in shown.asked if path.startswith("/api/v1/alarms")][-1]


DEVICE = {"id": "air-1", "division": "440106", "profile": "acme/th10@3", "state": "active", "clock_lag_s": None}
LATEST = [
    {
        "id": f"r{number}",
        "property": name,
        "channel": channel,
        "value": 20.5,
        "unit": unit,
        "time": BEGIN,
        "quality": "good",
    }
    for number, (name, channel, unit) in enumerate((("air_temperature", "roof", "Cel"), ("pm25", "", "ug/m3")))
]
OF_DEVICE: dict[str, Any] = {
    "/api/v1/properties*": {
        "rows": [{"name": "air_temperature", "label_zh": "气温", "label_en": "air temperature"}],
    },
    "/api/v1/profiles/acme/th10": {"id": "acme/th10", "version": 3, "title": "thermometer", "title_zh": "温湿度计"},
    "/api/v1/devices/air-1": DEVICE,
    "/api/v1/devices/air-1/latest*": {"rows": LATEST},
    "/api/v1/devices/air-1/messages*": {"rows": [], "after": "", "more": False},
    "/api/v1/devices/air-1/changes*": {"rows": [], "complete": True},
    "/api/v1/alarms*": {"rows": []},
    "/api/v1/quarantine*": {"rows": []},
    "/api/v1/tasks*": {"rows": []},
    "/api/v1/feeds/all/history*": {"records": []},
}


async def test_names_are_those_of_the_language(browser: Any) -> None:
    """Properties, units and the model stand in the language of the page; a property without a name stands as it is."""
    async with drawn(browser, "devices/air-1", OF_DEVICE) as shown:
        await shown.page.wait_for_selector("h2:has-text('气温 · roof')")
        text = await shown.text()
        assert "温湿度计 acme/th10@3" in text
        assert await shown.page.locator("td[data-label=属性]").all_inner_texts() == ["气温", "pm25"]
        assert await shown.page.locator("td[data-label=单位]").all_inner_texts() == ["°C", "µg/m³"]
        assert sum(path.startswith("/api/v1/properties") for path in shown.asked) == 1
    profiles = {"/api/v1/profiles?*": {"rows": [OF_DEVICE["/api/v1/profiles/acme/th10"]]}}
    for language, title in (("zh-CN", "温湿度计"), ("en-US", "thermometer")):
        async with drawn(browser, "profiles", profiles, language=language) as shown:
            await shown.page.wait_for_selector(f"td:text-is('{title}')")


async def test_data_is_saved_as_shown(browser: Any, tmp_path: Path) -> None:
    """The page of data shows the channel, and its CSV holds what is shown with the standard names."""
    records = [row | {"device": "air-1", "division": "440106", "profile": "acme/th10@3"} for row in LATEST]
    answers = OF_DEVICE | {
        "/api/v1/feeds?*": {"rows": [{"name": "all"}]},
        "/api/v1/feeds/all/latest*": {"records": records},
    }
    async with drawn(browser, "records", answers) as shown:
        await shown.page.wait_for_selector("td[data-label=属性]:has-text('气温')")
        assert await shown.page.locator("td[data-label=通道]").all_inner_texts() == ["roof", ""]
        async with shown.page.expect_download() as started:
            await shown.page.click("button:has-text('CSV')")
        await (await started.value).save_as(tmp_path / "data.csv")
        lines = (tmp_path / "data.csv").read_text(encoding="utf-8-sig").splitlines()
        assert [line.split(",")[:4] for line in lines[1:]] == [
            ["air-1", "air_temperature", "roof", "20.5"],
            ["air-1", "pm25", "", "20.5"],
        ]


NO_DEVICE = (
    "there is no device air-9 in your scope; see `sensegate device list`",
    "您的范围内没有设备 air-9；见“感知设备”页",
)
PROBLEMS = (
    NO_DEVICE,
    (
        "body: division: '4499' belongs nowhere; give 2, 4, 6, 9 or 12 digits, e.g. 44, 4401, 440106 or 441900003",
        "区划：'4499' belongs nowhere；填写 2、4、6、9 或 12 位数字，如 44、4401、440106、441900003",
    ),
    ("alarm rule water is at revision 3, not 2; read it again", "告警规则 water 现为修订 3，而非 2；请重新读取"),
    ("alarm a1 is closed; only an open one is acknowledged", "告警 a1 的状态为已关闭；只能确认未处理的告警"),
    ("body: Object missing required field `id` - at `$.rows`", "缺少必填项 `id`（位于 `$.rows`）"),
    (
        "role auditor may not change devices; ask for a token of another role (admin)",
        "角色“审计员”无此权限（修改设备）；请申请其他角色的令牌（管理员）",
    ),
    ("the new password has 5 characters; at least 12; choose another one", "新密码有 5 个字符；至少 12；请另选一个"),
    (
        "body: Expected `str` matching regex '^[0-9]{2,12}$' - at `$.division`",
        "区划：应为 文本，格式 ^[0-9]{2,12}$",
    ),
    ("the moon is away; wait for a night", "the moon is away; wait for a night"),
    ("a1: changed meanwhile; the moon is away", "a1：已被他人修改；the moon is away"),
)


async def test_a_problem_stands_in_the_language_of_the_page(browser: Any) -> None:
    """What the gateway refuses is said in Chinese, part by part; a text of which no part is known stays as it is."""
    english, chinese = NO_DEVICE
    answers = {"/api/v1/devices?*": Failure(404, english)}
    for language, text in (("zh-CN", chinese), ("en-US", english)):
        async with drawn(browser, "devices", answers, language=language) as shown:
            await shown.page.wait_for_selector(f".problem span:has-text('{text[:12]}')")
            assert await shown.page.inner_text(".problem span") == text
    async with drawn(browser, "devices", answers) as shown:
        translated = "async (texts) => { const { inChinese } = await import('/static/console/problems.js');"
        texts = [text for text, _ in PROBLEMS]
        assert await shown.page.evaluate(translated + " return texts.map(inChinese); }", texts) == [
            expected for _, expected in PROBLEMS
        ]


ALARM: dict[str, Any] = {
    "id": "a1",
    "rule": "water-high",
    "severity": "major",
    "title": "",
    "state": "acknowledged",
    "device": "air-1",
    "property": "air_temperature",
    "channel": "",
    "value": 41.5,
    "opened": BEGIN,
    "acknowledged_by": "li",
    "acknowledged": "2026-02-01T01:00:00.000000Z",
    "note": "on its way",
    "silenced_until": "",
}


async def test_a_device_shows_what_is_open(browser: Any) -> None:
    """The page of a device has its open and acknowledged alarms, and asks for no others."""
    answers = OF_DEVICE | {"/api/v1/alarms*": {"rows": [ALARM]}}
    async with drawn(browser, "devices/air-1", answers) as shown:
        await shown.page.wait_for_selector("li:has-text('气温 · 41.5')")
        text = await shown.page.inner_text("li:has-text('water-high')")
        assert all(word in text for word in ("重要", "已确认", "li · ", ": on its way"))
        title = await shown.page.locator("li:has-text('water-high') time").last.get_attribute("title")
        assert "09:00" in title
        (asked,) = {path for path in shown.asked if path.startswith("/api/v1/alarms")}
        assert "device=air-1&state=open%2Cacknowledged" in asked
    async with drawn(browser, "devices/air-1", OF_DEVICE) as shown:
        assert "没有未关闭的告警" in await shown.text()


async def test_data_is_read_page_by_page(browser: Any) -> None:
    """The next page and the one before, in the address; another filter, here of the channel, begins anew."""
    record = LATEST[0] | {"device": "air-1", "division": "440106", "profile": "acme/th10@3"}
    answers = OF_DEVICE | {
        "/api/v1/feeds?*": {"rows": [{"name": "all"}]},
        "/api/v1/feeds/all/records*": {"records": [record], "next": "c2"},
        "/api/v1/feeds/all/records*after=c2*": {"records": [record | {"id": "r9", "channel": "cellar"}], "next": ""},
    }
    async with drawn(browser, "records?form=newest", answers) as shown:
        await shown.page.click("button:has-text('下一页')")
        await shown.page.wait_for_selector("td[data-label=通道]:text-is('cellar')")
        assert "after=c2" in shown.page.url
        assert await shown.page.locator("button:has-text('下一页')").count() == 0
        await shown.page.click("button:has-text('上一页')")
        await shown.page.wait_for_selector("td[data-label=通道]:text-is('roof')")
        await shown.page.click("button:has-text('下一页')")
        await shown.page.wait_for_selector("td[data-label=通道]:text-is('cellar')")
        await shown.page.fill("label:has-text('通道') input", "roof")
        await shown.page.keyboard.press("Enter")
        await shown.page.wait_for_selector("td[data-label=通道]:text-is('roof')")
        asked = [path for path in shown.asked if path.startswith("/api/v1/feeds/all/records")][-1]
        assert "channel=roof" in asked
        assert "after=" not in asked
        assert "after=" not in shown.page.url


FOCUSED = "document.activeElement.innerText"


async def test_the_focus_stays_where_it_was(browser: Any) -> None:
    """After a dialog has changed a list the focus is on the button that opened it; where that is gone, on the table."""
    people = {"/api/v1/people*": {"rows": [{"id": "wang", "role": "admin", "scope": "4401"}], "password": "p-1"}}
    async with drawn(browser, "people", people) as shown:
        await shown.page.click("button:has-text('添加人员')")
        await shown.page.fill("dialog [name=id]", "wang")
        await shown.page.fill("dialog [name=scope]", "4401")
        await shown.page.keyboard.press("Enter")
        await shown.page.wait_for_selector("dialog .secret")

        def is_read_anew() -> bool:
            return len([path for path in shown.asked if path.startswith("/api/v1/people?")]) > 1

        await eventually(is_read_anew)
        await shown.page.click("dialog button:has-text('关闭')")
        await shown.page.wait_for_selector("dialog", state="detached")
        assert await shown.page.evaluate(FOCUSED) == "添加人员"
    alarm = ALARM | {"state": "open", "acknowledged": "", "acknowledged_by": "", "note": ""}
    answers: dict[str, Any] = {"/api/v1/alarms*": {"rows": [alarm]}, "/api/v1/alarm-rules*": {"rows": []}}
    async with drawn(browser, "alarms", answers) as shown:
        await shown.page.click("td button:has-text('确认')")
        shown.answers["/api/v1/alarms*"] = {"rows": [ALARM]}
        await shown.page.click("dialog button[type=submit]")
        await shown.page.wait_for_selector("td:has-text('已确认')")
        await shown.page.wait_for_selector("dialog", state="detached")
        assert await shown.page.evaluate("document.activeElement.className") == "scroll"


async def test_the_ledger_says_when(browser: Any) -> None:
    """Its times name day and zone, and what the gateway says of itself stands in the language of the page."""
    counts = {"messages": 9, "decoded": 9, "values": 9, "accepted": 9}
    answers: dict[str, Any] = {
        "/api/v1/ledger*": {
            "rows": [{"hour": BEGIN, **counts}],
            "totals": counts,
            "since": BEGIN,
            "balanced": True,
            "delivered": 0,
        },
        "/api/v1/nodes": {"rows": [NODES["rows"][1] | {"last_commit": 1769884200000000, "lag_entries": 0}]},
        "/readyz": {"ready": True, "warnings": ["engine: not connected; connecting again"], "reasons": []},
    }
    async with drawn(browser, "nowhere", answers) as shown:
        await shown.page.goto(f"{ORIGIN}/")
        await shown.page.click("button[data-by=hour]")
        await shown.page.wait_for_selector("#ready:has-text('引擎：未连接，正在重连')")
        for place in ("#stamp", "#rows td:first-child", "#nodes td:nth-child(3)"):
            assert "2026/2/1 02:30:00 GMT+8" in await shown.page.inner_text(place), place
        await shown.page.click("#language")
        await shown.page.wait_for_selector("#ready:has-text('engine: not connected')")


async def test_the_ledger_is_read_on_a_phone(browser: Any) -> None:
    """Each row of its widest table is a block within the window: numbers beside their names, without zeros."""
    counts = {"messages": 41, "decoded": 40, "quarantined": 1, "values": 39, "accepted": 38, "duplicates": 1}
    answers: dict[str, Any] = {
        "/api/v1/ledger*": {"rows": [{"node": "4401", **counts}], "totals": counts, "since": BEGIN, "balanced": True},
        "/readyz": {"ready": True, "warnings": [], "reasons": []},
    }
    async with drawn(browser, "nowhere", answers, width=390) as shown:
        await shown.page.goto(f"{ORIGIN}/")
        await shown.page.wait_for_selector("#rows td:text-is('38')")
        cells = shown.page.locator("#rows td:visible")
        for cell in await cells.all():
            box = await cell.bounding_box()
            assert box["x"] + box["width"] <= 390, await cell.inner_text()
        assert [await cell.inner_text() for cell in await cells.all()] == ["4401", "41", "1", "39", "38", "1"]
        name, number = await cells.nth(0).bounding_box(), await cells.nth(1).bounding_box()
        assert name["x"] <= number["x"] + 1
        assert await shown.page.evaluate("getComputedStyle(document.querySelector('#rows td')).display") == "block"
        strip, figures = [await shown.page.locator(part).bounding_box() for part in (".strip", ".strip dl")]
        assert figures["width"] >= strip["width"] - 1, "beside the verdict a sentence would stand word under word"
        assert await shown.page.inner_text("header a[href='/console/']") == "控制台"
        stored = shown.page.locator("#rows td[data-label=已入库]")
        assert await stored.inner_text() == "38"


async def saved(shown: Drawn) -> Sent:
    """Send the form of the dialog; return its request."""
    await shown.page.click("dialog button[type=submit]")
    await shown.page.wait_for_selector("dialog", state="detached")
    return shown.sent[-1]


async def test_a_registration_is_changed(browser: Any) -> None:
    """Only what was changed is sent, with the revision that was read; an emptied number is null."""
    full = dict.fromkeys(("name", "department", "owner", "domain", "asset", "alias", "gateway"), "")
    device = DEVICE | full | {"grade": 2, "lon": 113.3, "lat": 23.1, "interval_s": 60.0, "revision": 7}
    async with drawn(browser, "devices/air-1", OF_DEVICE | {"/api/v1/devices/air-1": device}) as shown:
        await shown.page.click(".headline button:has-text('修改')")
        await shown.page.fill("dialog [name=owner]", "市水务局")
        await shown.page.fill("dialog [name=lon]", "")
        await shown.page.fill("dialog [name=lat]", "")
        await shown.page.fill("dialog [name=interval_s]", "0.5")
        await shown.page.select_option("dialog [name=grade]", "3")
        body = {"owner": "市水务局", "lon": None, "lat": None, "interval_s": 0.5, "grade": 3}
        assert await saved(shown) == Sent("PATCH", "/api/v1/devices/air-1", body, '"7"')
        await shown.page.click(".headline button:has-text('修改')")
        await saved(shown)
        assert len(shown.sent) == 1
        shown.answers["/api/v1/devices/air-1"] = Failure(409, "device air-1 is at revision 8, not 7; read it again")
        await shown.page.click(".headline button:has-text('修改')")
        await shown.page.fill("dialog [name=name]", "roof")
        await shown.page.click("dialog button[type=submit]")
        await shown.page.wait_for_selector("dialog .problem:has-text('设备 air-1 现为修订 8，而非 7')")


async def test_an_account_is_changed(browser: Any) -> None:
    """Its role, scope and name, with its revision; it is disabled; its new password is shown once."""
    person = {
        "id": "wang",
        "title": "王",
        "role": "county_operator",
        "scope": "440106",
        "department": "",
        "revision": 4,
    }
    person |= {"disabled": False, "external": False, "duty": "operation", "created": BEGIN}
    people: dict[str, Any] = {"/api/v1/people*": {"rows": [person], "password": "p-1"}}
    async with drawn(browser, "people", people) as shown:
        await shown.page.click("td button:has-text('修改')")
        await shown.page.select_option("dialog [name=role]", "city_operator")
        await shown.page.fill("dialog [name=scope]", "4401")
        await shown.page.check("dialog [name=disabled]")
        body = {"role": "city_operator", "scope": "4401", "disabled": True}
        assert await saved(shown) == Sent("PATCH", "/api/v1/people/wang", body, '"4"')
        await shown.page.click("td button:has-text('重置密码')")
        await shown.page.click("dialog button[type=submit]")
        assert await shown.page.inner_text("dialog .secret") == "p-1"
        assert shown.sent[-1][:2] == ("POST", "/api/v1/people/wang/password")


RULE: dict[str, Any] = {
    "name": "water",
    "kind": "threshold",
    "place": "4401",
    "title": "",
    "severity": "major",
    "profile": "",
    "domain": "water",
    "device": "",
    "property": "air_temperature",
    "channel": "roof",
    "above": 0.0,
    "below": None,
    "equals": None,
    "margin": 0.0,
    "for_s": 60.0,
    "by": 0.0,
    "after_s": 0.0,
    "indicator": "",
    "enabled": True,
    "written_by": "li",
    "revision": 9,
}


async def test_a_rule_is_changed(browser: Any) -> None:
    """It is written as a whole with its revision; those of profiles and of the gateway are not offered."""
    rules = {"rows": [RULE, RULE | {"name": "gateway:disk", "title": "disk nearly full"}]}
    answers: dict[str, Any] = {"/api/v1/alarms*": {"rows": []}, "/api/v1/alarm-rules*": rules} | {
        path: OF_DEVICE[path] for path in ("/api/v1/properties*",)
    }
    async with drawn(browser, "alarms", answers) as shown:
        await shown.page.wait_for_selector("td[data-label=条件]:has-text('气温 > 0 持续 60 秒')")
        assert await shown.page.locator("td button:has-text('修改')").count() == 1
        await shown.page.click("td button:has-text('修改')")
        await shown.page.fill("dialog [name=above]", "3.5")
        await shown.page.fill("dialog [name=for_s]", "")
        await shown.page.uncheck("dialog [name=enabled]")
        body = {"kind": "threshold", "place": "4401", "severity": "major", "property": "air_temperature", "above": 3.5}
        body |= {"domain": "water", "channel": "roof", "equals": None, "enabled": False}
        assert await saved(shown) == Sent("PUT", "/api/v1/alarm-rules/water", body, '"9"')


async def test_tables_of_pages_are_read_on_a_phone(browser: Any) -> None:
    """Rules of alarms, versions of a profile, messages in quarantine and samples of a feed: rows are labelled lines."""
    version = {"version": 3, "state": "released", "in_force": ["4401"], "trial": "", "created": BEGIN, "made_by": "li"}
    group: dict[str, Any] = {"id": "g", "reason": "schema", "profile": "acme/th10@3", "pattern": "up/+", "messages": 2}
    group |= {
        "first": BEGIN,
        "last": BEGIN,
        "detail": "no number",
        "devices": ["air-1"],
        "topic": "up/1",
        "payload": "x",
    }
    message = {"received": BEGIN, "topic": "up/1", "device": "air-1", "detail": "no number", "payload": "x"}
    entry: dict[str, Any] = dict.fromkeys(("summary", "department", "source", "update", "quality", "usage"), "")
    entry |= {"feed": "air", "title": "空气", "state": "published", "sharing": "conditional", "missing": [], "grade": 1}
    entry |= {"divisions": ["4401"], "measured": {}, "promise": {}, "met": {}, "columns": [], "sample": LATEST}
    pages: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("alarms", {"/api/v1/alarms*": {"rows": []}, "/api/v1/alarm-rules*": {"rows": [RULE]}}, "td[data-label=条件]"),
        (
            "profiles/acme/th10",
            OF_DEVICE | {"/api/v1/profiles/acme/th10/versions*": {"rows": [version]}},
            "td[data-label=生效范围]",
        ),
        (
            "quarantine?group=g",
            {
                "/api/v1/quarantine/groups*": {"rows": [group], "messages": 2, "more": False},
                "/api/v1/quarantine?*": {"rows": [message | {"entry": 1}, message | {"entry": 2}]},
            },
            "td[data-label=主题] >> nth=0",
        ),
        ("feeds/air", {"/api/v1/catalogue/air": entry}, "td[data-label=数值] >> nth=0"),
    )
    for path, answers, cell in pages:
        async with drawn(browser, path, answers, width=390) as shown:
            await shown.text()
            if path.startswith("quarantine"):
                await shown.page.click("details:not([open]) summary:has-text('消息')")
            box = await shown.page.locator(cell).bounding_box()
            assert box["x"] + box["width"] <= 390, path
            assert await shown.page.locator("main thead").first.is_visible() is False, path


async def test_tokens_are_shown_by_their_names(browser: Any) -> None:
    """Whoever may list tokens reads names where a token acted; people, and tokens without a name, stand as they are."""
    actors = ("c85b058dda3ebc29", "00000000000000aa", "wang")
    rows = [
        {"number": place, "time": BEGIN, "action": "device.add", "target": "air-1", "actor": actor, "role": "admin"}
        | {"before": None, "after": None}
        for place, actor in enumerate(actors)
    ]
    answers: dict[str, Any] = {
        "/api/v1/audit?*": {"rows": rows},
        "/api/v1/audit/head": {"number": 3, "hash": "ab" * 32, "time": BEGIN},
        "/api/v1/tokens*": {"rows": [{"id": actors[0], "name": "市局大屏"}]},
    }
    async with drawn(browser, "audit", answers) as shown:
        await shown.page.wait_for_selector(f"span[title={actors[0]}]:text-is('市局大屏')")
        assert await shown.page.locator("td[data-label=操作者]").all_inner_texts() == ["市局大屏", *actors[1:]]


PLACES = ((113.2, 22.91), (113.49, 23.0), (113.3, 23.12), (113.22, 23.3), (113.48, 23.29))


def cells_of(path: str) -> list[dict[str, Any]]:
    """Return the devices of a view in 24 by 24 cells, each at the mean of its devices, as the gateway does."""
    view = {name: float(texts[0]) for name, texts in parse_qs(urlsplit(path).query).items() if name != "domain"}
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for lon, lat in PLACES:
        if view["west"] <= lon <= view["east"] and view["south"] <= lat <= view["north"]:
            column = int((lon - view["west"]) / (view["east"] - view["west"]) * 24)
            row = int((lat - view["south"]) / (view["north"] - view["south"]) * 24)
            cells.setdefault((row, column), []).append((lon, lat))
    return [
        {"lon": sum(lon for lon, _ in held) / len(held), "lat": sum(lat for _, lat in held) / len(held)}
        | {"devices": len(held), "silent": 0, "disabled": 0, "id": ""}
        for held in cells.values()
    ]


@pytest.mark.parametrize("width", [1440, 390])
async def test_the_first_view_of_the_map_holds_all_devices(browser: Any, width: int) -> None:
    """What cells of the first, wide view hold lies within the view that is fitted to them, and fills much of it."""
    answers = {"/api/v1/map": {"has_tiles": False, "has_overlay": False}, "/api/v1/map/devices*": cells_of}
    async with drawn(browser, "map", answers, width=width) as shown:

        def views() -> list[str]:
            return [path for path in shown.asked if path.startswith("/api/v1/map/devices")]

        def is_fitted() -> bool:
            return len(views()) > 2 and views()[-1] == views()[-2]

        await eventually(is_fitted)
        assert sum(cell["devices"] for cell in cells_of(views()[-1])) == len(PLACES)
        view = {name: float(texts[0]) for name, texts in parse_qs(urlsplit(views()[-1]).query).items()}
        assert max(0.39 / (view["north"] - view["south"]), 0.29 / (view["east"] - view["west"])) > 0.3


async def test_a_move_names_its_source_only_if_given(browser: Any) -> None:
    """An empty field is left out, so that the centre looks the gateway up; what is filled in is sent."""
    answers: dict[str, Any] = {"/api/v1/moves*": {"rows": []}}
    async with drawn(browser, "moves", answers, role="centre") as shown:
        for source in ("", "4401"):
            await shown.page.click("button:has-text('迁移设备')")
            for name, text in (("device", "air-1"), ("source", source), ("target", "4403"), ("division", "440305")):
                await shown.page.fill(f"dialog [name={name}]", text)
            body = {"device": "air-1", "target": "4403", "division": "440305"} | ({"source": source} if source else {})
            assert await saved(shown) == Sent("POST", "/api/v1/moves", body, "")


async def test_registered_cameras_and_platforms_are_named_in_chinese(browser: Any) -> None:
    """Headings, columns and states; what there is none of has no table."""
    camera = {"device": "44010600001190000001", "address": "10.1.2.3", "since": "2026-12-01T00:00:00Z", "last": ""}
    subscription = {"superior": "province", "kinds": ["1"], "resources": [], "status": 2, "until": "", "objects": 0}
    answers: dict[str, Any] = {
        "/api/v1/viid*": {
            "server_id": "44010000005030000001",
            "registrations": [{**camera, "requests": 28, "objects": 1_046, "clock_behind_s": None}],
            "superiors": [],
            "subscriptions": [{**subscription, "notifications": 3}],
            "subordinates": [],
        },
    }
    async with drawn(browser, "video", answers) as shown:
        await shown.page.wait_for_selector("main td:text-is('1,046')")
        text = await shown.text()
        assert "GA/T 1400 注册的摄像机与平台" in text
        assert "上级平台的订阅" in text
        assert "下级平台" not in text
        assert "过期" in text
        headings = await shown.page.locator("main th").all_inner_texts()
        assert {"请求次数", "时钟滞后（秒）", "通知数"} <= {*headings}
        assert [heading for heading in headings if heading.isascii()] == []


async def test_the_editor_is_left_by_the_keyboard(browser: Any) -> None:
    """Tab indents; after Escape it leads on, as it does everywhere else, and then indents again."""
    answers: dict[str, Any] = {"/api/v1/profiles/lint": {"findings": []}, "/api/v1/profiles/schema*": {}}
    async with drawn(browser, "editor", answers) as shown:
        text = shown.page.locator("#profileText")
        await text.fill("")
        await text.press("Tab")
        assert await text.input_value() == "  "
        assert "按 Esc 后再按 Tab" in await shown.page.inner_text("#tabHelp")
        await text.press("Escape")
        await text.press("Tab")
        assert await shown.page.evaluate("document.activeElement.id") != "profileText"
        await text.press("Tab")
        assert await text.input_value() == "    "


APPLIED: dict[str, Any] = {
    "id": "a1",
    "state": "pending",
    "feeds": ["water"],
    "purpose": "防汛",
    "legal_basis": "突发事件应对法",
    "days": 90,
    "subscriber": "00000000000000aa",
    "applicant": "4401/水务局",
    "by": "wang",
    "level": "4401",
    "owner": "4401",
    "department": "",
    "deadline": "2026-02-09T00:00:00.000000Z",
    "decided": "",
    "escalated": 0,
    "volume": 0,
    "rate": 0,
    "reason": "",
    "grants": [],
    "revision": 4,
}


async def test_an_application_of_the_same_city_waits_on_the_overview(browser: Any) -> None:
    """Departments of a city apply to the city itself; one's own applications wait for somebody else."""
    answers: dict[str, Any] = {
        "/api/v1/ledger*": {"rows": [], "totals": {}, "balanced": True, "delivered": 0},
        "/readyz": {"ready": True, "warnings": [], "reasons": []},
        "/api/v1/nodes": {"rows": []},
        "/api/v1/alarms*": {"rows": []},
        "/api/v1/applications*": {
            "rows": [APPLIED, APPLIED | {"id": "a2", "state": "lapsed"}, APPLIED | {"id": "a3", "by": ME}]
        },
    }
    async with drawn(browser, "", answers) as shown:
        link = shown.page.locator(".needs a:has-text('件申请待答复')")
        assert "2" in await link.inner_text()
        assert await link.get_attribute("href") == "/console/applications?state=pending,lapsed"


async def test_an_approval_leads_to_its_grant(browser: Any) -> None:
    """Whoever approves sees what was granted, at once and later in the list."""
    answers: dict[str, Any] = {
        "/api/v1/applications*": {"rows": [APPLIED, APPLIED | {"id": "a2", "state": "approved", "grants": ["g7"]}]},
        "/api/v1/applications/a1/decision": APPLIED | {"state": "approved", "grants": ["g8"]},
        "/api/v1/grants/g8*": {"rows": []},
    }
    async with drawn(browser, "applications", answers) as shown:
        await shown.page.wait_for_selector("td a[href='/console/grants/g7']")
        await shown.page.click("td button:has-text('同意')")
        await shown.page.click("dialog button[type=submit]")
        await shown.page.wait_for_selector("dialog a[href='/console/grants/g8']")
        assert shown.sent[-1].revision == "4"


async def test_the_buttons_of_a_wide_table_are_in_the_window(browser: Any) -> None:
    """Acknowledging an alarm needs no scrolling to the side."""
    alarm = ALARM | {"state": "open", "device": "gauge-4401-0058-of-the-northern-reservoir", "title": "PM2.5 偏高"}
    answers: dict[str, Any] = {"/api/v1/alarms*": {"rows": [alarm]}, "/api/v1/alarm-rules*": {"rows": []}}
    async with drawn(browser, "alarms", answers, language="en-US", width=1280) as shown:
        button = shown.page.locator("td button:has-text('Acknowledge')")
        await button.wait_for()
        box = await button.bounding_box()
        assert box["x"] + box["width"] <= 1280 - 30
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        hit = "(at) => document.elementFromPoint(at.x, at.y).innerText"
        assert await shown.page.evaluate(hit, point) == "Acknowledge"


async def test_a_device_that_was_refused_says_why(browser: Any) -> None:
    """The reason, when, from where and how often, in the language of the page."""
    refusal = {"time": BEGIN, "operation": "connect", "detail": "wrong password", "address": "192.0.2.7", "count": 9}
    present = OF_DEVICE["/api/v1/devices/air-1"] | {"last_refused": refusal}
    async with drawn(browser, "devices/air-1", OF_DEVICE | {"/api/v1/devices/air-1": present}) as shown:
        fact = shown.page.locator(".facts div:has(dt:text-is('最近一次被拒')) dd")
        await fact.wait_for()
        text = await fact.inner_text()
        assert "连接: 密码错误" in text
        assert "192.0.2.7 （网关启动以来 9 次）" in text
    async with drawn(browser, "devices/air-1", OF_DEVICE) as shown:
        assert "最近一次被拒" not in await shown.text()


async def test_the_newest_of_the_quarantine_are_read_in_chinese(browser: Any) -> None:
    """The page of a device asks for the newest, translates why, and says where the search has ended."""
    message = {"entry": "7.0", "reason": "unknown_device", "received": BEGIN, "payload": "{}", "topic": "acme/up"}
    message |= {"detail": "its profile is 'acme/th10', not 'acme/th20'"}
    page = {"rows": [message], "searched_to": BEGIN}
    answers = OF_DEVICE | {"/api/v1/quarantine*": {"rows": []}, "/api/v1/quarantine*order=desc*": page}
    async with drawn(browser, "devices/air-1", answers) as shown:
        await shown.page.wait_for_selector("li:has-text('其物模型为“acme/th10”，而非“acme/th20”')")
        assert await shown.page.locator("p:has-text('已查至') time").count() == 1
        link = shown.page.locator(".card a[href^='/console/quarantine?']")
        assert "device=air-1" in str(await link.get_attribute("href"))
