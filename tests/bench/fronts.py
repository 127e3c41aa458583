"""Two fronts against one, each with the same small share of a core: what a second adds where fronts are the limit.

Two cores cannot show it by themselves: publisher, server, gateway and subscriber fill them. So each front process has a
quota (cgroup, version 1 or 2), far below what the others leave, and the rest of the path goes unhindered. Nodes with
one and with two fronts take turns. Where no quota can be set, the figure is calculated: a front's capacity is one over
its CPU a message, which two fronts have twice; the row says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sensegate.demo.city import CityMember
from tests.bench import rig
from tests.bench.flood import Flood, Plan, shares
from tests.bench.latency import FEED, Load, enrol, node
from tests.bench.storm import fronts_of
from tests.bench.subscriber import Subscriber
from tests.bench.workload import VALUES, make, through_hubs

MESSAGES = 30_000
DEVICES = 1_000
HUBS = 700
"""Enough connections for the kernel to share them evenly among the fronts."""
ROUNDS = 5
SHARE = 0.06
"""Of a core, for each front: two then take less than half of what a whole node sustains on two cores."""
PERIOD_US = 20_000
GROUPS = Path("/sys/fs/cgroup")
GOAL = 1.7


class CpuQuota:
    """A cgroup of one process, with a share of a core. Raises `OSError` where there are none to be made."""

    def __init__(self, name: str, pid: int, share: float) -> None:
        quota_us = round(share * PERIOD_US)
        unified = (GROUPS / "cgroup.controllers").exists()
        self._parent = GROUPS if unified else GROUPS / "cpu"
        self._group = self._parent / name
        self._pid = pid
        self._group.mkdir()
        try:
            if unified:
                (self._group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}", encoding="ascii")
            else:
                (self._group / "cpu.cfs_period_us").write_text(str(PERIOD_US), encoding="ascii")
                (self._group / "cpu.cfs_quota_us").write_text(str(quota_us), encoding="ascii")
            (self._group / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError:
            self._group.rmdir()
            raise

    def lift(self) -> None:
        """Give the process all that it can get again."""
        with contextlib.suppress(ProcessLookupError):  # it has ended
            (self._parent / "cgroup.procs").write_text(str(self._pid), encoding="ascii")
        self._group.rmdir()


@contextlib.contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[bool]:
    """Give each process a share of a core; yield whether that was possible."""
    with contextlib.ExitStack() as stack:
        possible = True
        try:
            for pid in pids:
                quota = CpuQuota(f"sensegate-bench-{os.getpid()}-{pid}", pid, share)
                stack.callback(quota.lift)
        except OSError:
            stack.close()
            possible = False
        yield possible


class FrontRun(NamedTuple):
    """Figures of a round."""

    rate: float
    """Messages/s from the first publish to the last PUBACK."""
    front_us: float
    """CPU of all fronts a message."""
    cores: dict[str, float]
    """Share of a core that each kind of process had meanwhile."""
    is_limited: bool
    is_complete: bool


def processes_of(member: CityMember) -> dict[str, list[int]]:
    """Return kind -> process ids of a node."""
    gateway = member.process.pid
    return {"fronts": fronts_of(gateway), "gateway": [gateway], "server": [member.engine_pid]}


async def measure(load: Load, messages: int, share: float) -> FrontRun:
    """Publish at QoS 1 as fast as the fronts acknowledge, and wait for the last event."""
    member, work = load.member, load.work(messages)
    async with member.remote() as remote:
        page = await remote.get("/api/v1/feeds/all/records", since="0s", limit="1")
    plan = Plan("127.0.0.1", member.mqtt_port, shares(work.messages, load.passwords))
    processes = processes_of(member)
    url = f"{member.url}{FEED}?after={page['next']}"
    # The quota begins once all are connected: a CONNECT costs as much as fifty messages.
    async with Subscriber(url, member.token) as subscriber, Flood(plan) as flood:
        with limited(processes["fronts"], share) as is_limited:
            before = _cpu(processes)
            done = await flood.go()
            after = _cpu(processes)
        expected = (len(work.messages) - work.duplicates) * VALUES
        seen, _ = await subscriber.until(expected, timeout_s=120)
    took, count = done.ended - done.began, len(work.messages)
    used = {kind: after[kind] - before[kind] for kind in processes} | {"publisher": done.cpu_s}
    cores = {kind: round(spent / took, 3) for kind, spent in used.items()}
    is_complete = seen == expected and done.acknowledged == count
    return FrontRun(count / took, used["fronts"] / count * 1e6, cores, is_limited, is_complete)


def _cpu(processes: dict[str, list[int]]) -> dict[str, float]:
    return {kind: sum(map(_cpu_s, pids)) for kind, pids in processes.items()}


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, to the nanosecond: a front with a small quota uses few ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


@contextlib.asynccontextmanager
async def loaded_node(fronts: int, devices: int, hubs: int) -> AsyncIterator[Load]:
    """Yield a node with so many fronts, whose devices are registered."""
    async with node(fronts) as member:
        first = through_hubs(make(devices, devices, end=time.time()), hubs)
        yield Load(member, await enrol(member, first.devices), devices, hubs)


async def bench(
    messages: int = MESSAGES, devices: int = DEVICES, hubs: int = HUBS, rounds: int = ROUNDS, share: float = SHARE
) -> dict[str, Any]:
    """Return the ratio of the rates (two fronts : one), median of the rounds."""
    runs: dict[int, list[FrontRun]] = {1: [], 2: []}
    async with loaded_node(1, devices, hubs) as single, loaded_node(2, devices, hubs) as double:
        loads = {1: single, 2: double}
        for fronts, load in loads.items():
            await measure(load, messages * fronts // 4, 1.0)  # warm
        for _ in range(rounds):
            for fronts, load in loads.items():
                runs[fronts].append(await measure(load, messages * fronts, share))
    is_limited = all(run.is_limited for of in runs.values() for run in of)
    measured = [double.rate / single.rate for single, double in zip(runs[1], runs[2], strict=True)]
    calculated = [2 * single.front_us / double.front_us for single, double in zip(runs[1], runs[2], strict=True)]
    return {
        "figure": round(rig.median(measured if is_limited else calculated), 2),
        "unit": "times the QoS 1 messages/s of one front, by two",
        "goal": GOAL,
        "measured_by": f"quota of {share:.0%} of a core for each front" if is_limited else "CPU a message: no quota",
        "rows": [_row(fronts, of) for fronts, of in runs.items()],
        "ratios": [round(ratio, 2) for ratio in measured],
        "capacity_ratio": round(rig.median(calculated), 2),
        "complete": all(run.is_complete for of in runs.values() for run in of),
    }


def _row(fronts: int, runs: Sequence[FrontRun]) -> dict[str, Any]:
    middle = sorted(runs)[len(runs) // 2]
    return {
        "fronts": fronts,
        "messages_per_s": round(middle.rate),
        "rounds": [round(run.rate) for run in runs],
        "front_us_per_message": round(rig.median([run.front_us for run in runs]), 2),
        "cores": middle.cores,
    }
