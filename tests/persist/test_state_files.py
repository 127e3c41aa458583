"""Checkpoints of which only the first has all watermarks: what is read back, at whatever point the writing ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.bus.timelines import Timelines
from sensegate.persist.checkpoint_store import Checkpoint, CheckpointStore, read_snapshot
from sensegate.persist.memtable import Memtable
from sensegate.persist.sorted_runs import DamagedFile
from sensegate.persist.state_files import CHANGES_PER_SERIES
from sensegate.persist.watermarks import COLUMNS, NEVER, Watermarks

LINE = Timelines.in_memory("e")


class _Writer:
    """Watermarks, and the store in which they are kept."""

    def __init__(self, directory: Path) -> None:
        self.store = CheckpointStore(directory)
        self.store.open(LINE, 1 << 40)
        self.watermarks = Watermarks()
        self.names: list[str] = []
        self.sequence = 0
        self.is_whole: list[bool] = []

    def change(self, number: int, column: int, value: int) -> None:
        """Set a watermark of a series, which is new where the number is beyond the last one."""
        self.names += [f"dev\np{place}\n\n0" for place in range(len(self.names), number + 1)]
        self.watermarks.reserve(len(self.names))
        getattr(self.watermarks, COLUMNS[column])[number] = value
        self.watermarks.mark_changed(np.array([number], np.uint32))

    def save(self) -> None:
        """Write a checkpoint."""
        self.sequence += 10
        whole = self.store.is_whole_state_due
        state = self.watermarks.take_state(len(self.names), whole=whole)
        table = Memtable()
        row = np.array([self.sequence], np.uint64)
        table.add(
            row,
            np.zeros(1, np.uint32),
            bits=row,
            fingerprints=row,
            time=np.zeros(1, np.int64),
            bucket=np.full(1, 9, np.int32),
        )
        self.store.save(Checkpoint(1, table, state, self.names, 0, 7), LINE, self.sequence)
        self.is_whole.append(whole)

    def rows(self) -> list[list[int]]:
        """Return the watermarks by column."""
        return [column.tolist() for column in self.watermarks.copy(len(self.names))]


def _read(directory: Path) -> tuple[int, list[list[int]]]:
    """Return (sequence, watermarks by column) of the last checkpoint; (0, []): there is none."""
    opened = CheckpointStore(directory).open(LINE, 1 << 40)
    return (opened.manifest.sequence, [column.tolist() for column in opened.watermarks]) if opened else (0, [])


_change = st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(-(1 << 63), (1 << 63) - 1))


@settings(max_examples=25)
@given(checkpoints=st.lists(st.lists(_change, max_size=6), min_size=1, max_size=24))
def test_changes_add_up_to_the_watermarks(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: list[list[tuple[int, int, int]]]
) -> None:
    """Property: after any changes in any checkpoints the watermarks that are read are those in memory."""
    directory = tmp_path_factory.mktemp("state")
    writer = _Writer(directory)
    for changes in checkpoints:
        for number, column, value in changes:
            writer.change(number, column, value)
        writer.save()
    assert _read(directory) == (writer.sequence, writer.rows())


def test_a_whole_state_is_written_seldom(tmp_path: Path) -> None:
    """The first checkpoint has all series, later ones what changed, until the changes are several times the series."""
    writer = _Writer(tmp_path)
    writer.change(99, 0, 1)
    writer.save()
    size = (tmp_path / "state-1").stat().st_size
    for number in range(3):
        writer.change(number, 2, 5)
        writer.save()
    assert writer.is_whole == [True, False, False, False]
    assert all(path.stat().st_size < size / 5 for path in tmp_path.glob("changes-*"))
    while not writer.store.is_whole_state_due:
        for number in range(100):
            writer.change(number, 2, writer.sequence)
        writer.save()
    assert len(writer.is_whole) == 4 + CHANGES_PER_SERIES
    writer.save()
    assert [path.name.partition("-")[0] for path in tmp_path.glob("[sc]*-*")] == ["state"], "older files remain"
    assert _read(tmp_path) == (writer.sequence, writer.rows())


class _PowerCut(BaseException):
    """The process ends here."""


def _cut_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """End the process at a call to the file system; a write that it interrupts has stored half of its bytes."""
    left = iter(range(calls))
    plain_write = os.pwrite

    def write(number: int, content: bytes, offset: int) -> int:
        if next(left, None) is None:
            plain_write(number, bytes(content)[: len(bytes(content)) // 2], offset)
            raise _PowerCut
        return plain_write(number, content, offset)

    def guarded(name: str, owner: object) -> None:
        plain = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            if next(left, None) is None:
                raise _PowerCut
            return plain(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(os, "pwrite", write)
    for name, owner in (("fsync", os), ("ftruncate", os), ("replace", Path), ("unlink", Path)):
        guarded(name, owner)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_crash_at_any_point_leaves_one_of_two_checkpoints(tmp_path: Path, *, is_whole: bool) -> None:
    """Whatever was written of a checkpoint, the one before is used until the new one is complete."""
    origin = tmp_path / "origin"
    writer = _Writer(origin)
    writer.change(3, 0, 1)
    writer.save()
    while is_whole != writer.store.is_whole_state_due:
        for number in range(4):
            writer.change(number, 1, writer.sequence)
        writer.save()
    before = (writer.sequence, writer.rows())
    outcomes = []
    for calls in range(60):
        directory = tmp_path / str(calls)
        shutil.copytree(origin, directory)
        writer.store = CheckpointStore(directory)
        writer.store.open(LINE, 1 << 40)
        writer.sequence = before[0]
        writer.change(2, 2, 77)
        writer.change(4, 4, 78)
        after = (writer.sequence + 10, writer.rows())
        with pytest.MonkeyPatch.context() as monkeypatch:
            _cut_after(monkeypatch, calls)
            try:
                writer.save()
            except _PowerCut:
                is_done = False
            else:
                is_done = True
        outcomes.append(_read(directory))
        shutil.rmtree(directory)
        del writer.names[4:]
        assert outcomes[-1] in ((after,) if is_done else (before, after)), calls
        writer.watermarks.highest_key[4:] = NEVER
        writer.watermarks.latest_time[2] = int(np.array(before[1][2])[2])
        if is_done:
            break
    assert outcomes[0] == before
    assert before in outcomes[3:]
    assert outcomes[-1] == after
    assert writer.is_whole[-1] == is_whole


@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "swapped"])
def test_damaged_changes_are_found(tmp_path: Path, damage: str) -> None:
    """Negative control: changes that the manifest names and that are not as written are used by nobody."""
    writer = _Writer(tmp_path)
    for value in range(1, 4):
        writer.change(value, 0, value)
        writer.save()
    path = tmp_path / "changes-2"
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        spoilt = {
            "cut": raw[:-4],
            "bit": raw[:-1] + bytes([raw[-1] ^ 1]),
            "swapped": (tmp_path / "state-1").read_bytes(),
        }
        path.write_bytes(spoilt[damage])
    with pytest.raises(DamagedFile, match="changes-2"):
        read_snapshot(tmp_path)
    store = CheckpointStore(tmp_path)
    assert store.open(LINE, 1 << 40) is None
    assert "changes-2" in store.damage
    assert store.is_whole_state_due
