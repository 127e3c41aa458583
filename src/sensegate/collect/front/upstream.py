"""The connection to the broker behind the front, for one client that subscribes: nats-server's MQTT 3.1.1.

It is opened at the first SUBSCRIBE of a device, and at once for a client that is no device. Packet ids pass through
unchanged in both directions: the broker alone numbers what it delivers, the client alone what it asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from sensegate.bus.client_facts import ClientFacts, new_nonce, sign
from sensegate.clock import Clock
from sensegate.collect.front import codec
from sensegate.collect.front.clients import BrokerClient
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
)
from sensegate.collect.front.subscriptions import ClientSubscriptions

OPEN_S = 5.0
"""Time-out of the connection to the broker."""
UNAVAILABLE = 3
"""Return code of CONNACK: the broker is unavailable, or has closed the connection without an answer."""
PACKET_BYTES_MAX = 16 * 1024**2
QUEUE_BYTES_MAX = 1024**2
"""Most bytes of messages beyond the client's Receive Maximum; then nothing is read from the broker."""
REPEAT_S = 30.0
"""Messages that are older are not repeated after a reconnect by the front: the broker does, once its `ack_wait` is
over, unless it has none of them any more."""
_WAITING_MAX = 4_096
"""Most SUBSCRIBEs and UNSUBSCRIBEs of a client that the broker has not answered."""
_PLAIN_ID = re.compile(r"[!-)+,/-=?-~-]{1,200}")
"""Client ids that nats-server accepts: no white space, ``.``, ``*`` or ``>``."""
_REFUSED = re.compile(r"[\s\x7f]")
"""Characters of topics at which the broker closes the connection."""
_V = Version.MQTT_3_1_1


class BrokerAddress(msgspec.Struct, frozen=True):
    """Address of the upstream broker, and the key that authenticates the front to it."""

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


def is_broker_topic(topic: str) -> bool:
    """Return whether the broker accepts a topic, or a part of a filter."""
    return not _REFUSED.search(topic)


def is_broker_filter(topic_filter: str) -> bool:
    """Return whether the broker accepts a topic filter."""
    return codec.is_valid_filter(topic_filter) and is_broker_topic(topic_filter)


ShownMessage = Callable[[Publish], Publish]
"""Returns a message of the broker with the topic that the client knows."""


def unchanged(packet: Publish) -> Publish:
    """Return a message as it is."""
    return packet


