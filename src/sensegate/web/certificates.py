"""Reload of replaced certificates without a restart.

HTTP connections and links stay open; nats-server disconnects devices when it reloads its configuration, so that they
reconnect once. A certificate that does not match its key (one file is written, the other not yet) is not loaded, and
tried again when a file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.errors import ConfigError

CHECK_INTERVAL_S = 5.0

_log = structlog.get_logger(__name__)


class CertificateReload:
    """Watches certificate files and reloads them when they change."""

    def __init__(self, files: Sequence[str], renew: Sequence[Callable[[], None]], clock: Clock) -> None:
        """`renew` reloads the certificates, or raises `ConfigError` and keeps the previous ones."""
        self._files = [Path(file) for file in files if file]
        self._renew = renew
        self._clock = clock
        self._seen = self._stamps()

    def _stamps(self) -> list[tuple[int, int]]:
        stamps = []
        for file in self._files:
            try:
                state = file.stat()
                stamps.append((state.st_mtime_ns, state.st_ino))
            except OSError:
                stamps.append((0, 0))
        return stamps

    async def run(self) -> None:
        """Check periodically until cancelled."""
        while self._files:
            await self._clock.sleep(CHECK_INTERVAL_S)
            self.check()
        await self._clock.sleep(float(2**31))

    def check(self) -> bool:
        """Reload the certificates if a file has changed; return whether one has."""
        stamps = self._stamps()
        if stamps == self._seen or any(stamp == (0, 0) for stamp in stamps):
            return False
        self._seen = stamps
        for renew in self._renew:
            try:
                renew()
            except ConfigError as why:
                _log.warning("certificates not reloaded; keeping the previous ones", reason=str(why))
        _log.info("certificates reloaded", files=[str(file) for file in self._files])
        return True


def certificate_reload(config: Config, renew: Sequence[Callable[[], None]], clock: Clock) -> CertificateReload:
    """Return the reload of the certificates of the gateway's listeners."""
    pairs = (config.web.tls, config.engine.tls)
    files = [file for tls in pairs for file in (tls.cert_file, tls.key_file, tls.ca_file)]
    return CertificateReload([*files, config.engine.link_ca_file], renew, clock)
