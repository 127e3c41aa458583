"""Certificates that end soon are named before they do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from sensegate.clock import DAY_US, HOUR_US, Clock
from sensegate.config import Config

SOON_DAYS = 30
LOOK_US = HOUR_US


class Expiry:
    """Looks at the files of certificates, at most once an hour."""

    def __init__(self, files: Mapping[str, str], clock: Clock) -> None:
        """`files`: key of the configuration -> PEM file; empty ones are left out."""
        self._files = {key: file for key, file in files.items() if file}
        self._clock = clock
        self._looked = -LOOK_US
        self._said: list[str] = []

    def troubles(self) -> list[str]:
        """Return which ends within 30 days or has ended, a sentence each."""
        now = self._clock.now()
        if now - self._looked >= LOOK_US:
            self._looked = now
            self._said = [said for key, file in self._files.items() if (said := self._said_of(key, Path(file), now))]
        return self._said

    @staticmethod
    def _said_of(key: str, file: Path, now: int) -> str:
        try:
            ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(file.read_bytes()))
        except (OSError, ValueError) as why:
            return f"certificate: {file} ({key}) cannot be read: {why}"
        days = (ends - datetime.fromtimestamp(now / 1e6, UTC)).total_seconds() * 1e6 / DAY_US
        if days > SOON_DAYS:
            return ""
        when = f"ends on {ends:%Y-%m-%d}" if days > 0 else f"ended on {ends:%Y-%m-%d}"
        return f"certificate: {file} ({key}) {when}; replace it, and pin the next one beside it where it is pinned"


def expiring(config: Config, clock: Clock) -> Expiry:
    """Return what looks at all certificates of a configuration."""
    engine, uplink, web = config.engine, config.uplink, config.web
    files = {
        "web.tls.cert_file": web.tls.cert_file,
        "web.tls.ca_file": web.tls.ca_file,
        "engine.tls.cert_file": engine.tls.cert_file,
        "engine.tls.ca_file": engine.tls.ca_file,
        "engine.link_ca_file": engine.link_ca_file,
        "engine.ca_file": engine.ca_file,
        "uplink.cert_file": uplink.cert_file,
        "uplink.ca_file": uplink.ca_file,
        "oidc.ca_file": config.oidc.ca_file,
    }
    files |= {f"listen.tcp.{one.name or one.protocol}.tls.cert_file": one.tls.cert_file for one in config.listen.tcp}
    return Expiry(files, clock)
