"""Segments of the history: Parquet files, each with the readings of one contiguous span of the log.

    00000000000000-00000000004711.parquet        rows of the entries 1 to 4711, by property, device, time
    00000000000000-00000000004711-812.sums       the same rows as hourly sums, Parquet too

A file is written under a temporary name, synced, renamed, and the directory is synced: it is whole or it is not there.
The footer says which span it covers and which timeline of the log it holds. Merging writes the union of neighbours
first and deletes them afterwards; after a kill in between, the files that lie within another's span are deleted at the
next start. So at any moment the files cover each entry of the log up to `end` exactly once.

Values are stored as whole multiples of a power of ten where that is exact, else as doubles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

from sensegate.bus.batch import Batch
from sensegate.bus.timelines import Timelines
from sensegate.errors import Unavailable
from sensegate.history.engine import HistoryEngine
from sensegate.share.matching import SECONDARY

FORMAT = 1
FANOUT = 8
"""So many neighbours of a size are merged into one."""
MERGED_ROWS_MAX = 8_000_000
ROW_GROUP = 65_536
_SMALL_ROWS = 4_096
_DIGITS_MAX = 6
_EXACT_SHARE = 0.95
"""A property is stored as whole numbers if so many of its values are exact."""
_ORDER = "property, device, time, entry, idx"
_META = "sensegate"

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
    format: int = FORMAT

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return f"{self.after:014d}-{self.end:014d}"


class SegmentStore:
    """The segments in a directory; its methods block and are called by one thread at a time."""

    def __init__(self, directory: Path, engine: HistoryEngine) -> None:
        self.directory = directory
        self._engine = engine
        self.segments: tuple[Segment, ...] = ()
        """In the order of the log; replaced as a whole."""
        self._obsolete: list[Segment] = []
        """Merged into others, and perhaps still read."""

    def open(self, timelines: Timelines, epoch: str) -> None:
        """Load what is there; delete what was interrupted or merged, and what the log has lost since.

        Raises:
            Unavailable: the directory or a file cannot be read.
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
            sql = f"SELECT * FROM read_parquet('{self.file_of(segment)}') WHERE entry <= {agreed}"
            self._write(self._described(cut, sql), sql)
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

    def append(self, after: int, end: int, timeline: bytes, epoch: str, parts: Sequence[tuple[int, Batch]]) -> None:
        """Write the rows of the entries in (after, end] as a segment; `parts`: (sequence, rows of the entry).

        Raises:
            Unavailable: nothing was written.
        """
        parts = [(entry, batch) for entry, batch in parts if len(batch)]
        if not parts:
            return
        batches = [batch for _, batch in parts]
        segment = Segment(
            after=after,
            end=end,
            epoch=epoch,
            timeline=timeline.hex(),
            rows=sum(map(len, batches)),
            time_min=min(int(batch.time.min()) for batch in batches),
            time_max=max(int(batch.time.max()) for batch in batches),
            received_min=min(int(batch.received.min()) for batch in batches),
            revisions=sum(int((batch.revision > 0).sum()) for batch in batches),
        )
        self._write(segment, _ROWS_SQL, _tables(parts))

    def _described(self, segment: Segment, sql: str) -> Segment:
        """Return the description of a segment that holds the rows of a query."""
        columns = self._engine.run(
            "SELECT count(*) n, coalesce(min(time), 0) a, coalesce(max(time), 0) b, coalesce(min(received), 0) c, "
            f"count(*) FILTER (revision > 0) r FROM ({sql})"
        )
        count, least, most, received, revisions = (int(columns[name][0]) for name in "nabcr")
        return msgspec.structs.replace(
            segment, rows=count, time_min=least, time_max=most, received_min=received * 1_000, revisions=revisions
        )

    def _write(self, segment: Segment, sql: str, tables: dict[str, dict[str, Any]] | None = None) -> None:
        """Write the rows of a query as a segment in the place of those within its span."""
        temporary, sums = self.directory / f"{segment.name}.tmp", self.directory / f"{segment.name}.sums.tmp"
        footer = msgspec.json.encode(segment).decode().replace("'", "''")
        try:
            self._engine.run(
                f"COPY ({sql} ORDER BY {_ORDER}) TO '{temporary}' (FORMAT parquet, COMPRESSION zstd, "
                f"PARQUET_VERSION 'V2', ROW_GROUP_SIZE {ROW_GROUP}, KV_METADATA {{{_META}: '{footer}'}})",
                tables,
            )
            self._copy_sums(temporary, sums)
            _sync(temporary)
            _sync(sums)
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

    def _copy_sums(self, rows: Path, target: Path) -> None:
        self._engine.run(
            f"COPY ({_SUMS_SQL.format(rows=rows)}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, "
            f"PARQUET_VERSION 'V2', ROW_GROUP_SIZE {ROW_GROUP})"
        )

    def _write_sums(self, segment: Segment) -> None:
        temporary = self.directory / f"{segment.name}.sums.tmp"
        self._copy_sums(self.file_of(segment), temporary)
        _sync(temporary)
        publish(temporary, self.sums_of(segment))

    # ── merging and retention ─────────────────────────────────────────────────────────────────────────

    def merge(self) -> bool:
        """Merge neighbours of about one size, if there are enough of them; return whether any were."""
        run = mergeable(self.segments)
        if not run:
            return False
        files = ", ".join(f"'{self.file_of(segment)}'" for segment in run)
        union = msgspec.structs.replace(
            run[-1],
            after=run[0].after,
            rows=sum(segment.rows for segment in run),
            time_min=min(segment.time_min for segment in run),
            time_max=max(segment.time_max for segment in run),
            received_min=min(segment.received_min for segment in run),
            revisions=sum(segment.revisions for segment in run),
        )
        self._write(union, f"SELECT * FROM read_parquet([{files}])")
        self._obsolete += run
        return True

    def retain(self, received_min: int, received_min_high: int) -> int:
        """Delete readings that arrived before a time (another one for grades 3 and 4); return the segments changed."""
        condition = (
            f"received >= CASE WHEN grade >= 3 THEN {received_min_high // 1_000} ELSE {received_min // 1_000} END"
        )
        return self._rewrite(condition, lambda segment: segment.received_min < max(received_min, received_min_high))

    def drop(self, division: str) -> int:
        """Delete the readings of a division; return the number of segments changed."""
        if not division.isdigit():
            raise ValueError(division)
        return self._rewrite(f"NOT starts_with(division, '{division}')", lambda _segment: True)

    def _rewrite(self, condition: str, concerns: Callable[[Segment], bool]) -> int:
        """Keep the rows that meet a condition; nobody may be reading meanwhile."""
        changed = 0
        for segment in self.segments:
            if not concerns(segment):
                continue
            sql = f"SELECT * FROM read_parquet('{self.file_of(segment)}') WHERE {condition}"
            left = self._described(segment, sql)
            if left.rows == segment.rows:
                continue
            changed += 1
            if left.rows or segment == self.segments[-1]:
                self._write(left, sql)
                self.sums_of(segment).unlink(missing_ok=True)
            else:
                # The last one stays, since its end is where the sink continues.
                self.segments = tuple(other for other in self.segments if other != segment)
                self._delete([segment])
        return changed

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
        columns = self._engine.run(f"SELECT key, value FROM parquet_kv_metadata('{file}')")
        texts = {bytes(key): bytes(value) for key, value in zip(columns["key"], columns["value"], strict=True)}
        try:
            return msgspec.json.decode(texts[_META.encode()], type=Segment)
        except (KeyError, msgspec.DecodeError) as why:
            raise Unavailable(f"history: {file} is not a segment ({why}); move it away") from why


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

    There are `FANOUT` or more of them, and none is larger than all others together: each row is written again a few
    times only, however large the history is.
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
            if len(run) >= FANOUT and rows >= 2 * max(segment.rows for segment in run):
                return run
            begin = max(end, begin + 1)
    return ()


