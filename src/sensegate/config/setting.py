"""The base class of the configuration records, and the help text of a setting."""

from __future__ import annotations

import msgspec


def doc(text: str) -> msgspec.Meta:
    """Return the annotation that carries the help text of a setting."""
    return msgspec.Meta(description=text)


class ConfigRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base class of the configuration records: frozen, keyword-only, without unknown fields."""
