"""A standby centre's copy of the hourly sums (`books.py`): the stream LEDGER with its own position.

    active: `answer_sums` ◀─ ask ``hours`` (what was written after a sequence) ── standby: LedgerCopy ─▶ its own LEDGER

Sums are taken with the position up to which they count, all or nothing, and only when the own log has come so far:
after a promotion the books go on counting from there, nothing twice. Where more has changed than goes into one write,
the position says so meanwhile; a promotion then counts anew.
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
from sensegate.tiers.questions import CHUNK_BYTES, fit_chunk

POSITION_SUBJECT = "hours.position"
ROWS_MAX = 500
WRITE_ROWS = 1_000
WRITE_BYTES = 8_000_000

Ask = Callable[[str, bytes], Awaitable[bytes]]


class SumsChunk(msgspec.Struct, frozen=True):
    """What was written after a sequence, the newest of each hour."""

    stream_epoch: str
    """Of that stream."""
    rows: list[tuple[str, bytes]]
    last: int
    """Sequence of the last of them."""


class SumsPosition(msgspec.Struct, frozen=True):
    """As the books write it, and where the copy is."""

    epoch: str
    """Empty: what is here belongs to no position."""
    sequence: int
    format: int = 1
    copied_epoch: str = ""
    copied_sequence: int = 0


_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_piece = decoder(SumsChunk, "the other centre's answer")
_position = decoder(SumsPosition, "position of the hourly sums", json=True)


async def answer_sums(hours: Log, payload: bytes) -> bytes:
    """Answer a standby, at the active centre. Raises `Unavailable`."""
    after = _number(payload)
    found = await hours.fetch(after, limit=ROWS_MAX, max_bytes=CHUNK_BYTES)
    found = fit_chunk(found, lambda entry: len(entry.payload) + len(entry.subject))
    rows = [(entry.subject, entry.payload) for entry in found]
    return _encode(SumsChunk(hours.epoch, rows, found[-1].sequence if found else after))


class LedgerCopy:
    """The standby's side."""

    def __init__(self, own: Log, clock: Clock, *, ttl_h: int) -> None:
        self._own = own
        self._clock = clock
        self._ttl_h = ttl_h
        self._life = ""
        self._after = -1
        self._rows: dict[str, bytes] = {}
        """Come, and not written yet."""

    async def copy_next(self, ask: Ask, epoch: str, end: int) -> bool:
        """Take what is new; return whether there may be more at once.

        Args:
            ask: the way to the active centre.
            epoch: of the log.
            end: sequence with which the own copy of the log ends.

        Raises:
            Unavailable, PermissionDenied, StoreFull: turn again.
        """
        if self._after < 0:
            present = await self.position()
            self._life, self._after = (present.copied_epoch, present.copied_sequence) if present else ("", 0)
        try:
            found = _piece(await ask("hours", _encode(self._after)))
        except ValueError as why:
            raise Unavailable(str(why)) from why
        if found.stream_epoch != self._life:
            self._life, self._rows = found.stream_epoch, {}
            if self._after:
                self._after = 0
                return True
        for subject, payload in found.rows:
            self._rows.pop(subject, None)
            self._rows[subject] = payload
        self._after = found.last
        if found.rows:
            return True
        said = self._rows.get(POSITION_SUBJECT)
        try:
            position = _position(said) if said else None
        except ValueError as why:
            raise Unavailable(f"the other centre has a {why}") from why
        if position and position.epoch == epoch and position.sequence <= end:
            await self._write(msgspec.structs.replace(position, copied_epoch=self._life, copied_sequence=self._after))
        return False

    async def position(self) -> SumsPosition | None:
        """Return up to where the sums count that are here; None: there are none. Raises `Unavailable`."""
        found = await self._own.last(POSITION_SUBJECT)
        return read(found, "copy of the hourly sums", _position) if found else None

    async def _write(self, position: SumsPosition) -> None:
        now_h = self._clock.now() // HOUR_US
        members = [
            self._member(subject, payload, now_h)
            for subject, payload in self._rows.items()
            if subject != POSITION_SUBJECT
        ]
        parts = list(_batches(members))
        if len(parts) > 1:
            await self._own.write([_position_member(SumsPosition("", 0))])
            for part in parts[:-1]:
                await self._own.write(part)
        await self._own.write([*(parts[-1] if parts else ()), _position_member(position)])
        self._rows = {}

    def _member(self, subject: str, payload: bytes, now_h: int) -> Member:
        hour = (*subject.split("."), "", "")[2]  # hours.<node>.<hour>[.<part>]
        gone_h = max(0, now_h - int(hour)) if hour.isdigit() else 0
        return Member(subject, payload, max(1, self._ttl_h - gone_h), rollup=True)


def _position_member(position: SumsPosition) -> Member:
    return Member(POSITION_SUBJECT, msgspec.json.encode(position), rollup=True)


def _batches(members: Sequence[Member]) -> list[list[Member]]:
    parts: list[list[Member]] = []
    size = WRITE_BYTES
    for member in members:
        size += len(member.payload)
        if not parts or len(parts[-1]) == WRITE_ROWS or size > WRITE_BYTES:
            parts.append([])
            size = len(member.payload)
        parts[-1].append(member)
    return parts
