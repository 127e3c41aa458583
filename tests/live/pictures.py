"""Make the pictures of `deploy/console.md` from a running demo: `python -m tests.live.pictures`, some four minutes.

Starts the demo, gives some devices of its first node a place, and photographs pages of the centre and of the node in
both languages with Chromium, as WebP.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from sensegate.web.client import GatewayClient
from tests.conftest import eventually
from tests.support.chromium import CHROMIUM, OPTIONS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "console"
DOCUMENT = ROOT / "deploy" / "console.md"
QUALITY = 45
WIDTH, HEIGHT = 1180, 760
TALL = {"overview": 1500, "device": 1900}
"""Name -> height of pictures that show a whole page."""
BYTES_MAX = 1_600_000
LANGUAGES = {"en": "en-US", "zh": "zh-CN"}
START_S = 600.0
PICTURES = (
    (
        "centre",
        "overview",
        "",
        "What needs you now, where the data went, cities, score",
        "总览：待办、数据去向、地市、得分",
    ),
    ("centre", "nodes", "nodes", "Nodes: lag, load, clock, release", "节点：积压、负载、时钟、版本"),
    ("node", "devices", "devices", "Devices: find, filter, import, last seen", "感知设备：查找、筛选、导入、最近上线"),
    ("node", "device", "device", "A device: values, series, messages, changes", "单台设备：数值、序列、消息、变更"),
    ("node", "map", "map", "Map without a base map: no boundaries are drawn", "无底图的地图：不绘制任何界线"),
    ("node", "survey", "survey", "Components and what the registry lacks", "城市部件摸查：部件及登记缺项"),
    ("node", "labels", "labels", "Labels with QR codes, for printing", "带二维码的设备标签"),
    ("node", "alarms", "alarms", "Alarms and their rules", "告警与规则"),
    ("node", "channels", "channels", "Where alarms are delivered", "告警送达渠道"),
    ("node", "quarantine", "quarantine", "Quarantine by shape and reason", "隔离区：按形态与原因"),
    ("node", "profiles", "profiles", "Profiles with versions and canaries", "物模型：版本与灰度"),
    ("node", "video", "video", "Video: counts and flows, nothing personal", "视频：计数与流量，无个人信息"),
    ("node", "assessment", "assessment", "Assessment of a month with its score", "月度质量考核与得分"),
    ("centre", "feeds", "feeds", "Feeds", "数据流"),
    ("node", "modes", "modes", "Emergency plans and orders", "应急预案与启用令"),
    ("node", "subscribers", "subscribers", "Subscribers with lag and use", "订阅方：积压与用量"),
    ("centre", "system", "system", "The store, the disk and who is connected", "系统：存储、磁盘与连接"),
    ("node", "settings", "settings", "Settings in force with their origin", "生效设置及其来源"),
)
"""(gateway, name, path, caption, caption in Chinese)."""


async def main() -> int:
    """Make the pictures and the page; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [sys.executable, "-m", "sensegate.cli", "demo", "--nodes", "2", "--devices", "120", "--cameras", "8"]
        command += ["--rate", "40", "--no-cut", "--summary", str(summary)]
        demo = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            await eventually(lambda: summary.exists() or demo.returncode is not None, START_S, every_s=0.5)
            if demo.returncode is not None:
                print("the demo could not be started; see above")
                return 1
            document = json.loads(summary.read_text(encoding="utf-8"))
            sizes = await photograph(document)
        finally:
            if demo.returncode is None:
                demo.terminate()
                await demo.wait()
    total = sum(sizes)
    print(f"{len(sizes)} pictures, {total:,} bytes")
    DOCUMENT.write_text(page_text(dt.datetime.now(dt.UTC).date()), encoding="utf-8")
    return int(total > BYTES_MAX)


