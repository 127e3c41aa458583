"""Return flow (数据回流), the centre's side: what the centre took in of a node's area goes back to that node.

What comes to the centre from other systems is committed under ``readings.<city>.<county>.<grade>``; what nodes brought
up stands under ``all``, and never goes back. Nodes ask for what follows a place; to ask further on is to acknowledge.
"""

from __future__ import annotations

import bisect
from collections import defaultdict

import msgspec

from sensegate.bus import columns
from sensegate.bus.names import ROWS, rows_subject
from sensegate.bus.unreadable import read_rows, read_subject
from sensegate.errors import Gone
from sensegate.model import Entry
from sensegate.ports import Log

PART_BYTES = 400_000
"""A part holds no more, but for a single entry: it goes in one message."""
INDEX_MAX = 200_000
"""Entries of one node whose places are remembered; what lies before is looked for in the log."""
SCAN = 256


class ReturnedRows(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one entry of the centre's log, with the identities that they have there."""

    kind: str
    """``readings`` or ``observations``."""
    grade: int
    payload: bytes


class ReturnRequest(msgspec.Struct, frozen=True):
    """What a node asks: what follows a place that it has committed."""

    log_epoch: str = ""
    after: int = 0


class ReturnPart(msgspec.Struct, frozen=True):
    """What follows, up to a place."""

    division: str
    log_epoch: str
    """Epoch of the centre's log."""
    after: int
    until: int
    entries: tuple[ReturnedRows, ...] = ()
    more: bool = False
    """There is more at once."""
    starts_at_oldest: bool = False
    """It begins with the oldest that is kept: what a node lacks before it has expired."""
    format: int = 1


class ReturnFlow:
    """Finds each node's part; `index_entry` is told of every entry with rows as the log grows."""

    def __init__(self, log: Log, *, grade_max: int) -> None:
        self._log = log
        self._grade_max = grade_max
        self._sequences: dict[str, list[int]] = defaultdict(list)
        self._begun: int | None = None
        """After this sequence `_sequences` know every entry."""
        self._end = 0
        self.acknowledged: dict[str, int] = {}
        """Division -> place after which it asked last."""

    def read_from(self, log: Log) -> None:
        """Read this instead: the log as far as it may be delivered, where a standby must have it first."""
        self._log = log

    def index_from(self, after: int) -> None:
        """Say that `index_entry` is told of all after a sequence."""
        if self._begun is None:
            self._begun = self._end = after

    def index_entry(self, entry: Entry) -> None:
        """Remember where an entry stands if it is one for a node; one that comes again is known."""
        if entry.sequence <= self._end:
            return
        self._end = entry.sequence
        if (division := self._division_of(entry)) is None:
            return
        places = self._sequences[division]
        places.append(entry.sequence)
        if len(places) > INDEX_MAX:
            self._begun = max(self._begun or 0, places[INDEX_MAX // 2])
            del places[: INDEX_MAX // 2 + 1]

    def _division_of(self, entry: Entry) -> str | None:
        if not entry.subject.startswith(ROWS) or (found := read_subject(entry, "returns")) is None:
            return None
        return found.node if found.place != "all" and found.grade <= self._grade_max else None

    async def part(self, division: str, wanted: ReturnRequest) -> ReturnPart:
        """Return what a node's part has after a place.

        Raises `Unavailable`, `Gone` (the log no longer has the place).
        """
        life = self._log.epoch
        after = wanted.after if wanted.log_epoch in {"", life} else 0
        self.acknowledged[division] = after
        first, last = await self._log.bounds()
        if after > last:
            raise Gone(f"the centre's log ends at {last}, before {after}: it was restored from an older state")
        after, oldest = max(after, first - 1), after <= first - 1
        if self._begun is None or after < self._begun:
            part = await self._scan(division, life, after)
        else:
            part = await self._read_indexed(division, life, after)
        return msgspec.structs.replace(part, starts_at_oldest=oldest)

    async def _read_indexed(self, division: str, life: str, after: int) -> ReturnPart:
        """Return what the entries at remembered places hold for a node."""
        places = self._sequences.get(division, [])
        end = self._end
        found: list[ReturnedRows] = []
        until, size = after, 0
        for sequence in places[bisect.bisect_right(places, after) :]:
            if size >= PART_BYTES:
                return ReturnPart(division, life, after, until, tuple(found), more=True)
            one = await self._log.fetch(sequence - 1, limit=1)
            if one and one[0].sequence == sequence and (returned := _returned(one[0])) is not None:
                if found and size + len(returned.payload) > PART_BYTES:
                    return ReturnPart(division, life, after, until, tuple(found), more=True)
                found.append(returned)
                size += len(returned.payload)
            until = sequence
        return ReturnPart(division, life, after, max(until, end), tuple(found))

    async def _scan(self, division: str, life: str, after: int) -> ReturnPart:
        """Return what some entries of the log hold for a node: what lies before the index."""
        entries = await self._log.fetch(after, limit=SCAN)
        found: list[ReturnedRows] = []
        until, size = after, 0
        for entry in entries:
            if self._division_of(entry) == division and (returned := _returned(entry)) is not None:
                if found and size + len(returned.payload) > PART_BYTES:
                    break
                found.append(returned)
                size += len(returned.payload)
            until = entry.sequence
        return ReturnPart(division, life, after, until, tuple(found), more=bool(entries))


def _returned(entry: Entry) -> ReturnedRows | None:
    """Return an entry's rows with their identities, which they would otherwise have by where they stand.

    None: it cannot be read, and is passed over.
    """
    batch, found = read_rows(entry, "returns"), rows_subject(entry.subject)
    if batch is None or found is None:
        return None
    return ReturnedRows(found.kind, found.grade, columns.encode(batch.without_local()))
