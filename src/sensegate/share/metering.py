"""Who received how much: counts per token, feed and delivery, kept over restarts in a bucket.

What goes is covered before it goes: the row in the bucket names, beside what was counted, how far it may have been
counted by now (`ahead`). A gateway that is killed finds there what may have gone and was not counted (`unsettled`), and
a quota counts it as used. An orderly end leaves nothing of it.
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
from sensegate.clock import DAY_US, Clock
from sensegate.errors import StoreFull, Unavailable
from sensegate.share.quota import month_of

SOON_S, SOON_ROWS = 1.0, 64
SPARE = 20
"""So many records more are covered than are about to go, where nothing is known of what follows."""
BUSY = 3
"""A row that counted so many since it was written is covered ahead when it is written: it goes on without waiting."""
QUOTA_PART = 20
"""No more is covered ahead than this part of what is left of a month's volume: a crash must not use it up."""
PATIENCE_S, AGAIN_S = 5.0, 0.1
"""So long a delivery waits for the bucket."""
PRUNE_S = 3_600.0

_log = structlog.get_logger(__name__)


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
    unsettled: int = 0
    """So many records more may have gone: the gateway was killed while it delivered."""
    ahead: int = 0
    """In the bucket: up to so many records may have gone since it was written; 0: no more than it says."""

    @property
    def line(self) -> tuple[str, str, str]:
        """What the row since counting began is of."""
        return self.token, self.feed, self.delivery

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


class _Covered(msgspec.Struct, frozen=True):
    """When a row was covered because somebody waited, and for how many records more."""

    at: float
    spare: int


class Cover:
    """Holds that some records may be counted, while they go; made by `Metering.covered`."""

    __slots__ = ("_metering", "_records", "_row")

    def __init__(self, metering: Metering, row: Usage, records: int) -> None:
        self._metering = metering
        self._row = row
        self._records = records

    async def __aenter__(self) -> None:
        if self._records:
            await self._metering.hold(self._row, self._records)

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._records:
            self._metering.let_go(self._row, self._records)


