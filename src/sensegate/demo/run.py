"""`sensegate demo`: centre, nodes, devices, injected faults, judge, live table, summary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from sensegate.demo import memory, screen
from sensegate.demo.city import City, CityMember
from sensegate.demo.memory import MemoryUsage
from sensegate.demo.setup import DEADLINE_S, MANY_NODES, DemoWorkers, Options, lay_out_city, proof_directory, set_up
from sensegate.demo.summary import Summary, by_reason, duplicates, member_address, sum_ledgers, with_verdict
from sensegate.demo.workers import Worker
from sensegate.errors import EngineError, Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse
from sensegate.wording import count

REFRESH_S = 1.0
LINES_S = 10.0
"""Interval of status lines where no terminal shows the table."""
UPLINK_S = 30.0
CUT_FROM, CUT_SHARE = 0.35, 0.2
"""Share of the run after which the link is cut, and share for which it stays cut."""
CUT_EVERY_S, CUT_FOR_S = 120.0, 15.0
"""The same for a run without an end."""
MEASURE_S = 10.0


@dataclass
class Demo:
    """A running demo."""

    options: Options
    console: Console
    city: City
    summary: Summary
    workers: DemoWorkers
    ledgers: dict[str, dict[str, int]] = field(default_factory=dict)
    balanced: dict[str, bool] = field(default_factory=dict)
    memory: MemoryUsage = field(default_factory=MemoryUsage)

    # ── run ────────────────────────────────────────────────────────────────────────────────

    @property
    def camera_status(self) -> Mapping[str, Any]:
        """Status of the camera simulator, empty without cameras."""
        return {} if self.workers.cameras is None else self.workers.cameras.status

    async def measure(self) -> None:
        """Measure the memory of all processes."""
        members = self.city.members
        workers = [worker.pid for worker in (*self.workers.simulators, self.workers.judge)]
        self.memory = await asyncio.to_thread(
            memory.measure,
            [member.process.pid for member in members],
            [member.engine_pid for member in members],
            [os.getpid(), self.city.reaper_pid, *workers],
            self.memory,
        )

    async def measure_periodically(self) -> None:
        """Measure periodically until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_S)

    async def read_ledgers(self) -> None:
        """Read the ledger of each node; a node that does not answer keeps its last one."""
        for node in self.city.nodes.values():
            with contextlib.suppress(Unavailable, ProblemResponse):
                self.ledgers[node.division], self.balanced[node.division] = await _ledger(node)

    def refresh(self) -> None:
        """Update the summary and write it."""
        totals = sum_ledgers(list(self.ledgers.values()))
        self.summary = msgspec.structs.replace(
            self.summary,
            centre=member_address(self.city.centre, {}, balanced=self.summary.centre.balanced),
            nodes=[
                member_address(
                    node,
                    self.ledgers.get(node.division, {}),
                    balanced=self.balanced.get(node.division, True),
                )
                for node in self.city.nodes.values()
            ],
            committed=totals.get("accepted", 0),
            duplicates=duplicates(totals),
            quarantined=by_reason(totals, "quarantined"),
            rejected=by_reason(totals, "rejected"),
            forwarded=totals.get("forwarded", 0),
            withheld=by_reason(totals, "withheld"),
            refused_by_centre=by_reason(totals, "refused_by_centre"),
            memory=self.memory,
        )
        if self.options.summary:
            self.summary.write(self.options.summary)

    async def update_table(self, live: Live) -> None:
        """Update the live table until cancelled."""
        pids: list[tuple[int, int]] = []
        while True:
            await self.read_ledgers()
            now = [(member.process.pid, member.engine_pid) for member in self.city.members]
            if now != pids:
                pids = now
                self.refresh()
            links = {division: link.is_up for division, link in self.city.links.items()}
            status = self.workers.simulator.status, self.workers.judge.status
            width = self.console.width
            live.update(screen.live_table(self.ledgers, *status, links, self.camera_status, width=width))
            await asyncio.sleep(REFRESH_S * max(1.0, self.options.nodes / MANY_NODES))

    async def cut_link(self) -> None:
        """Cut the last node's link to the centre for a while: once in a timed run, otherwise repeatedly."""
        division, link = list(self.city.links.items())[-1]
        timed = self.options.for_s
        before_s = CUT_EVERY_S if timed is None else timed * CUT_FROM
        cut_s = CUT_FOR_S if timed is None else timed * CUT_SHARE
        while True:
            await asyncio.sleep(before_s)
            self.console.print(f"link of node {division} is cut for {cut_s:.0f} s")
            await link.cut()
            await asyncio.sleep(cut_s)
            link.restore()
            self.console.print(f"link of node {division} is restored")
            if timed is not None:
                return

    # ── end ──────────────────────────────────────────────────────────────────────────────────────

    async def finish(self) -> Summary:
        """Let everything arrive, wait for the verdict, read the ledgers; return the complete summary."""
        for worker in self.workers.simulators:
            worker.send_command(stop=True)
        for worker in self.workers.simulators:
            await worker.wait(DEADLINE_S)
        code = await self.workers.judge.wait(2 * DEADLINE_S)
        if code not in (0, 1):
            raise EngineError(f"the judge failed: {self.workers.judge.stderr_tail()}")
        verdict = json.loads((proof_directory(self.city) / "verdict.json").read_text(encoding="utf-8"))
        await self.settle()
        await self.measure()
        totals = sum_ledgers(list(self.ledgers.values()))
        self.summary = with_verdict(self.summary, verdict, totals)
        centre_balanced = (await _ledger(self.city.centre))[1]
        self.summary = msgspec.structs.replace(
            self.summary,
            centre=msgspec.structs.replace(self.summary.centre, balanced=centre_balanced),
            balanced=centre_balanced and all(self.balanced.values()) and all(map(_is_forwarded, self.ledgers.values())),
        )
        self.refresh()
        return self.summary

    async def settle(self) -> None:
        """Wait until each node's ledger shows everything forwarded or withheld, at most for `UPLINK_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UPLINK_S):
                while True:
                    await self.read_ledgers()
                    if len(self.ledgers) == len(self.city.nodes) and all(map(_is_forwarded, self.ledgers.values())):
                        return
                    await asyncio.sleep(0.3)


def _is_forwarded(totals: Mapping[str, int]) -> bool:
    """Return whether everything accepted has been forwarded, withheld or refused by the centre."""
    carried = totals.get("forwarded", 0)
    carried += sum(count for name in ("withheld", "refused_by_centre") for count in by_reason(totals, name).values())
    return totals.get("accepted", 0) == carried


async def _ledger(member: CityMember) -> tuple[dict[str, int], bool]:
    """Return a member's totals since its log began, and whether they balance."""
    async with GatewayClient(member.url, member.token) as remote:
        answer: dict[str, Any] = await remote.get("/api/v1/ledger", since="400d")
    return answer["totals"], bool(answer["balanced"])


