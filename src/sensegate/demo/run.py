"""`sensegate demo`: centre, nodes, devices, faults, judge, live table, summary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live

from sensegate.demo import cameras, crew, memory, screen
from sensegate.demo.cameras import CameraPlan, Place, Watcher
from sensegate.demo.city import City, Member
from sensegate.demo.enrol import (
    BOTH,
    CITIES,
    cameras_by_hand,
    counties,
    enrol,
    enrol_by_hand,
    enrol_cameras,
    subscriber,
)
from sensegate.demo.fleet import KINDS, Simulated, fleet
from sensegate.demo.memory import Memory
from sensegate.demo.simulator import Broker, Plan
from sensegate.demo.summary import Summary, Tokens, added, address, duplicates, family, judged
from sensegate.errors import ConfigError, EngineError, Lost
from sensegate.web.client import Answered, Remote
from sensegate.wording import count

FEED = "all"
REFRESH_S = 1.0
LINES_S = 10.0
"""How often there is news where no terminal shows the table."""
SETTLE_S = 2.0
CAMERA_RATE = 0.4
"""Good messages of a camera a second."""
DEADLINE_S = 90.0
UPLINK_S = 30.0
CUT_FROM, CUT_SHARE = 0.35, 0.2
"""The link is cut after this share of the run, for this share of it."""
CUT_EVERY_S, CUT_FOR_S = 120.0, 15.0
"""The same where the run has no end."""
MEASURE_S = 10.0
MANY = 4
"""With more nodes than this the machine is shared by so many that each is set to idle well."""
OF_MANY: dict[str, object] = {"ingest": {"commit_interval_ms": 1_000}}
"""48 messages a second would else make 20 commits a second at each of 21 nodes; for each the server makes a directory
and five files, and deletes them. A span goes up for each commit: to wait for fuller ones would only delay it."""
COUNTIES_OF_MANY = 3
"""A commit has a member for each county of which there is a reading."""
ONE_CORE = {"GOMAXPROCS": "1", "GOMEMLIMIT": "96MiB", "OPENBLAS_NUM_THREADS": "1"}
DEVICES_LEAST = 12
"""Of each node: one of every kind, and some for the faults."""
PROFILES = Path(__file__).parents[3] / "device_profiles"


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    for_s: float | None = None
    nodes: int = 2
    devices: int = 120
    """Simulated, all nodes together."""
    cameras: int = 50
    """Of all nodes together."""
    rate: float = 200.0
    """Messages a second, all nodes together."""
    summary: Path | None = None
    data: Path | None = None
    seed: int = 1
    cut: bool = True
    centre_http_port: int = 0
    """Fixed by a test that puts a proxy before it."""
    judge_url: str = ""
    """Where the judge reads instead of the centre itself (a test's proxy)."""
    deadline_s: float = DEADLINE_S
    """Longest wait for the last readings."""


@dataclass
class Demo:
    """A demo while it runs."""

    options: Options
    console: Console
    city: City
    ledgers: dict[str, dict[str, int]] = field(default_factory=dict)
    balanced: dict[str, bool] = field(default_factory=dict)
    summary: Summary | None = None
    simulator: crew.Worker | None = None
    cameras: crew.Worker | None = None
    judge: crew.Worker | None = None
    memory: Memory = field(default_factory=Memory)

    # ── setting up ───────────────────────────────────────────────────────────────────────────────────

    async def set_up(self) -> None:
        """Register devices and tokens, start the judge and the simulator."""
        rng = random.Random(self.options.seed)  # noqa: S311 - repeatable on purpose
        devices: list[Simulated] = []
        hand = []
        for node, share in zip(self.city.nodes.values(), _shares(self.options), strict=True):
            places = counties(node.division)
            if self.options.nodes > MANY:
                places = places[:COUNTIES_OF_MANY]
            wanted = fleet(node.division, share, counties=places, rng=rng)
            devices += await enrol(node, wanted, rng)
            hand += await enrol_by_hand(node)
        watchers, by_hand = await self._enrol_cameras(rng)
        token = await subscriber(self.city.centre)
        centre = self.city.centre
        self.summary = Summary(
            centre=address(centre, {}, balanced=True),
            nodes=[address(node, {}, balanced=True) for node in self.city.nodes.values()],
            tokens=Tokens(admin=centre.token, subscriber=token),
            devices=hand,
            cameras=by_hand,
            feeds=[FEED],
            console=f"{centre.url}/",
            directory=str(self.city.directory),
            seed=self.options.seed,
            simulated=len(devices),
        )
        self.judge = crew.judge(
            self.directory,
            {"centre": (centre, token, "")},
            feed=FEED,
            urls={"centre": self.options.judge_url} if self.options.judge_url else None,
            settle_s=SETTLE_S,
            deadline_s=self.options.deadline_s,
            simulators=1 + bool(watchers),
        )
        plan = Plan(
            run=secrets.token_hex(4),
            ledger=str(self.directory / "simulator.ledger"),
            seed=self.options.seed,
            rate=self.options.rate,
            brokers={node.division: Broker("127.0.0.1", node.mqtt_port) for node in self.city.nodes.values()},
            devices=devices,
        )
        self.simulator = crew.simulator(self.directory, plan)
        await self.judge.start()
        await self.simulator.start()
        if watchers:
            self.cameras = crew.cameras(self.directory, self._camera_plan(watchers))
            await self.cameras.start()

    async def _enrol_cameras(self, rng: random.Random) -> tuple[list[Watcher], list[dict[str, str]]]:
        """Register the cameras; return those of the simulator, and those to try things with."""
        watchers: list[Watcher] = []
        by_hand: list[dict[str, str]] = []
        nodes = list(self.city.nodes.values())
        for at, node in enumerate(nodes):
            share = (self.options.cameras + at) // len(nodes)
            if share:
                wanted = cameras.fleet(node.division, share, counties=counties(node.division), rng=rng, first=at)
                watchers += await enrol_cameras(node, wanted, rng)
                by_hand += await cameras_by_hand(node)
        return watchers, by_hand

    def _camera_plan(self, watchers: list[Watcher]) -> CameraPlan:
        here = "127.0.0.1"
        return CameraPlan(
            run=secrets.token_hex(4),
            ledger=str(self.directory / "cameras.ledger"),
            seed=self.options.seed,
            rate=len(watchers) * CAMERA_RATE,
            places={
                node.division: Place(
                    Broker(here, node.mqtt_port), Broker(here, node.viid_port), Broker(here, node.http_port)
                )
                for node in self.city.nodes.values()
            },
            cameras=watchers,
        )

    @property
    def simulators(self) -> list[crew.Worker]:
        """Those that run."""
        return [worker for worker in (self.simulator, self.cameras) if worker is not None]

    @property
    def directory(self) -> Path:
        """Where the files of simulator and judge are."""
        path = self.city.directory / "proof"
        path.mkdir(exist_ok=True, mode=0o700)
        return path

    # ── while it runs ────────────────────────────────────────────────────────────────────────────────

    async def measure(self) -> None:
        """Look at the memory of all processes."""
        members = self.city.members
        workers = [worker.pid for worker in (self.simulator, self.cameras, self.judge) if worker is not None]
        self.memory = await asyncio.to_thread(
            memory.measured,
            [member.child.pid for member in members],
            [member.engine_pid for member in members],
            [os.getpid(), self.city.warden_pid, *workers],
            self.memory,
        )

    async def keep_measuring(self) -> None:
        """Measure now and then, until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_S)

    async def read_ledgers(self) -> None:
        """Ask each node for its ledger; one that does not answer keeps its last."""
        for node in self.city.nodes.values():
            with contextlib.suppress(Lost, Answered):
                self.ledgers[node.division], self.balanced[node.division] = await _ledger(node)

    def refresh(self) -> None:
        """Bring the summary up to date and write it."""
        if self.summary is None:
            return
        totals = added(list(self.ledgers.values()))
        self.summary = msgspec.structs.replace(
            self.summary,
            centre=address(self.city.centre, {}, balanced=self.summary.centre.balanced),
            nodes=[
                address(
                    node,
                    self.ledgers.get(node.division, {}),
                    balanced=self.balanced.get(node.division, True),
                )
                for node in self.city.nodes.values()
            ],
            committed=totals.get("accepted", 0),
            duplicates=duplicates(totals),
            quarantined=family(totals, "quarantined"),
            rejected=family(totals, "rejected"),
            forwarded=totals.get("forwarded", 0),
            withheld=family(totals, "withheld"),
            refused_by_centre=family(totals, "refused_by_centre"),
            memory=self.memory,
        )
        if self.options.summary:
            self.summary.write(self.options.summary)

    async def watch(self, live: Live) -> None:
        """Keep the live table true, until cancelled."""
        assert self.simulator is not None  # noqa: S101 - set_up() has run
        assert self.judge is not None  # noqa: S101 - the same
        pids: list[tuple[int, int]] = []
        while True:
            await self.read_ledgers()
            now = [(member.child.pid, member.engine_pid) for member in self.city.members]
            if now != pids:
                pids = now
                self.refresh()
            links = {division: link.whole for division, link in self.city.links.items()}
            seen = self.cameras.status if self.cameras else {}
            width = self.console.width
            live.update(screen.live(self.ledgers, self.simulator.status, self.judge.status, links, seen, width=width))
            await asyncio.sleep(REFRESH_S * max(1.0, self.options.nodes / MANY))

    async def break_the_link(self) -> None:
        """Cut the last node's link to the centre for a while: once in a timed run, again and again else."""
        division, link = list(self.city.links.items())[-1]
        timed = self.options.for_s
        before_s = CUT_EVERY_S if timed is None else timed * CUT_FROM
        cut_s = CUT_FOR_S if timed is None else timed * CUT_SHARE
        while True:
            await asyncio.sleep(before_s)
            self.console.print(f"link of node {division} cut for {cut_s:.0f} s")
            await link.cut()
            await asyncio.sleep(cut_s)
            link.mend()
            self.console.print(f"link of node {division} whole again")
            if timed is not None:
                return

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────

    async def finish(self) -> Summary:
        """Let everything arrive, ask the judge, read the books; return the whole summary."""
        assert self.simulator is not None  # noqa: S101 - set_up() has run
        assert self.judge is not None  # noqa: S101 - the same
        assert self.summary is not None  # noqa: S101 - the same
        for worker in self.simulators:
            worker.order(stop=True)
        for worker in self.simulators:
            await worker.ended(DEADLINE_S)
        code = await self.judge.ended(2 * DEADLINE_S)
        if code not in (0, 1):
            raise EngineError(f"the judge could not judge: {self.judge.complaint()}")
        verdict = json.loads((self.directory / "verdict.json").read_text(encoding="utf-8"))
        await self.settle()
        await self.measure()
        totals = added(list(self.ledgers.values()))
        self.summary = judged(self.summary, verdict, totals)
        centre_balanced = (await _ledger(self.city.centre))[1]
        self.summary = msgspec.structs.replace(
            self.summary,
            centre=msgspec.structs.replace(self.summary.centre, balanced=centre_balanced),
            balanced=centre_balanced and all(self.balanced.values()) and all(map(_carried, self.ledgers.values())),
        )
        self.refresh()
        return self.summary

    async def settle(self) -> None:
        """Wait until each node's books show everything forwarded or withheld, or some time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UPLINK_S):
                while True:
                    await self.read_ledgers()
                    if len(self.ledgers) == len(self.city.nodes) and all(map(_carried, self.ledgers.values())):
                        return
                    await asyncio.sleep(0.3)


def _carried(totals: Mapping[str, int]) -> bool:
    """Tell whether all that was accepted has been forwarded or withheld."""
    carried = totals.get("forwarded", 0)
    carried += sum(count for name in ("withheld", "refused_by_centre") for count in family(totals, name).values())
    return totals.get("accepted", 0) == carried


async def _ledger(member: Member) -> tuple[dict[str, int], bool]:
    """Return a member's totals since its log began, and whether they balance."""
    async with Remote(member.url, member.token) as remote:
        answer: dict[str, Any] = await remote.get("/api/v1/ledger", since="400d")
    return answer["totals"], bool(answer["balanced"])


@asynccontextmanager
async def _told(wanted: asyncio.Event) -> AsyncIterator[None]:
    """Let SIGINT and SIGTERM set an event."""
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, wanted.set)
    try:
        yield
    finally:
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)


