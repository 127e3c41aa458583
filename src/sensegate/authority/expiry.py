"""Warnings of certificates that expire soon."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from sensegate.clock import DAY_US, HOUR_US, Clock
from sensegate.config import Config

WARN_DAYS = 30
CHECK_INTERVAL_US = HOUR_US


class CertificateExpiry:
    """The expiry of certificate files, checked at most once an hour."""

    def __init__(self, files: Mapping[str, str], clock: Clock) -> None:
        """`files` maps configuration keys to PEM files; empty names are ignored."""
        self._files = {key: file for key, file in files.items() if file}
        self._clock = clock
        self._checked = -CHECK_INTERVAL_US
        self._warnings: list[str] = []

    def warnings(self) -> list[str]:
        """Return a warning for each certificate that expires within 30 days or has expired."""
        now = self._clock.now()
        if now - self._checked >= CHECK_INTERVAL_US:
            self._checked = now
            self._warnings = [
                text for key, file in self._files.items() if (text := self._warning_of(key, Path(file), now))
            ]
        return self._warnings

    @staticmethod
    def _warning_of(key: str, file: Path, now: int) -> str:
        try:
            expires = min(
                certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(file.read_bytes())
            )
        except (OSError, ValueError) as why:
            return f"certificate: {file} ({key}) cannot be read: {why}"
        days = (expires - datetime.fromtimestamp(now / 1e6, UTC)).total_seconds() * 1e6 / DAY_US
        if days > WARN_DAYS:
            return ""
        when = f"expires on {expires:%Y-%m-%d}" if days > 0 else f"expired on {expires:%Y-%m-%d}"
        return f"certificate: {file} ({key}) {when}; replace it, and add the pin of the new one wherever it is pinned"


def certificate_expiry(config: Config, clock: Clock) -> CertificateExpiry:
    """Return the expiry checks of all certificates of a configuration."""
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
    files |= {
        f"listen.tcp.{listener_config.name or listener_config.protocol}.tls.cert_file": listener_config.tls.cert_file
        for listener_config in config.listen.tcp
    }
    return CertificateExpiry(files, clock)
