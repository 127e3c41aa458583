"""Writing of entities that departments keep: authorised, audited, within the scope of the caller.

An entity belongs to the division and department in whose scope it was created. Entities of devices follow from the
registry and from readings, and are changed there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sensegate.authority.scope import Action, Principal, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.errors import Conflict
from sensegate.ngsi_ld.documents import EntityDocument
from sensegate.ngsi_ld.entities import AttributeInstance
from sensegate.ngsi_ld.merging import Change, Instances, applied, changed, merged, replaced, stamped
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.stored_entities import EntityRegistry, RegisteredEntity

_ATTEMPTS = 5
"""Attempts of a change that another one overtakes."""
IsDevice = Callable[[str], Awaitable[bool]]
"""Id of an entity -> whether it is one of a device that the caller sees."""
IsReserved = Callable[[str], bool]
"""Id of an entity -> whether it belongs to a device, which the caller need not see."""
DEVICE_PREFIX = "urn:ngsi-ld:Device:"
Edit = Callable[[RegisteredEntity], RegisteredEntity]


class Owner(msgspec.Struct, frozen=True):
    """Owner of new entities: division and department."""

    division: str
    department: str = ""


class UpdateResult(msgspec.Struct, frozen=True):
    """Attributes of a fragment that were applied, by IRI, and the reasons why others were not."""

    updated: tuple[str, ...] = ()
    not_updated: tuple[tuple[str, str], ...] = ()
    """(attribute, reason)."""


class StoredEntityWriter:
    """Writes on behalf of one caller."""

    def __init__(
        self,
        stored: EntityRegistry,
        trail: Trail,
        principal: Principal,
        is_device: IsDevice,
        now: int,
        *,
        is_reserved: IsReserved,
    ) -> None:
        """`now`: time of the request, µs UTC."""
        self._stored = stored
        self._trail = trail
        self._principal = principal
        self._is_device = is_device
        self._now = now
        self._is_reserved = is_reserved

    # ── whole entities ────────────────────────────────────────────────────────────────────────────────

    async def create(self, document: EntityDocument, owner: Owner) -> None:
        """Create an entity. Raises `NgsiError`, `PermissionDenied`, `Conflict`, `Overloaded`, `Unavailable`."""
        demand(self._principal, Action.CHANGE_DEVICES, owner.division, owner.department)
        # Also of devices that the caller does not see: their viewers would be shown both as one entity.
        if document.id.startswith(DEVICE_PREFIX) or self._is_reserved(document.id):
            raise NgsiError(
                ErrorType.ALREADY_EXISTS,
                f"{document.id[:200]}: ids of this form are entities of devices; POST /api/v1/devices registers one",
            )
        if self._stored.find(document.id) is not None:
            raise NgsiError(ErrorType.ALREADY_EXISTS, f"{document.id[:200]}: exists; change it, or use another id")
        await self._put(None, self._new(document, owner), "create")

    def _new(self, document: EntityDocument, owner: Owner) -> RegisteredEntity:
        if not document.types:
            raise bad_data(f"{document.id[:200]}: type: is missing; an entity has one")
        return RegisteredEntity(
            id=document.id,
            types=document.types,
            attributes=applied((), stamped(document.attributes, self._now), replaced, created=self._now),
            scopes=document.scopes or (),
            division=owner.division,
            department=owner.department,
            created=self._now,
            modified=self._now,
        )

    async def replace(self, name: str, document: EntityDocument) -> None:
        """Replace an entity, except for its id and owner. Raises as `create`."""

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            if document.types and not set(entity.types) <= set(document.types):
                raise bad_data("body: type: differs; types of an entity are only added (clause 5.6.18)")
            known = {(instance.name, instance.dataset): instance for instance in entity.attributes}
            attributes = [
                msgspec.structs.replace(
                    instance,
                    created=known[key].created if (key := (instance.name, instance.dataset)) in known else self._now,
                    modified=self._now,
                )
                for instance in document.attributes
            ]
            return msgspec.structs.replace(
                entity,
                types=document.types or entity.types,
                scopes=document.scopes or (),
                attributes=tuple(attributes),
            )

        await self._edit(name, edit, "replace")

    async def merge(self, name: str, document: EntityDocument, observed_at: int | None = None) -> None:
        """Merge a fragment into an entity. Raises as `create`.

        Args:
            name: id of the entity.
            document: fragment of it.
            observed_at: time (µs UTC) of changed attributes that have one and get none by the fragment.
        """

        def merge_at(before: AttributeInstance, fragment: AttributeInstance) -> AttributeInstance:
            result = merged(before, fragment)
            if observed_at is None or before.observed_at is None or fragment.observed_at is not None:
                return result
            return msgspec.structs.replace(result, observed_at=observed_at)

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            return self._with(entity, document, merge_at)

        await self._edit(name, edit, "merge")

    async def delete(self, name: str) -> None:
        """Delete an entity. Raises as `create`."""
        entity = await self._writable(name)
        await self._trail.record(self._principal, "ngsi_ld.delete", name, before=_facts(entity))
        await self._stored.delete(entity)

    # ── attributes ────────────────────────────────────────────────────────────────────────────────────

    async def append(self, name: str, document: EntityDocument, *, overwrites: bool = True) -> UpdateResult:
        """Add attributes; those that exist are replaced if `overwrites`, else stay. Raises as `create`."""
        result = UpdateResult()

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            nonlocal result
            known = _keys(entity.attributes)
            taken = [
                instance
                for instance in document.attributes
                if overwrites or (instance.name, instance.dataset) not in known
            ]
            result = _result(document.attributes, taken, "exists; it is overwritten without options=noOverwrite")
            return self._with(entity, msgspec.structs.replace(document, attributes=tuple(taken)), replaced)

        await self._edit(name, edit, "append")
        return result

    async def update(self, name: str, document: EntityDocument) -> UpdateResult:
        """Replace attributes that exist; others stay away. Raises as `create`."""
        result = UpdateResult()

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            nonlocal result
            known = _keys(entity.attributes)
            taken = [instance for instance in document.attributes if (instance.name, instance.dataset) in known]
            result = _result(document.attributes, taken, "the entity has no such attribute; POST adds it")
            return self._with(entity, msgspec.structs.replace(document, attributes=tuple(taken)), replaced)

        await self._edit(name, edit, "update")
        return result

    async def change_attribute(
        self, name: str, attribute: str, fragments: Sequence[AttributeInstance], *, replaces: bool
    ) -> None:
        """Change an attribute in part, or replace it. Raises as `create`."""

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            known = _keys(entity.attributes)
            if missing := [fragment.dataset for fragment in fragments if (attribute, fragment.dataset) not in known]:
                raise _no_attribute(name, attribute, missing[0])
            change: Change = replaced if replaces else changed
            return self._with(entity, EntityDocument(attributes=tuple(fragments)), change)

        await self._edit(name, edit, "change")

    async def delete_attribute(
        self, name: str, attribute: str, dataset: str = "", *, deletes_all: bool = False
    ) -> None:
        """Delete an instance of an attribute, or all of them. Raises as `create`."""

        def edit(entity: RegisteredEntity) -> RegisteredEntity:
            left = tuple(
                instance
                for instance in entity.attributes
                if instance.name != attribute or (not deletes_all and instance.dataset != dataset)
            )
            if len(left) == len(entity.attributes):
                raise _no_attribute(name, attribute, dataset)
            return msgspec.structs.replace(entity, attributes=left)

        await self._edit(name, edit, "delete attribute")

    def _with(self, entity: RegisteredEntity, document: EntityDocument, change: Change) -> RegisteredEntity:
        """Return an entity with a fragment applied."""
        fragment: Instances = stamped(document.attributes, self._now)
        return msgspec.structs.replace(
            entity,
            types=tuple(dict.fromkeys((*entity.types, *document.types))),
            scopes=entity.scopes if document.scopes is None else document.scopes,
            attributes=applied(entity.attributes, fragment, change, created=self._now),
        )

    # ── acts ──────────────────────────────────────────────────────────────────────────────────────────

    def exists(self, name: str) -> bool:
        """Return whether there is an entity of this id that the caller may change."""
        entity = self._stored.find(name)
        return entity is not None and self._may_change(entity)

    def _may_change(self, entity: RegisteredEntity) -> bool:
        return allows(self._principal, Action.CHANGE_DEVICES, entity.division, entity.department)

    async def _writable(self, name: str) -> RegisteredEntity:
        """Return an entity that the caller may change. Raises `NgsiError`, `PermissionDenied`."""
        entity = self._stored.find(name)
        if entity is None and await self._is_device(name):
            raise NgsiError(
                ErrorType.OPERATION_NOT_SUPPORTED,
                f"{name[:200]}: is the entity of a device and follows from its readings; "
                "send readings, or change the device at /api/v1/devices",
            )
        if entity is None or not allows(self._principal, Action.READ_READINGS, entity.division, entity.department):
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no entity '{name[:200]}' that you see")
        demand(self._principal, Action.CHANGE_DEVICES, entity.division, entity.department)
        return entity

    async def _edit(self, name: str, edit: Edit, act: str) -> None:
        for attempt in range(_ATTEMPTS):
            entity = await self._writable(name)
            try:
                await self._put(entity, edit(entity), act)
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    async def _put(self, before: RegisteredEntity | None, after: RegisteredEntity, act: str) -> None:
        after = msgspec.structs.replace(after, modified=self._now)
        facts = _facts(before) if before is not None else None
        await self._trail.record(self._principal, f"ngsi_ld.{act}", after.id, before=facts, after=_facts(after))
        await self._stored.put(after)


def _keys(instances: Instances) -> set[tuple[str, str]]:
    return {(instance.name, instance.dataset) for instance in instances}


def _result(given: Instances, taken: Sequence[AttributeInstance], reason: str) -> UpdateResult:
    names = dict.fromkeys(instance.name for instance in taken)
    absent = dict.fromkeys(instance.name for instance in given if instance not in taken)
    return UpdateResult(tuple(names), tuple((name, reason) for name in absent))


def _no_attribute(name: str, attribute: str, dataset: str) -> NgsiError:
    instance = f"{attribute[:200]} ({dataset})" if dataset else attribute[:200]
    return NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"entity '{name[:200]}' has no attribute {instance}")


def _facts(entity: RegisteredEntity) -> Facts:
    """Return the audit record of an entity: its owner, and its attributes by name."""
    return {
        "types": list(entity.types),
        "division": entity.division,
        "department": entity.department,
        "attributes": {instance.name: instance.value for instance in entity.attributes if not instance.dataset},
    }
