"""Metering: counts by token, feed and delivery, kept over restarts."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.errors import StoreFull, Unavailable
from sensegate.share import sharing
from sensegate.share.metering import PRUNE_INTERVAL_S, RESERVE_TIMEOUT_S, SPARE_RECORDS, Metering, Usage
from sensegate.share.quota import month_of
from sensegate.share.reader import LogReader
from tests.share.made import NOW
from tests.support.memory_sharing import sharing_in_memory


async def test_counts_add_up_and_last(clock: FakeClock) -> None:
    """Each delivery apart; written at the flush; another life goes on from there."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    made.count("t", "all", "json", requests=1, records=5, size=100)
    made.count("t", "all", "json", requests=1, records=0, size=20)
    made.count("t", "all", "sse", requests=1, size=0)
    await made.flush(last=True)
    reopened = Metering(bucket, clock)
    await reopened.open()
    reopened.count("t", "all", "json", records=1, size=1)
    assert reopened.rows() == [Usage("t", "all", "json", 2, 6, 121, NOW), Usage("t", "all", "sse", 1, 0, 0, NOW)]
    assert len((await bucket.load_all())[0]) == 4


async def test_a_count_that_cannot_be_read_stops_no_start(clock: FakeClock) -> None:
    """It counts as absent, as any row of a registry; the others are there."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    for feed in ("all", "air"):
        made.count("t", feed, "json", requests=1, records=5, size=100)
    await made.flush(last=True)
    await bucket.put("t/all/json", b'{"token": ')
    reopened = Metering(bucket, clock)
    await reopened.open()
    assert [(row.feed, row.records) for row in reopened.rows()] == [("air", 5)]
    reopened.count("t", "all", "json", records=1, size=1)
    await reopened.flush(last=True)


async def test_months_that_are_over_long_ago_go(clock: FakeClock) -> None:
    """From memory and from the bucket; what was counted since counting began stays, and the month that is kept."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock, retention_days=40)
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
    reopened = Metering(bucket, clock)
    await reopened.open()
    assert (reopened.months(first), [row.records for row in reopened.rows()]) == ([], [5])


