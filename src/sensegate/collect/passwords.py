"""Passwords of devices that speak protocols whose passwords are not ours to make: four digits, six characters."""

from __future__ import annotations

import hmac
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.errors import ConfigError

LOOK_S = 2.0
"""How often it is looked whether the file has changed."""
ANY_OTHER = "*"

_log = structlog.get_logger("collect")


class Passwords:
    """A file with a line ``name password`` each, ``*`` for all names that have none of their own; # begins a comment.

    It is read again when it changes. What cannot be read leaves what was read before in force.
    """

    def __init__(self, file: str, clock: Clock) -> None:
        """Read the file. Raises `ConfigError` where it cannot be, or has a line that is none of these."""
        self._path = Path(file)
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._stamp = self._stamp_of()
        self._known = self._read()

    def match(self, name: str, password: str) -> bool:
        """Return whether a password is the one of a name."""
        self._look()
        known = self._known.get(name, self._known.get(ANY_OTHER))
        if known is None:
            return False
        return hmac.compare_digest(known.encode(), password.encode("utf-8", "replace"))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = self._read()
        except ConfigError as why:
            _log.error("passwords are what they were", cause=str(why))

    def _stamp_of(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as why:
            raise ConfigError("passwords cannot be read", file=str(self._path), remedy=str(why)) from why
        known: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2:
                raise ConfigError(
                    "not a name and a password", file=str(self._path), line=number, remedy="name password"
                )
            known[words[0]] = words[1]
        return known
