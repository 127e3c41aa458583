"""Entities as JSON: normalized, concise, simplified, and as GeoJSON features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.entities import VALUE_KEYS, AttributeInstance, AttributeKind, EntityRecord
from sensegate.ngsi_ld.problems import bad_data
from sensegate.ngsi_ld.vocabulary import iri
from sensegate.sensorthings.instants import instant_text

Document = dict[str, Any]
LOCATION = iri("location")
_WRAPPED = frozenset(
    {
        AttributeKind.LANGUAGE_PROPERTY,
        AttributeKind.VOCAB_PROPERTY,
        AttributeKind.JSON_PROPERTY,
        AttributeKind.LIST_PROPERTY,
        AttributeKind.LIST_RELATIONSHIP,
    }
)
"""Kinds whose value keeps its member in the simplified form."""


class EntityForm(StrEnum):
    """Form of an entity."""

    NORMALIZED = "normalized"
    CONCISE = "concise"
    SIMPLIFIED = "simplified"


class Rendering(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Form in which entities are written."""

    terms: LdContext
    form: EntityForm = EntityForm.NORMALIZED
    sys_attrs: bool = False
    languages: tuple[str, ...] = ()
    """Languages of which one is chosen for each language property, the best first; empty: all are shown."""
    geometry: str = LOCATION
    """IRI of the attribute that is the geometry of a GeoJSON feature."""
    dataset: str = ""
    """Data set of that geometry."""


class Projection(msgspec.Struct, frozen=True):
    """Selection of the members of an entity: names are IRIs, and ``id``, ``type``, ``scope``."""

    pick: frozenset[str] | None = None
    """None: all."""
    omit: frozenset[str] = frozenset()
    datasets: frozenset[str] | None = None
    """URIs of the data sets, ``@none`` the default instance; None: all."""

    def shows(self, name: str) -> bool:
        """Return whether a member is shown."""
        return name not in self.omit and (self.pick is None or name in self.pick)

    def projected(self, entity: EntityRecord) -> EntityRecord:
        """Return the entity with the attributes that are shown."""
        if self.pick is None and not self.omit and self.datasets is None:
            return entity
        shown = tuple(
            instance
            for instance in entity.attributes
            if self.shows(instance.name) and (self.datasets is None or (instance.dataset or "@none") in self.datasets)
        )
        return msgspec.structs.replace(entity, attributes=shown)


