"""The encrypted file of secrets in a backup: keys and passwords, under a passphrase that lies elsewhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sensegate.bus.files import leads_out
from sensegate.errors import ConfigError

_COST: Final = 2**15
_LEAST_CHARACTERS: Final = 16
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_CONTEXT: Final = b"sensegate backup secrets 1"


class _Sealed(msgspec.Struct, frozen=True):
    salt: bytes
    nonce: bytes
    body: bytes
    cost: Annotated[int, msgspec.Meta(ge=2**14, le=2**20)] = _COST
    format: Literal[1] = 1


def passphrase(file: Path) -> bytes:
    """Return the passphrase in a file.

    Raises:
        ConfigError: it cannot be read, others may read it, or it is too short.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError("others may read it", file=str(file), remedy=f"chmod 600 {file}")
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as why:
        remedy = f"make it: `(umask 077; openssl rand -hex 32 > {file})`, and keep it apart from the backup"
        raise ConfigError(f"cannot be read: {why}", file=str(file), remedy=remedy) from why
    if len(text) < _LEAST_CHARACTERS:
        raise ConfigError(
            f"the passphrase has less than {_LEAST_CHARACTERS} characters",
            file=str(file),
            remedy="make one: openssl rand -hex 32",
        )
    return text.encode()


def seal(file: Path, contents: Mapping[str, bytes], key: bytes) -> None:
    """Write secrets encrypted under a passphrase. Raises `OSError`."""
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    body = AESGCM(_derived(key, salt, _COST)).encrypt(nonce, msgspec.msgpack.encode(dict(contents)), _CONTEXT)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as writer:
        writer.write(msgspec.msgpack.encode(_Sealed(salt, nonce, body)))
        writer.flush()
        os.fsync(writer.fileno())


def unseal(file: Path, key: bytes) -> dict[str, bytes]:
    """Return the secrets of a backup.

    Raises:
        ConfigError: the file is damaged, or it was encrypted under another passphrase.
    """
    try:
        sealed = msgspec.msgpack.decode(file.read_bytes(), type=_Sealed)
        body = AESGCM(_derived(key, sealed.salt, sealed.cost)).decrypt(sealed.nonce, sealed.body, _CONTEXT)
        contents = msgspec.msgpack.decode(body, type=dict[str, bytes])
    except InvalidTag as why:
        remedy = "give the passphrase file with which the backup was made"
        raise ConfigError("it was encrypted under another passphrase", file=str(file), remedy=remedy) from why
    except (OSError, ValueError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(file), remedy="take another copy of this backup") from why
    if unsafe := [name for name in contents if leads_out(name)]:
        raise ConfigError(f"{unsafe[0]!r} leads out of the backup", file=str(file), remedy="do not use this backup")
    return contents


def _derived(key: bytes, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=cost, r=8, p=1).derive(key)
