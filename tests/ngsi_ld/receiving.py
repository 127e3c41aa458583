"""A subscription for tests, and what receives its notifications."""

from __future__ import annotations

from typing import Any

import msgspec

from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery

ENDPOINT = {"uri": "https://example.org/in", "receiverInfo": [{"key": "Authorization", "value": "Bearer x"}]}
BODY: dict[str, Any] = {
    "type": "Subscription",
    "id": "urn:ngsi-ld:Subscription:1",
    "entities": [{"type": "AirQualityObserved"}],
    "notification": {"endpoint": ENDPOINT},
}


class Receiver:
    """Transport that keeps what is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.sent: list[OutboundDelivery] = []
        self.result = DeliveryResult(accepted=True)

    def check(self, target: str) -> None:
        """Accept every address."""

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        self.sent.append(delivery)
        return self.result

    @property
    def last(self) -> Any:
        return msgspec.json.decode(self.sent[-1].body)
