"""Rights of a connection: topics to publish to and to subscribe to, by MQTT topic filters."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class TopicMatcher:
    """Topic filters, against which topics are matched; literal ones in one look-up."""

    def __init__(self, filters: Iterable[str]) -> None:
        literal, patterns = set(), []
        for topic_filter in filters:
            if "+" in topic_filter or "#" in topic_filter:
                patterns.append(topic_filter.split("/"))
            else:
                literal.add(topic_filter)
        self._literal = frozenset(literal)
        self._patterns = tuple(patterns)

    def matches(self, topic: str) -> bool:
        """Return whether a topic matches one of the filters; wildcards do not match a first level with ``$``."""
        if topic in self._literal:
            return True
        if not self._patterns or topic.startswith("$"):
            return False
        levels = topic.split("/")
        return any(_matches(pattern, levels) for pattern in self._patterns)

    def covers(self, topic_filter: str) -> bool:
        """Return whether everything that a filter matches is matched by one of the filters."""
        if topic_filter in self._literal:
            return True
        levels = topic_filter.split("/")
        return any(_covers(pattern, levels) for pattern in self._patterns)


def _matches(pattern: list[str], levels: list[str]) -> bool:
    for at, part in enumerate(pattern):
        if part == "#":
            return True
        if at >= len(levels) or part not in ("+", levels[at]):
            return False
    return len(pattern) == len(levels)


def _covers(pattern: list[str], levels: list[str]) -> bool:
    for at, part in enumerate(pattern):
        if part == "#":
            return True
        if at >= len(levels) or levels[at] == "#" or part not in ("+", levels[at]):
            return False
    return len(pattern) == len(levels)


class Rights(msgspec.Struct, frozen=True, eq=False):
    """The rights of a device's connection."""

    publish: TopicMatcher
    subscribe: TopicMatcher
    best_effort: TopicMatcher
    """Topics of which messages at QoS 0 are taken."""


class Admitted(msgspec.Struct, frozen=True, eq=False):
    """A device that may connect."""

    device: str
    rights: Rights
    until: int = 0
    """End of the validity of its credential, µs UTC; 0: none."""


class KnownTopic:
    """A topic of a connection with what its rights say."""

    __slots__ = ("best_effort", "is_allowed", "name")

    def __init__(self, name: str, *, is_allowed: bool, best_effort: bool) -> None:
        self.name = name
        self.is_allowed = is_allowed
        self.best_effort = best_effort


class PassThroughClient(msgspec.Struct, frozen=True):
    """A client that is no device: the broker behind decides on it, and all its packets pass through to it."""