def publish(temporary: Path, target: Path) -> None:
    """Give a synced file its name, and make that durable."""
    temporary.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────

_ROWS_SQL = """
SELECT o.node, o.partition, o.device, p.property, o.division, o.department, o.domain, o.profile, o.grade, o.lon, o.lat,
    r.time, r.received, r.scaled, p.digits, r.value, r.text, r.quality, r.time_quality, r.revision, r.flags,
    r.entry, r.entry - r.seq AS back, r.idx
FROM rows r JOIN origins o ON r.origin = o.id JOIN properties p ON r.property = p.id
"""
VALUE_SQL = "coalesce(scaled / [1, 10, 100, 1000, 10000, 100000, 1000000][digits + 1], value)"
"""The value of a stored row, NULL for texts."""
_SUMS_SQL = f"""
SELECT device, property, division, department, domain, grade, flags & {int(SECONDARY)} AS secondary,
    time - (time % 3600000000 + 3600000000) % 3600000000 AS hour, count(*) AS n, count(number) AS numbers,
    min(number) AS least, max(number) AS most, sum(number) AS total,
    arg_max(number, time) AS last, max(time) AS last_time,
    count(*) FILTER (quality = 0) AS good
FROM (SELECT *, {VALUE_SQL} AS number FROM read_parquet('{{rows}}')) GROUP BY ALL ORDER BY property, device, hour
"""


