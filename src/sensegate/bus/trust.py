"""TLS: contexts of listeners and of client connections, trusted authorities, pinned certificates.

With TLS 1.2 only suites with forward secrecy and authenticated encryption are offered; those with CBC are not.
"""

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


CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Suites of TLS 1.2, in OpenSSL's language; those of TLS 1.3 are all sound."""


def server_context(key: str, *, cert_file: str, key_file: str = "", ca_file: str = "") -> ssl.SSLContext:
    """Return the TLS context of a listener; with `ca_file` clients must present a certificate.

    `key`: section of the configuration, for error texts. Raises `ConfigError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        load_server_files(context, cert_file=cert_file, key_file=key_file, ca_file=ca_file)
    except (OSError, ssl.SSLError) as why:
        remedy = "give PEM files; see config/README.md"
        raise ConfigError(f"the certificate cannot be loaded: {why}", key=key, remedy=remedy) from why
    return context


def load_server_files(context: ssl.SSLContext, *, cert_file: str, key_file: str, ca_file: str) -> None:
    """Load the files of a listener into its context. Raises `OSError`, `ssl.SSLError`."""
    context.load_cert_chain(cert_file, key_file or None)
    if ca_file:
        context.load_verify_locations(ca_file)
        context.verify_mode = ssl.CERT_REQUIRED


def client_context(
    key: str, *, ca_file: str = "", pins: Sequence[str] = (), cert_file: str = "", key_file: str = ""
) -> ssl.SSLContext:
    """Return the TLS context of a client; with pins and without an authority only the pins decide.

    `key`: section of the configuration, for error texts. Raises `ConfigError`.
    """
    wanted = frozenset(pin.replace(":", "").lower() for pin in pins)
    if wrong := next((pin for pin in wanted if not _PIN.fullmatch(pin)), ""):
        raise ConfigError(
            f"'{wrong[:80]}' is not a SHA-256 digest", key=f"{key}.pin_sha256", remedy="`sensegate tls pin FILE`"
        )
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"the certificates are unusable: {why}", key=key, remedy="give PEM files") from why
    if wanted:
        if not ca_file:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        require_pin(context, wanted)
    return context


def require_pin(context: ssl.SSLContext, fingerprints: frozenset[str]) -> None:
    """Have a context abort every handshake in which the peer's certificate has none of these fingerprints.

    Nothing has been sent then, in particular no password.
    """

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            shown = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
            if shown not in fingerprints:
                raise ssl.SSLCertVerificationError(
                    f"the certificate ({shown[:16]}…) has none of the pinned fingerprints"
                )

    context.sslobject_class = Pinned


def joined_centre_context(pem: str, host: str) -> ssl.SSLContext:
    """Return the TLS context for a centre whose certificate chain a node received when it joined.

    It accepts exactly that certificate, or a successor for this host signed by an authority of the chain: other
    certificates of the same authority belong to nodes and devices.
    """
    context = ssl.create_default_context(cadata=pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    if not pem:
        return context
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first = ssl.PEM_cert_to_DER_cert(pem[pem.index(_BEGIN) : pem.index(_END) + len(_END)])

    class Known(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if self.getpeercert(binary_form=True) != first and not _names_host(self.getpeercert() or {}, host):
                raise ssl.SSLCertVerificationError(
                    f"the certificate is neither the one received on joining, nor one for {host}"
                )

    context.sslobject_class = Known
    return context


def _names_host(certificate: Mapping[str, Any], host: str) -> bool:
    """Return whether a certificate (of `getpeercert`) is for a host, given by name or address."""
    names = [text.casefold() for kind, text in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if any(name == host.casefold() or name == f"*.{host.casefold().partition('.')[2]}" for name in names):
        return True
    addresses = [text for kind, text in certificate.get("subjectAltName", ()) if kind == "IP Address"]
    with contextlib.suppress(ValueError):
        return ip_address(host) in {ip_address(text) for text in addresses}
    return False


def check(cert_file: str, key_file: str) -> None:
    """Return if a certificate and its key are usable. Raises `ConfigError`."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(
            f"is unusable: {why}", file=cert_file, remedy="give a certificate and its key, as PEM"
        ) from why


def write_link_authorities(config: EngineConfig, directory: Path) -> None:
    """Write the authorities of client certificates on links: the configured one, and our own certificate.

    Raises:
        ConfigError: a file cannot be read, or TLS is not configured.
    """
    if not config.link_ca_file:
        return
    if not config.tls.cert_file:
        raise ConfigError("client certificates need TLS", key="engine.link_ca_file", remedy="set engine.tls")
    try:
        both = [Path(file).read_text(encoding="ascii").strip() for file in (config.link_ca_file, config.tls.cert_file)]
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", key="engine.link_ca_file", remedy="give PEM files") from why
    (directory / LINK_CA).write_text("\n".join([*both, ""]), encoding="ascii")
