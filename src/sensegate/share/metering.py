"""Who received how much: counts per token, feed and delivery, kept over restarts in a bucket."""

from __future__ import annotations

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.clock import Clock
from sensegate.errors import Lost

log = structlog.get_logger(__name__)


class Usage(msgspec.Struct, frozen=True):
    """What one token received of one feed by one delivery, since it was first seen."""

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
    """Counts in memory, written to the bucket every `flush_s`; a crash forgets at most that much."""

    def __init__(self, bucket: Bucket, clock: Clock, *, flush_s: float = 5.0) -> None:
        self._bucket = bucket
        self._clock = clock
        self._flush_s = flush_s
        self._usage: dict[tuple[str, str, str], Usage] = {}
        self._changed: set[tuple[str, str, str]] = set()

    async def open(self) -> None:
        """Load the counts of earlier lives."""
        rows, _ = await self._bucket.load_all()
        for row in rows:
            if row.value is not None:
                usage = msgspec.json.decode(row.value, type=Usage, strict=False)
                self._usage[usage.token, usage.feed, usage.delivery] = usage

    def count(self, token_id: str, feed: str, delivery: str, *, requests: int = 0, records: int = 0, size: int) -> None:
        """Add what was handed to the network."""
        key = (token_id, feed, delivery)
        known = self._usage.get(key) or Usage(*key)
        self._usage[key] = known.plus(requests, records, size, self._clock.now())
        self._changed.add(key)
        # Metrics are open to whoever scrapes: the names of feeds stay out of them.
        metrics.DELIVERED.labels(feed if feed == "all" else "named", delivery).inc(records)

    def rows(self) -> list[Usage]:
        """Return all counts, by token, feed and delivery."""
        return [usage for _, usage in sorted(self._usage.items())]

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            await self._clock.sleep(self._flush_s)
            try:
                await self.flush()
            except Lost as why:
                log.warning("metering is written later", cause=str(why))

    async def flush(self) -> None:
        """Write what has changed since the last time. Raises `Lost`; what was not written stays marked."""
        for key in sorted(self._changed):
            await self._bucket.put("/".join(key), msgspec.json.encode(self._usage[key]))
            self._changed.discard(key)