def _city(options: Options, changed: Callable[[], None]) -> City:
    if not PROFILES.exists():
        raise ConfigError("no device profiles", file=str(PROFILES), remedy="run the demo from a checkout")
    if options.nodes > len(CITIES):
        raise ConfigError(f"{options.nodes} nodes", remedy=f"the province has {len(CITIES)} cities")
    if options.devices < DEVICES_LEAST * options.nodes:
        least = DEVICES_LEAST * options.nodes
        raise ConfigError(f"{options.devices} devices", key="--devices", remedy=f"{least} or more for these nodes")
    many = options.nodes > MANY
    temporary = options.data is None
    directory = Path(tempfile.mkdtemp(prefix="sensegate-demo-")) if options.data is None else options.data
    city = City(
        directory,
        CITIES[: options.nodes],
        profiles=PROFILES,
        only=sorted({*(kind.profile for kind in KINDS.values()), *cameras.PROFILES.values(), BOTH}) if many else (),
        temporary=temporary,
        settings=OF_MANY if many else None,
        environment=ONE_CORE if many else None,
        cameras=options.cameras > 0,
        changed=changed,
    )
    if options.centre_http_port:
        city.centre.http_port = options.centre_http_port
    return city


def _shares(options: Options) -> list[int]:
    """Return how many of the devices each node gets."""
    each, more = divmod(options.devices, options.nodes)
    return [each + (place < more) for place in range(options.nodes)]


