"""Return flow (数据回流), the centre's side: readings of a node's area that reached the centre go back to that node.

Readings that come to the centre from other systems are committed under ``readings.<city>.own.<grade>``; those
forwarded by nodes are stored under ``all``, and never go back. A node asks for the rows after a position; asking for
more acknowledges those before.
"""

from __future__ import annotations

import bisect
from collections import defaultdict

import msgspec

from sensegate.bus import columns
from sensegate.bus.contract import Log
from sensegate.bus.names import ROW_PREFIXES, rows_subject
from sensegate.bus.unreadable import read_rows, read_subject
from sensegate.errors import Gone
from sensegate.model import LogEntry

PART_BYTES = 400_000
"""Most bytes of one part, which is one message; a single larger entry makes a part of its own."""
INDEX_MAX = 200_000
"""Most entries of one node whose sequences are remembered; older ones are found by scanning the log."""
SCAN_ENTRIES = 256


class ReturnedRows(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one entry of the centre's log, with their identities."""

    kind: str
    """``readings`` or ``observations``."""
    grade: int
    payload: bytes


class ReturnRequest(msgspec.Struct, frozen=True):
    """Request of a node for the rows after the position that it has committed."""

    log_epoch: str = ""
    after: int = 0


class ReturnPart(msgspec.Struct, frozen=True):
    """Rows that go back to a node, up to a sequence."""

    division: str
    log_epoch: str
    """Epoch of the centre's log."""
    after: int
    until: int
    entries: tuple[ReturnedRows, ...] = ()
    more: bool = False
    """True if more follow at once."""
    starts_at_oldest: bool = False
    """True if it starts with the oldest entry of the log: earlier ones have expired."""
    format: int = 1


class ReturnFlow:
    """Returns each node's rows from the centre's log; `index_entry` is called for each entry as the log grows."""

    def __init__(self, log: Log, *, grade_max: int) -> None:
        self._log = log
        self._grade_max = grade_max
        self._sequences: dict[str, list[int]] = defaultdict(list)
        self._begun: int | None = None
        """Sequence after which `_sequences` is complete; None: nothing is indexed yet."""
        self._end = 0
        self.acknowledged: dict[str, int] = {}
        """Division -> position of its last request."""

    def index_from(self, after: int) -> None:
        """Start the index: `index_entry` is called for all entries after a sequence."""
        if self._begun is None:
            self._begun = self._end = after

    def index_entry(self, entry: LogEntry) -> None:
        """Add an entry to the index if it is for a node; a repeated one is ignored."""
        if entry.sequence <= self._end:
            return
        self._end = entry.sequence
        if (division := self._division_of(entry)) is None:
            return
        sequences = self._sequences[division]
        sequences.append(entry.sequence)
        if len(sequences) > INDEX_MAX:
            self._begun = max(self._begun or 0, sequences[INDEX_MAX // 2])
            del sequences[: INDEX_MAX // 2 + 1]

    def _division_of(self, entry: LogEntry) -> str | None:
        """Return the division to which an entry goes back; None: to none."""
        if not entry.subject.startswith(ROW_PREFIXES) or (subject := read_subject(entry, "returns")) is None:
            return None
        return subject.node if subject.area != "all" and subject.grade <= self._grade_max else None

    async def part(self, division: str, request: ReturnRequest) -> ReturnPart:
        """Return the next part for a node.

        Raises `Unavailable`, `Gone` (the log ends before the requested position).
        """
        epoch = self._log.epoch
        after = request.after if request.log_epoch in {"", epoch} else 0
        self.acknowledged[division] = after
        first, last = await self._log.bounds()
        if after > last:
            raise Gone(f"the centre's log ends at {last}, before {after}: it was restored from an older state")
        after, starts_at_oldest = max(after, first - 1), after <= first - 1
        if self._begun is None or after < self._begun:
            part = await self._scan(division, epoch, after)
        else:
            part = await self._read_indexed(division, epoch, after)
        return msgspec.structs.replace(part, starts_at_oldest=starts_at_oldest)

    async def _read_indexed(self, division: str, epoch: str, after: int) -> ReturnPart:
        """Return the next part for a node by the index."""
        sequences = self._sequences.get(division, [])
        end = self._end
        rows: list[ReturnedRows] = []
        until, size = after, 0
        for sequence in sequences[bisect.bisect_right(sequences, after) :]:
            if size >= PART_BYTES:
                return ReturnPart(division, epoch, after, until, tuple(rows), more=True)
            entries = await self._log.fetch(sequence - 1, limit=1)
            if entries and entries[0].sequence == sequence and (returned := _returned(entries[0])) is not None:
                if rows and size + len(returned.payload) > PART_BYTES:
                    return ReturnPart(division, epoch, after, until, tuple(rows), more=True)
                rows.append(returned)
                size += len(returned.payload)
            until = sequence
        return ReturnPart(division, epoch, after, max(until, end), tuple(rows))

    async def _scan(self, division: str, epoch: str, after: int) -> ReturnPart:
        """Return the next part for a node by reading entries that precede the index."""
        entries = await self._log.fetch(after, limit=SCAN_ENTRIES)
        rows: list[ReturnedRows] = []
        until, size = after, 0
        for entry in entries:
            if self._division_of(entry) == division and (returned := _returned(entry)) is not None:
                if rows and size + len(returned.payload) > PART_BYTES:
                    break
                rows.append(returned)
                size += len(returned.payload)
            until = entry.sequence
        return ReturnPart(division, epoch, after, until, tuple(rows), more=bool(entries))


def _returned(entry: LogEntry) -> ReturnedRows | None:
    """Return an entry's rows with explicit identities, which they otherwise have by their sequence.

    None: the entry cannot be read, and is skipped.
    """
    batch, subject = read_rows(entry, "returns"), rows_subject(entry.subject)
    if batch is None or subject is None:
        return None
    return ReturnedRows(subject.kind, subject.grade, columns.encode(batch.without_local()))
