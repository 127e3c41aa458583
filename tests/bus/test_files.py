"""Files that must survive a crash: their content, and the name under which it is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensegate.bus.files import write_private


@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_file_is_on_the_disk_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    """A power failure after the return does not bring back the content before: a node would grant a term twice."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")

    def replaced(place: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(place, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replaced)
    write_private(tmp_path / "term.json", "1", durable=durable)
    assert steps == (["sync term.json.part", "rename", "sync ."] if durable else ["rename"])
    assert [(place.name, place.read_text(), place.stat().st_mode & 0o777) for place in tmp_path.iterdir()] == [
        ("term.json", "1", 0o600)
    ]
