"""Device passwords of protocols that prescribe their form, e.g. four digits or six characters."""

from __future__ import annotations

import hmac
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.errors import ConfigError

CHECK_INTERVAL_S = 2.0
"""Interval of checking whether the file has changed."""
ANY_OTHER = "*"

_log = structlog.get_logger("collect")


class DevicePasswords:
    """A file of lines ``name password``, with ``*`` for all other names; ``#`` begins a comment.

    It is reloaded when it changes. If that fails, the previous passwords stay in force.
    """

    def __init__(self, file: str, clock: Clock) -> None:
        """Read the file. Raises `ConfigError` if it is unreadable or malformed."""
        self._path = Path(file)
        self._clock = clock
        self._checked_at = clock.monotonic()
        self._stamp = self._stamp_of()
        self._passwords = self._read()

    def match(self, name: str, password: str) -> bool:
        """Return whether a password belongs to a name."""
        self._reload()
        expected = self._passwords.get(name, self._passwords.get(ANY_OTHER))
        if expected is None:
            return False
        return hmac.compare_digest(expected.encode(), password.encode("utf-8", "replace"))

    def _reload(self) -> None:
        now = self._clock.monotonic()
        if now - self._checked_at < CHECK_INTERVAL_S:
            return
        self._checked_at = now
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._passwords = self._read()
        except ConfigError as why:
            _log.error("password file not reloaded; keeping the previous passwords", reason=str(why))

    def _stamp_of(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as why:
            raise ConfigError("the password file cannot be read", file=str(self._path), remedy=str(why)) from why
        passwords: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2:
                raise ConfigError(
                    "the line is not a name and a password",
                    file=str(self._path),
                    line=number,
                    remedy="write `name password`",
                )
            passwords[words[0]] = words[1]
        return passwords
