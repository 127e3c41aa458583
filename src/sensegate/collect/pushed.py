"""The base of sources whose senders wait for the commit: HTTP requests and connections of listeners."""

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


class PushSource:
    """A source of messages from `put`, which returns a future that is done when the message was acknowledged.

    After a restart of the ingest, unacknowledged messages are redelivered. A sender that stops waiting cancels its
    future; its message is processed nevertheless, because it may be committed already.
    """

    def __init__(self, name: str, limits: IngestConfig, clock: Clock) -> None:
        self.name = name
        self._limits = limits
        self._clock = clock
        self._sequence = 0
        self._waiting: deque[_Waiting] = deque()
        self._delivered: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._generation = 0

    @property
    def full(self) -> bool:
        """Return whether the limit of uncommitted messages is reached."""
        return len(self._waiting) + len(self._delivered) >= self._limits.depth_messages_max

    async def wait_for_room(self) -> None:
        """Wait until the source is no longer full."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def put(self, topic: str, payload: bytes, principal: str = "", *, redacted: bool = False) -> asyncio.Future[None]:
        """Take a message; the future is done when it is committed. `redacted` is `Message.cut`."""
        self._sequence += 1
        message = Message(topic, payload, self._clock.now(), self._sequence, principal=principal, cut=redacted)
        waiting = _Waiting(message, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return waiting.committed

    async def start(self, committed: SourcePosition | None) -> None:  # noqa: ARG002 - pushed messages have no position
        self._generation += 1
        self._waiting.extendleft(reversed(self._delivered))
        self._delivered.clear()
        if self._waiting:
            self._arrived.set()

    async def stop(self) -> None:
        self._generation += 1
        self._arrived.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while True:
            await self._arrived.wait()
            if era != self._generation:
                return
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._limits.commit_messages_max:
                batch.append(self._waiting.popleft())
            if not self._waiting:
                self._arrived.clear()
            if batch:
                self._delivered.extend(batch)
                last = batch[-1].message.sequence
                yield Delivery(
                    self.name, [delivery.message for delivery in batch], partial(self._acknowledge, era, last)
                )

    async def _acknowledge(self, era: int, last: int) -> None:
        if era != self._generation:
            return
        while self._delivered and self._delivered[0].message.sequence <= last:
            waiting = self._delivered.popleft()
            if not waiting.committed.done():
                waiting.committed.set_result(None)
        if not self.full:
            self._room.set()
