"""Certificates that are replaced while we run: put in force without a restart.

HTTP connections and links stay; nats-server lets devices in anew when it reads its configuration again, so they connect
again once. A pair that does not fit (one file is written, the other not yet) is not taken, and tried again when a file
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import ConfigError

LOOK_S = 5.0

_log = structlog.get_logger("certificates")


class Rotation:
    """Looks at files and has what changed put in force."""

    def __init__(self, files: Sequence[str], renew: Sequence[Callable[[], None]], clock: Clock) -> None:
        """`renew` reads them again, or raises `ConfigError` and leaves all as it was."""
        self._files = [Path(file) for file in files if file]
        self._renew = renew
        self._clock = clock
        self._seen = self._stamps()

    def _stamps(self) -> list[tuple[int, int]]:
        found = []
        for file in self._files:
            try:
                state = file.stat()
                found.append((state.st_mtime_ns, state.st_ino))
            except OSError:
                found.append((0, 0))
        return found

    async def run(self) -> None:
        """Look until cancelled."""
        while self._files:
            await self._clock.sleep(LOOK_S)
            self.look()
        await self._clock.sleep(float(2**31))

    def look(self) -> bool:
        """Put in force what has changed; return whether something has."""
        stamps = self._stamps()
        if stamps == self._seen or any(stamp == (0, 0) for stamp in stamps):
            return False
        self._seen = stamps
        for renew in self._renew:
            try:
                renew()
            except ConfigError as why:
                _log.warning("new certificates are not taken; the old ones stay", cause=str(why))
        _log.info("certificates renewed", files=[str(file) for file in self._files])
        return True


def rotating(config: Config, renew: Sequence[Callable[[], None]], clock: Clock) -> Rotation:
    """Return what looks at the certificates of our own listeners."""
    pairs = (config.web.tls, config.engine.tls)
    files = [file for tls in pairs for file in (tls.cert_file, tls.key_file, tls.ca_file)]
    return Rotation([*files, config.engine.link_ca_file], renew, clock)
