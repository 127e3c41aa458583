"""Notifications by MQTT (clause 7): a message with the headers of HTTP as its metadata, and the notification."""

from __future__ import annotations

import msgspec

from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport


class MqttMessage(msgspec.Struct, frozen=True):
    """Payload of a message."""

    metadata: dict[str, str]
    body: msgspec.Raw


class MqttEndpoint:
    """Endpoint of a subscription at the subscriber's broker; a `PushTransport`."""

    def __init__(self, onward: PushTransport) -> None:
        """`onward`: publishes at the broker."""
        self._onward = onward

    def check(self, target: str) -> None:
        self._onward.check(target)

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        metadata = {**dict(delivery.headers), "Content-Type": delivery.media}
        body = msgspec.json.encode(MqttMessage(metadata, msgspec.Raw(delivery.body)))
        return await self._onward.send(msgspec.structs.replace(delivery, body=body))
