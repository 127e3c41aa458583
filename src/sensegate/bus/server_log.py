"""The server's log file, folded into ours, and the refusals that stand nowhere else.

nats-server acknowledges a publish that it refuses (MQTT 3.1.1 has no other answer), so the log line is the only trace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.model import is_slug

_log = structlog.get_logger("engine")

_LINE = re.compile(rb"\[(\d+)\] \S+ \S+ \[(\w{3})\] ?(.*)")
_REFUSED = re.compile(
    r'(?P<address>\S+) - (?P<kind>[cm])id:(?P<cid>\d+) - (?P<who>".*) - '
    r'(?P<what>Publish|Subscription) Violation - (?:Subject|Reply) "(?P<subject>.*?)"'
)
_FAULT = re.compile(r"critical write error|will be DISABLED|Critical write error")
"""After such a line a stream or all of JetStream refuses every write, silently, until the server is started again."""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_READ_BYTES_MAX = 1024**2
_POLL_S = 0.1


class Violation(msgspec.Struct, frozen=True):
    """A publish or subscription that the server refused."""

    what: Literal["publish", "subscribe"]
    subject: str
    """As a subject; of an MQTT topic, `/` stands as `.` and `.` as `//`."""
    connection: int
    """The server's number of the connection (`cid`), the `client_info.id` of the auth callout."""
    client_id: str
    """MQTT client id; for other clients their name and version."""
    address: str
    mqtt: bool
    account: str = ""
    user: str = ""
    """User of the account, where the server still knows the connection."""


def masked(subject: str) -> str:
    """Return a subject with stars (as many as bytes) for its levels that are free text: they may be about somebody."""
    return ".".join(level if _is_plain(level) else "*" * len(level.encode()) for level in subject.split("."))


def _is_plain(level: str) -> bool:
    word = level.lstrip("$&")
    return not word or is_slug(word) or (word.isascii() and word.isdecimal() and len(word) in {1, 2, 3, 4, 20})


def violation(text: str) -> Violation | None:
    """Return the refusal that a log line tells of, or None."""
    if "Violation" not in text or (found := _REFUSED.match(text)) is None:
        return None
    quoted = _QUOTED.findall(found["who"])
    account, _, user = (quoted[1] if len(quoted) > 1 else "").partition("/")
    return Violation(
        what="publish" if found["what"] == "Publish" else "subscribe",
        subject=found["subject"],
        connection=int(found["cid"]),
        client_id=quoted[0] if quoted else "",
        address=found["address"],
        mqtt=found["kind"] == "m",
        account=account,
        user=user.removeprefix("user:"),
    )


class ServerLog:
    """Follows ``nats.log`` across rotations and restarts of either side; remembers how far it read."""

    def __init__(
        self,
        directory: Path,
        on_violation: Callable[[Violation], None],
        on_fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = directory / "nats.log"
        self._place = directory / "nats.log.read"
        self._on_violation = on_violation
        self._on_fault = on_fault
        self._file: int | None = None
        self._rest = b""
        self._offset = 0
        self.last_errors: list[str] = []
        """The newest lines of error or worse, at most 20, for the message of `EngineError`."""

    def open(self) -> None:
        """Go to where the last reader of this file stopped."""
        try:
            inode, offset = (int(word) for word in self._place.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            return
        for path in (self._path, *sorted(self._path.parent.glob("nats.log.2*"), reverse=True)):
            try:
                status = path.stat()
            except OSError:
                continue
            if status.st_ino == inode and status.st_size >= offset:
                self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                self._offset = offset
                return

    def poll(self) -> int:
        """Read what has come, at most 1 MiB; return the number of lines."""
        if self._file is None and not self._open_newest():
            return 0
        assert self._file is not None  # noqa: S101 - for the type checker
        block = os.pread(self._file, _READ_BYTES_MAX, self._offset + len(self._rest))
        if not block:
            if self._rotated():
                os.close(self._file)
                self._file, self._rest, self._offset = None, b"", 0
            return 0
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._fold(line)
            self._offset += len(line) + 1
        if len(self._rest) > _READ_BYTES_MAX:
            self._offset += len(self._rest)
            self._rest = b""
        with suppress(OSError):  # on a full disk: the next reader then begins further back
            self._place.write_text(f"{os.fstat(self._file).st_ino} {self._offset}", encoding="ascii")
        return len(lines)

    async def follow(self, clock: Clock) -> None:
        """Poll until cancelled."""
        while True:
            try:
                lines = self.poll()
            except OSError as why:
                # Nobody would hear of this task's end, and with it go the errors of the disk.
                _log.warning("the server's log cannot be read now", error=str(why))
                lines = 0
            await clock.sleep(0 if lines else _POLL_S)

    def close(self) -> None:
        """Read the rest and let go of the file."""
        while self.poll():
            pass
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_newest(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._offset, self._rest = 0, b""
        return True

    def _rotated(self) -> bool:
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            return self._path.stat().st_ino != os.fstat(self._file).st_ino
        except OSError:
            return False

    def _hide(self, line: bytes, told: Sequence[str]) -> None:
        """Write over what a device's own words may say of somebody, where the server has written them."""
        hidden = line
        for word in told:
            hidden = hidden.replace(word.encode(), masked(word).encode())
        if self._file is not None and hidden != line and len(hidden) == len(line):
            with suppress(OSError):
                os.pwrite(self._file, hidden, self._offset)

    def _fold(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None:
            return
        level, text = found[2].decode(), found[3].decode(errors="replace")
        if (refused := violation(text)) is not None:
            told = [refused.subject, *([refused.client_id] if refused.mqtt else [])]
            for word in told:
                text = text.replace(word, masked(word))
            _log.debug(text)
            self._hide(line, told)
            self._on_violation(refused)
        elif _FAULT.search(text):
            _log.error(text)
            self._on_fault(text)
        elif level == "FTL" or level == "ERR":  # noqa: PLR1714 - reads better so
            self.last_errors = [*self.last_errors[-19:], text]
            _log.error(text) if level == "FTL" else _log.warning(text)
        elif level == "WRN" and "Plaintext passwords" not in text:
            # The file that holds them is ours, 0600, and made of random bytes.
            _log.warning(text)
        else:
            _log.debug(text)
