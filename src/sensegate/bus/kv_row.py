"""Row of a key-value bucket; registries use it without depending on the store."""

from __future__ import annotations

import msgspec


class KvRow(msgspec.Struct, frozen=True):
    """Value of a key at a revision."""

    key: str
    value: bytes | None
    """None: deleted."""
    revision: int
    """Increases with each change of the bucket; the expected revision of the next change of this key."""


class KvWrite(msgspec.Struct, frozen=True):
    """A value to be written if its key has the expected revision."""

    key: str
    value: bytes
    expected: int
    """Revision that the key must have, also that of its deletion; 0: it never existed."""
