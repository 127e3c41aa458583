"""Control packets of MQTT 3.1, 3.1.1 and 5.0 as records, and the reason codes of 5.0."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from sensegate.errors import SensegateError


class Version(IntEnum):
    """Protocol level of CONNECT."""

    MQTT_3_1 = 3
    MQTT_3_1_1 = 4
    MQTT_5 = 5


class PacketType(IntEnum):
    """Control packet type: the upper four bits of the first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ReasonCode(IntEnum):
    """Reason codes of MQTT 5.0 (section 2.4)."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


class MqttViolation(SensegateError):
    """A peer broke the protocol: its connection is closed with a reason code."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class PacketProperties(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Properties of a packet of MQTT 5.0; None: absent."""

    payload_format: int | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem: int | None = None
    will_delay_s: int | None = None
    request_response: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


NO_PROPERTIES = PacketProperties()


class Will(msgspec.Struct, frozen=True):
    """The message that is published when its connection breaks."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: PacketProperties = NO_PROPERTIES


class ConnectPacket(msgspec.Struct, frozen=True):
    """CONNECT."""

    version: Version
    client_id: str
    clean_start: bool = True
    keep_alive_s: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: PacketProperties = NO_PROPERTIES


class ConnAck(msgspec.Struct, frozen=True):
    """CONNACK; `code` is a return code of 3.1.1 or a reason code of 5.0."""

    code: int
    session_present: bool = False
    properties: PacketProperties = NO_PROPERTIES


class Publish(msgspec.Struct, frozen=True):
    """PUBLISH; `topic` is empty where an alias stands for it."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    properties: PacketProperties = NO_PROPERTIES


class Acknowledgement(msgspec.Struct, frozen=True):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: PacketType
    packet_id: int
    code: int = 0
    properties: PacketProperties = NO_PROPERTIES


class Subscription(msgspec.Struct, frozen=True):
    """A topic filter of SUBSCRIBE with its options."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: PacketProperties = NO_PROPERTIES


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE."""

    packet_id: int
    topic_filters: tuple[str, ...]
    properties: PacketProperties = NO_PROPERTIES


class SubAck(msgspec.Struct, frozen=True):
    """SUBACK or, with kind UNSUBACK, the answer to UNSUBSCRIBE (in 3.1.1 without codes)."""

    kind: PacketType
    packet_id: int
    codes: tuple[int, ...] = ()
    properties: PacketProperties = NO_PROPERTIES


class Ping(msgspec.Struct, frozen=True):
    """PINGREQ or PINGRESP."""

    kind: PacketType


class Disconnect(msgspec.Struct, frozen=True):
    """DISCONNECT."""

    code: int = 0
    properties: PacketProperties = NO_PROPERTIES


class Auth(msgspec.Struct, frozen=True):
    """AUTH (5.0)."""

    code: int = 0
    properties: PacketProperties = NO_PROPERTIES


Packet = (
    ConnectPacket | ConnAck | Publish | Acknowledgement | Subscribe | Unsubscribe | SubAck | Ping | Disconnect | Auth
)
