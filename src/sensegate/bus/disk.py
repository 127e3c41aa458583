"""Room on the disk of the store: bytes and inodes."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Final

INODES_MIN: Final = 1_000
"""The server makes files all the time: with fewer free, a disk is as good as full."""


def inodes_free(directory: Path) -> float:
    """Return how many files can still be made on the disk of a directory; infinite where it has no limit."""
    status = os.statvfs(directory)
    return status.f_favail if status.f_files else math.inf


def has_room(directory: Path, reserve_bytes: int) -> bool:
    """Return whether a disk has a reserve free, and inodes."""
    return shutil.disk_usage(directory).free >= reserve_bytes and inodes_free(directory) >= INODES_MIN
