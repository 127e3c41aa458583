"""History of the hourly sums of quality indicators by member and month; its bucket keeps a month through restarts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable

import msgspec
import structlog

from sensegate.authority.bucket import Bucket
from sensegate.bus.unreadable import read_row
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import Conflict, StoreFull, Unavailable
from sensegate.quantities.indicator_counts import HOURS_MAX
from sensegate.tiers.indicator_hours import HourIndicators, unacceptable

STORE_S = 60.0
"""Interval at which changed months are stored."""
MONTHS_KEPT = 13
MONTHS_IN_MEMORY = 2
MONTH_ROWS_MAX = 8_192
"""Most rows of a member and a month: 11 cities, each hour."""
OPEN_HOURS = 2
"""Number of newest hours that are asked for repeatedly: late readings change them."""

_log = structlog.get_logger("tiers")


class MonthIndicators(msgspec.Struct, frozen=True):
    """Hourly sums of a member in a month."""

    rows: list[HourIndicators]
    format: int = 1


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MonthIndicators).decode


def month_of(hour: int) -> str:
    """Return the month (``2026-01``) of an hour since 1970, in UTC."""
    return f"{dt.datetime.fromtimestamp(hour * HOUR_US / 1e6, dt.UTC):%Y-%m}"


def month_before(month: str, months: int) -> str:
    """Return the month that lies some months before another."""
    year, number = divmod(int(month[:4]) * 12 + int(month[5:7]) - 1 - months, 12)
    return f"{year:04d}-{number + 1:02d}"


class IndicatorHistory:
    """Takes hourly sums of members, and returns those of a month."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        """Start empty; `load` reads the bucket."""
        self._bucket = bucket
        self._clock = clock
        self._months: dict[tuple[str, str], dict[tuple[int, str], HourIndicators]] = {}
        """(member, month) -> (hour, division) -> sums; the newest months only."""
        self._changed: set[tuple[str, str]] = set()
        self._stored_until: dict[str, int] = {}
        """Member -> its newest hour that is stored."""
        self.refusals: dict[str, str] = {}
        """Member -> why rows of its last report were not taken."""

    async def load(self) -> None:
        """Read the newest months from the bucket. Raises `Unavailable`."""
        first = month_before(self._present_month(), MONTHS_IN_MEMORY - 1)
        rows, _ = await self._bucket.load_all()
        for row in rows:
            member, _, month = row.key.rpartition(".")
            if month >= first and (stored := read_row(row, "indicators", _decode)) is not None:
                self._months[member, month] = {(part.hour, part.division): part for part in stored.rows}
                newest = max((part.hour for part in stored.rows), default=-1)
                self._stored_until[member] = max(newest, self._stored_until.get(member, -1))

    def wanted_after(self, member: str) -> int:
        """Return the hour after which a member should send its sums."""
        present = self._clock.now() // HOUR_US
        stored = self._stored_until.get(member, -1)
        return max(min(stored, present - OPEN_HOURS), present - HOURS_MAX - 1)

    def take(self, member: str, rows: Iterable[HourIndicators], areas: Collection[str]) -> None:
        """Take the sums that a member reports, as far as they are acceptable; `areas`: those that it may speak for."""
        now, refused = self._clock.now(), ""
        for row in rows:
            if problem := unacceptable(row, areas, now):
                refused = problem
                continue
            key = member, month_of(row.hour)
            month = self._months.setdefault(key, {})
            known = month.get((row.hour, row.division))
            # A process that has started anew has counted only a part of the hour.
            if known is not None and (known == row or known.received > row.received):
                continue
            if len(month) >= MONTH_ROWS_MAX and known is None:
                refused = f"more than {MONTH_ROWS_MAX} rows of a month"
                continue
            month[row.hour, row.division] = row
            self._changed.add(key)
        if refused:
            self.refusals[member] = refused
        else:
            self.refusals.pop(member, None)

    async def month(self, member: str, month: str) -> list[HourIndicators]:
        """Return the sums of a member in a month, in order of hour. Raises `Unavailable`."""
        known = self._months.get((member, month))
        if known is None and month < month_before(self._present_month(), MONTHS_IN_MEMORY - 1):
            row = await self._bucket.get(f"{member}.{month}")
            stored = read_row(row, "indicators", _decode) if row else None
            return stored.rows if stored else []
        return [row for _, row in sorted((known or {}).items())]

    async def run(self, own: Callable[[], None]) -> None:
        """Store what changes until cancelled; `own`: takes the sums of this gateway itself."""
        while True:
            own()
            try:
                await self.store()
            except (Unavailable, StoreFull, Conflict) as why:
                _log.warning("indicators not stored; tried again", reason=str(why))
            await self._clock.sleep(STORE_S)

    async def store(self) -> None:
        """Store the changed months, and delete those that are too old. Raises `Unavailable`, `StoreFull`."""
        for member, month in sorted(self._changed):
            rows = await self.month(member, month)
            # Before the write: rows that are taken during it are stored by the next.
            self._changed.discard((member, month))
            try:
                await self._bucket.put(f"{member}.{month}", _encode(MonthIndicators(rows)))
            except (Unavailable, StoreFull, Conflict):
                self._changed.add((member, month))
                raise
            newest = max((row.hour for row in rows), default=-1)
            self._stored_until[member] = max(newest, self._stored_until.get(member, -1))
        first = month_before(self._present_month(), MONTHS_IN_MEMORY - 1)
        for member, month in [key for key in self._months if key[1] < first]:
            del self._months[member, month]
            oldest = month_before(self._present_month(), MONTHS_KEPT)
            if await self._bucket.get(f"{member}.{oldest}"):
                await self._bucket.delete(f"{member}.{oldest}")

    def _present_month(self) -> str:
        return month_of(self._clock.now() // HOUR_US)
