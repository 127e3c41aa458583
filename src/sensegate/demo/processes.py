"""Child processes of the demo: restarted when they die, never outliving the demo, nor their own servers.

A gateway's nats-server outlives a killed gateway on purpose. So that a killed demo leaves nothing behind, the kernel
terminates its gateways (PDEATHSIG), and a *warden* process that notices the demo's end sweeps up what is left.
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
"""How long a process gets to end in order."""
ORPHAN_S = 4.0
"""How long the warden waits for gateways to end by themselves."""
RESTART_S = 0.2
"""Wait before a restart; doubled up to `RESTART_MAX_S` while it dies at once."""
RESTART_MAX_S = 5.0
STEADY_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent is gone; runs in the child before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process that is kept running."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it; `start` runs it.

        Args:
            name: for people.
            arguments: program and arguments.
            log: file that its output is appended to.
            environment: added to our own.
            changed: called after each (re)start.
        """
        self.name = name
        self.arguments = list(arguments)
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self.changed = changed
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 while it does not run."""
        return self.process.pid if self.process and self.process.returncode is None else 0

    async def start(self) -> None:
        """Run it, and again whenever it ends."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, if it runs."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(sign)

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """End it in order, by force after a while."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
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

    async def _keep(self) -> None:
        wait_s = RESTART_S
        while True:
            started = time.monotonic()
            assert self.process is not None  # noqa: S101 - start() spawned it
            await self.process.wait()
            if time.monotonic() - started > STEADY_S:
                wait_s = RESTART_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RESTART_MAX_S)
            self.restarts += 1
            await self._spawn()


def belonging(directory: Path) -> list[int]:
    """Return the ids of gateways and nats-servers whose command line names a file below `directory`."""
    needle = f"{directory.resolve()}{os.sep}".encode()
    found = []
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
            found.append(int(entry.name))
    return found


def sweep(directory: Path, *, grace_s: float) -> list[int]:
    """End what still runs on the stores below `directory`: in order at first, by force after `grace_s`.

    Returns:
        The ids of the processes that had to be ended.
    """
    ended = belonging(directory)
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        for process in belonging(directory):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, sign)
        deadline = time.monotonic() + wait_s
        while belonging(directory) and time.monotonic() < deadline:
            time.sleep(0.05)
    return ended


def watch_over(directory: Path, *, remove: bool) -> None:
    """Wait for the end of standard input (the demo is gone), then leave nothing behind: the warden's whole work."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    keep = b"keep" in sys.stdin.buffer.read()
    # The kernel has told the gateways to stop; they end their servers themselves.
    deadline = time.monotonic() + ORPHAN_S
    while belonging(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    sweep(directory, grace_s=5.0)
    if remove and not keep:
        shutil.rmtree(directory, ignore_errors=True)


class Warden:
    """The process that sweeps up after the demo, should the demo be killed."""

    def __init__(self, directory: Path, *, remove: bool) -> None:
        self.directory = directory
        self.remove = remove
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Run it."""
        arguments = [str(self.directory), *(["--remove"] if self.remove else [])]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sensegate.demo.processes",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def dismiss(self, *, keep: bool = False) -> None:
        """End it; it makes sure that nothing is left (but the directory, with `keep`). Called after an orderly stop."""
        if self._process and self._process.stdin:
            if keep:
                self._process.stdin.write(b"keep")
            self._process.stdin.close()
            await self._process.wait()


if __name__ == "__main__":
    watch_over(Path(sys.argv[1]), remove="--remove" in sys.argv[2:])
