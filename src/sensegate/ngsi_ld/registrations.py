"""Registrations of context sources (clause 5.2.9): the documents of clients, checked, and the records of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.documents import NULL, checked_uri
from sensegate.ngsi_ld.geometries import check_geometry
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.patterns import LENGTH_MAX, pattern_of
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data

TYPE = "ContextSourceRegistration"
REGISTRATION_BYTES_MAX = 65_536
INFORMATION_MAX = 50
ENTITIES_MAX = 50
NAMES_MAX = 100
_Text = Annotated[str, msgspec.Meta(max_length=1_024)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
_Names = Annotated[list[_Name], msgspec.Meta(max_length=NAMES_MAX)]
_GEOMETRIES = ("location", "observationSpace", "operationSpace")
_INTERVALS = ("observationInterval", "managementInterval")
_OF_FORWARDING = ("contextSourceInfo", "management", "refreshRate")
_OF_THE_GATEWAY = frozenset({"@context", "status", "createdAt", "modifiedAt"})
"""Members that a client may send back as it got them; they change nothing."""


class SourceEntity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Entities that a context source has (`EntityInfo`, clause 5.2.8)."""

    type: _Name | list[_Name]
    id: str = ""
    """Empty: any; then `idPattern` says more."""
    idPattern: Annotated[str, msgspec.Meta(max_length=LENGTH_MAX)] = ""  # noqa: N815 - as the standard names it

    @property
    def types(self) -> list[str]:
        """Types, each of which it may have."""
        return [self.type] if isinstance(self.type, str) else self.type


class RegistrationInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Entities and attributes that a context source provides (clause 5.2.10)."""

    entities: Annotated[list[SourceEntity], msgspec.Meta(max_length=ENTITIES_MAX)] = []
    """Empty: any."""
    propertyNames: _Names = []  # noqa: N815 - as the standard names it
    relationshipNames: _Names = []  # noqa: N815 - as the standard names it


class SourceInterval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Period of which a context source has data (`TimeInterval`, clause 5.2.11)."""

    startAt: str  # noqa: N815 - as the standard names it
    endAt: str = ""  # noqa: N815 - as the standard names it
    """End of the period; empty: it is open."""

    @property
    def begin(self) -> int:
        """µs UTC; `read_registration` has checked it."""
        return parse_date_time(self.startAt) or 0

    @property
    def end(self) -> int | None:
        """µs UTC; None: it goes on."""
        return parse_date_time(self.endAt) if self.endAt else None


class RegistrationDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A registration as a client gives it."""

    id: str = ""
    type: Literal["ContextSourceRegistration"]
    registrationName: _Text = ""  # noqa: N815 - as the standard names it
    description: _Text = ""
    information: Annotated[list[RegistrationInfo], msgspec.Meta(min_length=1, max_length=INFORMATION_MAX)]
    tenant: _Text = ""
    observationInterval: SourceInterval | None = None  # noqa: N815 - as the standard names it
    managementInterval: SourceInterval | None = None  # noqa: N815 - as the standard names it
    location: dict[str, Any] | None = None
    observationSpace: dict[str, Any] | None = None  # noqa: N815 - as the standard names it
    operationSpace: dict[str, Any] | None = None  # noqa: N815 - as the standard names it
    expiresAt: str = ""  # noqa: N815 - as the standard names it
    endpoint: _Name
    mode: Literal["inclusive", "exclusive", "redirect", "auxiliary"] = "inclusive"
    operations: _Names = []

    @property
    def expires(self) -> int | None:
        """Return the time when it ends, µs UTC; None: never."""
        return parse_date_time(self.expiresAt) if self.expiresAt else None


class SourceRegistration(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A registration as it is kept: names in its document are IRIs."""

    id: str
    document: RegistrationDocument
    division: str
    department: str = ""
    created: int = 0
    """µs UTC."""
    modified: int = 0
    revision: int = 0
    format: int = 1

    def is_expired(self, now: int) -> bool:
        """Return whether it has ended."""
        expires = self.document.expires
        return expires is not None and now >= expires


