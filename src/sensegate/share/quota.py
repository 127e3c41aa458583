"""What a grant still lets through: records a second, and records a month (of Beijing time)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Overloaded

BURST_S = 10.0
"""So many seconds of its rate may a grant take at once after a rest."""
_BEIJING = timezone(timedelta(hours=8))


def month_of(time: int) -> str:
    """Return the month of a time (µs UTC) in Beijing: ``2026-01``."""
    return _month_of_hour(time // HOUR_US)


@lru_cache(maxsize=64)
def _month_of_hour(hour: int) -> str:
    return f"{datetime.fromtimestamp(hour * 3_600, _BEIJING):%Y-%m}"


def month_end(time: int) -> int:
    """Return when the month of a time ends in Beijing, µs UTC."""
    local = datetime.fromtimestamp(time / 1e6, _BEIJING)
    following = (local.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return round(following.astimezone(UTC).timestamp()) * 1_000_000


class Limits(msgspec.Struct, frozen=True):
    """What an allowance holds to."""

    rate: float = 0.0
    """Records a second; 0: as many as there are."""
    volume: int = 0
    """Records a month of Beijing time; 0: as many as there are."""


class Allowance:
    """What one grant may still receive, shared by all its deliveries in this process.

    A delivery asks `room` (or `demand`) and, with nothing awaited in between, says `take` before it sends; `within`
    does both for a page. What was taken and is known not to have arrived may be given back.
    """

    def __init__(self, grant: str, limits: Limits, clock: Clock, used: Callable[[], int]) -> None:
        """`used` returns the records that the grant has received this month by the books; asked once a month."""
        self.grant = grant
        self.limits = limits
        self._clock = clock
        self._used = used
        self._month = ""
        self._taken = 0
        self._tokens = self._burst
        self._filled = clock.monotonic()

    @property
    def _burst(self) -> float:
        return max(1.0, self.limits.rate * BURST_S)

    def left(self) -> int | None:
        """Return how many records of the month are left; None: no limit."""
        if (month := month_of(self._clock.now())) != self._month:
            self._month, self._taken = month, self._used()
        return max(0, self.limits.volume - self._taken) if self.limits.volume else None

    def room(self, most: int) -> int:
        """Return how many records may go now, at most `most`; 0: wait for `wait_s`.

        Raises:
            Overloaded: the month's volume is used up; `retry_after_s` leads into the next one.
        """
        left = self.left()
        if left == 0:
            now = self._clock.now()
            raise Overloaded(
                f"grant {self.grant}: its {self.limits.volume} records of {month_of(now)} are used up; "
                "ask its owner for more, or wait for the next month",
                retry_after_s=(month_end(now) - now) / 1e6,
            )
        self._fill()
        most = most if left is None else min(most, left)
        return min(most, int(self._tokens)) if self.limits.rate else most

    def demand(self, most: int) -> int:
        """Return `room`, at least 1. Raises `Overloaded` where there is none at the moment, too."""
        if room := self.room(most):
            return room
        raise Overloaded(
            f"grant {self.grant}: {self.limits.rate:g} records a second are allowed", retry_after_s=self.wait_s(1)
        )

    def take(self, records: int) -> None:
        """Say that so many records go now; what goes beyond the room is owed."""
        self._fill()
        self.left()
        self._tokens -= records
        self._taken += records

    def give(self, records: int) -> None:
        """Take records back that did not arrive."""
        self._tokens = min(self._burst, self._tokens + records)
        self._taken = max(0, self._taken - records)

    def wait_s(self, records: int) -> float:
        """Return how long it takes until so many records (cut to the burst) may go; 0: now."""
        if not self.limits.rate:
            return 0.0
        self._fill()
        return max(0.0, (min(records, self._burst) - self._tokens) / self.limits.rate)

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self.limits.rate)
        self._filled = now


class Counted(Protocol):
    """Anything with a number of records."""

    @property
    def count(self) -> int:
        """How many."""
        ...


Answer = TypeVar("Answer", bound=Counted)


async def within(allowance: Allowance | None, limit: int, read: Callable[[int], Awaitable[Answer]]) -> Answer:
    """Return what `read(most)` brings of at most `limit` records, within a quota and taken from it.

    Raises:
        Overloaded: nothing may be read now; `retry_after_s` says when.
    """
    if allowance is None:
        return await read(limit)
    while True:
        found = await read(allowance.demand(limit))
        # Another delivery of the same grant may have been faster while this one read.
        if not found.count or allowance.room(found.count) >= found.count:
            allowance.take(found.count)
            return found
