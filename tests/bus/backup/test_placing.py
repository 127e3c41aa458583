"""Where a backup and a restore end: durable once they are finished, and honest about what was set aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensegate.bus import restores
from sensegate.bus.backup import create, restore
from sensegate.bus.backup.restore import RestoreResult
from sensegate.config import Config
from sensegate.errors import ConfigError

FILES = {"log.life": "e1", "engine/store/jetstream/LOG/msgs/1.blk": "block", "engine/known/streams.json": "{}"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The configuration of a gateway that stands still, whose store is there."""
    for name, content in FILES.items():
        place = tmp_path / "node" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    (tmp_path / "config.yaml").write_text("role: node\n")
    return Config(role="node", division="4401", directory=str(tmp_path / "node"), profiles=())


def backed_up(tmp_path: Path, config: Config) -> Path:
    """Make a backup."""
    create.create(config, tmp_path / "config.yaml", tmp_path / "copies" / "first")
    return tmp_path / "copies" / "first"


def restored(source: Path, config: Config) -> RestoreResult:
    """Restore a backup over the store that is there."""
    return restore.restore(source, config, replace=True)


class Disk:
    """Remembers what was synced, in order, and which names were made or moved since."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[Path] = []
        sync, rename = os.fsync, Path.rename

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

        def renamed(place: Path, target: Path) -> Path:
            self.synced.append(Path("renamed") / place.name)
            return rename(place, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "rename", renamed)

    def is_synced(self, folder: Path) -> bool:
        """Return whether the names in a folder were synced after everything in it and below."""
        last = {path: number for number, path in enumerate(self.synced)}
        below = [number for path, number in last.items() if folder in path.parents]
        return last.get(folder, -1) > max(below, default=-1)


def test_a_finished_backup_is_on_the_disk_with_its_names(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory is synced after its files and before the rename that finishes the backup, which is synced, too."""
    disk = Disk(monkeypatch)
    target = backed_up(tmp_path, config)
    partial = target.with_name("first.partial")
    finished = disk.synced.index(Path("renamed") / partial.name)
    for folder, _, _ in os.walk(target):
        place = partial / Path(folder).relative_to(target)
        assert disk.is_synced(place), place
        assert disk.synced.index(place) < finished
    assert target.parent in disk.synced[finished:]


def test_a_restored_store_is_on_the_disk_with_its_names(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory is synced before it is moved into place."""
    source = backed_up(tmp_path, config)
    disk = Disk(monkeypatch)
    restored(source, config)
    directory = Path(config.directory)
    moved = disk.synced.index(Path("renamed") / "log.life")
    for folder in ("", "engine", "engine/store", "engine/store/jetstream/LOG/msgs", "engine/known"):
        assert directory / restore.STAGING / folder in disk.synced[:moved], folder
    assert disk.synced[-1] == directory


@pytest.mark.parametrize("failing", range(4))
def test_a_restore_that_fails_says_where_the_store_is(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The disk fails at one of the moves: each file of the old store lies where the message says, and a retry works."""
    source, directory = backed_up(tmp_path, config), Path(config.directory)
    (directory / "masks.key").write_text("old")
    rename, count = Path.rename, 0

    def renamed(place: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == failing + 1:
            raise OSError(28, "No space left on device")
        return rename(place, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        with pytest.raises(ConfigError, match=r"not restored: .*No space left") as error:
            restored(source, config)
    (aside,) = directory.glob("aside-*")
    assert (str(aside) in str(error.value)) is (failing > 0)
    for name in (*FILES, "masks.key"):
        assert (aside / name).exists() or (directory / name).exists(), name
    if failing > 2:
        assert (aside / "masks.key").exists()
    aside.rename(directory / "aside-before")  # made in the same second
    restored(source, config)
    assert {name: (directory / name).read_text() for name in FILES} == FILES
    assert len(restores.read(directory).restores) == 1
