"""Faults that are injected into the scene: how, what is expected, and what was seen of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import pytest

from sensegate.demo.city import CityMember
from tests.conftest import eventually
from tests.faults.scene import HALF_OPEN, HUNG, Scene

NAMED_WITHIN_S = 10.0
LINES_MAX = 3
"""Most lines of one kind that a log gets in less than a minute."""


class Form(StrEnum):
    """How long a row takes."""

    SHORT = "short"
    LONG = "long"


class Fault(NamedTuple):
    """A row of the table."""

    title: str
    expected: str
    inject: Callable[[Scene, Form], Awaitable[str]]
    """(scene, form) -> what was seen, beside that nothing was lost."""
    in_short: bool = True
    """It runs in `make test`, too."""


async def kill_at_once(scene: Scene, form: Form) -> str:
    """Kill two to four processes at the same moment."""
    rng = random.Random(1)
    rounds = 20 if form is Form.LONG else 1
    for _ in range(rounds):
        names = sorted(scene.processes())
        killed = rng.sample(names, rng.randint(2, 4)) if form is Form.LONG else names[:4]
        scene.kill(killed)
        await scene.goes_on()
    return f"{rounds} times"


async def kill_after_start(scene: Scene, form: Form) -> str:
    """Kill a gateway again 0.2 to 3 s after it was started."""
    rng = random.Random(2)
    node = scene.nodes[HUNG]
    rounds = 12 if form is Form.LONG else 1
    for _ in range(rounds):
        scene.kill([f"{HUNG} gateway"])
        restarts = node.process.restarts
        await eventually(partial(_has_restarted, node, restarts), 30)
        await asyncio.sleep(rng.uniform(0.2, 3.0) if form is Form.LONG else 0.3)
        scene.kill([f"{HUNG} gateway"])
        await scene.goes_on()
    return f"{rounds} times"


def _has_restarted(node: CityMember, restarts: int) -> bool:
    return node.process.restarts > restarts


async def storm(scene: Scene, _form: Form) -> str:
    """Kill ten processes within three seconds, whatever recovers."""
    rng = random.Random(3)
    for _ in range(10):
        scene.kill([rng.choice(sorted(scene.processes()))])
        await asyncio.sleep(0.3)
    return "10 kills"


async def silence(scene: Scene, form: Form) -> str:
    """Stop one node's process, and forward nothing on the other one's open connection."""
    began = time.monotonic()
    scene.kill([f"{HUNG} gateway"], signal.SIGSTOP)
    scene.city.links[HALF_OPEN].stall()
    took: dict[str, float] = {}

    async def named() -> bool:
        _, reasons = await scene.ready(scene.centre)
        _, here = await scene.ready(scene.nodes[HALF_OPEN])
        for subject, is_named in (
            ("hung node in the list", "hangs" in " ".join((await scene.row(HUNG))["problems"])),
            ("half-open node in the list", (await scene.row(HALF_OPEN))["state"] == "silent"),
            ("hung node in /readyz", any(f"node {HUNG}: link" in text for text in reasons)),
            ("half-open node in /readyz", any(f"node {HALF_OPEN}: link" in text for text in reasons)),
            ("centre in the node's /readyz", any("has not answered" in text for text in here)),
        ):
            if is_named:
                took.setdefault(subject, time.monotonic() - began)
        return len(took) == 5

    await eventually(named, 30, every_s=0.1)
    assert (await scene.row(HUNG))["state"] == "silent"
    assert (await scene.ready(scene.nodes[HALF_OPEN]))[0], "the node goes on alone"
    if form is Form.LONG:
        await asyncio.sleep(110 - (time.monotonic() - began))
    scene.resume()
    assert max(took.values()) <= NAMED_WITHIN_S, took
    return f"named after {max(took.values()):.1f} s at most"


async def cut(scene: Scene, form: Form) -> str:
    """Cut a node's link: the lag rises, the log does not."""
    node = scene.nodes[HALF_OPEN]
    log = node.directory / "gateway.log"
    size = log.stat().st_size
    await scene.city.links[HALF_OPEN].cut()
    first = await scene.lag(node)
    lags = [first]

    async def rises() -> bool:
        lags.append(await scene.lag(node))
        return len({*lags}) > 3 and lags[-1] > first + 20

    await eventually(rises, 30, every_s=0.2)
    await asyncio.sleep(55 if form is Form.LONG else 1)
    assert sorted(lags) == lags
    scene.city.links[HALF_OPEN].restore()
    lines = log.read_text(encoding="utf-8")[size:].splitlines()
    warnings = [re.sub(r"[0-9][0-9.:TZ-]*", "#", line) for line in lines if "[warning" in line or "[error" in line]
    most = max((warnings.count(line) for line in warnings), default=0)
    assert most <= LINES_MAX, [line for line in warnings if warnings.count(line) == most][:1]
    await eventually(lambda: _lag_is_small(scene), 30)
    return f"lag {first:.0f} → {lags[-1]:.0f}; {len(warnings)} warnings, {most} of one kind"


