"""Topic aliases of MQTT 5.0: numbers that stand for topics which a client has sent before."""

from __future__ import annotations

from sensegate.collect.front import codec
from sensegate.collect.front.limits import FrontLimits
from sensegate.collect.front.packets import MqttViolation, PacketProperties, ReasonCode


class TopicAliases:
    """The topic aliases of one connection; they end with it."""

    __slots__ = ("_limits", "_topics")

    def __init__(self, limits: FrontLimits) -> None:
        self._limits = limits
        self._topics: dict[int, bytes] = {}

    def resolve(self, raw: bytes, properties: PacketProperties) -> bytes:
        """Return the topic of a PUBLISH with properties, which may have an alias. Raises `MqttViolation`."""
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
            self._topics[alias] = raw
            return raw
        if alias not in self._topics:
            raise MqttViolation(ReasonCode.PROTOCOL_ERROR, f"topic alias {alias} stands for no topic")
        return self._topics[alias]
