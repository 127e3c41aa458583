"""Made-up entities for tests that need no server."""

from __future__ import annotations

from typing import Any

from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind, EntityRecord

CORE = LdContexts().core
DAY = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, µs UTC."""


def attribute(name: str, value: Any, kind: AttributeKind = AttributeKind.PROPERTY, **more: Any) -> AttributeInstance:
    """Return an instance of an attribute by its short name."""
    return AttributeInstance(name=CORE.expand(name), kind=kind, value=value, **more)


def entity(
    *attributes: AttributeInstance, name: str = "urn:ngsi-ld:T:a", types: tuple[str, ...] = ("T",)
) -> EntityRecord:
    """Return an entity."""
    return EntityRecord(
        id=name,
        types=tuple(map(CORE.expand, types)),
        attributes=attributes,
        scopes=("/44/4401/440106",),
        created=DAY,
        modified=DAY + 1_000_000,
    )
