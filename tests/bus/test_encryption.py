"""An encrypted store: nothing of it can be read without its key, and it is never opened otherwise than it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from sensegate.bus.encryption import KEY_FILE, open_encryption
from sensegate.bus.engine import Engine, User
from sensegate.bus.server_conf import KEY_VARIABLE
from sensegate.bus.streams import ensure_streams
from sensegate.config import EngineConfig
from sensegate.errors import ConfigError, EngineError
from tests.conftest import SMALL

pytestmark = pytest.mark.live

CANARY = b"CANARY-8f2c-plate"
Encryption = Literal["auto", "on", "off", "convert"]


async def written(directory: Path, encryption: Encryption = "auto", *, personal: bool = True) -> bytes:
    """Run an engine, store a message; return every byte below its store."""
    config = EngineConfig(encryption=encryption)
    async with Engine(config, SMALL, directory, name="4401", personal=personal) as engine:
        client = await engine.connect(User.GATEWAY)
        await ensure_streams(client, SMALL)
        reply = await client.request("raw.4401-0", CANARY, timeout=30)
        assert b"seq" in reply.data
        await client.close()
    return stored(directory)


def stored(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (directory / "engine" / "store").rglob("*") if file.is_file())


async def test_the_bytes_tell_nothing(tmp_path: Path) -> None:
    """With the key the canary is nowhere in the store, without encryption it is; the key is in no configuration."""
    assert CANARY not in await written(tmp_path / "sealed")
    assert CANARY in await written(tmp_path / "plain", "off")
    key = (tmp_path / "sealed" / "engine" / KEY_FILE).read_text()
    assert (tmp_path / "sealed" / "engine" / KEY_FILE).stat().st_mode & 0o077 == 0
    for file in (tmp_path / "sealed" / "engine").glob("*.conf"):
        assert key not in file.read_text()
        assert f"key: ${KEY_VARIABLE}" in file.read_text()


async def test_what_was_stored_is_there_after_a_start(tmp_path: Path) -> None:
    """The same key reads it again; `auto` keeps an encrypted store so, though no profile asks for it any more."""
    await written(tmp_path)
    async with Engine(EngineConfig(), SMALL, tmp_path, name="4401") as engine:
        assert engine.is_encrypted
        client = await engine.connect(User.GATEWAY)
        result = await client.jetstream().get_last_msg("LOG", "raw.4401-0", direct=True)
        assert result.data == CANARY
        await client.close()


async def test_a_store_made_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not encrypted, another key, no key, another cipher, encryption switched off: an error that names the remedy.

    nats-server would pass over the streams it cannot read, and new empty ones would be made: the control shows it.
    """
    await written(tmp_path / "plain", "off")
    with pytest.raises(EngineError, match=r"created without encryption.*engine.encryption: convert"):
        await written(tmp_path / "plain", "on")
    with pytest.raises(EngineError, match=r"a profile reads video metadata"):
        await written(tmp_path / "plain")
    await written(tmp_path / "sealed")
    with pytest.raises(EngineError, match=r"is encrypted; set engine.encryption"):
        await written(tmp_path / "sealed", "off")
    engine = tmp_path / "sealed" / "engine"
    with pytest.raises(EngineError, match=r"set engine.cipher: chacha"):
        open_encryption(EngineConfig(cipher="aes"), engine, personal=True)
    monkeypatch.setenv(KEY_VARIABLE, "another key of some length")
    with pytest.raises(EngineError, match=r"created with another key"):
        open_encryption(EngineConfig(), engine, personal=True)
    monkeypatch.delenv(KEY_VARIABLE)
    key = (engine / KEY_FILE).read_text()
    (engine / KEY_FILE).unlink()
    with pytest.raises(EngineError, match=r"is missing; restore it"):
        open_encryption(EngineConfig(), engine, personal=True)
    monkeypatch.setenv(KEY_VARIABLE, key)
    assert open_encryption(EngineConfig(), engine, personal=True).cipher == "chacha"

    # Control: without the mark another key is taken, and the server starts with nothing.
    (engine / "store.json").unlink()
    monkeypatch.setenv(KEY_VARIABLE, "another key of some length")
    async with Engine(EngineConfig(encryption="convert"), SMALL, tmp_path / "sealed", name="4401") as other:
        client = await other.connect(User.GATEWAY)
        assert [info.config.name for info in await client.jetstream().streams_info()] == []
        await client.close()


async def test_a_store_is_converted(tmp_path: Path) -> None:
    """By its own setting a store made without is encrypted by the server, and keeps what it held."""
    await written(tmp_path, "off")
    assert CANARY not in await written(tmp_path, "convert")
    async with Engine(EngineConfig(), SMALL, tmp_path, name="4401") as engine:
        client = await engine.connect(User.GATEWAY)
        info = await client.jetstream().stream_info("LOG")
        assert info.state.messages == 2
        await client.close()


def test_keys_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that others may read, one that is not there, a short key: refused with the remedy."""
    file = tmp_path / "key"
    config = EngineConfig(encryption="on", store_key_file=str(file))
    with pytest.raises(ConfigError, match=r"cannot be read.*openssl rand"):
        open_encryption(config, tmp_path, personal=False)
    file.write_text("k" * 32)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"chmod 600"):
        open_encryption(config, tmp_path, personal=False)
    file.chmod(0o600)
    assert open_encryption(config, tmp_path, personal=False).key == "k" * 32
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ConfigError, match=r"fewer than 16"):
        open_encryption(config, tmp_path, personal=False)
    assert open_encryption(EngineConfig(), tmp_path / "other", personal=False).cipher == ""
