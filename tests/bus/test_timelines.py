"""Timelines: their file and their marks. What becomes of cursors over many losses: `share/test_histories.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sensegate.bus import timelines
from sensegate.bus.memory import MemoryLog
from sensegate.bus.timelines import FILE, MARK_SUBJECTS, AbandonedTimeline, TimelineHistory, Timelines
from sensegate.clock import FakeClock
from sensegate.errors import StoreFull
from sensegate.model import LogMessage
from tests.share.made import NOW

MINUTE = 60_000_000


async def started(log: MemoryLog, directory: Path, *, now: int = NOW) -> Timelines:
    """Start a process over a log and a directory."""
    log.timelines = Timelines.open(directory, log.epoch)
    await timelines.begin(log, now)
    return log.timelines


def line(made: Timelines) -> list[tuple[int, bool]]:
    """Return where each timeline starts, and whether a mark stands there."""
    return [(timeline.start, timeline.marked) for timeline in made.history.current]


async def written(log: MemoryLog, count: int) -> int:
    """Write entries; return where the log ends."""
    return await log.write([LogMessage("raw.4401-0", b"x")] * count)


async def test_each_start_adds_one(tmp_path: Path) -> None:
    """By its mark on the log and in the file, which only we may read; of another log nothing is known."""
    log = MemoryLog(FakeClock(NOW), epoch="e")
    await started(log, tmp_path)
    await written(log, 5)
    made = await started(log, tmp_path)
    assert line(made) == [(0, False), (1, True), (7, True)]
    ids = [timeline.id for timeline in made.history.current]
    assert [ids.index(made.timeline_at(at)) for at in (0, 1, 2, 7, 8, 99)] == [0, 0, 1, 1, 2, 2]
    repeated = Timelines.open(tmp_path, "e")
    assert (repeated.history, repeated.fingerprint) == (made.history, made.fingerprint)
    assert Timelines.open(tmp_path, "other").history == TimelineHistory("other")
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-3], lambda raw: raw.replace(b"7", b"8"), lambda _raw: b"x", None])
async def test_without_the_file_the_marks_say_what_the_line_is(
    tmp_path: Path, spoil: Callable[[bytes], bytes] | None
) -> None:
    """Damaged or gone: what the log holds is good still, what it has lost is unknown."""
    log = MemoryLog(FakeClock(NOW), epoch="e")
    await started(log, tmp_path)
    await written(log, 5)
    before = await started(log, tmp_path, now=NOW + MINUTE)
    file = tmp_path / FILE
    if spoil:
        file.write_bytes(spoil(file.read_bytes()))
    else:
        file.unlink()
    await written(log, 5)
    after = await started(log, tmp_path, now=NOW + 2 * MINUTE)
    assert after.history.current[:3] == before.history.current
    assert after.diverged_at(before.timeline_at(9)) == 13


async def test_marks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten: of them no place is good. Starts that write nothing take the place of one another."""
    monkeypatch.setattr(timelines, "TIMELINES_MAX", 3)
    log = MemoryLog(FakeClock(NOW), epoch="e")
    ids = []
    for _ in range(6):
        made = await started(log, tmp_path)
        ids.append(made.history.current[-1].id)
        await written(log, 1)
    assert len(await log.fetch_of(f"{MARK_SUBJECTS}*", 0)) == 3
    assert [timeline.id for timeline in made.history.current] == ids[3:]
    assert [made.diverged_at(timeline) is None for timeline in ids] == [True] * 3 + [False] * 3
    for _ in range(9):
        made = await started(log, tmp_path)
    assert len(await log.fetch_of(f"{MARK_SUBJECTS}*", 0)) == 3
    assert [timeline.id for timeline in made.history.current[:2]] == ids[4:]


async def test_a_whole_directory_put_back_is_read_on_from_the_end_of_the_copy(tmp_path: Path) -> None:
    """The file is as old as the log: the lost timeline is unknown, and the first start since then tells the place."""
    log = MemoryLog(FakeClock(NOW), epoch="e")
    await started(log, tmp_path, now=NOW)
    await written(log, 29)
    copy, file = log.copy(), (tmp_path / FILE).read_bytes()
    lost = (await started(log, tmp_path, now=NOW + 20 * MINUTE)).timeline_at(60)
    (tmp_path / FILE).write_bytes(file)
    await started(copy, tmp_path, now=NOW + 40 * MINUTE)
    await written(copy, 50)
    made = await started(copy, tmp_path, now=NOW + 50 * MINUTE)
    assert made.diverged_at(lost) is None
    assert made.resume_after(lost, NOW + 21 * MINUTE) == 31
    assert made.resume_after(lost, NOW + 60 * MINUTE) == 0, "stored by a clock that was ahead: from the beginning"
    assert made.resume_after(Timelines.in_memory("other").timeline_at(60), NOW + 21 * MINUTE) == 0


async def test_a_copy_of_what_was_lost_comes_back(tmp_path: Path) -> None:
    """The marks of the log overrule the file: places on the branch that is back are good, the other's are not."""
    log = MemoryLog(FakeClock(NOW), epoch="e")
    first = (await started(log, tmp_path)).timeline_at(2)
    await written(log, 3)
    older = log.copy()
    await written(log, 9)
    second = (await started(log, tmp_path)).timeline_at(20)
    await written(log, 9)
    third = (await started(older, tmp_path)).timeline_at(20)
    await written(older, 30)
    made = await started(log, tmp_path)
    assert [timeline.id for timeline in made.history.current[1:-1]] == [first, second]
    assert [made.diverged_at(timeline) for timeline in (first, second, third)] == [14, 24, 5]
    assert made.history.abandoned == (AbandonedTimeline(third, 5),)


async def test_a_full_log_has_no_mark(tmp_path: Path) -> None:
    """The gateway starts all the same; the file says where the timeline began."""
    log = MemoryLog(FakeClock(NOW), epoch="e", bytes_max=200)
    await started(log, tmp_path)
    await log.write([LogMessage("raw.4401-0", b"x" * 140)])
    made = await started(log, tmp_path)
    assert line(made)[1:] == [(1, True), (2, False)]
    log._bytes_max = 10_000
    await written(log, 3)
    repeated = await started(log, tmp_path)
    assert line(repeated)[1:] == [(1, True), (2, False), (6, True)]


async def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """What is not on the disk is in force nowhere."""
    log = MemoryLog(FakeClock(NOW), epoch="e")
    with pytest.raises(StoreFull):
        await started(log, tmp_path / "absent")
    assert log.timelines.history == TimelineHistory("e")
