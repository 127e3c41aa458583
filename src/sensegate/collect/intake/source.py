"""Stream INTAKE as a source: batches in the order of the stream, by a durable pull consumer.

A position is (sequence of the batch, index of the message in it), as one number; it also holds which batches of each
front are committed, so that a batch which its front stored twice is skipped, however long after. A commit may end
inside a batch. Batches are acknowledged, and so removed, after their commit.

At every start the consumer is reset: it delivers everything that is not acknowledged again, in order, from consumer
sequence 1. What was committed and not acknowledged is skipped by its number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat

import msgspec
import numpy as np
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sensegate import metrics
from sensegate.bus import api, consumer, streams
from sensegate.bus.connect import BusClient
from sensegate.bus.process import json_bytes
from sensegate.bus.reader import StreamFollower
from sensegate.clock import Clock
from sensegate.collect.intake import batch as form
from sensegate.collect.intake.batch import DamagedBatch, IntakeBatch
from sensegate.collect.intake.numbers import INSTANCES_MAX, NumberTracker
from sensegate.collect.intake.order import FrontOrder
from sensegate.config import IngestConfig
from sensegate.errors import NotFound, Unavailable
from sensegate.model import BatchNumbers, Delivery, Message, MessageBatch, PartialBatch, SourcePosition, UnreadableBatch

DURABLE = "committer"
INDEX_BITS = 16
"""Bits of a message's sequence that are its index in the batch; the others are the sequence of the batch."""
PULL_BATCHES = 256
"""Most batches of one pull request."""
PULL_BYTES = 8 * 1024**2
"""Most bytes of one pull request, if the largest message of the server is smaller."""
DEPTH_BYTES_MAX = 64 * 1024**2
"""No batch is requested while so many bytes are read and not yet committed."""
PULL_EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
SILENCE_REPLICATED_S = 3.0
"""In a cluster, silence while batches are requested for longer than this means that the consumer's server is gone."""
ACK_WAIT_S = 600.0
"""A safety net: every break resets the consumer, which redelivers everything at once."""
ACK_PENDING_MAX = 65_536

_ENDED = ("404", "408")
"""Statuses of a request that has ended in time: nothing there, time out."""
_COMPLETED = ("Batch Completed", "Message Size Exceeds MaxBytes")
"""Descriptions of a request that has ended because it was fulfilled."""
_NS = 1_000_000_000
_QOS, _DUP = np.uint32(3 << form.QOS_SHIFT), np.uint32(form.DUP)
_log = structlog.get_logger("collect")


class _StoredBatch(msgspec.Struct, eq=False):
    """A batch that was received and is not yet delivered whole."""

    reply: str
    size: int
    sequence: int
    """Of the first message: the stream's sequence of the batch, with the index 0."""
    instance: str
    number: int
    messages: list[Message]
    delivered: int = 0
    """Number of messages that were delivered, or committed before the start."""
    unreadable: UnreadableBatch | None = None


class _BatchEnd(msgspec.Struct, frozen=True, eq=False):
    """The part of a delivery that one batch contributed."""

    end: int
    """Number of messages of the delivery up to its end."""
    batch: _StoredBatch
    first: int
    """Index in the batch of the first message of the part."""


