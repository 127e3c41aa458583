"""One MQTT connection of a device: its packets in, its messages into the open batch, its answers out.

    CONNECT ─▶ admitted? ─▶ session, take-over ─▶ CONNACK
    PUBLISH ─▶ right? ─▶ open batch ══ stored ══▶ PUBACK, PUBREC        PUBREL ─▶ PUBCOMP
    SUBSCRIBE, UNSUBSCRIBE, acknowledgements of commands ─▶ the broker behind, by a connection of its own

Answers leave in the order of the messages. A refused PUBLISH is answered too: with its reason in 5.0, and in 3.1.1,
which has no reasons, as if it had been taken; it is counted and alarmed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import structlog

from sensegate.collect.front import codec
from sensegate.collect.front.batcher import BYTES_MAX, LARGE, MESSAGES_MAX, BatchWriter
from sensegate.collect.front.guests import BROKER_QOS_MAX, GuestConversation
from sensegate.collect.front.packets import (
    NO_PROPERTIES,
    Acknowledgement,
    ConnAck,
    ConnectPacket,
    Disconnect,
    MqttViolation,
    PacketProperties,
    PacketType,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Unsubscribe,
    Version,
    Will,
)
from sensegate.collect.front.rights import Admitted, Rights
from sensegate.collect.front.sessions import NEVER, MqttSession, SessionKey, UnacknowledgedMessages
from sensegate.collect.front.subscriptions import ClientSubscriptions
from sensegate.collect.front.upstream import Upstream, is_broker_filter
from sensegate.collect.intake.batch import DUP, QOS_SHIFT, RETAIN, WILL, MessageProperties

if TYPE_CHECKING:
    from sensegate.collect.front.front import Front
    from sensegate.collect.front.services import ServiceConversation

BrokerConnect = Callable[[Upstream, bool], Awaitable[ConnAck]]
"""Opens a connection to the broker behind; the flag asks for a clean session."""

RETURN_CODES = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,
    ReasonCode.SERVER_UNAVAILABLE: 3,
    ReasonCode.SERVER_BUSY: 3,
    ReasonCode.QUOTA_EXCEEDED: 3,
    ReasonCode.CONNECTION_RATE_EXCEEDED: 3,
}
"""Return codes of CONNACK before 5.0; all other reasons: 5, not authorized."""
_NOT_AUTHORIZED = 5
_PUBACK, _PUBREC = b"\x40\x02", b"\x50\x02"

_log = structlog.get_logger("collect")


class _Topic:
    """A topic of a connection with what its rights say."""

    __slots__ = ("best_effort", "is_allowed", "name")

    def __init__(self, name: str, *, is_allowed: bool, best_effort: bool) -> None:
        self.name = name
        self.is_allowed = is_allowed
        self.best_effort = best_effort


class MqttConnection(asyncio.Protocol):
    """A connection from its acceptance to its end."""

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
        self._version: Version = Version.MQTT_3_1_1
        self._admitted: Admitted | None = None
        self._rights: Rights | None = None
        self._session = MqttSession()
        self._key: SessionKey | None = None
        self._will: Will | None = None
        self._upstream: Upstream | None = None
        self._subscriptions: ClientSubscriptions | None = None
        self._guest = GuestConversation(self)
        """Handles the packets of a client that is no device."""
        self._task: asyncio.Task[None] | None = None
        self._topics: dict[bytes, _Topic] = {}
        self._topics_bytes = 0
        self._aliases: dict[int, bytes] = {}
        self._unstored = 0
        self._holds: set[str] = set()
        self._deferred: list[bytes] = []
        """Chunks that wait for a turn of the loop."""
        self._client_packet_max = 0
        self._identity_bytes = 0
        """Bytes of client id and credential, which a batch holds for each read."""
        self._closed = False
        self._begun = False
        self._discarded = 0
        self.address = ""
        self.client_id = ""
        self.receive_maximum = 65_535
        """Most messages that the client takes before it acknowledges."""
        self.born = 0
        """When the CONNECT arrived, µs UTC."""
        self.heard_at = 0.0
        self.keep_alive_s = 0
        self.closing_at = 0.0
        """When a connection that we close is aborted; 0: it is not closed."""

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
        if self._deferred:
            # It came before the end: messages, or a DISCONNECT, after which there is no will.
            self._turns.forget(self)
            self.take_deferred()
        self._closed = True
        self._writer.forget(self)
        if self._task:
            self._task.cancel()
        if self._upstream:
            self._upstream.close()
        if self._key:
            self._front.end_session(self._key, self._session, self)
        self._lose_will()
        self._front.ended(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._front.seconds
        if self._deferred or not self._turns.admits(len(data)):
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
        return sum(map(len, self._deferred))

    def take_deferred(self) -> None:
        chunks, self._deferred = self._deferred, []
        self._release("turn")
        for chunk in chunks:
            self._receive(chunk)

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
            if self._task:
                self._early += packets
            elif self._state == _OPEN:
                self._take(packets)
            else:
                self._take_early(packets)
        except MqttViolation as why:
            self._violated(why)

    def _check_first(self, data: bytes) -> None:
        """Require that the first packet is CONNECT before its rest has come."""
        self._begun = True
        if data[0] >> 4 != PacketType.CONNECT:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, "the first packet is not CONNECT")

    def eof_received(self) -> None:
        """Close: the client will send nothing more."""

    def pause_writing(self) -> None:
        self._hold("writing")
        if self._upstream:
            self._upstream.hold("writing")
        if self._transport.get_write_buffer_size() > self._limits.write_bytes_max:
            self._front.hit("write_bytes")
            self._transport.abort()

    def resume_writing(self) -> None:
        self._release("writing")
        if self._upstream:
            self._upstream.release("writing")

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
        """Whether we do not read at the moment, so that silence is not the client's."""
        return bool(self._holds)

    @property
    def _is_ending(self) -> bool:
        """Whether it was lost, or closed, while its CONNECT waited: for a newer one, or as the device was disabled."""
        return self._closed or bool(self.closing_at)

    @property
    def is_connected(self) -> bool:
        """Whether its CONNECT was accepted."""
        return self._state == _OPEN

    @property
    def device(self) -> str:
        """Id of the device; empty: it is not admitted."""
        return self._admitted.device if self._admitted else ""

    @property
    def until(self) -> int:
        """End of the validity of the credential, µs UTC; 0: none."""
        return self._admitted.until if self._admitted else 0

    # ── CONNECT ──────────────────────────────────────────────────────────────────────────────────────

    def _take_early(self, packets: list[tuple[int, bytes]]) -> None:
        if not packets:
            return
        (head, body), *self._early = packets
        self._state = _CONNECTING
        connect = cast("ConnectPacket", codec.decode(head, body, Version.MQTT_5))
        self._version = connect.version
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
        early, self._early = self._early, []
        self._take(early)

    async def _admit(self, connect: ConnectPacket) -> None:
        """Admit a client, take over its session, answer its CONNECT. Raises `MqttViolation`."""
        front, properties = self._front, connect.properties
        if self._is_anonymous_and_persistent(connect):
            raise MqttViolation(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier")
        if len(connect.client_id.encode()) > self._limits.client_id_bytes_max:
            front.hit("client_id_bytes")
            raise MqttViolation(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "the client identifier is too long")
        if properties.authentication_method is not None:
            raise MqttViolation(ReasonCode.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported")
        self.client_id = connect.client_id or f"sg-{secrets.token_hex(10)}"
        self._client_packet_max = properties.maximum_packet_size or 0
        self.receive_maximum = properties.receive_maximum or 65_535
        admitted = await front.admission.admit(connect, self.address, self._common_name())
        if not isinstance(admitted, Admitted):
            await self._pass_through(connect)
            return
        self._admitted, self._rights = admitted, admitted.rights
        if connect.will and not admitted.rights.publish.matches(connect.will.topic):
            self.note_refusal(admitted.device, "publish", connect.will.topic)
            raise MqttViolation(ReasonCode.NOT_AUTHORIZED, "the topic of the will is not one of the device's")
        self._identity_bytes = len(self.client_id.encode()) + len(admitted.device.encode())
        self._key = SessionKey(admitted.device, self.client_id)
        await front.take_over(self, self._key, clean=connect.clean_start)
        if self._is_ending:
            return
        present = await self._open_session(connect, self._key)
        if self._is_ending:
            return
        self._will = connect.will
        self.keep_alive_s = connect.keep_alive_s
        self._send_connack(connect, session_present=present)

    @staticmethod
    def _is_anonymous_and_persistent(connect: ConnectPacket) -> bool:
        if connect.client_id or connect.version == Version.MQTT_5:
            return False
        return connect.version == Version.MQTT_3_1 or not connect.clean_start

    def _common_name(self) -> str:
        """Return the common name of the client certificate; empty: none was shown."""
        shown: Any = self._transport.get_extra_info("peercert")
        for parts in shown.get("subject", ()) if shown else ():
            for name, value in parts:
                if name == "commonName":
                    return str(value)
        return ""

    async def _open_session(self, connect: ConnectPacket, key: SessionKey) -> bool:
        """Continue the session of a device or begin one; return whether it is present."""
        front = self._front
        known = front.sessions.find(key, front.seconds) or front.remembered(key)
        present = known is not None and not connect.clean_start
        if known and present:
            self._session = known
        self._session.expiry_s = self._expiry_of(connect)
        if known and known.subscribed and not present:
            await self._discard_at_broker()
        self._session.holder = self
        front.sessions.put(key, self._session)
        if present and self._session.subscribed:
            present = await self._open_upstream(goes_on=True)
        if not await front.remember(key, self._session):
            # Another front may have released these ids: a new message with one of them is no repetition. A repeated
            # message is stored once more and found to be a duplicate by its content.
            self._session.received.clear()
        return present

    def _expiry_of(self, connect: ConnectPacket) -> int:
        """Return for how many seconds a session is to live without a connection."""
        expiry_s = connect.properties.session_expiry_s or 0
        if connect.version != Version.MQTT_5:
            expiry_s = 0 if connect.clean_start else NEVER
        return min(expiry_s, self._limits.session_expiry_max_s)

    def _send_connack(self, connect: ConnectPacket, *, session_present: bool) -> None:
        properties = NO_PROPERTIES
        if self._version == Version.MQTT_5:
            limits, wanted = self._limits, connect.properties.session_expiry_s
            capped = wanted is not None and wanted > limits.session_expiry_max_s
            properties = PacketProperties(
                session_expiry_s=limits.session_expiry_max_s if capped else None,
                receive_maximum=min(limits.inflight_max, 65_535),
                maximum_packet_size=limits.packet_bytes_max,
                assigned_client_id=None if connect.client_id else self.client_id,
                topic_alias_maximum=limits.topic_aliases_max,
                maximum_qos=BROKER_QOS_MAX if self._rights is None and self._guest.service is None else None,
                shared_available=0,
            )
        self._transport.write(codec.encode(ConnAck(0, session_present, properties), self._version))
        if self._upstream:
            self._upstream.begin()

    async def _pass_through(self, connect: ConnectPacket) -> None:
        """Let the broker behind the front authenticate a client that is no device."""
        front, user = self._front, connect.username or ""
        if connect.will and connect.will.qos > BROKER_QOS_MAX and self._version == Version.MQTT_5:
            raise MqttViolation(ReasonCode.QOS_NOT_SUPPORTED, "a will at QoS 2")
        self._guest.service = front.service_client(user)
        key = SessionKey(user, self.client_id)
        # Of a session of 3.1.1 that no front remembers the broker knows all there is.
        known = front.sessions.find(key, front.seconds) or front.remembered(key)
        goes_on = not connect.clean_start and (known is not None or self._version != Version.MQTT_5)
        if known and goes_on:
            self._session.subscriptions, self._session.unacknowledged = known.subscriptions, known.unacknowledged
        expiry_s = self._expiry_of(connect)
        answer = await self._reach_broker(
            lambda upstream, clean: upstream.open_guest(connect, clean=clean), goes_on=goes_on, keeps=expiry_s > 0
        )
        if answer.code:
            reason = ReasonCode.NOT_AUTHORIZED if answer.code > 3 else ReasonCode.SERVER_UNAVAILABLE
            raise MqttViolation(reason, "the broker refuses the client")
        if not answer.session_present:
            self._session.subscriptions.clear()
            self._session.unacknowledged.clear()
        self._key, self._session.expiry_s, self._session.holder = key, expiry_s, self
        front.sessions.put(key, self._session)
        await front.remember(key, self._session)
        self.keep_alive_s = connect.keep_alive_s
        self._send_connack(connect, session_present=answer.session_present)

    # ── packets ──────────────────────────────────────────────────────────────────────────────────────

    def _take(self, packets: list[tuple[int, bytes]]) -> None:  # noqa: PLR0912, PLR0915 - calls would cost as much as a message
        """Handle the packets of one read; messages end up in the open batch."""
        if self._rights is None:
            self._guest.take(packets)
            return
        writer, version = self._writer, self._version
        batch = writer.open
        builder = batch.builder
        topics = self._topics
        answers = bytearray()
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
                        self._end_read(bytes(answers), waiting, count, size)
                        answers.clear()
                        waiting = count = size = 0
                    writer.reserve(len(body))
                    batch = writer.open
                    builder = batch.builder
                topic = topics.get(raw) or self._learn(raw)
                if not topic.is_allowed or (not qos and not topic.best_effort):
                    answers += self._refuse(topic, qos, packet_id)
                    continue
                if qos == 1:
                    answers += _PUBACK + packet_id.to_bytes(2)
                elif qos == 2:
                    answers += _PUBREC + packet_id.to_bytes(2)
                    if packet_id in self._session.received:
                        continue  # sent again; the answer stands behind that to the first one
                    self._session.received.add(packet_id)
                builder.topics.append(topic.name)
                builder.payloads.append(payload)
                builder.flags.append(
                    packet_id | qos << QOS_SHIFT | (DUP if head & 8 else 0) | (RETAIN if head & 1 else 0)
                )
                if properties is not NO_PROPERTIES and (properties.content_type or properties.user):
                    builder.properties[len(builder) - 1] = MessageProperties(
                        properties.content_type or "", properties.user
                    )
                count += 1
                waiting += qos > 0
                size += len(body)
                if batch.bytes + size >= BYTES_MAX or len(builder) >= MESSAGES_MAX:
                    self._end_read(bytes(answers), waiting, count, size)
                    answers.clear()
                    waiting = count = size = 0
                    batch = writer.open
                    builder = batch.builder
        finally:
            if count or answers:
                self._end_read(bytes(answers), waiting, count, size)

    def _end_read(self, answers: bytes, waiting: int, count: int, size: int) -> None:
        writer = self._writer
        if count:
            self._unstored += waiting
            writer.end_read(
                self,
                client=self.client_id,
                credential=self.device,
                arrival=self._front.clock.now(),
                answers=answers,
                waiting=waiting,
                size=size + self._identity_bytes,
            )
        else:
            writer.answer(self, answers)
        if max(self._unstored, len(self._session.received)) > self._limits.inflight_max:
            if self._version == Version.MQTT_5:
                raise MqttViolation(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "more messages than the Receive Maximum")
            if self._unstored > self._limits.inflight_max:
                self._hold("inflight")
        if writer.is_congested:
            self._front.hit("queue_bytes")
            writer.hold(self)
            self._hold("queue")

    def aliased(self, raw: bytes, properties: PacketProperties) -> bytes:
        """Return the topic of a PUBLISH with properties, which may have an alias."""
        if properties.subscription_ids:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, "a client sends a subscription identifier")
        if properties.response_topic is not None:
            codec.check_topic(properties.response_topic.encode())
        alias = properties.topic_alias
        if alias is None:
            return raw
        if alias > self._limits.topic_aliases_max:
            raise MqttViolation(ReasonCode.TOPIC_ALIAS_INVALID, f"topic alias {alias}")
        if len(raw) > self._limits.topic_bytes_max:
            raise MqttViolation(ReasonCode.TOPIC_NAME_INVALID, "a topic with an alias is too long")
        if raw:
            self._aliases[alias] = raw
            return raw
        if alias not in self._aliases:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"topic alias {alias} stands for no topic")
        return self._aliases[alias]

    def _learn(self, raw: bytes) -> _Topic:
        """Return a topic with what the rights say; it is cached where it is allowed."""
        name = codec.check_topic(raw)
        rights = cast("Rights", self._rights)
        if len(raw) > self._limits.topic_bytes_max:
            self._front.hit("topic_bytes")
            allowed = False
        else:
            allowed = rights.publish.matches(name)
        topic = _Topic(name, is_allowed=allowed, best_effort=allowed and rights.best_effort.matches(name))
        if not allowed:
            return topic
        if len(self._topics) >= self._limits.topics_max or self._topics_bytes > self._limits.topics_bytes_max:
            self._topics.clear()
            self._topics_bytes = 0
        self._topics[raw] = topic
        self._topics_bytes += len(raw)
        return topic

    def _refuse(self, topic: _Topic, qos: int, packet_id: int) -> bytes:
        """Return the answer to a message that is not taken."""
        if not topic.is_allowed:
            self.note_refusal(self.device, "publish", topic.name)
        if not qos:
            return b""
        kind = PacketType.PUBACK if qos == 1 else PacketType.PUBREC
        code = ReasonCode.NOT_AUTHORIZED if self._version == Version.MQTT_5 else 0
        return codec.encode(Acknowledgement(kind, packet_id, code), self._version)

    def _control(self, head: int, body: bytes) -> None:
        """Handle a packet that is no PUBLISH."""
        kind = head >> 4
        if kind == PacketType.PINGREQ and not body and not head & 15:
            self.answer_ping()
            return
        packet = codec.decode(head, body, self._version)
        match packet:
            case Acknowledgement(kind=PacketType.PUBREL, packet_id=packet_id):
                known = packet_id in self._session.received
                self._session.received.discard(packet_id)
                code = 0 if known or self._version != Version.MQTT_5 else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
                answer = Acknowledgement(PacketType.PUBCOMP, packet_id, code)
                self._transport.write(codec.encode(answer, self._version))
            case Acknowledgement():
                if self._upstream:
                    self._upstream.forward(packet)
            case Subscribe():
                self.subscribe(packet, self.limit_subscriptions(packet))
            case Unsubscribe():
                self.unsubscribe(packet)
            case Disconnect():
                self.disconnected(packet)
            case _:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"a client sends {PacketType(kind).name}")

    def disconnected(self, packet: Disconnect) -> None:
        """Close after the client's DISCONNECT. Raises `MqttViolation`."""
        expiry_s = packet.properties.session_expiry_s
        if expiry_s is not None:
            if expiry_s and not self._session.expiry_s:
                raise MqttViolation(ReasonCode.PROTOCOL_ERROR, "the session expiry was 0 in CONNECT")
            self._session.expiry_s = min(expiry_s, self._limits.session_expiry_max_s)
        if packet.code != ReasonCode.DISCONNECT_WITH_WILL:
            self._will = None
        self.closing_at = self._front.seconds + self._limits.close_timeout_s
        self._transport.close()

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────────

    def limit_subscriptions(self, packet: Subscribe, decided: Sequence[int | None] = ()) -> list[int | None]:
        """Return the code of each filter of a SUBSCRIBE; None: the broker behind decides. Raises `MqttViolation`.

        Args:
            packet: what the client sent.
            decided: codes that others have decided, None where they grant it; empty: none.
        """
        codes = [
            self._refusal_of(wanted.topic_filter) if code is None else code
            for wanted, code in zip_longest(packet.subscriptions, decided)
        ]
        limited = self.subscriptions.limit(packet, codes)
        if limited != codes:
            self._front.hit("mqtt_subscriptions")
        return limited

    def _refusal_of(self, topic_filter: str) -> int | None:
        """Return the code for a filter that is refused; None: it is not."""
        if topic_filter.startswith("$share/"):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not codec.is_valid_filter(topic_filter):
            if self._version != Version.MQTT_5:
                raise MqttViolation(ReasonCode.TOPIC_FILTER_INVALID, "a topic filter is not valid")
            return ReasonCode.TOPIC_FILTER_INVALID
        if self._rights and not self._rights.subscribe.covers(topic_filter):
            self.note_refusal(self.device, "subscribe", topic_filter)
            return ReasonCode.NOT_AUTHORIZED
        return None if is_broker_filter(topic_filter) else ReasonCode.TOPIC_FILTER_INVALID

    def subscribe(self, packet: Subscribe, codes: list[int | None]) -> None:
        """Answer a SUBSCRIBE of which nothing is granted; otherwise subscribe at the broker behind."""
        if None in codes:
            self.wait_for(self.subscribe_at_broker(packet, codes))
        else:
            self.answer_subscribe(packet.packet_id, tuple(code for code in codes if code is not None))

    def answer_subscribe(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """Answer a SUBSCRIBE with a code for each filter."""
        self.send(SubAck(PacketType.SUBACK, packet_id, tuple(self._code(code) for code in codes)))

    async def subscribe_at_broker(self, packet: Subscribe, codes: list[int | None], mount: str = "") -> None:
        """Subscribe at the broker behind, and note it in the session. Raises `MqttViolation`.

        Args:
            packet: what the client sent.
            codes: the answers that the front gives itself; None: the broker decides.
            mount: what stands before the client's topics at the broker.
        """
        if None not in codes:
            self.answer_subscribe(packet.packet_id, tuple(code for code in codes if code is not None))
            return
        if self._upstream is None:
            await self._open_upstream(goes_on=False)
            if self._upstream:
                self._upstream.begin()
        if self._upstream is None:
            return
        self._session.subscribed = True
        self._upstream.subscribe(packet, codes, mount)
        if self._key and self._session.expiry_s:
            await self._front.remember(self._key, self._session)

    def _code(self, code: int) -> int:
        if self._version != Version.MQTT_5:
            return min(code, 0x80)
        return ReasonCode.NOT_AUTHORIZED if code == ReasonCode.UNSPECIFIED_ERROR else code

    def unsubscribe(self, packet: Unsubscribe, mount: str = "") -> None:
        """Handle an UNSUBSCRIBE; `mount` stands before the client's topics at the broker. Raises `MqttViolation`."""
        five = self._version == Version.MQTT_5
        if not five and not all(map(codec.is_valid_filter, packet.topic_filters)):
            raise MqttViolation(ReasonCode.TOPIC_FILTER_INVALID, "a topic filter is not valid")
        if self._upstream:
            self._upstream.unsubscribe(packet, mount)
            return
        codes = (ReasonCode.NO_SUBSCRIPTION_EXISTED,) * len(packet.topic_filters) if five else ()
        self.send(SubAck(PacketType.UNSUBACK, packet.packet_id, codes))

    def defer(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Keep packets until the work of `wait_for` is done."""
        self._early += packets

    def wait_for(self, work: Any) -> None:
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

    async def _open_upstream(self, *, goes_on: bool) -> bool:
        """Connect a device to the broker behind; return whether its session goes on. Raises `MqttViolation`."""
        keeps = self._session.expiry_s > 0
        answer = await self._reach_broker(self._open_device, goes_on=goes_on, keeps=keeps)
        if answer.code:
            raise MqttViolation(ReasonCode.SERVER_UNAVAILABLE, "the broker refuses the connection for subscriptions")
        if not answer.session_present:
            self._session.subscriptions.clear()
            self._session.unacknowledged.clear()
        return answer.session_present

    async def _open_device(self, upstream: Upstream, clean: bool) -> ConnAck:  # noqa: FBT001 - as for guests
        return await upstream.open_device(self.device, clean=clean)

    async def _reach_broker(self, connect: BrokerConnect, *, goes_on: bool, keeps: bool) -> ConnAck:
        """Connect to the broker behind; what it has kept of a session that does not go on is discarded before.

        Args:
            connect: opens a connection, with a clean session or not.
            goes_on: whether the session goes on.
            keeps: whether it is kept after this connection.
        """
        answer = await self._connect_broker(connect, clean=not (goes_on or keeps))
        if answer.code or goes_on or not answer.session_present:
            return answer
        await self._end_broker_session()
        answer = await self._connect_broker(connect, clean=True)
        if answer.code:
            return answer
        await self._end_broker_session()
        return await self._connect_broker(connect, clean=False)

    async def _connect_broker(self, connect: BrokerConnect, *, clean: bool) -> ConnAck:
        self._upstream = self._front.upstream(self)
        return await connect(self._upstream, clean)

    async def _end_broker_session(self) -> None:
        """Disconnect from the broker behind, which discards the session if it is a clean one."""
        ended, self._upstream = self._upstream, None
        if ended:
            await ended.end_session()

    async def _discard_at_broker(self) -> None:
        """Discard what the broker behind has kept of a device's session that begins anew. Raises `MqttViolation`."""
        answer = await self._connect_broker(self._open_device, clean=True)
        if answer.code:
            raise MqttViolation(ReasonCode.SERVER_UNAVAILABLE, "the broker refuses the connection for subscriptions")
        if self._session.expiry_s:
            await self._end_broker_session()

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
        raw = codec.encode(packet, self._version)
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
        """Disconnect the client: its connection to the broker behind is lost, and it has to subscribe again."""
        if not self._closed and not self.closing_at:
            _log.info("client disconnected; the broker is away", client_id=self.client_id, reason=reason)
        self.close(ReasonCode.SERVER_BUSY)

    def hold_for_broker(self) -> None:
        """Read no more: the broker behind does not take what the client sends."""
        self._hold("broker is slow")

    def release_for_broker(self) -> None:
        """Read on."""
        self._release("broker is slow")

    @property
    def subscriptions(self) -> ClientSubscriptions:
        """Subscriptions of the client's session, on this connection."""
        if self._subscriptions is None:
            limits = self._limits
            held = self._session.subscriptions
            self._subscriptions = ClientSubscriptions(held, limits.subscriptions_max, limits.topic_bytes_max)
        return self._subscriptions

    @property
    def unacknowledged(self) -> UnacknowledgedMessages:
        """Messages of the session that the client has not acknowledged."""
        return self._session.unacknowledged

    @property
    def upstream(self) -> Upstream | None:
        """Connection to the broker behind."""
        return self._upstream

    @property
    def service(self) -> ServiceConversation | None:
        """Requests to the gateway, of a client of one of its services; None: the client has none."""
        return self._guest.service

    @property
    def version(self) -> Version:
        """Version that the client speaks."""
        return self._version

    def change_rights(self, admitted: Admitted, *, subscriptions_differ: bool) -> None:
        """Apply changed rights. A client with subscriptions is disconnected if they differ: the broker has the old."""
        self._admitted, self._rights = admitted, admitted.rights
        self._topics.clear()
        self._topics_bytes = 0
        if self._upstream and subscriptions_differ:
            self.close(ReasonCode.ADMINISTRATIVE_ACTION)

    def _violated(self, why: MqttViolation) -> None:
        if self._closed:
            return
        self._front.violated(self, why)
        if self._state == _OPEN:
            self.close(why.reason)
            return
        five = self._version == Version.MQTT_5 and not isinstance(why, codec.UnsupportedVersion)
        code = why.reason if five else RETURN_CODES.get(why.reason, _NOT_AUTHORIZED)
        if self._state == _CONNECTING and (five or why.reason not in _UNANSWERED):
            version = self._version if five else Version.MQTT_3_1_1
            self._transport.write(codec.encode(ConnAck(code), version))
        self._shut()

    def close(self, reason: ReasonCode) -> None:
        """Disconnect the client for a reason, which 5.0 tells it."""
        if self._closed or self.closing_at:
            return
        if self._version == Version.MQTT_5 and self._state == _OPEN:
            self._transport.write(codec.encode(Disconnect(reason), self._version))
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
        """Take nothing more."""
        self._hold("stop")

    def settle_will(self, *, session_ends: bool) -> None:
        """Drop a will with a delay, since the client is back; publish it where the session ends with that."""
        will = self._will
        if will and session_ends:
            self.publish_delayed_will()
        elif will and will.properties.will_delay_s:
            self._will = None

    def publish_delayed_will(self) -> None:
        """Publish the will whose delay is over."""
        will, self._will = self._will, None
        if will:
            self._publish_will(will)

    def _lose_will(self) -> None:
        """Publish the will of a connection that broke, or leave it for its delay."""
        if self._will is None:
            return
        delay_s = min(self._will.properties.will_delay_s or 0, self._session.expiry_s)
        if delay_s and self._key:
            self._front.delay_will(self._key, self, delay_s)
        else:
            self._publish_will(self._will)

    def _publish_will(self, will: Will) -> None:
        rights = self._rights
        if rights is None or (not will.qos and not rights.best_effort.matches(will.topic)):
            return
        if not rights.publish.matches(will.topic):
            return
        properties = will.properties
        texts = (will.topic, properties.content_type or "", *(word for pair in properties.user for word in pair))
        size = len(will.payload) + sum(len(text.encode()) for text in texts) + self._identity_bytes
        self._writer.reserve(size)
        builder = self._writer.open.builder
        builder.topics.append(will.topic)
        builder.payloads.append(will.payload)
        builder.flags.append(will.qos << QOS_SHIFT | (RETAIN if will.retain else 0) | WILL)
        if properties.content_type or properties.user:
            builder.properties[len(builder) - 1] = MessageProperties(properties.content_type or "", properties.user)
        now = self._front.clock.now()
        self._writer.end_read(
            self, client=self.client_id, credential=self.device, arrival=now, answers=b"", waiting=0, size=size
        )


_WAITING, _CONNECTING, _OPEN = range(3)
_UNANSWERED = frozenset({ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR, ReasonCode.TOPIC_NAME_INVALID})
"""Reasons for which a CONNECT before 5.0 is not answered but the connection closed."""
