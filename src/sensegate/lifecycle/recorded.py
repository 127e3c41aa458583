"""The messages that the log holds as they were received, of one partition and a stretch of its sequences, in order.

Good ones stand in ``raw.<partition>``, those in quarantine in ``quarantine.<partition>``; one too large for a member
stands in several that follow one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

import msgspec

from sensegate.bus import raw
from sensegate.bus.raw import Kept
from sensegate.bus.unreadable import read
from sensegate.model import Entry, Message
from sensegate.ports import Log

RAW, QUARANTINE = "raw", "quarantine"
PAGE_BYTES = 2 * 1024**2


class Recorded(msgspec.Struct, frozen=True):
    """The messages of one entry."""

    sequence: int
    """Of the entry (of the last one, where a message stood in several)."""
    messages: list[Message]
    quarantined: bool
    stored: int
    """When the log stored them, µs UTC."""


class Progress(msgspec.Struct):
    """How far the reading has come."""

    after: int
    until: int
    at: int = 0

    @property
    def share(self) -> float:
        """Return what is done, 0 to 1."""
        whole = self.until - self.after
        return 1.0 if whole <= 0 else min(1.0, max(0, self.at - self.after) / whole)


class _Pieces:
    """Puts messages in pieces together."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def whole(self, one: Kept) -> Message | None:
        """Return the message once its last piece has come."""
        if one.pieces == 1:
            return one.message
        if one.piece == 0:
            self._parts = []
        self._parts.append(one.message.payload)
        if one.piece != len(self._parts) - 1 or len(self._parts) < one.pieces:
            return None
        parts, self._parts = self._parts, []
        return msgspec.structs.replace(one.message, payload=b"".join(parts))


def _messages(entry: Entry, pieces: _Pieces) -> list[Message]:
    kept = read(entry, "recorded messages", raw.decode_any) or ()
    return [message for one in kept if (message := pieces.whole(one)) is not None]


async def recorded(
    log: Log, partition: str, progress: Progress, kinds: Collection[str] = (RAW, QUARANTINE)
) -> AsyncIterator[Recorded]:
    """Yield the messages of the entries of ``(progress.after, progress.until]``; `progress.at` follows.

    `partition` is ``<division>-<partition>``. What has expired is not there. Raises `Unavailable`.
    """
    at = max(progress.after, progress.at)
    pieces = _Pieces()
    while at < progress.until:
        entries = await log.fetch(at, max_bytes=PAGE_BYTES)
        if not entries:
            break
        for entry in entries:
            at = entry.sequence
            if at > progress.until:
                break
            kind, _, rest = entry.subject.partition(".")
            if kind in kinds and rest == partition:
                messages = await asyncio.to_thread(_messages, entry, pieces)
                if messages:
                    yield Recorded(at, messages, kind == QUARANTINE, entry.time)
            progress.at = at
    progress.at = progress.until
