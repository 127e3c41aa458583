"""Data types of MQTT (section 1.5 of 5.0): integers, strings, binary data, and properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sensegate.collect.front.packets import NO_PROPERTIES, MqttViolation, PacketProperties, PacketType, ReasonCode

VARIABLE_MAX = 268_435_455
_WILL = 0
"""Packet type under which the table lists the properties of a will; CONNECT has them in a list of their own."""


def malformed(detail: str) -> MqttViolation:
    """Return the error for bytes that cannot be parsed."""
    return MqttViolation(ReasonCode.MALFORMED_PACKET, detail)


def protocol_error(detail: str) -> MqttViolation:
    """Return the error for a packet that is well-formed and not allowed."""
    return MqttViolation(ReasonCode.PROTOCOL_ERROR, detail)


class FieldReader:
    """Reads fields from the body of a packet; each read past its end is a malformed packet."""

    __slots__ = ("at", "body", "end")

    def __init__(self, body: bytes, at: int = 0) -> None:
        self.body = body
        self.at = at
        self.end = len(body)

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def short(self) -> int:
        """Read a two-byte integer."""
        return int.from_bytes(self.take(2))

    def word(self) -> int:
        """Read a four-byte integer."""
        return int.from_bytes(self.take(4))

    def variable(self) -> int:
        """Read a variable byte integer, which must be as short as it can be."""
        number = shift = 0
        for _ in range(4):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    raise malformed("a variable byte integer is longer than necessary")
                return number
            shift += 7
        raise malformed("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Read binary data with its length."""
        return self.take(self.short())

    def text(self) -> str:
        """Read a UTF-8 string with its length."""
        return decode_text(self.binary())

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        end = self.at + count
        if end > self.end:
            raise malformed("the packet ends within a field")
        taken = self.body[self.at : end]
        self.at = end
        return taken

    def rest(self) -> bytes:
        """Read what is left."""
        return self.take(self.end - self.at)

    def finish(self) -> None:
        """Require that nothing is left."""
        if self.at != self.end:
            raise malformed("the packet is longer than its fields")


