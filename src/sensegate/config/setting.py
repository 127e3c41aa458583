"""The base class of the configuration records, and the help text of a setting."""

from __future__ import annotations

import msgspec


def doc(text: str, *, least: float | None = None, most: float | None = None) -> msgspec.Meta:
    """Return the annotation that carries the help text of a setting, and for a number its range."""
    return msgspec.Meta(description=text, ge=least, le=most)


class ConfigRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base class of the configuration records: frozen, keyword-only, without unknown fields."""
