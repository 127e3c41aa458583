"""A view of the server's store as it was at one moment, taken while the server stands still for some milliseconds.

    SIGSTOP ─▶ every thread stopped? ─▶ link full blocks, copy the rest ─▶ SIGCONT ─▶ copied on at leisure

What a stopped process has written is what a killed one leaves, and from that a store recovers whole: all streams of one
moment, atomic batches included (`batches/` beside the blocks finishes one that was cut). A block that is full is never
written in place: the server compacts it into a new file. A link therefore keeps it, and costs no time; its size and
time of change are compared once it has been copied.

The server's own snapshot API does neither: it reads block after block while writes go on, leaves `batches/` out, and
decrypts what is encrypted on the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sensegate.bus import process
from sensegate.bus.backup import contents
from sensegate.bus.backup.contents import FileKind
from sensegate.errors import Conflict, EngineError, Unavailable

STOP_S: Final = 2.0
"""Longest time until all threads of the server have stopped: one may be in the middle of a write."""
STANDSTILL_S: Final = 5.0
"""Longest standstill; the gateway gives up a server that is silent for some times as long."""
_BLOCK = re.compile(r"(.+/msgs/)([0-9]+)\.blk")


class StagedFile(msgspec.Struct, frozen=True):
    """A file as it was at the moment of the standstill."""

    path: str
    """Relative to the gateway's directory, and to the staging directory."""
    size: int
    changed: int
    """Time of its last change, ns, of a linked file; 0: it is a copy, and nobody writes it."""


class StoreView(msgspec.Struct, frozen=True):
    """The state of the store at one moment."""

    staging: Path
    files: tuple[StagedFile, ...]
    at: int
    """µs UTC."""
    standstill_s: float


@contextlib.contextmanager
def view(directory: Path) -> Iterator[StoreView]:
    """Yield the files of a gateway as of one moment; the staging directory is removed at the end.

    Args:
        directory: of the gateway.

    Raises:
        Conflict: another backup of this gateway runs.
        Unavailable: the server does not stop, or there is more to copy than a standstill allows.
        OSError: a file cannot be read, or there is no room.
    """
    engine = directory / "engine"
    with contextlib.ExitStack() as stack:
        try:
            stack.callback(os.close, process.lock(engine / "backup.lock", "another backup of this gateway runs"))
        except EngineError as why:
            raise Conflict(str(why)) from why
        for leftover in directory.glob(f"{contents.STAGING}*"):
            shutil.rmtree(leftover)
        staging = directory / f"{contents.STAGING}{secrets.token_hex(4)}"
        staging.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        began = time.monotonic()
        with _still(engine):
            at, files = time.time_ns() // 1_000, _stage(directory, staging, time.monotonic() + STANDSTILL_S)
            standstill_s = time.monotonic() - began
        yield StoreView(staging, tuple(files), at, standstill_s)


@contextlib.contextmanager
def _still(engine: Path) -> Iterator[None]:
    """Keep every server from writing to the store: stop the running one, or prevent a start. Raises `Unavailable`."""
    if (running := process.find_pid(engine)) is None:
        try:
            lock = process.lock(engine / "store.lock", "a server is about to start")
        except EngineError as why:
            raise Unavailable(f"{why}; try again in a moment") from why
        try:
            yield
        finally:
            os.close(lock)
        return
    pid, _ = running
    try:
        server = os.pidfd_open(pid)
    except ProcessLookupError as why:
        raise Unavailable("nats-server has just ended; try again in a moment") from why
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, server)
        stack.enter_context(_guard(pid))
        stack.callback(_send, server, signal.SIGCONT)
        _send(server, signal.SIGSTOP)
        _await_stop(pid)
        yield
        if not _send(server, signal.SIGCONT):
            raise Unavailable("nats-server ended during the standstill; try again")


def _send(server: int, number: signal.Signals) -> bool:
    """Send a signal; return False where the process has ended."""
    try:
        signal.pidfd_send_signal(server, number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def _guard(pid: int) -> Iterator[None]:
    """Resume the server if this process is killed: a shell waits for the end of our pipe."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -CONT "$0" 2>/dev/null', str(pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert shell.stdin is not None  # noqa: S101 - a pipe, see above
        shell.stdin.close()
        shell.wait()


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + STOP_S
    tasks = Path(f"/proc/{pid}/task")
    while not all(_has_stopped(task) for task in tasks.iterdir()):
        if time.monotonic() > deadline:
            raise Unavailable(f"nats-server (pid {pid}) did not stop within {STOP_S:g} s; the disk may be stuck")


def _has_stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rsplit(")", 1)[1].split()[0] in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _stage(directory: Path, staging: Path, deadline: float) -> list[StagedFile]:
    """Link or copy all that belongs into a backup. Raises `Unavailable` where that takes too long."""
    omitted = {FileKind.OMITTED, FileKind.SEGMENT}
    paths = [path for path in contents.files(directory) if contents.kind_of(path) not in omitted]
    newest: dict[str, int] = {}
    for path in paths:
        if block := _BLOCK.fullmatch(path):
            newest[block[1]] = max(newest.get(block[1], 0), int(block[2]))
    staged = []
    for path in paths:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the store cannot be held still for longer than {STANDSTILL_S:g} s; stop the gateway, then back it up"
            )
        target = staging / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        block = _BLOCK.fullmatch(path)
        if block and int(block[2]) < newest[block[1]]:
            staged.append(_linked(directory, path, target))
        else:
            # Beside the store, which stands still, a file may vanish at any moment.
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(directory / path, target)
                staged.append(StagedFile(path, target.stat().st_size, 0))
    return [*staged, *_stage_segments(directory, staging)]


def _stage_segments(directory: Path, staging: Path) -> Iterator[StagedFile]:
    """Link the segments of the history, which the gateway goes on merging meanwhile.

    A segment that others were merged into is there before these are deleted. So all readings are linked once two lists
    in a row are equal; those that are there twice are told apart by their spans when the history is opened.
    """
    staged: set[str] = set()
    before: set[str] = set()
    while (listed := _segments(directory)) != before:
        before = listed
        for path in sorted(listed - staged):
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                yield _linked(directory, path, target)
                staged.add(path)


def _segments(directory: Path) -> set[str]:
    return {path for path in contents.files(directory) if contents.kind_of(path) is FileKind.SEGMENT}


def _linked(directory: Path, path: str, target: Path) -> StagedFile:
    try:
        os.link(directory / path, target)
    except OSError:  # a file system without links
        shutil.copyfile(directory / path, target)
        return StagedFile(path, target.stat().st_size, 0)
    status = target.stat()
    return StagedFile(path, status.st_size, status.st_mtime_ns)


def is_unchanged(staging: Path, file: StagedFile) -> bool:
    """Return whether a staged file is still what it was at the standstill."""
    status = (staging / file.path).stat()
    return status.st_size == file.size and file.changed in (0, status.st_mtime_ns)
