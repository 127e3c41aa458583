"""Encoding and incremental decoding of MQTT 3.1, 3.1.1 and 5.0.

`PacketReader` splits a byte stream into packets, `decode` makes records of them, `encode` makes bytes of records.
`split_publish` is the fast path of PUBLISH, on which nearly every byte arrives: it makes no record.
All errors of a peer are `MqttViolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sensegate.collect.front.fields import (
    FieldReader,
    decode_text,
    encode_binary,
    encode_properties,
    encode_text,
    encode_variable,
    malformed,
    protocol_error,
    read_properties,
)
from sensegate.collect.front.packets import (
    NO_PROPERTIES,
    Acknowledgement,
    Auth,
    ConnAck,
    ConnectPacket,
    Disconnect,
    MqttViolation,
    Packet,
    PacketProperties,
    PacketType,
    Ping,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)

_NAMES = {Version.MQTT_3_1: b"MQIsdp", Version.MQTT_3_1_1: b"MQTT", Version.MQTT_5: b"MQTT"}
_ACKNOWLEDGEMENTS = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)
_FLAGGED = (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE)
"""Packets whose flags are 0010; of all others but PUBLISH they are 0000."""
_WILL = 0
FILTERS_MAX = 1_024
"""Most topic filters of a SUBSCRIBE or UNSUBSCRIBE: each takes some ten microseconds, and a megabyte holds 250,000."""
CHUNKS_MAX = 1_024
"""Chunks of an incomplete packet that are joined: one of a byte or two would take fifty bytes."""


class UnsupportedVersion(MqttViolation):
    """A CONNECT of another protocol version; it is answered in the form of 3.1.1."""

    def __init__(self) -> None:
        super().__init__(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "the protocol name or level is unknown")


class PacketReader:
    """Splits a byte stream into packets; holds back an incomplete one, at most `limit` bytes and what was last read."""

    __slots__ = ("_held", "_held_bytes", "_needed", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Largest packet, with its header."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return (first byte, body) of each packet that is complete now.

        Raises:
            MqttViolation: a length is malformed, or a packet too large (before it has arrived).
        """
        if self._held_bytes:
            # Chunks are joined once the packet is complete: joining each time would cost the square of its size.
            self._held.append(chunk)
            self._held_bytes += len(chunk)
            if self._held_bytes < self._needed:
                if len(self._held) > CHUNKS_MAX:
                    self._held = [b"".join(self._held)]
                return []
            chunk = b"".join(self._held)
            self._held, self._held_bytes = [], 0
        packets: list[tuple[int, bytes]] = []
        at, end = 0, len(chunk)
        while end - at >= 2:
            length = chunk[at + 1]
            start = at + 2
            if length > 0x7F:
                if end - at > 2 and 0 < (second := chunk[start]) < 0x80:  # most packets: 128 to 16,383 bytes
                    length += (second - 1) << 7
                    start += 1
                elif (measured := self._measure(chunk, at, end)) is not None:
                    length, start = measured
                else:
                    break
            stop = start + length
            if stop - at > self.limit:
                raise MqttViolation(
                    ReasonCode.PACKET_TOO_LARGE, f"a packet of {stop - at} bytes; {self.limit} are allowed"
                )
            if stop > end:
                self._needed = stop - at
                self._hold(chunk[at:])
                return packets
            packets.append((chunk[at], chunk[start:stop]))
            at = stop
        if at < end:
            self._needed = end - at + 1
            self._hold(chunk[at:])
        return packets

    def _hold(self, rest: bytes) -> None:
        self._held = [rest]
        self._held_bytes = len(rest)

    @staticmethod
    def _measure(chunk: bytes, at: int, end: int) -> tuple[int, int] | None:
        """Return (remaining length, start of the body); None where the length is incomplete."""
        length = shift = 0
        for place in range(at + 1, min(at + 5, end)):
            byte = chunk[place]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    raise malformed("the remaining length is longer than necessary")
                return length, place + 1
            shift += 7
        if end - at > 4:
            raise malformed("the remaining length has more than four bytes")
        return None


