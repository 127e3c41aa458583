"""What every record of the configuration is made of."""

from __future__ import annotations

import msgspec


def told(text: str) -> msgspec.Meta:
    """Return the line of help of a setting."""
    return msgspec.Meta(description=text)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the configuration records."""
