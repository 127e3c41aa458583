"""The embedded MQTT broker as a source: a durable push consumer, ack policy *all*, on the broker's store `$MQTT_msgs`.

A PUBACK of nats-server promises only that this store has the message, so this store is what is consumed. Ack-all has a
trap: after the death of a worker the server sends new messages to its successor first, and acknowledging one of them
discards the older ones. Therefore, at every start and after every break, the consumer is **reset**, everything before
consumer sequence 1 is dropped, contiguity is required, and messages up to the committed position are skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from sensegate import metrics
from sensegate.bus import api, consumer, streams
from sensegate.bus.reader import StreamFollower as StreamReader
from sensegate.bus.streams import MQTT_MESSAGES
from sensegate.clock import Clock
from sensegate.collect.tap import SubscriptionTap
from sensegate.config import IngestConfig
from sensegate.errors import SensegateError, Unavailable
from sensegate.model import Delivery, Message, SourcePosition

SUBJECT = "$MQTT.msgs."
ACK_PENDING_MAX = 65_536
HEARTBEAT_S = 1.0
ACK_WAIT_S = 600.0
"""A safety net: every break resets the consumer, which redelivers everything at once."""

_log = structlog.get_logger("collect")


class _Chunk(msgspec.Struct):
    messages: list[Message]
    number: int


class BrokerSource:
    """QoS 1 and 2 messages from devices of the embedded broker, in the order of its store.

    The connection, in the devices' account, is used by this source only. Uncommitted messages are bounded by
    `depth_messages_max` (the consumer's ack limit) and in bytes by the server's flow control, whose requests are
    answered only when all messages before them are committed (32 MB in nats-server 2.15). `deliveries()` raises
    `Unavailable` after any break; `start` with the committed position then redelivers everything after it.
    """

    def __init__(
        self,
        connection: Client,
        limits: IngestConfig,
        clock: Clock,
        *,
        name: str = "mqtt",
        durable: str = "",
        topic_prefix: str = "",
    ) -> None:
        """`topic_prefix` are subject tokens that a partition mapping prepends to the topic, e.g. ``in.0.``."""
        self.name = name
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._durable = durable or "ingest-0"
        self._prefix = f"{SUBJECT}{topic_prefix}"
        self._deliver = f"_SG.deliver.{self._durable}"
        self._tap = SubscriptionTap(connection, self._take, self._control, self._missed_first, self._break)
        self._subscription: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._chunks: deque[_Chunk] = deque()
        self._broken = ""
        self._epoch = ""
        self._generation = 0
        self._resetting: asyncio.Task[None] | None = None
        self._committed = SourcePosition("", 0)  # position committed at the start
        self._received = 0
        self._number = 0  # consumer sequence of the last received message
        self._settled = 0
        self._flow: tuple[int, str] | None = None  # (sequence, request): reply when the sequence is committed
        self._last_heard = 0.0
        self._last_message = 0.0

    async def prepare(self) -> None:
        """Create the durable consumer, from which on the store keeps QoS 1 messages; call it before devices connect."""
        config = {
            "durable_name": self._durable,
            "ack_policy": "all",
            "deliver_policy": "all",
            "deliver_subject": self._deliver,
            "filter_subject": f"{self._prefix}>",
            "ack_wait": int(ACK_WAIT_S * 1e9),
            "max_ack_pending": min(self._limits.depth_messages_max, ACK_PENDING_MAX),
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        await consumer.ensure(self._connection, MQTT_MESSAGES, config)

    async def newest(self) -> int:
        """Return the newest sequence in the broker's store. Raises `Unavailable`."""
        status = await StreamReader(self._connection, MQTT_MESSAGES).status()
        return status.state.last_seq

    async def start(self, committed: SourcePosition | None) -> None:
        await self.stop()
        await self.prepare()
        self._epoch = await streams.created_at(self._connection, MQTT_MESSAGES)
        self._committed = committed if committed and committed.epoch == self._epoch else SourcePosition(self._epoch, 0)
        self._generation += 1
        self._received = self._settled = self._number = 0
        self._broken = ""
        self._arrived.clear()
        self._last_heard = self._last_message = self._clock.monotonic()
        # Without a subscriber the consumer pauses, so its first message arrives after the subscription.
        await consumer.reset(self._connection, MQTT_MESSAGES, self._durable)
        with api.translate_client_errors(f"{self.name}: subscribe"):
            self._subscription = await self._connection.subscribe(self._deliver)
        # The tap needs the subscription id, which nats-py keeps across reconnections.
        self._tap.attach(self._subscription._id, MQTT_MESSAGES, self._durable, self._prefix)  # noqa: SLF001
        self._tap.expect_first()
        self._watch = asyncio.create_task(self._watchdog(), name=f"watch {self.name}")

    async def stop(self) -> None:
        self._generation += 1  # earlier acknowledgements have no effect from here on
        self._tap.detach()
        tasks = [task for task in (self._watch, self._resetting) if task]
        self._watch = self._resetting = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        subscription, self._subscription = self._subscription, None
        if subscription and not self._connection.is_closed:
            with suppress(Unavailable), api.translate_client_errors("unsubscribe"):
                await subscription.unsubscribe()
        self._chunks.clear()
        self._flow = None
        self._arrived.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while True:
            await self._arrived.wait()
            if era != self._generation:
                return
            if self._broken:
                metrics.RESTARTS.labels(f"collect {self.name}").inc()
                raise Unavailable(
                    f"{self.name}: {self._broken}; the consumer is reset and redelivers what was not committed"
                )
            messages, number = self._next()
            position = SourcePosition(self._epoch, messages[-1].sequence, messages[-1].received)
            ack = partial(self._acknowledge, era, position.sequence, number)
            if messages[0].sequence <= self._committed.sequence:
                messages = [message for message in messages if not self._is_committed(message)]
                if not messages:
                    await ack()
                    continue
            yield Delivery(self.name, messages, ack, position, ack_is_cumulative=True)

    def _is_committed(self, message: Message) -> bool:
        """Return whether a message was committed before the start.

        A store that lost its end reuses its sequences for messages that arrived after the commit. In doubt a message is
        delivered, because deduplication recognises it.
        """
        committed = self._committed
        return message.sequence <= committed.sequence and (
            not committed.received or message.received <= committed.received
        )

    def _next(self) -> tuple[list[Message], int]:
        """Return the next messages, at most `commit_messages_max`, and the consumer sequence of the last one."""
        limit = self._limits.commit_messages_max
        chunk = self._chunks.popleft()
        messages, number = chunk.messages, chunk.number
        if len(messages) > limit:
            # Consumer sequences are contiguous, so a split chunk keeps known sequences.
            self._chunks.appendleft(_Chunk(messages[limit:], number))
            messages, number = messages[:limit], number - (len(messages) - limit)
        while self._chunks and len(messages) + len(self._chunks[0].messages) <= limit:
            chunk = self._chunks.popleft()
            messages += chunk.messages
            number = chunk.number
        if not self._chunks:
            self._arrived.clear()
        return messages, number

    async def _acknowledge(self, era: int, sequence: int, number: int) -> None:
        """Acknowledge all messages up to a stream sequence; no effect after a restart of the source."""
        if era != self._generation or sequence <= self._settled:
            return
        self._settled = sequence
        await self._send(f"$JS.ACK.{MQTT_MESSAGES}.{self._durable}.1.{sequence}.{number}.0.0")
        if self._flow and self._flow[0] <= sequence:
            (_, reply), self._flow = self._flow, None
            await self._send(reply)

    async def _send(self, subject: str) -> None:
        try:
            with api.translate_client_errors("acknowledgement"):
                await self._connection.publish(subject)
        except Unavailable as why:
            self._break(str(why))

    # Callbacks of the tap, in the connection's reading task.

    def _take(self, messages: list[Message], number: int) -> None:
        self._last_heard = self._last_message = self._clock.monotonic()
        self._received = messages[-1].sequence
        self._number = number
        self._chunks.append(_Chunk(messages, number))
        self._arrived.set()

    def _missed_first(self) -> None:
        """Reset again: a subscription of a worker that was just killed received the first message."""
        if self._resetting is None:
            self._resetting = asyncio.create_task(self._reset(), name=f"reset {self.name}")

    async def _reset(self) -> None:
        try:
            await consumer.reset(self._connection, MQTT_MESSAGES, self._durable)
        except SensegateError as why:
            self._break(str(why))

    async def _control(self, headers: dict[str, str], reply: str) -> None:
        """Handle a heartbeat, or keep a flow control request until all messages before it are committed."""
        self._last_heard = self._clock.monotonic()
        sent = int(headers.get("Nats-Last-Consumer", "0"))
        if sent > self._number:
            if self._number:
                self._break(f"the consumer has sent {sent} messages, {self._number} arrived")
            else:
                self._missed_first()
        request = reply or headers.get("Nats-Consumer-Stalled", "")
        if not request:
            return
        if self._received > self._settled:
            self._flow = (self._received, request)
        else:
            await self._send(request)

    def _break(self, reason: str) -> None:
        if not self._broken:
            self._broken = reason
            _log.warning("source interrupted", source=self.name, reason=reason)
        self._arrived.set()

    async def _watchdog(self) -> None:
        """Detect a stall: silence, or pending messages that are not delivered."""
        stall_s = self._limits.stall_timeout_s
        while not self._broken:
            await self._clock.sleep(max(HEARTBEAT_S, stall_s / 6))
            now = self._clock.monotonic()
            if now - self._last_heard > stall_s:
                self._break(f"neither message nor heartbeat for {stall_s:g} s")
            elif now - self._last_message > stall_s:
                try:
                    state = await consumer.status(self._connection, MQTT_MESSAGES, self._durable)
                except SensegateError as why:
                    self._break(str(why))
                    continue
                if now - self._last_message > stall_s and self._received <= self._settled and state.num_pending:
                    self._break(f"{state.num_pending} messages are pending and none arrived for {stall_s:g} s")