async def _lag_is_small(scene: Scene) -> bool:
    return await scene.lag(scene.nodes[HALF_OPEN]) < 20


async def flap(scene: Scene, form: Form) -> str:
    """Cut a link again and again, inside frames."""
    rng = random.Random(4)
    link = scene.city.links[HALF_OPEN]
    cuts = 200 if form is Form.LONG else 8
    for _ in range(cuts):
        await link.cut()
        link.restore()
        await asyncio.sleep(rng.uniform(0.02, 0.4))
    return f"{cuts} cuts"


async def stop_server(scene: Scene, _form: Form) -> str:
    """Stop a node's nats-server for longer than its gateway waits for an answer."""
    scene.kill([f"{HUNG} server"], signal.SIGSTOP)
    await asyncio.sleep(40)
    scene.resume()
    return "for 40 s"


async def write_error(scene: Scene, _form: Form) -> str:
    """Have the next writes of a node's server fail with EIO, as a bad disk does."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    pid = scene.processes()[f"{HUNG} server"]
    command = [
        strace,
        "-f",
        "-qq",
        "-p",
        str(pid),
        "-e",
        "trace=pwrite64",
        "-e",
        "inject=pwrite64:error=EIO:when=5..12",
    ]
    tracer = await asyncio.create_subprocess_exec(*command, "-o", "/dev/null", stderr=asyncio.subprocess.PIPE)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            _, errors = await tracer.communicate()  # it ends with the server
            if b"Operation not permitted" in errors:
                pytest.skip("no right to trace a process")
    with contextlib.suppress(ProcessLookupError):
        tracer.terminate()
    await tracer.wait()
    await eventually(lambda: scene.processes()[f"{HUNG} server"] != pid, 60)
    return "8 writes; the server was started again"


FAULTS = (
    Fault(
        "two to four processes killed at once", "all recover by themselves; nothing is lost or doubled", kill_at_once
    ),
    Fault("killed again 0.2 to 3 s after a start", "the next start goes on", kill_after_start, in_short=False),
    Fault("ten kills within three seconds", "all recover by themselves", storm, in_short=False),
    Fault(
        "a node that hangs; a link that is half-open",
        "the centre's list and /readyz, and the node's own /readyz, name it within 10 s; the node goes on alone",
        silence,
    ),
    Fault(
        "a link that is cut",
        "sensegate_uplink_lag_entries rises; a warning is written once, then once a minute with a count",
        cut,
    ),
    Fault("a link that flaps, cut inside frames", "nothing is lost or doubled", flap),
    Fault("a server that hangs for 40 s", "its gateway starts it again; nothing is lost", stop_server, in_short=False),
    Fault(
        "EIO from the disk of a server",
        "no acknowledgement for it; the server is started again",
        write_error,
        in_short=False,
    ),
)
