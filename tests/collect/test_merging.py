"""Rules of the intake: idle goes at once, loaded goes full, depth is bounded, an ended source is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sensegate.clock import FakeClock, SystemClock
from sensegate.collect.merging import MergedSources
from sensegate.config import IngestConfig
from sensegate.errors import Unavailable
from sensegate.model import Delivery, Message, SourcePosition

FOREVER_MS = 3_600_000


async def nothing() -> None:
    """Acknowledge nothing."""


def delivery(first: int, count: int) -> Delivery:
    """Return a delivery of numbered messages."""
    messages = [Message("t", b"", 0, first + n) for n in range(count)]
    return Delivery("fake", messages, nothing, SourcePosition("life", first + count - 1))


class Scripted:
    """A source that yields what it is given, then waits or ends."""

    name = "fake"

    def __init__(self, deliveries: list[Delivery], *, ends: bool = False) -> None:
        self._deliveries = deliveries
        self._ends = ends
        self.given = 0
        self.committed: SourcePosition | None = None

    async def start(self, committed: SourcePosition | None) -> None:
        self.committed = committed

    async def deliveries(self) -> AsyncIterator[Delivery]:
        for delivery in self._deliveries:
            yield delivery
            self.given += 1
        if not self._ends:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Hold nothing."""


async def started(source: Scripted, limits: IngestConfig) -> MergedSources:
    """Return a started intake over one source."""
    intake = MergedSources([source], limits, SystemClock())
    await intake.start({"fake": SourcePosition("life", 7)})
    return intake


async def test_idle_a_delivery_goes_at_once_and_starts_after_its_position() -> None:
    """The first batch does not wait for the interval."""
    source = Scripted([delivery(1, 1)])
    async with await started(source, IngestConfig(commit_interval_ms=FOREVER_MS)) as intake:
        batch = await asyncio.wait_for(intake.batch(), 30)
    assert [delivery.messages[0].sequence for delivery in batch] == [1]
    assert source.committed == SourcePosition("life", 7)


async def test_under_load_a_full_batch_does_not_wait_for_the_interval() -> None:
    """Within the interval a batch goes as soon as it is full, and no larger."""
    source = Scripted([delivery(1 + 10 * n, 10) for n in range(5)])
    limits = IngestConfig(commit_interval_ms=FOREVER_MS, commit_messages_max=20)
    async with await started(source, limits) as intake:
        sizes = [len(await asyncio.wait_for(intake.batch(), 30)) for _ in range(2)]
    assert sizes == [2, 2]


async def test_depth_is_bounded_until_settled() -> None:
    """Taken and not yet committed messages hold the source back; settling lets it go on."""
    source = Scripted([delivery(1 + 10 * n, 10) for n in range(9)])
    limits = IngestConfig(commit_interval_ms=0, commit_messages_max=10, depth_messages_max=30)
    async with await started(source, limits) as intake:
        first = await asyncio.wait_for(intake.batch(), 30)
        for _ in range(50):
            await asyncio.sleep(0)
        held = source.given
        intake.release(first)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (held, source.given) == (3, 4)


async def test_a_source_that_ends_is_noticed() -> None:
    """The end of a source ends the waiting, so that the wiring starts it again."""
    async with await started(Scripted([], ends=True), IngestConfig()) as intake:
        with pytest.raises(Unavailable, match="collect fake ended"):
            await asyncio.wait_for(intake.batch(), 30)


async def test_a_failed_commit_is_noticed_although_nothing_arrives() -> None:
    """Whoever waits for the next delivery hears that the last commit failed, before or while waiting."""
    async with await started(Scripted([]), IngestConfig()) as intake:
        going = asyncio.Event()

        async def commit() -> None:
            await going.wait()
            raise Unavailable("the log is away")

        written = asyncio.create_task(commit())
        waiting = asyncio.create_task(intake.batch(written))
        await asyncio.sleep(0)
        going.set()
        with pytest.raises(Unavailable, match="the log is away"):
            await asyncio.wait_for(waiting, 30)
        with pytest.raises(Unavailable, match="the log is away"):
            await asyncio.wait_for(intake.batch(written), 30)


async def test_a_commit_that_succeeds_does_not_end_the_waiting() -> None:
    """The end of a good commit is no delivery."""
    source = Scripted([delivery(1, 1)])
    limits = IngestConfig(commit_interval_ms=0)
    async with await started(source, limits) as intake:
        done = asyncio.create_task(nothing())
        await done
        assert len(await asyncio.wait_for(intake.batch(done), 30)) == 1


async def test_a_batch_that_is_not_full_waits_for_delivery_that_is_behind() -> None:
    """A batch is taken once the delivery has caught up, or after four of the longest intervals; the first at once."""
    answers = [True, True, True, False]
    limits = IngestConfig(commit_interval_ms=FOREVER_MS, commit_interval_min_ms=0, commit_messages_max=10)
    async with await started(Scripted([delivery(1, 10), delivery(11, 1)]), limits) as intake:
        await asyncio.wait_for(intake.batch(is_behind=lambda: True), 60)
        batch = await asyncio.wait_for(intake.batch(is_behind=lambda: answers.pop(0)), 30)
    assert (batch[0].messages[0].sequence, answers) == (11, [])
    limits = IngestConfig(commit_interval_ms=1)
    async with await started(Scripted([delivery(1, 1)]), limits) as intake:
        intake._last_batch = SystemClock().monotonic()
        assert await asyncio.wait_for(intake.batch(is_behind=lambda: True), 30)


async def test_a_full_batch_does_not_wait_for_delivery() -> None:
    """Delivery that is behind costs latency, never throughput."""
    limits = IngestConfig(commit_interval_ms=FOREVER_MS, commit_interval_min_ms=0, commit_messages_max=10)
    async with await started(Scripted([delivery(1, 10), delivery(11, 10)]), limits) as intake:
        for _ in range(2):
            assert await asyncio.wait_for(intake.batch(is_behind=lambda: True), 60)


async def test_the_interval_follows_the_share_of_time_that_batches_take() -> None:
    """Short while there is little load, the longest when batches take all the time, and short again afterwards."""
    clock = FakeClock()
    limits = IngestConfig(commit_interval_ms=50, commit_interval_min_ms=10)
    intake = MergedSources([], limits, clock)

    async def interval_ms(waited_s: float, took_s: float) -> float:
        for _ in range(30):
            intake._measure_load()
            await clock.advance(waited_s)
            intake._waited_s, intake._last_batch = waited_s, clock.monotonic()
            await clock.advance(took_s)
        intake._measure_load()
        return intake._interval_s() * 1e3

    assert await interval_ms(0.009, 0.001) == 10
    assert 10 < await interval_ms(0.004, 0.008) < 50
    assert await interval_ms(0.0, 0.1) == 50
    assert await interval_ms(0.05, 0.005) == 10
    assert MergedSources([], IngestConfig(commit_interval_ms=5), clock)._interval_s() == 0.005