class Upstream(asyncio.Protocol):
    """The connection of one client to the broker."""

    def __init__(
        self,
        broker: BrokerAddress,
        client: BrokerClient,
        clock: Clock,
        subscriptions: ClientSubscriptions,
        shown: ShownMessage = unchanged,
    ) -> None:
        """Prepare a connection; `open_device` or `open_guest` opens it.

        Args:
            broker: where the broker listens.
            client: the client, on its connection to us.
            clock: the clock.
            subscriptions: those of the client.
            shown: returns a message of the broker with the topic that the client knows.
        """
        self._broker = broker
        self._client = client
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._reader = codec.PacketReader(PACKET_BYTES_MAX)
        self._answer: asyncio.Future[ConnAck] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, list[int | None]] = {}
        """Packet id of a SUBSCRIBE -> codes that the front has decided, None for what the broker decides."""
        self._unsubscribing: dict[int, tuple[int, ...]] = {}
        """Packet id of an UNSUBSCRIBE -> codes of the answer."""
        self._subscriptions = subscriptions
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outstanding: set[int] = set()
        self._unacknowledged = client.unacknowledged
        self._queue: deque[Publish] = deque()
        self._queue_bytes = 0
        self._receive_max = client.receive_maximum
        self._holds: set[str] = set()
        self._closed = False
        self._shown = shown
        self._early: list[tuple[int, bytes]] | None = []
        """Packets that came before the client's CONNACK; None: it has left."""

    async def open_device(self, device: str, *, clean: bool) -> ConnAck:
        """Connect in the name of a device that the front has admitted. Raises `MqttViolation`."""
        client_id = broker_client_id(self._client.client_id, device, is_device=True)
        connect = ConnectPacket(_V, client_id, clean, 0, device, self._password(device, "", is_device=True))
        return await self._open(connect)

    async def open_guest(self, connect: ConnectPacket, *, clean: bool) -> ConnAck:
        """Connect in the name of a client on which the broker decides. Raises `MqttViolation`."""
        user = connect.username or ""
        password = (connect.password or b"").decode("utf-8", "replace")
        return await self._open(
            ConnectPacket(
                _V,
                broker_client_id(self._client.client_id, user, is_device=False),
                clean,
                0,
                user,
                self._password(user, password, is_device=False),
            )
        )

    def _password(self, user: str, password: str, *, is_device: bool) -> bytes:
        facts = ClientFacts(
            user=user,
            client_id=self._client.client_id,
            address=self._client.address,
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
        """Pass on what the broker sends: the client has its CONNACK, and now what it has not acknowledged."""
        for packet in self._unacknowledged.recent(self._clock.monotonic() - REPEAT_S):
            self._deliver(msgspec.structs.replace(packet, duplicate=True))
        early, self._early = self._early or [], None
        for head, body in early:
            self._received(head, body)
        self.release("connack")

    # ── from the client ──────────────────────────────────────────────────────────────────────────────

    def subscribe(self, packet: Subscribe, codes: list[int | None], mount: str = "") -> None:
        """Subscribe to what the rights allow, and answer the client once the broker has answered.

        Args:
            packet: what the client sent.
            codes: the answers that the front gives itself; None: the broker decides.
            mount: what stands before the client's topics at the broker.
        """
        self._check_id(packet.packet_id)
        self._subscriptions.ask(packet, codes)
        self._asked[packet.packet_id] = codes
        plain = tuple(
            Subscription(f"{mount}{wanted.topic_filter}", wanted.qos)
            for wanted, code in zip(packet.subscriptions, codes, strict=True)
            if code is None
        )
        self._write(codec.encode(Subscribe(packet.packet_id, plain), _V))

    def unsubscribe(self, packet: Unsubscribe, mount: str = "") -> None:
        """End subscriptions; filters that the broker would not accept cannot be among them."""
        self._check_id(packet.packet_id)
        codes = self._subscriptions.remove(packet, self._client.version)
        known = tuple(f"{mount}{name}" for name in packet.topic_filters if is_broker_filter(name))
        if not known:
            self._client.send(SubAck(PacketType.UNSUBACK, packet.packet_id, codes))
            return
        self._unsubscribing[packet.packet_id] = codes
        self._write(codec.encode(Unsubscribe(packet.packet_id, known), _V))

    def _check_id(self, packet_id: int) -> None:
        """Raise `MqttViolation` where a packet id is in use, or too many packets are not answered."""
        if packet_id in self._asked or packet_id in self._unsubscribing:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"packet identifier {packet_id} is in use")
        if len(self._asked) + len(self._unsubscribing) >= _WAITING_MAX:
            raise MqttViolation(ReasonCode.QUOTA_EXCEEDED, "too many SUBSCRIBEs and UNSUBSCRIBEs without an answer")

    def forward(self, packet: Acknowledgement) -> None:
        """Pass an acknowledgement of the client on; what it refuses in 5.0 is done with for the broker."""
        self._unacknowledged.discard(packet.packet_id)
        if packet.kind != PacketType.PUBREC or packet.code >= ReasonCode.UNSPECIFIED_ERROR:
            self._outstanding.discard(packet.packet_id)
        self._write(codec.encode(Acknowledgement(packet.kind, packet.packet_id), _V))
        self._deliver_queued()

    async def end_session(self) -> None:
        """Disconnect, and return once the broker has closed the connection: it has discarded a clean session then."""
        self._write(codec.encode(Disconnect(), _V))
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                await self._ended
        if self._transport:
            self._transport.close()

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

    def pause_writing(self) -> None:
        """Pause reading from the client: the broker is slow."""
        self._client.hold_for_broker()

    def resume_writing(self) -> None:
        self._client.release_for_broker()

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
            self._client.broker_lost(f"the broker breaks the protocol: {why}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(ConnAck(UNAVAILABLE))
        elif not self._closed:
            self._client.broker_lost(str(exc or "the broker has closed the connection"))
        self._closed = True
        if not self._ended.done():
            self._ended.set_result(None)

    def _received(self, head: int, body: bytes) -> None:
        packet = codec.decode(head, body, _V)
        match packet:
            case ConnAck():
                if not self._answer.done():
                    self._answer.set_result(packet)
            case Publish():
                self._take(packet)
            case SubAck(kind=PacketType.SUBACK, packet_id=packet_id, codes=answers):
                self._subscriptions.answered(packet_id, answers)
                decided = self._asked.pop(packet_id, None)
                rest = iter(answers)
                codes = answers if decided is None else [next(rest, 0x80) if code is None else code for code in decided]
                self._client.answer_subscribe(packet_id, tuple(codes))
            case SubAck(packet_id=packet_id):
                self._client.send(SubAck(PacketType.UNSUBACK, packet_id, self._unsubscribing.pop(packet_id, ())))
            case Acknowledgement():
                self._client.send(packet)
            case _:
                pass

    def _take(self, packet: Publish) -> None:
        """Deliver a message of the broker, unless the client has it on this connection or did not ask for it."""
        if packet.duplicate and packet.packet_id in self._outstanding:
            return  # the broker repeats by the clock; a client may take its time
        shown = self._subscriptions.shown(self._shown(packet))
        if shown is None:
            self._acknowledge(packet)
            return
        if shown.qos:
            self._unacknowledged.add(shown, self._clock.monotonic())
        self._deliver(shown)

    def _deliver(self, packet: Publish) -> None:
        if packet.qos and len(self._outstanding) >= self._receive_max and packet.packet_id not in self._outstanding:
            self._queue.append(packet)
            self._queue_bytes += len(packet.payload)
            if self._queue_bytes > QUEUE_BYTES_MAX:
                self.hold("receive maximum")
            return
        if self._client.send(packet):
            if packet.qos:
                self._outstanding.add(packet.packet_id)
        else:
            self._unacknowledged.discard(packet.packet_id)
            self._acknowledge(packet)

    def _acknowledge(self, packet: Publish) -> None:
        """Answer a message that the client does not get: the broker would wait for its answer for ever."""
        if packet.qos:
            kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
            self._write(codec.encode(Acknowledgement(kind, packet.packet_id), _V))

    def _deliver_queued(self) -> None:
        while self._queue and len(self._outstanding) < self._receive_max:
            packet = self._queue.popleft()
            self._queue_bytes -= len(packet.payload)
            self._deliver(packet)
        if self._queue_bytes <= QUEUE_BYTES_MAX:
            self.release("receive maximum")