def read_registration(body: object, context: LdContext, now: int) -> RegistrationDocument:
    """Return the registration of a client, its names as IRIs. Raises `NgsiError`."""
    if not isinstance(body, dict):
        raise bad_data("body: is not a JSON object; give a registration of a context source")
    for name in _OF_FORWARDING:
        if name in body:
            raise NgsiError(
                ErrorType.OPERATION_NOT_SUPPORTED,
                f"body: {name}: is for requests that are passed on, and this registry passes none on; leave it out",
            )
    members = {name: value for name, value in body.items() if name not in _OF_THE_GATEWAY}
    if "type" not in members:
        raise bad_data(f"body: type: is missing; give {TYPE}")
    try:
        document = msgspec.convert(members, RegistrationDocument)
    except msgspec.ValidationError as why:
        raise bad_data(f"body: {why}; see clause 5.2.9 of the standard") from None
    _check(document, now)
    expanded = _renamed(document, context.expand)
    if (size := len(msgspec.json.encode(expanded))) > REGISTRATION_BYTES_MAX:
        raise bad_data(f"body: has {size} bytes; give at most {REGISTRATION_BYTES_MAX}")
    return expanded


def shown_registration(document: RegistrationDocument, context: LdContext) -> dict[str, Any]:
    """Return a registration as a client sees it, with the names of its context."""
    return {"id": document.id, "type": TYPE, **msgspec.to_builtins(_renamed(document, context.compact))}


def changed_registration(
    before: RegistrationDocument, fragment: object, context: LdContext, now: int
) -> RegistrationDocument:
    """Return a registration with the members of a fragment; those that are null are removed. Raises `NgsiError`."""
    if not isinstance(fragment, dict):
        raise bad_data("body: is not a JSON object; give the members that change")
    if fragment.get("id", before.id) != before.id:
        raise bad_data("body: id: is not that of the path; leave it out")
    merged = {**shown_registration(before, context), **fragment}
    present = {name: value for name, value in merged.items() if value is not None and value != NULL}
    return read_registration(present, context, now)


def _check(document: RegistrationDocument, now: int) -> None:
    """Return if the members fit together. Raises `NgsiError`."""
    if document.id:
        checked_uri(document.id, "body: id")
    for information in document.information:
        if information == RegistrationInfo():
            raise bad_data("body: information: an element is empty; give entities, propertyNames or relationshipNames")
        for entity in information.entities:
            _check_entity(entity)
    for name in _GEOMETRIES:
        if (geometry := getattr(document, name)) is not None:
            check_geometry(geometry, f"body: {name}")
    for name in _INTERVALS:
        if (interval := getattr(document, name)) is not None:
            _check_interval(interval, f"body: {name}")
    if document.expiresAt:
        expires = _time(document.expiresAt, "body: expiresAt")
        if expires <= now:
            raise bad_data(f"body: expiresAt: '{document.expiresAt[:40]}' has passed; give a later time")
    if document.mode in {"exclusive", "redirect"}:
        raise NgsiError(
            ErrorType.OPERATION_NOT_SUPPORTED,
            f"body: mode: {document.mode} leaves the answers to the source, and this registry passes no request on; "
            "give inclusive or auxiliary",
        )


def _check_entity(entity: SourceEntity) -> None:
    if not 0 < len(entity.types) <= NAMES_MAX:
        raise bad_data(f"body: information: entities: type: has {len(entity.types)} names; give 1 to {NAMES_MAX}")
    if entity.id:
        checked_uri(entity.id, "body: information: entities: id")
    if entity.idPattern:
        pattern_of("body: information: entities: idPattern", entity.idPattern)


def _check_interval(interval: SourceInterval, where: str) -> None:
    begin = _time(interval.startAt, f"{where}: startAt")
    if interval.endAt and _time(interval.endAt, f"{where}: endAt") < begin:
        raise bad_data(f"{where}: endAt: is before startAt; give a later time")


def _time(text: str, where: str) -> int:
    time = parse_date_time(text)
    if time is None:
        raise bad_data(f"{where}: '{text[:40]}' is not a time; give 2026-01-01T00:00:00Z")
    return time


def _renamed(document: RegistrationDocument, rename: Callable[[str], str]) -> RegistrationDocument:
    """Return a registration with the names of types and attributes translated."""

    def entity_of(entity: SourceEntity) -> SourceEntity:
        kind = rename(entity.type) if isinstance(entity.type, str) else [*map(rename, entity.type)]
        return msgspec.structs.replace(entity, type=kind)

    information = [
        RegistrationInfo(
            [*map(entity_of, part.entities)],
            [*map(rename, part.propertyNames)],
            [*map(rename, part.relationshipNames)],
        )
        for part in document.information
    ]
    return msgspec.structs.replace(document, information=information)
