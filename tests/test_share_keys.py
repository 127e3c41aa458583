"""The secrets of sharing go on where another machine goes on: they are those that the store has."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sensegate.authority import shared_secrets
from sensegate.authority.bucket import MemoryBucket
from sensegate.config import Config
from sensegate.config.people import SharingConfig
from sensegate.errors import ConfigError
from sensegate.share import wiring
from sensegate.share.wiring import PSEUDONYM_KEY, STATEMENT_KEY
from tests.live.site import config_of


def centre(directory: Path) -> Config:
    directory.mkdir()
    return msgspec.structs.replace(config_of(directory, "44"), directory=str(directory), role="centre")


def kept(directory: Path) -> tuple[bytes, bytes]:
    return (directory / PSEUDONYM_KEY).read_bytes(), (directory / STATEMENT_KEY).read_bytes()


async def test_a_machine_with_a_copy_of_the_store_has_the_same_keys(tmp_path: Path) -> None:
    """Made once, 0600; with another store they are others."""
    first, other, alone = (tmp_path / name for name in ("one", "other", "alone"))
    bucket = MemoryBucket()
    for directory, store in ((first, bucket), (other, bucket), (alone, MemoryBucket())):
        await wiring.prepare_secrets(centre(directory), store)
        assert all(file.stat().st_mode & 0o077 == 0 for file in directory.glob("*.key"))
    assert kept(first) == kept(other)
    assert kept(first)[0] != kept(alone)[0], "negative control"
    assert kept(first)[1] != kept(alone)[1], "negative control"
    assert (first / "statements.pub").read_bytes() == (other / "statements.pub").read_bytes()


async def test_what_was_here_is_set_aside(tmp_path: Path) -> None:
    """A centre that was active with keys of its own takes those of the one that was active last; none is lost."""
    first, other = tmp_path / "one", tmp_path / "other"
    bucket = MemoryBucket()
    await wiring.prepare_secrets(centre(first), bucket)
    config = centre(other)
    await wiring.prepare_secrets(config, MemoryBucket())
    before = kept(other)
    await wiring.prepare_secrets(config, bucket)
    assert kept(other) == kept(first)
    assert {file.read_bytes() for file in other.glob("*.key.*")} == set(before)
    await wiring.prepare_secrets(config, bucket)
    assert len(list(other.glob("*.key.*"))) == 2, "nothing is set aside twice"


async def test_a_key_that_signs_stays_with_its_node_and_its_owner(tmp_path: Path) -> None:
    """A node's, and one that the configuration names, are not written into the store."""
    node = tmp_path / "node"
    bucket = MemoryBucket()
    await wiring.prepare_secrets(msgspec.structs.replace(centre(node), role="node"), bucket)
    named = msgspec.structs.replace(centre(tmp_path / "named"), sharing=SharingConfig(key_file="/nowhere/key"))
    await wiring.prepare_secrets(named, bucket)
    assert [row.key for row in (await bucket.load_all())[0]] == [f"{shared_secrets.SECRET}/{PSEUDONYM_KEY}"]
    await wiring.prepare_secrets(centre(tmp_path / "centre"), bucket)
    assert len((await bucket.load_all())[0]) == 2, "negative control"


async def test_a_secret_that_cannot_be_read_says_which(tmp_path: Path) -> None:
    """The file is named."""
    config = centre(tmp_path / "one")
    (tmp_path / "one" / PSEUDONYM_KEY).write_text("no hex", encoding="ascii")
    with pytest.raises(ConfigError, match=PSEUDONYM_KEY):
        await wiring.prepare_secrets(config, MemoryBucket())
