"""The console over 100,000 devices and 30 days of history in Chromium: each page to interactive, sizes, 50 consoles.

A gateway of its own process is filled (`console_fill`; two to three minutes on two quiet cores). One browser opens each
page as a first visit (nothing cached) and measures until it has drawn what it asked for. What one open console asks for
is recorded and repeated for 50 of them. `SENSEGATE_DEVICES` gives another number of devices, `SENSEGATE_PAGES` the
addresses of some pages only, separated by blanks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from sensegate.bus.free_ports import free_port
from sensegate.demo.processes import Reaper, die_with_parent, sweep
from tests.bench import rig
from tests.bench.console_fill import Filled
from tests.support.chromium import CHROMIUM, OPTIONS

VISITS: Final = 3
CONSOLES: Final = 50
WATCHED_S: Final = 15.0
IDLE_S: Final = 5.0
FILLED_S: Final = 600.0
QUIET_S: Final = 120.0
QUIET_SHARE: Final = 0.15
"""Share of a core below which a gateway is taken to have no work left over."""
GOAL_S: Final = 1.0
LIST_BYTES: Final = 50_000
CORE_SHARE: Final = 0.1
DEVICES: Final = int(os.environ.get("SENSEGATE_DEVICES", "100000"))
PAGES: Final = (
    tuple(os.environ["SENSEGATE_PAGES"].split())
    if "SENSEGATE_PAGES" in os.environ
    else (
        "",
        "?scope=440106",
        "devices",
        "devices?q=m0999",
        "devices?sort=-last_seen",
        "devices?sort=name",
        "devices?state=silent",
        "devices/m000001",
        "devices/m000001?span=30d",
        "map",
        "video",
        "survey",
        "survey?gap=owner",
        "labels",
        "alarms",
        "records",
        "quarantine",
        "profiles",
        "feeds",
        "catalogue",
        "applications",
        "grants",
        "subscribers",
        "quality",
        "quality?since=24h",
        "quality?since=24h&sort=completeness",
        "assessment",
        "assessment?by=profile",
        "nodes",
        "tasks",
        "modes",
        "channels",
        "people",
        "tokens",
        "audit",
        "settings",
        "system",
    )
)
LISTS: Final = ("devices", "alarms", "quarantine", "profiles", "feeds", "catalogue", "quality", "nodes", "tokens")
DRAWN: Final = """() => document.querySelector("main h1") && !document.querySelector(".loading")
    && (!location.search.includes("span=") || document.querySelector(".chart canvas"))"""
DENSITY: Final = """() => {
    const points = document.querySelector(".chart").getAttribute("aria-label").match(/\\d+/g).at(-1);
    return Number(points) / document.querySelector(".chart .u-over").clientWidth;
}"""
"""Points of the chart a pixel of its plot."""


class PageVisit(msgspec.Struct, frozen=True):
    """Visits to one page."""

    page: str
    median_s: float
    bytes: int
    """What was transferred in a visit, compressed as the gateway sends it."""
    cpu_s: float
    """Processor time of the gateway and its server for a visit."""


@contextlib.asynccontextmanager
async def served(directory: Path, devices: int) -> AsyncIterator[tuple[Process, Filled]]:
    """Yield a filled gateway: its process, and what it was filled with."""
    file = directory / "sensegate.yaml"
    text = f'role: node\ndivision: "4401"\ndirectory: {directory / "node"}\nprofiles: [{rig.ROOT}/device_profiles]\n'
    text += f"history: {{enabled: true}}\nweb: {{port: {free_port()}}}\nlisten: {{mqtt: {{processes: 0}}}}\n"
    await asyncio.to_thread(file.write_text, text, encoding="utf-8")
    # Should this process be killed, neither the gateway nor its server is left behind.
    reaper = Reaper(directory, remove=True)
    await reaper.start()
    processes: list[Process] = []

    async def started(*arguments: str) -> Filled:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.console_fill",
            *(str(file), str(devices), *arguments),
            cwd=rig.ROOT,
            stdout=PIPE,
            preexec_fn=die_with_parent,
        )
        processes.append(process)
        assert process.stdout
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the gateway could not be filled; see above")
        return msgspec.json.decode(line, type=Filled)

    try:
        async with asyncio.timeout(FILLED_S):
            # In two processes, so that the memory of the second is that of a gateway.
            begun = await started()
            await processes[0].wait()
            filled = await started(msgspec.json.encode(begun).decode())
        yield processes[-1], filled
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.to_thread(sweep, directory, grace_s=0.0)
        await reaper.finish()


async def visits(
    browser: Any, url: str, token: str, pids: list[int], pages: Sequence[str]
) -> tuple[list[PageVisit], float]:
    """Open pages some times; return what it took, and points a pixel."""
    rows, density = [], 0.0
    for path in pages:
        times, sizes, used = [], [], cpu_s(*pids)
        for _ in range(VISITS):
            context = await browser.new_context(viewport={"width": 1440, "height": 900}, locale="zh-CN")
            await context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
            page = await context.new_page()
            began = time.perf_counter()
            await page.goto(f"{url}/console/{path}", wait_until="commit")
            await page.wait_for_function(DRAWN)
            times.append(time.perf_counter() - began)
            size = "performance.getEntriesByType('resource').reduce((sum, entry) => sum + entry.transferSize, 0)"
            sizes.append(await page.evaluate(size))
            if "span=" in path:
                density = await page.evaluate(DENSITY)
            await context.close()
        used = round((cpu_s(*pids) - used) / VISITS, 3)
        rows.append(PageVisit(path, round(statistics.median(times), 3), int(statistics.median(sizes)), used))
    return rows, round(density, 2)


async def requests_of(browser: Any, url: str, token: str, watched_s: float) -> list[str]:
    """Return what one open console asks for in `watched_s`."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
    page = await context.new_page()
    await page.goto(f"{url}/console/")
    await page.wait_for_function(DRAWN)
    requests: list[str] = []
    page.on(
        "request",
        lambda request: requests.append(request.url) if "/api/" in request.url or "ready" in request.url else None,
    )
    await page.wait_for_timeout(watched_s * 1_000)
    await context.close()
    return requests


