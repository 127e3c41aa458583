"""Entities of NGSI-LD with their attributes, and the port through which sources give theirs.

Names of types, attributes and sub-attributes are IRIs; a request's `@context` translates them to short names and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from sensegate.authority.scope import Principal
from sensegate.share.grants import Admission


class AttributeKind(StrEnum):
    """Type of an attribute, as the normalized form names it."""

    PROPERTY = "Property"
    GEO_PROPERTY = "GeoProperty"
    RELATIONSHIP = "Relationship"
    LANGUAGE_PROPERTY = "LanguageProperty"
    VOCAB_PROPERTY = "VocabProperty"
    LIST_PROPERTY = "ListProperty"
    LIST_RELATIONSHIP = "ListRelationship"
    JSON_PROPERTY = "JsonProperty"


VALUE_KEYS: Mapping[AttributeKind, str] = {
    AttributeKind.PROPERTY: "value",
    AttributeKind.GEO_PROPERTY: "value",
    AttributeKind.RELATIONSHIP: "object",
    AttributeKind.LANGUAGE_PROPERTY: "languageMap",
    AttributeKind.VOCAB_PROPERTY: "vocab",
    AttributeKind.LIST_PROPERTY: "valueList",
    AttributeKind.LIST_RELATIONSHIP: "objectList",
    AttributeKind.JSON_PROPERTY: "json",
}
"""Type of an attribute -> member that holds its value."""


class AttributeInstance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attribute with one value; an attribute with several data sets has an instance for each."""

    name: str
    """IRI."""
    kind: AttributeKind
    value: object
    """JSON value; of a relationship the URI of its object, of a geo-property a GeoJSON geometry."""
    dataset: str = ""
    """URI of its data set; empty: the default instance."""
    observed_at: int | None = None
    """µs UTC, as are the other times."""
    unit: str = ""
    """UN/CEFACT code of its unit."""
    created: int | None = None
    modified: int | None = None
    sub: tuple[AttributeInstance, ...] = ()
    """Attributes of the attribute."""
    instance_id: str = ""
    """URI of the instance in the temporal evolution; empty: it has none."""
    readings: int = 0
    """Readings of a feed in it: 1 for the last value of a series, else 0."""


class EntityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entity as one caller sees it."""

    id: str
    types: tuple[str, ...]
    """IRIs."""
    attributes: tuple[AttributeInstance, ...]
    scopes: tuple[str, ...] = ()
    """Paths such as ``/44/4401``."""
    created: int | None = None
    modified: int | None = None
    deleted: int | None = None
    """Time of deletion; None: it exists."""

    def instances(self, name: str) -> Iterator[AttributeInstance]:
        """Yield the instances of an attribute."""
        return (instance for instance in self.attributes if instance.name == name)

    def merged(self, other: EntityRecord) -> EntityRecord:
        """Return the entity with the types, scopes and attributes of another source that it lacks."""
        names = {instance.name for instance in self.attributes}
        extra = tuple(instance for instance in other.attributes if instance.name not in names)
        return EntityRecord(
            id=self.id,
            types=tuple(dict.fromkeys((*self.types, *other.types))),
            attributes=(*self.attributes, *extra),
            scopes=tuple(dict.fromkeys((*self.scopes, *other.scopes))),
            created=min((time for time in (self.created, other.created) if time is not None), default=None),
            modified=max((time for time in (self.modified, other.modified) if time is not None), default=None),
        )


class Viewer(msgspec.Struct, frozen=True, eq=False):
    """Caller of a request, the scope that it may read, and its time."""

    principal: Principal
    admission: Admission
    now: int

    @property
    def feed(self) -> str:
        """Name of the feed that is read."""
        return self.admission.feed.name


class EntitySource(Protocol):
    """Gives entities to retrieval and queries."""

    async def entities(self, viewer: Viewer) -> Mapping[str, EntityRecord]:
        """Return all entities that a viewer may see, by id, with masked values only. The mapping is not changed."""
        ...


def types_of(entities: Iterable[EntityRecord]) -> dict[str, list[EntityRecord]]:
    """Return entities by each of their types."""
    grouped: dict[str, list[EntityRecord]] = {}
    for entity in entities:
        for name in entity.types:
            grouped.setdefault(name, []).append(entity)
    return grouped
