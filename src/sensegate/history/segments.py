"""Segments of the history: Parquet files, each with the readings of one contiguous span of the log.

    00000000000000-00000000004711.parquet        rows of the entries 1 to 4711, by property, device, time
    00000000000000-00000000004711-812.sums       the same rows as hourly sums, Parquet too
    dropped.json                                 divisions whose rows are deleted, up to which entry of the log

A file is written under a temporary name, synced, renamed, and the directory is synced: it is whole or it is not there.
The footer says which span it covers and which timeline of the log it holds. Merging writes the union of neighbours
first and deletes them afterwards; after a kill in between, the files that lie within another's span are deleted at the
next start. So at any moment the files cover each entry of the log up to `end` exactly once.

The deletion of a division is stored before anything is deleted, until the segments cover what the log held by then: a
start completes it, and rows that are written from the log afterwards are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import structlog

from sensegate.bus.batch import Batch
from sensegate.bus.files import sync_path
from sensegate.bus.timelines import Timelines
from sensegate.errors import Unavailable
from sensegate.history.segment_files import SegmentFiles
from sensegate.history.segment_rows import SegmentRows, rows_of_entries
from sensegate.model import BOOL

FORMAT = 1
FANOUT = 8
"""Number of neighbours of a size that are merged into one."""
MERGED_ROWS_MAX = 2_097_152
"""Rows of a merged file at most: merging holds some 150 bytes of each in memory."""
_SMALL_ROWS = 4_096
NEVER = 2**62
DELETIONS = "dropped.json"

_log = structlog.get_logger("history")


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment, as its footer describes it."""

    after: int
    """Sequence of the log after which its span begins."""
    end: int
    """Last sequence of its span."""
    epoch: str
    timeline: str
    """Timeline of the log that holds `end`, in hexadecimal digits."""
    rows: int
    time_min: int
    """Earliest phenomenon time, µs UTC."""
    time_max: int
    received_min: int
    """Earliest arrival, µs UTC."""
    revisions: int
    """Rows that revise another one."""
    received_min_by_grade: tuple[int, int] | None = None
    """Earliest arrival of grades 1 and 2, and of 3 and 4; `NEVER`: no such row; None: a file of an earlier version."""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return f"{self.after:014d}-{self.end:014d}"


class Deletion(msgspec.Struct, frozen=True):
    """The deletion of a division's rows."""

    division: str
    last: int
    """Last sequence of the log when it was ordered; later readings of the division are kept."""
    timeline: str
    """Timeline of the log that holds `last`, in hexadecimal digits."""


