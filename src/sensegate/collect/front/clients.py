"""Contracts of a client's connection, as its link to the broker behind and its packets need it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from sensegate.collect.front.packets import (
    Acknowledgement,
    Disconnect,
    PacketProperties,
    Publish,
    SubAck,
    Version,
)
from sensegate.collect.front.rights import Rights
from sensegate.collect.front.sessions import MqttSession, UnacknowledgedMessages


class BrokerClient(Protocol):
    """A client in whose name a connection to the broker behind is open."""

    client_id: str
    address: str
    version: Version
    receive_maximum: int

    @property
    def unacknowledged(self) -> UnacknowledgedMessages:
        """Messages of the session that the client has not acknowledged."""
        ...

    def send(self, packet: Publish | SubAck | Acknowledgement) -> bool:
        """Send a packet; return False where it is larger than the client takes."""
        ...

    def answer_subscribe(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """Answer a SUBSCRIBE with a code for each filter."""
        ...

    def broker_lost(self, reason: str) -> None:
        """Disconnect the client: its connection to the broker is lost."""
        ...

    def hold_for_broker(self) -> None:
        """Pause reading: the broker does not accept the client's packets."""
        ...

    def release_for_broker(self) -> None:
        """Read on."""
        ...


class SubscribingClient(BrokerClient, Protocol):
    """A client whose subscriptions are kept at the broker behind."""

    device: str
    rights: Rights | None
    session: MqttSession

    def note_refusal(self, client: str, operation: str, topic: str) -> None:
        """Count and alarm that a client has no right to publish or subscribe to a topic."""
        ...

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Handle something that has to wait; the client is not read meanwhile."""
        ...

    async def remember_session(self) -> None:
        """Announce the session to all fronts, if it outlives the connection."""
        ...


class GuestClient(SubscribingClient, Protocol):
    """A client that is no device."""

    def aliased(self, raw: bytes, properties: PacketProperties) -> bytes:
        """Return the topic of a PUBLISH. Raises `MqttViolation`."""
        ...

    def defer(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Keep packets until the work of `wait_for` is done."""
        ...

    def answer_ping(self) -> None:
        """Answer a PINGREQ."""
        ...

    def disconnected(self, packet: Disconnect) -> None:
        """Close after the client's DISCONNECT. Raises `MqttViolation`."""
        ...
