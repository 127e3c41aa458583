"""Segments of the history equal the log, through kills, merging, retention and a lost end of the log."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.errors import Unavailable
from sensegate.history import segments, sink
from sensegate.history.segment_rows import SegmentRows
from sensegate.history.sink import HistorySink
from tests.history.made import KEEP_ALL, fill, open_store, rows_of_history, rows_of_log

KILLS = 20 if os.environ.get("SENSEGATE_SOAK") else 3
ROOT = Path(__file__).parents[2]


async def write(log: MemoryLog, directory: Path, monkeypatch: pytest.MonkeyPatch, rows_max: int = 40) -> HistorySink:
    """Write the history of a log to its end, in small segments."""
    monkeypatch.setattr(sink, "ROWS_MAX", rows_max)
    monkeypatch.setattr(sink, "FETCH_ENTRIES", 4)
    writer = HistorySink(log, open_store(directory, log), KEEP_ALL, SystemClock())
    running = asyncio.create_task(writer.run())
    _, last = await log.bounds()
    async with asyncio.timeout(60):
        while writer.store.end < last - 1:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return writer


async def test_the_history_equals_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row and bit by bit, over many segments that were merged, each span once and in order."""
    log = MemoryLog(epoch="e1")
    await fill(log, 60)
    writer = await write(log, tmp_path, monkeypatch)
    writer.store.delete_obsolete()
    assert rows_of_history(tmp_path) == await rows_of_log(log)
    spans = [(segment.after, segment.end) for segment in writer.store.segments]
    assert [after for after, _ in spans[1:]] == [end for _, end in spans[:-1]]
    assert len(spans) < 20, "neighbours are merged"
    assert sum(segment.rows for segment in writer.store.segments) == len(await rows_of_log(log))
    reopened = open_store(tmp_path, log)
    assert reopened.segments == writer.store.segments


@pytest.mark.parametrize("sizes", [(30_000,), (30_000, 100, 5), (3_000, 250_000)])
def test_merging_writes_each_row_a_few_times(sizes: tuple[int, ...]) -> None:
    """Two thousand segments of mixed sizes: few files remain, and no row was written more than a dozen times."""
    pieces: list[segments.Segment] = []
    written = appended = 0
    for number in range(2_000):
        rows = sizes[number % len(sizes)]
        appended += rows
        pieces.append(piece(number, number + 1, rows))
        while run := segments.mergeable(pieces):
            total = sum(segment.rows for segment in run)
            written += total
            at = pieces.index(run[0])
            pieces[at : at + len(run)] = [piece(run[0].after, run[-1].end, total)]
    assert written / appended < 12
    assert len(pieces) < 60 + appended / segments.MERGED_ROWS_MAX * 4
    assert sum(segment.rows for segment in pieces) == appended


def piece(after: int, end: int, rows: int) -> segments.Segment:
    """Return a segment of so many rows."""
    return segments.Segment(
        after=after, end=end, epoch="e1", timeline="00", rows=rows, time_min=0, time_max=1, received_min=0, revisions=0
    )


