"""One MQTT connection of a device: its packets in, its messages into the open batch, its answers out.

    CONNECT ─▶ admitted? ─▶ session, take-over ─▶ CONNACK
    PUBLISH ─▶ right? ─▶ open batch ══ stored ══▶ PUBACK, PUBREC        PUBREL ─▶ PUBCOMP
    SUBSCRIBE, UNSUBSCRIBE, acknowledgements of commands ─▶ the broker behind, by a connection of its own
    all packets of a client that is no device ─▶ `guests`

Answers leave in the order of the messages. A refused PUBLISH is answered too: with its reason in 5.0, and in 3.1.1,
which has no reasons, as if it had been taken; it is counted and alarmed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterable
from struct import Struct
from typing import TYPE_CHECKING, Any, cast

import structlog

from sensegate.collect.front import codec
from sensegate.collect.front.batcher import BYTES_MAX, LARGE, MESSAGES_MAX, BatchWriter
from sensegate.collect.front.broker_link import BrokerLink
from sensegate.collect.front.connect import accepted, check_connect, common_name, refused, session_expiry_s
from sensegate.collect.front.guests import GuestConversation
from sensegate.collect.front.packets import (
    NO_PROPERTIES,
    Acknowledgement,
    ConnectPacket,
    Disconnect,
    MqttViolation,
    PacketType,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Unsubscribe,
    Version,
    Will,
)
from sensegate.collect.front.rights import Admitted, KnownTopic, Rights
from sensegate.collect.front.sessions import MqttSession, SessionKey, UnacknowledgedMessages
from sensegate.collect.front.topic_aliases import TopicAliases
from sensegate.collect.front.upstream import ShownMessage, unchanged
from sensegate.collect.front.wills import PendingWill, store_will
from sensegate.collect.intake.batch import DUP, QOS_SHIFT, RETAIN, MessageProperties

if TYPE_CHECKING:
    from sensegate.collect.front.front import Front

_answer = Struct(">HH").pack
"""Returns a PUBACK or PUBREC without reason code: (type and length, packet id)."""
_PUBACK, _PUBREC = 0x4002, 0x5002
_FLAGS = tuple(
    (head >> 1 & 3) << QOS_SHIFT | (DUP if head & 8 else 0) | (RETAIN if head & 1 else 0) for head in range(0x30, 0x40)
)
"""Flags of a message in its batch, by the low half of the first byte of its PUBLISH."""

PACKETS_MAX = 256
"""Most packets of a connection in one turn of the loop: those of two bytes cost as much as messages."""
_PACKET_BYTES = 256
"""Bytes of a message that costs as much as a packet that waits."""
_LAST = (PacketType.PUBLISH, PacketType.DISCONNECT)
"""Packets that are handled after the end of their connection."""
_LAST_OF_ALL = (PacketType.DISCONNECT,)
"""Those of a client that is no device, whose messages the gateway would answer too late, or that we have closed on."""

_log = structlog.get_logger("collect")


class MqttConnection(asyncio.Protocol):
    """The MQTT connection of one client, from acceptance to its end: reads packets, writes answers, keeps limits."""

    _last: tuple[PacketType, ...] = ()
    """Packets that are still handled; empty: all, for the connection is there."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._limits = front.limits
        self._writer: BatchWriter = front.writer
        self._turns = front.turns
        self._transport = cast("asyncio.Transport", None)
        self._reader = codec.PacketReader(front.limits.packet_bytes_max)
        self._state = _WAITING
        self._early: list[tuple[int, bytes]] = []
        """Packets that came before the CONNECT was answered."""
        self._broker = self._link()
        self._guest: GuestConversation | None = None
        """Handles the packets of a client that is no device."""
        self._task: asyncio.Task[None] | None = None
        self._topics: dict[bytes, KnownTopic] = {}
        self._topics_bytes = 0
        self._unstored = 0
        self._holds: set[str] = set()
        # Chunks that wait for a turn of the loop, and packets before them that do.
        self._deferred: list[bytes] = []
        self._waiting: list[tuple[int, bytes]] = []
        self._client_packet_max = 0
        self._closed = False
        self._begun = False
        self._discarded = 0
        self.address = ""
        self.client_id = ""
        self.version = Version.MQTT_3_1_1
        """Version that the client speaks."""
        self.device = ""
        """Id of the device; empty: it is not admitted."""
        self.until = 0
        """End of the validity of the credential, µs UTC; 0: none."""
        self.rights: Rights | None = None
        """Rights of the device; None: the client is none."""
        self.key: SessionKey | None = None
        """Key of the session; None: the client is not admitted."""
        self.session = MqttSession()
        """State of the MQTT session, which outlives the connection."""
        self.aliased = TopicAliases(front.limits).resolve
        """Returns the topic of a PUBLISH with properties."""
        self.will = PendingWill(self._publish_will)
        self.identity_bytes = 0
        """Bytes of client id and credential, which a batch holds for each read."""
        self.receive_maximum = 65_535
        """Most messages that the client takes before it acknowledges."""
        self.born = 0
        """Time when the CONNECT arrived, µs UTC."""
        self.heard_at = 0.0
        self.keep_alive_s = 0
        self.closing_at = 0.0
        """Time when a connection that we close is aborted; 0: it is not closed."""

    # ── transport ────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self.heard_at = self._front.seconds
        self._transport.set_write_buffer_limits(high=self._limits.write_bytes_max // 4)
        if not self._front.accepted(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - of asyncio
        if self._task:
            self._task.cancel()
            self._task = None
        if self._state == _OPEN:
            self._take_last()
        self._turns.forget(self)
        self._closed = True
        self._writer.forget(self)
        self._broker.close()
        if self.key:
            self._front.end_session(self.key, self.session, self)
        if (delay_s := self.will.connection_lost(self.session.expiry_s)) and self.key:
            self._front.delay_will(self, self.key, delay_s)
        self._front.ended(self)

    def _take_last(self) -> None:
        """Handle what came before the end and waits: messages, or a DISCONNECT, after which there is no will."""
        self._last = _LAST_OF_ALL if self._guest or self.closing_at else _LAST
        self._waiting = self._early + self._waiting
        self._early = []
        while self._deferred or self._waiting:
            self.take_deferred()

    def _publish_will(self, will: Will) -> None:
        if self._guest:
            self._front.guest_wills.publish(self._guest.service, will)
        else:
            store_will(will, self, self._writer, self._front.clock.now())

    def _link(self, shown: ShownMessage = unchanged) -> BrokerLink:
        return BrokerLink(self, self._limits, self._front.hit, self._front.upstream, shown)

    def data_received(self, data: bytes) -> None:
        if self.is_connected:  # a CONNECT that comes byte by byte has no longer than one that does not come
            self.heard_at = self._front.seconds
        if self._deferred or self._waiting or not self._turns.admits(len(data)):
            self._defer(data)
        else:
            self._receive(data)

    def _defer(self, data: bytes) -> None:
        """Keep a chunk for a later turn of the loop."""
        if not self._deferred:
            self._turns.wait(self)
        self._deferred.append(data)
        self._hold("turn")

    @property
    def deferred_bytes(self) -> int:
        return sum(map(len, self._deferred)) + min(len(self._waiting), PACKETS_MAX) * _PACKET_BYTES

    def take_deferred(self) -> None:
        packets, self._waiting = self._waiting, []
        if packets:
            self._handle(packets)
        while self._deferred and not self._waiting:
            self._receive(self._deferred.pop(0))
        if self._waiting:
            self._turns.wait(self)
        else:
            self._release("turn")

    def _receive(self, data: bytes) -> None:
        if self.closing_at:
            self._discarded += len(data)
            if self._discarded > self._limits.write_bytes_max:
                self._transport.abort()
            return
        try:
            if not self._begun:
                self._check_first(data)
            packets = self._reader.feed(data)
        except MqttViolation as why:
            self._violated(why)
        else:
            self._handle(packets)

    def _handle(self, packets: list[tuple[int, bytes]]) -> None:
        """Handle packets of the client, as many as there may be in a turn of the loop; the rest waits."""
        if self._last:
            packets = [packet for packet in packets if packet[0] >> 4 in self._last]
        rest = packets[PACKETS_MAX:]
        if rest:
            packets = packets[:PACKETS_MAX]
        try:
            if self._task:
                self._early += packets
            elif self._state == _OPEN:
                self._take(packets)
            else:
                self._take_early(packets)
        except MqttViolation as why:
            self._violated(why)
            return
        if rest and not self._is_ending:
            self._waiting = rest
            self._turns.wait(self)
            self._hold("turn")

    def _check_first(self, data: bytes) -> None:
        """Require that the first packet is CONNECT before its rest has come."""
        self._begun = True
        if data[0] >> 4 != PacketType.CONNECT:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, "the first packet is not CONNECT")

    def eof_received(self) -> None:
        """Close: the client will send nothing more."""

    def pause_writing(self) -> None:
        self._hold("writing")
        self._broker.hold("writing")
        if self._transport.get_write_buffer_size() > self._limits.write_bytes_max:
            self._front.hit("write_bytes")
            self._transport.abort()

    def resume_writing(self) -> None:
        self._release("writing")
        self._broker.release("writing")

    def _hold(self, reason: str) -> None:
        if not self._holds and not self._closed:
            self._transport.pause_reading()
        self._holds.add(reason)

    def _release(self, reason: str) -> None:
        if reason not in self._holds:
            return
        self._holds.discard(reason)
        if not self._holds and not self._closed and not self._transport.is_closing():
            self.heard_at = self._front.seconds
            self._transport.resume_reading()

    @property
    def is_held(self) -> bool:
        """Return whether we have stopped reading, so that silence is not the client's."""
        return bool(self._holds)

    @property
    def _is_ending(self) -> bool:
        """Return whether it was lost, replaced or closed while its CONNECT waited."""
        return self._closed or bool(self.closing_at)

    @property
    def is_connected(self) -> bool:
        """Return whether its CONNECT was accepted."""
        return self._state == _OPEN

    # ── CONNECT ──────────────────────────────────────────────────────────────────────────────────────

    def _take_early(self, packets: list[tuple[int, bytes]]) -> None:
        if not packets:
            return
        (head, body), *self._early = packets
        self._state = _CONNECTING
        connect = cast("ConnectPacket", codec.decode(head, body, Version.MQTT_5))
        self.version = connect.version
        self.born = self._front.clock.now()
        self._hold("connect")
        self._task = asyncio.get_running_loop().create_task(self._connect(connect), name="mqtt connect")

    async def _connect(self, connect: ConnectPacket) -> None:
        try:
            await self._admit(connect)
            if self._is_ending:
                return
            self._state = _OPEN
            self._task = None
            self._take_held()
        except MqttViolation as why:
            self._violated(why)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
            self._release("connect")

    def _take_held(self) -> None:
        """Handle the packets that came meanwhile."""
        packets = self._early + self._waiting
        self._early, self._waiting = [], []
        self._handle(packets)

    async def _admit(self, connect: ConnectPacket) -> None:
        """Admit a client, take over its session, answer its CONNECT. Raises `MqttViolation`."""
        front, properties = self._front, connect.properties
        check_connect(connect, self._limits, front.hit)
        self.client_id = connect.client_id or f"sg-{secrets.token_hex(10)}"
        self._client_packet_max = properties.maximum_packet_size or 0
        self.receive_maximum = properties.receive_maximum or 65_535
        admitted = await front.admission.admit(
            connect, self.address, common_name(self._transport.get_extra_info("peercert"))
        )
        if not isinstance(admitted, Admitted):
            await self._pass_through(connect)
            return
        self.device, self.until, self.rights = admitted.device, admitted.until, admitted.rights
        if connect.will and not admitted.rights.publish.matches(connect.will.topic):
            self.note_refusal(admitted.device, "publish", connect.will.topic)
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "the topic of the will is not one of the device's")
        self.identity_bytes = len(self.client_id.encode()) + len(admitted.device.encode())
        self.key = SessionKey(admitted.device, self.client_id)
        await front.take_over(self, self.key, clean=connect.clean_start)
        if self._is_ending:
            return
        present = await self._open_session(connect, self.key)
        if self._is_ending:
            return
        self.will.keep(connect.will)
        self.keep_alive_s = connect.keep_alive_s
        self._send_connack(connect, session_present=present)

    async def _open_session(self, connect: ConnectPacket, key: SessionKey) -> bool:
        """Continue the session of a device or begin one; return whether it is present."""
        front = self._front
        known = front.sessions.find(key, front.seconds) or front.remembered(key)
        present = known is not None and not connect.clean_start
        if known and present:
            self.session = known
        self.session.expiry_s = session_expiry_s(connect, self._limits.session_expiry_max_s)
        if known and known.subscribed and not present:
            await self._broker.discard_session()
        self.session.holder = self
        front.sessions.put(key, self.session)
        if present and self.session.subscribed:
            present = await self._broker.open_device(goes_on=True)
        if not await front.remember(key, self.session):
            # Another front may have released these ids: a new message with one of them is no repetition. A repeated
            # message is stored once more and found to be a duplicate by its content.
            self.session.received.clear()
        return present

    def _send_connack(self, connect: ConnectPacket, *, session_present: bool) -> None:
        qos_max = self._guest.service.user.qos_max if self._guest else 2
        self._transport.write(
            accepted(
                connect,
                self.client_id,
                self._limits,
                session_present=session_present,
                maximum_qos=None if qos_max == 2 else qos_max,
            )
        )
        self._broker.begin()

    async def _pass_through(self, connect: ConnectPacket) -> None:
        """Let the broker behind the front authenticate a client that is no device. Raises `MqttViolation`."""
        front, user = self._front, connect.username or ""
        service = front.conversation(user)
        if connect.will and connect.will.qos > service.user.qos_max and self.version == Version.MQTT_5:
            raise MqttViolation(ReasonCode.QOS_NOT_SUPPORTED, "a will at QoS 2")
        self._broker = self._link(service.shown)
        self._guest = GuestConversation(self, self._broker, service)
        key = SessionKey(user, self.client_id)
        # Of a session of 3.1.1 that no front remembers the broker knows all there is.
        known = front.sessions.find(key, front.seconds) or front.remembered(key)
        goes_on = not connect.clean_start and (known is not None or self.version != Version.MQTT_5)
        if known and goes_on:
            self.session.subscriptions, self.session.unacknowledged = known.subscriptions, known.unacknowledged
        expiry_s = session_expiry_s(connect, self._limits.session_expiry_max_s)
        async with front.arriving(key):
            present = await self._broker.open_guest(connect, goes_on=goes_on, keeps=expiry_s > 0)
            self.key, self.session.expiry_s, self.session.holder = key, expiry_s, self
            front.sessions.put(key, self.session)
            await front.take_over_guest(self, key, clean=connect.clean_start)
        if self._is_ending:
            return
        await front.remember(key, self.session)
        self.will.keep(connect.will)
        self.keep_alive_s = connect.keep_alive_s
        self._send_connack(connect, session_present=present)

    # ── packets ──────────────────────────────────────────────────────────────────────────────────────

    def _take(self, packets: list[tuple[int, bytes]]) -> None:  # noqa: PLR0912, PLR0915 - calls would cost as much as a message
        """Handle the packets of one read; messages end up in the open batch."""
        if self._guest is not None:
            self._guest.take(packets)
            return
        writer, version = self._writer, self.version
        batch = writer.open
        builder = batch.builder
        topics = self._topics
        answers = b""
        waiting = count = size = 0
        remaining = iter(packets)
        try:
            for head, body in remaining:
                if head & 0xF0 != 0x30:
                    self._control(head, body)
                    if self._task:  # the rest waits for the broker's answer
                        self._early += remaining
                    if self.closing_at or self._closed:
                        break
                    continue
                raw, qos, packet_id, properties, payload = codec.split_publish(head, body, version)
                if properties is not NO_PROPERTIES:
                    raw = self.aliased(raw, properties)
                    size += len(raw)
                if len(body) > LARGE and batch.bytes + size + len(body) > BYTES_MAX:
                    if count or answers:
                        # It may raise: what it has ended must not be ended once more behind it.
                        ended = answers, waiting, count, size
                        answers = b""
                        waiting = count = size = 0
                        self._end_read(*ended)
                    writer.reserve(len(body))
                    batch = writer.open
                    builder = batch.builder
                topic = topics.get(raw) or self._learn(raw)
                if not topic.is_allowed or (not qos and not topic.best_effort):
                    answers += self._refuse(topic, qos, packet_id)
                    waiting += qos > 0
                    continue
                if qos == 1:
                    answers += _answer(_PUBACK, packet_id)
                elif qos == 2:
                    answers += _answer(_PUBREC, packet_id)
                    if packet_id in self.session.received:
                        waiting += 1
                        continue  # sent again; the answer stands behind that to the first one
                    self.session.received.add(packet_id)
                builder.topics.append(topic.name)
                builder.payloads.append(payload)
                builder.flags.append(packet_id | _FLAGS[head & 15])
                if properties is not NO_PROPERTIES and (properties.content_type or properties.user):
                    builder.properties[len(builder) - 1] = MessageProperties(
                        properties.content_type or "", properties.user
                    )
                count += 1
                waiting += qos > 0
                size += len(body)
                if batch.bytes + size >= BYTES_MAX or len(builder.topics) >= MESSAGES_MAX:
                    ended = answers, waiting, count, size
                    answers = b""
                    waiting = count = size = 0
                    self._end_read(*ended)
                    batch = writer.open
                    builder = batch.builder
        finally:
            if count or answers:
                self._end_read(answers, waiting, count, size)

    def _end_read(self, answers: bytes, waiting: int, count: int, size: int) -> None:
        """End a read, or a part of it: its messages and answers are the writer's. Raises `MqttViolation`."""
        writer = self._writer
        self._unstored += waiting  # also what is not taken: its answer waits for those before it
        if count:
            writer.end_read(
                self,
                client=self.client_id,
                credential=self.device,
                arrival=self._front.clock.now(),
                answers=answers,
                waiting=waiting,
                size=size + self.identity_bytes,
            )
        else:
            writer.answer(self, answers, waiting)
        inflight_max = self._limits.inflight_max
        if self._unstored > inflight_max or len(self.session.received) > inflight_max:
            if self.version == Version.MQTT_5:
                raise MqttViolation(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "more messages than the Receive Maximum")
            if self._unstored > inflight_max:
                self._hold("inflight")
        if writer.is_congested:
            self._front.hit("queue_bytes")
            writer.hold(self)
            self._hold("queue")

    def _learn(self, raw: bytes) -> KnownTopic:
        """Return a topic with what the rights say; it is cached where it is allowed."""
        name = codec.check_topic(raw)
        rights = cast("Rights", self.rights)
        if len(raw) > self._limits.topic_bytes_max:
            self._front.hit("topic_bytes")
            allowed = False
        else:
            allowed = rights.publish.matches(name)
        topic = KnownTopic(name, is_allowed=allowed, best_effort=allowed and rights.best_effort.matches(name))
        if not allowed:
            return topic
        if len(self._topics) >= self._limits.topics_max or self._topics_bytes > self._limits.topics_bytes_max:
            self._topics.clear()
            self._topics_bytes = 0
        self._topics[raw] = topic
        self._topics_bytes += len(raw)
        return topic

    def _refuse(self, topic: KnownTopic, qos: int, packet_id: int) -> bytes:
        """Return the answer to a message that is not taken."""
        if not topic.is_allowed:
            self.note_refusal(self.device, "publish", topic.name)
        if not qos:
            return b""
        kind = PacketType.PUBACK if qos == 1 else PacketType.PUBREC
        code = ReasonCode.NOT_AUTHORIZED if self.version == Version.MQTT_5 else 0
        return codec.encode(Acknowledgement(kind, packet_id, code), self.version)

    def _control(self, head: int, body: bytes) -> None:
        """Handle a packet that is no PUBLISH."""
        kind = head >> 4
        if kind == PacketType.PINGREQ and not body and not head & 15:
            self.answer_ping()
            return
        packet = codec.decode(head, body, self.version)
        match packet:
            case Acknowledgement(kind=PacketType.PUBREL, packet_id=packet_id):
                known = packet_id in self.session.received
                self.session.received.discard(packet_id)
                code = 0 if known or self.version != Version.MQTT_5 else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
                answer = Acknowledgement(PacketType.PUBCOMP, packet_id, code)
                self._transport.write(codec.encode(answer, self.version))
            case Acknowledgement():
                self._broker.forward(packet)
            case Subscribe():
                self._broker.subscribe(packet, self._broker.limit(packet))
            case Unsubscribe():
                self._broker.unsubscribe(packet)
            case Disconnect():
                self.disconnected(packet)
            case _:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"a client sends {PacketType(kind).name}")

    def disconnected(self, packet: Disconnect) -> None:
        """Close after the client's DISCONNECT. Raises `MqttViolation`."""
        expiry_s = packet.properties.session_expiry_s
        if expiry_s is not None:
            if expiry_s and not self.session.expiry_s:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, "the session expiry was 0 in CONNECT")
            self.session.expiry_s = min(expiry_s, self._limits.session_expiry_max_s)
        if packet.code != ReasonCode.DISCONNECT_WITH_WILL:
            self.will.drop()
        self.closing_at = self._front.seconds + self._limits.close_timeout_s
        self._transport.close()

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────

    def answer_subscribe(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """Answer a SUBSCRIBE with a code for each filter."""
        self.send(SubAck(PacketType.SUBACK, packet_id, tuple(self._code(code) for code in codes)))

    def _code(self, code: int) -> int:
        if self.version != Version.MQTT_5:
            return min(code, 0x80)
        return ReasonCode.NOT_AUTHORIZED if code == ReasonCode.UNSPECIFIED_ERROR else code

    async def remember_session(self) -> None:
        """Announce the session to all fronts, if it outlives the connection."""
        if self.key and self.session.expiry_s:
            await self._front.remember(self.key, self.session)

    def defer(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Keep packets until the work of `wait_for` is done."""
        self._early += packets

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Handle something that has to wait; the client is not read meanwhile."""
        self._hold("broker")

        async def until_done() -> None:
            try:
                await work
                self._task = None
                if not self._closed:
                    self._take_held()
            except MqttViolation as why:
                self._violated(why)
            finally:
                if self._task is asyncio.current_task():
                    self._task = None
                if self._task is None:
                    self._release("broker")

        self._task = asyncio.get_running_loop().create_task(until_done(), name="mqtt broker")

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────

    def acknowledge(self, answers: bytes, count: int) -> None:
        self._unstored -= count
        if self._closed or self.closing_at:
            return
        self._transport.write(answers)
        if self._holds and self._unstored <= self._limits.inflight_max // 2:
            self._release("inflight")

    def resume(self) -> None:
        self._release("queue")

    def send(self, packet: Publish | SubAck | Acknowledgement) -> bool:
        """Send a packet of the broker behind; return False where it is larger than the client takes."""
        if self._closed or self.closing_at:
            return True
        raw = codec.encode(packet, self.version)
        if self._client_packet_max and len(raw) > self._client_packet_max:
            return False
        self._transport.write(raw)
        return True

    def note_refusal(self, client: str, operation: str, topic: str) -> None:
        """Count and alarm that a client has no right to publish or subscribe to a topic."""
        self._front.refused(client, operation, topic, self.address)

    def answer_ping(self) -> None:
        """Answer a PINGREQ."""
        self._transport.write(b"\xd0\x00")

    def broker_lost(self, reason: str) -> None:
        """Disconnect the client: its connection to the broker behind is lost, and it has to subscribe again.

        A client that is no device may have been taken over: the broker closed the connection then, and 5.0 is told so.
        """
        if self._closed or self.closing_at:
            return
        _log.info("client has lost its connection to the broker", client_id=self.client_id, reason=reason)
        if self._guest is not None and self.is_connected and self.version == Version.MQTT_5:
            self._front.cut_off(self)
        else:
            self.close_cut_off()

    def close_cut_off(self) -> None:
        """Disconnect the client because the broker is away."""
        self.session.unacknowledged.clear()  # a broker that begins anew may give their packet ids to others
        self.close(ReasonCode.SERVER_BUSY)

    def hold_for_broker(self) -> None:
        """Read no more: the broker behind does not take what the client sends."""
        self._hold("broker is slow")

    def release_for_broker(self) -> None:
        """Read on."""
        self._release("broker is slow")

    @property
    def unacknowledged(self) -> UnacknowledgedMessages:
        """Messages of the session that the client has not acknowledged."""
        return self.session.unacknowledged

    def change_rights(self, admitted: Admitted, *, subscriptions_differ: bool) -> None:
        """Apply changed rights. A client with subscriptions is disconnected if they differ: the broker has the old."""
        self.device, self.until, self.rights = admitted.device, admitted.until, admitted.rights
        self._topics.clear()
        self._topics_bytes = 0
        if self._broker.is_open and subscriptions_differ:
            self.close(ReasonCode.ADMINISTRATIVE_ACTION)

    def _violated(self, why: MqttViolation) -> None:
        if self._closed:
            return
        self._front.violated(self, why)
        if self._state == _OPEN:
            self.close(why.reason)
            return
        answer = refused(why, self.version) if self._state == _CONNECTING else b""
        if answer:
            self._transport.write(answer)
        self._shut()

    def close(self, reason: ReasonCode) -> None:
        """Disconnect the client for a reason, which 5.0 tells it."""
        if self._closed or self.closing_at:
            return
        if self.version == Version.MQTT_5 and self._state == _OPEN:
            if reason == ReasonCode.SERVER_UNAVAILABLE:  # of CONNACK alone (MQTT 5.0, table 2-6)
                reason = ReasonCode.SERVER_BUSY
            self._transport.write(codec.encode(Disconnect(reason), self.version))
        self._shut()

    def _shut(self) -> None:
        """Close our side, and read on until the client has closed its own: a reset would destroy what we have sent."""
        self.closing_at = self._front.seconds + self._limits.close_timeout_s
        self._front.closing(self)
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has gone
            self._transport.close()
            return
        for reason in tuple(self._holds):
            self._release(reason)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def stop_reading(self) -> None:
        """Take nothing more; a connection that is closing is read on until the client has closed its side."""
        if not self.closing_at:
            self._hold("stop")


_WAITING, _CONNECTING, _OPEN = range(3)
