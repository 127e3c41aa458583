"""Identities on disk: every row is found by its own question and by no other, however runs are merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.timelines import Timeline, TimelineHistory, Timelines
from sensegate.clock import HOUR_US
from sensegate.persist import sorted_runs
from sensegate.persist.checkpoint_store import Checkpoint, CheckpointStore
from sensegate.persist.identity import hashes
from sensegate.persist.memtable import Memtable
from sensegate.persist.sorted_runs import ARRIVAL_BUCKETS, DamagedFile, SortedRun, bucket_of, merge_runs, write_run
from sensegate.persist.watermarks import WatermarkState

ROW = st.tuples(st.integers(0, 5), st.integers(-3, 40), st.integers(100, 104), st.integers(0, 1 << 62))
"""(series, key, bucket, bits)."""


def recent_of(rows: list[tuple[int, int, int, int]], *, timed: bool = False) -> Memtable:
    """Return rows in memory."""
    recent = Memtable(4)
    recent.has_times = timed
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        number, key, bucket, bits = (np.array(column) for column in zip(*part, strict=True))
        recent.add(
            hashes(number.astype(np.uint32), key.astype(np.int64)),
            number.astype(np.uint32),
            bits=bits.astype(np.uint64),
            fingerprints=(bits + 1).astype(np.uint64),
            time=key.astype(np.int64) * 10,
            bucket=bucket.astype(np.int32),
        )
    return recent


def query_columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns of questions (series, key, bucket)."""
    number = np.array([row[0] for row in rows], np.uint32)
    key = np.array([row[1] for row in rows], np.int64)
    return hashes(number, key), number, np.array([row[2] for row in rows], np.int64)


def answers(run: SortedRun, questions: list[tuple[int, int, int]]) -> dict[int, list[int]]:
    """Return the sorted bits found for each question."""
    match = run.find(*query_columns(questions))
    table: dict[int, list[int]] = {}
    for query, bits in zip(match.query.tolist(), match.bits.tolist(), strict=True):
        table.setdefault(query, []).append(bits)
    return {query: sorted(bits) for query, bits in table.items()}


@given(
    parts=st.lists(st.lists(ROW, min_size=1, max_size=60), min_size=1, max_size=4),
    timed=st.booleans(),
    floor=st.integers(100, 103),
)
def test_merged_runs_answer_as_a_plain_table(
    tmp_path_factory: pytest.TempPathFactory, *, parts: list[list[tuple[int, int, int, int]]], timed: bool, floor: int
) -> None:
    """Property: a merged run finds all rows of an identity in a bucket, and forgets the hours before the floor."""
    directory = tmp_path_factory.mktemp("runs")
    opened = [write_run(directory / f"run-{n}", recent_of(rows, timed=timed), 0) for n, rows in enumerate(parts)]
    merged = merge_runs(directory / "run-m", [run for run in opened if run], floor)
    table: dict[tuple[int, int, int], list[int]] = {}
    for number, key, bucket, bits in (row for rows in parts for row in rows):
        if bucket >= floor:
            table.setdefault((number, key, bucket), []).append(bits)
    questions = [(number, key, bucket) for number in range(6) for key in range(-4, 42) for bucket in range(99, 106)]
    expected = {n: sorted(table[question]) for n, question in enumerate(questions) if question in table}
    assert (answers(merged, questions) if merged else {}) == expected
    if merged and timed:
        match = merged.find(*query_columns(questions))
        assert match.time.tolist() == [questions[query][1] * 10 for query in match.query.tolist()]


