"""Wills of devices: what is published in the name of a device whose connection broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensegate.collect.front.packets import Will
from sensegate.collect.front.sessions import SessionKey
from sensegate.collect.intake.batch import QOS_SHIFT, RETAIN, WILL, MessageProperties

if TYPE_CHECKING:
    from sensegate.collect.front.connection import MqttConnection
    from sensegate.collect.front.front import Front


class DeviceWill:
    """The will of one device, from its CONNECT until it is dropped or published; there may be none.

    A DISCONNECT drops the will. When the connection breaks, the will is published at once or after its delay; it is
    dropped if the device is back before. It is stored like any message, and only if the device's rights at that time
    allow its topic.
    """

    __slots__ = ("_connection", "_front", "_will")

    def __init__(self, connection: MqttConnection, front: Front) -> None:
        self._connection = connection
        self._front = front
        self._will: Will | None = None

    def keep(self, will: Will | None) -> None:
        """Keep the will of a CONNECT; None: it has none."""
        self._will = will

    def drop(self) -> None:
        """Drop the will."""
        self._will = None

    def settle(self, *, session_ends: bool) -> None:
        """Drop a will with a delay, since the client is back; publish it where the session ends with that."""
        will = self._will
        if will and session_ends:
            self.publish_delayed()
        elif will and will.properties.will_delay_s:
            self._will = None

    def publish_delayed(self) -> None:
        """Publish the will whose delay is over."""
        will, self._will = self._will, None
        if will:
            self._publish(will)

    def connection_lost(self, key: SessionKey | None, expiry_s: int) -> None:
        """Publish the will of a connection that broke, or leave it for its delay.

        Args:
            key: the session of the device; None: it has none.
            expiry_s: for how long the session outlives the connection: the delay of the will ends with it.
        """
        if self._will is None:
            return
        delay_s = min(self._will.properties.will_delay_s or 0, expiry_s)
        if delay_s and key:
            self._front.delay_will(key, self, delay_s)
        else:
            self._publish(self._will)

    def _publish(self, will: Will) -> None:
        connection, writer = self._connection, self._front.writer
        rights = connection.rights
        if rights is None or (not will.qos and not rights.best_effort.matches(will.topic)):
            return
        if not rights.publish.matches(will.topic):
            return
        properties = will.properties
        texts = (will.topic, properties.content_type or "", *(word for pair in properties.user for word in pair))
        size = len(will.payload) + sum(len(text.encode()) for text in texts) + connection.identity_bytes
        writer.reserve(size)
        builder = writer.open.builder
        builder.topics.append(will.topic)
        builder.payloads.append(will.payload)
        builder.flags.append(will.qos << QOS_SHIFT | (RETAIN if will.retain else 0) | WILL)
        if properties.content_type or properties.user:
            builder.properties[len(builder) - 1] = MessageProperties(properties.content_type or "", properties.user)
        writer.end_read(
            connection,
            client=connection.client_id,
            credential=connection.device,
            arrival=self._front.clock.now(),
            answers=b"",
            waiting=0,
            size=size,
        )