async def photograph(summary: dict[str, Any]) -> list[int]:
    """Take all pictures of a demo; return their sizes."""
    node = summary["nodes"][0]
    tokens = {file.parent: file.read_text().strip() for file in Path(summary["directory"]).rglob("admin.token")}
    gateways: dict[str, tuple[str, str]] = {}
    for name, url in (("centre", summary["centre"]["http"]), ("node", node["http"])):
        for token in tokens.values():
            async with GatewayClient(url, token) as remote:
                if await remote.get("/api/v1/feeds", limit="1") is not None:
                    gateways[name] = url, token
                    break
    device = await prepare(*gateways["node"])
    FOLDER.mkdir(exist_ok=True)
    sizes: list[int] = []
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for language, locale in LANGUAGES.items():
            context = await browser.new_context(
                locale=locale, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
            )
            page = await context.new_page()
            for gateway, (url, token) in gateways.items():
                await page.goto(f"{url}/console/")
                await page.fill("#token", token)
                await page.click("#tokenForm button")
                await page.wait_for_selector("nav")
                for of, name, path, _, _ in PICTURES:
                    if of == gateway:
                        address = f"devices/{device}" if path == "device" else path
                        file = FOLDER / f"{name}-{language}.webp"
                        height = TALL.get(name, HEIGHT)
                        sizes.append(await picture(page, f"{url}/console/{address}", file, height=height))
        await browser.close()
    return sizes


async def prepare(url: str, token: str) -> str:
    """Give devices of a node places, write a channel, and wait for readings; return the id of a device with values."""
    random.seed(1)
    async with GatewayClient(url, token) as remote:
        devices = (await remote.get("/api/v1/devices", limit="60"))["rows"]
        for device in devices[:50]:
            place = {"lon": round(113.2 + random.random() * 0.3, 5), "lat": round(23.05 + random.random() * 0.2, 5)}
            owner = {"owner": "市城市管理局"} if random.random() < 0.7 else {}
            await remote.patch(f"/api/v1/devices/{device['id']}", {**place, **owner}, device["revision"])
        robot = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=demo"
        channel = {"kind": "wecom", "url": robot, "severity": "major", "on_call": "张三 (duty)", "enabled": False}
        await remote.put("/api/v1/alarm-channels/duty", channel)
        plan = {"title": "防汛应急 (flood)", "place": "4401", "hours_max": 24, "shed": ["pm2_5", "pm10"]}
        await remote.put("/api/v1/emergency-plans/flood", plan)

        async def with_values() -> str:
            for device in (row for row in devices if not row["id"].isdigit()):  # no camera: its messages are long
                rows = (await remote.get(f"/api/v1/devices/{device['id']}/latest"))["rows"]
                if any(isinstance(row["value"], float) for row in rows):
                    return str(device["id"])
            return ""

        result: str = await eventually(with_values, START_S, every_s=1.0)

        async def is_lively() -> bool:
            ledger = await remote.get("/api/v1/ledger", since="1h")
            return bool(ledger["totals"].get("accepted", 0) > 2_000)

        await eventually(is_lively, START_S, every_s=1.0)
    return result


async def picture(page: Page, address: str, file: Path, *, height: int = HEIGHT) -> int:
    """Photograph a page as WebP; return the size of the file."""
    await page.set_viewport_size({"width": WIDTH, "height": height})
    await page.goto(address)
    await page.wait_for_selector("main h1")
    await page.wait_for_selector(".loading", state="detached")
    await page.wait_for_load_state("networkidle")
    session = await page.context.new_cdp_session(page)
    shot = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    file.write_bytes(base64.b64decode(shot["data"]))
    return file.stat().st_size


def page_text(day: dt.date) -> str:
    """Return the page of pictures."""
    lines = [
        "# The console in pictures · 控制台图览",
        "",
        f"Made by `python -m tests.live.pictures` on {day} from a demo (a centre, two nodes, simulated devices).",
        f"{day} 由演示环境自动截取，中英文各一。",
        "",
    ]
    for gateway, name, _, caption, caption_zh in PICTURES:
        place = "at the centre" if gateway == "centre" else "at a node"
        lines += [f"## {caption} · {caption_zh}", "", f"({place})", ""]
        lines += [f"![{caption}](console/{name}-en.webp)", f"![{caption_zh}](console/{name}-zh.webp)", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
