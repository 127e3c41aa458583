"""Our own MQTT broker: a durable push consumer, ack policy *all*, on the broker's own store `$MQTT_msgs`.

A PUBACK of nats-server promises only that this store has the message, so nothing else is consumed. Ack-all has a
trap: after the death of a worker the server sends its successor the new messages first, and acknowledging one of
them destroys the older ones. So at every start and after every break the consumer is **reset**, everything before
consumer sequence 1 is discarded, contiguity is demanded, and what is at or below the committed position is skipped.
(`engine.md`, rules 1 to 3.)
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
from sensegate.bus.reader import Reader as StreamReader
from sensegate.bus.streams import INTAKE
from sensegate.clock import Clock
from sensegate.collect.tap import Tap
from sensegate.config import IngestConfig
from sensegate.errors import SensegateError, Unavailable
from sensegate.model import Delivery, Message, Position

SUBJECT = "$MQTT.msgs."
ACK_PENDING_MAX = 65_536
HEARTBEAT_S = 1.0
ACK_WAIT_S = 600.0
"""A backstop only: every break resets the consumer, which gives all again at once."""

_log = structlog.get_logger("collect")


class _Chunk(msgspec.Struct):
    messages: list[Message]
    number: int


class BrokerSource:
    """Messages of QoS 1 and 2 from the devices of the embedded broker, in the order of its store.

    The connection is one in the devices' account that this source alone uses. What is received and not yet committed
    is bounded twice: by `depth_messages_max` (the consumer's ack limit) and in bytes by the server's flow control,
    whose requests are answered only when all before them is committed (32 MB in nats-server 2.15).
    `deliveries()` raises `Unavailable` after any break; `start` with the committed position then gives all after it
    again.
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
        """`topic_prefix`: subject tokens that a partition mapping puts before the topic, e.g. ``in.0.``."""
        self.name = name
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._durable = durable or f"ingest-{limits.partition}"
        self._prefix = f"{SUBJECT}{topic_prefix}"
        self._deliver = f"_SG.deliver.{self._durable}"
        self._tap = Tap(connection, self._take, self._control, self._missed_first, self._break)
        self._subscription: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._chunks: deque[_Chunk] = deque()
        self._broken = ""
        self._life = ""
        self._era = 0
        self._again: asyncio.Task[None] | None = None
        self._skip = Position("", 0)  # committed at the start
        self._received = 0
        self._number = 0  # consumer sequence of the last message that came
        self._settled = 0
        self._flow: tuple[int, str] | None = None  # answer this request when the sequence is settled
        self._heard = 0.0
        self._moved = 0.0

    async def prepare(self) -> None:
        """Make the durable consumer: from here on the store keeps QoS 1 messages. Before the first device connects."""
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
        await consumer.ensure(self._connection, INTAKE, config)

    async def newest(self) -> int:
        """Return the newest sequence in the broker's store. Raises `Unavailable`."""
        status = await StreamReader(self._connection, INTAKE).status()
        return status.state.last_seq

    async def start(self, committed: Position | None) -> None:
        await self.stop()
        await self.prepare()
        self._life = await streams.life(self._connection, INTAKE)
        self._skip = committed if committed and committed.life == self._life else Position(self._life, 0)
        self._era += 1
        self._received = self._settled = self._number = 0
        self._broken = ""
        self._arrived.clear()
        self._heard = self._moved = self._clock.monotonic()
        # While nobody listens the consumer rests: its first message comes after we do.
        await consumer.reset(self._connection, INTAKE, self._durable)
        with api.lost(f"{self.name}: subscribe"):
            self._subscription = await self._connection.subscribe(self._deliver)
        # Only our own wildcard-free subscription numbers are in the bytes: nats-py keeps them across reconnections.
        self._tap.attach(self._subscription._id, INTAKE, self._durable, self._prefix)  # noqa: SLF001
        self._tap.expect_first()
        self._watch = asyncio.create_task(self._watchdog(), name=f"watch {self.name}")

    async def stop(self) -> None:
        self._era += 1  # acknowledgements of this life do nothing from here
        self._tap.detach()
        tasks = [task for task in (self._watch, self._again) if task]
        self._watch = self._again = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        subscription, self._subscription = self._subscription, None
        if subscription and not self._connection.is_closed:
            with suppress(Unavailable), api.lost("unsubscribe"):
                await subscription.unsubscribe()
        self._chunks.clear()
        self._flow = None
        self._arrived.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._era
        while True:
            await self._arrived.wait()
            if era != self._era:
                return
            if self._broken:
                metrics.RESTARTS.labels(f"collect {self.name}").inc()
                raise Unavailable(
                    f"{self.name}: {self._broken}; the consumer is reset and gives again what was not committed"
                )
            messages, number = self._next()
            position = Position(self._life, messages[-1].sequence, messages[-1].received)
            ack = partial(self._acknowledge, era, position.sequence, number)
            if messages[0].sequence <= self._skip.sequence:
                messages = [message for message in messages if not self._is_committed(message)]
                if not messages:
                    await ack()
                    continue
            yield Delivery(self.name, messages, ack, position, covers=True)

    def _is_committed(self, message: Message) -> bool:
        """Return whether a message was committed before the start.

        A store that has lost its end gives its numbers again: what arrived after the commit is not in it. In doubt a
        message is given, as what was committed after all is told as a duplicate.
        """
        skip = self._skip
        return message.sequence <= skip.sequence and (not skip.at or message.received <= skip.at)

    def _next(self) -> tuple[list[Message], int]:
        """Return the next messages, at most `commit_messages_max`, and the consumer sequence of the last."""
        most = self._limits.commit_messages_max
        chunk = self._chunks.popleft()
        messages, number = chunk.messages, chunk.number
        if len(messages) > most:
            # Consumer sequences are contiguous: the numbers of the parts follow from the whole.
            self._chunks.appendleft(_Chunk(messages[most:], number))
            messages, number = messages[:most], number - (len(messages) - most)
        while self._chunks and len(messages) + len(self._chunks[0].messages) <= most:
            chunk = self._chunks.popleft()
            messages += chunk.messages
            number = chunk.number
        if not self._chunks:
            self._arrived.clear()
        return messages, number

    async def _acknowledge(self, era: int, sequence: int, number: int) -> None:
        """Acknowledge all up to a stream sequence; without effect once the source was started again."""
        if era != self._era or sequence <= self._settled:
            return
        self._settled = sequence
        await self._send(f"$JS.ACK.{INTAKE}.{self._durable}.1.{sequence}.{number}.0.0")
        if self._flow and self._flow[0] <= sequence:
            (_, reply), self._flow = self._flow, None
            await self._send(reply)

    async def _send(self, subject: str) -> None:
        try:
            with api.lost("acknowledgement"):
                await self._connection.publish(subject)
        except Unavailable as why:
            self._break(str(why))

    # Called by the tap, in the connection's reading task.

    def _take(self, messages: list[Message], number: int) -> None:
        self._heard = self._moved = self._clock.monotonic()
        self._received = messages[-1].sequence
        self._number = number
        self._chunks.append(_Chunk(messages, number))
        self._arrived.set()

    def _missed_first(self) -> None:
        """Reset once more: another subscription (of a worker just killed) had the first message before we listened."""
        if self._again is None:
            self._again = asyncio.create_task(self._reset(), name=f"reset {self.name}")

    async def _reset(self) -> None:
        try:
            await consumer.reset(self._connection, INTAKE, self._durable)
        except SensegateError as why:
            self._break(str(why))

    async def _control(self, headers: dict[str, str], reply: str) -> None:
        """Hear a heartbeat, or note a flow control request until all before it is committed."""
        self._heard = self._clock.monotonic()
        sent = int(headers.get("Nats-Last-Consumer", "0"))
        if sent > self._number:
            if self._number:
                self._break(f"the consumer has sent {sent}, {self._number} came")
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
            _log.warning("source broken", source=self.name, reason=reason)
        self._arrived.set()

    async def _watchdog(self) -> None:
        """Demand progress, not a socket: silence, or messages that wait and do not come, is a break."""
        stall_s = self._limits.stall_timeout_s
        while not self._broken:
            await self._clock.sleep(max(HEARTBEAT_S, stall_s / 6))
            now = self._clock.monotonic()
            if now - self._heard > stall_s:
                self._break(f"neither message nor heartbeat for {stall_s:g} s")
            elif now - self._moved > stall_s:
                try:
                    state = await consumer.status(self._connection, INTAKE, self._durable)
                except SensegateError as why:
                    self._break(str(why))
                    continue
                if now - self._moved > stall_s and self._received <= self._settled and state.num_pending:
                    self._break(f"{state.num_pending} messages wait and none came for {stall_s:g} s")
