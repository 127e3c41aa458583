"""Contract of a transport: its arguments and results."""

from __future__ import annotations

from typing import Protocol

import msgspec


class OutboundDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Records of a feed on their way to a subscriber."""

    target: str
    """HTTP address of the subscriber, or the topic or subject on which it listens."""
    id: str
    """Stays the same at each attempt, so that the subscriber recognises a repetition."""
    body: bytes
    media: str
    headers: tuple[tuple[str, str], ...] = ()
    algorithm: str = "hmac-sha256"
    """Signature algorithm: ``hmac-sha256`` or ``hmac-sm3``."""
    secret: bytes = b""


class DeliveryResult(msgspec.Struct, frozen=True):
    """Outcome of one attempt to deliver."""

    accepted: bool
    """True only for a 2xx status where the delivery goes by HTTP."""
    reason: str = ""
    """Reason of the refusal, as the subscriber may see it; never a part of the response body."""
    retry_after_s: float = 0.0
    gone: bool = False
    """The receiver has ended the subscription (410)."""
    too_large: bool = False
    """A delivery of fewer records may be accepted."""
    unavailable: bool = False
    """No subscriber listens, or the previous delivery is not yet acknowledged: not a failure; retried soon."""
    records: int | None = None
    """Number of records that the subscriber got, where the transport left some out; None: all."""


class PushTransport(Protocol):
    """A transport that pushes to subscribers (`webhook`, `brokered`, `outbound_mqtt`)."""

    def check(self, target: str) -> None:
        """Return if deliveries to an address are allowed, as far as its text shows. Raises `ConfigError`."""
        ...

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        """Attempt one delivery within a time limit; never raises for what the receiver does."""
        ...