async def test_months_are_looked_through_every_hour(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not every second, with each look at what is to be written."""
    made, pruned = Metering(MemoryBucket(), clock, retention_days=40), []

    async def prune() -> int:
        pruned.append(clock.now())
        return 0

    monkeypatch.setattr(made, "prune", prune)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    await clock.advance(PRUNE_INTERVAL_S + 10)
    running.cancel()
    await asyncio.wait({running})
    assert len(pruned) == 2


async def test_a_stop_does_not_wait_for_a_store_that_does_not_answer(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts stay as after a crash."""

    async def silent(*, last: bool = False) -> None:
        del last
        await asyncio.Event().wait()

    monkeypatch.setattr(sharing, "CLOSE_S", 0.05)
    stage = sharing_in_memory(LogReader(MemoryLog(clock), clock), clock)
    monkeypatch.setattr(stage.metering, "flush", silent)
    async with asyncio.timeout(30):
        await stage.close()


# ── a gateway that is killed ────────────────────────────────────────────────────────────────────────────


async def deliver(made: Metering, records: int, *, grant: str = "g", counted: bool = True) -> None:
    """Let records go, as each delivery does; killed before it counts them, or not."""
    async with made.reserve("t", "all", "sse", records, grant=grant):
        if counted:
            made.count("t", "all", "sse", records=records, size=1, grant=grant)


async def after_kill(bucket: MemoryBucket, clock: FakeClock) -> Metering:
    """Return the metering of the next life: nothing but the bucket is left of the one before."""
    made = Metering(bucket, clock)
    await made.open()
    return made


def bounds(made: Metering) -> list[tuple[int, int]]:
    """Return (at least, at most) of the row since counting began and of that of the month."""
    rows = [*made.rows(), *made.months(month_of(NOW))]
    return [(row.records, row.records + row.unsettled) for row in rows]


class Counted(MemoryBucket):
    """Counts what is written."""

    puts = 0

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        self.puts += 1
        return await super().put(key, value, expected=expected)


async def test_one_who_goes_on_fast_waits_seldom(clock: FakeClock) -> None:
    """Within a second each cover is twice the one before: a thousand blocks take some ten writes, not a thousand."""
    bucket = Counted()
    made = Metering(bucket, clock)
    for _ in range(1_000):
        await deliver(made, 500)
    assert bucket.puts <= 2 * 16, "the row since counting began and that of the month"
    await clock.advance(2.0)
    bucket.puts = 0
    for _ in range(10):
        await clock.advance(2.0)
        await deliver(made, 500_000)
    assert bucket.puts >= 2, "negative control: what is not covered is written before it goes"


async def test_a_kill_forgets_nothing_that_went(clock: FakeClock) -> None:
    """What went since the last writing is between the two numbers, and the quota counts the greater."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    await deliver(made, 30)
    await made.flush()
    await deliver(made, 12)
    await deliver(made, 5, counted=False)
    restarted = await after_kill(bucket, clock)
    for least, most in bounds(restarted):
        assert least <= 42
        assert 47 <= most <= 30 + 2 * 30, "covered ahead for twice what went before the writing"
    assert restarted.used("g") == bounds(restarted)[1][1]
    # Once more, before anything was written: the same again, not twice.
    assert bounds(await after_kill(bucket, clock)) == bounds(restarted)
    await restarted.flush()
    assert bounds(await after_kill(bucket, clock)) == bounds(restarted)


async def test_an_orderly_end_is_exact(clock: FakeClock) -> None:
    """Negative control of the one before: nothing is unsettled."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    await deliver(made, 30)
    await made.flush()
    await deliver(made, 12)
    await made.flush(last=True)
    restarted = await after_kill(bucket, clock)
    assert (bounds(restarted), restarted.used("g")) == ([(42, 42), (42, 42)], 42)


async def test_what_is_quiet_is_settled(clock: FakeClock) -> None:
    """A busy row is covered ahead while it is busy; at the next writing after it is exact again, and stays so."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    await deliver(made, 1_000)
    await made.flush()
    assert bounds(await after_kill(bucket, clock))[1] == (1_000, 3_000)
    await made.flush()
    assert bounds(await after_kill(bucket, clock)) == [(1_000, 1_000)] * 2
    written = (await bucket.load_all())[1]
    await made.flush()
    assert (await bucket.load_all())[1] == written, "nothing changed: nothing is written"


async def test_a_planted_hole_is_found(clock: FakeClock) -> None:
    """Without the cover, what went after the last writing is forgotten: the tests above would see it."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock)
    made.count("t", "all", "sse", records=12, size=1, grant="g")
    assert bounds(await after_kill(bucket, clock)) == []


@pytest.mark.parametrize("seed", range(20))
async def test_whenever_it_is_killed(clock: FakeClock, seed: int) -> None:
    """Deliveries side by side, writings between them, killed at any write: never less than what went."""
    dice = random.Random(seed)
    bucket = Killed(dice.randrange(2, 40))
    made = Metering(bucket, clock)
    went = 0

    async def deliver(grant: str) -> None:
        nonlocal went
        for _ in range(20):
            count = dice.choice((1, 3, 30, 400))
            async with made.reserve("t", "all", "sse", count, grant=grant):
                await asyncio.sleep(0)
                went += count
                made.count("t", "all", "sse", records=count, size=1, grant=grant)
            if dice.random() < 0.2:
                await made.flush()

    ends = await asyncio.gather(*(deliver(grant) for grant in ("g", "g", "h")), return_exceptions=True)
    assert any(isinstance(end, Dead) for end in ends)
    restarted = await after_kill(bucket, clock)
    whole, *months = bounds(restarted)
    assert whole[1] >= went
    assert sum(most for _, most in months) >= went
    assert all(least <= went for least, _ in (whole, *months))
    assert restarted.used("g") + restarted.used("h") >= went


class Dead(Exception):
    """The process is no more."""


class Killed(MemoryBucket):
    """A bucket whose process is killed before its n-th write; the next life reads what there is."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        await asyncio.sleep(0)
        self.writes -= 1
        if self.writes <= 0:
            raise Dead
        return await super().put(key, value, expected=expected)


async def test_a_small_rest_of_a_quota_is_not_covered_ahead(clock: FakeClock) -> None:
    """A kill costs the subscriber what was going, not the rest of its month."""
    bucket = MemoryBucket()
    made = Metering(bucket, clock, quota_left={"g": 10, "h": 10_000}.get)
    for grant in ("g", "h"):
        await deliver(made, 3, grant=grant)
    restarted = await after_kill(bucket, clock)
    assert (restarted.used("g"), restarted.used("h")) == (3, 3 + SPARE_RECORDS)


async def test_nothing_goes_while_it_cannot_be_covered(clock: FakeClock) -> None:
    """The bucket does not answer: it is asked again for some seconds. Full: it goes, that is worth more."""

    class Away(MemoryBucket):
        why: type[Exception] = Unavailable

        async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
            raise self.why("away")

    bucket = Away()
    made = Metering(bucket, clock)
    task = asyncio.create_task(deliver(made, 3))
    await asyncio.sleep(0)
    for _ in range(round(RESERVE_TIMEOUT_S * 10) + 2):
        await clock.advance(0.1)
    with pytest.raises(Unavailable):
        await task
    bucket.why = StoreFull
    await deliver(made, 3)
    assert made.used("g") == 3


def test_rows_of_an_older_release_are_read() -> None:
    """And an older one reads ours: it leaves out what it does not know."""
    raw = b'{"token":"t","feed":"f","delivery":"sse","records":3}'
    assert msgspec.json.decode(raw, type=Usage, strict=False).unsettled == 0
