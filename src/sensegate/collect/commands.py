"""Messages down to devices that decoding needs an answer from (a new birth), paced: by our own broker and foreign ones.

Nothing is owed: whoever asked asks again when the answer stays out. A device that hears nothing of it loses nothing.
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
"""Commands a second: ten thousand nodes are asked for their births within two minutes of a start."""
AGAIN_S = 15.0
"""The same topic is not written to again before: an answer may be on its way."""
WAITING_MAX = 20_000
_STEP = 10
_log = structlog.get_logger("collect")


class CommandChannel(Protocol):
    """A broker on which devices listen."""

    def reaches(self, about: str) -> bool:
        """Return whether a message of this topic may have come from there."""
        ...

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0. Raises `Unavailable` where there is no connection."""
        ...


class OwnBroker:
    """Our own broker: what is published in the devices' account goes to those who subscribed by MQTT."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection

    def reaches(self, about: str) -> bool:  # noqa: ARG002 - any device of ours listens here
        return True

    async def send(self, topic: str, payload: bytes) -> None:
        with api.lost("command"):
            await self._connection.publish(subject_of(topic), payload)


class DownlinkMessage(msgspec.Struct, frozen=True):
    """One message down."""

    topic: str
    payload: bytes
    about: str


class DownlinkQueue:
    """Commands that wait, at most `waiting_max`; `run` sends them, at most `per_s` a second."""

    def __init__(
        self,
        ways: Sequence[CommandChannel],
        clock: Clock,
        *,
        per_s: int = PER_S,
        again_s: float = AGAIN_S,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._channels = ways
        self._clock = clock
        self._per_s = per_s
        self._again_s = again_s
        self._waiting_max = waiting_max
        self._waiting: deque[DownlinkMessage] = deque()
        self._last: dict[str, float] = {}
        self._arrived = asyncio.Event()

    def ask(self, topic: str, payload: bytes, about: str) -> bool:
        """Put a command in the queue; return False where it was written a moment ago, or too many wait."""
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
        """Forget topics that may be written to again; the oldest come first."""
        while self._last and now - self._last[oldest := next(iter(self._last))] >= self._again_s:
            del self._last[oldest]

    async def run(self) -> None:
        """Send what waits until cancelled."""
        while True:
            await self._arrived.wait()
            for _ in range(min(_STEP, len(self._waiting))):
                await self._send(self._waiting.popleft())
            if not self._waiting:
                self._arrived.clear()
            await self._clock.sleep(_STEP / self._per_s)

    async def _send(self, command: DownlinkMessage) -> None:
        for way in self._channels:
            if not way.reaches(command.about):
                continue
            try:
                await way.send(command.topic, command.payload)
            except Unavailable as why:
                _log.info("a command was not sent; it comes up again", topic=command.topic, cause=str(why))
            else:
                metrics.COMMANDS.inc()
