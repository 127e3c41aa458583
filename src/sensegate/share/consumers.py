"""Who reads at this moment: every open stream, socket and line, with where it stands and how far behind.

A subscriber who is slow or dead costs the others nothing: the log waits for him. Here it is seen who that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from sensegate.clock import Clock
from sensegate.share.cursor import Cursor, stored_before


class ConsumerInfo(msgspec.Struct, eq=False):
    """One subscriber's delivery as it goes on; who delivers keeps it true."""

    id: str
    """Of the webhook or line; of an open connection a number of its own."""
    subscriber: str
    """Id of the token that reads."""
    feed: str
    delivery: str
    since: int
    """µs UTC."""
    state: str = "live"
    """``live``; ``waiting``: nobody takes it; ``retrying``, ``paused``, ``ended``, ``refused``, ``gone``."""
    reason: str = ""
    offset: Cursor | None = None
    records: int = 0
    last: int = 0
    """When records were last taken, µs UTC; 0: not since this process began."""
    grant: str = ""
    failures: int = 0
    """In a row."""
    lag_entries: int = 0
    """Entries of the log that lay before the end and after where it stood, when `Roll.rows` was last asked."""
    lag_s: float = 0.0
    """About how long ago the entry was stored after which it stood, to the minute; 0 at the end of the log."""

    @property
    def cursor(self) -> str:
        """Where it stands, for people; empty: not known."""
        return str(self.offset) if self.offset else ""

    def delivered(self, records: int, now: int) -> None:
        """Note that records have arrived."""
        self.records += records
        self.last = now


class ActiveConsumers:
    """All of them."""

    def __init__(self, clock: Clock, end: Callable[[], int]) -> None:
        """`end` returns the sequence at which the log ends."""
        self._clock = clock
        self._end = end
        self._consumers: dict[str, ConsumerInfo] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._consumers)

    def add(self, subscriber: str, feed: str, delivery: str, *, name: str = "", state: str = "live") -> ConsumerInfo:
        """Note a new one; `name`: its id, if it has one of its own."""
        self._count += 1
        name = name or f"{delivery}-{self._count}"
        made = self._consumers[name] = ConsumerInfo(name, subscriber, feed, delivery, self._clock.now(), state)
        return made

    def remove(self, consumer: ConsumerInfo) -> None:
        """It reads no more."""
        if self._consumers.get(consumer.id) is consumer:
            del self._consumers[consumer.id]

    @contextmanager
    def registered(self, subscriber: str, feed: str, delivery: str) -> Iterator[ConsumerInfo]:
        """Keep one on the roll while inside."""
        standing = self.add(subscriber, feed, delivery)
        try:
            yield standing
        finally:
            self.remove(standing)

    def rows(self) -> list[ConsumerInfo]:
        """Return all, by id, with how far behind each is now."""
        now, end = self._clock.now(), self._end()
        found = [one for _, one in sorted(self._consumers.items())]
        for candidate in found:
            behind = max(0, end - candidate.offset.sequence) if candidate.offset else 0
            lag_s = max(0.0, (now - stored_before(candidate.offset)) / 1e6) if candidate.offset and behind else 0.0
            candidate.lag_entries, candidate.lag_s = behind, round(lag_s, 1)
        return found