@asynccontextmanager
async def _stop_on_signals(wanted: asyncio.Event) -> AsyncIterator[None]:
    """Set an event on SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, wanted.set)
    try:
        yield
    finally:
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)


async def run_demo(options: Options, console: Console) -> int:
    """Run the demo; return the exit code: 1 if anything was lost, doubled or unaccounted for."""
    running: list[Demo] = []
    started: list[Worker] = []

    def changed() -> None:
        for demo in running:
            demo.refresh()

    city = lay_out_city(options, changed)
    stop = asyncio.Event()
    failed = True
    try:
        async with _stop_on_signals(stop):
            console.print(
                f"starting a centre and {count(options.nodes, 'node')} (about {10 + 5 * options.nodes} s) …",
                highlight=False,
            )
            starting = asyncio.create_task(_start(options, console, city, started), name="start")
            if not await _wait_either(starting, stop, None):
                return 130
            demo = starting.result()
            running.append(demo)
            demo.refresh()
            screen.print_addresses(demo.summary, console)
            await _run(demo, stop)
            if options.for_s is None:
                failed = False
                console.print("ending all processes …")
                return 0
            stop.clear()
            console.print("time is up; waiting for all sent messages to arrive, then judging …")
            ending = asyncio.create_task(demo.finish(), name="finish")
            if not await _wait_either(ending, stop, None):
                return 130
            summary = ending.result()
            screen.print_result(summary, console)
            failed = summary.failed
            return 1 if failed else 0
    finally:
        for worker in started:
            await worker.stop()
        if failed and options.for_s is not None and running and city.temporary:
            city.temporary = False
            console.print(f"directory kept for inspection: {city.directory}", highlight=False)
        await city.stop()


async def _start(options: Options, console: Console, city: City, started: list[Worker]) -> Demo:
    await city.start()
    subjects = f"{count(options.devices, 'device')} and {count(options.cameras, 'camera')}"
    console.print(f"all gateways are ready; registering {subjects} …", highlight=False)
    summary, demo_workers = await set_up(options, city, started)
    return Demo(options, console, city, summary, demo_workers)


async def _wait_either(task: asyncio.Task[Any], stop: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for a task, a stop or a timeout; return whether the task has ended, and cancel it otherwise."""
    waiting = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([task, waiting], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


async def _run(demo: Demo, stop: asyncio.Event) -> None:
    """Run for the given time, or until stopped."""
    tasks: list[asyncio.Task[None]] = []
    with Live(console=demo.console, auto_refresh=False, transient=not demo.console.is_terminal) as live:
        live.auto_refresh = False
        tasks.append(asyncio.create_task(_keep_drawing(demo, live), name="watch"))
        tasks.append(asyncio.create_task(demo.measure_periodically(), name="memory"))
        if demo.options.cut:
            tasks.append(asyncio.create_task(demo.cut_link(), name="cut"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), demo.options.for_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for link in demo.city.links.values():
        link.restore()


async def _keep_drawing(demo: Demo, live: Live) -> None:
    """Draw the table on a terminal; elsewhere print status lines periodically."""
    drawing = asyncio.create_task(demo.update_table(live), name="ledgers")
    terminal = demo.console.is_terminal
    try:
        while not drawing.done():
            await asyncio.sleep(REFRESH_S / 2 if terminal else LINES_S)
            if terminal:
                live.refresh()
            else:
                status = demo.workers.simulator.status, demo.workers.judge.status
                for line in screen.status_lines(*status, demo.camera_status):
                    demo.console.print(line, highlight=False)
        drawing.result()
    finally:
        drawing.cancel()
