"""Messages whose senders wait for their commit: pushed by HTTP, or sent to one of our listeners."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

import msgspec

from sensegate.clock import Clock
from sensegate.config import IngestConfig
from sensegate.model import Delivery, Message, SourcePosition


class _Waiting(msgspec.Struct, eq=False):
    message: Message
    committed: asyncio.Future[None]


class Pushed:
    """A source that gives what `put` brings; the future that `put` returns is done when the message was acknowledged.

    What the ingest had not acknowledged when it was started again is given again. A sender that waits no longer
    cancels its future; its message goes its way, as it may be committed already.
    """

    def __init__(self, name: str, limits: IngestConfig, clock: Clock) -> None:
        self.name = name
        self._limits = limits
        self._clock = clock
        self._sequence = 0
        self._waiting: deque[_Waiting] = deque()
        self._given: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._era = 0

    @property
    def full(self) -> bool:
        """Whether so many wait for their commit that no more is taken."""
        return len(self._waiting) + len(self._given) >= self._limits.depth_messages_max

    async def room(self) -> None:
        """Return when more can be taken."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def put(self, topic: str, payload: bytes, principal: str = "", *, cut: bool = False) -> asyncio.Future[None]:
        """Take one message; the future is done when it is committed. `cut`: as in `Message`."""
        self._sequence += 1
        message = Message(topic, payload, self._clock.now(), self._sequence, principal=principal, cut=cut)
        one = _Waiting(message, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._arrived.set()
        return one.committed

    async def start(self, committed: SourcePosition | None) -> None:  # noqa: ARG002 - a push has no position
        self._era += 1
        self._waiting.extendleft(reversed(self._given))
        self._given.clear()
        if self._waiting:
            self._arrived.set()

    async def stop(self) -> None:
        self._era += 1
        self._arrived.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._era
        while True:
            await self._arrived.wait()
            if era != self._era:
                return
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._limits.commit_messages_max:
                batch.append(self._waiting.popleft())
            if not self._waiting:
                self._arrived.clear()
            if batch:
                self._given.extend(batch)
                last = batch[-1].message.sequence
                yield Delivery(
                    self.name, [delivery.message for delivery in batch], partial(self._acknowledge, era, last)
                )

    async def _acknowledge(self, era: int, last: int) -> None:
        if era != self._era:
            return
        while self._given and self._given[0].message.sequence <= last:
            one = self._given.popleft()
            if not one.committed.done():
                one.committed.set_result(None)
        if not self.full:
            self._room.set()
