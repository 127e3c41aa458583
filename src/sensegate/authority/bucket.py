"""The key-value contract of the registries, and an implementation in memory.

The durable implementation is `bus.kv.KvBucket`. Both pass `tests/contracts/test_bucket.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from sensegate.bus.kv_row import KvRow, KvWrite
from sensegate.clock import Clock
from sensegate.errors import Conflict, Unavailable

_log = structlog.get_logger("authority")
_RETRY_S = 0.25


class Bucket(Protocol):
    """Keys with values; the newest revision of each key is stored."""

    async def get(self, key: str) -> KvRow | None:
        """Return the current row of a key; None if it does not exist or was deleted."""
        ...

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """Write a key; return its revision, higher than any before it.

        `expected` is the revision that the key must have, also that of its deletion; 0: it never existed.

        Raises:
            Conflict: the key has another revision.
            StoreFull: the bucket is full.
            Unavailable: the outcome is unknown; read the key before a retry.
        """
        ...

    async def put_all(self, writes: Sequence[KvWrite]) -> list[int]:
        """Write several keys (at most 1,000), all or none; return their revisions. Raises as `put`."""
        ...

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        """Delete a key; return the revision of its deletion. Raises as `put`."""
        ...

    async def tombstone_revision(self, key: str) -> int:
        """Return the revision of a key's deletion, to expect when it is created again; 0: it exists, or never did.

        The store keeps deletion markers for some days.
        """
        ...

    async def load_all(self) -> tuple[list[KvRow], int]:
        """Return all present rows in order of revision, and the revision from which to `watch`."""
        ...

    def watch(self, after: int) -> AsyncIterator[list[KvRow]]:
        """Yield changes after a revision, in order, including deletions, within a second and without end.

        A key that changed twice may appear only in its newest state. Raises `Unavailable` while the store is away.
        """
        ...


class MemoryBucket:
    """A bucket that lives as long as its object."""

    def __init__(self) -> None:
        self._rows: dict[str, KvRow] = {}
        self._revision = 0
        self._changed = asyncio.Event()

    async def get(self, key: str) -> KvRow | None:
        row = self._rows.get(key)
        return row if row and row.value is not None else None

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        return self._write(key, value, expected)

    async def put_all(self, writes: Sequence[KvWrite]) -> list[int]:
        for write in writes:
            self._require(write.key, write.expected)
        return [self._write(write.key, write.value, write.expected) for write in writes]

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        return self._write(key, None, expected)

    async def tombstone_revision(self, key: str) -> int:
        row = self._rows.get(key)
        return row.revision if row and row.value is None else 0

    async def load_all(self) -> tuple[list[KvRow], int]:
        return [row for row in self._newer(0) if row.value is not None], self._revision

    async def watch(self, after: int) -> AsyncIterator[list[KvRow]]:
        while True:
            if rows := self._newer(after):
                after = rows[-1].revision
                yield rows
            else:
                await self._changed.wait()

    def _newer(self, after: int) -> list[KvRow]:
        return sorted((row for row in self._rows.values() if row.revision > after), key=lambda row: row.revision)

    def _require(self, key: str, expected: int | None) -> None:
        present = self._rows[key].revision if key in self._rows else 0
        if expected is not None and expected != present:
            raise Conflict(f"{key}: changed meanwhile; read it again")

    def _write(self, key: str, value: bytes | None, expected: int | None) -> int:
        self._require(key, expected)
        self._revision += 1
        self._rows[key] = KvRow(key, value, self._revision)
        self._changed.set()
        self._changed = asyncio.Event()
        return self._revision


async def follow(bucket: Bucket, after: int, take: Callable[[KvRow], Awaitable[None]], clock: Clock) -> None:
    """Pass every change after a revision to `take` until cancelled; retry while the store does not answer."""

    async def pass_changes() -> None:
        nonlocal after
        async for rows in bucket.watch(after):
            for row in rows:
                await take(row)
                after = row.revision

    while True:
        try:
            await pass_changes()
        except Unavailable as why:
            _log.debug("registry store does not answer; the state in memory stays in force", reason=str(why))
            await clock.sleep(_RETRY_S)
