"""Records in a bucket, by name, newest revision each: read whole at a start, followed from then on.

A bucket holds records of one kind, whose keys are their names, or of several, told apart by what their keys begin with
(``grant/…``, ``entry/…``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from sensegate.authority.bucket import Bucket, follow
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import Conflict

Kept = TypeVar("Kept", bound=msgspec.Struct)


class Shelf:
    """One bucket, read whole at `open` and followed by `run`: every process has a change within a second."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self.bucket = bucket
        self._clock = clock
        self._revision = 0
        self._takers: dict[str, Callable[[str, KvRow], None]] = {}

    def attach(self, prefix: str, take: Callable[[str, KvRow], None]) -> None:
        """Hand every row whose key begins with `prefix` to `take`, as (the rest of its key, row)."""
        self._takers[prefix] = take

    async def open(self) -> None:
        """Load everything."""
        rows, self._revision = await self.bucket.load_all()
        for row in rows:
            await self._take(row)

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled; through losses of the engine."""
        await follow(self.bucket, self._revision, self._take, self._clock)

    async def _take(self, row: KvRow) -> None:
        for prefix, take in self._takers.items():
            if row.key.startswith(prefix):
                take(row.key.removeprefix(prefix), row)


def _revised(record: Kept, revision: int) -> Kept:
    return msgspec.structs.replace(record, revision=revision)


class Records(Generic[Kept]):
    """The records of one kind. `Kept` has a field `revision`, unless `revised` says where it stands."""

    def __init__(
        self,
        shelf: Shelf,
        kind: str,
        form: type[Kept],
        *,
        prefix: str | None = None,
        packed: bool = False,
        revised: Callable[[Kept, int], Kept] = _revised,
    ) -> None:
        """Attach them to their shelf, which fills them.

        Args:
            shelf: of the bucket in which they are.
            kind: what one is called.
            form: of a record.
            prefix: with which their keys begin; absent: ``<kind>/``.
            packed: MessagePack, else JSON.
            revised: returns a record with another revision.
        """
        self._bucket = shelf.bucket
        self._kind = kind
        self._prefix = f"{kind}/" if prefix is None else prefix
        self._revised = revised
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.encode if packed else msgspec.json.encode
        self._decode: Callable[[bytes], Kept] = (
            msgspec.msgpack.Decoder(form).decode if packed else msgspec.json.Decoder(form, strict=False).decode
        )
        self._kept: dict[str, Kept] = {}
        self._revisions: dict[str, int] = {}
        """Of what is kept, and of what was removed here until the bucket tells so too."""
        self.on_change: list[Callable[[Kept | None, Kept | None], None]] = []
        """Called with the record before and after a change (None: not there), from whichever process it came."""
        self._moved = asyncio.Event()
        shelf.attach(self._prefix, self._told)

    def find(self, name: str) -> Kept | None:
        """Return a record; None if there is none."""
        return self._kept.get(name)

    def names(self) -> list[str]:
        """Return the names of all records, in order."""
        return sorted(self._kept)

    def all(self) -> Collection[Kept]:
        """Return all records, in no order."""
        return self._kept.values()

    def __iter__(self) -> Iterator[Kept]:
        """Go through all records in order of name."""
        return iter([record for _, record in sorted(self._kept.items())])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._kept)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the records holds; looked at after every change."""
        while not condition():
            await self._moved.wait()

    async def put(self, name: str, record: Kept, *, expected: int) -> Kept:
        """Write a record as of a revision (0: a new one); return it with its new revision.

        Raises:
            Conflict: it was changed meanwhile.
        """
        value = self._encode(self._revised(record, 0))
        try:
            revision = await self._put(self._prefix + name, value, expected)
        except Conflict:
            raise Conflict(f"{self._kind} {name} was changed meanwhile; read it again") from None
        self._take(name, KvRow(self._prefix + name, value, revision))
        return self._kept[name]

    async def _put(self, key: str, value: bytes, expected: int) -> int:
        try:
            return await self._bucket.put(key, value, expected=expected)
        except Conflict:
            # A record of this name may have been removed; its absence has a revision of its own, for some days.
            if expected or not (absent := await self._bucket.tombstone_revision(key)):
                raise
        return await self._bucket.put(key, value, expected=absent)

    async def delete(self, name: str, *, expected: int | None) -> None:
        """Remove a record as of a revision (None: whatever it is). Raises `Conflict`."""
        key = self._prefix + name
        self._take(name, KvRow(key, None, await self._bucket.delete(key, expected=expected)))

    def _told(self, name: str, row: KvRow) -> None:
        """Take what the bucket tells, which is in order: nothing older of the record comes after it."""
        self._take(name, row)
        if row.value is None and self._revisions.get(name, 0) <= row.revision:
            self._revisions.pop(name, None)

    def _take(self, name: str, row: KvRow) -> None:
        if self._revisions.get(name, 0) >= row.revision:
            return
        self._revisions[name] = row.revision
        before = self._kept.pop(name, None)
        after: Kept | None = None
        if (record := read_row(row, self._kind, self._decode)) is not None:
            after = self._kept[name] = self._revised(record, row.revision)
        for listener in self.on_change:
            listener(before, after)
        self._moved.set()
        self._moved = asyncio.Event()
