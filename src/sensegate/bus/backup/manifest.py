"""Manifest of a backup: its origin, and a checksum of each of its files.

The manifest is written last and carries a checksum of itself: a directory without one is an unfinished backup.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sensegate.bus.files import leads_out, write_private
from sensegate.errors import ConfigError

FILE: Final = "manifest.json"
SECRETS: Final = "secrets.sealed"
FORMAT: Final = 1
CHUNK_BYTES: Final = 1_048_576

Progress = Callable[[int], None]
"""Called with the number of bytes that were processed since the last call."""


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a backup."""

    path: str
    """Relative to the directory of the backup."""
    size: int
    digest: str
    """BLAKE2b-256, hex."""


class BackupManifest(msgspec.Struct, frozen=True):
    """Description of a backup."""

    made: int
    """Time when the store was copied, µs UTC."""
    sensegate: str
    """Version that made it."""
    nats_server: str
    role: str
    member: str
    """Id of the gateway: its member id at the centre, or its division."""
    epoch: str
    """Epoch of its log; empty: it had none yet."""
    encrypted: bool
    """The store is encrypted; without its key nobody can read it."""
    host: str
    directory: str
    """Directory of the original."""
    url: str
    """Address of the original's HTTP side when the backup was made; empty: it did not run."""
    files: tuple[FileEntry, ...]
    secrets: tuple[str, ...] = ()
    """Names of the secret files in `secrets.sealed`."""
    left_out: tuple[str, ...] = ()
    """Names of the secret files that are not in this backup."""
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


class _Format(msgspec.Struct, frozen=True):
    format: int


def write(directory: Path, manifest: BackupManifest) -> None:
    """Write the manifest of a backup, durably."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_private(directory / FILE, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read(directory: Path) -> BackupManifest:
    """Return the manifest of a backup.

    Raises:
        ConfigError: there is none, it is damaged, or it was written by a later release.
    """
    file = directory / FILE
    try:
        content = file.read_bytes()
    except OSError as why:
        raise ConfigError(
            f"cannot be read ({why.strerror}): this is no backup, or one that was not finished",
            file=str(file),
            remedy="give the directory of a backup that `sensegate backup` finished",
        ) from why
    digest, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ConfigError("its checksum is wrong", file=str(file), remedy="take another copy of this backup")
    try:
        if (version := msgspec.json.decode(body, type=_Format).format) != FORMAT:
            raise ConfigError(
                f"format {version} is not known to this release", file=str(file), remedy="update sensegate"
            )
        decoded = msgspec.json.decode(body, type=BackupManifest)
    except msgspec.DecodeError as why:
        raise ConfigError(f"cannot be read: {why}", file=str(file), remedy="take another copy of this backup") from why
    for name in (*(entry.path for entry in decoded.files), *decoded.secrets, *decoded.left_out):
        if leads_out(name):
            raise ConfigError(f"{name!r} leads out of the backup", file=str(file), remedy="do not use this backup")
    return decoded


def copy(source: Path, target: Path, progress: Progress) -> tuple[int, str]:
    """Copy a file durably, mode 0600; return its size and digest. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.blake2b(digest_size=32), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
            progress(len(chunk))
        writer.flush()
        os.fsync(writer.fileno())
    return size, digest.hexdigest()


def entry_of(directory: Path, path: str, progress: Progress) -> FileEntry:
    """Return the entry of a file as it is now. Raises `OSError`."""
    digest, size = hashlib.blake2b(digest_size=32), 0
    with (directory / path).open("rb") as reader:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            progress(len(chunk))
    return FileEntry(path, size, digest.hexdigest())


def verify(directory: Path, manifest: BackupManifest, progress: Progress) -> None:
    """Compare each file of a backup with its checksum.

    Raises:
        ConfigError: one is missing, or is not what was written.
    """
    for entry in manifest.files:
        try:
            present = entry_of(directory, entry.path, progress)
        except OSError as why:
            raise ConfigError(
                f"{entry.path} cannot be read ({why.strerror})",
                file=str(directory),
                remedy="take another copy of this backup; nothing was restored",
            ) from why
        if present != entry:
            raise ConfigError(
                f"{entry.path} is damaged: its checksum is wrong",
                file=str(directory),
                remedy="take another copy of this backup; nothing was restored",
            )