def decode_text(raw: bytes) -> str:
    """Return a UTF-8 string of MQTT: well-formed, without U+0000."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as why:
        raise malformed("a string is not UTF-8") from why
    if "\x00" in text:
        raise malformed("a string contains U+0000")
    return text


def encode_variable(number: int) -> bytes:
    """Return a variable byte integer."""
    if number < 0x80:
        return bytes((number,))
    if number > VARIABLE_MAX:
        raise ValueError("too large for a variable byte integer")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_binary(raw: bytes) -> bytes:
    """Return binary data with its length."""
    return len(raw).to_bytes(2) + raw


def encode_text(text: str) -> bytes:
    """Return a UTF-8 string with its length."""
    return encode_binary(text.encode())


def _byte(number: int) -> bytes:
    return bytes((number,))


def _short(number: int) -> bytes:
    return number.to_bytes(2)


def _word(number: int) -> bytes:
    return number.to_bytes(4)


class _Kind(msgspec.Struct, frozen=True):
    read: Callable[[FieldReader], Any]
    write: Callable[[Any], bytes]


_BYTE = _Kind(FieldReader.byte, _byte)
_SHORT = _Kind(FieldReader.short, _short)
_WORD = _Kind(FieldReader.word, _word)
_VARIABLE = _Kind(FieldReader.variable, encode_variable)
_TEXT = _Kind(FieldReader.text, encode_text)
_BINARY = _Kind(FieldReader.binary, encode_binary)


class _Property(msgspec.Struct, frozen=True):
    name: str
    kind: _Kind
    packets: frozenset[int]


def _of(name: str, kind: _Kind, *packets: int) -> _Property:
    return _Property(name, kind, frozenset(packets))


_T = PacketType
_ANSWERS = (_T.PUBACK, _T.PUBREC, _T.PUBREL, _T.PUBCOMP, _T.SUBACK, _T.UNSUBACK)
_PROPERTIES: Mapping[int, _Property] = {
    0x01: _of("payload_format", _BYTE, _T.PUBLISH, _WILL),
    0x02: _of("message_expiry_s", _WORD, _T.PUBLISH, _WILL),
    0x03: _of("content_type", _TEXT, _T.PUBLISH, _WILL),
    0x08: _of("response_topic", _TEXT, _T.PUBLISH, _WILL),
    0x09: _of("correlation", _BINARY, _T.PUBLISH, _WILL),
    0x0B: _of("subscription_ids", _VARIABLE, _T.PUBLISH, _T.SUBSCRIBE),
    0x11: _of("session_expiry_s", _WORD, _T.CONNECT, _T.CONNACK, _T.DISCONNECT),
    0x12: _of("assigned_client_id", _TEXT, _T.CONNACK),
    0x13: _of("server_keep_alive_s", _SHORT, _T.CONNACK),
    0x15: _of("authentication_method", _TEXT, _T.CONNECT, _T.CONNACK, _T.AUTH),
    0x16: _of("authentication_data", _BINARY, _T.CONNECT, _T.CONNACK, _T.AUTH),
    0x17: _of("request_problem", _BYTE, _T.CONNECT),
    0x18: _of("will_delay_s", _WORD, _WILL),
    0x19: _of("request_response", _BYTE, _T.CONNECT),
    0x1A: _of("response_information", _TEXT, _T.CONNACK),
    0x1C: _of("server_reference", _TEXT, _T.CONNACK, _T.DISCONNECT),
    0x1F: _of("reason_string", _TEXT, _T.CONNACK, *_ANSWERS, _T.DISCONNECT, _T.AUTH),
    0x21: _of("receive_maximum", _SHORT, _T.CONNECT, _T.CONNACK),
    0x22: _of("topic_alias_maximum", _SHORT, _T.CONNECT, _T.CONNACK),
    0x23: _of("topic_alias", _SHORT, _T.PUBLISH),
    0x24: _of("maximum_qos", _BYTE, _T.CONNACK),
    0x25: _of("retain_available", _BYTE, _T.CONNACK),
    0x26: _of("user", _TEXT, *(kind for kind in _T if kind not in (_T.PINGREQ, _T.PINGRESP)), _WILL),
    0x27: _of("maximum_packet_size", _WORD, _T.CONNECT, _T.CONNACK),
    0x28: _of("wildcard_available", _BYTE, _T.CONNACK),
    0x29: _of("subscription_ids_available", _BYTE, _T.CONNACK),
    0x2A: _of("shared_available", _BYTE, _T.CONNACK),
}
_FLAGS = frozenset(
    {
        "payload_format",
        "request_problem",
        "request_response",
        "maximum_qos",
        "retain_available",
        "wildcard_available",
        "subscription_ids_available",
        "shared_available",
    }
)
"""Properties that are 0 or 1."""
_POSITIVE = frozenset({"receive_maximum", "maximum_packet_size", "topic_alias"})
"""Properties that must not be 0."""
_BY_NAME = {spec.name: (number, spec) for number, spec in _PROPERTIES.items()}
LIST_MAX = 256
"""Most user properties and subscription identifiers of a packet."""


def read_properties(cursor: FieldReader, packet: int) -> PacketProperties:
    """Read the properties of a packet (a `PacketType`, or 0 for those of a will)."""
    length = cursor.variable()
    if not length:
        return NO_PROPERTIES
    part = FieldReader(cursor.take(length))
    values: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    subscription_ids: list[int] = []
    while part.at < part.end:
        spec = _PROPERTIES.get(part.variable())
        if spec is None:
            raise malformed("a property is unknown")
        if packet not in spec.packets:
            raise protocol_error(f"property {spec.name} is not allowed in this packet")
        value = spec.kind.read(part)
        if spec.name == "user":
            users.append((value, part.text()))
        elif spec.name == "subscription_ids":
            if not value or (packet == PacketType.SUBSCRIBE and subscription_ids):
                raise protocol_error("a subscription identifier is 0 or occurs twice")
            subscription_ids.append(value)
        elif spec.name in values:
            raise protocol_error(f"property {spec.name} occurs twice")
        elif (spec.name in _FLAGS and value > 1) or (spec.name in _POSITIVE and not value):
            refused = MqttViolation(ReasonCode.TOPIC_ALIAS_INVALID, "topic alias 0")
            raise refused if spec.name == "topic_alias" else protocol_error(f"property {spec.name} is {value}")
        else:
            values[spec.name] = value
        if len(users) > LIST_MAX or len(subscription_ids) > LIST_MAX:
            raise MqttViolation(ReasonCode.QUOTA_EXCEEDED, f"more than {LIST_MAX} properties of a kind")
    return PacketProperties(**values, user=tuple(users), subscription_ids=tuple(subscription_ids))


def encode_properties(properties: PacketProperties) -> bytes:
    """Return properties with their length."""
    if properties is NO_PROPERTIES:
        return b"\x00"
    parts: list[bytes] = []
    for name, (number, spec) in _BY_NAME.items():
        value = getattr(properties, name)
        if name == "user":
            parts += [b"\x26" + encode_text(key) + encode_text(word) for key, word in value]
        elif name == "subscription_ids":
            parts += [b"\x0b" + encode_variable(number) for number in value]
        elif value is not None:
            parts.append(_byte(number) + spec.kind.write(value))
    body = b"".join(parts)
    return encode_variable(len(body)) + body
