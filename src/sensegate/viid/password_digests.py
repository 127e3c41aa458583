"""Encrypted HTTP Digest hashes of device passwords.

A salted hash cannot verify a digest: that needs H(user:realm:password), which is as powerful as the password within its
realm. It is computed when the password is issued, encrypted with a key of this gateway (AES-256-GCM, bound to the
device's id), and stored next to the salted hash in the registry. The password itself is not stored. The registry alone
reveals nothing; with the key file one could register as the devices, at this gateway only.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sensegate.bus.files import write_private
from sensegate.errors import ConfigError
from sensegate.model import Device

MD5, SHA256 = "MD5", "SHA-256"
ALGORITHMS: Final = (MD5, SHA256)
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CODE = re.compile(r"\d{20}(?:\d{2}|\d{4})?", re.ASCII)


def digest(algorithm: str, text: str) -> str:
    """Return the hash of a text as hex, as in RFC 7616."""
    raw = text.encode("utf-8", "surrogatepass")
    if algorithm == SHA256:
        return hashlib.sha256(raw).hexdigest()
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


class _StoredDigests(msgspec.Struct, frozen=True):
    realm: str
    users: dict[str, dict[str, str]]
    """H(user:realm:password) by user name and algorithm."""


class PasswordDigests:
    """Encryption and decryption of the digests of a realm."""

    def __init__(self, file: Path, realm: str) -> None:
        """Load or create the key. Raises `ConfigError` if the file is not a key, or is readable by others."""
        self.realm = realm
        self._cipher = AESGCM(_key(file))
        self._nobody = secrets.token_hex(32)

    def seal(self, device: Device, password: str) -> bytes:
        """Return the encrypted digests of a device's password; empty for a device without the code of a camera."""
        names = [name for name in (device.id, device.alias) if _CODE.fullmatch(name)]
        if not names:
            return b""
        users = {
            name: {algorithm: digest(algorithm, f"{name}:{self.realm}:{password}") for algorithm in ALGORITHMS}
            for name in names
        }
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(
            nonce, msgspec.json.encode(_StoredDigests(self.realm, users)), device.id.encode()
        )

    def open(self, sealed: bytes, device_id: str, user: str, algorithm: str) -> str:
        """Return H(user:realm:password); a value that never matches if it cannot be decrypted."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            stored = msgspec.json.decode(self._cipher.decrypt(nonce, text, device_id.encode()), type=_StoredDigests)
        except (InvalidTag, ValueError, msgspec.DecodeError):
            return self.nobody(user)
        if stored.realm != self.realm:
            return self.nobody(user)
        return stored.users.get(user, {}).get(algorithm) or self.nobody(user)

    def nobody(self, user: str) -> str:
        """Return a value for an unknown user that no password matches, in the same time."""
        return digest(SHA256, f"{user}:{self._nobody}")


def _key(file: Path) -> bytes:
    try:
        text = file.read_text(encoding="ascii").strip()
        if file.stat().st_mode & 0o077:
            raise ConfigError("the file is readable by others", file=str(file), remedy="chmod 600")
        key = bytes.fromhex(text)
    except FileNotFoundError:
        key = secrets.token_bytes(_KEY_BYTES)
        write_private(file, key.hex())
    except (OSError, ValueError) as why:
        remedy = "restore the file, or remove it and rotate the passwords of all cameras"
        raise ConfigError(f"the file is not a key: {type(why).__name__}", file=str(file), remedy=remedy) from None
    if len(key) != _KEY_BYTES:
        raise ConfigError("the file is not a key", file=str(file), remedy=f"give {_KEY_BYTES * 2} hex digits")
    return key
