"""Encryption of the store: the cipher, the key, and the check that a store is opened only with its own key.

nats-server itself would start with another key, or none: it skips streams that it cannot read, and empty ones would be
created in their place. So ``store.json`` beside the store records the cipher and a digest of the key, and a mismatch is
refused before the server starts. The key is in no configuration file: the server gets it in its environment.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from sensegate.bus.files import write_private
from sensegate.bus.server_conf import KEY_VARIABLE
from sensegate.config import EngineConfig
from sensegate.errors import ConfigError, EngineError

KEY_FILE, MANIFEST_FILE = "store.key", "store.json"
_KEY_CHARACTERS_MIN: Final = 16


class StoreEncryption(msgspec.Struct, frozen=True):
    """Cipher and key with which the server encrypts its store."""

    cipher: str = ""
    """Empty: the store is not encrypted."""
    key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the server; the key is hashed so that the server always parses it as a string."""
        return {KEY_VARIABLE: f"k{hashlib.sha256(self.key.encode()).hexdigest()}"} if self.cipher else {}


class _EncryptionManifest(msgspec.Struct, frozen=True):
    cipher: str
    key: str = ""
    """Digest of the key."""


def open_encryption(config: EngineConfig, directory: Path, *, personal: bool) -> StoreEncryption:
    """Return the encryption of the store in a directory; create key and manifest for a new store.

    Args:
        config: whether to encrypt, the cipher, and the file of the key.
        directory: directory of the engine.
        personal: messages may contain personal data (a profile reads video metadata).

    Raises:
        EngineError: the store was created with other settings than the configuration now asks for.
        ConfigError: the key cannot be read, is too short, or is readable by others.
    """
    made = _read_manifest(directory)
    is_sealed = made is not None and bool(made.cipher)
    wanted = config.encryption in {"on", "convert"} or (config.encryption == "auto" and (personal or is_sealed))
    if not wanted:
        if is_sealed:
            raise EngineError(f"{directory / 'store'} is encrypted; set engine.encryption: auto or on")
        return StoreEncryption()
    if made is not None and not is_sealed and config.encryption != "convert":
        cause = "a profile reads video metadata" if config.encryption == "auto" else "engine.encryption: on"
        raise EngineError(
            f"{directory / 'store'} was created without encryption, which is now required ({cause}); make a backup and "
            "set engine.encryption: convert to have the server encrypt it, or use another directory, or set "
            "engine.encryption: off if devices send no personal data"
        )
    if made is not None and is_sealed and made.cipher != config.cipher:
        raise EngineError(f"{directory / 'store'} was created with {made.cipher}; set engine.cipher: {made.cipher}")
    sealed = StoreEncryption(config.cipher, _read_or_create_key(config, directory, known=is_sealed))
    digest = hashlib.sha256(b"mark\0" + sealed.key.encode()).hexdigest()[:32]
    if made is None or not is_sealed:
        write_private(
            directory / MANIFEST_FILE, msgspec.json.encode(_EncryptionManifest(config.cipher, digest)).decode()
        )
    elif made.key != digest:
        raise EngineError(
            f"{directory / 'store'} was created with another key than that of {_key_location(config, directory)}; "
            "provide the original key: nothing else can read the store"
        )
    return sealed


def _read_manifest(directory: Path) -> _EncryptionManifest | None:
    """Return the manifest of a store (no cipher: not encrypted); None where there is no store yet."""
    try:
        mark = msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=_EncryptionManifest)
    except FileNotFoundError:
        return _EncryptionManifest("") if (directory / "store" / "jetstream").exists() else None
    except (OSError, msgspec.DecodeError) as why:
        raise EngineError(f"{directory / MANIFEST_FILE} cannot be read: {why}; restore it") from why
    return mark


def _key_location(config: EngineConfig, directory: Path) -> str:
    return f"${KEY_VARIABLE}" if os.environ.get(KEY_VARIABLE) else config.store_key_file or str(directory / KEY_FILE)


def _read_or_create_key(config: EngineConfig, directory: Path, *, known: bool) -> str:
    if key := os.environ.get(KEY_VARIABLE, ""):
        return _validated_key(key, f"${KEY_VARIABLE}")
    own = directory / KEY_FILE
    file = Path(config.store_key_file) if config.store_key_file else own
    if file == own and not own.exists():
        if known:
            raise EngineError(
                f"{own}, the key of the encrypted store, is missing; restore it, or provide it as ${KEY_VARIABLE}"
            )
        write_private(own, secrets.token_urlsafe(32))
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError("is readable by others", file=str(file), key="engine.store_key_file", remedy="chmod 600")
        return _validated_key(file.read_text(encoding="utf-8").strip(), str(file))
    except (OSError, UnicodeDecodeError) as why:
        remedy = "create it with `openssl rand -hex 32`, mode 0600"
        raise ConfigError(
            f"cannot be read: {type(why).__name__}", file=str(file), key="engine.store_key_file", remedy=remedy
        ) from why


def _validated_key(key: str, place: str) -> str:
    if len(key) < _KEY_CHARACTERS_MIN:
        raise ConfigError(
            f"the key in {place} has fewer than {_KEY_CHARACTERS_MIN} characters", remedy="openssl rand -hex 32"
        )
    return key