async def demonstrate(options: Options, console: Console) -> int:
    """Run the demo; return the exit code: 1 if anything was lost, doubled or not accounted for."""
    demo: Demo

    def changed() -> None:
        with contextlib.suppress(NameError):
            demo.refresh()

    city = _city(options, changed)
    demo = Demo(options, console, city)
    stop = asyncio.Event()
    guilty = True
    try:
        async with _told(stop):
            console.print(
                f"starting a centre and {count(options.nodes, 'node')} (some {10 + 5 * options.nodes} s) …",
                highlight=False,
            )
            starting = asyncio.create_task(_start(demo), name="start")
            if not await _either(starting, stop, None):
                return 130
            starting.result()
            assert demo.summary is not None  # noqa: S101 - _start() made it
            demo.refresh()
            screen.addresses(demo.summary, console)
            await _perform(demo, stop)
            if options.for_s is None:
                guilty = False
                console.print("ending all processes …")
                return 0
            stop.clear()
            console.print("time is up; waiting until all that was sent has arrived, then judging …")
            ending = asyncio.create_task(demo.finish(), name="finish")
            if not await _either(ending, stop, None):
                return 130
            summary = ending.result()
            screen.closing(summary, console)
            guilty = summary.guilty
            return 1 if guilty else 0
    finally:
        await _clear_up(demo, keep=guilty and options.for_s is not None and demo.summary is not None)


