"""Recorded messages that no profile explains: read from the log, handed to profile inference."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from sensegate.authoring.survey import ProfileDraft, RecordedMessage, ShapeSummary
from sensegate.bus import raw
from sensegate.bus.contract import Log
from sensegate.bus.raw import StoredMessage
from sensegate.bus.recovered import RecoveredMessages
from sensegate.bus.unreadable import read
from sensegate.decode.topics import matches_filter
from sensegate.errors import Overloaded
from sensegate.model import LogEntry, QuarantineReason

MESSAGES_MAX = 20_000
"""Most messages read; beyond that, the latest count."""
BYTES_MAX = 32 * 1024**2
"""Most payload bytes held in memory."""
PAGE_BYTES = 2 * 1024**2
WAIT_S = 10.0
"""Longest wait for another caller's read."""
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
"""Quarantine reasons that a new profile could resolve."""


SummariseShapes = Callable[[Sequence[RecordedMessage]], list[ShapeSummary]]
"""Messages -> their shapes, the most frequent first."""
DraftProfile = Callable[[Sequence[RecordedMessage], str, str], ProfileDraft | None]
"""(messages, profile name, shape or empty) -> `survey.DraftProfile`, None if there is no such message."""


class UnexplainedMessages:
    """The messages of the log without a profile. Reads for one caller at a time, because it takes a core and memory."""

    def __init__(self, log: Log, recovered: RecoveredMessages, *, shapes: SummariseShapes, draft: DraftProfile) -> None:
        self._log = log
        self._recovered = recovered
        self._shapes = shapes
        self._draft = draft
        self._busy = asyncio.Lock()

    async def shapes(self, since: int) -> list[ShapeSummary]:
        """Return the shapes of the messages in quarantine since a time (µs UTC). Raises `Overloaded`, `Unavailable`."""
        messages = await self._fetch(since, "")
        return await asyncio.to_thread(self._shapes, messages)

    async def draft(self, since: int, *, topic: str = "", shape: str = "", profile: str = "") -> ProfileDraft | None:
        """Return a draft for messages since a time (µs UTC), None if there are none.

        Args:
            since: arrival of the first message.
            topic: MQTT filter; all messages under it count, decoded ones too. Empty: messages in quarantine.
            shape: only messages of this shape.
            profile: name of the profile; empty: derived from the topic.

        Raises:
            Overloaded: another draft is being made for longer than `WAIT_S`.
            Unavailable: the log does not answer.
        """
        messages = await self._fetch(since, topic)
        return await asyncio.to_thread(self._draft, messages, profile, shape)

    async def _fetch(self, since: int, topic: str) -> list[RecordedMessage]:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._busy.acquire()
        except TimeoutError:
            raise Overloaded("another draft is being made; try again shortly", retry_after_s=5.0) from None
        try:
            messages: deque[RecordedMessage] = deque(maxlen=MESSAGES_MAX)
            size = 0
            await self._recovered.refresh()
            position = await self._log.sequence_at(since) - 1
            while entries := await self._next(position, topic):
                for recorded in await asyncio.to_thread(_read, entries, topic, self._recovered):
                    if len(messages) == MESSAGES_MAX:
                        size -= len(messages[0].message.payload)
                    messages.append(recorded)
                    size += len(recorded.message.payload)
                    while size > BYTES_MAX:
                        size -= len(messages.popleft().message.payload)
                position = entries[-1].sequence
        finally:
            self._busy.release()
        return [recorded for recorded in messages if recorded.message.received >= since]

    async def _next(self, position: int, topic: str) -> list[LogEntry]:
        if topic:
            return await self._log.fetch(position, max_bytes=PAGE_BYTES)
        return await self._log.fetch_of("quarantine.*", position)


def _read(entries: Sequence[LogEntry], topic: str, recovered: RecoveredMessages) -> list[RecordedMessage]:
    """Return the messages of log entries: those under a topic, or those in quarantine that a profile could explain."""
    recorded: list[RecordedMessage] = []
    for entry in entries:
        kind = entry.subject.partition(".")[0]
        if kind == "quarantine":
            stored = read(entry, "unknown messages", raw.decode_any) or ()
            kept = [message for at, message in enumerate(stored, 1) if not recovered.contains(entry.sequence, at)]
            recorded += _quarantined(raw.join_pieces(kept), topic)
        elif kind == "raw" and topic:
            # A fragment of a very large message is passed over too: no layout can be learned from it.
            whole = [kept.message for kept in read(entry, "unknown messages", raw.decode_any) or () if kept.pieces == 1]
            recorded += [RecordedMessage(message) for message in whole if matches_filter(message.topic, topic)]
    return recorded


def _quarantined(records: Iterator[StoredMessage], topic: str) -> Iterator[RecordedMessage]:
    for record in records:
        if matches_filter(record.message.topic, topic) if topic else record.reason in UNEXPLAINED:
            yield RecordedMessage(record.message, record.reason, record.device)
