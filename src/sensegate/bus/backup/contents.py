"""Classification of the files in a gateway's directory: what a backup holds, what it holds encrypted, what it omits.

A file that is not listed here counts as secret: it never reaches a backup in clear, and a backup without secrets names
it as left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

STORE: Final = "engine/store"
STAGING: Final = "engine/.backup-"
"""Prefix of the directory in which a backup that runs holds the store."""

STATE: Final = (
    "log.life",
    "log.timelines",
    "scrub.json",
    "writer.json",
    "term.json",
    "restored.json",
    "audit-heads.ndjson",
    "*.pub",
    "profiles/*",
    "history/dropped.json",
    "engine/store.json",
    "engine/known/*",
)
SEGMENTS: Final = ("*.parquet", "*.sums")
"""Files of the history: each is written once, renamed into its place, and never changed."""
OMITTED: Final = (
    "duplicates/*",  # rebuilt from the log
    "examined.json",  # profiles are examined again
    "run.json",
    "standby.json",
    "promote",
    "break-glass.json",  # an order for this machine and this hour
    ".touched",
    "scrub.order",
    "scrub.status",
    "aside*",  # stores of earlier terms, kept for people
    "*.lock",
    "*.part",
    "*.tmp",
    "*/scratch/*",  # what queries of the history had no room for in memory
    "*.new",
    "*.left",
    "*.used",
    "engine/*.conf",  # rendered at each start
    "engine/link-ca.pem",
    "engine/nats.log*",
    "engine/nats.out",
    "engine/aside/*",
    f"{STAGING}*",
)


class FileKind(StrEnum):
    """The treatment of a file in a backup."""

    STORE = "store"
    """Part of the server's store; it must be copied while the server stands still."""
    STATE = "state"
    SECRET = "secret"  # noqa: S105 - a word, no password
    SEGMENT = "segment"
    """File of the history, which holds readings of a span of the log."""
    OMITTED = "omitted"


def kind_of(path: str) -> FileKind:
    """Return the kind of a file by its path relative to the gateway's directory."""
    if path.startswith(f"{STORE}/"):
        return FileKind.STORE
    if any(fnmatchcase(path, pattern) for pattern in OMITTED):
        return FileKind.OMITTED
    if any(fnmatchcase(path, pattern) for pattern in SEGMENTS):
        return FileKind.SEGMENT
    return FileKind.STATE if any(fnmatchcase(path, pattern) for pattern in STATE) else FileKind.SECRET


def files(directory: Path) -> Iterator[str]:
    """Yield the paths of all regular files below a directory, relative to it; one that vanishes is passed over."""
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            entries = list(os.scandir(directory / folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            path = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                stack.append(f"{path}/")
            elif entry.is_file(follow_symlinks=False):
                yield path
