from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support import scratch

PLENTY = "MemTotal:  64000000 kB\nMemAvailable:  32000000 kB\n"


@pytest.mark.parametrize(
    ("memory", "limit", "fits"),
    [
        (PLENTY, "max\n", True),
        (PLENTY, None, True),
        (PLENTY, str(scratch.ROOM_BYTES + scratch.PROCESSES_BYTES - 1), False),
        ("MemAvailable:  5000000 kB\n", "max\n", False),
        ("", None, False),
    ],
    ids=["room", "no container", "a small container", "a small machine", "unknown"],
)
def test_there_is_room(tmp_path: Path, memory: str, limit: str | None, *, fits: bool) -> None:
    """Memory is used where machine and container have enough of it."""
    (tmp_path / "meminfo").write_text(memory)
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    free = scratch.free_bytes(tmp_path, tmp_path / "meminfo", tmp_path / "memory.max")
    disk = os.statvfs(tmp_path)
    assert (free >= min(scratch.ROOM_BYTES, disk.f_bavail * disk.f_frsize)) is fits


def test_a_place_that_is_missing_has_no_room(tmp_path: Path) -> None:
    assert scratch.free_bytes(tmp_path / "missing") == 0


@pytest.mark.parametrize(
    ("before", "free", "place"),
    [
        ({}, scratch.ROOM_BYTES, str(scratch.PLACE)),
        ({}, scratch.ROOM_BYTES - 1, None),
        ({"TMPDIR": "/var/tmp"}, scratch.ROOM_BYTES, "/var/tmp"),  # noqa: S108 - only a name
    ],
)
def test_a_wish_of_the_user_goes_first(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], free: int, place: str | None
) -> None:
    """The variable is set only where it was not, and where there is room."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    environment = dict(before)
    scratch.use_memory(environment, free)
    assert environment.get(scratch.VARIABLE) == place
