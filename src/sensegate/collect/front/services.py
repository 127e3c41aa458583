"""Services of the gateway over MQTT: each client that is no device speaks with one of them.

A subscriber of feeds has the id of its token as user name: it publishes control messages, and the broker behind decides
on its subscriptions. The user name ``TOKEN/SERVICE`` is that of a client of another service, whose topics are paths of
that service. What it subscribes to lies under a mount point of its token at the broker behind, where the gateway
publishes. So the topics of two clients never meet, though both read ``v1.1/Observations``.

What a client publishes is a request to the gateway, acknowledged after the gateway's answer.

    PUBLISH ──front.service.publish.SERVICE──▶ gateway ══ done ══▶ PUBACK, PUBREC
    SUBSCRIBE ──front.service.subscribe──▶ gateway; what it grants ──▶ broker, under ``sg/sta/TOKEN/``
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from sensegate.collect.front.messages import ServicePublish, ServiceSubscribe
from sensegate.collect.front.packets import MqttViolation, Publish, ReasonCode, Subscribe
from sensegate.errors import Unavailable

FEEDS = "feeds"
"""Service of clients whose user name names none: subscribers of feeds."""
SERVICES = ("sta",)
"""Names of services in user names: OGC SensorThings."""
BROKER_QOS_MAX = 1
"""Highest QoS of messages of subscribers of feeds, as the broker behind offers it."""
AT_ONCE = 64
"""Most messages of a client that the gateway is asked to take at a time."""
RETRY_CODES = frozenset({ReasonCode.SERVER_BUSY, ReasonCode.SERVER_UNAVAILABLE})
"""Answers after which a message is not acknowledged: the client has to send it again."""


class ServiceGateway(Protocol):
    """The gateway, as far as it answers clients of its services."""

    async def publish(self, request: ServicePublish) -> int:
        """Return the reason code of a message, after its commit. Raises `Unavailable`."""
        ...

    async def subscribe(self, request: ServiceSubscribe) -> tuple[int, ...]:
        """Return the reason code of each topic, 0 where it is granted. Raises `Unavailable`."""
        ...


class ServiceUser(msgspec.Struct, frozen=True):
    """User name of a client of a service."""

    token: str
    service: str

    @property
    def mount_point(self) -> str:
        """Beginning of the client's topics at the broker behind."""
        return "" if self.service == FEEDS else f"sg/{self.service}/{self.token}/"

    @property
    def qos_max(self) -> int:
        """Highest QoS with which the client may publish."""
        return BROKER_QOS_MAX if self.service == FEEDS else 2


def service_user(user: str) -> ServiceUser | None:
    """Return the token and service in a user name; None: it names no service."""
    token, slash, service = user.rpartition("/")
    return ServiceUser(token, service) if slash and token and service in SERVICES else None


def guest_user(user: str) -> ServiceUser:
    """Return the token and service of a client that is no device."""
    return service_user(user) or ServiceUser(user, FEEDS)


class ServiceConversation:
    """Requests to the gateway for the packets that a client of a service sends."""

    def __init__(self, user: ServiceUser, gateway: ServiceGateway) -> None:
        self.user = user
        self._gateway = gateway
        self._received: set[int] = set()
        """Packet ids of messages at QoS 2 that were taken and not released."""

    # ── topics ────────────────────────────────────────────────────────────────────────────────────────

    def shown(self, packet: Publish) -> Publish:
        """Return a message of the broker behind as the client knows it."""
        return msgspec.structs.replace(packet, topic=packet.topic.removeprefix(self.user.mount_point))

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, messages: Sequence[Publish]) -> list[int]:
        """Return the reason code of each message, after the commit of those that were taken.

        Raises:
            MqttViolation: the gateway does not answer, or cannot take them now; they are not acknowledged.
        """
        codes: list[int] = []
        for first in range(0, len(messages), AT_ONCE):
            codes += await asyncio.gather(*map(self._publish, messages[first : first + AT_ONCE]))
        return codes

    async def _publish(self, message: Publish) -> int:
        if message.qos == 2 and message.packet_id in self._received:
            return ReasonCode.SUCCESS
        try:
            code = await self._gateway.publish(
                ServicePublish(self.user.token, self.user.service, message.topic, message.payload)
            )
        except Unavailable as why:
            raise MqttViolation(ReasonCode.SERVER_BUSY, f"the gateway does not answer: {why}") from why
        if code in RETRY_CODES:
            raise MqttViolation(ReasonCode.SERVER_BUSY, "the gateway cannot take messages now")
        if message.qos == 2 and code < ReasonCode.UNSPECIFIED_ERROR:
            self._received.add(message.packet_id)
        return code

    def release(self, packet_id: int) -> bool:
        """End a message at QoS 2; return whether it was known."""
        known = packet_id in self._received
        self._received.discard(packet_id)
        return known

    async def subscribe(self, packet: Subscribe) -> list[int | None]:
        """Return the reason code of each filter; None: the gateway has nothing against it. Raises `MqttViolation`."""
        if self.user.service == FEEDS:
            return [None] * len(packet.subscriptions)
        topics = tuple(wanted.topic_filter for wanted in packet.subscriptions)
        try:
            codes = await self._gateway.subscribe(ServiceSubscribe(self.user.token, self.user.service, topics))
        except Unavailable as why:
            raise MqttViolation(ReasonCode.SERVER_BUSY, f"the gateway does not answer: {why}") from why
        return [code or None for code in codes]
