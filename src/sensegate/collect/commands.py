"""Rate-limited downlink messages that request something for decoding (e.g. a new birth), by all MQTT brokers.

Delivery is best effort: without an answer the requester asks again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog
from nats.aio.client import Client

from sensegate import metrics
from sensegate.bus import api
from sensegate.clock import Clock
from sensegate.collect.topic import subject_of
from sensegate.errors import Unavailable

PER_S = 100
"""Messages per second: ten thousand births are requested within two minutes of a start."""
REPEAT_AFTER_S = 15.0
"""Minimum interval of messages on the same topic, because an answer may be on its way."""
WAITING_MAX = 20_000
_STEP = 10
_log = structlog.get_logger("collect")


class CommandChannel(Protocol):
    """A broker to which devices are connected."""

    def reaches(self, about: str) -> bool:
        """Return whether messages of a topic may come from this broker."""
        ...

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0. Raises `Unavailable` without a connection."""
        ...


class OwnBroker:
    """The embedded broker: messages in the devices' account reach MQTT subscribers."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection

    def reaches(self, about: str) -> bool:  # noqa: ARG002 - every own device is connected here
        return True

    async def send(self, topic: str, payload: bytes) -> None:
        with api.translate_client_errors("command"):
            await self._connection.publish(subject_of(topic), payload)


class DownlinkMessage(msgspec.Struct, frozen=True):
    """A downlink message."""

    topic: str
    payload: bytes
    about: str


class DownlinkQueue:
    """A queue of at most `waiting_max` messages; `run` sends at most `per_s` per second."""

    def __init__(
        self,
        channels: Sequence[CommandChannel],
        clock: Clock,
        *,
        per_s: int = PER_S,
        repeat_after_s: float = REPEAT_AFTER_S,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._channels = channels
        self._clock = clock
        self._per_s = per_s
        self._again_s = repeat_after_s
        self._waiting_max = waiting_max
        self._waiting: deque[DownlinkMessage] = deque()
        self._last: dict[str, float] = {}
        self._arrived = asyncio.Event()

    def enqueue(self, topic: str, payload: bytes, about: str) -> bool:
        """Enqueue a message; return False if one was sent recently on its topic, or the queue is full."""
        now = self._clock.monotonic()
        if now - self._last.get(topic, float("-inf")) < self._again_s:
            return False
        if len(self._waiting) >= self._waiting_max:
            metrics.LIMIT_HITS.labels("commands").inc()
            return False
        self._last.pop(topic, None)
        self._last[topic] = now
        self._forget(now)
        self._waiting.append(DownlinkMessage(topic, payload, about))
        self._arrived.set()
        return True

    def _forget(self, now: float) -> None:
        """Remove topics whose minimum interval has passed, oldest first."""
        while self._last and now - self._last[oldest := next(iter(self._last))] >= self._again_s:
            del self._last[oldest]

    async def run(self) -> None:
        """Send queued messages until cancelled."""
        while True:
            await self._arrived.wait()
            for _ in range(min(_STEP, len(self._waiting))):
                await self._send(self._waiting.popleft())
            if not self._waiting:
                self._arrived.clear()
            await self._clock.sleep(_STEP / self._per_s)

    async def _send(self, command: DownlinkMessage) -> None:
        for channel in self._channels:
            if not channel.reaches(command.about):
                continue
            try:
                await channel.send(command.topic, command.payload)
            except Unavailable as why:
                _log.info("downlink message not sent; it will be requested again", topic=command.topic, reason=str(why))
            else:
                metrics.COMMANDS.inc()
