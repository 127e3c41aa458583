"""Records in a key-value bucket, with a copy in memory that follows every change.

A bucket holds records of one kind, whose keys are their names, or of several kinds, distinguished by a key prefix
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

R = TypeVar("R", bound=msgspec.Struct)


class RecordStore:
    """A bucket that `open` reads and `run` follows: changes reach every process within a second."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self.bucket = bucket
        self._clock = clock
        self._revision = 0
        self._takers: dict[str, Callable[[str, KvRow], None]] = {}

    def attach(self, prefix: str, take: Callable[[str, KvRow], None]) -> None:
        """Pass every row whose key begins with `prefix` to `take`, as (key without prefix, row)."""
        self._takers[prefix] = take

    async def open(self) -> None:
        """Load all rows."""
        rows, self._revision = await self.bucket.load_all()
        for row in rows:
            await self._take(row)

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled; survives failures of the engine."""
        await follow(self.bucket, self._revision, self._take, self._clock)

    async def _take(self, row: KvRow) -> None:
        for prefix, take in self._takers.items():
            if row.key.startswith(prefix):
                take(row.key.removeprefix(prefix), row)


def _revised(record: R, revision: int) -> R:
    return msgspec.structs.replace(record, revision=revision)


class RecordTable(Generic[R]):
    """The records of one kind. `R` has a field `revision`, unless `revised` sets it elsewhere."""

    def __init__(
        self,
        store: RecordStore,
        kind: str,
        form: type[R],
        *,
        prefix: str | None = None,
        packed: bool = False,
        revised: Callable[[R, int], R] = _revised,
    ) -> None:
        """Attach the table to a store, which fills it.

        Args:
            store: the store of the bucket.
            kind: name of the kind, for messages.
            form: type of a record.
            prefix: prefix of the keys; default: ``<kind>/``.
            packed: encode as MessagePack instead of JSON.
            revised: returns a record with another revision.
        """
        self._bucket = store.bucket
        self._kind = kind
        self._prefix = f"{kind}/" if prefix is None else prefix
        self._revised = revised
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.encode if packed else msgspec.json.encode
        self._decode: Callable[[bytes], R] = (
            msgspec.msgpack.Decoder(form).decode if packed else msgspec.json.Decoder(form, strict=False).decode
        )
        self._records: dict[str, R] = {}
        self._revisions: dict[str, int] = {}
        """Revisions of the records, and of removed ones until the watch confirms their removal."""
        self.on_change: list[Callable[[R | None, R | None], None]] = []
        """Callbacks with the record before and after a change (None: absent), from whichever process it came."""
        self._changed = asyncio.Event()
        store.attach(self._prefix, self._apply_watched)

    def find(self, name: str) -> R | None:
        """Return a record by name; None if there is none."""
        return self._records.get(name)

    def names(self) -> list[str]:
        """Return the names of all records, sorted."""
        return sorted(self._records)

    def all(self) -> Collection[R]:
        """Return all records, in arbitrary order."""
        return self._records.values()

    def __iter__(self) -> Iterator[R]:
        """Iterate over all records in order of name."""
        return iter([record for _, record in sorted(self._records.items())])

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._records)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the records holds; it is checked after every change."""
        while not condition():
            await self._changed.wait()

    async def put(self, name: str, record: R, *, expected: int) -> R:
        """Write a record that has the revision `expected` (0: a new one); return it with its new revision.

        Raises:
            Conflict: it was changed meanwhile.
        """
        value = self._encode(self._revised(record, 0))
        try:
            revision = await self._put(self._prefix + name, value, expected)
        except Conflict:
            raise Conflict(f"{self._kind} {name} was changed meanwhile; read it again") from None
        self._take(name, KvRow(self._prefix + name, value, revision))
        return self._records[name]

    async def _put(self, key: str, value: bytes, expected: int) -> int:
        try:
            return await self._bucket.put(key, value, expected=expected)
        except Conflict:
            # A record of this name may have been removed; for some days its deletion has a revision.
            if expected or not (absent := await self._bucket.tombstone_revision(key)):
                raise
        return await self._bucket.put(key, value, expected=absent)

    async def delete(self, name: str, *, expected: int | None) -> None:
        """Delete a record that has the revision `expected` (None: any). Raises `Conflict`."""
        key = self._prefix + name
        self._take(name, KvRow(key, None, await self._bucket.delete(key, expected=expected)))

    def _apply_watched(self, name: str, row: KvRow) -> None:
        """Apply a change from the watch, which is in order: no older change of the record follows."""
        self._take(name, row)
        if row.value is None and self._revisions.get(name, 0) <= row.revision:
            self._revisions.pop(name, None)

    def _take(self, name: str, row: KvRow) -> None:
        if self._revisions.get(name, 0) >= row.revision:
            return
        self._revisions[name] = row.revision
        before = self._records.pop(name, None)
        after: R | None = None
        if (record := read_row(row, self._kind, self._decode)) is not None:
            after = self._records[name] = self._revised(record, row.revision)
        for listener in self.on_change:
            listener(before, after)
        self._changed.set()
        self._changed = asyncio.Event()
