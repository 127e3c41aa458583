"""Entities that departments keep beside devices: records of a bucket, and a source of queries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, allows
from sensegate.errors import Overloaded
from sensegate.ngsi_ld.entities import AttributeInstance, EntityRecord, Viewer
from sensegate.ngsi_ld.problems import bad_data
from sensegate.share.feeds import ALL_FEED

ENTITIES_MAX = 100_000
ENTITY_BYTES_MAX = 262_144


class RegisteredEntity(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entity that a department keeps. Names of types and attributes are IRIs."""

    id: str
    types: tuple[str, ...]
    attributes: tuple[AttributeInstance, ...] = ()
    scopes: tuple[str, ...] = ()
    division: str
    department: str = ""
    created: int = 0
    """µs UTC."""
    modified: int = 0
    revision: int = 0
    format: int = 1

    def record(self) -> EntityRecord:
        """Return the entity as queries see it."""
        return EntityRecord(
            id=self.id,
            types=self.types,
            attributes=self.attributes,
            scopes=self.scopes,
            created=self.created,
            modified=self.modified,
        )


def key_of(name: str) -> str:
    """Return the name of the record of an entity: its URI may be longer than a key."""
    return hashlib.blake2s(name.encode(), digest_size=16).hexdigest()


class EntityRegistry:
    """Stored entities in memory; they follow their bucket."""

    def __init__(self, store: RecordStore) -> None:
        """Attach them to a store, which fills them."""
        self._visible: dict[str, EntityRecord] = {}
        self.records: RecordTable[RegisteredEntity] = RecordTable(store, "entity", RegisteredEntity)
        self.records.on_change.append(self._index)

    def _index(self, before: RegisteredEntity | None, after: RegisteredEntity | None) -> None:
        if after is not None:
            self._visible[after.id] = after.record()
        elif before is not None:
            self._visible.pop(before.id, None)

    def find(self, name: str) -> RegisteredEntity | None:
        """Return an entity without regard to scope; None: there is none."""
        entity = self.records.find(key_of(name))
        return entity if entity is not None and entity.id == name else None

    async def entities(self, viewer: Viewer) -> Mapping[str, EntityRecord]:
        """Return the entities in the scope of a viewer that reads by it; a grant or a feed is for readings."""
        return {entity.id: self._visible[entity.id] for entity in self.records.all() if is_visible(entity, viewer)}

    async def put(self, entity: RegisteredEntity) -> RegisteredEntity:
        """Write an entity at the revision that it states (0: a new one).

        Raises:
            NgsiError: it is too large.
            Overloaded: there are too many.
            Conflict: it was changed meanwhile.
        """
        size = len(msgspec.json.encode(entity))
        if size > ENTITY_BYTES_MAX:
            raise bad_data(f"entity {entity.id[:80]}: has {size} bytes; give at most {ENTITY_BYTES_MAX}")
        if not entity.revision and len(self.records) >= ENTITIES_MAX:
            raise Overloaded(f"there are {ENTITIES_MAX} stored entities; delete some first")
        return await self.records.put(key_of(entity.id), entity, expected=entity.revision)

    async def delete(self, entity: RegisteredEntity) -> None:
        """Delete an entity. Raises `Conflict`."""
        await self.records.delete(key_of(entity.id), expected=entity.revision)


def is_visible(entity: RegisteredEntity, viewer: Viewer) -> bool:
    """Return whether a viewer sees an entity: by its own scope, not by a grant or through a feed."""
    return is_in_scope(viewer, entity.division, entity.department)


def is_in_scope(viewer: Viewer, division: str, department: str) -> bool:
    """Return whether a viewer sees what belongs to a department: by its own scope, not by a grant or a feed."""
    principal = viewer.principal
    if viewer.admission.grant_id or viewer.feed != ALL_FEED.name or principal.feeds:
        return False
    return allows(principal, Action.READ_READINGS, division, department)
