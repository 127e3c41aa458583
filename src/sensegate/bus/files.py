"""Files that must survive a crash, or that only the gateway may read."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file atomically with mode 0600; `durable`: it is on the disk under its name when this returns."""
    partial = path.with_name(f"{path.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Sync a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_names(directory: Path) -> None:
    """Sync the names in a directory, and in all directories below it, to the disk."""
    for folder, _, _ in os.walk(directory, topdown=False):
        sync_path(Path(folder))


def leads_out(name: str) -> bool:
    """Return whether a name with `/` may lead out of its directory, alone or without its first parts."""
    return "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/"))
