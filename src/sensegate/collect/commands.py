"""Messages down to devices, by all MQTT brokers: commands, and requests for decoding (e.g. for a new birth).

A command is kept for a device that is away, as long as it is valid, where the broker can. Requests are rate-limited and
best effort: without an answer the requester asks again.
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
from sensegate.errors import EngineError, StoreFull, Unavailable

PER_S = 100
"""Messages per second: ten thousand births are requested within two minutes of a start."""
REPEAT_AFTER_S = 15.0
"""Minimum interval of messages on the same topic, because an answer may be on its way."""
WAITING_MAX = 20_000
_STEP = 10
_AT_QOS_1 = {"Nmqtt-Pub": "1"}
"""Header by which nats-server knows a message as published by MQTT at QoS 1."""
_log = structlog.get_logger("collect")


class CommandChannel(Protocol):
    """A broker to which devices are connected."""

    def reaches(self, about: str) -> bool:
        """Return whether messages of a topic may come from this broker."""
        ...

    async def send(self, topic: str, payload: bytes, *, valid_s: int = 0) -> None:
        """Publish a message. Raises `Unavailable`: the broker is away, or does not take it.

        Args:
            topic: its topic.
            payload: its content.
            valid_s: for how long it is kept for a device that is away, where the broker can; 0: QoS 0.
        """
        ...


class OwnBroker:
    """The embedded broker: messages in the devices' account reach MQTT subscribers.

    The server delivers at QoS 1 what is stored under ``$MQTT.msgs.``, to sessions that have subscribed at QoS 1. Others
    hear the message of the same content on the subject of the topic; its header tells the server that a session at
    QoS 1 gets the stored one. So it stores what MQTT clients publish (`README-MQTT` of nats-server); a client of ours
    would add nothing, and could not limit for how long a message is valid.
    """

    def __init__(self, connection: Client) -> None:
        self._connection = connection

    def reaches(self, about: str) -> bool:  # noqa: ARG002 - every own device is connected here
        return True

    async def send(self, topic: str, payload: bytes, *, valid_s: int = 0) -> None:
        subject = subject_of(topic)
        if valid_s < 1:
            with api.translate_client_errors("command"):
                await self._connection.publish(subject, payload)
            return
        try:
            lifetime = {**_AT_QOS_1, "Nats-TTL": f"{valid_s}s"}
            await api.request(self._connection, f"$MQTT.msgs.{subject}", payload, headers=lifetime)
        except (StoreFull, EngineError) as why:
            raise Unavailable(f"the broker does not store the command: {why}") from why
        with api.translate_client_errors("command"):
            await self._connection.publish(subject, payload, headers=_AT_QOS_1)


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
