"""How long other nodes wait for the confirmation of a span while one node floods its centre, against a quiet centre.

The centre's links (``tiers.link.NodeLinks``) and the log are in this process, the server, the other nodes and the
flooding node are processes of their own. Each kind of flood runs alone; the quiet times around it are its baseline.
The flooding process has the lowest priority: in truth it is another machine, and takes no core of the centre's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sensegate.bus.connect import Login, connect
from sensegate.bus.slots import inbox_prefix, node_user
from sensegate.errors import SensegateError
from sensegate.tiers.link import CentreLink
from tests.bench.rig import ROOT
from tests.border.flooder import Kind, Plan, flooding
from tests.border.new_layout import NEW
from tests.border.world import HONEST, JOINED, NODE, World, world

SECONDS = 6.0
SPAN_BYTES = 60_000
"""Of a busy city's span: twelve batches of 5 kB."""
EVERY_S = 0.25
WARM_S = 1.0
READY_S = 20.0
LOWEST = 19


class Others(msgspec.Struct, frozen=True):
    """What the process of the other nodes is to do."""

    url: str
    secrets: dict[str, str]
    """Slot -> secret."""


class Waits(msgspec.Struct):
    """Times until a span was confirmed, in ms, each with the moment (of the machine's monotonic clock) at its begin."""

    at: list[float]
    ms: list[float]
    failed: int = 0

    def between(self, begin: float, end: float) -> list[float]:
        """Return the times of the spans that were sent between two moments."""
        return [ms for at, ms in zip(self.at, self.ms, strict=True) if begin <= at < end]


async def _node(url: str, slot: str, secret: str, waits: Waits, end: asyncio.Event) -> None:
    connection = await connect(url, Login(node_user(slot), secret, inbox_prefix(slot)))
    link = CentreLink(connection, slot=slot, member=slot)
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not end.is_set():
        due += EVERY_S
        await asyncio.sleep(max(0.0, due - loop.time()))
        begin = time.perf_counter()
        try:
            await link.send_span("live", b"x" * SPAN_BYTES)
        except SensegateError:
            waits.failed += 1
            continue
        waits.at.append(begin)
        waits.ms.append((time.perf_counter() - begin) * 1e3)
    await connection.close()


async def others(plan: Others) -> Waits:
    """Send spans as honest nodes do until a line comes; return how long each took."""
    waits, end = Waits([], []), asyncio.Event()
    nodes = [asyncio.create_task(_node(plan.url, slot, secret, waits, end)) for slot, secret in plan.secrets.items()]
    while len(waits.ms) < len(nodes):
        await asyncio.sleep(EVERY_S)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    end.set()
    await asyncio.gather(*nodes)
    return waits


@contextlib.asynccontextmanager
async def _others(place: World) -> AsyncIterator[asyncio.subprocess.Process]:
    plan = Others(place.url, {HONEST: place.secrets[HONEST], JOINED: "s"})
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.border_flood",
        msgspec.json.encode(plan).decode(),
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        limit=2**24,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def bench(seconds: float = SECONDS, warm: float = WARM_S, kinds: Sequence[Kind] = tuple(Kind)) -> dict[str, Any]:
    """Return the worst ratio of the others' median under a flood to that of a quiet centre, and each flood's."""
    phases: list[tuple[float, float]] = []
    rates: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="sensegate-bench-") as directory:
        async with world(NEW, Path(directory), links=True) as place, _others(place) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            async with asyncio.timeout(READY_S):
                await child.stdout.readline()
            await asyncio.sleep(warm)
            for kind in (None, *itertools.chain.from_iterable((kind, None) for kind in kinds)):
                begin = time.perf_counter()
                if kind is None:
                    await asyncio.sleep(seconds / 2)
                else:
                    plan = Plan(kind, place.kept.port, NODE, place.secrets[NODE], seconds, nice=LOWEST)
                    async with flooding(plan) as flood:
                        begin = time.perf_counter()
                        rates[kind] = round((await flood).sent / seconds)
                phases.append((begin, time.perf_counter()))
                await asyncio.sleep(warm)
            child.stdin.write(b"end\n")
            waits = msgspec.json.decode(await child.stdout.readline(), type=Waits)
            ended = place.ended()
    times = [waits.between(begin, end) for begin, end in phases]
    baseline = statistics.median(itertools.chain.from_iterable(times[::2]))
    medians = {kind: statistics.median(flooded) for kind, flooded in zip(kinds, times[1::2], strict=True)}
    # Each against its own neighbours: a shared machine is not equally busy all the while.
    ratios = {
        kind: medians[kind] / statistics.median([*times[2 * at], *times[2 * at + 2]]) for at, kind in enumerate(kinds)
    }
    return {
        "figure": round(max(ratios.values()), 2),
        "unit": "times the quiet median until a span is confirmed, at the others, under the worst flood",
        "goal": 2,
        "baseline": round(baseline, 2),
        "baseline_is": "ms until a span of 60 kB is confirmed at a quiet centre, median",
        "ms": {kind: round(median, 2) for kind, median in medians.items()},
        "ratios": {kind: round(ratio, 2) for kind, ratio in ratios.items()},
        "flooded_per_s": rates,
        "spans": len(waits.ms),
        "complete": not waits.failed and not ended,
    }


if __name__ == "__main__":
    done = asyncio.run(others(msgspec.json.decode(sys.argv[1], type=Others)))
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