async def _start(demo: Demo) -> None:
    await demo.city.start()
    options = demo.options
    what = f"{count(options.devices, 'device')} and {count(options.cameras, 'camera')}"
    demo.console.print(f"all gateways are ready; registering {what} …", highlight=False)
    await demo.set_up()


async def _either(task: asyncio.Task[Any], stop: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for a task, a stop or a time; True if the task has ended. It is cancelled else."""
    waiting = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([task, waiting], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


async def _perform(demo: Demo, stop: asyncio.Event) -> None:
    """Let it run for its time, or until told to stop."""
    tasks: list[asyncio.Task[None]] = []
    with Live(console=demo.console, auto_refresh=False, transient=not demo.console.is_terminal) as live:
        live.auto_refresh = False
        tasks.append(asyncio.create_task(_keep_drawing(demo, live), name="watch"))
        tasks.append(asyncio.create_task(demo.keep_measuring(), name="memory"))
        if demo.options.cut:
            tasks.append(asyncio.create_task(demo.break_the_link(), name="cut"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), demo.options.for_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for link in demo.city.links.values():
        link.mend()


async def _keep_drawing(demo: Demo, live: Live) -> None:
    """Draw the table on a terminal; elsewhere write two lines now and then."""
    drawing = asyncio.create_task(demo.watch(live), name="ledgers")
    terminal = demo.console.is_terminal
    try:
        while not drawing.done():
            await asyncio.sleep(REFRESH_S / 2 if terminal else LINES_S)
            if terminal:
                live.refresh()
            elif demo.simulator and demo.judge:
                seen = demo.cameras.status if demo.cameras else {}
                for line in screen.lines(demo.simulator.status, demo.judge.status, seen):
                    demo.console.print(line, highlight=False)
        drawing.result()
    finally:
        drawing.cancel()


async def _clear_up(demo: Demo, *, keep: bool) -> None:
    """End all processes; the directory of a guilty run is kept to be looked at."""
    for worker in (*demo.simulators, demo.judge):
        if worker is not None:
            await worker.stop()
    if keep and demo.city.temporary:
        demo.city.temporary = False
        demo.console.print(f"kept for a look: {demo.city.directory}", highlight=False)
    await demo.city.stop()