class SegmentStore:
    """The segments in a directory; its methods block and are called by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises `ConfigError`: the extra is not installed."""
        self.directory = directory
        self._files = SegmentFiles()
        self.segments: tuple[Segment, ...] = ()
        """Segments in the order of the log; the list is replaced as a whole."""
        self._obsolete: list[Segment] = []
        """Merged into others, and perhaps still read."""

    def open(self, timelines: Timelines, epoch: str) -> None:
        """Load the existing segments; delete interrupted and merged ones, and rows that the log has lost since.

        Nobody may be reading meanwhile.

        Raises:
            Unavailable: the directory or a file cannot be read or written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for file in self.directory.glob("*.tmp"):
                file.unlink()
            described = sorted((self._describe(file) for file in self.directory.glob("*.parquet")), key=_span_order)
        except OSError as why:
            raise Unavailable(f"history: {why}") from why
        kept: list[Segment] = []
        for segment in described:
            if kept and segment.end <= kept[-1].end:
                self._delete([segment])
            else:
                kept.append(segment)
        self.segments = tuple(kept)
        for segment in reversed(kept):
            if not self._fit(segment, timelines, epoch):
                break
        for segment in self.segments:
            if not self.sums_of(segment).exists():
                self._write_sums(segment)
        expected = {self.sums_of(segment) for segment in self.segments}
        for file in self.directory.glob("*.sums"):
            if file not in expected:
                file.unlink()
        self._complete_deletions(timelines)

    def _fit(self, segment: Segment, timelines: Timelines, epoch: str) -> bool:
        """Cut off what the log has lost of a segment; return whether anything was."""
        timeline = bytes.fromhex(segment.timeline)
        if segment.epoch == epoch and timelines.holds(timeline, segment.end):
            return False
        agreed = timelines.diverged_at(timeline) if segment.epoch == epoch else None
        if agreed is None:
            raise Unavailable(
                f"history: {self.file_of(segment)} is of another log; move the directory away to begin a new history"
            )
        _log.warning("history cut: the log has lost its end", segment=segment.name, agreed=agreed)
        if agreed > segment.after:
            held = timelines.timeline_at(agreed).hex()
            cut = msgspec.structs.replace(segment, end=agreed, timeline=held)
            rows = self._files.read_rows([self.file_of(segment)])
            self._write(cut, rows.take(np.flatnonzero(rows.entry <= agreed)))
        self.segments = tuple(other for other in self.segments if other != segment)
        self._delete([segment])
        return True

    @property
    def end(self) -> int:
        """Last sequence of the log that the segments cover."""
        return self.segments[-1].end if self.segments else 0

    def file_of(self, segment: Segment) -> Path:
        """Return the file of a segment."""
        return self.directory / f"{segment.name}.parquet"

    def sums_of(self, segment: Segment) -> Path:
        """Return the file of a segment's hourly sums; another number of rows has other sums."""
        return self.directory / f"{segment.name}-{segment.rows}.sums"

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    def append(self, after: int, end: int, timeline: bytes, epoch: str, parts: Sequence[tuple[int, Batch]]) -> int:
        """Write the rows of the entries in (after, end] as a segment; return their number.

        Args:
            after: sequence of the log after which the span begins.
            end: its last sequence.
            timeline: timeline of the log that holds `end`.
            epoch: epoch of the log.
            parts: (sequence, rows of the entry).

        Raises:
            Unavailable: nothing was written.
        """
        parts = [(entry, batch) for entry, batch in parts if len(batch)]
        if not parts:
            return 0
        stored = self._deletions()
        deletions = [deletion for deletion in stored if deletion.last > self.end]
        if deletions != stored:
            self._store_deletions(deletions)
        rows = rows_of_entries(parts)
        if deletions:
            rows = rows.take(np.flatnonzero(~_is_dropped(rows, deletions)))
        if not len(rows):
            return 0
        bare = Segment(
            after=after,
            end=end,
            epoch=epoch,
            timeline=timeline.hex(),
            rows=0,
            time_min=0,
            time_max=0,
            received_min=0,
            revisions=0,
        )
        self._write(bare, rows)
        return len(rows)

    def _write(self, span: Segment, rows: SegmentRows) -> None:
        """Write rows as a segment of a span, in the place of those within it."""
        rows = rows.sorted()
        segment = _described(span, rows)
        temporary, sums = self.directory / f"{segment.name}.tmp", self.directory / f"{segment.name}.sums.tmp"
        try:
            self._files.write_rows(temporary, rows, msgspec.json.encode(segment))
            self._files.write_sums(sums, rows)
            sync_path(temporary)
            sync_path(sums)
            # The sums first: a segment that is there has its sums too.
            sums.rename(self.sums_of(segment))
            publish(temporary, self.file_of(segment))
        except OSError as why:
            raise Unavailable(f"history: {why}") from why
        finally:
            temporary.unlink(missing_ok=True)
            sums.unlink(missing_ok=True)
        kept = [other for other in self.segments if not _within(other, segment)]
        self.segments = tuple(sorted([*kept, segment], key=_span_order))

    def _write_sums(self, segment: Segment) -> None:
        temporary = self.directory / f"{segment.name}.sums.tmp"
        try:
            self._files.write_sums(temporary, self._files.read_rows([self.file_of(segment)]))
            sync_path(temporary)
            publish(temporary, self.sums_of(segment))
        except OSError as why:
            raise Unavailable(f"history: {why}") from why

    # ── merging and retention ─────────────────────────────────────────────────────────────────────────

    def merge(self) -> bool:
        """Merge neighbours of about one size, if there are enough of them; return whether any were."""
        run = mergeable(self.segments)
        if not run:
            return False
        rows = self._files.read_rows([self.file_of(segment) for segment in run])
        self._write(msgspec.structs.replace(run[-1], after=run[0].after), rows)
        self._obsolete += run
        return True

    def retain(self, received_min: int, received_min_high: int) -> int:
        """Delete readings that arrived before a time (another one for grades 3 and 4); return the segments changed."""
        limits = received_min // 1_000, received_min_high // 1_000

        def keep(rows: SegmentRows) -> BOOL:
            return rows.received >= np.where(_is_high(rows), limits[1], limits[0])

        def concerns(segment: Segment) -> bool:
            low, high = segment.received_min_by_grade or (segment.received_min, segment.received_min)
            return low < received_min or high < received_min_high

        return self._rewrite(keep, concerns)

    def drop(self, division: str, last: int, timeline: bytes) -> int:
        """Delete the rows of a division in the entries of the log up to `last`; return the number of segments changed.

        Those that no segment covers yet are not written either, also after a restart. Nobody may be reading meanwhile.

        Raises:
            Unavailable: not all of them are deleted; the next start deletes the rest if the deletion was stored.
        """
        if not division.isdigit():
            raise ValueError(division)
        others = [deletion for deletion in self._deletions() if deletion.division != division]
        deletions = [*others, Deletion(division, last, timeline.hex())]
        self._store_deletions(deletions)
        return self._delete_dropped(deletions)

    def _complete_deletions(self, timelines: Timelines) -> None:
        """Delete what an interrupted deletion has left, except rows that the log received after it lost its end."""
        stored = self._deletions()
        deletions = [
            msgspec.structs.replace(
                deletion, last=min(deletion.last, timelines.diverged_at(bytes.fromhex(deletion.timeline)) or 0)
            )
            for deletion in stored
        ]
        if deletions != stored:
            self._store_deletions(deletions)
        self._delete_dropped(deletions)

    def _delete_dropped(self, deletions: Sequence[Deletion]) -> int:
        return self._rewrite(
            lambda rows: ~_is_dropped(rows, deletions),
            lambda segment: any(segment.after < deletion.last for deletion in deletions),
        )

    def _deletions(self) -> list[Deletion]:
        """Return the stored deletions; they are read each time, since one may come before `open`."""
        file = self.directory / DELETIONS
        try:
            return msgspec.json.decode(file.read_bytes(), type=list[Deletion])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as why:
            raise Unavailable(f"history: {file}: {why}; move it away, and delete its divisions again") from why

    def _store_deletions(self, deletions: Sequence[Deletion]) -> None:
        temporary = self.directory / f"{DELETIONS}.tmp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(msgspec.json.encode(deletions))
            sync_path(temporary)
            publish(temporary, self.directory / DELETIONS)
        except OSError as why:
            raise Unavailable(f"history: {why}") from why

    def _rewrite(self, keep: Callable[[SegmentRows], BOOL], concerns: Callable[[Segment], bool]) -> int:
        """Keep the rows that meet a condition; nobody may be reading meanwhile."""
        changed = 0
        for segment in self.segments:
            if not concerns(segment) or not segment.rows:
                continue
            rows = self._files.read_rows([self.file_of(segment)])
            kept = rows.take(np.flatnonzero(keep(rows)))
            if len(kept) == segment.rows:
                if segment.received_min_by_grade is None:
                    # So that it is not read again each time.
                    described = _described(segment, rows)
                    self.segments = tuple(described if other == segment else other for other in self.segments)
                continue
            changed += 1
            if len(kept) or segment == self.segments[-1]:
                self._write(segment, kept)
                self.sums_of(segment).unlink(missing_ok=True)
            else:
                # The last one stays, since its end is where the sink continues.
                self.segments = tuple(other for other in self.segments if other != segment)
                self._delete([segment])
        return changed

    @property
    def has_obsolete(self) -> bool:
        """True if files were merged into others and are still there."""
        return bool(self._obsolete)

    def delete_obsolete(self) -> None:
        """Delete the files that were merged into others, once nobody reads them."""
        obsolete, self._obsolete = self._obsolete, []
        self._delete(obsolete)

    def _delete(self, segments: Iterable[Segment]) -> None:
        names = {segment.name for segment in self.segments}
        for segment in segments:
            if segment.name not in names:
                self.file_of(segment).unlink(missing_ok=True)
                self.sums_of(segment).unlink(missing_ok=True)

    def _describe(self, file: Path) -> Segment:
        try:
            return msgspec.json.decode(self._files.footer(file) or b"", type=Segment)
        except msgspec.DecodeError as why:
            raise Unavailable(f"history: {file} is not a segment ({why}); move it away") from why


