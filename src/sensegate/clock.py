"""Clocks, passed to components: `SystemClock` in production, `FakeClock` in tests. Whole microseconds, UTC."""

from __future__ import annotations

import asyncio
import time
from datetime import date
from typing import Protocol

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal()


def begins_month(moment: int) -> bool:
    """Return whether µs UTC lie in the first second of a month: second 60 of the minute before is a leap second.

    RFC 3339 and ITU-R TF.460 have leap seconds at the end of a month in UTC, never elsewhere.
    """
    days, rest = divmod(moment, DAY_US)
    day = _EPOCH_DAY + days
    return rest < SECOND_US and 1 <= day <= _LAST_DAY and date.fromordinal(day).day == 1


class Clock(Protocol):
    """Source of time for a component."""

    def now(self) -> int:
        """Return µs since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a monotonic clock; only differences are meaningful."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        ...


class SystemClock:
    """The system clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that moves only by `advance`; sleepers wake in order of their time."""

    def __init__(self, now: int = 1_767_225_600_000_000) -> None:
        self._now = now
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._now / 1e6

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self._now + round(seconds * 1e6), self._count, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Move forward by `seconds`; each sleeper runs at its own time."""
        end = self._now + round(seconds * 1e6)
        while due := sorted(sleeper for sleeper in self._sleepers if sleeper[0] <= end):
            sleeper = due[0]
            self._sleepers.remove(sleeper)
            self._now = max(self._now, sleeper[0])
            if not sleeper[2].done():
                sleeper[2].set_result(None)
            for _ in range(10):
                await asyncio.sleep(0)
        self._now = end


async def wait_or_sleep(event: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Return when an event is set, or after `seconds` of a clock."""
    waiters = [asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(event.wait())]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
