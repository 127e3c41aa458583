"""Batches of messages of all connections: sealed, numbered, stored in order, and acknowledged in order.

    reads ─▶ open batch ─▶ sealed, numbered ─▶ at most `IN_FLIGHT` sent ─▶ stored ─▶ acknowledgements of its devices

At most one batch is sent in each gap, an idle front sends at once. The gap is longer under load, so that more messages
share a batch: each costs the store, its consumer and the committer some hundred microseconds. When the store refuses a
batch or does not answer, one timer sends everything that is not stored again, oldest first and one at a time, until
nothing is left behind: no newer batch passes an older one by being sent again. Acknowledgements leave in the order of
the batches.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

import structlog

from sensegate.clock import Clock, wait_or_sleep
from sensegate.collect.intake.batch import IntakeBatchBuilder
from sensegate.errors import Unavailable

MESSAGES_MAX = 500
"""A batch with so many messages is sealed."""
BYTES_MAX = 256 * 1024
"""A batch of so many bytes of payloads and topics is sealed."""
LARGE = 16 * 1024
"""Size from which a message that would make a batch larger than `BYTES_MAX` begins a new one, bytes."""
IN_FLIGHT = 4
"""Most batches sent and not yet stored."""
GAP_S = 0.002
"""Shortest time between two batches."""
SHARED_MIN = 16
"""Messages in a batch from which on the next batch is sent after a longer gap."""
SHARED_GAPS = 2.5
"""Factor by which that gap is longer."""
ANSWER_S = 2.0
"""A batch without an answer for so long is sent again."""
RETRY_MIN_S, RETRY_MAX_S = 0.05, 0.25
_OVERHEAD = 24
"""Bytes of a message in a batch besides its topic and payload."""

_log = structlog.get_logger("collect")


class Acknowledged(Protocol):
    """A connection whose messages a batch holds."""

    def acknowledge(self, answers: bytes, count: int) -> None:
        """Send the answers to `count` messages: they are stored, or were not taken."""
        ...

    def resume(self) -> None:
        """Read on: there is room for messages."""
        ...


class BatchStore(Protocol):
    """Stores batches; `BatchWriter.answered` is called with the outcome of each."""

    async def publish(self, number: int, attempt: int, payload: bytes) -> None:
        """Send a batch. Raises `Unavailable` without a connection."""
        ...


class FrontBatch:
    """Messages that are stored together, and the answers to send afterwards."""

    __slots__ = ("answers", "attempt", "builder", "bytes", "number", "payload", "sent_at", "stored")

    def __init__(self) -> None:
        self.builder = IntakeBatchBuilder()
        self.answers: dict[Acknowledged, tuple[bytes, int]] = {}
        """Connection -> (its answers, to how many messages): each write to a connection is a system call."""
        self.bytes = 0
        self.number = 0
        self.payload = b""
        self.attempt = 0
        self.sent_at = 0.0
        self.stored = False

    def add_answers(self, connection: Acknowledged, answers: bytes, count: int) -> None:
        """Add answers to `count` messages behind those that the connection gets already."""
        before = self.answers.get(connection)
        self.answers[connection] = (before[0] + answers, before[1] + count) if before else (answers, count)


class BatchWriter:
    """Takes messages of connections into batches, and stores them; `run` sends."""

    def __init__(
        self, store: BatchStore, instance: bytes, clock: Clock, *, queue_bytes_max: int, gap_s: float = GAP_S
    ) -> None:
        self._store = store
        self._instance = instance
        self._clock = clock
        self._queue_bytes_max = queue_bytes_max
        self._gap_s = gap_s
        self.open = FrontBatch()
        """The batch that takes messages now."""
        self._unstored: deque[FrontBatch] = deque()
        """Sealed batches in order, sent or not."""
        self._unsent: deque[FrontBatch] = deque()
        self._by_number: dict[int, FrontBatch] = {}
        self._in_flight: set[int] = set()
        self._catching_up = False
        self._retry_s = RETRY_MIN_S
        self._failed = asyncio.Event()
        self._wake = asyncio.Event()
        self._numbered = self._stored_up_to = 0
        self._drains: deque[tuple[int, asyncio.Future[None]]] = deque()
        """(number of a batch, future that is done once it is stored), in order."""
        self._sealed_bytes = 0
        self._held: dict[Acknowledged, None] = {}
        self.stored_batches = 0
        self.problem = ""
        """Reason why batches are not stored now; empty: they are stored."""

    # ── messages of connections ──────────────────────────────────────────────────────────────────────

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that are not stored."""
        return self._sealed_bytes + self.open.bytes

    @property
    def is_congested(self) -> bool:
        """Return whether connections have to wait with reading: too many bytes are not stored."""
        return self.queued_bytes > self._queue_bytes_max

    def end_read(
        self,
        connection: Acknowledged,
        *,
        client: str,
        credential: str,
        arrival: int,
        answers: bytes,
        waiting: int,
        size: int,
    ) -> None:
        """End the messages that one read appended to `open.builder`.

        Args:
            connection: gets the answers once the messages are stored.
            client: its client id.
            credential: the device whose credential opened it.
            arrival: time of the read, µs UTC.
            answers: packets to send then.
            waiting: to how many messages they are (QoS 1 and 2), taken or not.
            size: bytes of topics and payloads.
        """
        batch = self.open
        batch.bytes += size + _OVERHEAD * batch.builder.end_read(client, credential, arrival)
        if answers or waiting:
            batch.add_answers(connection, answers, waiting)
        if batch.bytes >= BYTES_MAX or len(batch.builder) >= MESSAGES_MAX:
            self._seal()
        self._wake.set()

    def reserve(self, size: int) -> None:
        """Seal the open batch where a message of this size would make it larger than the store takes."""
        if len(self.open.builder) and self.open.bytes + size > BYTES_MAX:
            self._seal()
            self._wake.set()

    def answer(self, connection: Acknowledged, answers: bytes, waiting: int) -> None:
        """Send answers to `waiting` messages that need no store, after those to all messages before."""
        if len(self.open.builder):
            self.open.add_answers(connection, answers, waiting)
        elif self._unstored:
            self._unstored[-1].add_answers(connection, answers, waiting)
        else:
            connection.acknowledge(answers, waiting)

    def hold(self, connection: Acknowledged) -> None:
        """Register a connection to be resumed once the queue has room."""
        self._held[connection] = None

    def forget(self, connection: Acknowledged) -> None:
        """Forget a closed connection: it is not resumed, and gets no answers.

        While the store is away, a device that connects for each message would else leave a connection for each.
        """
        self._held.pop(connection, None)
        self.open.answers.pop(connection, None)
        for batch in self._unstored:
            batch.answers.pop(connection, None)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is stored; return whether it is."""
        last = self._numbered + bool(len(self.open.builder))
        if last <= self._stored_up_to:
            return True
        while self._drains and self._drains[0][1].done():
            self._drains.popleft()
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drains.append((last, stored))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await stored
        return last <= self._stored_up_to

    # ── the store ────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send batches until cancelled."""
        await asyncio.gather(self._send_all(), self._watch_answers())

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (batch := self._next()) is not None:
                await self._send(batch)
                await self._clock.sleep(self._gap_after(batch))
            if self._failed.is_set():
                await self._clock.sleep(self._retry_s)
                self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
                self._send_again()

    def _gap_after(self, batch: FrontBatch) -> float:
        """Return the time until the next batch: longer under load, unless there is more than one batch can hold."""
        is_shared = SHARED_MIN <= len(batch.builder) < MESSAGES_MAX and not self._unsent
        return self._gap_s * SHARED_GAPS if is_shared else self._gap_s

    def _next(self) -> FrontBatch | None:
        if self._failed.is_set() or len(self._in_flight) >= (1 if self._catching_up else IN_FLIGHT):
            return None
        if not self._unsent and len(self.open.builder):
            self._seal()
        while self._unsent:
            batch = self._unsent.popleft()
            if not batch.stored:  # the answer to an earlier attempt may have come late
                return batch
        return None

    def _seal(self) -> None:
        batch, self.open = self.open, FrontBatch()
        self._numbered += 1
        batch.number = self._numbered
        batch.payload = batch.builder.seal(self._instance, batch.number)
        batch.bytes = len(batch.payload)
        self._sealed_bytes += batch.bytes
        self._unstored.append(batch)
        self._unsent.append(batch)
        self._by_number[batch.number] = batch

    async def _send(self, batch: FrontBatch) -> None:
        batch.attempt += 1
        batch.sent_at = self._clock.monotonic()
        self._in_flight.add(batch.number)
        try:
            await self._store.publish(batch.number, batch.attempt, batch.payload)
        except Unavailable as why:
            self._fail(str(why))

    def answered(self, number: int, attempt: int, error: str) -> None:
        """Take the store's answer to a batch; `error` is empty where the batch is stored."""
        batch = self._by_number.get(number)
        if batch is None or batch.stored:
            return
        if error:
            if attempt == batch.attempt:
                self._fail(error)
            return
        batch.stored = True
        self._in_flight.discard(number)
        self._retry_s = RETRY_MIN_S
        while self._unstored and self._unstored[0].stored:
            self._release(self._unstored.popleft())
        if not self._unstored:
            self._caught_up()
        self._wake.set()

    def _release(self, batch: FrontBatch) -> None:
        del self._by_number[batch.number]
        self._sealed_bytes -= batch.bytes
        self.stored_batches += 1
        self._stored_up_to = batch.number
        for connection, (answers, count) in batch.answers.items():
            connection.acknowledge(answers, count)
        while self._drains and self._drains[0][0] <= batch.number:
            _, stored = self._drains.popleft()
            if not stored.done():
                stored.set_result(None)
        if self._held and self.queued_bytes <= self._queue_bytes_max // 2:
            held, self._held = self._held, {}
            for connection in held:
                connection.resume()

    def _caught_up(self) -> None:
        self._catching_up = False
        if self.problem:
            self.problem = ""
            _log.info("batches of messages are stored again")

    def disconnected(self) -> None:
        """Resend the batches in flight before anything newer: their answers will not come."""
        if self._in_flight:
            self._fail("the connection to the store is lost")

    def _fail(self, reason: str) -> None:
        if not self.problem:
            _log.warning("batch of messages not stored; devices wait for their acknowledgements", reason=reason)
        self.problem = reason
        self._failed.set()
        self._wake.set()

    def _send_again(self) -> None:
        """Send everything that is not stored again, oldest first, one at a time."""
        self._failed.clear()
        self._catching_up = True
        self._in_flight.clear()
        self._unsent = deque(batch for batch in self._unstored if not batch.stored)
        if not self._unstored:
            self._caught_up()
        self._wake.set()

    async def _watch_answers(self) -> None:
        """Resend batches that the store does not answer."""
        while True:
            await wait_or_sleep(self._failed, self._clock, ANSWER_S / 5)
            if self._failed.is_set():
                await self._clock.sleep(ANSWER_S / 5)
                continue
            sent = [self._by_number[number].sent_at for number in self._in_flight]
            if sent and self._clock.monotonic() - min(sent) > ANSWER_S:
                self._fail(f"the store has not answered for {ANSWER_S:g} s")
