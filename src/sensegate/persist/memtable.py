"""Identities seen of late, in memory: appended, found by hash, frozen when it goes to disk."""

from __future__ import annotations

import msgspec
import numpy as np

from sensegate.model import I32, I64, U32, U64

_LEAST = 1 << 12


class Found(msgspec.Struct, frozen=True, eq=False):
    """Kept readings of the identities that were asked for: one row a match."""

    query: I64
    """Index of the question."""
    bits: U64
    prints: U64
    time: I64

    @staticmethod
    def none() -> Found:
        """Return no match."""
        return Found(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))

    @staticmethod
    def join(parts: list[Found]) -> Found:
        """Return the matches of several places."""
        parts = [part for part in parts if len(part.query)]
        if not parts:
            return Found.none()
        if len(parts) == 1:
            return parts[0]
        return Found(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.prints for part in parts]),
            np.concatenate([part.time for part in parts]),
        )


class Recent:
    """Rows in the order of arrival and a table of chains over them; 44 bytes a row, half of it at least in use."""

    def __init__(self, rows: int = _LEAST) -> None:
        self.count = 0
        self.other_kinds = False
        """True where a row's key is not its time: then the time must be kept on disk too."""
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
        self.prints: U64 = grown("prints", np.uint64)
        self.time: I64 = grown("time", np.int64)
        self.bucket: I32 = grown("bucket", np.int32)
        self._next: U32 = np.empty(rows, np.uint32)
        slots = rows.bit_length() - 1
        self._shift = np.uint64(64 - slots)
        # 0 is the end of a chain; row r stands in it as r + 1.
        self._head: U32 = np.zeros(1 << slots, np.uint32)
        if self.count:
            self._chain(0, self.count)

    @property
    def rows(self) -> int:
        """For how many rows there is room."""
        return len(self.hash)

    def add(self, hashed: U64, number: U32, *, bits: U64, prints: U64, time: I64, bucket: I32) -> None:
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
        self.prints[first:end] = prints
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
            # Where several rows of this round want one chain the last written stands; the others go before it.
            lost = self._head[slot] != row
            row, slot = row[lost], slot[lost]

    def find(self, hashed: U64, number: U32) -> Found:
        """Return all rows of these identities."""
        query, row = self.where(hashed, number)
        return Found(query, self.bits[row], self.prints[row], self.time[row]) if len(query) else Found.none()

    def where(self, hashed: U64, number: U32) -> tuple[I64, I64]:
        """Return (question, row) for all rows of these identities."""
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
