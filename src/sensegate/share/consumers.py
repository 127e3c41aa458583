"""Who reads at this moment: every open stream, socket and line, with where it stands and how far behind.

A subscriber who is slow or dead costs the others nothing: the log waits for him. Here it is seen who that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from sensegate.clock import Clock
from sensegate.share.cursor import Cursor, stored_before


class Standing(msgspec.Struct, eq=False):
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
    why: str = ""
    place: Cursor | None = None
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
        return str(self.place) if self.place else ""

    def took(self, records: int, now: int) -> None:
        """Note that records have arrived."""
        self.records += records
        self.last = now


class Roll:
    """All of them."""

    def __init__(self, clock: Clock, end: Callable[[], int]) -> None:
        """`end` returns the sequence at which the log ends."""
        self._clock = clock
        self._end = end
        self._standing: dict[str, Standing] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._standing)

    def enter(self, subscriber: str, feed: str, delivery: str, *, name: str = "", state: str = "live") -> Standing:
        """Note a new one; `name`: its id, if it has one of its own."""
        self._count += 1
        name = name or f"{delivery}-{self._count}"
        made = self._standing[name] = Standing(name, subscriber, feed, delivery, self._clock.now(), state)
        return made

    def leave(self, standing: Standing) -> None:
        """It reads no more."""
        if self._standing.get(standing.id) is standing:
            del self._standing[standing.id]

    @contextmanager
    def entered(self, subscriber: str, feed: str, delivery: str) -> Iterator[Standing]:
        """Keep one on the roll while inside."""
        standing = self.enter(subscriber, feed, delivery)
        try:
            yield standing
        finally:
            self.leave(standing)

    def rows(self) -> list[Standing]:
        """Return all, by id, with how far behind each is now."""
        now, end = self._clock.now(), self._end()
        found = [one for _, one in sorted(self._standing.items())]
        for one in found:
            behind = max(0, end - one.place.sequence) if one.place else 0
            lag_s = max(0.0, (now - stored_before(one.place)) / 1e6) if one.place and behind else 0.0
            one.lag_entries, one.lag_s = behind, round(lag_s, 1)
        return found