def test_many_rows_over_many_fences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of many blocks, merged in slices of bounded memory, find each row."""
    monkeypatch.setattr(sorted_runs, "CHUNK_ROWS", 1_000)
    rows = [(n % 50, n, 100 + n % 2, n) for n in range(9_000)]
    results = [write_run(tmp_path / f"run-{n}", recent_of(rows[n::2]), 0) for n in range(2)]
    merged = merge_runs(tmp_path / "run-m", [run for run in results if run], 0)
    assert merged
    for run in (merged, SortedRun(tmp_path / "run-m")):
        run.release_pages()
        assert answers(run, [row[:3] for row in rows]) == {n: [n] for n in range(9_000)}
        assert answers(run, [(number + 1, key, bucket) for number, key, bucket, _ in rows]) == {}


def test_memory_finds_what_it_was_given() -> None:
    """Rows in memory are found whatever chains they share, all revisions of an identity."""
    rows = [(n % 3, n // 2, 1, n) for n in range(600)]
    recent = recent_of(rows)
    hashed, number, _ = query_columns([row[:3] for row in rows])
    match = recent.find(hashed, number)
    got: dict[int, set[int]] = {}
    for query, bits in zip(match.query.tolist(), match.bits.tolist(), strict=True):
        got.setdefault(query, set()).add(bits)
    assert got == {n: {bits for s, k, _, bits in rows if (s, k) == rows[n][:2]} for n in range(600)}


@given(st.integers(0, (1 << 32) - 1), st.lists(st.integers(-(1 << 63), (1 << 63) - 1), unique=True, max_size=50))
def test_hashes_of_one_series_never_collide(number: int, keys: list[int]) -> None:
    """Property: for one series the hash is a bijection of the key."""
    hashed = hashes(np.full(len(keys), number, np.uint32), np.array(keys, np.int64))
    assert len(set(hashed.tolist())) == len(keys)


def test_buckets() -> None:
    """Readings stand by the hour of their time; message ids and stamps of the far future by that of their arrival."""
    time = np.array([5, 5, 5, 60]) * HOUR_US
    received = np.array([6, 6, 6, 6]) * HOUR_US
    kind = np.array([0, 1, 2, 0], np.uint8)
    assert bucket_of(kind, time, received).tolist() == [5, 5, ARRIVAL_BUCKETS + 6, ARRIVAL_BUCKETS + 6]


def checkpoint(rows: list[tuple[int, int, int, int]], series: int = 3, floor: int = 0) -> Checkpoint:
    """Return a checkpoint of some rows."""
    marks = [np.arange(series, dtype=np.int64) + n for n in range(5)]
    return Checkpoint(
        1, recent_of(rows), WatermarkState(series, marks), [f"dev\np{n}\n\n0" for n in range(series)], floor, 7
    )


LINE = Timelines.in_memory("e")
ROWS = [(0, 1, 100, 5), (1, 2, 101, 6)]


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    """What was saved is what is opened, with names that only grow."""
    store = CheckpointStore(tmp_path)
    assert store.open(LINE, 99) is None
    store.save(checkpoint(ROWS), LINE, 10)
    store.save(checkpoint([(2, 3, 102, 7)], series=5), LINE, 20)
    reopened = CheckpointStore(tmp_path)
    opened = reopened.open(LINE, 99)
    assert opened
    assert (opened.manifest.sequence, opened.manifest.latest, reopened.sequence) == (20, 7, 20)
    assert opened.series_names == [f"dev\np{n}\n\n0" for n in range(5)]
    assert [column.tolist() for column in opened.watermarks] == [[n, n + 1, n + 2, n + 3, n + 4] for n in range(5)]
    assert sorted(len(run) for run in reopened.runs) == [1, 2]


def test_leftovers_of_a_crash_are_ignored_and_removed(tmp_path: Path) -> None:
    """A run or a manifest that was never finished is in no manifest: it is as if it had not been."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    store.save(checkpoint(ROWS), LINE, 10)
    whole = (tmp_path / "run-1").read_bytes()
    (tmp_path / "run-2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "state-2").write_bytes(b"half")
    (tmp_path / "manifest.part").write_bytes(b"{")
    with (tmp_path / "series.names").open("ab") as file:
        file.write(b"half a name")
    reopened = CheckpointStore(tmp_path)
    opened = reopened.open(LINE, 99)
    assert opened
    assert len(reopened.runs) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest", "run-1", "series.names", "state-1"]
    reopened.save(checkpoint([(2, 3, 102, 7)], series=4), LINE, 20)
    assert CheckpointStore(tmp_path).open(LINE, 99)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda raw: raw[:-3],
    "head": lambda raw: b"\xff" + raw[1:],
    "end": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "gone": lambda _raw: None,
}