def split_publish(head: int, body: bytes, version: int) -> tuple[bytes, int, int, PacketProperties, bytes]:
    """Return (topic as sent, QoS, packet id, properties, payload) of a PUBLISH; the topic is not yet checked."""
    qos = head >> 1 & 3
    if qos == 3 or (not qos and head & 8):
        raise malformed("the QoS is 3, or DUP is set at QoS 0")
    size = len(body)
    if size < 2:
        raise malformed("the packet ends within a field")
    at = 2 + (body[0] << 8 | body[1])
    topic = body[2:at]
    packet_id = 0
    if qos:
        if at + 2 > size:
            raise malformed("the packet ends within a field")
        packet_id = body[at] << 8 | body[at + 1]
        if not packet_id:
            raise protocol_error("the packet identifier is 0")
        at += 2
    elif at > size:
        raise malformed("the packet ends within a field")
    if version != 5:
        return topic, qos, packet_id, NO_PROPERTIES, body[at:]
    if at < size and not body[at]:
        return topic, qos, packet_id, NO_PROPERTIES, body[at + 1 :]
    cursor = FieldReader(body, at)
    properties = read_properties(cursor, PacketType.PUBLISH)
    return topic, qos, packet_id, properties, body[cursor.at :]


def check_topic(raw: bytes) -> str:
    """Return a topic name: UTF-8, not empty, without wildcards."""
    topic = decode_text(raw)
    if not topic or "+" in topic or "#" in topic:
        raise MqttViolation(ReasonCode.TOPIC_NAME_INVALID, "a topic name is empty or contains a wildcard")
    return topic


def is_valid_filter(topic_filter: str) -> bool:
    """Return whether a topic filter has its wildcards only as whole levels, and `#` only at the end.

    The levels are not separated: a filter may have 65,536 of them.
    """
    whole = topic_filter.removesuffix("#")
    if "#" in whole or (whole != topic_filter and whole and not whole.endswith("/")):
        return False
    levels = f"/{topic_filter.replace('/', '//')}/"
    return bool(topic_filter) and levels.count("/+/") == topic_filter.count("+")


def decode(head: int, body: bytes, version: Version) -> Packet:
    """Return the record of a packet; of CONNECT the body says the version.

    Raises:
        MqttViolation: the packet is malformed, or not allowed in this version.
    """
    number, flags = head >> 4, head & 0x0F
    if number == 0:
        raise malformed("packet type 0")
    kind = PacketType(number)
    if kind is PacketType.PUBLISH:
        topic, qos, packet_id, properties, payload = split_publish(head, body, version)
        name = check_topic(topic) if topic or properties.topic_alias is None else ""
        return Publish(name, payload, qos, bool(head & 1), bool(head & 8), packet_id, properties)
    # The DUP flag of 3.1 may be set in what is sent again.
    wanted = 2 if kind in _FLAGGED else 0
    if flags != wanted and not (version == Version.MQTT_3_1 and wanted and flags in (0, 2, 8, 10)):
        raise malformed(f"the flags of {kind.name} are {flags:04b}")
    cursor = FieldReader(body)
    packet = _DECODERS[kind](cursor, kind, version)
    cursor.finish()
    return packet


def _connect(cursor: FieldReader, _kind: PacketType, _version: Version) -> ConnectPacket:
    name, level = cursor.binary(), cursor.byte()
    if name not in (b"MQTT", b"MQIsdp"):
        raise malformed("the protocol name is not MQTT") if level in (3, 4, 5) else UnsupportedVersion()
    if (name, level) not in ((b"MQIsdp", 3), (b"MQTT", 4), (b"MQTT", 5)):
        raise UnsupportedVersion
    version = Version(level)
    flags = cursor.byte()
    has_will, will_qos, will_retain = bool(flags & 4), flags >> 3 & 3, bool(flags & 32)
    if flags & 1:
        raise malformed("the reserved flag of CONNECT is set")
    if will_qos == 3 or (not has_will and flags & 0x38):
        raise malformed("the flags of the will are not valid")
    if version != Version.MQTT_5 and flags & 0x40 and not flags & 0x80:
        raise malformed("a password without a user name")
    keep_alive_s = cursor.short()
    properties = NO_PROPERTIES
    if version == Version.MQTT_5:
        properties = read_properties(cursor, PacketType.CONNECT)
        if properties.authentication_data is not None and properties.authentication_method is None:
            raise protocol_error("authentication data without a method")
    client_id = cursor.text()
    will = None
    if has_will:
        will_properties = read_properties(cursor, _WILL) if version == Version.MQTT_5 else NO_PROPERTIES
        will = Will(check_topic(cursor.binary()), cursor.binary(), will_qos, will_retain, will_properties)
    username = cursor.text() if flags & 0x80 else None
    password = cursor.binary() if flags & 0x40 else None
    return ConnectPacket(version, client_id, bool(flags & 2), keep_alive_s, username, password, will, properties)


