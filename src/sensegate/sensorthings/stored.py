"""Entities that clients wrote: data without a place in the registry and the property table, as records of a bucket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Scope

EXTRAS = "Extras"
"""Kind of the records of what Observations have beside their results, by phenomenon time in µs."""


REMOVED = "Removed"
"""Kind of the records of Datastreams that were deleted while their readings stay on the log."""


class StoredEntity(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Members of an entity that clients wrote.

    Of a Thing and a Datastream these are texts beside what the registry and the log say; other entities exist by it.
    """

    kind: str
    id: int
    values: dict[str, Any]
    """Properties, as in the standard."""
    device: str = ""
    """Device to which it belongs: of Things, Datastreams, HistoricalLocations."""
    measured: str = ""
    """Standard property: of Datastreams and ObservedProperties."""
    links: dict[str, tuple[int, ...]] = {}
    """Name of a link -> ids."""
    division: str
    department: str = ""
    revision: int = 0
    format: int = 1

    @property
    def key(self) -> str:
        """Name of its record."""
        return f"{self.kind}/{self.id}"


class StoredEntities:
    """Stored entities in memory, by kind and id; they follow their bucket."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._of_kind: dict[str, dict[int, StoredEntity]] = {}
        self._of_device: dict[str, dict[str, StoredEntity]] = {}
        self.extras: dict[int, dict[int, dict[str, object]]] = {}
        """Datastream -> phenomenon time (µs UTC) -> properties of its Observation that no reading has."""
        self.records: RecordTable[StoredEntity] = RecordTable(store, "entity", StoredEntity)
        self.records.on_change.append(self._index)
        self.version = 0
        """Counter of changes."""

    async def open(self) -> None:
        """Load all entities."""
        await self._store.open()

    async def run(self) -> None:
        """Follow the changes of all processes until cancelled."""
        await self._store.run()

    def _index(self, before: StoredEntity | None, after: StoredEntity | None) -> None:
        self.version += 1
        if before is not None:
            self._of_kind.get(before.kind, {}).pop(before.id, None)
            self._of_device.get(before.device, {}).pop(before.key, None)
            for moment in before.values if before.kind == EXTRAS else ():
                self.extras.get(before.links["Datastream"][0], {}).pop(int(moment), None)
        if after is not None:
            self._of_kind.setdefault(after.kind, {})[after.id] = after
            if after.device:
                self._of_device.setdefault(after.device, {})[after.key] = after
            if after.kind == EXTRAS:
                mine = self.extras.setdefault(after.links["Datastream"][0], {})
                mine.update({int(moment): values for moment, values in after.values.items()})

    def find(self, kind: str, number: int) -> StoredEntity | None:
        """Return an entity without regard to scope; None: there is none."""
        known = self._of_kind.get(kind)
        return known.get(number) if known else None

    def of_kind(self, kind: str) -> Iterable[StoredEntity]:
        """Return the entities of a kind, in no particular order."""
        return self._of_kind.get(kind, {}).values()

    def of_device(self, device: str, kind: str) -> list[StoredEntity]:
        """Return the entities of a kind that belong to a device, by id."""
        mine = [entity for entity in self._of_device.get(device, {}).values() if entity.kind == kind]
        return sorted(mine, key=lambda entity: entity.id)

    async def put(self, entity: StoredEntity) -> StoredEntity:
        """Write an entity, at the revision that it states (0: a new one). Raises `Conflict`."""
        return await self.records.put(entity.key, entity, expected=entity.revision)

    async def delete(self, entity: StoredEntity) -> None:
        """Delete an entity."""
        await self.records.delete(entity.key, expected=None)


def is_visible(entity: StoredEntity, scope: Scope) -> bool:
    """Return whether a scope covers a stored entity."""
    return scope.covers(entity.division, entity.department)
