"""The registry of context sources: writing by rights, and discovery (clauses 5.9.2 to 5.9.4, 5.10 and 5.12).

A registration belongs to a division and department, as a stored entity does. The registry says where data may be; no
request is passed on to a source, and its endpoint is judged by its text and never connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, Overloaded
from sensegate.ngsi_ld.entities import Viewer
from sensegate.ngsi_ld.entity_writing import Owner
from sensegate.ngsi_ld.geo_query import GeoQuery
from sensegate.ngsi_ld.patterns import pattern_of
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.registrations import (
    TYPE,
    RegistrationDocument,
    RegistrationInfo,
    SourceEntity,
    SourceRegistration,
)
from sensegate.ngsi_ld.retrieval import EntityQuery, EntitySelector
from sensegate.ngsi_ld.stored_entities import is_in_scope, key_of
from sensegate.ngsi_ld.vocabulary import iri
from sensegate.ngsi_ld.windows import Period, TimeProperty

REGISTRATIONS_MAX = 1_000
_STEP = 20
"""Registrations that are matched at a time; other tasks run between steps."""
_POSSIBLE = frozenset({"within", "contains", "equals", "overlaps"})
"""Relations that hold of something in an area if the area intersects the geometry of the query."""
CheckEndpoint = Callable[[str], None]
"""Raises `ConfigError` for an address to which a connection would not be allowed."""


class SourceQuery(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Conditions on registrations: what is asked of a source's entities, and the time."""

    entities: EntityQuery
    period: Period | None = None
    """None: only sources of the latest data, which have no intervals."""
    time_property: TimeProperty = TimeProperty.OBSERVED

    def matching(self, document: RegistrationDocument) -> RegistrationDocument | None:
        """Return a registration with the elements of its information that match; None: it does not match."""
        if not self._is_in_time(document) or not self._is_in_place(document):
            return None
        names = self.entities.attributes | {geo.attribute for geo in self._geo_queries()}
        parts = [part for part in document.information if _has_attributes(part, names) and self._has_entities(part)]
        return msgspec.structs.replace(document, information=parts) if parts else None

    def _is_in_time(self, document: RegistrationDocument) -> bool:
        if self.period is None:
            return document.observationInterval is None and document.managementInterval is None
        is_observed = self.time_property is TimeProperty.OBSERVED
        interval = document.observationInterval if is_observed else document.managementInterval
        if interval is None:
            return False
        begin, end = self.period.begin, self.period.end
        return (end is None or interval.begin <= end) and (
            begin is None or interval.end is None or interval.end >= begin
        )

    def _geo_queries(self) -> list[GeoQuery]:
        return [condition for condition in self.entities.conditions if isinstance(condition, GeoQuery)]

    def _is_in_place(self, document: RegistrationDocument) -> bool:
        geometries = {
            iri("location"): document.location,
            iri("observationSpace"): document.observationSpace,
            iri("operationSpace"): document.operationSpace,
        }
        return all(_may_contain(geometries.get(geo.attribute), geo) for geo in self._geo_queries())

    def _has_entities(self, part: RegistrationInfo) -> bool:
        selectors = self.entities.selectors
        if not selectors or not part.entities:
            return True
        return any(_may_have(entity, selector) for entity in part.entities for selector in selectors)


def _may_contain(geometry: dict[str, Any] | None, geo: GeoQuery) -> bool:
    """Return whether a geometry matches, or may contain places that do."""
    if geometry is None:
        return False
    if geometry["type"] == "Point" or geo.relation == "intersects":
        return geo.admits(geometry)
    if geo.relation == "near":
        return msgspec.structs.replace(geo, least=0.0).admits(geometry)
    if geo.relation == "disjoint":
        return not msgspec.structs.replace(geo, relation="within").admits(geometry)
    relation = "intersects" if geo.relation in _POSSIBLE else geo.relation
    return msgspec.structs.replace(geo, relation=relation).admits(geometry)


def _has_attributes(part: RegistrationInfo, names: frozenset[str]) -> bool:
    offered = {*part.propertyNames, *part.relationshipNames}
    return not names or not offered or not names.isdisjoint(offered)


def _may_have(entity: SourceEntity, selector: EntitySelector) -> bool:
    """Return whether a source with such entities may have one that a selector means.

    Two patterns may always have an id in common.
    """
    if selector.types is not None and not set(entity.types) & set(selector.types.leaves()):
        return False
    if entity.id:
        if selector.ids and entity.id not in selector.ids:
            return False
        return selector.id_pattern is None or bool(selector.id_pattern.search(entity.id))
    if entity.idPattern and selector.ids:
        pattern = _compiled(entity.idPattern)
        return any(pattern.search(name) for name in selector.ids)
    return True


@lru_cache(maxsize=1_024)
def _compiled(text: str) -> Any:
    return pattern_of("idPattern", text)


