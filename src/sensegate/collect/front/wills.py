"""Wills: messages published in the name of a client whose connection broke.

device: PendingWill ─▶ store_will ─▶ open batch          another client: PendingWill ─▶ GuestWills ─▶ gateway
└─ delay ─▶ DelayedWills ─┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from sensegate.collect.front.batcher import Acknowledged, BatchWriter
from sensegate.collect.front.packets import MqttViolation, Publish, ReasonCode, Will
from sensegate.collect.front.rights import Rights
from sensegate.collect.front.services import ServiceConversation
from sensegate.collect.front.sessions import SessionKey
from sensegate.collect.intake.batch import QOS_SHIFT, RETAIN, WILL, MessageProperties

GUEST_WILLS_MAX = 1_000
"""Most wills that wait for the gateway; more are lost, and counted."""

_log = structlog.get_logger("collect")


class PendingWill:
    """The will of one connection, from its CONNECT until it is dropped or published; there may be none.

    A DISCONNECT drops the will. When the connection breaks, the will is published at once or after its delay; it is
    dropped if the client is back before.
    """

    __slots__ = ("_publish", "_will")

    def __init__(self, publish: Callable[[Will], None]) -> None:
        """`publish` publishes a will in the name of the client."""
        self._publish = publish
        self._will: Will | None = None

    def keep(self, will: Will | None) -> None:
        """Keep the will of a CONNECT; None: it has none."""
        self._will = will

    def drop(self) -> None:
        """Drop the will."""
        self._will = None

    def publish(self) -> None:
        """Publish the will."""
        will, self._will = self._will, None
        if will:
            self._publish(will)

    def settle(self, *, session_ends: bool) -> None:
        """Drop a will with a delay, since the client is back; publish it where the session ends with that."""
        if self._will and session_ends:
            self.publish()
        elif self._will and self._will.properties.will_delay_s:
            self._will = None

    def connection_lost(self, expiry_s: int) -> int:
        """Publish the will of a connection that broke, unless it has a delay.

        Args:
            expiry_s: for how long the session outlives the connection: the delay of the will ends with it.

        Returns:
            The seconds after which to publish it; 0: it is published, or there is none.
        """
        if self._will and (delay_s := min(self._will.properties.will_delay_s or 0, expiry_s)):
            return delay_s
        self.publish()
        return 0


class _DelayedWill(msgspec.Struct, frozen=True, eq=False):
    """A will that is published when its delay is over."""

    due: float
    will: PendingWill


class DelayedWills:
    """Wills whose delay runs, by credential and client id."""

    def __init__(self) -> None:
        self._wills: dict[str, dict[str, _DelayedWill]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._wills.values()))

    def add(self, key: SessionKey, will: PendingWill, due: float, *, most: int) -> None:
        """Keep a will until its delay is over, unless its client comes back before.

        Args:
            key: session of the client.
            will: the will.
            due: monotonic time at which it is published.
            most: number of wills of the credential that may wait; the oldest beyond it is published at once.
        """
        siblings = self._wills.setdefault(key.credential, {})
        if earlier := siblings.pop(key.client_id, None):
            earlier.will.publish()
        siblings[key.client_id] = _DelayedWill(due, will)
        while len(siblings) > most:
            siblings.pop(next(iter(siblings))).will.publish()

    def settle(self, key: SessionKey, *, session_ends: bool) -> None:
        """Drop the will of a client that is back; publish it where its session has ended."""
        siblings = self._wills.get(key.credential, {})
        delayed = siblings.pop(key.client_id, None)
        if delayed is None:
            return
        if not siblings:
            del self._wills[key.credential]
        delayed.will.settle(session_ends=session_ends)

    def publish_due(self, now: float) -> None:
        """Publish the wills whose delay is over."""
        due = [
            SessionKey(credential, client_id)
            for credential, siblings in self._wills.items()
            for client_id, delayed in siblings.items()
            if now >= delayed.due
        ]
        for key in due:
            self.settle(key, session_ends=True)


class WillAuthor(Acknowledged, Protocol):
    """A device in whose name a will is stored."""

    client_id: str
    device: str
    rights: Rights | None
    identity_bytes: int


def store_will(will: Will, author: WillAuthor, writer: BatchWriter, arrival: int) -> None:
    """Store a will as a message of a device, if the device's present rights allow its topic.

    Args:
        will: the will.
        author: the device's connection.
        writer: takes the message.
        arrival: time of its publication, µs UTC.
    """
    rights = author.rights
    if rights is None or (not will.qos and not rights.best_effort.matches(will.topic)):
        return
    if not rights.publish.matches(will.topic):
        return
    properties = will.properties
    texts = (will.topic, properties.content_type or "", *(word for pair in properties.user for word in pair))
    size = len(will.payload) + sum(len(text.encode()) for text in texts) + author.identity_bytes
    writer.reserve(size)
    builder = writer.open.builder
    builder.topics.append(will.topic)
    builder.payloads.append(will.payload)
    builder.flags.append(will.qos << QOS_SHIFT | (RETAIN if will.retain else 0) | WILL)
    if properties.content_type or properties.user:
        builder.properties[len(builder) - 1] = MessageProperties(properties.content_type or "", properties.user)
    writer.end_read(
        author,
        client=author.client_id,
        credential=author.device,
        arrival=arrival,
        answers=b"",
        waiting=0,
        size=size,
    )


class GuestWills:
    """Publishes wills of clients that are no devices, one after the other; `run` has to run."""

    def __init__(self, hit: Callable[[str], None]) -> None:
        """`hit` counts a limit that was reached."""
        self._hit = hit
        self._waiting: asyncio.Queue[tuple[ServiceConversation, Will]] = asyncio.Queue(GUEST_WILLS_MAX)

    def publish(self, service: ServiceConversation, will: Will) -> None:
        """Publish a will soon, as a message of its client."""
        if self._waiting.full():
            self._hit("mqtt_wills")
            return
        self._waiting.put_nowait((service, will))

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            service, will = await self._waiting.get()
            message = Publish(will.topic, will.payload, min(will.qos, 1))
            try:
                [code] = await service.publish([message])
            except MqttViolation as why:
                _log.warning("will lost", token=service.user.token, topic=will.topic[:100], reason=str(why))
                continue
            if code >= ReasonCode.UNSPECIFIED_ERROR:
                _log.info("will refused", token=service.user.token, topic=will.topic[:100], reason=hex(code))
