"""Packets of a client that is no device: its messages go to a service of the gateway, its subscriptions to the broker.

The broker behind has authenticated the client, and delivers to it; what it publishes is a request to the gateway
(`services`), whose answer tells in 5.0 whether it had the right to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensegate.collect.front import codec
from sensegate.collect.front.clients import GuestClient
from sensegate.collect.front.packets import (
    Acknowledgement,
    Disconnect,
    MqttViolation,
    Packet,
    PacketType,
    Publish,
    ReasonCode,
    Subscribe,
    Unsubscribe,
    Version,
)
from sensegate.collect.front.services import ServiceConversation

if TYPE_CHECKING:
    from sensegate.collect.front.broker_link import BrokerLink


class GuestConversation:
    """A client that is no device, on its connection."""

    def __init__(self, client: GuestClient, broker: BrokerLink, service: ServiceConversation) -> None:
        self._client = client
        self._broker = broker
        self.service = service
        """Requests of the client to the gateway."""

    def take(self, packets: list[tuple[int, bytes]]) -> None:
        """Handle packets of the client. Raises `MqttViolation`."""
        client = self._client
        published: list[Publish] = []
        remaining = iter(packets)
        for head, body in remaining:
            packet = codec.decode(head, body, client.version)
            if published and not isinstance(packet, Publish):
                client.defer([(head, body), *remaining])
                break
            match packet:
                case Publish():
                    published.append(self._plain(packet))
                case Subscribe():
                    client.defer(remaining)
                    client.wait_for(self._subscribe(packet))
                case Unsubscribe():
                    self._broker.unsubscribe(packet, self.service.user.mount_point)
                case Acknowledgement(kind=PacketType.PUBREL, packet_id=packet_id):
                    known = self.service.release(packet_id) or client.version != Version.MQTT_5
                    code = 0 if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
                    client.send(Acknowledgement(PacketType.PUBCOMP, packet_id, code))
                case Acknowledgement():
                    self._broker.forward(packet)
                case _:
                    self._control(head, packet)
        if published:
            client.wait_for(self._publish(published))

    def _plain(self, packet: Publish) -> Publish:
        """Return a message without its properties, with the topic for which an alias stands. Raises `MqttViolation`."""
        if packet.qos > self.service.user.qos_max:
            raise MqttViolation(ReasonCode.QOS_NOT_SUPPORTED, f"a message at QoS {packet.qos}")
        raw = self._client.aliased(packet.topic.encode(), packet.properties)
        return Publish(raw.decode(), packet.payload, packet.qos, packet.retain, packet.duplicate, packet.packet_id)

    def _control(self, head: int, packet: Packet) -> None:
        """Handle a packet that neither the broker nor the gateway need see."""
        match packet:
            case Disconnect():
                self._client.disconnected(packet)
            case _ if head >> 4 == PacketType.PINGREQ:
                self._client.answer_ping()
            case _:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"a client sends {PacketType(head >> 4).name}")

    async def _publish(self, published: list[Publish]) -> None:
        """Hand messages to the gateway; acknowledge each after its answer. Raises `MqttViolation`."""
        client, service = self._client, self.service
        codes = await service.publish(published)
        for message, code in zip(published, codes, strict=True):
            if code >= ReasonCode.UNSPECIFIED_ERROR:
                client.note_refusal(service.user.token, "publish", message.topic)
            if message.qos:
                kind = PacketType.PUBACK if message.qos == 1 else PacketType.PUBREC
                answer = code if client.version == Version.MQTT_5 else 0
                client.send(Acknowledgement(kind, message.packet_id, answer))

    async def _subscribe(self, packet: Subscribe) -> None:
        """Subscribe at the upstream broker to the filters that the gateway grants. Raises `MqttViolation`."""
        client, service = self._client, self.service
        codes = await service.subscribe(packet)
        for wanted, code in zip(packet.subscriptions, codes, strict=True):
            if code is not None:
                client.note_refusal(service.user.token, "subscribe", wanted.topic_filter)
        await self._broker.subscribe_now(packet, self._broker.limit(packet, codes), service.user.mount_point)
