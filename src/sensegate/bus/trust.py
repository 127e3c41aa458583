"""Whom a connection trusts: an authority, a pinned certificate, or both; and the certificate that it shows itself."""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from sensegate.bus.server_conf import LINK_CA
from sensegate.config import EngineConfig
from sensegate.errors import ConfigError

_PIN = re.compile(r"[0-9a-f]{64}")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


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


def told(pem: str, host: str) -> ssl.SSLContext:
    """Return what checks the certificate of a centre whose PEM a node was told when it joined.

    It is that very certificate; or one in its place, signed by an authority that was told with it, for this host: other
    certificates of the same authority are those of nodes and devices.
    """
    made = ssl.create_default_context(cadata=pem or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not pem:
        return made
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first = ssl.PEM_cert_to_DER_cert(pem[pem.index(_BEGIN) : pem.index(_END) + len(_END)])

    class Known(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if self.getpeercert(binary_form=True) != first and not _is_for(self.getpeercert() or {}, host):
                raise ssl.SSLCertVerificationError(
                    f"the certificate shown is neither the one that was told on joining, nor one for {host}"
                )

    made.sslobject_class = Known
    return made


def _is_for(certificate: Mapping[str, Any], host: str) -> bool:
    """Return whether a certificate (as `getpeercert` tells it) names a host: a name, or an address."""
    names = [text.casefold() for kind, text in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if any(name == host.casefold() or name == f"*.{host.casefold().partition('.')[2]}" for name in names):
        return True
    addresses = [text for kind, text in certificate.get("subjectAltName", ()) if kind == "IP Address"]
    with contextlib.suppress(ValueError):
        return ip_address(host) in {ip_address(text) for text in addresses}
    return False


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
