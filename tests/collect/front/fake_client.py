"""A client of a connection to the broker behind: keeps what it is sent."""

from __future__ import annotations

from sensegate.collect.front.packets import Packet, PacketType, Publish, SubAck, Version
from sensegate.collect.front.sessions import UnacknowledgedMessages


class FakeClient:
    """A connection of a client, with what it is sent."""

    client_id = "d1"
    address = "127.0.0.1"
    version = Version.MQTT_5

    def __init__(self, receive_maximum: int = 65_535) -> None:
        self.receive_maximum = receive_maximum
        self.sent: list[Packet] = []
        self.is_held = False
        self.unacknowledged = UnacknowledgedMessages()

    def send(self, packet: Packet) -> bool:
        self.sent.append(packet)
        return True

    def broker_lost(self, reason: str) -> None:
        """Nothing happens to a client that is none."""

    def answer_subscribe(self, packet_id: int, codes: tuple[int, ...]) -> None:
        self.sent.append(SubAck(PacketType.SUBACK, packet_id, codes))

    def hold_for_broker(self) -> None:
        self.is_held = True

    def release_for_broker(self) -> None:
        self.is_held = False

    @property
    def messages(self) -> list[tuple[str, bool, tuple[int, ...]]]:
        """Topic, RETAIN and subscription identifiers of each message."""
        packets = [packet for packet in self.sent if isinstance(packet, Publish)]
        return [(packet.topic, packet.retain, packet.properties.subscription_ids) for packet in packets]
