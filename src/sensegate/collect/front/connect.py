"""CONNECT and its answer: what a client may ask for whoever it is, how long its session lives, what CONNACK states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensegate.collect.front import codec
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import (
    NO_PROPERTIES,
    ConnAck,
    ConnectPacket,
    MqttViolation,
    PacketProperties,
    ReasonCode,
    Version,
)
from sensegate.collect.front.sessions import NEVER

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
_UNANSWERED = frozenset({ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR, ReasonCode.TOPIC_NAME_INVALID})
"""Reasons for which a CONNECT before 5.0 is not answered but the connection closed."""


def check_connect(connect: ConnectPacket, limits: FrontLimits, hit: Callable[[str], None]) -> None:
    """Raise `MqttViolation` for a CONNECT that is refused whoever the client is.

    Args:
        connect: what the client sent.
        limits: limits of client ids.
        hit: counts a limit that was reached.
    """
    if _is_anonymous_and_persistent(connect):
        raise MqttViolation(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier")
    if len(connect.client_id.encode()) > limits.client_id_bytes_max:
        hit("client_id_bytes")
        raise MqttViolation(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "the client identifier is too long")
    if connect.properties.authentication_method is not None:
        raise MqttViolation(ReasonCode.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported")


def _is_anonymous_and_persistent(connect: ConnectPacket) -> bool:
    if connect.client_id or connect.version == Version.MQTT_5:
        return False
    return connect.version == Version.MQTT_3_1 or not connect.clean_start


def common_name(certificate: Any) -> str:
    """Return the common name of a client certificate as `ssl` decodes it; empty: none was shown."""
    for parts in certificate.get("subject", ()) if certificate else ():
        for name, value in parts:
            if name == "commonName":
                return str(value)
    return ""


def session_expiry_s(connect: ConnectPacket, expiry_max_s: int) -> int:
    """Return for how many seconds a session is to live without a connection."""
    expiry_s = connect.properties.session_expiry_s or 0
    if connect.version != Version.MQTT_5:
        expiry_s = 0 if connect.clean_start else NEVER
    return min(expiry_s, expiry_max_s)


def accepted(
    connect: ConnectPacket, client_id: str, limits: FrontLimits, *, session_present: bool, maximum_qos: int | None
) -> bytes:
    """Return the CONNACK for a client that is admitted.

    Args:
        connect: what the client sent.
        client_id: its client id, which may have been assigned.
        limits: limits that 5.0 states.
        session_present: whether its session goes on.
        maximum_qos: highest QoS that it may publish with; None: all.
    """
    properties = NO_PROPERTIES
    if connect.version == Version.MQTT_5:
        wanted = connect.properties.session_expiry_s
        capped = wanted is not None and wanted > limits.session_expiry_max_s
        properties = PacketProperties(
            session_expiry_s=limits.session_expiry_max_s if capped else None,
            receive_maximum=min(limits.inflight_max, 65_535),
            maximum_packet_size=limits.packet_bytes_max,
            assigned_client_id=None if connect.client_id else client_id,
            topic_alias_maximum=limits.topic_aliases_max,
            maximum_qos=maximum_qos,
            shared_available=0,
        )
    return codec.encode(ConnAck(0, session_present, properties), connect.version)


def refused(why: MqttViolation, version: Version) -> bytes:
    """Return the CONNACK for a client that is refused; empty: its connection is closed without an answer."""
    if version == Version.MQTT_5 and not isinstance(why, codec.UnsupportedVersion):
        return codec.encode(ConnAck(why.reason), version)
    if why.reason in _UNANSWERED:
        return b""
    return codec.encode(ConnAck(RETURN_CODES.get(why.reason, _NOT_AUTHORIZED)), Version.MQTT_3_1_1)
