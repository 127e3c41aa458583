"""A standby centre's copy of the hourly ledgers (`hourly_ledgers.py`): the stream LEDGER with its own position.

    active: `read_chunk` ◀─ request ``hours`` (entries after a sequence) ── standby: LedgerCopy ─▶ its own LEDGER

Sums are written together with the position up to which they count, all or nothing, and only when the standby's own log
has reached it: after a promotion counting continues from there, nothing twice. Where the changes do not fit into one
write, the position is empty meanwhile; a promotion then counts from the beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sensegate.bus.decoding import decoder
from sensegate.bus.ledger import HOUR_US
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.model import Member
from sensegate.ports import Log
from sensegate.tiers.questions import PIECE_BYTES, fitting

POSITION = "hours.position"
ROWS_MAX = 500
WRITE_ROWS = 1_000
WRITE_BYTES = 8_000_000

AskActive = Callable[[str, bytes], Awaitable[bytes]]


class LedgerChunk(msgspec.Struct, frozen=True):
    """Entries written after a sequence, the newest of each hour."""

    epoch: str
    """Epoch of the active centre's stream."""
    rows: list[tuple[str, bytes]]
    last: int
    """Sequence of the last entry."""


class CopyPosition(msgspec.Struct, frozen=True):
    """Position of the hourly ledgers, and how far the copy has come."""

    epoch: str
    """Epoch of LOG; empty: the stored sums belong to no position."""
    sequence: int
    format: int = 1
    source_epoch: str = ""
    source_sequence: int = 0


_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_chunk = decoder(LedgerChunk, "reply of the active centre")
_position = decoder(CopyPosition, "position of the hourly ledgers", json=True)


async def read_chunk(hours: Log, payload: bytes) -> bytes:
    """Return the chunk that a standby requests, at the active centre. Raises `Unavailable`."""
    after = _number(payload)
    entries = await hours.fetch(after, limit=ROWS_MAX, max_bytes=PIECE_BYTES)
    entries = fitting(entries, lambda entry: len(entry.payload) + len(entry.subject))
    rows = [(entry.subject, entry.payload) for entry in entries]
    return _encode(LedgerChunk(hours.epoch, rows, entries[-1].sequence if entries else after))


class LedgerCopy:
    """Copy of the hourly ledgers at a standby centre."""

    def __init__(self, own: Log, clock: Clock, *, ttl_h: int) -> None:
        self._own = own
        self._clock = clock
        self._ttl_h = ttl_h
        self._source_epoch = ""
        self._after = -1
        self._rows: dict[str, bytes] = {}
        """Subject -> payload received and not yet written."""

    async def pull(self, ask: AskActive, epoch: str, end: int) -> bool:
        """Fetch one chunk and write what is complete; return whether more may be available at once.

        Args:
            ask: sends a request to the active centre.
            epoch: epoch of the own copy of LOG.
            end: last sequence of the own copy of LOG.

        Raises:
            Unavailable, PermissionDenied, StoreFull: call again.
        """
        if self._after < 0:
            present = await self.position()
            self._source_epoch, self._after = (present.source_epoch, present.source_sequence) if present else ("", 0)
        try:
            chunk = _chunk(await ask("hours", _encode(self._after)))
        except ValueError as why:
            raise Unavailable(str(why)) from why
        if chunk.epoch != self._source_epoch:
            self._source_epoch, self._rows = chunk.epoch, {}
            if self._after:
                self._after = 0
                return True
        for subject, payload in chunk.rows:
            self._rows.pop(subject, None)
            self._rows[subject] = payload
        self._after = chunk.last
        if chunk.rows:
            return True
        raw = self._rows.get(POSITION)
        try:
            position = _position(raw) if raw else None
        except ValueError as why:
            raise Unavailable(f"the active centre has a {why}") from why
        if position and position.epoch == epoch and position.sequence <= end:
            await self._write(
                msgspec.structs.replace(position, source_epoch=self._source_epoch, source_sequence=self._after)
            )
        return False

    async def position(self) -> CopyPosition | None:
        """Return the position of the stored sums; None: there are none. Raises `Unavailable`."""
        entry = await self._own.last(POSITION)
        return read(entry, "copy of the hourly ledgers", _position) if entry else None

    async def _write(self, position: CopyPosition) -> None:
        now_h = self._clock.now() // HOUR_US
        members = [
            self._member(subject, payload, now_h) for subject, payload in self._rows.items() if subject != POSITION
        ]
        parts = list(_parts(members))
        if len(parts) > 1:
            await self._own.write([_position_member(CopyPosition("", 0))])
            for part in parts[:-1]:
                await self._own.write(part)
        await self._own.write([*(parts[-1] if parts else ()), _position_member(position)])
        self._rows = {}

    def _member(self, subject: str, payload: bytes, now_h: int) -> Member:
        hour = (*subject.split("."), "", "")[2]  # hours.<node>.<hour>[.<part>]
        age_h = max(0, now_h - int(hour)) if hour.isdigit() else 0
        return Member(subject, payload, max(1, self._ttl_h - age_h), rollup=True)


def _position_member(position: CopyPosition) -> Member:
    return Member(POSITION, msgspec.json.encode(position), rollup=True)


def _parts(members: Sequence[Member]) -> list[list[Member]]:
    parts: list[list[Member]] = []
    size = WRITE_BYTES
    for member in members:
        size += len(member.payload)
        if not parts or len(parts[-1]) == WRITE_ROWS or size > WRITE_BYTES:
            parts.append([])
            size = len(member.payload)
        parts[-1].append(member)
    return parts
