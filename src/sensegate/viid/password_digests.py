"""What HTTP Digest needs of a device's password, kept sealed.

A salted hash of the password cannot answer a digest: the verifier needs H(user:realm:password), which opens this realm
like the password itself. It is made where the password is issued, sealed with a key of this gateway (AES-256-GCM, bound
to the device's id), and lies beside the hash in the registry. The password itself is kept nowhere. Who has the registry
alone has nothing; who has the key file as well could register as the devices, at this gateway only.
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

from sensegate.bus.process import write_private
from sensegate.errors import ConfigError
from sensegate.model import Device

MD5, SHA256 = "MD5", "SHA-256"
ALGORITHMS: Final = (MD5, SHA256)
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CODE = re.compile(r"\d{20}(?:\d{2}|\d{4})?", re.ASCII)


def digest(algorithm: str, text: str) -> str:
    """Return the hash of a text in hex, as RFC 7616 writes it."""
    raw = text.encode("utf-8", "surrogatepass")
    if algorithm == SHA256:
        return hashlib.sha256(raw).hexdigest()
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


class _Held(msgspec.Struct, frozen=True):
    realm: str
    users: dict[str, dict[str, str]]
    """User name -> algorithm -> H(user:realm:password)."""


class Digests:
    """Makes and opens what is kept of passwords for one realm."""

    def __init__(self, file: Path, realm: str) -> None:
        """Read the key, or make it. Raises `ConfigError`: the file is no key, or others may read it."""
        self.realm = realm
        self._cipher = AESGCM(_key(file))
        self._nobody = secrets.token_hex(32)

    def seal(self, device: Device, password: str) -> bytes:
        """Return what is kept of a device's password; nothing for a device whose names are no codes of cameras."""
        names = [name for name in (device.id, device.alias) if _CODE.fullmatch(name)]
        if not names:
            return b""
        users = {
            name: {algorithm: digest(algorithm, f"{name}:{self.realm}:{password}") for algorithm in ALGORITHMS}
            for name in names
        }
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.json.encode(_Held(self.realm, users)), device.id.encode())

    def open(self, sealed: bytes, device_id: str, user: str, algorithm: str) -> str:
        """Return H(user:realm:password); what cannot be opened gives one that fits nothing."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            held = msgspec.json.decode(self._cipher.decrypt(nonce, text, device_id.encode()), type=_Held)
        except (InvalidTag, ValueError, msgspec.DecodeError):
            return self.nobody(user)
        if held.realm != self.realm:
            return self.nobody(user)
        return held.users.get(user, {}).get(algorithm) or self.nobody(user)

    def nobody(self, user: str) -> str:
        """Return a value for a user that is unknown: an answer takes as long, and no password fits it."""
        return digest(SHA256, f"{user}:{self._nobody}")


def _key(file: Path) -> bytes:
    try:
        text = file.read_text(encoding="ascii").strip()
        if file.stat().st_mode & 0o077:
            raise ConfigError("others may read it", file=str(file), remedy="chmod 600")
        key = bytes.fromhex(text)
    except FileNotFoundError:
        key = secrets.token_bytes(_KEY_BYTES)
        write_private(file, key.hex())
    except (OSError, ValueError) as why:
        remedy = "restore it; without it every camera's password must be rotated: then remove it"
        raise ConfigError(f"is no key: {type(why).__name__}", file=str(file), remedy=remedy) from None
    if len(key) != _KEY_BYTES:
        raise ConfigError("is no key", file=str(file), remedy=f"{_KEY_BYTES * 2} hex digits")
    return key
