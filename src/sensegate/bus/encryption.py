"""The store's encryption: which cipher and key, and that a store is never opened by others than it was made with.

nats-server itself would start all the same: with another key, or none, it passes over streams that it cannot read, and
empty ones would be made in their place. So ``store.json`` beside the store says what it was made with (a digest of the
key), and what does not fit is refused before the server starts. The key is in no configuration file: the server gets it
in its environment.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from sensegate.bus.process import write_private
from sensegate.bus.server_conf import KEY_VARIABLE
from sensegate.config import EngineConfig
from sensegate.errors import ConfigError, EngineError

KEY_FILE, MARK = "store.key", "store.json"
_KEY_LEAST: Final = 16


class Sealing(msgspec.Struct, frozen=True):
    """How the server encrypts its store."""

    cipher: str = ""
    """Empty: not at all."""
    key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return what the server must find in its environment; of a form that it reads as a text, whatever the key."""
        return {KEY_VARIABLE: f"k{hashlib.sha256(self.key.encode()).hexdigest()}"} if self.cipher else {}


class _Mark(msgspec.Struct, frozen=True):
    cipher: str
    key: str = ""
    """Digest of the key."""


def sealing(config: EngineConfig, directory: Path, *, personal: bool) -> Sealing:
    """Return how the store in a directory is encrypted; a key is made, and what it is made with is kept, for a new one.

    Args:
        config: says whether, with which cipher, and where the key is.
        directory: of the engine.
        personal: what devices send can hold data of persons (some profile takes video metadata).

    Raises:
        EngineError: the store was made otherwise than is wanted now.
        ConfigError: the key cannot be read, is too short, or others may read it.
    """
    made = _made(directory)
    is_sealed = made is not None and bool(made.cipher)
    wanted = config.encryption in {"on", "convert"} or (config.encryption == "auto" and (personal or is_sealed))
    if not wanted:
        if is_sealed:
            raise EngineError(f"{directory / 'store'} is encrypted: set engine.encryption: auto or on")
        return Sealing()
    if made is not None and not is_sealed and config.encryption != "convert":
        why = "a profile takes video metadata" if config.encryption == "auto" else "engine.encryption: on"
        raise EngineError(
            f"{directory / 'store'} was made without encryption, and must have it now ({why}): set engine.encryption: "
            "convert to have the server encrypt it, after a backup; or begin with another directory; or off, where "
            "nothing that devices send is of persons"
        )
    if made is not None and is_sealed and made.cipher != config.cipher:
        raise EngineError(f"{directory / 'store'} was made with {made.cipher}: set engine.cipher: {made.cipher}")
    sealed = Sealing(config.cipher, _key(config, directory, known=is_sealed))
    digest = hashlib.sha256(b"mark\0" + sealed.key.encode()).hexdigest()[:32]
    if made is None or not is_sealed:
        write_private(directory / MARK, msgspec.json.encode(_Mark(config.cipher, digest)).decode())
    elif made.key != digest:
        raise EngineError(
            f"{directory / 'store'} was made with another key than that of {_place(config, directory)}: give that one; "
            "without it nobody can read the store"
        )
    return sealed


def _made(directory: Path) -> _Mark | None:
    """Return what a store was made with (no cipher: without encryption), None where there is none yet."""
    try:
        mark = msgspec.json.decode((directory / MARK).read_bytes(), type=_Mark)
    except FileNotFoundError:
        return _Mark("") if (directory / "store" / "jetstream").exists() else None
    except (OSError, msgspec.DecodeError) as why:
        raise EngineError(f"{directory / MARK} cannot be read: {why}; restore it") from why
    return mark


def _place(config: EngineConfig, directory: Path) -> str:
    return f"${KEY_VARIABLE}" if os.environ.get(KEY_VARIABLE) else config.store_key_file or str(directory / KEY_FILE)


def _key(config: EngineConfig, directory: Path, *, known: bool) -> str:
    if key := os.environ.get(KEY_VARIABLE, ""):
        return _long(key, f"${KEY_VARIABLE}")
    own = directory / KEY_FILE
    file = Path(config.store_key_file) if config.store_key_file else own
    if file == own and not own.exists():
        if known:
            raise EngineError(
                f"{own} is missing, the key of the encrypted store: restore it, or give it as ${KEY_VARIABLE}"
            )
        write_private(own, secrets.token_urlsafe(32))
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError("others may read it", file=str(file), key="engine.store_key_file", remedy="chmod 600")
        return _long(file.read_text(encoding="utf-8").strip(), str(file))
    except (OSError, UnicodeDecodeError) as why:
        remedy = "make it: openssl rand -hex 32, mode 0600"
        raise ConfigError(
            f"cannot be read: {type(why).__name__}", file=str(file), key="engine.store_key_file", remedy=remedy
        ) from why


def _long(key: str, place: str) -> str:
    if len(key) < _KEY_LEAST:
        raise ConfigError(f"the key in {place} has less than {_KEY_LEAST} characters", remedy="openssl rand -hex 32")
    return key
