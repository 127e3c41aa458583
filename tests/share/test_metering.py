"""Metering: counts by token, feed and delivery, kept over restarts."""

from __future__ import annotations

from sensegate.authority.bucket import MemoryBucket
from sensegate.clock import FakeClock
from sensegate.share.metering import Metering, Usage
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