def _tables(parts: Sequence[tuple[int, Batch]]) -> dict[str, dict[str, Any]]:
    """Return the rows of entries as columns: those of each row, of each origin and of each property."""
    names: dict[str, int] = {}
    rows: dict[str, list[Any]] = {name: [] for name in ("origin", "property", "entry", "text")}
    origins: dict[str, list[Any]] = {name: [] for name in _ORIGIN_COLUMNS}
    count = 0
    for entry, batch in parts:
        table = batch.origins
        rows["origin"].append(batch.origin.astype(np.int64) + count)
        numbers = np.array([names.setdefault(name, len(names)) for name in batch.properties], np.int64)
        rows["property"].append(numbers[batch.property])
        rows["entry"].append(np.full(len(batch), entry, np.int64))
        text = np.full(len(batch), None, object)
        for row, word in batch.text.items():
            text[row] = word
        rows["text"].append(text)
        origins["node"] += [batch.node] * len(table)
        origins["partition"] += [batch.partition] * len(table)
        origins["device"] += table.device
        for name in ("division", "department", "domain", "profile"):
            origins[name] += getattr(table, name).tolist()
        for name in ("grade", "lon", "lat"):
            origins[name] += getattr(table, name).tolist()
        count += len(table)
    joined = {name: np.concatenate(columns) for name, columns in rows.items()}
    for name in ("time", "value", "quality", "time_quality", "revision", "flags", "seq"):
        joined[name] = np.concatenate([getattr(batch, name) for _, batch in parts])
    joined["seq"] = np.where(joined["seq"] == 0, joined["entry"], joined["seq"])
    joined["idx"] = np.concatenate([batch.index for _, batch in parts])
    joined["received"] = np.concatenate([batch.received for _, batch in parts]) // 1_000
    digits = np.zeros(len(names), np.uint8)
    scaled = np.zeros(len(joined["value"]), np.float64)
    exact = np.zeros(len(joined["value"]), np.bool_)
    order = np.argsort(joined["property"], kind="stable")
    borders = np.searchsorted(joined["property"][order], np.arange(len(names) + 1))
    for number in range(len(names)):
        chosen = order[borders[number] : borders[number + 1]]
        digits[number], scaled[chosen], exact[chosen] = _scaled(joined["value"][chosen])
    joined["scaled"] = np.ma.masked_array(np.where(exact, scaled, 0).astype(np.int64), ~exact)
    joined["value"] = np.ma.masked_array(joined["value"], exact | np.isnan(joined["value"]))
    return {
        "rows": joined,
        "origins": {
            "id": np.arange(count),
            **{name: np.array(origins[name], kind) for name, kind in _ORIGIN_COLUMNS.items()},
        },
        "properties": {"id": np.arange(len(names)), "property": np.array(list(names), object), "digits": digits},
    }


_ORIGIN_COLUMNS: dict[str, Any] = {
    "node": object,
    "partition": np.int32,
    "device": object,
    "division": object,
    "department": object,
    "domain": object,
    "profile": object,
    "grade": np.uint8,
    "lon": np.float64,
    "lat": np.float64,
}


def _scaled(values: Any) -> tuple[int, Any, Any]:
    """Return (digits, whole multiples of 10^-digits, where these are exact); none are exact if too few would be."""
    known = np.isfinite(values)
    for digits in range(_DIGITS_MAX + 1):
        with np.errstate(invalid="ignore", over="ignore"):
            whole = np.rint(values * 10.0**digits)
            # The sign of -0.0 is not kept by a whole number.
            exact = known & (np.abs(whole) < 2.0**52) & (whole / 10.0**digits == values)
            exact &= (whole != 0) | ~np.signbit(values)
        if exact.sum() >= _EXACT_SHARE * max(1, known.sum()):
            return digits, np.where(exact, whole, 0.0), exact
    return 0, np.zeros(len(values)), np.zeros(len(values), np.bool_)
