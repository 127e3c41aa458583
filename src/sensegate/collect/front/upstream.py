"""The connection to the broker behind the front, for one client that subscribes: nats-server's MQTT 3.1.1.

It is opened at the first SUBSCRIBE of a device, and at once for a client that is no device. Packet ids pass through
unchanged in both directions: the broker alone numbers what it delivers, the client alone what it asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from sensegate.bus.client_facts import ClientFacts, new_nonce, sign
from sensegate.clock import Clock
from sensegate.collect.front import codec
from sensegate.collect.front.packets import (
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    Disconnect,
    MqttViolation,
    PacketType,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)

if TYPE_CHECKING:
    from sensegate.collect.front.connection import MqttConnection

OPEN_S = 5.0
"""Time-out of the connection to the broker."""
PACKET_BYTES_MAX = 16 * 1024**2
_WAITING_MAX = 4_096
"""Most SUBSCRIBEs and UNSUBSCRIBEs of a client that the broker has not answered."""
_PLAIN_ID = re.compile(r"[!-)+,/-=?-~-]{1,200}")
"""Client ids that nats-server accepts: no white space, ``.``, ``*`` or ``>``."""
_V = Version.MQTT_3_1_1


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the broker behind listens, and the key by which it believes the front."""

    host: str
    port: int
    key: bytes
    tls: ssl.SSLContext | None = None


def broker_client_id(client_id: str, user: str, *, is_device: bool) -> str:
    """Return the id under which the broker knows a client; one that it would refuse is replaced by its hash.

    That of a device begins with the device's id, so that no device has the session of another.
    """
    if client_id == user or (not is_device and _PLAIN_ID.fullmatch(client_id)):
        return client_id
    return f"{user}-{hashlib.sha256(client_id.encode()).hexdigest()[:32]}"


def unchanged(packet: Publish) -> Publish:
    """Return a message as it is."""
    return packet