def _connack(cursor: FieldReader, kind: PacketType, version: Version) -> ConnAck:
    flags, code = cursor.byte(), cursor.byte()
    if flags > 1:
        raise malformed("reserved flags of CONNACK are set")
    return ConnAck(code, bool(flags), _properties(cursor, kind, version))


def _properties(cursor: FieldReader, kind: PacketType, version: Version) -> PacketProperties:
    return read_properties(cursor, kind) if version == Version.MQTT_5 else NO_PROPERTIES


def _packet_id(cursor: FieldReader) -> int:
    packet_id = cursor.short()
    if not packet_id:
        raise protocol_error("the packet identifier is 0")
    return packet_id


def _tail(cursor: FieldReader, kind: PacketType, version: Version) -> tuple[int, PacketProperties]:
    """Return reason code and properties, which may be left out from the end."""
    if cursor.at == cursor.end or version != Version.MQTT_5:
        return 0, NO_PROPERTIES
    code = cursor.byte()
    if code not in _CODES[kind]:
        raise protocol_error(f"reason code {code:#x} is not allowed in {kind.name}")
    return code, read_properties(cursor, kind) if cursor.at < cursor.end else NO_PROPERTIES


def _acknowledgement(cursor: FieldReader, kind: PacketType, version: Version) -> Acknowledgement:
    return Acknowledgement(kind, _packet_id(cursor), *_tail(cursor, kind, version))


def _subscribe(cursor: FieldReader, kind: PacketType, version: Version) -> Subscribe:
    packet_id = _packet_id(cursor)
    properties = _properties(cursor, kind, version)
    subscriptions: list[Subscription] = []
    while cursor.at < cursor.end:
        topic_filter, options = cursor.text(), cursor.byte()
        qos, handling = options & 3, options >> 4 & 3
        if qos == 3 or options & 0xC0 or handling == 3 or (version != Version.MQTT_5 and options & 0xFC):
            raise malformed("the options of a subscription are not valid")
        if options & 4 and topic_filter.startswith("$share/"):
            raise protocol_error("No Local on a shared subscription")
        subscriptions.append(Subscription(topic_filter, qos, bool(options & 4), bool(options & 8), handling))
        _limit_filters(len(subscriptions))
    if not subscriptions:
        raise protocol_error("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _limit_filters(count: int) -> None:
    if count > FILTERS_MAX:
        raise MqttViolation(ReasonCode.QUOTA_EXCEEDED, f"a packet with more than {FILTERS_MAX} topic filters")


def _unsubscribe(cursor: FieldReader, kind: PacketType, version: Version) -> Unsubscribe:
    packet_id = _packet_id(cursor)
    properties = _properties(cursor, kind, version)
    filters: list[str] = []
    while cursor.at < cursor.end:
        filters.append(cursor.text())
        _limit_filters(len(filters))
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, tuple(filters), properties)


def _suback(cursor: FieldReader, kind: PacketType, version: Version) -> SubAck:
    return SubAck(kind, _packet_id(cursor), properties=_properties(cursor, kind, version), codes=tuple(cursor.rest()))


def _ping(_cursor: FieldReader, kind: PacketType, _version: Version) -> Ping:
    return Ping(kind)


def _disconnect(cursor: FieldReader, kind: PacketType, version: Version) -> Disconnect:
    return Disconnect(*_tail(cursor, kind, version))


def _auth(cursor: FieldReader, kind: PacketType, version: Version) -> Auth:
    if version != Version.MQTT_5:
        raise malformed("packet type 15")
    return Auth(*_tail(cursor, kind, version))


_FAILED = (0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
_CODES: Mapping[PacketType, frozenset[int]] = {
    PacketType.PUBACK: frozenset((0x00, 0x10, *_FAILED)),
    PacketType.PUBREC: frozenset((0x00, 0x10, *_FAILED)),
    PacketType.PUBREL: frozenset((0x00, 0x92)),
    PacketType.PUBCOMP: frozenset((0x00, 0x92)),
    PacketType.DISCONNECT: frozenset(
        (0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3))
    ),
    PacketType.AUTH: frozenset((0x00, 0x18, 0x19)),
}
_DECODERS: Mapping[PacketType, Callable[[FieldReader, PacketType, Version], Packet]] = {
    PacketType.CONNECT: _connect,
    PacketType.CONNACK: _connack,
    **dict.fromkeys(_ACKNOWLEDGEMENTS, _acknowledgement),
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.SUBACK: _suback,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.UNSUBACK: _suback,
    PacketType.PINGREQ: _ping,
    PacketType.PINGRESP: _ping,
    PacketType.DISCONNECT: _disconnect,
    PacketType.AUTH: _auth,
}


