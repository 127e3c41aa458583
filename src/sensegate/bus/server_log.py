"""Forwarding of the server's log file into the gateway's log, and the permission violations found in it.

nats-server acknowledges an MQTT publish that it denies (MQTT 3.1.1 has no other response), so its log line is the only
trace.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.model import is_slug

_log = structlog.get_logger("engine")

_LINE = re.compile(rb"\[(\d+)\] \S+ \S+ \[(\w{3})\] ?(.*)")
_DENIED = re.compile(
    r'(?P<address>\S+) - (?P<kind>[cm])id:(?P<cid>\d+) - (?P<client>".*) - '
    r'(?P<operation>Publish|Subscription) Violation - (?:Subject|Reply) "(?P<subject>.*?)"'
)
_FAULT = re.compile(r"critical write error|will be DISABLED|Critical write error")
"""Lines after which a stream or all of JetStream silently rejects every write until the server restarts."""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_MQTT_CLIENT = re.compile(r' - mid:\d+ - "((?:[^"\\]|\\.)*)"')
_LOGIN = re.compile(r"authentication|authorization", re.IGNORECASE)
_MASK_KEY = secrets.token_bytes(16)
_READ_BYTES_MAX = 1024**2
_POLL_S = 0.25


class Violation(msgspec.Struct, frozen=True):
    """A publish or subscription that the server denied."""

    operation: Literal["publish", "subscribe"]
    subject: str
    """The subject; for an MQTT topic `/` is written as `.` and `.` as `//`."""
    connection: int
    """Id of the connection (`cid`), the `client_info.id` of the auth callout."""
    client_id: str
    """MQTT client id; for other clients name and version."""
    address: str
    mqtt: bool
    account: str = ""
    user: str = ""
    """User of the connection, where the server still knows it."""


def mask_free_text(subject: str) -> str:
    """Return a subject with its free-text levels masked by as many stars as bytes: they may be personal data."""
    return ".".join(level if _is_plain(level) else "*" * len(level.encode()) for level in subject.split("."))


def mask_name(name: str) -> str:
    """Return a mask of a name that somebody claims who is not authenticated: it may be a password or a phone number.

    Equal names have equal masks until the process ends, so that attempts can be told apart.
    """
    if not name:
        return ""
    return f"#{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=4, key=_MASK_KEY).hexdigest()}"


def claimed_names(text: str) -> list[str]:
    """Return the user names and client ids of a log line that nobody has proved, longest first."""
    names = _QUOTED.findall(text) if _LOGIN.search(text) else _MQTT_CLIENT.findall(text)
    return sorted({name for name in names if name}, key=len, reverse=True)


def _is_plain(level: str) -> bool:
    word = level.lstrip("$&")
    return not word or is_slug(word) or (word.isascii() and word.isdecimal() and len(word) in {1, 2, 3, 4, 20})


def parse_violation(text: str) -> Violation | None:
    """Return the permission violation that a log line reports; None: it reports none."""
    if "Violation" not in text or (match := _DENIED.match(text)) is None:
        return None
    quoted = _QUOTED.findall(match["client"])
    account, _, user = (quoted[1] if len(quoted) > 1 else "").partition("/")
    return Violation(
        operation="publish" if match["operation"] == "Publish" else "subscribe",
        subject=match["subject"],
        connection=int(match["cid"]),
        client_id=quoted[0] if quoted else "",
        address=match["address"],
        mqtt=match["kind"] == "m",
        account=account,
        user=user.removeprefix("user:"),
    )


class ServerLog:
    """Follows ``nats.log`` across rotations and restarts of server and gateway; stores its position in a file."""

    def __init__(
        self,
        directory: Path,
        on_violation: Callable[[Violation], None],
        on_fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = directory / "nats.log"
        self._position_file = directory / "nats.log.read"
        self._on_violation = on_violation
        self._on_fault = on_fault
        self._file: int | None = None
        self._partial_line = b""
        self._offset = 0
        self.last_errors: list[str] = []
        """The newest lines of level error or worse, at most 20, for the text of `EngineError`."""

    def open(self) -> None:
        """Continue at the stored position."""
        try:
            inode, offset = (int(word) for word in self._position_file.read_text(encoding="ascii").split())
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
        """Read new lines, at most 1 MiB; return their number."""
        file = self._open_newest() if self._file is None else self._file
        if file is None:
            return 0
        block = os.pread(file, _READ_BYTES_MAX, self._offset + len(self._partial_line))
        if not block:
            if self._is_rotated(file):
                os.close(file)
                self._file, self._partial_line, self._offset = None, b"", 0
            return 0
        *lines, self._partial_line = (self._partial_line + block).split(b"\n")
        for line in lines:
            self._forward(line)
            self._offset += len(line) + 1
        if len(self._partial_line) > _READ_BYTES_MAX:
            self._offset += len(self._partial_line)
            self._partial_line = b""
        with suppress(OSError):  # on a full disk: after a restart some lines are read again
            self._position_file.write_text(f"{os.fstat(file).st_ino} {self._offset}", encoding="ascii")
        return len(lines)

    async def follow(self, clock: Clock) -> None:
        """Poll until cancelled."""
        while True:
            try:
                lines = self.poll()
            except OSError as why:
                # Ending this task would go unnoticed, and with it later disk errors.
                _log.warning("cannot read the server's log", reason=str(why))
                lines = 0
            await clock.sleep(0 if lines else _POLL_S)

    def close(self) -> None:
        """Read the remaining lines and close the file."""
        while self.poll():
            pass
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_newest(self) -> int | None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        self._offset, self._partial_line = 0, b""
        return self._file

    def _is_rotated(self, file: int) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(file).st_ino
        except OSError:
            return False

    def _mask_in_file(self, line: bytes, masks: Sequence[tuple[str, str]]) -> None:
        """Overwrite texts of a client in the server's log file with masks of the same length: they may be personal."""
        hidden = line
        for text, mask in masks:
            hidden = hidden.replace(text.encode(), mask.encode())
        if self._file is not None and hidden != line and len(hidden) == len(line):
            with suppress(OSError):
                os.pwrite(self._file, hidden, self._offset)

    def _forward(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            return
        level, text = match[2].decode(), match[3].decode(errors="replace")
        if (violation := parse_violation(text)) is not None:
            free_texts = [violation.subject, *([violation.client_id] if violation.mqtt else [])]
            for free_text in free_texts:
                text = text.replace(free_text, mask_free_text(free_text))
            _log.debug(text)
            self._mask_in_file(line, [(free_text, mask_free_text(free_text)) for free_text in free_texts])
            self._on_violation(violation)
            return
        if names := claimed_names(text):
            for name in names:
                text = text.replace(f'"{name}"', f'"{mask_name(name)}"')
            self._mask_in_file(line, [(f'"{name}"', f'"{"*" * len(name.encode())}"') for name in names])
        if _FAULT.search(text):
            _log.error(text)
            self._on_fault(text)
        elif level in {"FTL", "ERR"}:
            self.last_errors = [*self.last_errors[-19:], text]
            _log.error(text) if level == "FTL" else _log.warning(text)
        elif level == "WRN" and "Plaintext passwords" not in text:
            # The server warns about our configuration file, which has mode 0600 and random passwords.
            _log.warning(text)
        else:
            _log.debug(text)
