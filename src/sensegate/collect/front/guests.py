"""Packets of a client that is no device: the broker behind the front answers them, or a service of the gateway.

A subscriber of feeds speaks with the broker, packet by packet. A client of a service (`services`) publishes requests to
the gateway, and subscribes at the broker under the mount point of its token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensegate.collect.front import codec
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
from sensegate.collect.front.upstream import is_broker_topic

if TYPE_CHECKING:
    from sensegate.collect.front.broker_link import BrokerLink
    from sensegate.collect.front.connection import MqttConnection
    from sensegate.collect.front.services import ServiceConversation


BROKER_QOS_MAX = 1
"""Highest QoS of messages that the broker behind takes."""


class GuestConversation:
    """A client that is no device, on its connection."""

    def __init__(self, connection: MqttConnection, broker: BrokerLink) -> None:
        self._connection = connection
        self._broker = broker
        self.service: ServiceConversation | None = None
        """Requests to the gateway, of a client of one of its services."""

    def take(self, packets: list[tuple[int, bytes]]) -> None:
        """Handle packets of the client. Raises `MqttViolation`."""
        if self.service:
            self._serve(self.service, packets)
            return
        connection = self._connection
        remaining = iter(packets)
        for head, body in remaining:
            packet = codec.decode(head, body, connection.version)
            match packet:
                case Publish():
                    self._publish(self._plain(packet))
                case Subscribe():
                    codes = self._broker.limit(packet)
                    if None in codes:
                        connection.defer(remaining)
                    self._broker.subscribe(packet, codes)
                case Unsubscribe():
                    self._broker.unsubscribe(packet)
                case Acknowledgement():
                    self._broker.forward(packet)
                case _:
                    self._control(head, packet)

    def _publish(self, packet: Publish) -> None:
        """Pass a message on to the broker, which takes QoS 0 and 1. Raises `MqttViolation`."""
        connection = self._connection
        if packet.qos > BROKER_QOS_MAX:
            raise MqttViolation(ReasonCode.QOS_NOT_SUPPORTED, "a message at QoS 2")
        if is_broker_topic(packet.topic):
            self._broker.forward(packet)
            return
        # The broker would close the connection; nobody has a right to such a topic.
        connection.note_refusal(connection.client_id, "publish", packet.topic)
        if packet.qos:
            code = ReasonCode.NOT_AUTHORIZED if connection.version == Version.MQTT_5 else 0
            connection.send(Acknowledgement(PacketType.PUBACK, packet.packet_id, code))

    def _plain(self, packet: Publish) -> Publish:
        """Return a message without its properties, with the topic for which an alias stands."""
        raw = self._connection.aliased(packet.topic.encode(), packet.properties)
        return Publish(raw.decode(), packet.payload, packet.qos, packet.retain, packet.duplicate, packet.packet_id)

    def _control(self, head: int, packet: Packet) -> None:
        """Handle a packet that no broker need see."""
        match packet:
            case Disconnect():
                if packet.code != ReasonCode.DISCONNECT_WITH_WILL:
                    self._broker.end()
                self._connection.disconnected(packet)
            case _ if head >> 4 == PacketType.PINGREQ:
                self._connection.answer_ping()
            case _:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"a client sends {PacketType(head >> 4).name}")

    # ── services of the gateway ───────────────────────────────────────────────────────────────────────

    def _serve(self, service: ServiceConversation, packets: list[tuple[int, bytes]]) -> None:
        """Handle packets of a client of a service: messages and subscriptions are requests to the gateway."""
        connection = self._connection
        published: list[Publish] = []
        remaining = iter(packets)
        for head, body in remaining:
            packet = codec.decode(head, body, connection.version)
            if published and not isinstance(packet, Publish):
                connection.defer([(head, body), *remaining])
                break
            match packet:
                case Publish():
                    published.append(self._plain(packet))
                case Subscribe():
                    connection.defer(remaining)
                    connection.wait_for(self._subscribe_to_service(service, packet))
                case Unsubscribe():
                    self._broker.unsubscribe(packet, service.user.mount_point)
                case Acknowledgement(kind=PacketType.PUBREL, packet_id=packet_id):
                    known = service.release(packet_id) or connection.version != Version.MQTT_5
                    code = 0 if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
                    connection.send(Acknowledgement(PacketType.PUBCOMP, packet_id, code))
                case Acknowledgement():
                    self._broker.forward(packet)
                case _:
                    self._control(head, packet)
        if published:
            connection.wait_for(self._publish_to_service(service, published))

    async def _publish_to_service(self, service: ServiceConversation, published: list[Publish]) -> None:
        """Publish messages to a service of the gateway; acknowledge each after its answer. Raises `MqttViolation`."""
        connection = self._connection
        codes = await service.publish(published)
        for message, code in zip(published, codes, strict=True):
            if code >= ReasonCode.UNSPECIFIED_ERROR:
                connection.note_refusal(service.user.token, "publish", message.topic)
            if message.qos:
                kind = PacketType.PUBACK if message.qos == 1 else PacketType.PUBREC
                answer = code if connection.version == Version.MQTT_5 else 0
                connection.send(Acknowledgement(kind, message.packet_id, answer))

    async def _subscribe_to_service(self, service: ServiceConversation, packet: Subscribe) -> None:
        """Subscribe at the broker behind to what the gateway grants. Raises `MqttViolation`."""
        connection = self._connection
        codes = await service.subscribe(packet)
        for wanted, code in zip(packet.subscriptions, codes, strict=True):
            if code is not None:
                connection.note_refusal(service.user.token, "subscribe", wanted.topic_filter)
        await self._broker.subscribe_now(packet, self._broker.limit(packet, codes), service.user.mount_point)
