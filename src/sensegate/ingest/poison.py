"""Poison messages: messages that meet a bug behind decoding are isolated, then quarantined before they reach it.

When such a bug strikes, the state in memory is ahead of the log. So the pipeline starts again from the last commit with
fewer messages at once, until one message alone meets the bug. That message goes to quarantine when it comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import xxhash

from sensegate.clock import Clock
from sensegate.errors import Unavailable
from sensegate.model import Delivery, Message, MessageBatch
from sensegate.persist.slices import deliveries_of_range

ISOLATION_S = 60.0
"""Time in which small batches are processed after a bug, to isolate the message that meets it."""
ISOLATION_MESSAGES = 100
POISON_MAX = 16
"""Most poison messages that the process survives: with more, the fault is not in single messages."""

_log = structlog.get_logger("ingest")


class PoisonError(Exception):
    """A message is not decoded: it is known to meet a bug behind decoding."""


class PoisonMessages:
    """The poison messages known to this process, and the search for the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._batch_max = 0
        """Largest batch while a poison message is searched for; 0: no limit."""
        self._careful_until = float("-inf")
        self._known: dict[bytes, str] = {}
        """Digest of a poison message -> the bug that it meets."""
        self._in_batch: dict[tuple[int, int], str] = {}
        """(arrival, sequence) of the poison messages of the present batch -> the bug."""

    def split(self, live: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
        """Yield the deliveries to process together: all, or few while a poison message is searched for."""
        if self._batch_max and self._clock.monotonic() > self._careful_until:
            self._batch_max = 0
        count = sum(len(delivery.messages) for delivery in live)
        most = self._batch_max or count
        for start in range(0, count, max(most, 1)):
            yield live if most >= count else deliveries_of_range(live, start, min(start + most, count))

    def isolate(self, deliveries: Sequence[Delivery], bug: Exception, where: str) -> Unavailable:
        """Return the error that restarts the pipeline; raise the bug itself where no message can be its cause."""
        if isinstance(bug, (MemoryError, OSError)) or len(self._known) >= POISON_MAX:
            raise bug
        messages = _messages(deliveries)
        if len(messages) > 1:
            self._batch_max = ISOLATION_MESSAGES if len(messages) > ISOLATION_MESSAGES else 1
            self._careful_until = self._clock.monotonic() + ISOLATION_S
        else:
            self._batch_max = 0
            self._known[_digest(messages[0])] = where
        _log.error("bug behind decoding; isolating its message", messages=len(messages), frames=where)
        return Unavailable(f"a bug met one of {len(messages)} messages: {type(bug).__name__}; it goes to quarantine")

    def inspect(self, deliveries: Sequence[Delivery]) -> None:
        """Note which messages of the present batch are known poison messages."""
        if self._known:
            bugs = [(message, self._known.get(_digest(message), "")) for message in _messages(deliveries)]
            self._in_batch = {(message.received, message.sequence): bug for message, bug in bugs if bug}

    def raise_if_poison(self, span: MessageBatch) -> None:
        """Raise `PoisonError` if a known poison message is among these."""
        if self._in_batch and any(self.bug_of(message) for message in span):
            raise PoisonError

    def bug_of(self, message: Message) -> str:
        """Return the bug that a message is known to meet; empty: none."""
        return self._in_batch.get((message.received, message.sequence), "")


def _messages(deliveries: Sequence[Delivery]) -> list[Message]:
    return [message for delivery in deliveries for message in delivery.messages]


def _digest(message: Message) -> bytes:
    return xxhash.xxh3_128_digest(message.topic.encode("utf-8", "surrogatepass") + b"\0" + message.payload)
