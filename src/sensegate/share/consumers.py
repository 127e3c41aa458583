"""Active consumers: every open stream, socket and push subscription, with its offset and lag.

A slow or dead consumer does not delay the others, since the log waits for it; here an operator sees which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from sensegate.clock import Clock
from sensegate.share.cursor import Cursor, stored_before


class ConsumerInfo(msgspec.Struct, eq=False):
    """State of an active consumer; only the delivering code updates it."""

    id: str
    """Id of the webhook or push subscription; a number for an open connection."""
    subscriber: str
    """Id of the token that reads."""
    feed: str
    delivery: str
    since: int
    """Start, µs UTC."""
    state: str = "live"
    """``live``; ``waiting``: the consumer takes nothing; ``retrying``, ``paused``, ``ended``, ``refused``, ``gone``."""
    reason: str = ""
    offset: Cursor | None = None
    records: int = 0
    last: int = 0
    """Time of the last delivery, µs UTC; 0: none since this process started."""
    grant: str = ""
    failures: int = 0
    """Consecutive failures."""

    def delivered(self, records: int, now: int) -> None:
        """Count delivered records."""
        self.records += records
        self.last = now


class ConsumerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """An active consumer at one moment; fields as in `ConsumerInfo`."""

    id: str
    subscriber: str
    feed: str
    delivery: str
    since: int
    state: str
    reason: str
    cursor: str
    """Offset as text; empty: unknown."""
    sequence: int
    """Sequence of the offset in the log; -1: unknown."""
    records: int
    last: int
    grant: str
    failures: int
    lag_entries: int
    """Entries of the log after the offset."""
    lag_s: float
    """Age of the entry at the offset, to the minute; 0: at the end of the log."""


class ActiveConsumers:
    """Registry of the active consumers of this process."""

    def __init__(self, clock: Clock, end: Callable[[], int]) -> None:
        """`end` returns the last sequence of the log."""
        self._clock = clock
        self._end = end
        self._consumers: dict[str, ConsumerInfo] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._consumers)

    def add(self, subscriber: str, feed: str, delivery: str, *, name: str = "", state: str = "live") -> ConsumerInfo:
        """Add a consumer; `name`: its id, empty: a number."""
        self._count += 1
        name = name or f"{delivery}-{self._count}"
        consumer = self._consumers[name] = ConsumerInfo(name, subscriber, feed, delivery, self._clock.now(), state)
        return consumer

    def remove(self, consumer: ConsumerInfo) -> None:
        """Remove a consumer."""
        if self._consumers.get(consumer.id) is consumer:
            del self._consumers[consumer.id]

    @contextmanager
    def registered(self, subscriber: str, feed: str, delivery: str) -> Iterator[ConsumerInfo]:
        """Register a consumer while the context lasts."""
        consumer = self.add(subscriber, feed, delivery)
        try:
            yield consumer
        finally:
            self.remove(consumer)

    def rows(self) -> list[ConsumerStatistics]:
        """Return all consumers, by id, with their current lag."""
        now, end = self._clock.now(), self._end()
        return [_statistics(consumer, now, end) for _, consumer in sorted(self._consumers.items())]


def _statistics(consumer: ConsumerInfo, now: int, end: int) -> ConsumerStatistics:
    offset = consumer.offset
    lag_entries = max(0, end - offset.sequence) if offset else 0
    lag_s = max(0.0, (now - stored_before(offset)) / 1e6) if offset and lag_entries else 0.0
    return ConsumerStatistics(
        id=consumer.id,
        subscriber=consumer.subscriber,
        feed=consumer.feed,
        delivery=consumer.delivery,
        since=consumer.since,
        state=consumer.state,
        reason=consumer.reason,
        cursor=str(offset) if offset else "",
        sequence=offset.sequence if offset else -1,
        records=consumer.records,
        last=consumer.last,
        grant=consumer.grant,
        failures=consumer.failures,
        lag_entries=lag_entries,
        lag_s=round(lag_s, 1),
    )
