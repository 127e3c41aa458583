"""Simulator and judge as separate processes that report in lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sensegate.demo.cameras import CameraPlan
from sensegate.demo.city import CityMember
from sensegate.demo.simulator import SimulationPlan
from sensegate.errors import EngineError

LINE_BYTES = 1_048_576
END_S = 30.0


class Worker:
    """A process that reports status and takes commands in lines of JSON."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], *, log: Path) -> None:
        self.name = name
        self.module = module
        self.arguments = list(arguments)
        self.log = log
        self.status: dict[str, Any] = {}
        """The last status line."""
        self.code: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    @property
    def pid(self) -> int:
        """Process id, 0 while it is not running."""
        return self._process.pid if self._process and self.code is None else 0

    async def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                *self.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_BYTES,
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read(), name=self.name)

    async def _read(self) -> None:
        assert self._process is not None  # noqa: S101 - start() has run
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        while line := await self._process.stdout.readline():
            self.status = json.loads(line)
            async with self._changed:
                self._changed.notify_all()
        self.code = await self._process.wait()
        async with self._changed:
            self._changed.notify_all()

    def send_command(self, **command: object) -> None:
        """Send a command; ignored after the process has ended."""
        if self._process and self._process.stdin and self.code is None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def until(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """Return the first status for which `condition` holds.

        Raises:
            TimeoutError: if there is none in time.
            EngineError: if the process has ended; with the end of its log.
        """
        async with asyncio.timeout(timeout_s), self._changed:
            while not (self.status and condition(self.status)):
                if self.code is not None:
                    raise EngineError(f"{self.name} has ended with {self.code}: {self.stderr_tail()}")
                await self._changed.wait()
        return self.status

    async def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code.

        Raises:
            TimeoutError: if it is still running.
        """
        assert self._reader is not None  # noqa: S101 - start() has run
        await asyncio.wait_for(asyncio.shield(self._reader), timeout_s)
        assert self.code is not None  # noqa: S101 - the reader ends with the process
        return self.code

    def stderr_tail(self) -> str:
        """Return the end of its standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-1000:] if self.log.exists() else ""

    async def stop(self) -> None:
        """End the process: by closing its input, after a while by force."""
        if self._process is None or self.code is not None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await self.wait(END_S)
        except TimeoutError:
            self._process.kill()
            await self.wait(END_S)


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def simulator(directory: Path, plan: SimulationPlan) -> Worker:
    """Return the simulator of a plan, not yet started."""
    file = write_private(directory / f"plan-{plan.run}.json", msgspec.json.encode(plan))
    return Worker("simulator", "sensegate.demo.simulator", [str(file)], log=directory / "simulator.log")


def cameras(directory: Path, plan: CameraPlan) -> Worker:
    """Return the simulator of cameras, not yet started."""
    file = write_private(directory / f"plan-{plan.run}.json", msgspec.json.encode(plan))
    return Worker("cameras", "sensegate.demo.cameras", [str(file)], log=directory / "cameras.log")


def judge(
    directory: Path,
    taps: Mapping[str, tuple[CityMember, str, str]],
    *,
    feed: str,
    urls: Mapping[str, str] | None = None,
    settle_s: float = 2.0,
    deadline_s: float = 60.0,
    simulators: int = 1,
) -> Worker:
    """Return the judge, not yet started; its verdict is written to `verdict.json`.

    Args:
        directory: directory of the simulators' files.
        taps: name -> (member, token, division of the only expected node, or empty).
        feed: feed that each tap reads.
        urls: name -> URL other than the member's own (a test's proxy).
        settle_s: quiet time after everything was seen.
        deadline_s: longest wait after the simulators' end.
        simulators: number of files that must have ended.
    """
    arguments = ["--ledger", str(directory), "--verdict", str(directory / "verdict.json")]
    arguments += [f"--settle-s={settle_s}", f"--deadline-s={deadline_s}", f"--simulators={simulators}"]
    for name, (member, token, node) in taps.items():
        file = write_private(directory / f"tap-{name}.token", token.encode())
        url = (urls or {}).get(name, member.url)
        arguments += ["--tap", ",".join([f"{name}={url}", feed, str(file), *([node] if node else [])])]
    return Worker("judge", "sensegate.demo.judge", arguments, log=directory / "judge.log")
