"""QoS 0 messages of the embedded broker: best effort, accounted as a loss class of its own.

Such messages never enter the broker's store; they pass on the core subject, together with copies of QoS 1 messages
(distinguished by the header `Nmqtt-Pub`). Only topics that a profile declares as `qos: 0` are subscribed to, on a
separate connection, so that a flood of them cannot delay messages with a guarantee.

nats-py preserves order only within a subscription, and Sparkplug needs the order of a birth and later messages on other
topics. Therefore topics with the same first level share a wider subscription, and its other messages are dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sensegate import metrics
from sensegate.bus import api
from sensegate.clock import Clock
from sensegate.collect.topic import filters_of, topic_of
from sensegate.config import IngestConfig
from sensegate.errors import Unavailable
from sensegate.model import Delivery, Message, SourcePosition

QOS = "Nmqtt-Pub"
WAITING_BYTES_MAX = 32 * 1024**2
SUBJECTS_MAX = 100_000
"""Most cached subjects; when full, the cache is cleared."""

_log = structlog.get_logger("collect")


class BestEffortSource:
    """QoS 0 messages of given topics; their acknowledgement does nothing.

    At most `depth_messages_max` messages and WAITING_BYTES_MAX bytes wait; the next are dropped and counted
    (`sensegate_limit_hits{limit="qos0"}`).
    """

    def __init__(
        self, connection: Client, topics: Sequence[str], limits: IngestConfig, clock: Clock, *, name: str = "mqtt-qos0"
    ) -> None:
        """`topics` are MQTT topic filters."""
        self.name = name
        self._connection = connection
        self._filters = _subjects(topics)
        self._known: dict[str, bool] = {}
        self._warned = False
        self._limits = limits
        self._clock = clock
        self._subscriptions: dict[str, Subscription] = {}
        self._resubscribing: asyncio.Task[None] | None = None
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._generation = 0
        self._started = False

    async def start(self, committed: SourcePosition | None) -> None:  # noqa: ARG002 - QoS 0 cannot be replayed
        await self.stop()
        self._arrived.clear()
        await self._subscribe(_grouped(self._filters))
        self._started = True

    async def stop(self) -> None:
        self._generation += 1
        self._started = False
        if self._resubscribing:
            self._resubscribing.cancel()
            await asyncio.gather(self._resubscribing, return_exceptions=True)
        with suppress(Unavailable):
            await self._subscribe([])
        self._subscriptions = {}
        self._waiting.clear()
        self._bytes = 0
        self._arrived.set()

    def subscribe(self, topics: Sequence[str]) -> None:
        """Replace the subscribed topics."""
        filters = _subjects(topics)
        if filters == self._filters:
            return
        self._filters, self._known = filters, {}
        if self._started:
            self._resubscribing = asyncio.create_task(
                self._resubscribe(self._resubscribing), name=f"{self.name} topics"
            )

    async def _resubscribe(self, previous: asyncio.Task[None] | None) -> None:
        if previous:
            await asyncio.gather(previous, return_exceptions=True)
        try:
            await self._subscribe(_grouped(self._filters))
        except Unavailable as why:
            _log.warning("topics not subscribed; retrying when the engine is back", reason=str(why))

    async def _subscribe(self, subjects: Sequence[str]) -> None:
        """Replace the subscriptions; old ones end first, so that no message arrives twice."""
        for subject in [subscription for subscription in self._subscriptions if subscription not in subjects]:
            subscription = self._subscriptions.pop(subject)
            if not self._connection.is_closed:
                with api.translate_client_errors("unsubscribe"):
                    await subscription.unsubscribe()
        for subject in subjects:
            if subject not in self._subscriptions:
                with api.translate_client_errors(f"{self.name}: subscribe"):
                    self._subscriptions[subject] = await self._connection.subscribe(subject, cb=self._take)

    async def _take(self, msg: Msg) -> None:
        if not msg.headers or msg.headers.get(QOS) != "0" or not self._is_wanted(msg.subject):
            return
        if len(self._waiting) >= self._limits.depth_messages_max or self._bytes + len(msg.data) > WAITING_BYTES_MAX:
            metrics.LIMIT_HITS.labels("qos0").inc()
            return
        self._sequence += 1
        if not self._warned:
            self._warned = True
            _log.warning("receiving QoS 0 messages: losses cannot be detected", subject=msg.subject)
        topic = topic_of(msg.subject.encode("utf-8", "surrogateescape"))
        self._waiting.append(Message(topic, msg.data, self._clock.now(), self._sequence, best_effort=True))
        self._bytes += len(msg.data)
        self._arrived.set()

    def _is_wanted(self, subject: str) -> bool:
        known = self._known.get(subject)
        if known is None:
            if len(self._known) >= SUBJECTS_MAX:
                self._known.clear()
            known = self._known[subject] = any(_matches(pattern, subject) for pattern in self._filters)
        return known

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while True:
            await self._arrived.wait()
            if era != self._generation:
                return
            count = min(len(self._waiting), self._limits.commit_messages_max)
            messages = [self._waiting.popleft() for _ in range(count)]
            self._bytes -= sum(len(message.payload) for message in messages)
            if not self._waiting:
                self._arrived.clear()
            if messages:
                yield Delivery(self.name, messages, self._acknowledge)

    async def _acknowledge(self) -> None:
        """Do nothing: no sender waits."""


def _subjects(topics: Sequence[str]) -> list[str]:
    return sorted({subject for topic in topics for subject in filters_of(topic)})


def _grouped(subjects: Sequence[str]) -> list[str]:
    """Return the subjects to subscribe to; those with the same first token are merged."""
    families: dict[str, list[str]] = {}
    for subject in subjects:
        families.setdefault(subject.partition(".")[0], []).append(subject)
    merged: list[str] = []
    for first, family in families.items():
        longer = [subject for subject in family if subject != first]
        if first in {"*", ">"} or len(longer) < 2:
            merged += family
        else:
            merged += [f"{first}.>", *(subject for subject in family if subject == first)]
    return sorted(merged)


def _matches(pattern: str, subject: str) -> bool:
    """Return whether a subject matches a pattern with ``*`` and ``>``."""
    tokens, parts = pattern.split("."), subject.split(".")
    if tokens[-1] == ">":
        tokens = tokens[:-1]
        if len(parts) <= len(tokens):
            return False
        parts = parts[: len(tokens)]
    return len(tokens) == len(parts) and all(token in {"*", part} for token, part in zip(tokens, parts, strict=True))
