"""A device that numbers its messages, sends again what is not acknowledged, and knows which it may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from itertools import cycle

from sensegate.collect.front import codec
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    PacketProperties,
    PacketType,
    Publish,
    Version,
)
from tests.collect.front.front_rig import HOST

WINDOW = 50
NAMELESS = 1_000


def _number(number: int) -> bytes:
    return str(number).encode()


_KINDS = {1: PacketType.PUBACK, 2: PacketType.PUBREC}


class Retransmitter:
    """Publishes numbers until `stop`; packet ids are reused as soon as they are free."""

    def __init__(
        self,
        port: int | Sequence[int],
        device: str,
        version: Version,
        qos: int,
        *,
        password: bytes = b"right",
        topic: str = "",
        payload: Callable[[int], bytes] = _number,
        pace_s: float = 0.0,
        nameless: bool = False,
    ) -> None:
        """Prepare a device.

        Args:
            port: of a front, or of several: each connection goes to the next one.
            device: user name and client id.
            version: that it speaks.
            qos: of its messages.
            password: of the device.
            topic: to which it publishes.
            payload: gives the payload of a number.
            pace_s: shortest time between two reads of acknowledgements, each of which frees its window.
            nameless: as devices that give nothing by which a message could be known: another client id and a clean
                start at each connect, packet id 1 for every message, all payloads equal. Only the last level of the
                topic, the number modulo `NAMELESS`, tells the test which message it is.
        """
        self.device = device
        self.version = version
        self.qos = qos
        self.acknowledged: set[int] = set()
        """Numbers with a PUBACK or PUBREC."""
        self.sent = 0
        self.connects = 0
        self._ports = cycle([port] if isinstance(port, int) else port)
        self._password = password
        self._topic = topic or f"up/{device}"
        self._payload = payload
        self._pace_s = pace_s
        self.nameless = nameless
        self.window = 1 if nameless else WINDOW
        self._client_ids = random.Random(device)
        self._writer: asyncio.StreamWriter | None = None
        self._open: dict[int, int] = {}
        """Packet id -> number without an acknowledgement, in the order of sending."""
        self._releasing: set[int] = set()
        self._stopping = False

    def stop(self) -> None:
        """Send nothing new; `run` ends once all is acknowledged."""
        self._stopping = True

    def move(self) -> None:
        """Break the connection; the next one goes to the next front while batches are in flight."""
        if self._writer:
            self._writer.transport.abort()

    @property
    def _is_done(self) -> bool:
        return self._stopping and not self._open and not self._releasing

    async def run(self) -> None:
        while not self._is_done:
            with contextlib.suppress(OSError, EOFError):
                await self._connection()
            await asyncio.sleep(0.01)

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, next(self._ports))
        self._writer = writer
        packets = codec.PacketReader(2**20)
        connect = ConnectPacket(
            self.version, self._client_ids.randbytes(8).hex() if self.nameless else self.device,
            clean_start=self.nameless, username=self.device, password=self._password,
            properties=PacketProperties(
                session_expiry_s=3_600 if self.version == Version.MQTT_5 and not self.nameless else None
            ),
        )  # fmt: skip
        try:
            writer.write(codec.encode(connect, self.version))
            connected = False
            while not self._is_done:
                data = await reader.read(65_536)
                if not data:
                    raise EOFError
                for head, body in packets.feed(data):
                    packet = codec.decode(head, body, self.version)
                    if isinstance(packet, ConnAck):
                        if packet.code:
                            raise EOFError
                        connected = True
                        self.connects += 1
                        self._send_again(writer, session_present=packet.session_present)
                    elif isinstance(packet, Acknowledgement):
                        self._acknowledged(packet, writer)
                if connected:
                    self._send_new(writer)
                    await asyncio.sleep(self._pace_s)
        finally:
            writer.close()

    def _send_again(self, writer: asyncio.StreamWriter, *, session_present: bool) -> None:
        """MQTT-4.4.0-1: with their packet ids and DUP, in their order."""
        if not session_present:
            self._releasing.clear()
        for packet_id, number in self._open.items():
            self._publish(writer, packet_id, number, duplicate=True)
        for packet_id in self._releasing:
            writer.write(codec.encode(Acknowledgement(PacketType.PUBREL, packet_id), self.version))

    def _send_new(self, writer: asyncio.StreamWriter) -> None:
        while not self._stopping and len(self._open) + len(self._releasing) < self.window:
            packet_id = next(
                number for number in range(1, 65_536) if number not in self._open and number not in self._releasing
            )
            self._open[packet_id] = self.sent
            self._publish(writer, packet_id, self.sent, duplicate=False)
            self.sent += 1

    def _publish(self, writer: asyncio.StreamWriter, packet_id: int, number: int, *, duplicate: bool) -> None:
        topic = f"{self._topic}/{number % NAMELESS}" if self.nameless else self._topic
        payload = b"equal" if self.nameless else self._payload(number)
        packet = Publish(topic, payload, self.qos, duplicate=duplicate, packet_id=packet_id)
        writer.write(codec.encode(packet, self.version))

    def _acknowledged(self, packet: Acknowledgement, writer: asyncio.StreamWriter) -> None:
        if packet.kind is PacketType.PUBCOMP:
            self._releasing.discard(packet.packet_id)
            return
        assert packet.kind is _KINDS[self.qos], packet
        assert packet.code == 0, packet
        number = self._open.pop(packet.packet_id, None)
        if number is not None:
            self.acknowledged.add(number)
        if self.qos == 2:
            self._releasing.add(packet.packet_id)
            writer.write(codec.encode(Acknowledgement(PacketType.PUBREL, packet.packet_id), self.version))
