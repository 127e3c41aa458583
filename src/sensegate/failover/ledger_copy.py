"""Replication of the hourly sums (stream LEDGER) to a standby, with the position up to which they count.

    active: `answer_sums` ◀─ ask ``hours`` (sums written after a sequence) ── standby: LedgerCopy ─▶ its own LEDGER

Sums are written together with their position, all or nothing, and only once the own copy of the log has reached it:
after a promotion counting continues from there, and nothing is counted twice. Where more sums have changed than fit
into one write, the position says meanwhile that they are incomplete; a promotion then counts again from the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.unreadable import read
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Unavailable
from sensegate.model import LogMessage
from sensegate.tiers.questions import CHUNK_BYTES, fit_chunk

POSITION_SUBJECT = "hours.position"
ROWS_MAX = 500
WRITE_ROWS = 1_000
WRITE_BYTES = 8_000_000

Ask = Callable[[str, bytes], Awaitable[bytes]]


class SumsChunk(msgspec.Struct, frozen=True):
    """Sums written after a sequence, the newest of each hour."""

    stream_epoch: str
    """Epoch of the stream."""
    rows: list[tuple[str, bytes]]
    """(subject, payload)."""
    last: int
    """Sequence of the last row."""


class SumsPosition(msgspec.Struct, frozen=True):
    """Position up to which the sums count, and how far they are copied."""

    epoch: str
    """Epoch of the log; empty: the sums are incomplete."""
    sequence: int
    """Sequence of the log."""
    format: int = 1
    copied_epoch: str = ""
    copied_sequence: int = 0


_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode
_chunk = decoder(SumsChunk, "the other centre's answer")
_position = decoder(SumsPosition, "position of the hourly sums", json=True)


async def answer_sums(hours: Log, payload: bytes) -> bytes:
    """Answer a standby, at the active centre. Raises `Unavailable`."""
    after = _number(payload)
    entries = await hours.fetch(after, limit=ROWS_MAX, max_bytes=CHUNK_BYTES)
    entries = fit_chunk(entries, lambda entry: len(entry.payload) + len(entry.subject))
    rows = [(entry.subject, entry.payload) for entry in entries]
    return _encode(SumsChunk(hours.epoch, rows, entries[-1].sequence if entries else after))


class LedgerCopy:
    """The standby's side of the replication."""

    def __init__(self, own: Log, clock: Clock, *, ttl_h: int) -> None:
        self._own = own
        self._clock = clock
        self._ttl_h = ttl_h
        self._stream_epoch = ""
        self._after = -1
        self._rows: dict[str, bytes] = {}
        """Rows that came and are not yet written."""

    async def copy_next(self, ask: Ask, epoch: str, end: int) -> bool:
        """Copy new sums; return whether there may be more at once.

        Args:
            ask: sends a question to the active centre.
            epoch: of the log.
            end: last sequence of our copy of the log.

        Raises:
            Unavailable, PermissionDenied, StoreFull: try again.
        """
        if self._after < 0:
            present = await self.position()
            self._stream_epoch, self._after = (present.copied_epoch, present.copied_sequence) if present else ("", 0)
        try:
            chunk = _chunk(await ask("hours", _encode(self._after)))
        except ValueError as why:
            raise Unavailable(str(why)) from why
        if chunk.stream_epoch != self._stream_epoch:
            self._stream_epoch, self._rows = chunk.stream_epoch, {}
            if self._after:
                self._after = 0
                return True
        for subject, payload in chunk.rows:
            self._rows.pop(subject, None)
            self._rows[subject] = payload
        self._after = chunk.last
        if chunk.rows:
            return True
        payload = self._rows.get(POSITION_SUBJECT, b"")
        try:
            position = _position(payload) if payload else None
        except ValueError as why:
            raise Unavailable(f"the other centre has a {why}") from why
        if position and position.epoch == epoch and position.sequence <= end:
            await self._write(
                msgspec.structs.replace(position, copied_epoch=self._stream_epoch, copied_sequence=self._after)
            )
        return False

    async def position(self) -> SumsPosition | None:
        """Return the position of the sums here; None: there are none. Raises `Unavailable`."""
        last = await self._own.last(POSITION_SUBJECT)
        return read(last, "copy of the hourly sums", _position) if last else None

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

    def _member(self, subject: str, payload: bytes, now_h: int) -> LogMessage:
        hour = (*subject.split("."), "", "")[2]  # hours.<node>.<hour>[.<part>]
        age_h = max(0, now_h - int(hour)) if hour.isdigit() else 0
        return LogMessage(subject, payload, max(1, self._ttl_h - age_h), rollup=True)


def _position_member(position: SumsPosition) -> LogMessage:
    return LogMessage(POSITION_SUBJECT, msgspec.json.encode(position), rollup=True)


def _batches(members: Sequence[LogMessage]) -> list[list[LogMessage]]:
    parts: list[list[LogMessage]] = []
    size = WRITE_BYTES
    for member in members:
        size += len(member.payload)
        if not parts or len(parts[-1]) == WRITE_ROWS or size > WRITE_BYTES:
            parts.append([])
            size = len(member.payload)
        parts[-1].append(member)
    return parts
