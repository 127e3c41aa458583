"""Metering: counts by token, feed and delivery, kept over restarts."""

from __future__ import annotations

from sensegate.authority.bucket import MemoryBucket
from sensegate.clock import FakeClock
from sensegate.share.metering import Metering, Usage
from sensegate.share.quota import month_of
from tests.share.made import NOW


async def test_counts_add_up_and_last(clock: FakeClock) -> None:
    """Each delivery apart; written at the flush; another life goes on from there."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    made.count("t", "all", "json", requests=1, records=5, size=100)
    made.count("t", "all", "json", requests=1, records=0, size=20)
    made.count("t", "all", "sse", requests=1, size=0)
    await made.flush()
    again = Metering(bucket, clock)
    await again.open()
    again.count("t", "all", "json", records=1, size=1)
    assert again.rows() == [Usage("t", "all", "json", 2, 6, 121, NOW), Usage("t", "all", "sse", 1, 0, 0, NOW)]
    assert len((await bucket.load_all())[0]) == 4


async def test_months_that_are_over_long_ago_go(clock: FakeClock) -> None:
    """From memory and from the bucket; what was counted since counting began stays, and the month that is kept."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock, kept_days=40)
    made.count("t", "all", "json", records=5, size=100, grant="g")
    await made.flush()
    first = month_of(NOW)
    await clock.advance(40 * 86_400)
    assert await made.prune() == 0, "negative control: that month is not yet over for so long"
    assert len(made.months(first)) == 1
    await clock.advance(40 * 86_400)
    assert await Metering(bucket, clock).prune() == 0, "negative control: without a span all stays"
    assert await made.prune() == 1
    assert made.months(first) == []
    again = Metering(bucket, clock)
    await again.open()
    assert (again.months(first), [row.records for row in again.rows()]) == ([], [5])