class Metering:
    """Counts in memory, written to the bucket every `flush_s`, few of them every second."""

    def __init__(self, bucket: Bucket, clock: Clock, *, flush_s: float = 5.0, kept_days: float = 0.0) -> None:
        """`kept_days`: counts of months that were over before go; 0: they stay."""
        self._bucket = bucket
        self._clock = clock
        self._flush_s = flush_s
        self._kept_us = round(kept_days * DAY_US)
        self._usage: dict[tuple[str, ...], Usage] = {}
        self._changed: set[tuple[str, ...]] = set()
        self._granted: dict[tuple[str, str], int] = {}
        """(month, grant) -> records, with those that may have gone."""
        self._going: dict[tuple[str, ...], int] = defaultdict(int)
        """Key of a month's row -> records that go now and are not counted yet."""
        self._ahead: dict[tuple[str, ...], int] = {}
        """The same -> up to how many the bucket covers."""
        self._since: dict[tuple[str, ...], int] = defaultdict(int)
        """The same -> records counted since it was written."""
        self._covered: dict[tuple[str, ...], _Covered] = {}
        """The same -> the last write that had to be waited for."""
        self._writing: dict[tuple[str, ...], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unsettled: dict[tuple[str, str, str], int] = defaultdict(int)
        """Line -> records of all months that may have gone."""
        self.left: Callable[[str], int | None] = lambda _grant: None
        """Grant -> what is left of its month's volume; None: no limit."""

    async def open(self) -> None:
        """Load the counts of earlier lives; what one that was killed had covered and not counted is unsettled."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.value is not None:
                usage = msgspec.json.decode(row.value, type=Usage, strict=False)
                if usage.ahead:
                    lost = max(0, usage.ahead - usage.records)
                    usage = msgspec.structs.replace(usage, ahead=0, unsettled=usage.unsettled + lost)
                    self._changed.add(usage.key)
                    _log.warning("deliveries may have gone uncounted", token=usage.token, feed=usage.feed, records=lost)
                self._usage[usage.key] = usage
                if usage.month:
                    self._unsettled[usage.line] += usage.unsettled
                if usage.grant:
                    known = self._granted.get((usage.month, usage.grant), 0)
                    self._granted[usage.month, usage.grant] = known + usage.records + usage.unsettled
        for line in [line for line, lost in self._unsettled.items() if lost]:
            self._usage.setdefault(line, Usage(*line))

    # ── before it goes ──────────────────────────────────────────────────────────────────────────────

    def covered(self, token_id: str, feed: str, delivery: str, records: int, *, grant: str = "") -> Cover:
        """Return what holds, ``async with``, that so many records are about to go and then counted.

        Entering it raises `Unavailable` where the bucket does not answer for long: then nothing may go.
        """
        month = month_of(self._clock.now())
        return Cover(self, Usage(token_id, feed, delivery, month=month, grant=grant), records)

    async def hold(self, row: Usage, records: int) -> None:
        """Return once the bucket covers so many records more."""
        key = row.key
        self._going[key] += records
        held = False
        try:
            await self._cover(row.line, key)
            held = True
        finally:
            if not held:
                self._going[key] -= records

    async def _cover(self, line: tuple[str, ...], key: tuple[str, ...]) -> None:
        until = self._clock.monotonic() + PATIENCE_S
        while self._counted(key) + self._going[key] > self._ahead.get(key, 0):
            try:
                await self._write(line, {key: self._waited(key)})
            except StoreFull as why:
                # To deliver is worth more than to know how much a crash would forget.
                _log.warning("no room to cover deliveries", cause=str(why))
                metrics.LIMITED.labels("usage_full").inc()
                return
            except Unavailable:
                if self._clock.monotonic() >= until:
                    raise
                await self._clock.sleep(AGAIN_S)

    def _waited(self, key: tuple[str, ...]) -> int:
        """Note that somebody waits; return how many more to cover: twice as many each time within a second."""
        spare = max(SPARE, self._since[key], 2 * self._recent(key))
        self._covered[key] = _Covered(self._clock.monotonic(), spare)
        return spare

    def _recent(self, key: tuple[str, ...]) -> int:
        """Return for how many records more a row was covered for one who waited within the last second."""
        before = self._covered.get(key)
        return before.spare if before is not None and self._clock.monotonic() - before.at < SOON_S else 0

    def let_go(self, row: Usage, records: int) -> None:
        """Say that they have gone, or will not."""
        self._going[row.key] -= records

    def _counted(self, key: tuple[str, ...]) -> int:
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
        """Add what was handed to the network, to the total and to the month."""
        now = self._clock.now()
        total = Usage(token_id, feed, delivery)
        for row in (total, msgspec.structs.replace(total, month=month_of(now), grant=grant)):
            known = self._usage.get(row.key) or row
            self._usage[row.key] = known.plus(requests, records, size, now)
            self._changed.add(row.key)
        self._since[row.key] += records
        if grant:
            month = month_of(now)
            self._granted[month, grant] = self._granted.get((month, grant), 0) + records
        # Metrics are open to whoever scrapes: the names of feeds stay out of them.
        metrics.DELIVERED.labels(feed if feed == "all" else "named", delivery).inc(records)

    def rows(self) -> list[Usage]:
        """Return all counts since counting began, by token, feed and delivery."""
        return [
            msgspec.structs.replace(usage, unsettled=self._unsettled.get(usage.line, 0))
            for _, usage in sorted(self._usage.items())
            if not usage.month
        ]

    def months(self, month: str, *, token: str = "", grant: str = "") -> list[Usage]:
        """Return the counts of a month, by token, feed, delivery and grant, of one token or grant if asked."""
        found = [usage for usage in self._usage.values() if usage.month == month]
        kept = [one for one in found if token in {"", one.token} and grant in {"", one.grant}]
        return sorted(kept, key=lambda one: one.key)

    def used(self, grant: str) -> int:
        """Return the records that a grant has received this month, or may have."""
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
                except (Unavailable, StoreFull) as why:
                    _log.warning("old counts are removed later", cause=str(why))
            waited_s += SOON_S
            # A few are written at once: little is unsettled then. Many subscribers would cost their gateway dear.
            due = len(self._due())
            if not due or (waited_s < self._flush_s and due > SOON_ROWS):
                continue
            waited_s = 0.0
            try:
                await self.flush()
            except (Unavailable, StoreFull) as why:
                _log.warning("metering is written later", cause=str(why))

    def _due(self) -> set[tuple[str, ...]]:
        """Return what has changed, and what is covered although it does not change any more."""
        idle = {
            key
            for key, ahead in self._ahead.items()
            if not self._since.get(key) and ahead > self._counted(key) + self._going.get(key, 0)
        }
        return self._changed | idle

    async def flush(self, *, last: bool = False) -> None:
        """Write what has changed since the last time. Raises `Unavailable`; what was not written stays marked.

        `last`: nothing goes any more, so nothing is covered.
        """
        due: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        for key in sorted(self._due() | (set(self._ahead) if last else set())):
            usage = self._usage.get(key)
            line = usage.line if usage else key[2:5]
            rows = due.setdefault(line, {})
            if usage is None or usage.month:
                since = self._since.get(key, 0)
                rows[key] = max(2 * since, self._recent(key)) if since >= BUSY and not last else 0
        for line, rows in due.items():
            await self._write(line, rows)

    async def _write(self, line: tuple[str, ...], spares: Mapping[tuple[str, ...], int]) -> None:
        """Write the row of a line, then those of months, each covered for so many records more.

        All as of one moment, the whole before its parts: whatever of it a crash leaves, none says less than went.
        """
        async with self._writing[line]:
            rows: list[Usage] = [self._usage[line]] if line in self._usage else []
            taken = {key: self._since.pop(key, 0) for key in spares}
            for key, spare in spares.items():
                usage = self._usage.get(key) or _of_month(key)
                going = self._going.get(key, 0)
                left = self.left(usage.grant) if usage.grant else None
                more = going + (spare if left is None else min(spare, left // QUOTA_PART))
                usage = msgspec.structs.replace(usage, ahead=usage.records + more if more else 0)
                # Whoever comes meanwhile must not trust what is about to be lowered.
                self._ahead[key] = min(self._ahead.get(key, 0), usage.ahead)
                rows.append(usage)
            self._changed -= {row.key for row in rows}
            unwritten = dict.fromkeys(row.key for row in rows)
            try:
                for row in rows:
                    await self._bucket.put("/".join(row.key), msgspec.json.encode(row))
                    del unwritten[row.key]
                    if row.month:
                        self._ahead[row.key] = row.ahead
            finally:
                self._changed |= unwritten.keys()
                for key in unwritten.keys() & taken.keys():
                    self._since[key] += taken[key]
            for key in [key for key in spares if not self._ahead.get(key) and not self._going.get(key)]:
                self._ahead.pop(key, None)
                self._going.pop(key, None)
                self._covered.pop(key, None)

    async def prune(self) -> int:
        """Remove the counts of months that were over long ago; return how many rows. Raises `Unavailable`."""
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


def _of_month(key: tuple[str, ...]) -> Usage:
    """Return the row of a month of which nothing is counted yet."""
    _, month, token, feed, delivery, grant = key
    return Usage(token, feed, delivery, month=month, grant=grant)
