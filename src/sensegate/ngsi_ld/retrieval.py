"""Retrieval and queries of entities over all sources: what matches, in the order of ids, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sensegate.authority.scope import Principal
from sensegate.ngsi_ld.entities import EntityRecord, EntitySource, Viewer
from sensegate.ngsi_ld.logic import Joined, scope_matches
from sensegate.share.feeds import FeedFilter
from sensegate.share.reader import LogReader
from sensegate.share.sharing import Sharing

_STEP = 2_000
"""Entities that are tested at a time; other tasks run between steps."""
Condition = Callable[[EntityRecord], bool]
FORM = "json"
"""Form of records that a grant must cover."""


class EntitySelector(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Selection of entities by type and id."""

    ids: frozenset[str] = frozenset()
    """Empty: all; likewise the others."""
    types: Joined[str] | None = None
    """IRIs."""
    id_pattern: Any = None

    def matches(self, entity: EntityRecord) -> bool:
        """Return whether an entity is selected."""
        if self.ids and entity.id not in self.ids:
            return False
        if self.types is not None and not self.types.holds(entity.types.__contains__):
            return False
        return self.id_pattern is None or bool(self.id_pattern.search(entity.id))


class EntityQuery(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Conditions on entities, all of which must hold; names are IRIs."""

    selectors: tuple[EntitySelector, ...] = ()
    """At least one of these must match; empty: every entity matches."""
    attributes: frozenset[str] = frozenset()
    """The entity has one of these; empty: whatever it has."""
    conditions: tuple[Condition, ...] = ()
    scopes: Joined[str] | None = None

    def matches(self, entity: EntityRecord) -> bool:
        """Return whether all conditions hold of an entity."""
        if self.selectors and not any(selector.matches(entity) for selector in self.selectors):
            return False
        if self.attributes and not any(instance.name in self.attributes for instance in entity.attributes):
            return False
        if self.scopes is not None and not self.scopes.holds(lambda pattern: scope_matches(pattern, entity.scopes)):
            return False
        return all(condition(entity) for condition in self.conditions)


class MatchedEntities(msgspec.Struct, frozen=True):
    """Part of the entities that match."""

    entities: Sequence[EntityRecord]
    total: int
    """Number of entities that match, on all pages."""


class EntityRetrieval:
    """Finds entities within the admission of the caller."""

    def __init__(self, sharing: Sharing, sources: Sequence[EntitySource]) -> None:
        self._sharing = sharing
        self._sources = sources

    @property
    def reader(self) -> LogReader:
        """Reader of the log, which keeps the last values up to date."""
        return self._sharing.reader

    def viewer(self, principal: Principal, feed: str, now: int, delivery: str = "http") -> Viewer:
        """Return a caller's view of a feed. Raises `NotFound`, `PermissionDenied`."""
        return Viewer(principal, self._sharing.admit(principal, feed, FeedFilter(), delivery, FORM), now)

    async def all(self, viewer: Viewer) -> Mapping[str, EntityRecord]:
        """Return all entities that a viewer sees, by id."""
        # What the log holds now is to be found, even where it was not read yet.
        await self.reader.catch_up()
        entities: dict[str, EntityRecord] = {}
        for source in self._sources:
            given = await source.entities(viewer)
            if not entities:
                entities.update(given)
                continue
            for name, entity in given.items():
                known = entities.get(name)
                entities[name] = entity if known is None else known.merged(entity)
        return entities

    async def find(self, viewer: Viewer, name: str) -> EntityRecord | None:
        """Return the entity of an id; None: the viewer sees none."""
        return (await self.all(viewer)).get(name)

    async def query(self, viewer: Viewer, query: EntityQuery, *, offset: int, limit: int) -> MatchedEntities:
        """Return a page of the entities that match, in the order of their ids."""
        entities = await self.all(viewer)
        matched: list[EntityRecord] = []
        candidates: Iterable[EntityRecord] = entities.values()
        if query.selectors and all(selector.ids for selector in query.selectors):
            names = {name for selector in query.selectors for name in selector.ids}
            candidates = [entities[name] for name in names if name in entities]
        for place, entity in enumerate(candidates):
            if place % _STEP == _STEP - 1:
                await asyncio.sleep(0)
            if query.matches(entity):
                matched.append(entity)
        matched.sort(key=lambda entity: entity.id)
        return MatchedEntities(matched[offset : offset + limit], len(matched))
