"""What the registries need of a key-value store, and a store in memory that keeps the same contract.

The durable one is `bus.kv`. Both pass `tests/contracts/test_bucket.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from sensegate.errors import Conflict


class Item(msgspec.Struct, frozen=True, gc=False):
    """One key as of a revision."""

    key: str
    value: bytes | None
    """None: the key was deleted."""
    revision: int
    """Rises with every change of the bucket; never given twice."""


class Bucket(Protocol):
    """Keys and values; the newest revision of each key is kept."""

    async def load_all(self) -> tuple[list[Item], int]:
        """Return every present key, oldest change first, and the revision of the bucket to watch from."""
        ...

    async def get(self, key: str) -> Item | None:
        """Return a key as it is now; None if it is not there."""
        ...

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """Write and return the new revision.

        Raises:
            Conflict: `expected` (0: the key is not there) is not its revision.
            Lost: the outcome is unknown; read the key before trying again.
        """
        ...

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        """Remove a key; its revisions go on rising. Raises as `put`."""
        ...

    def watch(self, after: int) -> AsyncIterator[Item]:
        """Yield each change after a revision, oldest first, within 1 s; keys changed twice may come once."""
        ...


class MemoryBucket:
    """A bucket that lives as long as its object."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._revision = 0
        self._changed = asyncio.Condition()

    async def load_all(self) -> tuple[list[Item], int]:
        present = [item for item in self._items.values() if item.value is not None]
        return sorted(present, key=lambda item: item.revision), self._revision

    async def get(self, key: str) -> Item | None:
        item = self._items.get(key)
        return item if item and item.value is not None else None

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        return await self._write(key, value, expected)

    async def delete(self, key: str, *, expected: int | None = None) -> int:
        return await self._write(key, None, expected)

    async def _write(self, key: str, value: bytes | None, expected: int | None) -> int:
        present = self._items.get(key)
        revision = present.revision if present and present.value is not None else 0
        if expected is not None and expected != revision:
            raise Conflict(f"{key} is at revision {revision}, not {expected}; read it again")
        self._revision += 1
        self._items[key] = Item(key, value, self._revision)
        async with self._changed:
            self._changed.notify_all()
        return self._revision

    async def watch(self, after: int) -> AsyncIterator[Item]:
        while True:
            newer = sorted(
                (item for item in self._items.values() if item.revision > after), key=lambda item: item.revision
            )
            for item in newer:
                after = item.revision
                yield item
            async with self._changed:
                await self._changed.wait_for(lambda: self._revision > after)  # noqa: B023 - waited for at once
