"""Kills over the border: two centres, honest nodes under load, and a hostile node beside them all the while.

    plan(seed, count) ─▶ rounds ─▶ BorderCampaign.run: bursts ─▶ one kill at each node of a round, or one at a centre ─▶
    recovered? ─▶ … ─▶ verdict

A round strikes every honest node at once, each with its own burst and its own target, or the centres. Each kill counts
for itself: by what was open at its own site, and by its own recovery.

A run has a city of its own, so that what a fenced centre copies anew stays small; the kills of several runs add up.

`python -m tests.border.campaign [--seed N] [--kills N] [--runs N] [--report FILE]`; exit 1 on any fault.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sensegate.demo.judge import VERDICTS
from tests.border.lies import SENDER
from tests.border.pair import PairedCity, kill
from tests.border.raider import Raider, raiding
from tests.ledger.kills import RECOVERY_S, Campaign, Done, Kill, Report, Target, plan
from tests.ledger.soak import say

NODES = ("4401", "4404", "4406", "4413")
READINGS_LEAST = 500_000
KILLS = 300
RUNS = 6
BORDER_BURST = 2_000
BORDER_RATE = 150.0
RECOVERED_S = 180.0
"""Subscribers wait until the standby has copied what they get, after a fencing the whole log."""
AT_NODES = (Target.NODE_GATEWAY, Target.NODE_SERVER, Target.NODE_BOTH, Target.LINK)
AT_CENTRES = (
    Target.CENTRE_GATEWAY,
    Target.CENTRE_SERVER,
    Target.CENTRE_BOTH,
    Target.STANDBY_BOTH,
    Target.FAILED_OVER,
    Target.WOKEN,
)
SHARE_OF_NODES = 0.8
"""Of all kills; each round of theirs has one at every node."""
PAUSE_S = 0.05
"""Between two attacks of the hostile node, which shares the cores with all others."""


def rounds(seed: int, count: int, nodes: Sequence[str] = NODES) -> list[list[Kill]]:
    """Return kills in rounds: of one at every node, or of one at a centre; each target gets its equal share."""
    rng = random.Random(seed)
    at_nodes = round(count * SHARE_OF_NODES / len(nodes)) * len(nodes)
    wanted = plan(seed, at_nodes, least=at_nodes // len(AT_NODES), targets=AT_NODES, nodes=nodes)
    planned = [
        [
            Kill(it.target, node, it.gap_s, it.delay_s, it.cut_s, it.again_s)
            for it, node in zip(group, nodes, strict=True)
        ]
        for group in zip(*[iter(wanted)] * len(nodes), strict=True)
    ]
    rest = count - at_nodes
    planned += [[it] for it in plan(seed + 1, rest, least=rest // len(AT_CENTRES), targets=AT_CENTRES, nodes=nodes)]
    rng.shuffle(planned)
    return planned


class BorderCampaign(Campaign):
    """A city of two centres under load, a hostile node beside it, and the kills of a plan."""

    city: PairedCity

    def __init__(
        self,
        directory: Path,
        planned: Sequence[Sequence[Kill]],
        *,
        seed: int,
        nodes: Sequence[str] = NODES,
        paired: bool = True,
        rate: float = BORDER_RATE,
        burst: int = BORDER_BURST,
        environment: Mapping[str, str] | None = None,
        until_guilty: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        city = PairedCity(directory, nodes, paired=paired, environment=environment)
        super().__init__(
            directory,
            [kill for group in planned for kill in group],
            seed=seed,
            rate=rate,
            burst=burst,
            until_guilty=until_guilty,
            say=say,
            city=city,
            recovery_s=RECOVERED_S,
        )
        self.rounds = [list(group) for group in planned]
        self.raider: Raider

    async def run(self) -> Report:
        """Run it all; leave nothing behind."""
        began = time.monotonic()
        self.proof.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.city.start()
            await self._set_up(judged={"centre": f"http://127.0.0.1:{self.city.front.port}"})
            ports = [self.city.centre.nats_port, self.city.standby.nats_port][: 1 + self.city.paired]
            secret = (self.directory / f"node-{SENDER}.secret").read_text(encoding="utf-8")
            self.raider = Raider(ports, secret, foreign_device=await self._device_at_centre(), pause_s=PAUSE_S)
            async with raiding(self.raider):
                while self.rounds:
                    await self._execute_round(self.rounds.pop(0))
                    if self.until_guilty and await self._seen_guilty():
                        break
                return await self._finish(began)
        finally:
            for worker in (getattr(self, "_simulator", None), getattr(self, "_judge", None)):
                if worker is not None:
                    await worker.stop()
            await self.city.stop()

    async def _device_at_centre(self) -> str:
        """Return a device of an honest node of which the centre has a reading: it is that node's from then on."""
        await self._judge.until(lambda now: min(now["taps"]["centre"]["by_node"].values(), default=0) > 0, RECOVERY_S)
        async with self.city.centre.remote() as centre:
            records = (await centre.get("/api/v1/feeds/all/records", limit=1))["records"]
        return str(records[0]["device"])

    # ── one round ────────────────────────────────────────────────────────────────────────────────────────

    async def _execute_round(self, group: list[Kill]) -> None:
        await asyncio.sleep(max(kill.gap_s for kill in group))
        if any(kill.target in (Target.STANDBY_BOTH, Target.FAILED_OVER, Target.WOKEN) for kill in group):
            await self.city.copied()
        bursts = int(self._simulator.status["bursts"])
        began = time.time_ns() // 1000
        for planned in group:
            self._simulator.send_command(burst=self.burst, node=planned.node)
        await self._simulator.until(lambda now: now["bursts"] >= bursts + len(group), RECOVERY_S)
        done = await asyncio.gather(*(self._strike_one(planned) for planned in group))
        for struck in done:
            await self._measure(struck, began)
        repeated = [planned for planned in map(self._judge_kill, done) if planned is not None]
        if repeated and len(self.weak) < self.wanted:
            self.rounds.append(repeated)

    async def _strike_one(self, planned: Kill) -> Done:
        await asyncio.sleep(planned.delay_s)
        done = Done(planned, planned.node, at=time.time_ns() // 1000)
        await self._strike(planned, planned.node)
        nearest = planned.node if planned.target.at_node else "centre"
        if await self._recovered(planned.node, nearest, time.time_ns() // 1000):
            done.recovery_s = (time.time_ns() // 1000 - done.at) / 1e6
        return done

    async def _strike(self, kill: Kill, node: str) -> None:
        match kill.target:
            case Target.LINK:
                await self.city.cut(node)
                await asyncio.sleep(kill.cut_s)
                self.city.restore(node)
            case Target.FAILED_OVER:
                await self._fail_over()
            case Target.WOKEN:
                await self._wake_after_fail_over()
            case _:
                await super()._strike(kill, node)

    def _pids(self, target: Target, node: str) -> list[int]:
        if target is Target.STANDBY_BOTH:
            return [self.city.standby.process.pid, self.city.server_pid(self.city.standby)]
        member = self.city.nodes[node] if target.at_node else self.city.centre
        pids = []
        if target not in (Target.NODE_SERVER, Target.CENTRE_SERVER):
            pids.append(member.process.pid)
        if target not in (Target.NODE_GATEWAY, Target.CENTRE_GATEWAY):
            pids.append(self.city.server_pid(member))
        return pids

    async def _fail_over(self) -> None:
        """Kill the active centre with its server; the other takes its place, and it comes back as the standby."""
        old = self.city.centre
        kill(old.process.pid)
        await old.process.stop()
        # What it had committed is read while its server still lives.
        await self.log_of(old).read()
        kill(self.city.server_pid(old))
        await self.city.promote()
        await old.process.start()

    async def _wake_after_fail_over(self) -> None:
        """Hold the active centre still, have the other take its place, and wake the first: two that think they are."""
        old = self.city.centre
        old.process.kill(signal.SIGSTOP)
        try:
            await self.log_of(old).read()
            await self.city.front.cut()
            self.city.front.restore()
            await self.city.promote()
        finally:
            old.process.kill(signal.SIGCONT)


class Outcome(NamedTuple):
    """What came of one run."""

    report: Report
    raider: Raider
    fail_overs: int

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or made up, all recovered, and the hostile node was heard and refused."""
        return self.report.good and bool(self.raider.refused) and not self.raider.wrong

    def table(self) -> str:
        """Return the run as lines of text."""
        wrong = "".join(f"\n  ! taken: {lie}" for lie in self.raider.wrong[:20])
        return f"{self.report.table()}\n{self.raider}\n{self.fail_overs} fail-overs{wrong}"


def total(outcomes: Sequence[Outcome]) -> str:
    """Return the sum of all runs, as lines of text."""
    reports = [outcome.report for outcome in outcomes]
    lines = [
        f"{sum(len(report.done) for report in reports)} kills in {len(reports)} runs, "
        f"{sum(report.verdict['readings'] for report in reports):,} readings, "
        f"{sum(outcome.fail_overs for outcome in outcomes)} fail-overs: "
        + " ".join(f"{name} {sum(report.of(name) for report in reports)}" for name in VERDICTS)
    ]
    for name, targets in [("all", list(Target)), *((target.value, [target]) for target in (*AT_NODES, *AT_CENTRES))]:
        times = sorted(time for report in reports for time in report.recoveries(targets))
        if times:
            lines.append(
                f"  {name:26} {len(times):4} kills, recovery p50 {times[len(times) // 2]:.2f} s max {times[-1]:.2f} s"
            )
    attacks = sum((outcome.raider.attacks for outcome in outcomes), Counter[str]())
    refused = sum((outcome.raider.refused for outcome in outcomes), Counter[str]())
    lines.append(
        f"  hostile node: {dict(attacks)}; refused {dict(refused)}; taken {sum(len(o.raider.wrong) for o in outcomes)}"
    )
    return "\n".join(lines)


def run_once(directory: Path, seed: int, kills: int) -> Outcome:
    """Run one campaign in a city of its own."""
    campaign = BorderCampaign(directory, rounds(seed, kills), seed=seed, say=say)
    report = asyncio.run(campaign.run())
    return Outcome(report, campaign.raider, campaign.city.fail_overs)


def main() -> int:
    """Run the campaign and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.border.campaign", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the plan; printed")
    parser.add_argument("--kills", type=int, default=KILLS, help="kills of all runs together")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--readings", type=int, default=0, help="least number of readings; 0: in proportion to kills")
    parser.add_argument("--directory", type=Path, default=None, help="place for everything, kept; default: temporary")
    parser.add_argument("--report", type=Path, default=None, help="file for the report, written after each run")
    given = parser.parse_args()
    least = given.readings or READINGS_LEAST * given.kills // KILLS
    say(f"border: seed {given.seed}, {given.kills} kills in {given.runs} runs over {len(NODES)} nodes and two centres")
    outcomes: list[Outcome] = []
    for number in range(given.runs):
        with contextlib.ExitStack() as stack:
            place = given.directory or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="sensegate-border-"))
            )
            outcomes.append(run_once(place / f"run{number}", given.seed + number, given.kills // given.runs))
        table = f"{outcomes[-1].table()}\n\n{total(outcomes)}"
        sys.stdout.write(table + "\n")
        sys.stdout.flush()
        if given.report:
            texts = [outcome.table() for outcome in outcomes]
            given.report.write_text("\n\n".join([*texts, total(outcomes)]) + "\n", encoding="utf-8")
    readings = sum(outcome.report.verdict["readings"] for outcome in outcomes)
    if readings < least:
        sys.stdout.write(f"only {readings:,} readings, not {least:,}: raise the load\n")
        return 1
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
