"""What is remembered of a Sparkplug node between its messages: births, and the number of the last message.

Records are never changed: each message makes the next one, so that a walk can be undone (`decode.memory`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

NUMBERS = 256
"""After the last the first follows."""
_KNOWN_BYTES = 400
"""About what the memory of one metric takes, beside its name."""


class Known(msgspec.Struct, frozen=True):
    """What a birth says of one metric."""

    name: str
    datatype: int | None
    properties: Mapping[str, Any]


class Birth(msgspec.Struct, frozen=True):
    """The metrics of a node or a device."""

    names: Mapping[str, Known]
    aliases: Mapping[int, Known]
    received: int = 0
    """Arrival, µs."""

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return sum(_KNOWN_BYTES + 2 * len(name) for name in self.names)


class Node(msgspec.Struct, frozen=True):
    """One life of a node, as far as it was heard."""

    births: Mapping[str, Birth] = {}
    """By device; the node's own under the empty name."""
    online: frozenset[str] = frozenset()
    """Devices that are not known to be gone."""
    sequence: int | None = None
    """Number of the last message."""
    bd_seq: int | None = None
    """Number of the life, which its will carries too."""
    doubt: bool = False
    """Messages were missed since the birth of the node, though not that birth."""
    size: int = _KNOWN_BYTES
    """Bytes that it takes, about."""

    def heard(self, sequence: int | None) -> tuple[Node, bool]:
        """Return the node after a message of this number, and whether messages are missing before it."""
        if sequence is None:
            return self, False
        sequence %= NUMBERS
        if self.sequence is None or sequence == (self.sequence + 1) % NUMBERS:
            return msgspec.structs.replace(self, sequence=sequence), False
        if sequence == self.sequence:  # the same message again
            return self, False
        if sequence > self.sequence:
            return msgspec.structs.replace(self, sequence=sequence, doubt=True), True
        return Node(online=self.online, sequence=sequence), True

    def born(self, device: str, birth: Birth) -> Node:
        """Return the node with a device's birth."""
        births = {**self.births, device: birth}
        online = self.online | {device} if device else self.online
        return msgspec.structs.replace(self, births=births, online=online, size=_size(births))

    def without(self, device: str) -> Node:
        """Return the node without a device."""
        births = {name: birth for name, birth in self.births.items() if name != device}
        return msgspec.structs.replace(self, births=births, online=self.online - {device}, size=_size(births))


def _size(births: Mapping[str, Birth]) -> int:
    return _KNOWN_BYTES + sum(_KNOWN_BYTES + birth.size for birth in births.values())
