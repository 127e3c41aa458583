"""Messages that devices push by HTTP: an awaitable intake, so that a 2xx follows the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

import msgspec

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.config import IngestConfig
from sensegate.errors import Lost, Overloaded, Rejected
from sensegate.model import Delivery, Message, Position

CONTENT_TYPES = ("application/json", "application/senml+json", "application/octet-stream", "text/plain")
PUSH_TIMEOUT_S = 25.0


class _Push(msgspec.Struct, eq=False):
    message: Message
    committed: asyncio.Future[None]


class HttpSource:
    """Gives what `push` brings; `push` returns once the delivery with its message was acknowledged.

    A push whose outcome is not known within `timeout_s` raises `Lost`: the device sends it again, and if the first
    was committed after all, the second is told as a duplicate. What the ingest had not acknowledged when it was
    started again is given again, while its caller still waits.
    """

    def __init__(
        self, limits: IngestConfig, clock: Clock, *, name: str = "http", timeout_s: float = PUSH_TIMEOUT_S
    ) -> None:
        self.name = name
        self._limits = limits
        self._clock = clock
        self._timeout_s = timeout_s
        self._sequence = 0
        self._waiting: deque[_Push] = deque()
        self._given: deque[_Push] = deque()
        self._arrived = asyncio.Event()
        self._era = 0

    async def push(self, device: str, body: bytes, content_type: str = CONTENT_TYPES[0]) -> None:
        """Take one message of `device` (its credential is checked already); return when it is committed.

        Raises:
            Rejected: the content type is not one that a profile can read, or the body is too large.
            Overloaded: too many wait already; nothing was taken.
            Lost: not committed in time; it may still be. Send it again.
        """
        if content_type.partition(";")[0].strip().lower() not in CONTENT_TYPES:
            raise Rejected("content_type", f"{content_type!r} is none of {', '.join(CONTENT_TYPES)}")
        if len(body) > self._limits.message_bytes_max:
            metrics.LIMITED.labels("message_bytes_max").inc()
            raise Rejected("too_large", f"{len(body)} bytes, at most {self._limits.message_bytes_max}")
        if len(self._waiting) + len(self._given) >= self._limits.depth_messages_max:
            metrics.LIMITED.labels("depth_messages_max").inc()
            raise Overloaded("too many pushed messages wait for their commit; try again")
        self._sequence += 1
        message = Message(f"http/{device}", body, self._clock.now(), self._sequence, principal=device)
        push = _Push(message, asyncio.get_running_loop().create_future())
        self._waiting.append(push)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                await push.committed
        except TimeoutError as why:
            raise Lost(f"not committed within {self._timeout_s:g} s, the outcome is unknown; send it again") from why

    async def start(self, committed: Position | None) -> None:  # noqa: ARG002 - a push has no position
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
            batch: list[_Push] = []
            while self._waiting and len(batch) < self._limits.commit_messages_max:
                batch.append(self._waiting.popleft())
            if not self._waiting:
                self._arrived.clear()
            if batch:
                self._given.extend(batch)
                last = batch[-1].message.sequence
                yield Delivery(self.name, [push.message for push in batch], partial(self._acknowledge, era, last))

    async def _acknowledge(self, era: int, last: int) -> None:
        if era != self._era:
            return
        while self._given and self._given[0].message.sequence <= last:
            push = self._given.popleft()
            if not push.committed.done():
                push.committed.set_result(None)
