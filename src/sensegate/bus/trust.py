"""Whom a connection trusts: an authority, a pinned certificate, or both; and the certificate that it shows itself."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Sequence
from pathlib import Path

from sensegate.bus.server_conf import LINK_CA
from sensegate.config import EngineConfig
from sensegate.errors import ConfigError

_PIN = re.compile(r"[0-9a-f]{64}")


def context(
    key: str, *, ca_file: str = "", pins: Sequence[str] = (), cert_file: str = "", key_file: str = ""
) -> ssl.SSLContext:
    """Return what a client checks and shows; with pins and no authority the pin alone decides.

    `key`: section of the configuration, for errors. Raises `ConfigError`.
    """
    wanted = frozenset(pin.replace(":", "").lower() for pin in pins)
    if wrong := next((pin for pin in wanted if not _PIN.fullmatch(pin)), ""):
        raise ConfigError(f"'{wrong[:80]}' is no SHA-256", key=f"{key}.pin_sha256", remedy="`sensegate tls pin FILE`")
    try:
        made = ssl.create_default_context(cafile=ca_file or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_file:
            made.load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"certificates cannot be used: {why}", key=key, remedy="PEM files") from why
    if wanted:
        if not ca_file:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        pin(made, wanted)
    return made


def pin(made: ssl.SSLContext, wanted: frozenset[str]) -> None:
    """Have a context end every handshake with a certificate that has none of these fingerprints.

    It ends there, before a password or anything else is sent.
    """

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            shown = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if shown not in wanted:
                raise ssl.SSLCertVerificationError(
                    f"the certificate shown ({shown[:16]}…) has none of the pinned fingerprints"
                )

    made.sslobject_class = Pinned


def check(cert_file: str, key_file: str) -> None:
    """Return if a certificate and its key can be shown. Raises `ConfigError`."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"cannot be used: {why}", file=cert_file, remedy="PEM files that belong together") from why


def gather(config: EngineConfig, directory: Path) -> None:
    """Write whose certificates the server takes of links: those of the authority, and our own, which we show it.

    Raises:
        ConfigError: one of the files cannot be read, or links would be asked without TLS.
    """
    if not config.link_ca_file:
        return
    if not config.tls.cert_file:
        raise ConfigError("links show certificates by TLS alone", key="engine.link_ca_file", remedy="give engine.tls")
    try:
        both = [Path(file).read_text(encoding="ascii").strip() for file in (config.link_ca_file, config.tls.cert_file)]
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", key="engine.link_ca_file", remedy="PEM files") from why
    (directory / LINK_CA).write_text("\n".join([*both, ""]), encoding="ascii")