def _described(span: Segment, rows: SegmentRows) -> Segment:
    """Return the description of a segment of a span with these rows."""
    size, is_high = len(rows), _is_high(rows)
    low, high = (int(rows.received[of].min()) * 1_000 if of.any() else NEVER for of in (~is_high, is_high))
    return msgspec.structs.replace(
        span,
        rows=size,
        time_min=int(rows.time.min()) if size else 0,
        time_max=int(rows.time.max()) if size else 0,
        received_min=int(rows.received.min()) * 1_000 if size else 0,
        revisions=int((rows.revision > 0).sum()),
        received_min_by_grade=(low, high),
    )


def _is_high(rows: SegmentRows) -> BOOL:
    """Return which rows have a grade whose retention is the shorter one."""
    is_high: BOOL = rows.origins.grade[rows.origin] >= 3
    return is_high


def _is_dropped(rows: SegmentRows, deletions: Iterable[Deletion]) -> BOOL:
    """Return which rows a deletion names."""
    is_dropped = np.zeros(len(rows), np.bool_)
    for deletion in deletions:
        is_within = rows.origins.division.starts_with(deletion.division)[rows.origin]
        is_dropped |= is_within & (rows.entry <= deletion.last)
    return is_dropped


def _span_order(segment: Segment) -> tuple[int, int]:
    return segment.after, -segment.end


