"""A row of a key-value store: what registries are made of; they need not know the store."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One key as it stands at a revision."""

    key: str
    value: bytes | None
    """None: deleted."""
    revision: int
    """Rises with each change of the bucket; the one to expect at the next change of this key."""