@pytest.mark.parametrize("name", ["manifest", "state-1", "run-1", "series.names"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_means_building_again(tmp_path: Path, name: str, damage: str) -> None:
    """A damaged file is noticed and set aside: nothing of the state is used, all is built again from the log."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    store.save(checkpoint(ROWS), LINE, 10)
    path = tmp_path / name
    raw = path.read_bytes()
    path.unlink()
    spoilt = DAMAGES[damage](raw)
    if spoilt is not None:
        path.write_bytes(spoilt)
    reopened = CheckpointStore(tmp_path)
    assert reopened.open(LINE, 99) is None
    assert reopened.runs == ()
    assert reopened.sequence == 0
    if spoilt is None:
        assert bool(reopened.damage) == (name != "manifest"), "without a manifest there is no state"
    else:
        assert name in reopened.damage
        assert (tmp_path / f"damaged.{name.partition('-')[0]}").read_bytes() == spoilt
    reopened.save(checkpoint(ROWS), LINE, 11)
    assert CheckpointStore(tmp_path).open(LINE, 99)


@pytest.mark.parametrize(("epoch", "last"), [("other", 99), ("e", 9)])
def test_a_state_of_another_log_is_not_used(tmp_path: Path, epoch: str, last: int) -> None:
    """A log made anew, or one that lost its end, no longer holds what the state says was kept."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    store.save(checkpoint(ROWS), LINE, 10)
    reopened = CheckpointStore(tmp_path)
    assert reopened.open(Timelines.in_memory(epoch), last) is None
    assert reopened.lost_end == (10 if epoch == "e" else 0)


def test_a_lost_end_is_remembered_until_it_is_dealt_with(tmp_path: Path) -> None:
    """Through any number of starts, also once the log has grown beyond it; not for another log."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    store.save(checkpoint(ROWS), LINE, 10)
    for last in (9, 9, 50):
        store = CheckpointStore(tmp_path)
        assert store.open(LINE, last) is None
        assert store.lost_end == 10
    other = CheckpointStore(tmp_path)
    other.open(Timelines.in_memory("f"), 9)
    assert other.lost_end == 0
    store.clear_lost_end()
    assert CheckpointStore(tmp_path).open(LINE, 9) is None
    assert store.lost_end == CheckpointStore(tmp_path).lost_end == 0


@given(st.data())
def test_no_bit_of_a_run_changes_unseen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Property: whatever byte is another, in head, fences or columns, `verify` or the opening says so."""
    path = tmp_path_factory.mktemp("run") / "run-1"
    timed = data.draw(st.booleans())
    run = write_run(path, recent_of([(n % 3, n, 100 + n % 2, n) for n in range(300)], timed=timed), 0)
    assert run
    run.verify()
    raw = bytearray(path.read_bytes())
    used = [at for at in range(len(raw)) if at < 200 or at >= sorted_runs.HEADER_BYTES]
    raw[data.draw(st.sampled_from(used[:24] + used[200:]))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    with pytest.raises(DamagedFile):
        SortedRun(path).verify()


def test_damage_is_not_merged_away(tmp_path: Path) -> None:
    """New checksums over damaged rows would hide them for good: a merge checks what it reads."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    for n in range(4):
        store.save(checkpoint([(0, n, 100, n)]), LINE, 10 + n)
    path = tmp_path / "run-2"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(DamagedFile, match="run-2"):
        store.merge_full_level()
    reopened = CheckpointStore(tmp_path)
    assert reopened.open(LINE, 99) is None
    assert "run-2" in reopened.damage


def test_a_state_is_of_one_timeline(tmp_path: Path) -> None:
    """Of a log that lost its end and grew beyond it again nothing is known, however long it is now."""
    line = Timelines(TimelineHistory("e").with_timeline((), Timeline(b"aaaaaa", 0, 0)))
    store = CheckpointStore(tmp_path)
    store.open(line, 99)
    store.save(checkpoint(ROWS), line, 10)
    assert CheckpointStore(tmp_path).open(line, 99)
    for start, known in ((11, True), (10, False)):
        cut = Timelines(line.history.with_timeline(line.history.current, Timeline(b"bbbbbb", start, 1)))
        reopened = CheckpointStore(tmp_path)
        assert (reopened.open(cut, 99) is not None) == known
        assert reopened.lost_end == (0 if known else 10)


def test_the_past_is_forgotten(tmp_path: Path) -> None:
    """Runs whose hours are all before the floor are removed with the next checkpoint."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    store.save(checkpoint(ROWS), LINE, 10)
    store.save(checkpoint([(0, 9, 200, 1)], floor=150), LINE, 20)
    assert [run.path.name for run in store.runs] == ["run-2"]
    assert not (tmp_path / "run-1").exists()


def test_runs_of_one_size_are_merged(tmp_path: Path) -> None:
    """The number of runs stays small; what was in them stays found."""
    store = CheckpointStore(tmp_path)
    store.open(LINE, 99)
    for n in range(40):
        store.save(checkpoint([(0, n, 100, n)]), LINE, 10 + n)
        while store.merge_full_level():
            pass
    assert len(store.runs) < 4
    reopened = CheckpointStore(tmp_path)
    assert reopened.open(LINE, 99)
    rows = sorted(
        bits
        for run in reopened.runs
        for answer in answers(run, [(0, n, 100) for n in range(40)]).values()
        for bits in answer
    )
    assert rows == list(range(40))
    assert len(list(tmp_path.glob("run-*"))) == len(reopened.runs)