def frame(kind: PacketType, body: bytes, flags: int = 0) -> bytes:
    """Return a packet of a type with its header."""
    return bytes((kind << 4 | flags,)) + encode_variable(len(body)) + body


def encode(packet: Packet, version: Version) -> bytes:  # noqa: PLR0911 - one line for each record
    """Return the bytes of a packet."""
    of5 = version == Version.MQTT_5
    match packet:
        case Publish():
            return encode_publish(packet, version)
        case Acknowledgement():
            flags = 2 if packet.kind is PacketType.PUBREL else 0
            tail = _encode_tail(packet.code, packet.properties, version)
            return frame(packet.kind, packet.packet_id.to_bytes(2) + tail, flags)
        case Ping():
            return frame(packet.kind, b"")
        case ConnectPacket():
            return frame(PacketType.CONNECT, _encode_connect(packet))
        case ConnAck():
            tail = encode_properties(packet.properties) if of5 else b""
            return frame(PacketType.CONNACK, bytes((packet.session_present, packet.code)) + tail)
        case Subscribe():
            return frame(PacketType.SUBSCRIBE, _encode_subscribe(packet, version), 2)
        case Unsubscribe():
            head = packet.packet_id.to_bytes(2) + (encode_properties(packet.properties) if of5 else b"")
            return frame(PacketType.UNSUBSCRIBE, head + b"".join(map(encode_text, packet.topic_filters)), 2)
        case SubAck():
            head = packet.packet_id.to_bytes(2) + (encode_properties(packet.properties) if of5 else b"")
            return frame(packet.kind, head + bytes(packet.codes))
        case Disconnect():
            return frame(PacketType.DISCONNECT, _encode_tail(packet.code, packet.properties, version))
        case Auth():
            return frame(PacketType.AUTH, _encode_tail(packet.code, packet.properties, version))


def encode_publish(packet: Publish, version: Version) -> bytes:
    """Return the bytes of a PUBLISH."""
    flags = packet.duplicate << 3 | packet.qos << 1 | packet.retain
    parts = [encode_text(packet.topic)]
    if packet.qos:
        parts.append(packet.packet_id.to_bytes(2))
    if version == Version.MQTT_5:
        parts.append(encode_properties(packet.properties))
    return frame(PacketType.PUBLISH, b"".join((*parts, packet.payload)), flags)


def _encode_tail(code: int, properties: PacketProperties, version: Version) -> bytes:
    if version != Version.MQTT_5 or (not code and properties == NO_PROPERTIES):
        return b""
    return bytes((code,)) + (b"" if properties == NO_PROPERTIES else encode_properties(properties))


def _encode_connect(packet: ConnectPacket) -> bytes:
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    of5 = packet.version == Version.MQTT_5
    will = packet.will
    if will:
        flags |= 4 | will.qos << 3 | will.retain << 5
    parts = [encode_binary(_NAMES[packet.version]), bytes((packet.version, flags)), packet.keep_alive_s.to_bytes(2)]
    if of5:
        parts.append(encode_properties(packet.properties))
    parts.append(encode_text(packet.client_id))
    if will:
        parts += [encode_properties(will.properties)] if of5 else []
        parts += [encode_text(will.topic), encode_binary(will.payload)]
    if packet.username is not None:
        parts.append(encode_text(packet.username))
    if packet.password is not None:
        parts.append(encode_binary(packet.password))
    return b"".join(parts)


def _encode_subscribe(packet: Subscribe, version: Version) -> bytes:
    of5 = version == Version.MQTT_5
    parts = [packet.packet_id.to_bytes(2), encode_properties(packet.properties) if of5 else b""]
    for wanted in packet.subscriptions:
        options = wanted.qos
        if of5:
            options |= wanted.no_local << 2 | wanted.retain_as_published << 3 | wanted.retain_handling << 4
        parts += [encode_text(wanted.topic_filter), bytes((options,))]
    return b"".join(parts)
