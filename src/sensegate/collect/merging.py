"""Merging of the deliveries of all sources into batches, with a bound on uncommitted messages.

Without load a delivery is passed on at once; under load a batch waits until it is full or an interval has passed, so
that many messages share the fixed cost of a commit. The interval grows with the share of time that commits take:
latency counts while that is small, cost when it is great. While the delivery of earlier commits is behind, a batch
that is not full waits longer: it would take processor time from the delivery, and a larger one costs less.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.contract import Source
from sensegate.config import IngestConfig
from sensegate.errors import Unavailable
from sensegate.model import Delivery, SourcePosition

_EASY, _BUSY = 0.4, 0.9
"""Load up to which the interval is the shortest, and from which it is the longest."""
_BEHIND_INTERVALS = 4
"""A batch waits for delivery that is behind for at most so many of the longest intervals.

They begin when it could be taken: the commit before it may have taken longer, and delivery needs time after that.
"""
_BEHIND_POLL_S = 0.001
_SMOOTHING = 0.2
"""Weight of the newest batch in the load."""


class MergedSources:
    """The started sources of one run of the ingest; leaving the context stops them."""

    def __init__(self, sources: Sequence[Source], limits: IngestConfig, clock: Clock) -> None:
        self._sources = sources
        self._limits = limits
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._waiting_messages = 0
        self._taken_messages = 0
        self._room = asyncio.Event()
        self._room.set()
        self._waiter: asyncio.Future[bool] | None = None
        """Ends the present wait for a batch. One future: to wait for many of them costs more than a small batch."""
        self._last_batch = float("-inf")
        self._load = 0.0
        """Share of time that batches take from here to the next, smoothed."""
        self._asked = 0.0
        """Time when the present batch was requested."""
        self._waited_s = 0.0
        """Time for which the last batch was awaited."""
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, positions: Mapping[str, SourcePosition]) -> None:
        """Start each source after its committed position."""
        for source in self._sources:
            await source.start(positions.get(source.name))
            reader = asyncio.create_task(self._read(source), name=f"collect {source.name}")
            reader.add_done_callback(self._wake)
            self._readers.append(reader)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for source in self._sources:
            await source.stop()

    async def _read(self, source: Source) -> None:
        async for delivery in source.deliveries():
            if not self._room.is_set():
                metrics.LIMIT_HITS.labels("depth_messages_max").inc()
                await self._room.wait()
            self._waiting.append(delivery)
            self._waiting_messages += len(delivery.messages)
            self._set_depth()
            self._wake()

    def _has_arrived(self) -> bool:
        return bool(self._waiting)

    def _is_full(self) -> bool:
        return self._waiting_messages >= self._limits.commit_messages_max

    def _set_depth(self) -> None:
        depth = self._waiting_messages + self._taken_messages
        metrics.DEPTH.set(depth)
        if depth >= self._limits.depth_messages_max:
            self._room.clear()
        else:
            self._room.set()

    async def batch(
        self, commit: asyncio.Task[None] | None = None, *, is_behind: Callable[[], bool] = lambda: False
    ) -> list[Delivery]:
        """Return the next deliveries, at least one; raises the error of a source or of the running `commit`.

        `is_behind`: returns whether the delivery of earlier commits is behind.
        """
        self._measure_load()
        if commit is not None:
            commit.add_done_callback(self._wake)
        await self._until(self._has_arrived, commit)
        remaining_s = self._interval_s() - (self._clock.monotonic() - self._last_batch)
        if remaining_s > 0 and not self._is_full():
            await self._until(self._is_full, commit, remaining_s)
        until = self._clock.monotonic() + _BEHIND_INTERVALS * self._limits.commit_interval_ms / 1e3
        while not self._is_full() and self._clock.monotonic() < until and is_behind():
            await self._until(self._is_full, commit, _BEHIND_POLL_S)
        asked, self._last_batch = self._asked, self._clock.monotonic()
        self._waited_s = self._last_batch - asked
        batch: list[Delivery] = []
        count = 0
        limit = self._limits.commit_messages_max
        while self._waiting and (not batch or count + len(self._waiting[0].messages) <= limit):
            delivery = self._waiting.popleft()
            batch.append(delivery)
            count += len(delivery.messages)
        self._waiting_messages -= count
        self._taken_messages += count
        return batch

    def _measure_load(self) -> None:
        """Take the time since the last batch was returned as the time that it took."""
        now = self._clock.monotonic()
        if now > self._last_batch > float("-inf"):
            took = now - self._last_batch
            share = took / (took + self._waited_s)
            self._load += _SMOOTHING * (share - self._load)
        self._asked = now

    def _interval_s(self) -> float:
        """Return the time that a batch is to be after the one before, by the load."""
        longest = self._limits.commit_interval_ms
        shortest = min(self._limits.commit_interval_min_ms, longest)
        busy = min(max((self._load - _EASY) / (_BUSY - _EASY), 0.0), 1.0)
        return (shortest + (longest - shortest) * busy) / 1e3

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release the room of deliveries that were committed and acknowledged."""
        self._taken_messages -= sum(len(delivery.messages) for delivery in deliveries)
        self._set_depth()

    async def _until(
        self, is_met: Callable[[], bool], commit: asyncio.Task[None] | None, timeout_s: float | None = None
    ) -> None:
        """Wait until a condition is met or the time is over; raise the error of a source or commit that fails."""
        started = self._clock.monotonic()
        while not is_met():
            if commit is not None and commit.done():
                await commit
            for reader in self._readers:
                if reader.done():
                    raise reader.exception() or Unavailable(f"{reader.get_name()} ended; it is restarted")
            remaining_s = None if timeout_s is None else max(timeout_s - (self._clock.monotonic() - started), 0)
            if not await self._wait_for_wake(remaining_s):
                return

    async def _wait_for_wake(self, timeout_s: float | None) -> bool:
        """Wait for `_wake`; return whether it was called in time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = None if timeout_s is None else loop.call_later(timeout_s, _end, waiter, False)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self, _ended: asyncio.Task[None] | None = None) -> None:
        """Wake the wait for a batch: a delivery has arrived, or a source or the commit has ended."""
        if self._waiter is not None:
            _end(self._waiter, True)


def _end(waiter: asyncio.Future[bool], result: bool) -> None:  # noqa: FBT001 - called by a timer
    if not waiter.done():
        waiter.set_result(result)
