"""Child processes of the demo: restarted when they die; neither they nor their servers outlive the demo.

A gateway's nats-server outlives a killed gateway by design. So that a killed demo leaves nothing behind, the kernel
terminates its gateways (PDEATHSIG), and a *reaper* process that notices the demo's end kills the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_S = 15.0
"""Time allowed for an orderly end."""
REAP_DELAY_S = 4.0
"""Time that the reaper allows gateways to end by themselves."""
RESTART_S = 0.2
"""Delay before a restart; doubled up to `RESTART_MAX_S` while the process dies immediately."""
RESTART_MAX_S = 5.0
STABLE_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Request SIGTERM from the kernel when the parent ends; runs in the child before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class SupervisedProcess:
    """A supervised process, restarted when it ends."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the process; `start` runs it.

        Args:
            name: name for people.
            arguments: program and arguments.
            log: file to which its output is appended.
            environment: added to the present environment.
            changed: called after each (re)start.
        """
        self.name = name
        self.arguments = list(arguments)
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self.changed = changed
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 while it is not running."""
        return self.process.pid if self.process and self.process.returncode is None else 0

    async def start(self) -> None:
        """Start the process, and restart it whenever it ends."""
        await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"keep {self.name}")

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal if the process is running."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(sign)

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """End the process in order, by force after `timeout_s`."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self.process is None or self.process.returncode is not None:
            return
        self.kill(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.kill()
            await self.process.wait()

    async def _spawn(self) -> None:
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.changed()

    async def _supervise(self) -> None:
        wait_s = RESTART_S
        while True:
            started = time.monotonic()
            assert self.process is not None  # noqa: S101 - start() spawned it
            await self.process.wait()
            if time.monotonic() - started > STABLE_S:
                wait_s = RESTART_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_MAX_S)
            self.restarts += 1
            await self._spawn()


def processes_of(directory: Path) -> list[int]:
    """Return the ids of gateways and nats-servers whose command line names a file below `directory`."""
    needle = f"{directory.resolve()}{os.sep}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        names = {word.rpartition(b"/")[2] for word in words[:3]}
        ours = b"nats-server" in names or b"run" in words
        if ours and any(needle in word for word in words):
            pids.append(int(entry.name))
    return pids


def sweep(directory: Path, *, grace_s: float) -> list[int]:
    """End the processes that still use the stores below `directory`: in order at first, by force after `grace_s`.

    Returns:
        The ids of the processes that had to be ended.
    """
    ended = processes_of(directory)
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        for process in processes_of(directory):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, sign)
        deadline = time.monotonic() + wait_s
        while processes_of(directory) and time.monotonic() < deadline:
            time.sleep(0.05)
    return ended


def reap_after_parent(directory: Path, *, remove: bool) -> None:
    """Wait for the end of standard input (the demo has ended), then clean up: the main function of the reaper."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    keep = b"keep" in sys.stdin.buffer.read()
    # The kernel has sent SIGTERM to the gateways, which stop their own servers.
    deadline = time.monotonic() + REAP_DELAY_S
    while processes_of(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    sweep(directory, grace_s=5.0)
    if remove and not keep:
        shutil.rmtree(directory, ignore_errors=True)


class Reaper:
    """Process that cleans up if the demo is killed."""

    def __init__(self, directory: Path, *, remove: bool) -> None:
        self.directory = directory
        self.remove = remove
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 while it is not running."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start the process."""
        arguments = [str(self.directory), *(["--remove"] if self.remove else [])]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sensegate.demo.processes",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def finish(self, *, keep: bool = False) -> None:
        """End the process after an orderly stop; it removes what is left (except the directory, with `keep`)."""
        if self._process and self._process.stdin:
            if keep:
                self._process.stdin.write(b"keep")
            self._process.stdin.close()
            await self._process.wait()


if __name__ == "__main__":
    reap_after_parent(Path(sys.argv[1]), remove="--remove" in sys.argv[2:])
