"""Reading of the received messages that the log stores, of one partition and a range of sequences, in order.

Decoded messages are in ``raw.<partition>``, quarantined ones in ``quarantine.<partition>``; a message too large for one
log message is stored in consecutive pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

import msgspec

from sensegate.bus import raw
from sensegate.bus.contract import Log
from sensegate.bus.raw import StoredMessage
from sensegate.bus.unreadable import read
from sensegate.model import LogEntry, Message

RAW, QUARANTINE = "raw", "quarantine"
PAGE_BYTES = 2 * 1024**2


class RecordedMessages(msgspec.Struct, frozen=True):
    """The received messages of a log entry."""

    sequence: int
    """Sequence of the entry (of the last one, where a message was stored in pieces)."""
    messages: list[Message]
    quarantined: bool
    stored: int
    """Time when the log stored them, µs UTC."""


class Progress(msgspec.Struct):
    """Progress of reading (after, until]; `at` is the last sequence read."""

    after: int
    until: int
    at: int = 0

    @property
    def share(self) -> float:
        """Share that was read, 0 to 1."""
        whole = self.until - self.after
        return 1.0 if whole <= 0 else min(1.0, max(0, self.at - self.after) / whole)


class _PieceJoiner:
    """Joins messages that were stored in pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, stored: StoredMessage) -> Message | None:
        """Add a stored message; return the received message once it is complete."""
        if stored.pieces == 1:
            return stored.message
        if stored.piece == 0:
            self._parts = []
        self._parts.append(stored.message.payload)
        if stored.piece != len(self._parts) - 1 or len(self._parts) < stored.pieces:
            return None
        parts, self._parts = self._parts, []
        return msgspec.structs.replace(stored.message, payload=b"".join(parts))


def _messages(entry: LogEntry, pieces: _PieceJoiner) -> list[Message]:
    messages = read(entry, "recorded messages", raw.decode_any) or ()
    return [message for stored in messages if (message := pieces.add(stored)) is not None]


async def read_recorded(
    log: Log, partition: str, progress: Progress, kinds: Collection[str] = (RAW, QUARANTINE)
) -> AsyncIterator[RecordedMessages]:
    """Yield the messages of the entries in ``(progress.after, progress.until]``, and update `progress.at`.

    `partition`: ``<division>-<partition>``. Expired entries are missing. Raises `Unavailable`.
    """
    at = max(progress.after, progress.at)
    pieces = _PieceJoiner()
    while at < progress.until:
        entries = await log.fetch(at, max_bytes=PAGE_BYTES)
        if not entries:
            break
        for entry in entries:
            at = entry.sequence
            if at > progress.until:
                break
            kind, _, owner = entry.subject.partition(".")
            if kind in kinds and owner == partition:
                messages = await asyncio.to_thread(_messages, entry, pieces)
                if messages:
                    yield RecordedMessages(at, messages, kind == QUARANTINE, entry.time)
            progress.at = at
    progress.at = progress.until
