"""Who received how much: counts per token, feed and delivery, kept over restarts in a bucket."""

from __future__ import annotations

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.clock import Clock
from sensegate.errors import Lost, StoreFull
from sensegate.share.quota import month_of

SOON_S, SOON_ROWS = 1.0, 64
PRUNE_S = 3_600.0
_DAY_US = 86_400_000_000

log = structlog.get_logger(__name__)


class Usage(msgspec.Struct, frozen=True):
    """What one token received of one feed by one delivery, since it was first seen or within one month."""

    token: str
    feed: str
    delivery: str
    """``json``, ``ndjson``, ``csv``, ``msgpack`` or ``sse``."""
    requests: int = 0
    """Answers with or without records; for a stream, connections."""
    records: int = 0
    bytes: int = 0
    last: int = 0
    """µs UTC of the last one."""
    month: str = ""
    """Of Beijing time, ``2026-01``; empty: since counting began."""
    grant: str = ""
    """Grant by which it was received; empty: by the token's own scope, or since counting began."""

    @property
    def key(self) -> tuple[str, ...]:
        """What one row of counts is of."""
        whole = (self.token, self.feed, self.delivery)
        return ("month", self.month, *whole, self.grant) if self.month else whole

    def plus(self, requests: int, records: int, size: int, now: int) -> Usage:
        """Return the sum."""
        return msgspec.structs.replace(
            self,
            requests=self.requests + requests,
            records=self.records + records,
            bytes=self.bytes + size,
            last=max(self.last, now),
        )


class Metering:
    """Counts in memory, written to the bucket every `flush_s`, few of them every second; a crash forgets that much."""

    def __init__(self, bucket: Bucket, clock: Clock, *, flush_s: float = 5.0, kept_days: float = 0.0) -> None:
        """`kept_days`: counts of months that were over before go; 0: they stay."""
        self._bucket = bucket
        self._clock = clock
        self._flush_s = flush_s
        self._kept_us = round(kept_days * _DAY_US)
        self._usage: dict[tuple[str, ...], Usage] = {}
        self._changed: set[tuple[str, ...]] = set()
        self._granted: dict[tuple[str, str], int] = {}
        """(month, grant) -> records."""

    async def open(self) -> None:
        """Load the counts of earlier lives."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.value is not None:
                usage = msgspec.json.decode(row.value, type=Usage, strict=False)
                self._usage[usage.key] = usage
                if usage.grant:
                    self._granted[usage.month, usage.grant] = (
                        self._granted.get((usage.month, usage.grant), 0) + usage.records
                    )

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
        """Add what was handed to the network, to the total and to the month."""
        now = self._clock.now()
        total = Usage(token_id, feed, delivery)
        for row in (total, msgspec.structs.replace(total, month=month_of(now), grant=grant)):
            known = self._usage.get(row.key) or row
            self._usage[row.key] = known.plus(requests, records, size, now)
            self._changed.add(row.key)
        if grant:
            month = month_of(now)
            self._granted[month, grant] = self._granted.get((month, grant), 0) + records
        # Metrics are open to whoever scrapes: the names of feeds stay out of them.
        metrics.DELIVERED.labels(feed if feed == "all" else "named", delivery).inc(records)

    def rows(self) -> list[Usage]:
        """Return all counts since counting began, by token, feed and delivery."""
        return [usage for _, usage in sorted(self._usage.items()) if not usage.month]

    def months(self, month: str, *, token: str = "", grant: str = "") -> list[Usage]:
        """Return the counts of a month, by token, feed, delivery and grant, of one token or grant if asked."""
        found = [usage for usage in self._usage.values() if usage.month == month]
        kept = [one for one in found if token in {"", one.token} and grant in {"", one.grant}]
        return sorted(kept, key=lambda one: one.key)

    def used(self, grant: str) -> int:
        """Return the records that a grant has received this month."""
        return self._granted.get((month_of(self._clock.now()), grant), 0)

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        waited_s = due = 0.0
        while True:
            await self._clock.sleep(min(SOON_S, self._flush_s))
            if (now := self._clock.monotonic()) >= due:
                due = now + PRUNE_S
                try:
                    await self.prune()
                except (Lost, StoreFull) as why:
                    log.warning("old counts are removed later", cause=str(why))
            waited_s += SOON_S
            # A few are written at once: a crash then forgets a second. Many subscribers would cost their gateway dear.
            if not self._changed or (waited_s < self._flush_s and len(self._changed) > SOON_ROWS):
                continue
            waited_s = 0.0
            try:
                await self.flush()
            except (Lost, StoreFull) as why:
                log.warning("metering is written later", cause=str(why))

    async def flush(self) -> None:
        """Write what has changed since the last time. Raises `Lost`; what was not written stays marked."""
        for key in sorted(self._changed):
            await self._bucket.put("/".join(key), msgspec.json.encode(self._usage[key]))
            self._changed.discard(key)

    async def prune(self) -> int:
        """Remove the counts of months that were over long ago; return how many rows. Raises `Lost`."""
        if not self._kept_us:
            return 0
        oldest = month_of(self._clock.now() - self._kept_us)
        gone = [key for key, usage in self._usage.items() if usage.month and usage.month < oldest]
        for key in gone:
            await self._bucket.delete("/".join(key))
            usage = self._usage.pop(key)
            self._changed.discard(key)
            self._granted.pop((usage.month, usage.grant), None)
        return len(gone)
