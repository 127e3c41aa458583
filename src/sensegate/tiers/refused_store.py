"""Encryption of refused parts, which may hold unchecked personal data."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sensegate.bus.files import write_private
from sensegate.errors import ConfigError

FILE = "refused.key"
_KEY_BYTES, _NONCE_BYTES = 32, 12


class RefusedBodyCipher:
    """Encrypts and decrypts bodies of refused parts with the centre's own key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, directory: Path) -> RefusedBodyCipher:
        """Open the key in a gateway's directory; create it where there is none. Raises `ConfigError`."""
        file = directory / FILE
        try:
            key = bytes.fromhex(file.read_text(encoding="ascii").strip())
        except FileNotFoundError:
            key = secrets.token_bytes(_KEY_BYTES)
            write_private(file, key.hex())
        except (OSError, ValueError) as why:
            raise ConfigError("cannot be read", file=str(file), remedy=f"restore it, or remove it: {why}") from why
        if len(key) != _KEY_BYTES:
            raise ConfigError("is not a key of 32 bytes", file=str(file), remedy="restore it, or remove it")
        return cls(key)

    def encrypt(self, body: bytes) -> bytes:
        """Encrypt a body."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, body, None)

    def decrypt(self, sealed: bytes) -> bytes | None:
        """Decrypt a body; return None where it was encrypted with another key."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None
