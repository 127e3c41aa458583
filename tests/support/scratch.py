"""The place of the tests' temporary files: in memory where there is room.

A gateway makes 40 streams of some files each at its start. On a disk making and removing them is two fifths of the
CPU of a gateway's start and stop. Processes are killed, machines are not: what a killed process has written is read
back from memory as it is from a disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "TMPDIR"
"""Environment variable that names the place; set by the user it stays, and child processes inherit it."""
PLACE = Path("/dev/shm")  # noqa: S108 - directories of pytest and of tempfile, which are private
ROOM_BYTES = 2 * 1024**3
"""Least room for files: with those of failed tests alone kept, a run of all tests needs some hundreds of megabytes."""
PROCESSES_BYTES = 3 * 1024**3
"""Memory that the processes of a run take beside the files."""
MEMORY = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Limit of the container, a number or ``max``."""


def free_bytes(place: Path = PLACE, memory: Path = MEMORY, limit: Path = LIMIT) -> int:
    """Return the bytes that fit into a file system in memory beside the processes of a run.

    0 or less: too little memory, or the place does not exist or cannot hold programs.
    """
    try:
        status = os.statvfs(place)
        fields = dict(line.split(":", 1) for line in memory.read_text(encoding="ascii").splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0
    if status.f_flag & os.ST_NOEXEC or not os.access(place, os.W_OK):
        return 0
    container = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    limits = [int(container)] if container.isdecimal() else []
    return min(status.f_bavail * status.f_frsize, min([available, *limits]) - PROCESSES_BYTES)


def use_memory(environment: MutableMapping[str, str] | None = None, free: int | None = None) -> None:
    """Have this process and its children put temporary files into memory, where there is room and no other wish."""
    environment = os.environ if environment is None else environment
    if VARIABLE not in environment and (free_bytes() if free is None else free) >= ROOM_BYTES:
        environment[VARIABLE] = str(PLACE)
        tempfile.tempdir = None  # looked up again
