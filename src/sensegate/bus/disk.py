"""Free space on the disk of the store: bytes and inodes."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Final

INODES_MIN: Final = 1_000
"""The server creates files all the time: a disk with fewer free inodes counts as full."""


def inodes_free(directory: Path) -> float:
    """Return the number of free inodes on the disk of a directory; infinite where the file system has no limit."""
    status = os.statvfs(directory)
    return status.f_favail if status.f_files else math.inf


def has_room(directory: Path, reserve_bytes: int) -> bool:
    """Return whether the disk of a directory has `reserve_bytes` and enough inodes free."""
    return shutil.disk_usage(directory).free >= reserve_bytes and inodes_free(directory) >= INODES_MIN
