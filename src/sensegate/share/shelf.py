"""Records of several kinds in one bucket, told apart by their keys: ``grant/…``, ``application/…``, ``entry/…``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec

from sensegate.authority.bucket import Bucket, follow
from sensegate.bus.row import Row
from sensegate.clock import Clock
from sensegate.errors import Conflict

Kept = TypeVar("Kept", bound=msgspec.Struct)


class Shelf:
    """One bucket, read whole at `open` and followed by `run`: every process has a change within a second."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self.bucket = bucket
        self._clock = clock
        self._revision = 0
        self._takers: dict[str, Callable[[str, Row], None]] = {}

    def attach(self, kind: str, take: Callable[[str, Row], None]) -> None:
        """Hand every row whose key is ``<kind>/<name>`` to `take` as (name, row)."""
        self._takers[kind] = take

    async def open(self) -> None:
        """Load everything."""
        rows, self._revision = await self.bucket.load_all()
        for row in rows:
            await self._take(row)

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled; through losses of the engine."""
        await follow(self.bucket, self._revision, self._take, self._clock)

    async def _take(self, row: Row) -> None:
        kind, _, name = row.key.partition("/")
        if (take := self._takers.get(kind)) is not None:
            take(name, row)


class Records(Generic[Kept]):
    """The records of one kind, by name, newest revision each. `Kept` has a field `revision`."""

    def __init__(self, shelf: Shelf, kind: str, form: type[Kept]) -> None:
        self._shelf = shelf
        self._kind = kind
        self._decode = msgspec.json.Decoder(form, strict=False).decode
        self._kept: dict[str, Kept] = {}
        self._revisions: dict[str, int] = {}
        self.on_change: list[Callable[[Kept | None, Kept | None], None]] = []
        """Called with the record before and after a change (None: not there), from whichever process it came."""
        shelf.attach(kind, self._take)

    def find(self, name: str) -> Kept | None:
        """Return a record; None if there is none."""
        return self._kept.get(name)

    def names(self) -> list[str]:
        """Return the names of all records, in order."""
        return sorted(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        """Go through all records in order of name."""
        return iter([record for _, record in sorted(self._kept.items())])

    async def put(self, name: str, record: Kept, *, expected: int) -> Kept:
        """Write a record as of a revision (0: a new one); return it with its new revision.

        Raises:
            Conflict: it was changed meanwhile.
        """
        key = f"{self._kind}/{name}"
        value = msgspec.json.encode(msgspec.structs.replace(record, revision=0))
        # Its deletion has a revision of its own; but the store keeps the mark of a deletion for some days only.
        absent = self._revisions.get(name, 0) if not expected and name not in self._kept else 0
        try:
            try:
                revision = await self._shelf.bucket.put(key, value, expected=absent or expected)
            except Conflict:
                if not absent:
                    raise
                revision = await self._shelf.bucket.put(key, value, expected=0)
        except Conflict:
            raise Conflict(f"{self._kind} {name} was changed meanwhile; read it again") from None
        self._take(name, Row(key, value, revision))
        return self._kept[name]

    async def delete(self, name: str, *, expected: int) -> None:
        """Remove a record as of a revision. Raises `Conflict`."""
        key = f"{self._kind}/{name}"
        self._take(name, Row(key, None, await self._shelf.bucket.delete(key, expected=expected)))

    def _take(self, name: str, row: Row) -> None:
        if self._revisions.get(name, 0) >= row.revision:
            return
        self._revisions[name] = row.revision
        before = self._kept.pop(name, None)
        after: Kept | None = None
        if row.value is not None:
            after = self._kept[name] = msgspec.structs.replace(self._decode(row.value), revision=row.revision)
        for listener in self.on_change:
            listener(before, after)