class EntityRenderer:
    """Renders entities as JSON documents."""

    def __init__(self, rendering: Rendering, projection: Projection) -> None:
        self._rendering = rendering
        self._terms = rendering.terms
        self._projection = projection

    def document(self, entity: EntityRecord) -> Document:
        """Return an entity, whose attributes are already those that are shown."""
        document = self._head(entity)
        document |= self._attributes(entity.attributes)
        if self._rendering.sys_attrs:
            document |= _times(entity)
        if entity.deleted is not None:
            document["deletedAt"] = instant_text(entity.deleted)
        return document

    def feature(self, entity: EntityRecord) -> Document:
        """Return an entity as a GeoJSON feature."""
        rendering = self._rendering
        geometries = [
            instance
            for instance in entity.instances(rendering.geometry)
            if instance.kind is AttributeKind.GEO_PROPERTY and instance.dataset == rendering.dataset
        ]
        document = self.document(entity)
        document.pop("id", None)
        return {
            "id": entity.id,
            "type": "Feature",
            "geometry": geometries[0].value if geometries else None,
            "properties": document,
        }

    def collection(self, entities: Iterable[EntityRecord]) -> Document:
        """Return entities as a GeoJSON feature collection."""
        return {"type": "FeatureCollection", "features": [self.feature(entity) for entity in entities]}

    def _head(self, entity: EntityRecord) -> Document:
        shows, compact = self._projection.shows, self._terms.compact
        head: Document = {}
        if shows("id"):
            head["id"] = entity.id
        if shows("type"):
            head["type"] = _few([compact(name) for name in entity.types])
        if entity.scopes and shows("scope"):
            head["scope"] = _few(list(entity.scopes))
        return head

    # ── attributes ────────────────────────────────────────────────────────────────────────────────────

    def _attributes(self, instances: Sequence[AttributeInstance]) -> Document:
        grouped: dict[str, list[AttributeInstance]] = {}
        for instance in instances:
            grouped.setdefault(self._terms.compact(instance.name), []).append(instance)
        return {name: self._attribute(group) for name, group in grouped.items()}

    def _attribute(self, group: list[AttributeInstance]) -> object:
        if self._rendering.form is EntityForm.SIMPLIFIED:
            if len(group) == 1 and not group[0].dataset:
                return self._simplified(group[0])
            return {"dataset": {instance.dataset or "@none": self._simplified(instance) for instance in group}}
        return _few([self.instance(instance) for instance in group])

    def instance(self, instance: AttributeInstance) -> object:
        """Return an instance of an attribute in the normalized or concise form."""
        is_concise = self._rendering.form is EntityForm.CONCISE
        kind, key, value, language = self._value(instance)
        document: Document = {} if is_concise else {"type": kind.value}
        document[key] = value
        if language:
            document["lang"] = language
        if instance.unit:
            document["unitCode"] = instance.unit
        if instance.observed_at is not None:
            document["observedAt"] = instant_text(instance.observed_at)
        if instance.dataset:
            document["datasetId"] = instance.dataset
        if instance.instance_id:
            document["instanceId"] = instance.instance_id
        if self._rendering.sys_attrs:
            document |= _times(instance)
        document |= self._attributes(instance.sub)
        if is_concise and len(document) == 1:
            if kind is AttributeKind.GEO_PROPERTY or (
                kind is AttributeKind.PROPERTY and not isinstance(value, Mapping)
            ):
                return value
        elif is_concise and kind is AttributeKind.GEO_PROPERTY:
            document = {"type": kind.value, **document}
        return document

    def _simplified(self, instance: AttributeInstance) -> object:
        kind, key, value, _ = self._value(instance)
        return {key: value} if kind in _WRAPPED else value

    def _value(self, instance: AttributeInstance) -> tuple[AttributeKind, str, object, str]:
        """Return (kind, member, value, language) as they are shown."""
        kind, value = instance.kind, instance.value
        if kind is AttributeKind.VOCAB_PROPERTY:
            value = [self._terms.compact(word) for word in value] if isinstance(value, list) else value
            value = self._terms.compact(value) if isinstance(value, str) else value
        languages = self._rendering.languages if kind is AttributeKind.LANGUAGE_PROPERTY else ()
        if languages and isinstance(value, Mapping) and (chosen := best_language(value, languages)):
            return AttributeKind.PROPERTY, "value", value[chosen], "" if chosen == "@none" else chosen
        return kind, VALUE_KEYS[kind], value, ""


def best_language(texts: Mapping[str, object], languages: Sequence[str]) -> str:
    """Return which of the languages of a map fits a preference best; empty: the map is empty."""
    for wanted in languages:
        for language in texts:
            if language.lower() == wanted.lower() or language.lower().startswith(f"{wanted.lower()}-"):
                return language
        short = wanted.partition("-")[0].lower()
        for language in texts:
            if language.lower() == short:
                return language
    return "@none" if "@none" in texts else next(iter(texts), "")


def languages_of(text: str) -> tuple[str, ...]:
    """Return the languages of a parameter in the form of `Accept-Language`, the best first. Raises `NgsiError`."""
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(text.split(",")[:20]):
        language, _, rest = part.strip().partition(";")
        weight = 1.0
        if rest.strip():
            name, _, number = rest.strip().partition("=")
            try:
                weight = float(number) if name.strip() == "q" else -1.0
            except ValueError:
                weight = -1.0
        if not language or not 0 <= weight <= 1:
            raise bad_data(f"query: lang: '{text[:40]}' is not a list of languages; give for example zh, or en;q=0.8")
        ranked.append((-weight, place, language.strip()))
    return tuple(language for _, _, language in sorted(ranked))


def _times(source: EntityRecord | AttributeInstance) -> Document:
    times = {"createdAt": source.created, "modifiedAt": source.modified}
    return {name: instant_text(time) for name, time in times.items() if time is not None}


def _few(values: list[Any]) -> Any:
    """Return the only value, or all of several."""
    return values[0] if len(values) == 1 else values
