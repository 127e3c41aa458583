"""State of a Sparkplug node between its messages: births, and the sequence number of the last message.

Records are immutable: each message produces the next one, so that a batch can be rolled back (`decode.memory`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

NUMBERS = 256
"""Sequence numbers wrap around after this many."""
_KNOWN_BYTES = 400
"""Approximate memory of one metric, without its name and properties."""
_VALUE_BYTES = 120
"""Approximate memory of a property or of a name in a set, without its text."""
MODELS_MAX: Final = 4_096
MODELS_BYTES_MAX: Final = 32 * 1024**2
"""Most memory of the definitions that are kept because births share them."""


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

    size: int = 0
    """Approximate size in bytes."""


class BirthModels:
    """Numbers of definitions: births that define the same share a number, and the definitions themselves."""

    def __init__(self, models_max: int = MODELS_MAX, bytes_max: int = MODELS_BYTES_MAX) -> None:
        self._models_max = models_max
        self._bytes_max = bytes_max
        self._known: dict[bytes, Birth] = {}
        self._bytes = 0

    def numbered(self, birth: Birth) -> Birth:
        """Return the birth with its size, and with its number while there is room for its definitions."""
        key = _digest(birth)
        model = self._known.get(key)
        if model is None:
            size = sum(
                _KNOWN_BYTES + 2 * len(name) + _bytes_of(known.properties) for name, known in birth.names.items()
            )
            if len(self._known) >= self._models_max or self._bytes + size > self._bytes_max:
                return msgspec.structs.replace(birth, size=size)
            self._bytes += size
            model = self._known[key] = msgspec.structs.replace(birth, model=len(self._known) + 1, size=size)
        return msgspec.structs.replace(model, received=birth.received)


def _digest(birth: Birth) -> bytes:
    """Return a digest of what a birth defines: its texts are too large to be kept as a key."""
    definitions = (
        [(name, metric.datatype, metric.properties) for name, metric in birth.names.items()],
        [(alias, metric.name) for alias, metric in birth.aliases.items()],
    )
    return hashlib.blake2b(repr(definitions).encode(), digest_size=32).digest()


def _bytes_of(value: Any) -> int:
    """Return the approximate memory of properties."""
    if isinstance(value, Mapping):
        return _VALUE_BYTES + sum(_VALUE_BYTES + 2 * len(key) + _bytes_of(member) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return _VALUE_BYTES + sum(map(_bytes_of, value))
    return 2 * len(value) if isinstance(value, (str, bytes)) else 0


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
        return self.without_births(sequence), True

    def without_births(self, sequence: int, bd_seq: int | None = None) -> NodeSession:
        """Return a session of the node in which nothing is born yet."""
        size = _KNOWN_BYTES + _names_bytes(self.online)
        return NodeSession(online=self.online, sequence=sequence, bd_seq=bd_seq, size=size)

    def with_birth(self, device: str, birth: Birth) -> NodeSession:
        """Return the session with a device's birth."""
        births = {**self.births, device: birth}
        online = self.online | {device} if device else self.online
        # The difference: a sum over the births of a node at each of them would be quadratic.
        size = self.size + _birth_bytes(birth) - _birth_bytes(self.births.get(device))
        if len(online) > len(self.online):
            size += _names_bytes((device,))
        return msgspec.structs.replace(self, births=births, online=online, size=size)

    def without_device(self, device: str) -> NodeSession:
        """Return the session without a device."""
        births = {name: birth for name, birth in self.births.items() if name != device}
        size = self.size - _birth_bytes(self.births.get(device)) - _names_bytes(self.online & {device})
        return msgspec.structs.replace(self, births=births, online=self.online - {device}, size=size)


def _birth_bytes(birth: Birth | None) -> int:
    return _KNOWN_BYTES + birth.size if birth else 0


def _names_bytes(names: Iterable[str]) -> int:
    return sum(_VALUE_BYTES + 2 * len(name) for name in names)
