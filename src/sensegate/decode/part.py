"""What every part of a profile is made of: a frozen record that knows no other keys, each key with its explanation."""

from __future__ import annotations

import msgspec

Scalar = bool | int | float | str


def says(text: str) -> msgspec.Meta:
    """Return the explanation of a key, as the tables and editors show it."""
    return msgspec.Meta(description=text)


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the parts of a profile."""
