"""Quotas of grants: records a second, and records a month of Beijing time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Overloaded

BURST_S = 10.0
"""Burst after an idle time, in seconds of the rate."""
_BEIJING = timezone(timedelta(hours=8))


def month_of(time: int) -> str:
    """Return the Beijing month of a time (µs UTC): ``2026-01``."""
    return _month_of_hour(time // HOUR_US)


@lru_cache(maxsize=64)
def _month_of_hour(hour: int) -> str:
    return f"{datetime.fromtimestamp(hour * 3_600, _BEIJING):%Y-%m}"


def month_end(time: int) -> int:
    """Return the end of the Beijing month of a time, µs UTC."""
    local = datetime.fromtimestamp(time / 1e6, _BEIJING)
    following = (local.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return round(following.astimezone(UTC).timestamp()) * 1_000_000


class QuotaLimits(msgspec.Struct, frozen=True):
    """Limits of a quota."""

    rate: float = 0.0
    """Records a second; 0: unlimited."""
    volume: int = 0
    """Records a month of Beijing time; 0: unlimited."""


class GrantQuota:
    """Quota of one grant, shared by all its deliveries in this process.

    A delivery calls `available` (or `demand_available`) and then `consume`, with no await in between, before it sends;
    `read_within_quota` does both for a page. Consumed records that are known not to have arrived may be refunded.
    """

    def __init__(self, grant: str, limits: QuotaLimits, clock: Clock, used: Callable[[], int]) -> None:
        """`used` returns the records that the grant has used this month; called once a month."""
        self.grant = grant
        self.limits = limits
        self._clock = clock
        self._used = used
        self._month = ""
        self._consumed = 0
        self._tokens = self._burst
        self._refilled = clock.monotonic()

    @property
    def _burst(self) -> float:
        return max(1.0, self.limits.rate * BURST_S)

    def left(self) -> int | None:
        """Return the records left this month; None: unlimited."""
        if (month := month_of(self._clock.now())) != self._month:
            self._month, self._consumed = month, self._used()
        return max(0, self.limits.volume - self._consumed) if self.limits.volume else None

    def available(self, most: int) -> int:
        """Return how many records may be sent now, at most `most`; 0: wait for `wait_s`.

        Raises:
            Overloaded: the monthly volume is used up; `retry_after_s` ends in the next month.
        """
        left = self.left()
        if left == 0:
            now = self._clock.now()
            raise Overloaded(
                f"grant {self.grant}: the {self.limits.volume} records of {month_of(now)} are used up; "
                "ask the owner of the data for more, or wait for the next month",
                retry_after_s=(month_end(now) - now) / 1e6,
            )
        self._refill()
        most = most if left is None else min(most, left)
        return min(most, int(self._tokens)) if self.limits.rate else most

    def demand_available(self, most: int) -> int:
        """Return `available` if it is above 0. Raises `Overloaded` also where the rate permits none at present."""
        if available := self.available(most):
            return available
        raise Overloaded(
            f"grant {self.grant}: {self.limits.rate:g} records a second are allowed", retry_after_s=self.wait_s(1)
        )

    def consume(self, records: int) -> None:
        """Consume records that are sent now; what exceeds `available` is owed."""
        self._refill()
        self.left()
        self._tokens -= records
        self._consumed += records

    def consume_all(self, records: int) -> None:
        """Consume records that are sent together. Raises `Overloaded`: not so many are allowed now."""
        if records and (available := self.available(records)) < records:
            raise Overloaded(
                f"grant {self.grant}: {records} records exceed the {available} that are allowed now; ask for fewer",
                retry_after_s=max(1.0, self.wait_s(records)),
            )
        self.consume(records)

    def refund(self, records: int) -> None:
        """Return records to the quota that were not delivered."""
        self._tokens = min(self._burst, self._tokens + records)
        self._consumed = max(0, self._consumed - records)

    def wait_s(self, records: int) -> float:
        """Return how long to wait until so many records (at most the burst) may be sent; 0: now."""
        if not self.limits.rate:
            return 0.0
        self._refill()
        return max(0.0, (min(records, self._burst) - self._tokens) / self.limits.rate)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self.limits.rate)
        self._refilled = now


class _Counted(Protocol):
    """Result with a number of records."""

    @property
    def count(self) -> int:
        """Number of records."""
        ...


_Answer = TypeVar("_Answer", bound=_Counted)


async def read_within_quota(quota: GrantQuota | None, limit: int, read: Callable[[int], Awaitable[_Answer]]) -> _Answer:
    """Return the result of `read(most)` for at most `limit` records, consumed from a quota.

    Raises:
        Overloaded: nothing may be read now; `retry_after_s` tells when.
    """
    if quota is None:
        return await read(limit)
    while True:
        result = await read(quota.demand_available(limit))
        # Another delivery of the same grant may have been faster while this one read.
        if not result.count or quota.available(result.count) >= result.count:
            quota.consume(result.count)
            return result
