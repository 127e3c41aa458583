"""Metadata files of nats-server's streams, which lie beside the blocks with the messages.

    store/jetstream/<account>/streams/<stream>/
        meta.inf   name, settings and creation time: JSON, encrypted in an encrypted store
        meta.sum   checksum of meta.inf
        meta.key   encrypted key of the stream, in an encrypted store
        msgs/      blocks (*.blk); obs/: consumers

The server skips a stream whose metadata does not match its checksum; its blocks stay, but creating
a stream of that name afterwards deletes them. So the files are checked here, before the server starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sensegate.bus.files import write_private
from sensegate.bus.highwayhash import highway64

META, SUM, KEY, BLOCKS, CONSUMERS = "meta.inf", "meta.sum", "meta.key", "msgs", "obs"


class Metadata(msgspec.Struct, frozen=True):
    """Contents of the metadata files; empty where a file is missing."""

    meta: bytes
    sum: bytes
    key: bytes = b""

    def is_whole(self, stream: str) -> bool:
        """Return whether nats-server would accept it as that of a stream (or, ``stream/consumer``, of a consumer)."""
        return bool(self.meta) and self.sum == checksum(stream, self.meta)

    @property
    def created(self) -> str:
        """Creation time of the stream as the server reports it; empty where it is encrypted."""
        try:
            return msgspec.json.decode(self.meta, type=_Created).created
        except msgspec.DecodeError:
            return ""


class _Created(msgspec.Struct, frozen=True):
    created: str = msgspec.field(name="Created", default="")
    name: str = ""


def checksum(stream: str, meta: bytes) -> bytes:
    """Return the content of meta.sum for this content of meta.inf."""
    return highway64(hashlib.sha256(stream.encode()).digest(), meta).hex().encode()


def directory_of(store: Path, account: str, stream: str) -> Path:
    """Return the directory of a stream in a store."""
    return store / "jetstream" / account / "streams" / stream


def directories(store: Path) -> Iterator[tuple[str, str]]:
    """Yield (account, stream) of each directory of a stream, except those that the server was deleting."""
    for directory in sorted((store / "jetstream").glob("*/streams/*")):
        if directory.is_dir() and not directory.name.startswith("."):
            yield directory.parents[1].name, directory.name


def read(directory: Path) -> Metadata:
    """Return the metadata in a directory."""
    return Metadata(*(_bytes(directory / name) for name in (META, SUM, KEY)))


def write(directory: Path, metadata: Metadata, *, durable: bool = True) -> None:
    """Replace the metadata files, each atomically; the checksum last, as the server does."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in ((KEY, metadata.key), (META, metadata.meta), (SUM, metadata.sum)):
        if not content:
            continue
        write_private(directory / name, content, durable=durable)


def damaged_consumers(directory: Path) -> Iterator[Path]:
    """Yield the directories of a stream's consumers that nats-server would skip.

    It would skip them for ever: a consumer created again under that name is kept in memory and never written.
    """
    for consumer in sorted((directory / CONSUMERS).glob("*")):
        metadata = read(consumer)
        if consumer.is_dir() and not metadata.is_whole(f"{directory.name}/{consumer.name}"):
            yield consumer


def has_blocks(directory: Path) -> bool:
    """Return whether a stream has a block; even a stream without messages has one."""
    return any((directory / BLOCKS).glob("*.blk"))


def has_messages(directory: Path) -> bool:
    """Return whether a stream has a block that is not empty."""
    return any(block.stat().st_size for block in (directory / BLOCKS).glob("*.blk"))


def find_damage(directory: Path) -> str:
    """Return why nats-server would not find a stream or its messages in a directory; empty: it would."""
    if not directory.is_dir():
        return "its directory is missing"
    metadata = read(directory)
    if not metadata.meta:
        return f"{META} is missing or empty"
    if not metadata.sum:
        return f"{SUM} is missing or empty"
    if not metadata.is_whole(directory.name):
        return f"{META} does not match its checksum {SUM}"
    if not has_blocks(directory):
        return "its message blocks are missing"
    return ""


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
