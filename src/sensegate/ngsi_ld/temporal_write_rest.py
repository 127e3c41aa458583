"""HTTP: writing of the temporal evolution of devices (clauses 6.18 to 6.22)."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.documents import DocumentReader, checked_uri
from sensegate.ngsi_ld.entities import AttributeInstance
from sensegate.ngsi_ld.entity_routes import ENTITY_STORE
from sensegate.ngsi_ld.parameters import context_of, is_true
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.requests import MEDIA, MERGE_PATCH, json_body, write_route
from sensegate.ngsi_ld.requests import context_of as context_of_body
from sensegate.ngsi_ld.rest import ROOT, viewer_of
from sensegate.ngsi_ld.stored_entities import is_visible
from sensegate.ngsi_ld.temporal_writing import TemporalTarget, TemporalWriter
from sensegate.ngsi_ld.vocabulary import iri
from sensegate.sensorthings.rest import SENSORTHINGS, writing_of
from sensegate.web.problems import BadRequest
from sensegate.web.routing import Call, QueryParam

_HEADS = frozenset({"id", "@id", "type", "@type", "scope", "@context", "createdAt", "modifiedAt"})


async def _writer(call: Call) -> TemporalWriter:
    service = call.part(SENSORTHINGS)
    await service.reader.catch_up()
    view, writer = await writing_of(call)
    return TemporalWriter(view, writer, service.reader, call.deps.devices)


def _target(call: Call, writer: TemporalWriter) -> TemporalTarget:
    """Return the entity of the path. Raises `NgsiError`."""
    name = call.path("entity")
    target = writer.find(name)
    if target is None:
        _refuse_stored(call, name)
        raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"there is no entity of a device '{name[:200]}' that you see")
    return target


def _refuse_stored(call: Call, name: str) -> None:
    """Return if there is no stored entity of an id that the caller sees. Raises `NgsiError`."""
    entity = call.part(ENTITY_STORE).stored.find(name)
    if entity is not None and is_visible(entity, viewer_of(call)):
        raise NgsiError(
            ErrorType.OPERATION_NOT_SUPPORTED,
            f"{name[:200]}: is kept by a department, and only as it is now; change it at {ROOT}/entities",
        )


def _instances(context: LdContext, body: dict[str, Any]) -> list[AttributeInstance]:
    """Return the instances of a fragment of a temporal entity. Raises `NgsiError`."""
    reader = DocumentReader(context)
    instances: list[AttributeInstance] = []
    for name, value in body.items():
        if name not in _HEADS:
            for part in value if isinstance(value, list) else [value]:
                instances += reader.attribute(name, part)
    return instances


async def _object(call: Call, media: tuple[str, ...] = MEDIA) -> dict[str, Any]:
    body = await json_body(call, media)
    if not isinstance(body, dict):
        raise bad_data("body: is not a JSON object; give a temporal entity")
    return body


async def _create(call: Call) -> web.Response:
    body, writer = await _object(call), await _writer(call)
    context = context_of_body(call, body)
    name = checked_uri(body.get("id", body.get("@id")), "body: id")
    target = writer.find(name)
    if target is None:
        _refuse_stored(call, name)
        raise NgsiError(
            ErrorType.OPERATION_NOT_SUPPORTED,
            f"{name[:200]}: is not urn:ngsi-ld:TYPE:DEVICE of a device that is registered here and that you see; "
            "POST /api/v1/devices registers one, with profile sensegate/plain",
        )
    kind = body.get("type", body.get("@type"))
    if not isinstance(kind, str) or context.expand(kind) != iri(target.kind):
        raise bad_data(f"body: type: is not that of the id; give {target.kind[:60]}")
    is_new = not target.streams
    await writer.add(target, _instances(context, body))
    if not is_new:
        return web.Response(status=204)
    return web.Response(status=201, headers={"Location": f"{ROOT}/temporal/entities/{name}"})


async def _add(call: Call) -> web.Response:
    body, writer = await _object(call), await _writer(call)
    target = _target(call, writer)
    await writer.add(target, _instances(context_of_body(call, body), body))
    return web.Response(status=204)


async def _delete(call: Call) -> web.Response:
    writer = await _writer(call)
    return await _withdrawn(writer.delete(_target(call, writer)))


async def _delete_attribute(call: Call) -> web.Response:
    writer = await _writer(call)
    target, dataset = _target(call, writer), call.text("datasetId")
    if dataset:
        checked_uri(dataset, "query: datasetId")
    attribute = context_of(call).expand(call.path("attribute"))
    return await _withdrawn(writer.delete_attribute(target, attribute, dataset, deletes_all=is_true(call, "deleteAll")))


async def _change_instance(call: Call) -> web.Response:
    body, writer = await _object(call, (*MEDIA, MERGE_PATCH)), await _writer(call)
    target, context, name = _target(call, writer), context_of_body(call, body), call.path("attribute")
    attribute = context.expand(name)
    entity = await writer.instance(target, attribute, call.path("instance"))
    content: Any = {key: value for key, value in body.items() if key != "@context"}
    inner = next((value for key, value in content.items() if context.expand(key) == attribute), None)
    if inner is not None and len(content) == 1:
        # A fragment of the entity, as the standard has it, with the instance in a list.
        content = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    (fragment,) = DocumentReader(context, is_fragment=True).attribute(name, content)[:1] or (None,)
    if fragment is None:
        raise bad_data(f"body: {name[:60]}: is empty; give the instance")
    await writer.change_instance(target, entity, fragment)
    return web.Response(status=204)


async def _delete_instance(call: Call) -> web.Response:
    writer = await _writer(call)
    target, attribute = _target(call, writer), context_of(call).expand(call.path("attribute"))
    entity = await writer.instance(target, attribute, call.path("instance"))
    return await _withdrawn(writer.delete_instance(entity))


async def _withdrawn(act: Awaitable[None]) -> web.Response:
    try:
        await act
    except TimeoutError:
        raise BadRequest("the readings are not withdrawn yet; they will be", status=503) from None
    return web.Response(status=204)


_ENTITIES = f"{ROOT}/temporal/entities"
_ATTRIBUTES = f"{_ENTITIES}/{{entity}}/attrs"
_INSTANCE = f"{_ATTRIBUTES}/{{attribute}}/{{instance}}"


_ingest = partial(write_route, Action.INGEST)
_withdraw = partial(write_route, Action.CORRECT_READINGS, "DELETE")

TEMPORAL_WRITE_ROUTES = (
    _ingest("POST", _ENTITIES, _create, "Add readings of a device as a temporal entity.", status=201),
    _withdraw(f"{_ENTITIES}/{{entity}}", _delete, "Withdraw all readings of the entity of a device."),
    _ingest("POST", _ATTRIBUTES, _add, "Add readings of a device as instances of attributes."),
    _withdraw(
        f"{_ATTRIBUTES}/{{attribute}}",
        _delete_attribute,
        "Withdraw all readings of an attribute.",
        (
            QueryParam("datasetId", "URI of the data set; default: the instances without one"),
            QueryParam("deleteAll", "true: all data sets", "boolean"),
        ),
    ),
    _ingest("PATCH", _INSTANCE, _change_instance, "Replace the value of an instance, by a revision of its reading."),
    _withdraw(_INSTANCE, _delete_instance, "Withdraw the reading of an instance."),
)
