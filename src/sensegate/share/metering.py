"""Metering: records delivered per token, feed and delivery, persistent in a bucket.

Deliveries are reserved before they are sent: the row in the bucket holds, beside the count, an upper bound for it
(`reserved`). After a crash the difference is what may have been delivered without being counted (`unsettled`); a quota
counts it as used. An orderly shutdown leaves no difference.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import TracebackType

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.bus.unreadable import read_row
from sensegate.clock import DAY_US, Clock
from sensegate.errors import StoreFull, Unavailable
from sensegate.share import scans
from sensegate.share.quota import month_of

FLUSH_SOON_S, FLUSH_SOON_ROWS = 1.0, 64
SPARE_RECORDS = 20
"""Records reserved beyond those about to be sent, while the rate of a row is unknown."""
BUSY_RECORDS = 3
"""A row that counted this many records since it was written is reserved ahead, so that deliveries need not wait."""
QUOTA_DIVISOR = 20
"""Divisor of the remaining quota that gives the most reserved ahead, so that a crash does not use it up."""
RESERVE_TIMEOUT_S, RETRY_S = 5.0, 0.1
"""Longest wait of a delivery for the bucket, and the interval between attempts."""
PRUNE_INTERVAL_S = 3_600.0

_log = structlog.get_logger(__name__)


class Usage(msgspec.Struct, frozen=True):
    """Records that one token received of one feed by one delivery, in total or in one month."""

    token: str
    feed: str
    delivery: str
    """``json``, ``ndjson``, ``csv``, ``msgpack`` or ``sse``."""
    requests: int = 0
    """Responses, with or without records; for a stream, connections."""
    records: int = 0
    bytes: int = 0
    last: int = 0
    """Time of the last delivery, µs UTC."""
    month: str = ""
    """Month of Beijing time, ``2026-01``; empty: the total."""
    grant: str = ""
    """Grant by which the records were received; empty: by the scope of the token, or the total."""
    scanned: int = 0
    """Rows looked through for the responses; those that were refused are in the metrics only."""
    unsettled: int = 0
    """Records that may have been delivered without being counted, when the gateway was killed."""
    reserved: int = 0
    """Upper bound of `records` until the next write, in the bucket; 0: `records` is exact."""

    @property
    def total_key(self) -> tuple[str, str, str]:
        """Key of the row with the total."""
        return self.token, self.feed, self.delivery

    @property
    def key(self) -> tuple[str, ...]:
        """Key of the row."""
        whole = (self.token, self.feed, self.delivery)
        return ("month", self.month, *whole, self.grant) if self.month else whole

    def plus(self, requests: int, records: int, size: int, now: int, scanned: int) -> Usage:
        """Return the row with a delivery added."""
        return msgspec.structs.replace(
            self,
            requests=self.requests + requests,
            records=self.records + records,
            bytes=self.bytes + size,
            scanned=self.scanned + scanned,
            last=max(self.last, now),
        )


_decode = msgspec.json.Decoder(Usage, strict=False).decode


class _LastReservation(msgspec.Struct, frozen=True):
    """Monotonic time and spare of the last reservation that a delivery had to wait for."""

    at: float
    spare: int


class UsageReservation:
    """Reservation of records while they are delivered; created by `Metering.reserve`."""

    __slots__ = ("_metering", "_records", "_row")

    def __init__(self, metering: Metering, row: Usage, records: int) -> None:
        self._metering = metering
        self._row = row
        self._records = records

    async def __aenter__(self) -> None:
        if self._records:
            await self._metering.acquire(self._row, self._records)

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._records:
            self._metering.release(self._row, self._records)


class Metering:
    """Counts in memory; written to the bucket every `flush_s`, or every second while few have changed."""

    def __init__(
        self,
        bucket: Bucket,
        clock: Clock,
        *,
        quota_left: Callable[[str], int | None] = lambda _grant: None,
        flush_s: float = 5.0,
        retention_days: float = 0.0,
    ) -> None:
        """Build it empty; `open` loads the counts.

        Args:
            bucket: where counts are written.
            clock: the clock.
            quota_left: grant -> records left of its monthly quota; None: unlimited.
            flush_s: how often counts are written.
            retention_days: counts of earlier months are deleted; 0: never.
        """
        self._bucket = bucket
        self._clock = clock
        self._flush_s = flush_s
        self._retention_us = round(retention_days * DAY_US)
        self._usage: dict[tuple[str, ...], Usage] = {}
        self._changed: set[tuple[str, ...]] = set()
        self._used: dict[tuple[str, str], int] = {}
        """(month, grant) -> records, including unsettled ones."""
        self._in_flight: dict[tuple[str, ...], int] = defaultdict(int)
        """Key of a month's row -> records being delivered and not yet counted."""
        self._reserved: dict[tuple[str, ...], int] = {}
        """Key of a month's row -> upper bound in the bucket."""
        self._unwritten: dict[tuple[str, ...], int] = defaultdict(int)
        """Key of a month's row -> records counted since it was written."""
        self._last_reservations: dict[tuple[str, ...], _LastReservation] = {}
        """Key of a month's row -> the last reservation that a delivery had to wait for."""
        self._locks: dict[tuple[str, ...], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unsettled: dict[tuple[str, str, str], int] = defaultdict(int)
        """Key of a total -> unsettled records of all months."""
        self._quota_left = quota_left

    async def open(self) -> None:
        """Load the counts; reservations that an earlier run did not settle become unsettled."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if (usage := read_row(row, "usage", _decode)) is not None:
                if usage.reserved:
                    lost = max(0, usage.reserved - usage.records)
                    usage = msgspec.structs.replace(usage, reserved=0, unsettled=usage.unsettled + lost)
                    self._changed.add(usage.key)
                    _log.warning(
                        "deliveries may be uncounted after a crash", token=usage.token, feed=usage.feed, records=lost
                    )
                self._usage[usage.key] = usage
                if usage.month:
                    self._unsettled[usage.total_key] += usage.unsettled
                if usage.grant:
                    known = self._used.get((usage.month, usage.grant), 0)
                    self._used[usage.month, usage.grant] = known + usage.records + usage.unsettled
        for total_key in [total_key for total_key, lost in self._unsettled.items() if lost]:
            self._usage.setdefault(total_key, Usage(*total_key))

    # ── reservations ──────────────────────────────────────────────────────────────────────────────

    def reserve(self, token_id: str, feed: str, delivery: str, records: int, *, grant: str = "") -> UsageReservation:
        """Return an async context in which records are delivered and then counted.

        Entering it raises `Unavailable` if the bucket does not answer in time: nothing may be delivered then.
        """
        month = month_of(self._clock.now())
        return UsageReservation(self, Usage(token_id, feed, delivery, month=month, grant=grant), records)

    async def acquire(self, row: Usage, records: int) -> None:
        """Return once the bucket has reserved so many more records."""
        key = row.key
        self._in_flight[key] += records
        acquired = False
        try:
            await self._write_reservation(row.total_key, key)
            acquired = True
        finally:
            if not acquired:
                self._in_flight[key] -= records

    async def _write_reservation(self, total_key: tuple[str, ...], key: tuple[str, ...]) -> None:
        until = self._clock.monotonic() + RESERVE_TIMEOUT_S
        while self._records(key) + self._in_flight[key] > self._reserved.get(key, 0):
            try:
                await self._write(total_key, {key: self._note_wait(key)})
            except StoreFull as why:
                # Delivering matters more than the exact count after a crash.
                _log.warning("usage cannot be reserved: the store is full", reason=str(why))
                metrics.LIMIT_HITS.labels("usage_full").inc()
                return
            except Unavailable:
                if self._clock.monotonic() >= until:
                    raise
                await self._clock.sleep(RETRY_S)

    def _note_wait(self, key: tuple[str, ...]) -> int:
        """Record that a delivery waits; return how many more records to reserve, doubled within a second."""
        spare = max(SPARE_RECORDS, self._unwritten[key], 2 * self._recent_spare(key))
        self._last_reservations[key] = _LastReservation(self._clock.monotonic(), spare)
        return spare

    def _recent_spare(self, key: tuple[str, ...]) -> int:
        """Return the spare of a reservation that was waited for within the last second; 0: none."""
        before = self._last_reservations.get(key)
        return before.spare if before is not None and self._clock.monotonic() - before.at < FLUSH_SOON_S else 0

    def release(self, row: Usage, records: int) -> None:
        """Release a reservation: its records were counted, or were not delivered."""
        self._in_flight[row.key] -= records

    def _records(self, key: tuple[str, ...]) -> int:
        known = self._usage.get(key)
        return known.records if known else 0

    def count(
        self,
        token_id: str,
        feed: str,
        delivery: str,
        *,
        requests: int = 0,
        records: int = 0,
        size: int,
        grant: str = "",
    ) -> None:
        """Add what was passed to the network to the total and to the month, and what was looked through for it."""
        now, scanned = self._clock.now(), scans.take()
        total = Usage(token_id, feed, delivery)
        for row in (total, msgspec.structs.replace(total, month=month_of(now), grant=grant)):
            known = self._usage.get(row.key) or row
            self._usage[row.key] = known.plus(requests, records, size, now, scanned)
            self._changed.add(row.key)
        self._unwritten[row.key] += records
        if grant:
            month = month_of(now)
            self._used[month, grant] = self._used.get((month, grant), 0) + records
        # Metrics may be public, so that they do not name feeds.
        metrics.DELIVERED.labels(feed if feed == "all" else "named", delivery).inc(records)

    def rows(self) -> list[Usage]:
        """Return all totals, by token, feed and delivery."""
        return [
            msgspec.structs.replace(usage, unsettled=self._unsettled.get(usage.total_key, 0))
            for _, usage in sorted(self._usage.items())
            if not usage.month
        ]

    def months(self, month: str, *, token: str = "", grant: str = "") -> list[Usage]:
        """Return the counts of a month, by token, feed, delivery and grant; optionally of one token or grant."""
        rows = [usage for usage in self._usage.values() if usage.month == month]
        selected = [row for row in rows if token in {"", row.token} and grant in {"", row.grant}]
        return sorted(selected, key=lambda row: row.key)

    def used(self, grant: str) -> int:
        """Return the records that a grant has used this month, including unsettled ones."""
        return self._used.get((month_of(self._clock.now()), grant), 0)

    async def run(self) -> None:
        """Write changed counts periodically, until cancelled."""
        waited_s = prune_at = 0.0
        while True:
            await self._clock.sleep(min(FLUSH_SOON_S, self._flush_s))
            if (now := self._clock.monotonic()) >= prune_at:
                prune_at = now + PRUNE_INTERVAL_S
                try:
                    await self.prune()
                except (Unavailable, StoreFull) as why:
                    _log.warning("old counts not deleted; retried later", reason=str(why))
            waited_s += FLUSH_SOON_S
            # Few changed rows are written every second, which keeps little unsettled; many at the longer interval.
            due = len(self._due_keys())
            if not due or (waited_s < self._flush_s and due > FLUSH_SOON_ROWS):
                continue
            waited_s = 0.0
            try:
                await self.flush()
            except (Unavailable, StoreFull) as why:
                _log.warning("counts not written; retried later", reason=str(why))

    def _due_keys(self) -> set[tuple[str, ...]]:
        """Return the keys of changed rows, and of idle rows that still have a reservation."""
        idle = {
            key
            for key, ahead in self._reserved.items()
            if not self._unwritten.get(key) and ahead > self._records(key) + self._in_flight.get(key, 0)
        }
        return self._changed | idle

    async def flush(self, *, last: bool = False) -> None:
        """Write the rows that have changed. Raises `Unavailable`; unwritten rows stay due.

        `last`: deliveries have ended, so nothing is reserved.
        """
        due: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        for key in sorted(self._due_keys() | (set(self._reserved) if last else set())):
            usage = self._usage.get(key)
            total_key = usage.total_key if usage else key[2:5]
            rows = due.setdefault(total_key, {})
            if usage is None or usage.month:
                since = self._unwritten.get(key, 0)
                rows[key] = max(2 * since, self._recent_spare(key)) if since >= BUSY_RECORDS and not last else 0
        for total_key, rows in due.items():
            await self._write(total_key, rows)

    async def _write(self, total_key: tuple[str, ...], spares: Mapping[tuple[str, ...], int]) -> None:
        """Write the row of a total, then those of months, each with a spare reserved.

        All rows are of one moment, and the total is written before its parts: after a crash none is too low.
        """
        async with self._locks[total_key]:
            rows: list[Usage] = [self._usage[total_key]] if total_key in self._usage else []
            unwritten_records = {key: self._unwritten.pop(key, 0) for key in spares}
            for key, spare in spares.items():
                usage = self._usage.get(key) or _empty_month_row(key)
                going = self._in_flight.get(key, 0)
                left = self._quota_left(usage.grant) if usage.grant else None
                more = going + (spare if left is None else min(spare, left // QUOTA_DIVISOR))
                usage = msgspec.structs.replace(usage, reserved=usage.records + more if more else 0)
                # A delivery that starts meanwhile must not rely on a bound that is about to be lowered.
                self._reserved[key] = min(self._reserved.get(key, 0), usage.reserved)
                rows.append(usage)
            self._changed -= {row.key for row in rows}
            unwritten = dict.fromkeys(row.key for row in rows)
            try:
                for row in rows:
                    await self._bucket.put("/".join(row.key), msgspec.json.encode(row))
                    del unwritten[row.key]
                    if row.month:
                        self._reserved[row.key] = row.reserved
            finally:
                self._changed |= unwritten.keys()
                for key in unwritten.keys() & unwritten_records.keys():
                    self._unwritten[key] += unwritten_records[key]
            for key in [key for key in spares if not self._reserved.get(key) and not self._in_flight.get(key)]:
                self._reserved.pop(key, None)
                self._in_flight.pop(key, None)
                self._last_reservations.pop(key, None)

    async def prune(self) -> int:
        """Delete the counts of months before the retention period; return how many rows. Raises `Unavailable`."""
        if not self._retention_us:
            return 0
        oldest = month_of(self._clock.now() - self._retention_us)
        expired = [key for key, usage in self._usage.items() if usage.month and usage.month < oldest]
        for key in expired:
            await self._bucket.delete("/".join(key))
            usage = self._usage.pop(key)
            self._changed.discard(key)
            self._used.pop((usage.month, usage.grant), None)
        return len(expired)


def _empty_month_row(key: tuple[str, ...]) -> Usage:
    """Return the empty row of a month."""
    _, month, token, feed, delivery, grant = key
    return Usage(token, feed, delivery, month=month, grant=grant)