def cpu_s(*pids: int) -> float:
    """Return the processor time of processes."""
    return sum(map(rig.cpu_s, pids))


async def quiet(pids: list[int]) -> None:
    """Wait until the gateway has written and merged the history of what it was filled with, two minutes at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET_S):
            used = QUIET_SHARE
            while used >= QUIET_SHARE:
                before = cpu_s(*pids)
                await asyncio.sleep(3.0)
                used = (cpu_s(*pids) - before) / 3.0


async def repeated(paths: list[str], token: str, watched_s: float) -> None:
    """Ask for what `CONSOLES` open consoles ask for in `watched_s`, spread evenly."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def ask(url: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            async with session.get(url) as response:
                await response.read()

        step = watched_s / max(len(paths) * CONSOLES, 1)
        await asyncio.gather(
            *(ask(paths[number % len(paths)], number * step) for number in range(len(paths) * CONSOLES))
        )


async def bench(devices: int = DEVICES, pages: Sequence[str] = PAGES, watched_s: float = WATCHED_S) -> dict[str, Any]:
    """Measure; the figure is the median of the slowest page in seconds."""
    from playwright.async_api import async_playwright

    directory = Path(tempfile.mkdtemp(prefix="sensegate-bench-"))
    try:
        began = time.perf_counter()
        async with served(directory, devices) as (process, filled):
            filled_s = time.perf_counter() - began
            token = (directory / "node" / "admin.token").read_text(encoding="ascii").strip()
            pids = [process.pid, *rig.children(process.pid)]
            await quiet(pids)
            memory = {"gateway": round(rig.rss_mb(pids[0])), "engine": round(sum(map(rig.rss_mb, pids[1:])))}
            async with async_playwright() as play:
                browser = await play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
                rows, density = await visits(browser, filled.http, token, pids, pages)
                requests = await requests_of(browser, filled.http, token, watched_s)
                await browser.close()
            sizes = {path: await _list_bytes(filled.http, token, path) for path in LISTS}
            idle = cpu_s(*pids)
            await asyncio.sleep(IDLE_S)
            idle = (cpu_s(*pids) - idle) / IDLE_S
            before, began = cpu_s(*pids), time.perf_counter()
            await repeated(requests, token, watched_s)
            share = (cpu_s(*pids) - before) / (time.perf_counter() - began) - idle
            memory["gateway_after"] = round(rig.rss_mb(pids[0]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    worst = max(rows, key=lambda row: row.median_s)
    return {
        "figure": worst.median_s,
        "unit": "s, median of the slowest page from request to drawn",
        "goal": GOAL_S,
        "slowest": worst.page or "overview",
        "pages": len(rows),
        "over_goal": [f"{row.page or 'overview'} {row.median_s}" for row in rows if row.median_s > GOAL_S],
        "median_of_pages_s": statistics.median(row.median_s for row in rows),
        "by_page": {row.page or "overview": [row.median_s, row.bytes, row.cpu_s] for row in rows},
        "bytes_max": max(row.bytes for row in rows),
        "devices": devices,
        "readings": filled.readings,
        "filled_s": round(filled_s, 1),
        "filled_parts_s": {
            name: round(getattr(filled, f"{name}_s"), 1) for name in ("registered", "days", "made", "hours")
        },
        "memory_mb": memory,
        "list_bytes_max": max(sizes.values()),
        "list_bytes_goal": LIST_BYTES,
        "points_per_pixel": density,
        "consoles": CONSOLES,
        "requests_a_console_s": round(len(requests) / watched_s, 2),
        "core_share": round(share, 3),
        "core_share_goal": CORE_SHARE,
    }


async def _list_bytes(url: str, token: str, path: str) -> int:
    """Return the size of the first paint of a list, as HTML."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/console/{path}", headers=headers) as response:
        return len(await response.read())
