"""Deliveries of all sources as one, in batches that follow the load; what is taken and not yet committed is bounded.

Idle, a delivery goes on at once; under load a batch waits until it is full or the interval since the last one has
passed, so that a commit's fixed cost is shared by many messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.config import IngestConfig
from sensegate.errors import Unavailable
from sensegate.model import Delivery, Position
from sensegate.ports import Source


class Intake:
    """The started sources of one life of the ingest; leaving it stops them."""

    def __init__(self, sources: Sequence[Source], limits: IngestConfig, clock: Clock) -> None:
        self._sources = sources
        self._limits = limits
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._waiting_messages = 0
        self._taken_messages = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._full = asyncio.Event()
        self._last_batch = float("-inf")
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self, positions: Mapping[str, Position]) -> None:
        """Start each source after its committed position."""
        for source in self._sources:
            await source.start(positions.get(source.name))
            self._pumps.append(asyncio.create_task(self._pump(source), name=f"collect {source.name}"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for source in self._sources:
            await source.stop()

    async def _pump(self, source: Source) -> None:
        async for delivery in source.deliveries():
            if not self._room.is_set():
                metrics.LIMIT_HITS.labels("depth_messages_max").inc()
                await self._room.wait()
            self._waiting.append(delivery)
            self._waiting_messages += len(delivery.messages)
            self._arrived.set()
            self._set_depth()
            if self._waiting_messages >= self._limits.commit_messages_max:
                self._full.set()

    def _set_depth(self) -> None:
        depth = self._waiting_messages + self._taken_messages
        metrics.DEPTH.set(depth)
        if depth >= self._limits.depth_messages_max:
            self._room.clear()
        else:
            self._room.set()

    async def batch(self, commit: asyncio.Task[None] | None = None) -> list[Delivery]:
        """Return the next deliveries, at least one; raises the error of a source or of the `commit` under way."""
        await self._until(self._arrived, commit)
        rest = self._limits.commit_interval_ms / 1e3 - (self._clock.monotonic() - self._last_batch)
        if rest > 0 and not self._full.is_set():
            await self._until(self._full, commit, rest)
        self._last_batch = self._clock.monotonic()
        batch: list[Delivery] = []
        count = 0
        most = self._limits.commit_messages_max
        while self._waiting and (not batch or count + len(self._waiting[0].messages) <= most):
            delivery = self._waiting.popleft()
            batch.append(delivery)
            count += len(delivery.messages)
        self._waiting_messages -= count
        self._taken_messages += count
        if not self._waiting:
            self._arrived.clear()
        if self._waiting_messages < self._limits.commit_messages_max:
            self._full.clear()
        return batch

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        """Say that deliveries were committed and acknowledged: their room is free again."""
        self._taken_messages -= sum(len(delivery.messages) for delivery in deliveries)
        self._set_depth()

    async def _until(
        self, event: asyncio.Event, commit: asyncio.Task[None] | None, timeout_s: float | None = None
    ) -> None:
        """Wait for an event; what ended a source or failed a commit meanwhile is raised, so that it is begun anew."""
        wait = asyncio.ensure_future(event.wait())
        watched: set[asyncio.Future[Any]] = {wait, *self._pumps}
        if commit is not None:
            watched.add(commit)
        began = self._clock.monotonic()
        try:
            while not event.is_set():
                left_s = None if timeout_s is None else max(timeout_s - (self._clock.monotonic() - began), 0)
                done, _ = await asyncio.wait(watched, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return
                if commit is not None and commit in done:
                    await commit
                    watched.discard(commit)
                for pump in self._pumps:
                    if pump in done:
                        raise pump.exception() or Unavailable(f"{pump.get_name()} ended; it is started again")
        finally:
            wait.cancel()