class IntakeSource:
    """The messages of fronts, in the order in which their batches were stored.

    The connection is of `User.GATEWAY` and may be shared. `deliveries()` raises `Unavailable` after any break; `start`
    with the committed position then delivers everything after it.
    """

    def __init__(self, connection: Client, limits: IngestConfig, clock: Clock, *, name: str = "mqtt") -> None:
        self.name = name
        self._connection = connection
        self._limits = limits
        self._clock = clock
        replicated = isinstance(connection, BusClient) and connection.replicas > 1
        self._silence_max_s = (
            min(limits.stall_timeout_s, SILENCE_REPLICATED_S) if replicated else limits.stall_timeout_s
        )
        self._subscription: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._waiting: deque[_StoredBatch] = deque()
        self._broken = ""
        self._epoch = ""
        self._generation = 0
        self._committed = SourcePosition("", 0)  # position committed at the start
        self._numbers = NumberTracker({})  # of the batches received
        self._delivered = NumberTracker({})  # of the batches delivered
        self._order = FrontOrder[_StoredBatch](self._numbers.lowest_missing)
        self._furthest = (0, 0)  # greatest sequence delivered, and the arrival of its message
        self._expected = 1  # consumer sequence of the next batch
        self._requested = 0  # batches still to come of the present pull request
        self._unsettled_bytes = 0
        self._last_heard = 0.0
        self._reconnects = 0
        self._missing: dict[str, int] = {}

    def warnings(self) -> list[str]:
        """Return which fronts stored batches that never came: they were acknowledged to devices and are lost."""
        return [
            f"intake: {count} batches of front {front} are missing; their devices have an acknowledgement"
            for front, count in self._missing.items()
        ]

    async def prepare(self) -> None:
        """Create the durable consumer."""
        config = {
            "durable_name": DURABLE,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": int(ACK_WAIT_S * _NS),
            "max_ack_pending": ACK_PENDING_MAX,
            "max_waiting": 16,
        }
        await consumer.ensure(self._connection, streams.INTAKE, config)

    async def newest(self) -> int:
        """Return the sequence of the newest stored message; 0: everything is committed. Raises `Unavailable`."""
        follower = StreamFollower(self._connection, streams.INTAKE)
        if not (await follower.status()).state.messages:
            return 0
        try:
            last = await follower.last(streams.INTAKE_SUBJECT)
        except NotFound:
            last = None
        if last is None:
            return 0
        sequence = int((last.headers or {})["Nats-Sequence"]) << INDEX_BITS
        try:
            return sequence + form.read_header(last.data).count - 1
        except DamagedBatch:
            return sequence

    async def start(self, committed: SourcePosition | None) -> None:
        await self.stop()
        await self.prepare()
        self._epoch = await streams.created_at(self._connection, streams.INTAKE)
        # Numbers hold beyond the stream: a front sends a batch again to the stream that replaces a lost one.
        numbers = dict(committed.numbers) if committed else {}
        self._committed = committed or SourcePosition(self._epoch, 0)
        self._numbers, self._delivered = NumberTracker(numbers), NumberTracker(numbers)
        self._order = FrontOrder(self._numbers.lowest_missing)
        self._furthest = (0, 0)
        if self._committed.epoch == self._epoch:
            self._furthest = (self._committed.sequence, self._committed.received)
        self._generation += 1
        self._expected, self._requested, self._unsettled_bytes = 1, 0, 0
        self._broken = ""
        self._arrived.clear()
        self._last_heard = self._clock.monotonic()
        self._reconnects = self._connection.stats["reconnects"]
        await consumer.reset(self._connection, streams.INTAKE, DURABLE)
        inbox = self._connection.new_inbox()
        era = self._generation

        async def take(message: Msg) -> None:
            if era == self._generation:
                await self._take(message, inbox)

        with api.translate_client_errors(f"{self.name}: subscribe"):
            self._subscription = await self._connection.subscribe(
                inbox, cb=take, pending_bytes_limit=4 * max(PULL_BYTES, self._connection.max_payload)
            )
        await self._pull(inbox)
        self._watch = asyncio.create_task(self._watchdog(), name=f"watch {self.name}")

    async def stop(self) -> None:
        self._generation += 1  # earlier acknowledgements have no effect from here on
        watch, self._watch = self._watch, None
        if watch:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        subscription, self._subscription = self._subscription, None
        if subscription and not self._connection.is_closed:
            with suppress(Unavailable), api.translate_client_errors("unsubscribe"):
                await subscription.unsubscribe()
        self._waiting.clear()
        self._arrived.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while True:
            await self._arrived.wait()
            if era != self._generation:
                return
            if self._broken:
                metrics.RESTARTS.labels(f"collect {self.name}").inc()
                raise Unavailable(f"{self.name}: {self._broken}; what was not committed is delivered again")
            yield self._next(era)

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────────

    async def _pull(self, inbox: str) -> None:
        """Request the next batches, unless too many bytes wait for their commit."""
        if self._requested or self._broken or self._unsettled_bytes >= DEPTH_BYTES_MAX:
            return
        self._requested = PULL_BATCHES
        request = {
            "batch": PULL_BATCHES,
            "max_bytes": max(PULL_BYTES, 2 * self._connection.max_payload),
            "expires": int(PULL_EXPIRES_S * _NS),
            "idle_heartbeat": int(HEARTBEAT_S * _NS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.INTAKE}.{DURABLE}"
        try:
            with api.translate_client_errors("request of batches"):
                await self._connection.publish(subject, json_bytes(request), reply=inbox)
        except Unavailable as why:
            self._break(str(why))

    async def _take(self, message: Msg, inbox: str) -> None:
        self._last_heard = self._clock.monotonic()
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "100":
            return
        if status in _ENDED or headers.get("Description", "").startswith(_COMPLETED):
            self._requested = 0
        elif status:
            self._break(f"the server ended the request of batches: {status} {headers.get('Description', '')}")
        else:
            self._requested -= 1
            self._receive(message)
        if not self._requested:
            await self._pull(inbox)

    def _receive(self, message: Msg) -> None:
        """Take a batch in its turn; one that is known already is acknowledged with the next commit's."""
        if self._broken:
            return
        _, _, _, _, _, stream_sequence, number, nanos, _ = message.reply.split(".")
        if int(number) != self._expected:
            self._break(f"consumer sequence {number} arrived instead of {self._expected}")
            return
        stored = self._open(message, int(stream_sequence) << INDEX_BITS, int(nanos) // 1_000)
        self._unsettled_bytes += len(message.data)
        self._expected += 1
        self._deliver_next([stored] if not stored.messages else self._order.add(stored, self._clock.monotonic()))

    def _deliver_next(self, batches: Sequence[_StoredBatch]) -> None:
        self._waiting.extend(batches)
        if self._waiting:
            self._arrived.set()

    def _open(self, message: Msg, sequence: int, stored_at: int) -> _StoredBatch:
        """Return a batch as it is to be delivered: without the messages that are committed."""
        try:
            decoded = form.decode(message.data)
        except DamagedBatch as why:
            header = why.header
            instance, number = (header.instance.hex(), header.number) if header else ("", 0)
            _log.error("batch unreadable; it goes to quarantine", sequence=sequence >> INDEX_BITS, reason=str(why))
            metrics.LIMIT_HITS.labels("intake_unreadable").inc()
            whole = Message("", message.data, stored_at, sequence)
            # Its number cannot be believed: only its sequence tells whether it is committed.
            done = self._epoch == self._committed.epoch and sequence <= self._committed.sequence
            return _StoredBatch(
                message.reply,
                len(message.data),
                sequence,
                "",
                number,
                [] if done else [whole],
                unreadable=UnreadableBatch(f"{why} (front {instance or 'unknown'}, batch {number})", why.count),
            )
        instance, number = decoded.header.instance.hex(), decoded.header.number
        stored = _StoredBatch(message.reply, len(message.data), sequence, instance, number, [])
        if self._numbers.is_known(instance, number):
            if sequence >> INDEX_BITS > self._committed.sequence >> INDEX_BITS:
                metrics.INTAKE_REPEATED.inc()
            return stored
        if overdue := self._numbers.add(instance, number):
            metrics.INTAKE_MISSING.inc(overdue)
            if instance in self._missing or len(self._missing) < INSTANCES_MAX:
                self._missing[instance] = self._missing.get(instance, 0) + overdue
            _log.error("batches of a front are missing", front=instance, batches=overdue, before=number)
        stored.messages = _messages(decoded, sequence)
        partial_batch = self._committed.partial
        if partial_batch and (partial_batch.instance, partial_batch.number) == (instance, number):
            stored.delivered = min(partial_batch.messages, len(stored.messages))
        return stored

    # ── delivering ──────────────────────────────────────────────────────────────────────────────────────

    def _next(self, era: int) -> Delivery:
        """Return the next messages, at most `commit_messages_max`; an unreadable batch comes alone."""
        limit = self._limits.commit_messages_max
        chunks: list[Sequence[Message]] = []
        count = 0
        parts: list[_BatchEnd] = []
        ended: list[_StoredBatch] = []
        before, furthest = self._delivered.numbers, self._furthest
        unreadable: UnreadableBatch | None = None
        while self._waiting and count < limit and unreadable is None:
            stored = self._waiting[0]
            if stored.unreadable and stored.messages:
                if count:
                    break
                unreadable = stored.unreadable
            first, whole = stored.delivered, len(stored.messages)
            stored.delivered = min(first + limit - count, whole)
            if stored.messages:
                is_whole = not first and stored.delivered == whole
                whole_batch = MessageBatch.of(stored.messages)
                chunks.append(whole_batch if is_whole else whole_batch.part(first, stored.delivered))
                count += stored.delivered - first
                parts.append(_BatchEnd(count, stored, first))
            if stored.delivered < len(stored.messages):
                break
            ended.append(self._waiting.popleft())
            if stored.messages and stored.instance:
                self._delivered.add(stored.instance, stored.number)
        if not self._waiting:
            self._arrived.clear()
        for part in parts:
            last = part.batch.messages[part.batch.delivered - 1]
            self._furthest = max(self._furthest, (last.sequence, last.received))
        after = partial(self._position_after, before, furthest, parts)
        return Delivery(
            self.name,
            MessageBatch.joined(chunks),
            partial(self._acknowledge, era, ended),
            after(count) if count else None,
            position_after=after,
            unreadable=unreadable,
        )

    def _position_after(
        self, before: dict[str, BatchNumbers], furthest: tuple[int, int], parts: Sequence[_BatchEnd], count: int
    ) -> SourcePosition:
        """Return the position after the first `count` messages of a delivery.

        `before`: numbers before it; `furthest`: greatest sequence before it, which is behind it where a batch was
        stored after newer ones.
        """
        tracker = NumberTracker(before)
        start = 0
        for part in parts:
            stored, taken = part.batch, min(part.end, count) - start
            done = part.first + taken
            message = stored.messages[done - 1]
            furthest = max(furthest, (message.sequence, message.received))
            if done == len(stored.messages):
                if stored.instance:
                    tracker.add(stored.instance, stored.number)
                if count > part.end:
                    start = part.end
                    continue
                return SourcePosition(self._epoch, *furthest, tracker.numbers)
            progress = PartialBatch(stored.instance, stored.number, done)
            return SourcePosition(self._epoch, *furthest, tracker.numbers, progress)
        raise AssertionError("a position beyond the end of its delivery")

    async def _acknowledge(self, era: int, batches: Sequence[_StoredBatch]) -> None:
        """Acknowledge batches; no effect after a restart of the source."""
        if era != self._generation or self._subscription is None:
            return
        self._unsettled_bytes -= sum(stored.size for stored in batches)
        try:
            with api.translate_client_errors("acknowledgement"):
                for stored in batches:
                    await self._connection.publish(stored.reply)
        except Unavailable as why:
            self._break(str(why))
            return
        await self._pull(self._subscription.subject)

    # ── breaks ──────────────────────────────────────────────────────────────────────────────────────────

    def _break(self, reason: str) -> None:
        if not self._broken:
            self._broken = reason
            _log.warning("source interrupted", source=self.name, reason=reason)
        self._arrived.set()

    async def _watchdog(self) -> None:
        """Detect a lost request: a reconnection, or silence while batches are requested."""
        while not self._broken:
            await self._clock.sleep(HEARTBEAT_S)
            self._deliver_next(self._order.overdue(self._clock.monotonic()))
            if self._connection.stats["reconnects"] != self._reconnects:
                self._break("the connection was re-established")
            elif self._requested and self._clock.monotonic() - self._last_heard > self._silence_max_s:
                self._break(f"neither batch nor heartbeat for {self._silence_max_s:g} s")
            elif self._subscription:
                await self._pull(self._subscription.subject)


def _messages(decoded: IntakeBatch, sequence: int) -> MessageBatch:
    """Return the messages of a batch with the columns that it holds, so that they are not computed from messages."""
    count = decoded.header.count
    received = decoded.received()
    best_effort = (decoded.flags & _QOS) == 0
    redelivered = (decoded.flags & _DUP) != 0
    columns = (decoded.topics, decoded.payloads, received.tolist(), range(sequence, sequence + count))
    if best_effort.any() or redelivered.any():
        more = (repeat(""), best_effort.tolist(), repeat(False), redelivered.tolist())
        messages = MessageBatch(map(Message, *columns, *more))
    else:
        messages = MessageBatch(map(Message, *columns))
    vars(messages).update(
        topics=decoded.topics,
        payloads=decoded.payloads,
        principals=[""] * count,
        received=received,
        sequences=np.arange(sequence, sequence + count),
        is_cut=np.zeros(count, np.bool_),
        has_metadata=np.zeros(count, np.bool_),
        best_effort=best_effort,
        redelivered=redelivered,
        stored_in=[decoded] * count,
    )
    return messages
