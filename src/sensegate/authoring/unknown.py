"""Recorded messages that no profile explains: read from the log, handed to whoever can tell what they may be."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sensegate.bus import raw
from sensegate.bus.raw import Kept
from sensegate.bus.unreadable import read
from sensegate.errors import Overloaded
from sensegate.model import Entry, Message, QuarantineReason
from sensegate.ports import Log

MESSAGES_MAX = 20_000
"""Messages looked at; of more the latest."""
BYTES_MAX = 32 * 1024**2
"""Their payloads together."""
PAGE_BYTES = 2 * 1024**2
UNEXPLAINED = frozenset(
    {
        QuarantineReason.NO_PROFILE,
        QuarantineReason.UNKNOWN_DEVICE,
        QuarantineReason.FOREIGN_TOPIC,
        QuarantineReason.SCHEMA,
        QuarantineReason.NO_VALUES,
        QuarantineReason.MALFORMED,
    }
)
"""Reasons of quarantine that a profile could change."""


class Told(msgspec.Struct, frozen=True):
    """A recorded message, with why it is in quarantine (empty: it is not)."""

    message: Message
    reason: str = ""
    device: str = ""
    """Id, where it is known."""


Shapes = Callable[[Sequence[Told]], Any]
"""Messages -> their shapes (`decode.survey.Shape`), the most frequent first."""
Draft = Callable[[Sequence[Told], str, str], Any]
"""(messages, name for the profile, shape or empty) -> `decode.survey.Draft`, None where there is no such message."""


class Unknown:
    """What the log holds of messages without a profile. One reading at a time: it takes a core and memory."""

    def __init__(self, log: Log, *, shapes: Shapes, draft: Draft) -> None:
        self._log = log
        self._shapes = shapes
        self._draft = draft
        self._busy = asyncio.Lock()

    async def shapes(self, since: int) -> Any:
        """Return the shapes of the messages in quarantine since a time (µs UTC). Raises `Overloaded`, `Lost`."""
        told = await self._told(since, "")
        return await asyncio.to_thread(self._shapes, told)

    async def draft(self, since: int, *, topic: str = "", shape: str = "", profile: str = "") -> Any:
        """Return a draft for messages since a time (µs UTC), None where there are none.

        Args:
            since: arrival of the first.
            topic: MQTT filter; all messages under it count, the good ones too. Empty: those in quarantine.
            shape: only messages of this shape.
            profile: name of the profile; empty: made of the topic.

        Raises:
            Overloaded: another one is being made.
            Lost: the log does not answer.
        """
        told = await self._told(since, topic)
        return await asyncio.to_thread(self._draft, told, profile, shape)

    async def _told(self, since: int, topic: str) -> list[Told]:
        if self._busy.locked():
            raise Overloaded("another draft is being made", retry_after_s=5.0)
        async with self._busy:
            found: deque[Told] = deque(maxlen=MESSAGES_MAX)
            size = 0
            at = await self._log.sequence_at(since) - 1
            while entries := await self._log.fetch(at, max_bytes=PAGE_BYTES):
                for one in await asyncio.to_thread(_read, entries, topic):
                    if len(found) == MESSAGES_MAX:
                        size -= len(found[0].message.payload)
                    found.append(one)
                    size += len(one.message.payload)
                    while size > BYTES_MAX:
                        size -= len(found.popleft().message.payload)
                at = entries[-1].sequence
        return [one for one in found if one.message.received >= since]


def _read(entries: Sequence[Entry], topic: str) -> list[Told]:
    """Return the messages of some entries: under a topic, or those in quarantine that a profile could explain."""
    found: list[Told] = []
    for entry in entries:
        kind = entry.subject.partition(".")[0]
        if kind == "quarantine":
            found += _kept(raw.join(read(entry, "unknown messages", raw.decode_any) or ()), topic)
        elif kind == "raw" and topic:
            # A piece of a very large message is passed over too: no device's layout is learned from that.
            kept = read(entry, "unknown messages", raw.decode_any) or ()
            found += [Told(one.message) for one in kept if one.pieces == 1 and under(one.message.topic, topic)]
    return found


def _kept(kept: Iterator[Kept], topic: str) -> Iterator[Told]:
    for one in kept:
        if under(one.message.topic, topic) if topic else one.reason in UNEXPLAINED:
            yield Told(one.message, one.reason, one.device)


def under(topic: str, wanted: str) -> bool:
    """Return whether a topic is under an MQTT filter (``a/+/c``, ``a/#``)."""
    levels, parts = topic.split("/"), wanted.split("/")
    for at, part in enumerate(parts):
        if part == "#":
            return True
        if at >= len(levels) or part not in {"+", levels[at]}:
            return False
    return len(levels) == len(parts)
