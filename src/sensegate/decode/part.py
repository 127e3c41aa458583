"""Base of the parts of a profile: frozen records that allow no unknown keys; each key carries its description."""

from __future__ import annotations

import msgspec

Scalar = bool | int | float | str


def description(text: str) -> msgspec.Meta:
    """Return the description of a key, as the tables and editors show it."""
    return msgspec.Meta(description=text)


class ProfilePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the parts of a profile."""
