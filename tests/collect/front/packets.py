"""Strategies for control packets of every version."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sensegate.collect.front.packets import (
    NO_PROPERTIES,
    Acknowledgement,
    Auth,
    ConnAck,
    ConnectPacket,
    Disconnect,
    Packet,
    PacketProperties,
    PacketType,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
topics = st.text(st.characters(exclude_characters="\x00+#", exclude_categories=["Cs"]), min_size=1, max_size=20)
blobs = st.binary(max_size=40)
packet_ids = st.integers(1, 65_535)
shorts = st.integers(1, 65_535)
words = st.integers(1, 2**32 - 1)
flags = st.integers(0, 1)
qos = st.integers(0, 2)
versions = st.sampled_from(list(Version))


def properties(version: Version, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[PacketProperties]:
    """Return properties with any of these fields, and user properties; none before 5.0."""
    if version != Version.MQTT_5:
        return st.just(NO_PROPERTIES)
    user = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
    present = {name: st.none() | values for name, values in fields.items()}
    return st.builds(PacketProperties, user=user, **present)


def _message(version: Version, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[PacketProperties]:
    return properties(
        version,
        payload_format=flags,
        message_expiry_s=words,
        content_type=texts,
        response_topic=texts,
        correlation=blobs,
        **more,
    )


def wills(version: Version) -> st.SearchStrategy[Will]:
    return st.builds(Will, topics, blobs, qos, st.booleans(), _message(version, will_delay_s=words))


@st.composite
def connects(draw: st.DrawFn, version: Version) -> ConnectPacket:
    fields = properties(
        version, session_expiry_s=words, receive_maximum=shorts, maximum_packet_size=words, request_problem=flags
    )
    username = draw(st.none() | texts)
    password = draw(st.none() | blobs) if username is not None or version == Version.MQTT_5 else None
    will = draw(st.none() | wills(version))
    keep_alive_s = draw(st.integers(0, 65_535))
    return ConnectPacket(
        version, draw(texts), draw(st.booleans()), keep_alive_s, username, password, will, draw(fields)
    )


@st.composite
def publishes(draw: st.DrawFn, version: Version) -> Publish:
    level = draw(qos)
    packet_id, duplicate = (draw(packet_ids), draw(st.booleans())) if level else (0, False)
    fields = _message(version, topic_alias=shorts)
    return Publish(draw(topics), draw(blobs), level, draw(st.booleans()), duplicate, packet_id, draw(fields))


def acknowledgements(version: Version) -> st.SearchStrategy[Acknowledgement]:
    five = version == Version.MQTT_5

    def of(kind: PacketType) -> st.SearchStrategy[Acknowledgement]:
        failed = 0x87 if kind in (PacketType.PUBACK, PacketType.PUBREC) else 0x92
        code = st.sampled_from([0, failed]) if five else st.just(0)
        return st.builds(Acknowledgement, st.just(kind), packet_ids, code, properties(version, reason_string=texts))

    return st.sampled_from([PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP]).flatmap(of)


def subscribes(version: Version) -> st.SearchStrategy[Subscribe]:
    five = version == Version.MQTT_5
    option = st.booleans() if five else st.just(False)
    handling = st.integers(0, 2) if five else st.just(0)
    plain = texts.filter(lambda text: not text.startswith("$share/"))
    wanted = st.builds(Subscription, plain, qos, option, option, handling)
    return st.builds(Subscribe, packet_ids, st.lists(wanted, min_size=1, max_size=4).map(tuple), properties(version))


def packets(version: Version) -> st.SearchStrategy[Packet]:
    """Return any packet that either side may send in a version."""
    five = version == Version.MQTT_5
    codes = st.sampled_from([0, 0x8E, 0x98]) if five else st.just(0)
    answers = st.lists(st.integers(0, 255), max_size=4).map(tuple)
    filters = st.lists(texts, min_size=1, max_size=4).map(tuple)
    kinds: list[st.SearchStrategy[Any]] = [
        connects(version),
        publishes(version),
        acknowledgements(version),
        subscribes(version),
        st.builds(Unsubscribe, packet_ids, filters, properties(version)),
        st.builds(ConnAck, st.integers(0, 255), st.booleans(), properties(version, receive_maximum=shorts)),
        st.builds(SubAck, st.just(PacketType.SUBACK), packet_ids, answers, properties(version)),
        st.builds(SubAck, st.just(PacketType.UNSUBACK), packet_ids, answers, properties(version)),
        st.builds(Ping, st.sampled_from([PacketType.PINGREQ, PacketType.PINGRESP])),
        st.builds(Disconnect, codes, properties(version, reason_string=texts)) if five else st.just(Disconnect()),
    ]
    if five:
        kinds.append(st.builds(Auth, st.sampled_from([0, 0x18]), properties(version, authentication_method=texts)))
    return st.one_of(kinds)