class SourceRegistry:
    """Registrations in memory; they follow their bucket."""

    def __init__(self, store: RecordStore, trail: Trail, clock: Clock, check_endpoint: CheckEndpoint) -> None:
        """Attach them to a store, which fills them."""
        self._trail = trail
        self._clock = clock
        self._check_endpoint = check_endpoint
        self.records: RecordTable[SourceRegistration] = RecordTable(store, "source", SourceRegistration)

    def _present(self, name: str) -> SourceRegistration | None:
        """Return a registration without regard to scope; None: there is none, or it has ended."""
        registration = self.records.find(key_of(name))
        if registration is None or registration.id != name or registration.is_expired(self._clock.now()):
            return None
        return registration

    def get(self, viewer: Viewer, name: str) -> SourceRegistration:
        """Return a registration that a viewer sees. Raises `NgsiError`."""
        registration = self._present(name)
        if registration is None or not is_in_scope(viewer, registration.division, registration.department):
            raise NgsiError(
                ErrorType.RESOURCE_NOT_FOUND, f"there is no registration of a context source '{name[:200]}' you see"
            )
        return registration

    async def discover(self, viewer: Viewer, query: SourceQuery) -> list[SourceRegistration]:
        """Return the registrations that match and have not ended, in the order of ids, with what matches of each."""
        now = self._clock.now()
        matched = []
        for place, registration in enumerate([*self.records.all()]):
            if place % _STEP == _STEP - 1:
                await asyncio.sleep(0)
            if registration.is_expired(now):
                continue
            if not is_in_scope(viewer, registration.division, registration.department):
                continue
            if (document := query.matching(registration.document)) is not None:
                matched.append(msgspec.structs.replace(registration, document=document))
        return sorted(matched, key=lambda registration: registration.id)

    async def create(self, principal: Principal, document: RegistrationDocument, owner: Owner) -> SourceRegistration:
        """Register a context source.

        Raises:
            NgsiError: it exists, or its endpoint is not allowed.
            PermissionDenied: the owner is not in the scope of the caller.
            Overloaded: there are too many.
            Conflict, Unavailable.
        """
        demand(principal, Action.CHANGE_DEVICES, owner.division, owner.department)
        self._check(document)
        name = document.id or f"urn:ngsi-ld:{TYPE}:{secrets.token_hex(12)}"
        if self._present(name) is not None:
            raise NgsiError(ErrorType.ALREADY_EXISTS, f"{name[:200]}: exists; change it, or use another id")
        ended = self.records.find(key_of(name))
        if ended is None:
            await self._make_room()
        now = self._clock.now()
        registration = SourceRegistration(
            id=name,
            document=msgspec.structs.replace(document, id=name),
            division=owner.division,
            department=owner.department,
            created=now,
            modified=now,
        )
        await self._trail.record(principal, "ngsi_ld.source.create", name, after=_facts(registration))
        return await self.records.put(key_of(name), registration, expected=ended.revision if ended else 0)

    async def change(self, principal: Principal, before: SourceRegistration, document: RegistrationDocument) -> None:
        """Change a registration that the caller sees. Raises as `create`."""
        demand(principal, Action.CHANGE_DEVICES, before.division, before.department)
        self._check(document)
        after = msgspec.structs.replace(before, document=document, modified=self._clock.now())
        await self._trail.record(
            principal, "ngsi_ld.source.change", before.id, before=_facts(before), after=_facts(after)
        )
        await self.records.put(key_of(before.id), after, expected=before.revision)

    async def delete(self, principal: Principal, registration: SourceRegistration) -> None:
        """Delete a registration that the caller sees. Raises `PermissionDenied`, `Conflict`, `Unavailable`."""
        demand(principal, Action.CHANGE_DEVICES, registration.division, registration.department)
        await self._trail.record(principal, "ngsi_ld.source.delete", registration.id, before=_facts(registration))
        await self.records.delete(key_of(registration.id), expected=registration.revision)

    async def _make_room(self) -> None:
        """Remove registrations that have ended, if there are too many. Raises `Overloaded`."""
        if len(self.records) < REGISTRATIONS_MAX:
            return
        now = self._clock.now()
        for registration in [*self.records.all()]:
            if registration.is_expired(now):
                with contextlib.suppress(Conflict):
                    await self.records.delete(key_of(registration.id), expected=registration.revision)
        if len(self.records) >= REGISTRATIONS_MAX:
            raise Overloaded(f"there are {REGISTRATIONS_MAX} registrations of context sources; delete some first")

    def _check(self, document: RegistrationDocument) -> None:
        try:
            self._check_endpoint(document.endpoint)
        except ConfigError as why:
            raise bad_data(f"body: endpoint: {why}") from None


def _facts(registration: SourceRegistration) -> Facts:
    return {
        "division": registration.division,
        "department": registration.department,
        **msgspec.to_builtins(registration.document),
    }
