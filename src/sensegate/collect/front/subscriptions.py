"""Subscriptions of a client with the options of MQTT 5.0, at a broker behind that speaks 3.1.1.

The broker sends a message once for each filter that matches it, and retained messages after each SUBACK. What 5.0 adds
is done here: retained messages that the client did not ask for are left out, identifiers of subscriptions are added,
and RETAIN is set where it was set in what was published.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import msgspec

from sensegate.collect.front.packets import PacketProperties, Publish, ReasonCode, Subscribe, Unsubscribe, Version
from sensegate.collect.front.rights import TopicMatcher

RETAINED_TOPICS = TopicMatcher(("sg/grants/+/homeassistant/#",))
"""Topics on which everything is published with RETAIN; the broker does not tell which messages were."""
COPIES_MAX = 256
"""Most messages whose copies are counted: the broker sends one copy for each filter that matches."""


class HeldSubscription(msgspec.Struct, frozen=True, array_like=True):
    """Options of a subscription, kept beside its filter for as long as the session lives."""

    identifier: int = 0
    """Subscription identifier; 0: none."""
    retain_as_published: bool = False


PLAIN = HeldSubscription()


class _Asked(msgspec.Struct, frozen=True, eq=False):
    """A SUBSCRIBE that the broker has not answered."""

    filters: tuple[str, ...]
    """Filters that the broker was asked for."""
    new: frozenset[str]
    """Filters that were not subscribed before."""
    retained: frozenset[str]
    """Filters of which the client wants retained messages."""


class ClientSubscriptions:
    """Subscriptions of one client: `held` outlives the connection, the rest does not."""

    def __init__(self, held: dict[str, HeldSubscription], subscriptions_max: int, filter_bytes_max: int) -> None:
        self._held = held
        self._subscriptions_max = subscriptions_max
        self._filter_bytes_max = filter_bytes_max
        self._asked: dict[int, _Asked] = {}
        self._answered = _Asked((), frozenset(), frozenset())
        self._matchers: dict[str, TopicMatcher] = {}
        self._copies: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._is_selective = False
        """True if the client has left retained messages out."""
        self._is_plain = not any(held_as != PLAIN for held_as in held.values())
        """True if messages pass as they are."""

    def __len__(self) -> int:
        return len(self._held)

    # ── from the client ──────────────────────────────────────────────────────────────────────────────

    def limit(self, packet: Subscribe, codes: Sequence[int | None]) -> list[int | None]:
        """Return the codes of a SUBSCRIBE with those of filters beyond the limits.

        Args:
            packet: what the client sent.
            codes: what is decided; None: the broker decides.
        """
        limited: list[int | None] = []
        room = self._subscriptions_max - len(self._held)
        for wanted, code in zip(packet.subscriptions, codes, strict=True):
            topic_filter = wanted.topic_filter
            is_new = code is None and topic_filter not in self._held
            if is_new and (room <= 0 or len(topic_filter.encode()) > self._filter_bytes_max):
                limited.append(ReasonCode.QUOTA_EXCEEDED)
                continue
            room -= is_new
            limited.append(code)
        return limited

    def ask(self, packet: Subscribe, codes: Sequence[int | None]) -> None:
        """Note a SUBSCRIBE that goes to the broker."""
        identifier = packet.properties.subscription_ids[0] if packet.properties.subscription_ids else 0
        granted = [wanted for wanted, code in zip(packet.subscriptions, codes, strict=True) if code is None]
        new = frozenset(wanted.topic_filter for wanted in granted if wanted.topic_filter not in self._held)
        retained = {
            wanted.topic_filter
            for wanted in granted
            if not wanted.retain_handling or (wanted.retain_handling == 1 and wanted.topic_filter in new)
        }
        for wanted in granted:
            held_as = HeldSubscription(identifier, wanted.retain_as_published)
            self._held[wanted.topic_filter] = held_as
            self._is_selective |= wanted.topic_filter not in retained
            self._is_plain &= held_as == PLAIN
        self._asked[packet.packet_id] = _Asked(
            tuple(wanted.topic_filter for wanted in granted), new, frozenset(retained)
        )

    def answered(self, packet_id: int, codes: Sequence[int]) -> None:
        """Take the broker's codes for the filters that it was asked for."""
        asked = self._asked.pop(packet_id, None)
        if asked is None:
            return
        self._answered = asked
        for topic_filter, code in zip(asked.filters, codes, strict=False):
            if code >= ReasonCode.UNSPECIFIED_ERROR and topic_filter in asked.new:
                self._held.pop(topic_filter, None)

    def remove(self, packet: Unsubscribe, version: Version) -> tuple[int, ...]:
        """Forget subscriptions; return the codes of UNSUBACK, which 5.0 has."""
        codes = tuple(
            ReasonCode.NO_SUBSCRIPTION_EXISTED if self._held.pop(topic_filter, None) is None else ReasonCode.SUCCESS
            for topic_filter in packet.topic_filters
        )
        return codes if version == Version.MQTT_5 else ()

    # ── from the broker ──────────────────────────────────────────────────────────────────────────────

    def shown(self, packet: Publish) -> Publish | None:
        """Return a message of the broker with the options of its subscription; None: the client did not request it."""
        if self._is_plain and not (packet.retain and self._is_selective):
            return packet
        asked = self._asked_for(packet.topic) if packet.retain else None
        matched = self._matching(packet.topic, asked.filters if asked else self._held)
        if not matched:
            return packet
        chosen = self._one_of(packet, matched)
        if asked and chosen not in asked.retained:
            return None
        held_as = self._held.get(chosen, PLAIN)
        retain = packet.retain or (held_as.retain_as_published and RETAINED_TOPICS.matches(packet.topic))
        if not held_as.identifier and packet.retain == retain:
            return packet
        properties = packet.properties
        if held_as.identifier:
            properties = PacketProperties(subscription_ids=(held_as.identifier,))
        return msgspec.structs.replace(packet, retain=retain, properties=properties)

    def _asked_for(self, topic: str) -> _Asked:
        """Return the SUBSCRIBE for which a retained message has come: it follows the SUBACK."""
        for asked in (self._answered, *self._asked.values()):
            if self._matching(topic, asked.filters):
                return asked
        return self._answered

    def _matching(self, topic: str, filters: Collection[str]) -> list[str]:
        if len(self._matchers) > 2 * self._subscriptions_max:
            self._matchers.clear()
        return [name for name in filters if self._matcher(name).matches(topic)]

    def _matcher(self, topic_filter: str) -> TopicMatcher:
        matcher = self._matchers.get(topic_filter)
        if matcher is None:
            matcher = self._matchers[topic_filter] = TopicMatcher((topic_filter,))
        return matcher

    def _one_of(self, packet: Publish, matched: Sequence[str]) -> str:
        """Return the filter for which a message has come: the broker sends one copy for each that matches.

        Which copy belongs to which filter does not matter, as long as each filter gets one.
        """
        if len(matched) == 1:
            return matched[0]
        key = (packet.topic, hash(packet.payload))
        number = self._copies.pop(key, 0)
        self._copies[key] = number + 1
        if len(self._copies) > COPIES_MAX:
            self._copies.popitem(last=False)
        return matched[number % len(matched)]