def run_writer(directory: Path) -> subprocess.Popen[bytes]:
    """Start a process that writes."""
    command = [sys.executable, "-m", "tests.history.writer", str(directory), "150"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def kill_often(directory: Path) -> None:
    """Kill the writer again and again, each time a little later, then let it write to the end."""
    randomness = random.Random(3)
    for _ in range(KILLS):
        process = run_writer(directory)
        assert process.stdout is not None
        process.stdout.readline()
        with process:
            try:
                process.wait(randomness.uniform(0.05, 0.6))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    process = run_writer(directory)
    with process:
        assert process.wait(60) == 0


@pytest.mark.slow
async def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """After kills at any moment and a last run to the end, the history equals the log record by record."""
    log = MemoryLog(epoch="e1")
    await fill(log, 150)
    await asyncio.to_thread(kill_often, tmp_path)
    open_store(tmp_path, log)
    assert rows_of_history(tmp_path) == await rows_of_log(log)


async def test_a_kill_between_merging_and_deleting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged file counts, those within its span are deleted; the control keeps them and has rows twice."""
    log = MemoryLog(epoch="e1")
    await fill(log, 40)
    monkeypatch.setattr(segments.SegmentStore, "delete_obsolete", lambda _self: None)
    await write(log, tmp_path, monkeypatch)
    expected = await rows_of_log(log)
    assert len(rows_of_history(tmp_path)) > len(expected), "the merged files are still there, as after a kill"
    with monkeypatch.context() as planted:
        planted.setattr(segments, "_within", lambda inner, outer: inner == outer)
        planted.setattr(segments.SegmentStore, "_delete", lambda _self, _segments: None)
        open_store(tmp_path, log)
        assert rows_of_history(tmp_path) != expected, "the control"
    open_store(tmp_path, log)
    assert rows_of_history(tmp_path) == expected


async def test_an_interrupted_file_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file is deleted at the start, and sums without a segment too."""
    log = MemoryLog(epoch="e1")
    await fill(log, 10)
    await write(log, tmp_path, monkeypatch)
    (tmp_path / "00000000000000-00000000000099.tmp").write_bytes(b"half")
    (tmp_path / "00000000000000-00000000000099-3.sums").write_bytes(b"half")
    sums = next(tmp_path.glob("*.sums"))
    store = open_store(tmp_path, log)
    assert not [*tmp_path.glob("*.tmp")]
    assert {*tmp_path.glob("*.sums")} == {store.sums_of(segment) for segment in store.segments}
    sums = store.sums_of(store.segments[0])
    sums.unlink()
    open_store(tmp_path, log)
    assert sums.exists()


async def test_retention_by_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings past their retention go, those of grade 3 earlier; the end of the history stays."""
    log = MemoryLog(epoch="e1")
    await fill(log, 60)
    writer = await write(log, tmp_path, monkeypatch)
    rows = await rows_of_log(log)
    end = writer.store.end
    arrivals = sorted(row[8] for row in rows)
    limits = arrivals[len(rows) // 3], arrivals[len(rows) // 2]
    writer.store.retain(*limits)
    writer.store.delete_obsolete()
    expected = [row for row in rows if row[8] >= (limits[1] if row[4] >= 3 else limits[0])]
    assert rows_of_history(tmp_path) == expected
    writer.store.retain(2**62, 2**62)
    assert rows_of_history(tmp_path) == []
    assert open_store(tmp_path, log).end == end


async def test_only_files_with_expired_readings_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without expired readings is not read; one of an earlier version is read once, to learn what it holds."""
    log = MemoryLog(epoch="e1")
    await fill(log, 30)
    store = (await write(log, tmp_path, monkeypatch)).store
    store.retain(0, 2**61)
    store.segments = tuple(replace(segment, received_min_by_grade=None) for segment in store.segments)
    reads: list[int] = []
    read_rows = store._files.read_rows

    def counted(files: Sequence[Path]) -> SegmentRows:
        reads.append(len(files))
        return read_rows(files)

    monkeypatch.setattr(store._files, "read_rows", counted)
    before = len([segment for segment in store.segments if segment.rows])
    for expected in (before, before):
        assert store.retain(0, 2**61) == 0
        assert len(reads) == expected
    assert store.retain(2**61, 0) == before


async def test_queries_are_not_held_up_where_nothing_is_to_be_deleted(tmp_path: Path) -> None:
    """Only the deletion of files waits until all queries have ended."""
    log = MemoryLog(epoch="e1")
    writer = HistorySink(log, open_store(tmp_path, log), KEEP_ALL, SystemClock())
    await writer.flush(0, [])
    async with writer.reading(), asyncio.timeout(60):
        await writer.flush(0, [])


async def test_a_division_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its readings are gone from rows and sums, the others stay."""
    log = MemoryLog(epoch="e1")
    await fill(log, 30)
    writer = await write(log, tmp_path, monkeypatch)
    assert await writer.drop("4403") > 0
    rows = await rows_of_log(log)
    assert rows_of_history(tmp_path) == [row for row in rows if not row[3].startswith("4403")]
    import duckdb

    result = duckdb.connect().execute(f"SELECT DISTINCT division FROM read_parquet('{tmp_path}/*.sums')").fetchall()
    assert result == [("440106",)]


async def test_a_dropped_division_does_not_come_back(tmp_path: Path) -> None:
    """Readings that were fetched before the deletion are not written afterwards; later ones of the division are."""
    log = MemoryLog(epoch="e1")
    await fill(log, 20)
    writer = HistorySink(log, open_store(tmp_path, log), KEEP_ALL, SystemClock())
    entries = await log.fetch(0, limit=1_000_000, max_bytes=2**40)
    dropped_at = entries[-1].sequence
    assert await writer.drop("4403") == 0
    await fill(log, 20, seed=2)
    parts = sink._decoded(await log.fetch(0, limit=1_000_000, max_bytes=2**40))
    await writer.flush((await log.bounds())[1], parts)
    rows = await rows_of_log(log)
    assert rows_of_history(tmp_path) == [row for row in rows if row[0] > dropped_at or not row[3].startswith("4403")]
    assert any(row[0] > dropped_at and row[3].startswith("4403") for row in rows)


async def test_a_dropped_division_does_not_come_back_after_a_kill(tmp_path: Path) -> None:
    """The deletion outlives the process until the history covers what the log held by then, then it is forgotten."""
    log = MemoryLog(epoch="e1")
    await fill(log, 20)
    dropped_at = (await log.bounds())[1]
    # Before the segments are open, as in the first moments of a start.
    await HistorySink(log, segments.SegmentStore(tmp_path / "new"), KEEP_ALL, SystemClock()).drop("4403")
    await fill(log, 20, seed=2)
    last = (await log.bounds())[1]
    writer = HistorySink(log, open_store(tmp_path / "new", log), KEEP_ALL, SystemClock())
    await writer.flush(last, sink._decoded(await log.fetch(0, limit=1_000_000, max_bytes=2**40)))
    rows = [row for row in await rows_of_log(log) if row[0] > dropped_at or not row[3].startswith("4403")]
    assert rows_of_history(tmp_path / "new") == rows
    await fill(log, 1, seed=3)
    following = sink._decoded(await log.fetch(last, limit=1_000_000, max_bytes=2**40))
    await writer.flush((await log.bounds())[1], following)
    assert not writer.store._deletions()


async def test_what_is_written_of_a_dropped_division_alone_does_not_come_back(tmp_path: Path) -> None:
    """No segment covers entries whose rows are all left out: they are left out again after a restart."""
    log = MemoryLog(epoch="e1")
    await fill(log, 20)
    parts = sink._decoded(await log.fetch(0, limit=1_000_000, max_bytes=2**40))
    await HistorySink(log, open_store(tmp_path, log), KEEP_ALL, SystemClock()).drop("44")
    for _ in range(2):
        writer = HistorySink(log, open_store(tmp_path, log), KEEP_ALL, SystemClock())
        await writer.flush((await log.bounds())[1], parts)
        assert not writer.store.segments


async def test_an_interrupted_deletion_is_completed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a full disk or a kill has left are deleted by the next start."""
    log = MemoryLog(epoch="e1")
    await fill(log, 30)
    writer = await write(log, tmp_path, monkeypatch)

    def full(*_: object) -> int:
        raise Unavailable("history: no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(segments.SegmentStore, "_rewrite", full)
        with pytest.raises(Unavailable):
            await writer.drop("4403")
    assert any(row[3].startswith("4403") for row in rows_of_history(tmp_path))
    open_store(tmp_path, log)
    rows = await rows_of_log(log)
    assert rows_of_history(tmp_path) == [row for row in rows if not row[3].startswith("4403")]


async def test_a_deletion_ends_where_the_log_lost_its_end(tmp_path: Path) -> None:
    """Sequences that the log assigns again are of readings that arrived after the deletion."""
    log = MemoryLog(epoch="e1")
    await fill(log, 20)
    store = open_store(tmp_path, log)
    store.drop("4403", (await log.bounds())[1], log.timelines.timeline_at(1))
    agreed = 9
    store.open(_LostEnd(agreed), "e1")  # type: ignore[arg-type] # as far as the store needs them
    parts = sink._decoded(await log.fetch(0, limit=1_000_000, max_bytes=2**40))
    store.append(0, (await log.bounds())[1], b"after", "e1", parts)
    rows = await rows_of_log(log)
    assert rows_of_history(tmp_path) == [row for row in rows if row[0] > agreed or not row[3].startswith("4403")]


class _LostEnd:
    """Timelines of a log that has lost what followed an entry."""

    def __init__(self, agreed: int) -> None:
        self.agreed = agreed

    def holds(self, _timeline: bytes, sequence: int) -> bool:
        """Return whether the log still holds an entry."""
        return sequence <= self.agreed

    def diverged_at(self, _timeline: bytes) -> int:
        """Return the last entry that is left."""
        return self.agreed

    def timeline_at(self, _sequence: int) -> bytes:
        """Return the timeline of what is left."""
        return b"before"


async def test_what_the_log_has_lost_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history then ends where the log does, in the middle of a segment too, and continues from there."""
    log = MemoryLog(epoch="e1")
    await fill(log, 40)
    store = (await write(log, tmp_path, monkeypatch)).store
    agreed = store.segments[-2].after + 4
    store.open(_LostEnd(agreed), "e1")  # type: ignore[arg-type] # as far as the store needs them
    assert store.end == agreed
    assert rows_of_history(tmp_path) == [row for row in await rows_of_log(log) if row[0] <= agreed]