def _within(inner: Segment, outer: Segment) -> bool:
    return outer.after <= inner.after and inner.end <= outer.end


def _level_of(rows: int) -> int:
    level, most = 0, _SMALL_ROWS
    while rows > most:
        level, most = level + 1, most * FANOUT
    return level


def mergeable(segments: Sequence[Segment]) -> Sequence[Segment]:
    """Return neighbours to be merged, the smallest first; empty: there are none.

    There are `FANOUT` or more of them, or three or more that fill half of a file, and none is larger than all others
    together: each row is written again a few times only, however large the history is.
    """
    for level in range(_level_of(MERGED_ROWS_MAX) + 1):
        begin = 0
        while begin < len(segments):
            end, rows = begin, 0
            while (
                end < len(segments)
                and _level_of(segments[end].rows) <= level
                and rows + segments[end].rows <= MERGED_ROWS_MAX
            ):
                rows, end = rows + segments[end].rows, end + 1
            run = segments[begin:end]
            is_enough = len(run) >= FANOUT or (len(run) > 2 and 2 * rows >= MERGED_ROWS_MAX)
            if is_enough and rows >= 2 * max(segment.rows for segment in run):
                return run
            begin += 1
    return ()


def publish(temporary: Path, target: Path) -> None:
    """Give a synced file its name, and make that durable."""
    temporary.rename(target)
    sync_path(target.parent)
