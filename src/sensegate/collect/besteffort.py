"""QoS 0 of our own broker: best effort by its nature, a loss class of its own.

Such messages never enter the broker's store; they pass by on the core subject, where copies of QoS 1 messages pass
too (told apart by the header `Nmqtt-Pub`). Only topics that a profile declares as `qos: 0` are listened to, on a
connection of its own, so that a flood of them cannot hold up what is promised.

nats-py keeps the order within a subscription only, and Sparkplug needs that of a birth and what follows it under other
topics. So topics that begin alike share one subscription, wider than they are; what it brings beside them is passed.
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
from sensegate.model import Delivery, Message, Position

QOS = "Nmqtt-Pub"
WAITING_BYTES_MAX = 32 * 1024**2
SUBJECTS_MAX = 100_000
"""Subjects remembered; when full the memory starts anew."""

_log = structlog.get_logger("collect")


class BestEffortSource:
    """QoS 0 messages of the topics handed in. `ack` does nothing: nothing is owed.

    At most `depth_messages_max` messages and WAITING_BYTES_MAX bytes wait; the next are dropped and counted
    (`sensegate_limit_hits{limit="qos0"}`).
    """

    def __init__(
        self, connection: Client, topics: Sequence[str], limits: IngestConfig, clock: Clock, *, name: str = "mqtt-qos0"
    ) -> None:
        """`topics`: MQTT topic filters."""
        self.name = name
        self._connection = connection
        self._wanted = _subjects(topics)
        self._known: dict[str, bool] = {}
        self._warned = False
        self._limits = limits
        self._clock = clock
        self._subscriptions: dict[str, Subscription] = {}
        self._turning: asyncio.Task[None] | None = None
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._era = 0
        self._started = False

    async def start(self, committed: Position | None) -> None:  # noqa: ARG002 - nothing can be read again
        await self.stop()
        self._arrived.clear()
        await self._turn(_shared(self._wanted))
        self._started = True

    async def stop(self) -> None:
        self._era += 1
        self._started = False
        if self._turning:
            self._turning.cancel()
            await asyncio.gather(self._turning, return_exceptions=True)
        with suppress(Unavailable):
            await self._turn([])
        self._subscriptions = {}
        self._waiting.clear()
        self._bytes = 0
        self._arrived.set()

    def hear(self, topics: Sequence[str]) -> None:
        """Listen to these topics from now on, and to no others."""
        wanted = _subjects(topics)
        if wanted == self._wanted:
            return
        self._wanted, self._known = wanted, {}
        if self._started:
            self._turning = asyncio.create_task(self._turn_soon(self._turning), name=f"{self.name} topics")

    async def _turn_soon(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.gather(before, return_exceptions=True)
        try:
            await self._turn(_shared(self._wanted))
        except Unavailable as why:
            _log.warning("other topics are heard once the engine is back", why=str(why))

    async def _turn(self, subjects: Sequence[str]) -> None:
        """Subscribe to these subjects and no others; first those go that are not among them: nothing comes twice."""
        for subject in [subscription for subscription in self._subscriptions if subscription not in subjects]:
            subscription = self._subscriptions.pop(subject)
            if not self._connection.is_closed:
                with api.lost("unsubscribe"):
                    await subscription.unsubscribe()
        for subject in subjects:
            if subject not in self._subscriptions:
                with api.lost(f"{self.name}: subscribe"):
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
            _log.warning("QoS 0 is taken: what is lost on the way is not known", first=msg.subject)
        topic = topic_of(msg.subject.encode("utf-8", "surrogateescape"))
        self._waiting.append(Message(topic, msg.data, self._clock.now(), self._sequence, best_effort=True))
        self._bytes += len(msg.data)
        self._arrived.set()

    def _is_wanted(self, subject: str) -> bool:
        known = self._known.get(subject)
        if known is None:
            if len(self._known) >= SUBJECTS_MAX:
                self._known.clear()
            known = self._known[subject] = any(_matches(wanted, subject) for wanted in self._wanted)
        return known

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._era
        while True:
            await self._arrived.wait()
            if era != self._era:
                return
            count = min(len(self._waiting), self._limits.commit_messages_max)
            messages = [self._waiting.popleft() for _ in range(count)]
            self._bytes -= sum(len(message.payload) for message in messages)
            if not self._waiting:
                self._arrived.clear()
            if messages:
                yield Delivery(self.name, messages, self._acknowledge)

    async def _acknowledge(self) -> None:
        """Nobody waits for it."""


def _subjects(topics: Sequence[str]) -> list[str]:
    return sorted({subject for topic in topics for subject in filters_of(topic)})


def _shared(subjects: Sequence[str]) -> list[str]:
    """Return subjects to subscribe to: those that begin with the same token are one."""
    families: dict[str, list[str]] = {}
    for subject in subjects:
        families.setdefault(subject.partition(".")[0], []).append(subject)
    found: list[str] = []
    for first, family in families.items():
        longer = [subject for subject in family if subject != first]
        if first in {"*", ">"} or len(longer) < 2:
            found += family
        else:
            found += [f"{first}.>", *(subject for subject in family if subject == first)]
    return sorted(found)


def _matches(wanted: str, subject: str) -> bool:
    """Return whether a subject is one of those that `wanted`, with ``*`` and ``>``, stands for."""
    tokens, parts = wanted.split("."), subject.split(".")
    if tokens[-1] == ">":
        tokens = tokens[:-1]
        if len(parts) <= len(tokens):
            return False
        parts = parts[: len(tokens)]
    return len(tokens) == len(parts) and all(token in {"*", part} for token, part in zip(tokens, parts, strict=True))
