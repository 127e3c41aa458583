"""The processes between which a peer is measured: itself, and a counter that is asked through its pipes."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[3]
READY_S = 60.0
STALLED_S = 5.0


class Counting:
    """A process that prints ``ready`` and then, at each line it is sent, ``COUNT SECOND``."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        assert self._process.stdout
        async with asyncio.timeout(READY_S):
            if await self._process.stdout.readline() != b"ready\n":
                raise ConnectionRefusedError(f"{self._command[2]} did not start; see above")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._process)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process
        return self._process.pid

    async def count(self) -> tuple[int, float]:
        """Return (sum so far, when the last came in seconds of the monotonic clock)."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        count, last = (await self._process.stdout.readline()).split()
        return int(count), float(last)

    async def until(self, count: int, *, timeout_s: float) -> tuple[int, float]:
        """Wait for a sum, or until none has come for some seconds; return as `count`."""
        began = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while True:
                result, last = await self.count()
                if result >= count or time.monotonic() - max(last, began) > STALLED_S:
                    return result, last
                await asyncio.sleep(0.05)  # it cannot tell us by itself


class Running:
    """A process that serves while the context is open."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self._command = command
        self._environment = environment
        self._directory = directory
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=self._directory, env=dict(self._environment), stdout=DEVNULL, stderr=DEVNULL
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._process)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process
        return self._process.pid


async def end(process: Process | None) -> None:
    """Kill a process that still runs, and wait for it."""
    if process is not None:
        if process.returncode is None:
            process.kill()
        await process.wait()
