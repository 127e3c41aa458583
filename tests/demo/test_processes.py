from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sensegate.demo.processes import Reaper, SupervisedProcess, processes_of, sweep

pytestmark = pytest.mark.live

DEADLINE_S = 60.0
SLEEPER = "import sys, time; time.sleep(60)"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def sleeper(directory: Path) -> list[str]:
    """A process that looks like a gateway: `… run <file below the directory>`."""
    return [sys.executable, "-c", SLEEPER, "run", str(directory / "config.yaml")]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """Killed at any time, it comes back under another pid, and says so."""
    changes: list[int] = []
    child = SupervisedProcess("x", sleeper(tmp_path), log=tmp_path / "log", changed=lambda: changes.append(1))
    await child.start()
    first = child.pid
    child.kill()
    await until(lambda: child.pid not in (0, first))
    assert child.restarts == 1
    assert len(changes) == 2
    second = child.pid
    await child.stop()
    assert gone(second)
    assert child.pid == 0


async def test_what_belongs_to_a_directory_is_found_and_ended(tmp_path: Path) -> None:
    """Only gateways and servers on stores below the directory are touched."""
    ours = subprocess.Popen(sleeper(tmp_path))  # noqa: ASYNC220 - starts at once
    other = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path / "x")])  # noqa: ASYNC220 - the same
    try:
        await until(lambda: processes_of(tmp_path) == [ours.pid])
        ended = asyncio.create_task(asyncio.to_thread(sweep, tmp_path, grace_s=2.0))
        assert await asyncio.to_thread(ours.wait, DEADLINE_S) == -signal.SIGTERM
        assert await ended == [ours.pid]
        assert other.poll() is None
    finally:
        ours.kill()
        other.kill()
        other.wait()


async def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel ends the children of a killed demo, the reaper what had no parent any more, and the directory."""
    stores = tmp_path / "stores"
    os.mkdir(stores)  # noqa: PTH102 - before anything runs
    script = f"""
import asyncio, pathlib, subprocess, sys
from sensegate.demo.processes import Reaper, SupervisedProcess

async def main():
    directory = pathlib.Path({str(stores)!r})
    await Reaper(directory, remove=True).start()
    child = SupervisedProcess("x", {sleeper(stores)!r}, log=directory / "log")
    await child.start()
    orphan = subprocess.Popen({sleeper(stores)!r}, start_new_session=True)
    print(child.pid, orphan.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    demo = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert demo.stdout
    child, orphan = map(int, (await demo.stdout.readline()).split())
    demo.kill()
    await demo.wait()
    await until(lambda: gone(child))
    await until(lambda: not processes_of(stores) and not os.path.exists(stores))  # noqa: PTH110 - a poll
    assert gone(orphan)


async def test_an_idle_reaper_does_nothing(tmp_path: Path) -> None:
    """Dismissed after an orderly end, it ends too and keeps the directory unless told otherwise."""
    reaper = Reaper(tmp_path, remove=False)
    await reaper.start()
    await asyncio.wait_for(reaper.finish(), DEADLINE_S)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - it is there, and empty
