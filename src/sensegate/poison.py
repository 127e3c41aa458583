"""Messages that meet a bug behind their decoding: found one by one, then kept from it.

The state is ahead of the log when such a bug is met, so the walk starts again from the last commit, with fewer messages
at once, until one alone meets it. That one goes to quarantine when it comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import xxhash

from sensegate.clock import Clock
from sensegate.errors import Lost
from sensegate.model import Delivery, Message, Span
from sensegate.persist.slices import part_of

CAREFUL_S = 60.0
"""After a bug in the walk the message that met it is looked for so long."""
CAREFUL_MESSAGES = 100
POISON_MAX = 16
"""With so many of them it is no matter of single messages: the bug ends the process."""

_log = structlog.get_logger("walk")


class PoisonError(Exception):
    """A message is not decoded: it met a bug behind that."""


class Poison:
    """Those of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._most = 0
        """So many messages are walked together while one that meets a bug is looked for; 0: all that come."""
        self._careful_until = float("-inf")
        self._known: dict[bytes, str] = {}
        """Digest of a message -> the bug that it met."""
        self._here: dict[tuple[int, int], str] = {}
        """(arrival, sequence) of those among the messages that are walked now -> the same."""

    def parts(self, live: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
        """Yield what is walked together: all, or little while a message that meets a bug is looked for."""
        if self._most and self._clock.monotonic() > self._careful_until:
            self._most = 0
        count = sum(len(delivery.messages) for delivery in live)
        most = self._most or count
        for start in range(0, count, max(most, 1)):
            yield live if most >= count else part_of(live, start, min(start + most, count))

    def met(self, deliveries: Sequence[Delivery], bug: Exception, where: str) -> Lost:
        """Return with what the walk starts again after a bug. Raises the bug where it cannot be that of a message."""
        if isinstance(bug, (MemoryError, OSError)) or len(self._known) >= POISON_MAX:
            raise bug
        messages = _messages(deliveries)
        if len(messages) > 1:
            self._most = CAREFUL_MESSAGES if len(messages) > CAREFUL_MESSAGES else 1
            self._careful_until = self._clock.monotonic() + CAREFUL_S
        else:
            self._most = 0
            self._known[_digest(messages[0])] = where
        _log.error("a bug in the walk; its message is looked for", among=len(messages), where=where)
        return Lost(f"a bug met one of {len(messages)} messages: {type(bug).__name__}; it goes to quarantine")

    def look(self, deliveries: Sequence[Delivery]) -> None:
        """See which of them are among these messages, which are walked now."""
        if self._known:
            found = [(message, self._known.get(_digest(message), "")) for message in _messages(deliveries)]
            self._here = {(message.received, message.sequence): where for message, where in found if where}

    def demand_none(self, span: Span) -> None:
        """Return if none of these messages is one. Raises `PoisonError`."""
        if self._here and any(self.of(message) for message in span):
            raise PoisonError

    def of(self, message: Message) -> str:
        """Return the bug that a message met; empty: none."""
        return self._here.get((message.received, message.sequence), "")


def _messages(deliveries: Sequence[Delivery]) -> list[Message]:
    return [message for delivery in deliveries for message in delivery.messages]


def _digest(message: Message) -> bytes:
    return xxhash.xxh3_128_digest(message.topic.encode("utf-8", "surrogatepass") + b"\0" + message.payload)
