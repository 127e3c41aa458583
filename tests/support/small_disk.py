"""A file system of its own, small enough to be filled; needs the right to mount one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "engine" / "nats.log"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free, not even in the last page of the server's log, which then swallows what it would say."""
        ballast = self.path / "ballast"
        with self.log.open("ab") as file:
            file.write(b"\n" * (-self.log.stat().st_size % 4096))
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
        ballast.unlink()

    def resize(self, size: str) -> bool:
        """Mount it, or change its size; say whether that is allowed here."""
        action = f"remount,size={size}" if self.path.is_mount() else f"size={size}"
        command = ["/bin/mount", "-t", "tmpfs", "-o", action, "tmpfs", str(self.path)]
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextlib.contextmanager
def mounted(directory: Path) -> Iterator[SmallDisk]:
    """Mount one of 64 MiB; the test is skipped where that is not allowed."""
    directory.mkdir()
    disk = SmallDisk(directory)
    if not disk.resize("64m"):
        pytest.skip("no right to mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["/bin/umount", str(disk.path)], check=True)