class Upstream(asyncio.Protocol):
    """The connection of one client to the broker."""

    def __init__(
        self,
        broker: BrokerAddress,
        connection: MqttConnection,
        clock: Clock,
        shown: Callable[[Publish], Publish] = unchanged,
    ) -> None:
        """`shown` returns a message of the broker as the client is to see it."""
        self._broker = broker
        self._connection = connection
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._reader = codec.PacketReader(PACKET_BYTES_MAX)
        self._answer: asyncio.Future[ConnAck] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, list[int | None]] = {}
        """Packet id of a SUBSCRIBE -> codes that the front has decided, None for what the broker decides."""
        self._unsubscribing: dict[int, int] = {}
        self._outstanding: set[int] = set()
        self._queue: deque[Publish] = deque()
        self._receive_max = 65_535
        self._holds: set[str] = set()
        self._closed = False
        self._shown = shown
        self._early: list[tuple[int, bytes]] | None = []
        """Packets that came before the client's CONNACK; None: it has left."""

    async def open_device(self, device: str, *, clean: bool) -> ConnAck:
        """Connect in the name of a device that the front has admitted. Raises `MqttViolation`."""
        client_id = broker_client_id(self._connection.client_id, device, is_device=True)
        connect = ConnectPacket(_V, client_id, clean, 0, device, self._password(device, "", is_device=True))
        return await self._open(connect)

    async def open_guest(self, connect: ConnectPacket) -> ConnAck:
        """Connect in the name of a client on which the broker decides. Raises `MqttViolation`."""
        user = connect.username or ""
        password = (connect.password or b"").decode("utf-8", "replace")
        clean = connect.clean_start
        if connect.version == Version.MQTT_5:
            self._receive_max = connect.properties.receive_maximum or 65_535
            clean = connect.clean_start and not connect.properties.session_expiry_s
        will = connect.will and Will(connect.will.topic, connect.will.payload, min(connect.will.qos, 1))
        return await self._open(
            ConnectPacket(
                _V,
                broker_client_id(self._connection.client_id, user, is_device=False),
                clean,
                0,
                user,
                self._password(user, password, is_device=False),
                will,
            )
        )

    def _password(self, user: str, password: str, *, is_device: bool) -> bytes:
        facts = ClientFacts(
            user=user,
            client_id=self._connection.client_id,
            address=self._connection.address,
            issued=self._clock.now(),
            nonce=new_nonce(),
            is_device=is_device,
            password=password,
        )
        return sign(facts, self._broker.key).encode()

    async def _open(self, connect: ConnectPacket) -> ConnAck:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_S):
                await loop.create_connection(lambda: self, self._broker.host, self._broker.port, ssl=self._broker.tls)
                self._write(codec.encode(connect, _V))
                return await self._answer
        except (OSError, TimeoutError) as why:
            self.close()
            raise MqttViolation(ReasonCode.SERVER_UNAVAILABLE, f"no connection to the broker: {why}") from why

    def begin(self) -> None:
        """Pass on what the broker sends: the client has its CONNACK."""
        early, self._early = self._early or [], None
        for head, body in early:
            self._received(head, body)
        self.release("connack")

    # ── from the client ──────────────────────────────────────────────────────────────────────────────

    def subscribe(self, packet_id: int, granted: Sequence[Subscription], codes: list[int | None]) -> None:
        """Subscribe to what the rights allow; `codes` are the answers that the front gives itself."""
        if len(self._asked) >= _WAITING_MAX:
            raise MqttViolation(ReasonCode.QUOTA_EXCEEDED, "too many SUBSCRIBEs without an answer")
        self._asked[packet_id] = codes
        plain = tuple(Subscription(wanted.topic_filter, wanted.qos) for wanted in granted)
        self._write(codec.encode(Subscribe(packet_id, plain), _V))

    def forward(self, packet: Publish | Subscribe | Unsubscribe | Acknowledgement) -> None:
        """Pass a packet of the client on."""
        match packet:
            case Subscribe(packet_id, subscriptions):
                if any(wanted.topic_filter.startswith("$share/") for wanted in subscriptions):
                    raise MqttViolation(ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "a shared subscription")
                self.subscribe(packet_id, subscriptions, [None] * len(subscriptions))
            case Unsubscribe(packet_id, topic_filters):
                if len(self._unsubscribing) >= _WAITING_MAX:
                    raise MqttViolation(ReasonCode.QUOTA_EXCEEDED, "too many UNSUBSCRIBEs without an answer")
                self._unsubscribing[packet_id] = len(topic_filters)
                self._write(codec.encode(Unsubscribe(packet_id, topic_filters), _V))
            case Acknowledgement(kind, packet_id, code):
                if kind != PacketType.PUBREC or code >= 0x80:
                    self._outstanding.discard(packet_id)
                # What a client of 5.0 refuses is done with for the broker, which cannot be told so.
                if kind == PacketType.PUBREC and code >= 0x80:
                    self._write(codec.encode(Acknowledgement(PacketType.PUBREC, packet_id), _V))
                else:
                    self._write(codec.encode(Acknowledgement(kind, packet_id), _V))
                self._deliver_queued()
            case Publish():
                self._write(codec.encode(packet, _V))

    def end(self) -> None:
        """Disconnect in the client's name, so that its will is dropped."""
        self._write(codec.encode(Disconnect(), _V))

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if not self._answer.done():
            self._answer.cancel()
        if self._transport:
            self._transport.close()

    def hold(self, reason: str) -> None:
        """Stop reading from the broker: the client is slow."""
        self._holds.add(reason)
        if self._transport and not self._closed:
            self._transport.pause_reading()

    def release(self, reason: str) -> None:
        """Read on."""
        self._holds.discard(reason)
        if self._transport and not self._holds and not self._closed:
            self._transport.resume_reading()

    def _write(self, raw: bytes) -> None:
        if self._transport and not self._closed:
            self._transport.write(raw)

    # ── from the broker ──────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._closed:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            for head, body in self._reader.feed(data):
                if self._early is None or head >> 4 == PacketType.CONNACK:
                    self._received(head, body)
                else:
                    self._early.append((head, body))
                    self.hold("connack")
        except MqttViolation as why:
            self._connection.broker_lost(f"the broker breaks the protocol: {why}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(ConnAck(5))
        elif not self._closed:
            self._connection.broker_lost(str(exc or "the broker has closed the connection"))
        self._closed = True

    def _received(self, head: int, body: bytes) -> None:
        packet = codec.decode(head, body, _V)
        match packet:
            case ConnAck():
                if not self._answer.done():
                    self._answer.set_result(packet)
            case Publish():
                self._deliver(self._shown(packet))
            case SubAck(kind=PacketType.SUBACK, packet_id=packet_id, codes=answers):
                decided = self._asked.pop(packet_id, None)
                rest = iter(answers)
                codes = answers if decided is None else [next(rest, 0x80) if code is None else code for code in decided]
                self._connection.answer_subscribe(packet_id, tuple(codes))
            case SubAck(packet_id=packet_id):
                count = self._unsubscribing.pop(packet_id, 1)
                five = self._connection.version == Version.MQTT_5
                self._connection.send(SubAck(PacketType.UNSUBACK, packet_id, (0,) * count if five else ()))
            case Acknowledgement():
                self._connection.send(packet)
            case _:
                pass

    def _deliver(self, packet: Publish) -> None:
        if packet.qos and len(self._outstanding) >= self._receive_max and packet.packet_id not in self._outstanding:
            self._queue.append(packet)
            self.hold("receive maximum")
            return
        if self._connection.send(packet):
            if packet.qos:
                self._outstanding.add(packet.packet_id)
        elif packet.qos:  # as if the client had it: the broker would wait for its answer for ever
            kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
            self._write(codec.encode(Acknowledgement(kind, packet.packet_id), _V))

    def _deliver_queued(self) -> None:
        while self._queue and len(self._outstanding) < self._receive_max:
            self._deliver(self._queue.popleft())
        if not self._queue:
            self.release("receive maximum")
