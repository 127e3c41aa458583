"""Memtable of the dedup index: recent identities in memory, appended, found by hash, later written as a sorted run."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import I32, I64, U32, U64

_ROWS_MIN = 1 << 12


class Matches(msgspec.Struct, frozen=True, eq=False):
    """Accepted readings that match queried identities: one row per match."""

    query: I64
    """Index of the query."""
    bits: U64
    fingerprints: U64
    time: I64

    @staticmethod
    def empty() -> Matches:
        """Return an empty result."""
        return Matches(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))

    @staticmethod
    def concatenated(parts: list[Matches]) -> Matches:
        """Return the matches of several results."""
        parts = [part for part in parts if len(part.query)]
        if not parts:
            return Matches.empty()
        if len(parts) == 1:
            return parts[0]
        return Matches(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.fingerprints for part in parts]),
            np.concatenate([part.time for part in parts]),
        )


class Memtable:
    """Rows in order of arrival with a chained hash table; 44 bytes per row, at least half full after growth."""

    def __init__(self, rows: int = _ROWS_MIN) -> None:
        self.count = 0
        self.has_times = False
        """True where the key of a row is not its time, so that a sorted run must store times, too."""
        self._allocate(rows)

    def _allocate(self, rows: int) -> None:
        def grown(name: str, kind: type[np.generic]) -> np.ndarray:
            new = np.empty(rows, kind)
            old = getattr(self, name, None)
            if old is not None:
                new[: self.count] = old[: self.count]
            return new

        self.hash: U64 = grown("hash", np.uint64)
        self.number: U32 = grown("number", np.uint32)
        self.bits: U64 = grown("bits", np.uint64)
        self.fingerprints: U64 = grown("fingerprints", np.uint64)
        self.time: I64 = grown("time", np.int64)
        self.bucket: I32 = grown("bucket", np.int32)
        self._next: U32 = np.empty(rows, np.uint32)
        slots = rows.bit_length() - 1
        self._shift = np.uint64(64 - slots)
        # 0 is the end of a chain; row r is stored as r + 1.
        self._head: U32 = np.zeros(1 << slots, np.uint32)
        if self.count:
            self._chain(0, self.count)

    @property
    def capacity(self) -> int:
        """Number of rows for which memory is allocated."""
        return len(self.hash)

    def add(self, hashed: U64, number: U32, *, bits: U64, fingerprints: U64, time: I64, bucket: I32) -> None:
        """Append rows."""
        first, end = self.count, self.count + len(hashed)
        if end > len(self.hash):
            size = len(self.hash)
            while size < end:
                size *= 2
            self._allocate(size)
        self.hash[first:end] = hashed
        self.number[first:end] = number
        self.bits[first:end] = bits
        self.fingerprints[first:end] = fingerprints
        self.time[first:end] = time
        self.bucket[first:end] = bucket
        self.count = end
        self._chain(first, end)

    def _chain(self, first: int, end: int) -> None:
        row = np.arange(first + 1, end + 1, dtype=np.uint32)
        slot = (self.hash[first:end] >> self._shift).view(np.int64)
        while row.size:
            self._next[row - 1] = self._head[slot]
            self._head[slot] = row
            # Of several rows for one chain in this round the last one written wins; the others follow later.
            lost = self._head[slot] != row
            row, slot = row[lost], slot[lost]

    def find(self, hashed: U64, number: U32) -> Matches:
        """Return all rows of these identities."""
        query, row = self.find_rows(hashed, number)
        return Matches(query, self.bits[row], self.fingerprints[row], self.time[row]) if len(query) else Matches.empty()

    def find_rows(self, hashed: U64, number: U32) -> tuple[I64, I64]:
        """Return (query, row) for all rows of these identities."""
        nothing = np.empty(0, np.int64)
        if not self.count or not len(hashed):
            return nothing, nothing
        here = self._head[(hashed >> self._shift).view(np.int64)]
        query = np.flatnonzero(here)
        row = here[query].astype(np.int64) - 1
        queries, rows = [], []
        while query.size:
            hit = (self.hash[row] == hashed[query]) & (self.number[row] == number[query])
            if hit.any():
                queries.append(query[hit])
                rows.append(row[hit])
            row = self._next[row].astype(np.int64) - 1
            more = row >= 0
            query, row = query[more], row[more]
        return (np.concatenate(queries), np.concatenate(rows)) if rows else (nothing, nothing)
