"""The data model of the standard: entity types with their properties and links."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FieldKind(StrEnum):
    """Type of the value of a property."""

    TEXT = "text"
    TIME = "time"
    """An instant, or an interval ``begin/end``."""
    JSON = "json"
    GEOMETRY = "geometry"
    ANY = "any"
    ID = "id"


class EntityLink(msgspec.Struct, frozen=True):
    """Navigation link of an entity type."""

    name: str
    target: str
    """Name of the entity type that it leads to."""
    is_many: bool


class EntityKind(msgspec.Struct, frozen=True, eq=False):
    """An entity type."""

    name: str
    """Singular: ``Thing``."""
    plural: str
    """Name of the entity set: ``Things``."""
    fields: dict[str, FieldKind]
    links: dict[str, EntityLink]
    mandatory: tuple[str, ...]
    """Properties that a created entity must have."""


def _kind(name: str, plural: str, fields: dict[str, str], links: str, mandatory: str) -> EntityKind:
    """Return a type; a link in the plural leads to many."""
    described = {}
    for link in links.split():
        target = _SINGULAR.get(link, link)
        described[link] = EntityLink(link, target, link in _SINGULAR)
    kinds = {field: FieldKind(kind) for field, kind in fields.items()}
    return EntityKind(name, plural, kinds, described, tuple(mandatory.split()))


_SINGULAR = {
    "Things": "Thing",
    "Locations": "Location",
    "HistoricalLocations": "HistoricalLocation",
    "Datastreams": "Datastream",
    "Sensors": "Sensor",
    "ObservedProperties": "ObservedProperty",
    "Observations": "Observation",
    "FeaturesOfInterest": "FeatureOfInterest",
}
_NAMED = {"name": "text", "description": "text"}
KINDS: dict[str, EntityKind] = {
    kind.name: kind
    for kind in (
        _kind(
            "Thing",
            "Things",
            {**_NAMED, "properties": "json"},
            "Locations HistoricalLocations Datastreams",
            "name description",
        ),
        _kind(
            "Location",
            "Locations",
            {**_NAMED, "encodingType": "text", "location": "geometry", "properties": "json"},
            "Things HistoricalLocations",
            "name description encodingType location",
        ),
        _kind("HistoricalLocation", "HistoricalLocations", {"time": "time"}, "Thing Locations", "time"),
        _kind(
            "Datastream",
            "Datastreams",
            {
                **_NAMED,
                "observationType": "text",
                "unitOfMeasurement": "json",
                "observedArea": "geometry",
                "phenomenonTime": "time",
                "resultTime": "time",
                "properties": "json",
            },
            "Thing Sensor ObservedProperty Observations",
            "name description unitOfMeasurement observationType",
        ),
        _kind(
            "Sensor",
            "Sensors",
            {**_NAMED, "encodingType": "text", "metadata": "any", "properties": "json"},
            "Datastreams",
            "name description encodingType metadata",
        ),
        _kind(
            "ObservedProperty",
            "ObservedProperties",
            {**_NAMED, "definition": "text", "properties": "json"},
            "Datastreams",
            "name definition description",
        ),
        _kind(
            "Observation",
            "Observations",
            {
                "phenomenonTime": "time",
                "resultTime": "time",
                "result": "any",
                "resultQuality": "any",
                "validTime": "time",
                "parameters": "json",
            },
            "Datastream FeatureOfInterest",
            "result",
        ),
        _kind(
            "FeatureOfInterest",
            "FeaturesOfInterest",
            {**_NAMED, "encodingType": "text", "feature": "geometry", "properties": "json"},
            "Observations",
            "name description encodingType feature",
        ),
    )
}
"""Singular name -> entity type."""
SETS: dict[str, EntityKind] = {kind.plural: kind for kind in KINDS.values()}
"""Name of an entity set -> its type."""
ID_NAMES = frozenset({"id", "@iot.id"})


class Entity:
    """An entity as one caller sees it."""

    __slots__ = ("id", "kind", "source", "values")

    def __init__(self, kind: EntityKind, number: int, values: dict[str, object], source: object = None) -> None:
        """`values`: its properties as JSON; `source`: what the view made it of."""
        self.kind = kind
        self.id = number
        self.values = values
        self.source = source
