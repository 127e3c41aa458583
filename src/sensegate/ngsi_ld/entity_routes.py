"""HTTP: writing of entities and attributes, one by one and in batches (clauses 5.6 and 6.4 to 6.20)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.divisions import short_code
from sensegate.authority.scope import Action
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, SensegateError
from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.documents import DocumentReader, EntityDocument, checked_uri
from sensegate.ngsi_ld.entity_writing import Owner, StoredEntityWriter, UpdateResult
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.parameters import JSON
from sensegate.ngsi_ld.problems import bad_data, problem_type
from sensegate.ngsi_ld.requests import MEDIA, MERGE_PATCH, context_of, json_body, write_route
from sensegate.ngsi_ld.rest import ROOT, viewer_of
from sensegate.ngsi_ld.series import SeriesEntities, device_of
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest, detail_of, status_of, title_of
from sensegate.web.routing import Call, QueryParam

BATCH_MAX = 1_000
"""Most entities of one batch."""
_FORMS = ("normalized", "concise", "simplified", "keyValues")


class EntityStore(msgspec.Struct, frozen=True, eq=False):
    """Storage that the routes of stored entities use."""

    stored: EntityRegistry
    devices: SeriesEntities
    """Entities of devices, which are not written."""


ENTITY_STORE = PartKey[EntityStore]("ngsi-ld entities", absent="this gateway has no NGSI-LD API")


class BatchError(msgspec.Struct, frozen=True):
    """Error of an entity of a batch that was not written."""

    entityId: str  # noqa: N815 - as the standard names it
    error: dict[str, object]


class BatchResult(msgspec.Struct, frozen=True):
    """Result of a batch: the entities that were written, and the errors of others."""

    success: list[str]
    errors: list[BatchError]


# ── what a request gives ──────────────────────────────────────────────────────────────────────────────


def _options(call: Call, *more: str) -> frozenset[str]:
    """Return the words of `options` and `format`. Raises `NgsiError`."""
    known = {*_FORMS, *more}
    words = frozenset((*call.values("options"), *call.values("format")))
    if unknown := words - known:
        raise bad_data(f"query: options: '{min(unknown)[:40]}' is unknown; use {', '.join(sorted(known))}")
    return words


def _reader(context: LdContext, options: frozenset[str], *, is_fragment: bool = False) -> DocumentReader:
    is_simplified = bool(options & {"simplified", "keyValues"})
    return DocumentReader(context, is_simplified=is_simplified, is_fragment=is_fragment)


def _writer(call: Call) -> StoredEntityWriter:
    viewer, store = viewer_of(call), call.part(ENTITY_STORE)

    async def is_device(name: str) -> bool:
        return name in await store.devices.entities(viewer)

    def is_reserved(name: str) -> bool:
        device = device_of(name)
        return bool(device) and (call.deps.devices.is_present(device) or store.devices.was_heard(device))

    return StoredEntityWriter(
        store.stored, call.deps.audit, call.principal, is_device, viewer.now, is_reserved=is_reserved
    )


def owner_of(call: Call) -> Owner:
    """Return to whom new entities belong: to the scope of the caller, or within it as the query says."""
    scope = call.principal.scope
    division = call.text("division")
    return Owner(short_code(division) if division else scope.division, call.text("department", scope.department))


async def _document(
    call: Call, options: frozenset[str], *, is_fragment: bool, media: tuple[str, ...] = MEDIA
) -> EntityDocument:
    body = await json_body(call, media)
    if isinstance(body, dict) and not is_fragment and "id" not in body and "@id" not in body:
        name = call.request.match_info.get("entity")
        body = {**body, "id": name} if name else body
    document = _reader(context_of(call, body), options, is_fragment=is_fragment).entity(body)
    name = call.request.match_info.get("entity", "")
    if name and document.id and document.id != name:
        raise bad_data(f"body: id: '{document.id[:80]}' is not that of the path; leave it out")
    return document


def _updated(context: LdContext, result: UpdateResult) -> web.Response:
    """Return the answer to a change of several attributes: 204, or 207 where some were not applied."""
    if not result.not_updated:
        return web.Response(status=204)
    compact = context.compact
    body = {
        "updated": [compact(name) for name in result.updated],
        "notUpdated": [{"attributeName": compact(name), "reason": reason} for name, reason in result.not_updated],
    }
    return web.Response(status=207, body=msgspec.json.encode(body), content_type=JSON)


# ── entities ──────────────────────────────────────────────────────────────────────────────────────────


async def _create(call: Call) -> web.Response:
    document = await _document(call, _options(call), is_fragment=False)
    await _writer(call).create(document, owner_of(call))
    return web.Response(status=201, headers={"Location": f"{ROOT}/entities/{document.id}"})


async def _replace(call: Call) -> web.Response:
    document = await _document(call, _options(call), is_fragment=False)
    await _writer(call).replace(call.path("entity"), document)
    return web.Response(status=204)


async def _merge(call: Call) -> web.Response:
    text = call.text("observedAt")
    observed_at = parse_date_time(text) if text else None
    if text and observed_at is None:
        raise bad_data(f"query: observedAt: '{text[:40]}' is not a time; give 2026-01-01T00:00:00Z")
    document = await _document(call, _options(call), is_fragment=True, media=(*MEDIA, MERGE_PATCH))
    await _writer(call).merge(call.path("entity"), document, observed_at)
    return web.Response(status=204)


async def _delete(call: Call) -> web.Response:
    await _writer(call).delete(call.path("entity"))
    return web.Response(status=204)


# ── attributes ────────────────────────────────────────────────────────────────────────────────────────


async def _append(call: Call) -> web.Response:
    options, body = _options(call, "noOverwrite"), await json_body(call)
    context = context_of(call, body)
    document = _reader(context, options, is_fragment=True).entity(body)
    result = await _writer(call).append(call.path("entity"), document, overwrites="noOverwrite" not in options)
    return _updated(context, result)


async def _update(call: Call) -> web.Response:
    options, body = _options(call), await json_body(call, (*MEDIA, MERGE_PATCH))
    context = context_of(call, body)
    document = _reader(context, options, is_fragment=True).entity(body)
    return _updated(context, await _writer(call).update(call.path("entity"), document))


async def _change_attribute(call: Call) -> web.Response:
    replaces = call.request.method == "PUT"
    options, body = _options(call), await json_body(call, MEDIA if replaces else (*MEDIA, MERGE_PATCH))
    context = context_of(call, body)
    name = call.path("attribute")
    content = {key: value for key, value in body.items() if key != "@context"} if isinstance(body, dict) else body
    fragments = _reader(context, options, is_fragment=not replaces).attribute(name, content)
    await _writer(call).change_attribute(call.path("entity"), context.expand(name), fragments, replaces=replaces)
    return web.Response(status=204)


async def _delete_attribute(call: Call) -> web.Response:
    context = context_of(call, None)
    dataset = call.text("datasetId")
    if dataset:
        checked_uri(dataset, "query: datasetId")
    flag = call.text("deleteAll", "false")
    if flag not in {"true", "false"}:
        raise bad_data(f"query: deleteAll: '{flag[:20]}' is neither true nor false; give one of them")
    attribute = context.expand(call.path("attribute"))
    await _writer(call).delete_attribute(call.path("entity"), attribute, dataset, deletes_all=flag == "true")
    return web.Response(status=204)


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────

Act = Callable[[StoredEntityWriter, Any], Awaitable[bool]]
"""(writer, part of the body) -> whether an entity was created."""


async def _batch(call: Call, act: Act) -> tuple[list[str], list[str], list[BatchError]]:
    """Return (ids of entities that were created, of those changed, errors)."""
    body = await json_body(call)
    if not isinstance(body, list) or not body or len(body) > BATCH_MAX:
        raise bad_data(f"body: is not a list of 1 to {BATCH_MAX} entities; give one")
    writer = _writer(call)
    created: list[str] = []
    changed: list[str] = []
    errors: list[BatchError] = []
    for part in body:
        name = str(part.get("id", part.get("@id", "")) if isinstance(part, dict) else part)[:512]
        try:
            (created if await act(writer, part) else changed).append(name)
        except (BadRequest, ConfigError, Conflict, NotFound, Overloaded, PermissionDenied) as why:
            errors.append(BatchError(name, _error(why)))
    return created, changed, errors


def _error(why: SensegateError) -> dict[str, object]:
    status = status_of(why)
    return {
        "type": problem_type(why) or "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail_of(why),
    }


def _batch_answer(created: list[str], changed: list[str], errors: list[BatchError]) -> web.Response:
    if errors:
        body = msgspec.json.encode(BatchResult([*created, *changed], errors))
        return web.Response(status=207, body=body, content_type=JSON)
    if created:
        return web.Response(status=201, body=msgspec.json.encode(created), content_type=JSON)
    return web.Response(status=204)


async def _batch_create(call: Call) -> web.Response:
    options, owner = _options(call), owner_of(call)

    async def act(writer: StoredEntityWriter, part: Any) -> bool:
        await writer.create(_reader(context_of(call, part), options).entity(part), owner)
        return True

    return _batch_answer(*await _batch(call, act))


async def _batch_upsert(call: Call) -> web.Response:
    options, owner = _options(call, "replace", "update"), owner_of(call)

    async def act(writer: StoredEntityWriter, part: Any) -> bool:
        document = _reader(context_of(call, part), options).entity(part)
        if not writer.exists(document.id):
            await writer.create(document, owner)
            return True
        if "update" in options:
            await writer.append(document.id, document)
        else:
            await writer.replace(document.id, document)
        return False

    return _batch_answer(*await _batch(call, act))


async def _batch_update(call: Call) -> web.Response:
    options = _options(call, "noOverwrite")

    async def act(writer: StoredEntityWriter, part: Any) -> bool:
        document = _identified(_reader(context_of(call, part), options, is_fragment=True).entity(part))
        result = await writer.append(document.id, document, overwrites="noOverwrite" not in options)
        if result.not_updated:
            name, reason = result.not_updated[0]
            raise bad_data(f"{name[:200]}: {reason}")
        return False

    return _batch_answer(*await _batch(call, act))


async def _batch_merge(call: Call) -> web.Response:
    options = _options(call)

    async def act(writer: StoredEntityWriter, part: Any) -> bool:
        document = _identified(_reader(context_of(call, part), options, is_fragment=True).entity(part))
        await writer.merge(document.id, document)
        return False

    return _batch_answer(*await _batch(call, act))


async def _batch_delete(call: Call) -> web.Response:
    async def act(writer: StoredEntityWriter, part: Any) -> bool:
        await writer.delete(checked_uri(part, "body"))
        return False

    return _batch_answer(*await _batch(call, act))


def _identified(document: EntityDocument) -> EntityDocument:
    if not document.id:
        raise bad_data("body: id: is missing; each entity of a batch has one")
    return document


# ── routes ────────────────────────────────────────────────────────────────────────────────────────────

_OPTIONS = QueryParam("options", "form of the body: normalized, concise, simplified or keyValues")
_FORMAT = QueryParam("format", "form of the body: normalized, concise or simplified")
_KEEPS = QueryParam("options", "noOverwrite: attributes that exist stay; or the form of the body")
OWNER_PARAMS = (
    QueryParam("division", "to which new entities belong; default: that of the token"),
    QueryParam("department", "to which new entities belong; default: that of the token"),
)
_ENTITIES = f"{ROOT}/entities"
_ENTITY = f"{_ENTITIES}/{{entity}}"
_ATTRIBUTES = f"{_ENTITY}/attrs"
_ATTRIBUTE = f"{_ATTRIBUTES}/{{attribute}}"
_OPERATIONS = f"{ROOT}/entityOperations"


_BODY = (_OPTIONS, _FORMAT)
_route = partial(write_route, Action.CHANGE_DEVICES)

ENTITY_ROUTES = (
    _route("POST", _ENTITIES, _create, "Create an entity.", (*_BODY, *OWNER_PARAMS), status=201),
    _route("PUT", _ENTITY, _replace, "Replace an entity.", _BODY),
    _route(
        "PATCH",
        _ENTITY,
        _merge,
        "Merge a fragment into an entity.",
        (*_BODY, QueryParam("observedAt", "time of changed attributes that have one and are given none")),
    ),
    _route("DELETE", _ENTITY, _delete, "Delete an entity."),
    _route("POST", _ATTRIBUTES, _append, "Add attributes to an entity, or replace them.", (_KEEPS, _FORMAT)),
    _route("PATCH", _ATTRIBUTES, _update, "Replace attributes that an entity has.", _BODY),
    _route("PATCH", _ATTRIBUTE, _change_attribute, "Change an attribute in part.", _BODY),
    _route("PUT", _ATTRIBUTE, _change_attribute, "Replace an attribute.", _BODY),
    _route(
        "DELETE",
        _ATTRIBUTE,
        _delete_attribute,
        "Delete an attribute, or one data set of it.",
        (
            QueryParam("datasetId", "URI of the data set; default: the instance without one"),
            QueryParam("deleteAll", "true: all data sets", "boolean"),
        ),
    ),
    _route("POST", f"{_OPERATIONS}/create", _batch_create, "Create entities.", (*_BODY, *OWNER_PARAMS), status=201),
    _route(
        "POST",
        f"{_OPERATIONS}/upsert",
        _batch_upsert,
        "Create entities, or replace or (options=update) change those that exist.",
        (QueryParam("options", "replace (default) or update; or the form of the body"), _FORMAT, *OWNER_PARAMS),
        status=201,
    ),
    _route("POST", f"{_OPERATIONS}/update", _batch_update, "Change attributes of entities.", (_KEEPS, _FORMAT)),
    _route("POST", f"{_OPERATIONS}/merge", _batch_merge, "Merge fragments into entities.", _BODY),
    _route("POST", f"{_OPERATIONS}/delete", _batch_delete, "Delete entities by their ids."),
)
