"""State of a Sparkplug node between its messages: births, and the sequence number of the last message.

Records are immutable: each message produces the next one, so that a batch can be rolled back (`decode.memory`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import msgspec

NUMBERS = 256
"""Sequence numbers wrap around after this many."""
_KNOWN_BYTES = 400
"""Approximate memory of one metric, without its name."""


class MetricDefinition(msgspec.Struct, frozen=True):
    """The definition of one metric, from a birth."""

    name: str
    datatype: int | None
    properties: Mapping[str, Any]


class Birth(msgspec.Struct, frozen=True):
    """The metrics of a node or a device."""

    names: Mapping[str, MetricDefinition]
    aliases: Mapping[int, MetricDefinition]
    received: int = 0
    """Arrival, µs."""
    model: int = 0
    """Number of its definitions, equal for births that define the same; 0: it has none."""

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return sum(_KNOWN_BYTES + 2 * len(name) for name in self.names)


class BirthModels:
    """Numbers of definitions: births that define the same share a number, and the definitions themselves."""

    def __init__(self, models_max: int = 4_096) -> None:
        self._models_max = models_max
        self._known: dict[Hashable, Birth] = {}

    def numbered(self, birth: Birth) -> Birth:
        """Return the birth with its number, while there are numbers left."""
        key = (
            tuple((name, metric.datatype, repr(metric.properties)) for name, metric in birth.names.items()),
            tuple((alias, metric.name) for alias, metric in birth.aliases.items()),
        )
        model = self._known.get(key)
        if model is None:
            if len(self._known) >= self._models_max:
                return birth
            model = self._known[key] = msgspec.structs.replace(birth, model=len(self._known) + 1)
        return msgspec.structs.replace(model, received=birth.received)


class NodeSession(msgspec.Struct, frozen=True):
    """A session of a node, as far as it was received."""

    births: Mapping[str, Birth] = {}
    """Birth messages by device; the node's own under the empty name."""
    online: frozenset[str] = frozenset()
    """Devices that are not known to be offline."""
    sequence: int | None = None
    """Sequence number of the last message."""
    bd_seq: int | None = None
    """Number of the session, which its will carries too."""
    doubt: bool = False
    """True if messages were missed since the birth of the node (though not that birth)."""
    size: int = _KNOWN_BYTES
    """Approximate size in bytes."""

    def advance(self, sequence: int | None) -> tuple[NodeSession, bool]:
        """Return the session after a message with this number, and whether messages before it are missing."""
        if sequence is None:
            return self, False
        sequence %= NUMBERS
        if self.sequence is None or sequence == (self.sequence + 1) % NUMBERS:
            return msgspec.structs.replace(self, sequence=sequence), False
        if sequence == self.sequence:  # a repetition of the same message
            return self, False
        if sequence > self.sequence:
            return msgspec.structs.replace(self, sequence=sequence, doubt=True), True
        return NodeSession(online=self.online, sequence=sequence), True

    def with_birth(self, device: str, birth: Birth) -> NodeSession:
        """Return the session with a device's birth."""
        births = {**self.births, device: birth}
        online = self.online | {device} if device else self.online
        return msgspec.structs.replace(self, births=births, online=online, size=_size(births))

    def without_device(self, device: str) -> NodeSession:
        """Return the session without a device."""
        births = {name: birth for name, birth in self.births.items() if name != device}
        return msgspec.structs.replace(self, births=births, online=self.online - {device}, size=_size(births))


def _size(births: Mapping[str, Birth]) -> int:
    return _KNOWN_BYTES + sum(_KNOWN_BYTES + birth.size for birth in births.values())
