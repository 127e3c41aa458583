"""Sorted runs of the dedup index: immutable files sorted by (bucket, hash), memory-mapped, written atomically.

A bucket is an hour (see `bucket_of`). A file: 64 kB head (magic, checksum, length, MessagePack), fences (every 256th
hash of each bucket), then the columns hash, bits, prints (8 bytes a row each), number (4) and, where a key is not the
time, time (8). The head has a checksum of the fences and of each column. What a crash leaves half-written is in no
manifest and is removed at the next start.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from sensegate.clock import HOUR_US
from sensegate.model import I32, I64, U8, U32, U64
from sensegate.persist.identity import MESSAGE_ID
from sensegate.persist.memtable import Matches, Memtable

MAGIC = b"sgrun\x00\x00\x02"
FENCE = 256
HEADER_BYTES = 1 << 16
VERIFY_BYTES = 1 << 22
"""Bytes verified at a time, after which their pages are released."""
_START = 24
CHUNK_ROWS = 1 << 17
"""Rows of a bucket that are merged in memory at a time."""

ARRIVAL_BUCKETS = 1 << 24
"""First bucket by hour of arrival: for message ids, and for times far ahead of their arrival."""
FAR_FUTURE_US = 24 * HOUR_US
"""Readings whose time is further ahead of their arrival than this are bucketed by arrival."""


def bucket_of(kind: U8, time: I64, received: I64) -> I32:
    """Return the bucket of each reading: its hour, or that of its arrival (see BY_ARRIVAL)."""
    arrival = (kind == MESSAGE_ID) | (time > received + FAR_FUTURE_US)
    if not arrival.any():
        return (time // HOUR_US).astype(np.int32)
    return np.where(arrival, received // HOUR_US + ARRIVAL_BUCKETS, time // HOUR_US).astype(np.int32)


class RunRows(msgspec.Struct, frozen=True, eq=False):
    """Sorted rows of a bucket or of a part of it."""

    hash: U64
    bits: U64
    fingerprints: U64
    number: U32
    time: I64


class RunHeader(msgspec.Struct, frozen=True):
    """Header of a run file."""

    rows: int
    timed: bool
    buckets: list[tuple[int, int, int]]
    """(bucket, first row, rows), in order."""
    fences: int
    checksums: list[int] = []
    """xxh3 of the fences, then of each column."""


class DamagedFile(ValueError):
    """A file is corrupt or missing."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        """Name of the file."""
        super().__init__(f"{name}: {problem}")


def hour_of(bucket: int) -> int:
    """Return the hour of a bucket."""
    return bucket - ARRIVAL_BUCKETS if bucket >= ARRIVAL_BUCKETS else bucket


class SortedRun:
    """An open file. Lookups touch a page or two a question; `release_pages` gives their memory back."""

    def __init__(self, path: Path) -> None:
        """Open a file and check its header; `verify` checks the rest.

        Raises:
            Damaged: if it is not a whole run.
        """
        self.path = path
        with path.open("rb") as file:
            start = file.read(_START)
            if len(start) < _START or start[:8] != MAGIC:
                raise DamagedFile(path.name, "not a run")
            packed = file.read(min(int.from_bytes(start[16:_START], "little"), HEADER_BYTES))
            if xxhash.xxh3_64_digest(packed) != start[8:16]:
                raise DamagedFile(path.name, "the checksum of its head is wrong")
            try:
                self.header = msgspec.msgpack.decode(packed, type=RunHeader)
            except msgspec.DecodeError as why:
                raise DamagedFile(path.name, "its head is not readable") from why
            if os.fstat(file.fileno()).st_size != _size(self.header):
                raise DamagedFile(path.name, "cut short")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        head = self.header
        offset = HEADER_BYTES
        self._fence: U64 = np.frombuffer(self._map, np.uint64, head.fences, offset).copy()
        offset += head.fences * 8
        columns: list[NDArray[Any]] = []
        for kind in (np.uint64, np.uint64, np.uint64, np.uint32, *((np.int64,) if head.timed else ())):
            columns.append(np.frombuffer(self._map, kind, head.rows, offset))
            offset += head.rows * np.dtype(kind).itemsize
        self.hash, self.bits, self.fingerprints, self.number = columns[:4]
        self.time: I64 | None = columns[4] if head.timed else None
        table = np.array(head.buckets, np.int64).reshape(-1, 3)
        self.buckets, self.first, self.length = table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()
        blocks = -(-self.length // FENCE)
        self._block = np.concatenate([[0], np.cumsum(blocks)[:-1]]).astype(np.int64)
        self._blocks = blocks

    def __len__(self) -> int:
        return self.header.rows

    def verify(self) -> None:
        """Check the whole file against its checksums. Raises `DamagedFile`."""
        head, offset = self.header, HEADER_BYTES
        widths = (8 * head.fences, *(width * head.rows for width in (8, 8, 8, 4, *((8,) if head.timed else ()))))
        if len(head.checksums) != len(widths):
            raise DamagedFile(self.path.name, "it has no checksums")
        for size, checksum in zip(widths, head.checksums, strict=True):
            digest = xxhash.xxh3_64()
            for start in range(offset, offset + size, VERIFY_BYTES):
                with memoryview(self._map) as whole, whole[start : min(start + VERIFY_BYTES, offset + size)] as part:
                    digest.update(part)
                self.release_pages()
            if digest.intdigest() != checksum:
                raise DamagedFile(self.path.name, "its checksum is wrong")
            offset += size

    def rows_of_bucket(self, place: int, first: int, end: int) -> RunRows:
        """Return rows `first` to `end` of the bucket at `place` in the table."""
        cut = slice(int(self.first[place]) + first, int(self.first[place]) + end)
        time = np.zeros(end - first, np.int64) if self.time is None else self.time[cut]
        return RunRows(self.hash[cut], self.bits[cut], self.fingerprints[cut], self.number[cut], time)

    def find(self, hashed: U64, number: U32, bucket: I64) -> Matches:
        """Return all rows of these identities in these buckets."""
        place = np.searchsorted(self.buckets, bucket)
        place[place == len(self.buckets)] = 0
        query = np.flatnonzero(self.buckets[place] == bucket)
        if not query.size:
            return Matches.empty()
        place = place[query]
        wanted = hashed[query]
        # Find the block by the fences in memory, then search its 256 hashes, which are on one page of the file.
        low, high = self._block[place], self._block[place] + self._blocks[place]
        low = _lower_bound(self._fence, wanted, low, high)
        block = np.maximum(low - self._block[place] - 1, 0)
        end = self.first[place] + self.length[place]
        first = self.first[place] + block * FENCE
        row = _lower_bound(self.hash, wanted, first, np.minimum(first + FENCE, end))
        queries, rows = [], []
        inside = row < end
        query, wanted, row, end = query[inside], wanted[inside], row[inside], end[inside]
        while query.size:
            same = self.hash[row] == wanted
            query, wanted, row, end = query[same], wanted[same], row[same], end[same]
            hit = self.number[row] == number[query]
            queries.append(query[hit])
            rows.append(row[hit])
            row = row + 1
            inside = row < end
            query, wanted, row, end = query[inside], wanted[inside], row[inside], end[inside]
        if not rows:
            return Matches.empty()
        row = np.concatenate(rows)
        time = np.zeros(len(row), np.int64) if self.time is None else self.time[row]
        return Matches(np.concatenate(queries), self.bits[row], self.fingerprints[row], time)

    def release_pages(self) -> None:
        """Release the memory of pages that lookups touched."""
        self._map.madvise(mmap.MADV_DONTNEED)


def _lower_bound(column: U64, wanted: U64, low: I64, high: I64) -> I64:
    """Return for each query the first index in [low, high) whose element is not below it, or high."""
    low, high = low.copy(), high.copy()
    most = int((high - low).max()) if len(low) else 0
    for _ in range(most.bit_length()):
        middle = (low + high) >> 1
        open_ = low < high
        middle[~open_] = 0
        below = open_ & (column[middle] < wanted)
        low = np.where(below, middle + 1, low)
        high = np.where(below | ~open_, high, middle)
    return low


def _size(head: RunHeader) -> int:
    return HEADER_BYTES + head.fences * 8 + head.rows * (36 if head.timed else 28)


def _write(path: Path, head: RunHeader, parts: Iterator[tuple[int, int, RunRows]]) -> None:
    """Write a file from sorted parts (index in the bucket, row in the file, rows); synced on return."""
    base = HEADER_BYTES + head.fences * 8
    fences: list[U64] = []
    digests = [xxhash.xxh3_64() for _ in range(5 if head.timed else 4)]
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for inside, row, rows in parts:
            fences.append(rows.hash[-inside % FENCE :: FENCE].copy())
            columns: list[NDArray[Any]] = [rows.hash, rows.bits, rows.fingerprints, rows.number]
            offset = base
            for digest, column in zip(digests, [*columns, rows.time], strict=False):
                whole = np.ascontiguousarray(column)
                os.pwrite(number, whole.data, offset + row * whole.itemsize)
                digest.update(whole.data)
                offset += whole.itemsize * head.rows
        fence = np.concatenate(fences) if fences else np.empty(0, np.uint64)
        os.pwrite(number, fence.data, HEADER_BYTES)
        checksums = [xxhash.xxh3_64_intdigest(fence.data), *(digest.intdigest() for digest in digests)]
        packed = msgspec.msgpack.encode(msgspec.structs.replace(head, checksums=checksums))
        if len(packed) > HEADER_BYTES - _START:
            raise ValueError(f"run of {len(head.buckets)} buckets: the head has no room for them")
        os.pwrite(number, MAGIC + xxhash.xxh3_64_digest(packed) + len(packed).to_bytes(8, "little") + packed, 0)
        os.ftruncate(number, _size(head))
        os.fsync(number)
    finally:
        os.close(number)


def _header(counts: Sequence[tuple[int, int]], *, timed: bool) -> RunHeader:
    table, row, fences = [], 0, 0
    for bucket, count in counts:
        table.append((bucket, row, count))
        row += count
        fences += -(-count // FENCE)
    return RunHeader(row, timed, table, fences)


def _sort_order(hashed: U64, bucket: I32) -> I64:
    """Return the row order by (bucket, hash): a quick sort by hash, then a stable sort by the small bucket rank."""
    rows = np.argsort(hashed)
    low = int(bucket.min())
    span = int(bucket.max()) - low
    if span == 0:
        return rows
    rank = bucket - low if span < 1 << 16 else np.unique(bucket, return_inverse=True)[1]
    return rows[np.argsort(rank.astype(np.uint16)[rows], kind="stable")]


def write_run(path: Path, memtable: Memtable, floor: int) -> SortedRun | None:
    """Write a memtable as a run without hours before `floor`; return None where nothing is left."""
    count = memtable.count
    bucket: I32 = memtable.bucket[:count]
    alive = np.flatnonzero(np.where(bucket >= ARRIVAL_BUCKETS, bucket - ARRIVAL_BUCKETS, bucket) >= floor)
    if not alive.size:
        return None
    order = alive[_sort_order(memtable.hash[alive], bucket[alive])]
    sorted_bucket = bucket[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_bucket[1:] != sorted_bucket[:-1]]))
    ends = np.concatenate([starts[1:], [len(order)]])
    head = _header(
        [(int(sorted_bucket[a]), int(b - a)) for a, b in zip(starts, ends, strict=True)], timed=memtable.has_times
    )

    def parts() -> Iterator[tuple[int, int, RunRows]]:
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
            cut = order[a:b]
            yield (
                0,
                a,
                RunRows(
                    memtable.hash[cut],
                    memtable.bits[cut],
                    memtable.fingerprints[cut],
                    memtable.number[cut],
                    memtable.time[cut],
                ),
            )

    _write(path, head, parts())
    return SortedRun(path)


def merge_runs(path: Path, runs: Sequence[SortedRun], floor: int) -> SortedRun | None:
    """Merge runs into one without hours before `floor`; memory is bounded by CHUNK_ROWS per run.

    Raises:
        Damaged: one of them is not as it was written; the new checksums would cover that up.
    """
    for run in runs:
        run.verify()
    places: dict[int, list[tuple[SortedRun, int]]] = {}
    for run in runs:
        for place, bucket in enumerate(run.buckets.tolist()):
            if hour_of(bucket) >= floor:
                places.setdefault(bucket, []).append((run, place))
    counts = [(bucket, sum(int(run.length[place]) for run, place in places[bucket])) for bucket in sorted(places)]
    if not counts:
        return None
    head = _header(counts, timed=any(run.header.timed for run in runs))

    def parts() -> Iterator[tuple[int, int, RunRows]]:
        for bucket, first, count in head.buckets:
            inside = 0
            for rows in _merged(places[bucket], count):
                yield inside, first + inside, rows
                inside += len(rows.hash)
                for run, _ in places[bucket]:
                    run.release_pages()

    _write(path, head, parts())
    return SortedRun(path)


def _merged(sources: Sequence[tuple[SortedRun, int]], count: int) -> Iterator[RunRows]:
    slices = max(1, -(-count // CHUNK_ROWS))
    step = (1 << 64) // slices
    edges = np.array([step * cut for cut in range(1, slices)], np.uint64)
    cuts = []
    for run, place in sources:
        whole = run.rows_of_bucket(place, 0, int(run.length[place])).hash
        cuts.append([0, *np.searchsorted(whole, edges).tolist(), len(whole)])
    for cut in range(slices):
        pieces = [
            run.rows_of_bucket(place, bounds[cut], bounds[cut + 1])
            for (run, place), bounds in zip(sources, cuts, strict=True)
        ]
        hashed = np.concatenate([piece.hash for piece in pieces])
        if not len(hashed):
            continue
        order = np.argsort(hashed, kind="stable")
        yield RunRows(
            hashed[order],
            np.concatenate([piece.bits for piece in pieces])[order],
            np.concatenate([piece.fingerprints for piece in pieces])[order],
            np.concatenate([piece.number for piece in pieces])[order],
            np.concatenate([piece.time for piece in pieces])[order],
        )
