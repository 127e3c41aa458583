"""The codec: what is encoded is decoded, whatever the chunks; any bytes give packets or a violation, nothing else."""

from __future__ import annotations

import contextlib
import itertools
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensegate.collect.front import codec
from sensegate.collect.front.codec import PacketReader, UnsupportedVersion, decode, encode, is_valid_filter
from sensegate.collect.front.fields import _PROPERTIES, FieldReader, encode_text, read_properties
from sensegate.collect.front.packets import (
    ConnAck,
    ConnectPacket,
    MqttViolation,
    Packet,
    PacketType,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    Version,
)
from tests.collect.front.packets import packets, publishes, versions

LIMIT = 4_096
_streams = versions.flatmap(lambda version: st.tuples(st.just(version), st.lists(packets(version), max_size=6)))


def _read(stream: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Return the packets of a stream that arrives in chunks."""
    reader = PacketReader(LIMIT)
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [packet for start, end in itertools.pairwise(borders) for packet in reader.feed(stream[start:end])]


@given(_streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_what_is_encoded_is_decoded_in_any_chunks(stream: tuple[Version, list[Packet]], cuts: list[int]) -> None:
    """Every packet of every version survives encoding and decoding, wherever its bytes are cut."""
    version, sent = stream
    raw = b"".join(encode(packet, version) for packet in sent)
    assert [decode(head, body, version) for head, body in _read(raw, cuts)] == sent


@given(versions.flatmap(lambda version: st.tuples(st.just(version), publishes(version))))
def test_the_fast_path_of_publish_agrees_with_the_record(sent: tuple[Version, Publish]) -> None:
    version, packet = sent
    [(head, body)] = _read(encode(packet, version), [])
    topic, qos, packet_id, properties, payload = codec.split_publish(head, body, version)
    assert (topic.decode(), qos, packet_id, properties, payload) == (
        packet.topic,
        packet.qos,
        packet.packet_id,
        packet.properties,
        packet.payload,
    )


@given(versions, st.lists(st.binary(max_size=60), max_size=8))
@example(Version.MQTT_5, [b"\x10\x80\x80\x80\x80\x01"])
@example(Version.MQTT_5, [b"\x30\x05\x00\x01a\x7f\xff"])
@example(Version.MQTT_3_1_1, [b"\x30\x01\x00"])
def test_any_bytes_are_packets_or_a_violation(version: Version, chunks: list[bytes]) -> None:
    """Garbage raises nothing but `MqttViolation`, and what is held back is bounded."""
    reader = PacketReader(64)
    with contextlib.suppress(MqttViolation):
        for chunk in chunks:
            for head, body in reader.feed(chunk):
                decode(head, body, version)
            assert reader._held_bytes <= 64 + len(chunk)


@given(_streams, st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_packet_is_a_packet_or_a_violation(stream: tuple[Version, list[Packet]], at: int, byte: int) -> None:
    """A changed byte reaches deeper than garbage does: it raises nothing but `MqttViolation` either."""
    version, sent = stream
    raw = bytearray(b"".join(encode(packet, version) for packet in sent))
    if raw:
        raw[at % len(raw)] = byte
    with contextlib.suppress(MqttViolation):
        for head, body in _read(bytes(raw), []):
            decode(head, body, version)


def test_a_packet_that_is_too_large_is_refused_before_it_arrives() -> None:
    with pytest.raises(MqttViolation) as caught:
        PacketReader(LIMIT).feed(b"\x30\xff\xff\x7f")
    assert caught.value.reason is ReasonCode.PACKET_TOO_LARGE


def test_a_large_packet_in_many_chunks_is_not_copied_each_time() -> None:
    """A byte at a time costs a list entry, not a copy of everything before it."""
    packet = encode(Publish("a", bytes(3_000)), Version.MQTT_3_1_1)
    reader = PacketReader(LIMIT)
    arrived = [packets for at in range(len(packet)) if (packets := reader.feed(packet[at : at + 1]))]
    assert [len(packets) for packets in arrived] == [1]
    assert sys.getsizeof(reader._held) < 200


def _connect(version: Version = Version.MQTT_3_1_1) -> bytearray:
    return bytearray(encode(ConnectPacket(version, "c", username="u", password=b"p"), version))


def _decoded(raw: bytes | bytearray, version: Version = Version.MQTT_5) -> Packet:
    [(head, body)] = PacketReader(LIMIT).feed(bytes(raw))
    return decode(head, body, version)


_BROKEN = {
    "MQTT-1.5.4-1, a string is not UTF-8": b"\x30\x04\x00\x02\xff\xfe",
    "MQTT-1.5.4-1, a surrogate": b"\x30\x05\x00\x03\xed\xa0\x80",
    "MQTT-1.5.4-2, U+0000": b"\x30\x04\x00\x02a\x00",
    "MQTT-1.5.5-1, a variable byte integer longer than necessary": b"\x30\x06\x00\x01a\x80\x00x",
    "MQTT-2.1.3-1, reserved flags": b"\xc1\x00",
    "MQTT-2.2.1-2, packet identifier 0": b"\x32\x05\x00\x01a\x00\x00",
    "MQTT-1.5.7-1, the name of a user property is not UTF-8": b"\x30\x0b\x00\x01a\x07\x26\x00\x01\xff\x00\x01b",
    "MQTT-2.2.2-2, a property twice": b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00",
    "MQTT-3.1.2-1, another protocol name": b"\x10\x0e\x00\x04MQXX\x05\x02\x00\x00\x00\x00\x01c",
    "MQTT-3.1.2-9, a will flag without a will": b"\x10\x0d\x00\x04MQTT\x04\x06\x00\x00\x00\x01c",
    "MQTT-3.1.2-16, a user name without its flag": b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x01c\x00\x01u",
    "MQTT-3.1.2-17, a flag of a user name without one": b"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01c",
    "MQTT-3.1.2-18, a password without its flag": b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x01c\x00\x01p",
    "MQTT-3.1.2-19, a flag of a password without one": b"\x10\x0d\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01",
    "MQTT-3.1.3-3, no client id": b"\x10\x0a\x00\x04MQTT\x04\x02\x00\x00",
    "MQTT-3.4.2-1, PUBACK with a code of PUBREL": b"\x40\x03\x00\x01\x92",
    "MQTT-3.5.2-1, PUBREC with a code of SUBACK": b"\x50\x03\x00\x01\x01",
    "MQTT-3.6.2-1, PUBREL with a code of PUBREC": b"\x62\x03\x00\x01\x80",
    "MQTT-3.7.2-1, PUBCOMP with a code of PUBREC": b"\x70\x03\x00\x01\x80",
    "MQTT-3.14.2-1, DISCONNECT with a code of PUBACK": b"\xe0\x01\x91",
    "MQTT-3.15.2-1, AUTH with a code of DISCONNECT": b"\xf0\x01\x80",
    "MQTT-4.7.3-2, U+0000 in a filter": b"\x82\x08\x00\x01\x00\x00\x02a\x00\x00",
    "MQTT-3.1.3-4, a client id is not UTF-8": b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xff",
    "MQTT-3.1.3-11, the topic of a will is not UTF-8": (
        b"\x10\x12\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x01\xff\x00\x00"
    ),
    "MQTT-3.1.3-12, a user name is not UTF-8": b"\x10\x10\x00\x04MQTT\x04\x82\x00\x00\x00\x01c\x00\x01\xff",
    "MQTT-3.1.2-3, the reserved flag of CONNECT": b"\x10\x0d\x00\x04MQTT\x04\x01\x00\x00\x00\x01c",
    "MQTT-3.1.2-11, will QoS 3": b"\x10\x0d\x00\x04MQTT\x04\x1c\x00\x00\x00\x01c",
    "MQTT-3.1.2-11, will flags without a will": b"\x10\x0d\x00\x04MQTT\x04\x20\x00\x00\x00\x01c",
    "MQTT-3.1.2-22 (3.1.1), a password without a user": b"\x10\x10\x00\x04MQTT\x04\x40\x00\x00\x00\x01c\x00\x01p",
    "MQTT-3.3.1-4, QoS 3": b"\x36\x06\x00\x01a\x00\x01\x00",
    "MQTT-3.3.1-2, DUP at QoS 0": b"\x38\x04\x00\x01a\x00",
    "MQTT-3.3.2-2, a wildcard in a topic": b"\x30\x04\x00\x01#\x00",
    "MQTT-3.3.2-13, a response topic is not UTF-8": b"\x30\x08\x00\x01a\x04\x08\x00\x01\xff",
    "MQTT-3.3.2-19, a content type is not UTF-8": b"\x30\x08\x00\x01a\x04\x03\x00\x01\xff",
    "MQTT-3.3.2-8, topic alias 0": b"\x30\x07\x00\x01a\x03\x23\x00\x00",
    "MQTT-4.7.3-1, an empty topic": b"\x30\x03\x00\x00\x00",
    "MQTT-3.6.1-1, flags of PUBREL": b"\x60\x02\x00\x01",
    "MQTT-3.8.1-1, flags of SUBSCRIBE": b"\x80\x07\x00\x01\x00\x00\x01a\x00",
    "MQTT-3.8.3-1, a filter of SUBSCRIBE is not UTF-8": b"\x82\x07\x00\x01\x00\x00\x01\xff\x00",
    "MQTT-3.10.3-1, a filter of UNSUBSCRIBE is not UTF-8": b"\xa2\x06\x00\x01\x00\x00\x01\xff",
    "MQTT-3.8.3-2, SUBSCRIBE without a filter": b"\x82\x03\x00\x01\x00",
    "MQTT-3.8.3-5, reserved options of SUBSCRIBE": b"\x82\x07\x00\x01\x00\x00\x01a\x40",
    "MQTT-3.8.3-4, No Local on a shared subscription": b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04",
    "MQTT-3.10.1-1, flags of UNSUBSCRIBE": b"\xa0\x06\x00\x01\x00\x00\x01a",
    "MQTT-3.10.3-2, UNSUBSCRIBE without a filter": b"\xa2\x03\x00\x01\x00",
    "MQTT-3.14.1-1, flags of DISCONNECT": b"\xe1\x00",
    "MQTT-3.15.1-1, flags of AUTH": b"\xf1\x00",
    "2.1.2, packet type 0": b"\x00\x00",
}


@pytest.mark.parametrize("rule", _BROKEN)
def test_what_the_standard_forbids_is_a_violation(rule: str) -> None:
    """A statement of the standard for each packet that breaks it; the connection is closed with a reason code."""
    version = Version.MQTT_3_1_1 if "3.1.1" in rule else Version.MQTT_5
    with pytest.raises(MqttViolation):
        _decoded(_BROKEN[rule], version)


def _written(number: int) -> bytes:
    """Return a property with a value that is allowed."""
    spec = _PROPERTIES[number]
    value = "x" if spec.kind.read is FieldReader.text else b"x" if spec.kind.read is FieldReader.binary else 1
    return bytes((number,)) + spec.kind.write(value) + (encode_text("y") if spec.name == "user" else b"")


_ALLOWED = [(number, packet) for number, spec in _PROPERTIES.items() for packet in sorted(spec.packets)]


@pytest.mark.parametrize(("number", "packet"), _ALLOWED)
def test_each_property_stands_once_and_where_it_belongs(number: int, packet: int) -> None:
    """MQTT-2.2.2-2 and the table of properties: in each packet; user properties repeat, and identifiers to clients."""
    once = _written(number)

    def read(body: bytes, kind: int) -> None:
        read_properties(FieldReader(bytes((len(body),)) + body), kind)

    read(once, packet)
    name = _PROPERTIES[number].name
    if name == "user" or (name == "subscription_ids" and packet == PacketType.PUBLISH):
        read(once * 2, packet)
    else:
        with pytest.raises(MqttViolation):
            read(once * 2, packet)
    for other in {0, *PacketType} - _PROPERTIES[number].packets:
        with pytest.raises(MqttViolation):
            read(once, other)


def test_packets_without_properties_say_so() -> None:
    """MQTT-2.2.2-1: a length of zero, where a packet may not leave it out; MQTT-3.2.2-1: one flag in CONNACK."""
    five = Version.MQTT_5
    assert encode(ConnAck(0, session_present=True), five) == b"\x20\x03\x01\x00\x00"
    assert encode(SubAck(PacketType.SUBACK, 1, (1,)), five) == b"\x90\x04\x00\x01\x00\x01"
    assert encode(SubAck(PacketType.UNSUBACK, 1, (0,)), five) == b"\xb0\x04\x00\x01\x00\x00"
    assert encode(Publish("a", b"x"), five) == b"\x30\x05\x00\x01a\x00x"
    assert encode(Publish("a", b"x"), Version.MQTT_3_1_1) == b"\x30\x04\x00\x01ax"


def test_reserved_options_of_3_1_1_and_type_15_are_malformed() -> None:
    """MQTT-3-8.3-4 of 3.1.1: options that 5.0 defines are reserved there, as is AUTH."""
    options = encode(Subscribe(1, (Subscription("a", 1, retain_handling=1),)), Version.MQTT_3_1_1)
    assert _decoded(options, Version.MQTT_3_1_1) == Subscribe(1, (Subscription("a", 1),))
    for raw in (options[:-1] + b"\x10", b"\xf0\x00"):
        with pytest.raises(MqttViolation):
            _decoded(raw, Version.MQTT_3_1_1)


def test_an_unknown_level_or_name_has_its_own_answer() -> None:
    """MQTT-3.1.2-2: the level that the server does not speak is answered, not only closed; another name is not."""
    for level in (0, 2, 6, 0x84):
        raw = _connect()
        raw[8] = level
        with pytest.raises(UnsupportedVersion):
            _decoded(raw)
    raw = _connect()
    raw[4:8] = b"MQTX"
    with pytest.raises(MqttViolation) as caught:
        _decoded(raw)
    assert not isinstance(caught.value, UnsupportedVersion)


def test_3_1_may_set_the_dup_flag_where_later_versions_may_not() -> None:
    raw = bytearray(encode(Subscribe(1, (Subscription("a", 1),)), Version.MQTT_3_1))
    raw[0] |= 8
    assert isinstance(_decoded(raw, Version.MQTT_3_1), Subscribe)
    with pytest.raises(MqttViolation):
        _decoded(raw, Version.MQTT_3_1_1)


@pytest.mark.parametrize(
    ("topic_filter", "valid"),
    [
        ("a/b", True),
        ("+", True),
        ("#", True),
        ("a/+/#", True),
        ("", False),
        ("a#", False),
        ("#/a", False),
        ("a/b+", False),
    ],
)
def test_topic_filters(topic_filter: str, valid: bool) -> None:  # noqa: FBT001 - a column of the table
    """MQTT-4.7.1-1, 4.7.1-2: wildcards are whole levels, `#` the last one."""
    assert is_valid_filter(topic_filter) is valid


@given(st.text(alphabet="a/+#", max_size=9))
def test_topic_filters_by_their_levels(topic_filter: str) -> None:
    """MQTT-4.7.1-1, 4.7.1-2, one level after the other."""
    *first, last = topic_filter.split("/")
    whole = [level == "+" or not set("+#") & set(level) for level in (*first, "" if last == "#" else last)]
    assert is_valid_filter(topic_filter) is (bool(topic_filter) and all(whole))


@pytest.mark.parametrize("end", ["", "#", "a#", "+"])
@pytest.mark.parametrize("level", ["/", "+/", "a+/"])
def test_a_filter_of_many_levels_is_not_split(level: str, end: str) -> None:
    """A SUBSCRIBE of a megabyte in filters of 65,535 levels held up the front for a fifth of a second."""

    class Unsplit(str):
        __slots__ = ()

        def split(self, *_: object, **__: object) -> list[str]:
            raise AssertionError("a list of all levels")

    assert is_valid_filter(Unsplit(level * 20_000 + end)) is (level != "a+/" and end != "a#")
