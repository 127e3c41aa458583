"""A certificate authority (CA) for a laboratory, and the certificates of servers, nodes and devices that it signs.

A city has a CA of its own; the requirements are the same: host names or addresses of the server, both extended key
usages for a gateway that is server and client, the device's id as the common name.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sensegate.errors import ConfigError

CA, CA_KEY = "ca.pem", "ca.key"
CA_DAYS, DAYS = 3_650, 825
_BACKDATE = dt.timedelta(minutes=5)
"""Tolerance for clocks that differ within a laboratory."""
_USAGES = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


class CertificateFiles(msgspec.Struct, frozen=True):
    """The files of a certificate and its key."""

    cert_file: Path
    key_file: Path
    fingerprint: str
    """Pin: SHA-256 of the certificate, hex."""


class LaboratoryCA:
    """The CA in a directory, created if the directory has none."""

    def __init__(self, directory: Path, now: dt.datetime) -> None:
        """Open or create the CA. Raises `ConfigError`."""
        self._directory = directory
        self._now = now
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.file = directory / CA
        if not self.file.exists():
            self._create()
        try:
            self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
            key = load_pem_private_key((directory / CA_KEY).read_bytes(), None)
        except (OSError, ValueError, TypeError) as why:
            raise ConfigError(
                f"the CA cannot be loaded: {why}",
                file=str(self.file),
                remedy=f"restore it with {CA_KEY}, or use another directory",
            ) from why
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(
                "the key is not an elliptic-curve key", file=str(directory / CA_KEY), remedy="use another directory"
            )
        self._key = key

    def _create(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sensegate laboratory")])
        certificate = (
            self._builder(name, key, CA_DAYS)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_file(self._directory / CA_KEY, _pem_of(key), private=True)
        _write_file(self.file, certificate.public_bytes(Encoding.PEM))

    def issue(self, file: str, name: str, *, usage: str, hosts: Sequence[str] = ()) -> CertificateFiles:
        """Sign a certificate for a name, valid for hosts (names and addresses); write ``FILE.pem`` and ``FILE.key``.

        Existing files stay, so that a second run only adds.
        """
        cert_file, key_file = self._directory / f"{file}.pem", self._directory / f"{file}.key"
        if cert_file.exists() and key_file.exists():
            return CertificateFiles(cert_file, key_file, fingerprint(cert_file))
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            self._builder(subject, key, DAYS)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_file(key_file, _pem_of(key), private=True)
        _write_file(cert_file, certificate.public_bytes(Encoding.PEM) + self._certificate.public_bytes(Encoding.PEM))
        return CertificateFiles(cert_file, key_file, fingerprint(cert_file))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATE)
            .not_valid_after(self._now + dt.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def fingerprint(file: Path) -> str:
    """Return the pin (SHA-256, hex) of the first certificate in a PEM file. Raises `ConfigError`."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as why:
        problem = why.strerror if isinstance(why, OSError) else "the file holds no certificate"
        raise ConfigError(problem or "the file cannot be read", file=str(file), remedy="give a PEM file") from why
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def common_name(pem: str) -> str:
    """Return the common name of a PEM certificate; empty if it has none or cannot be parsed."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return ""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_file(file: Path, content: bytes, *, private: bool = False) -> None:
    mode = 0o600 if private else 0o644
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
        out.write(content)
