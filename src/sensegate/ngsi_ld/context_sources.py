"""HTTP: the registry of context sources (clauses 6.8 and 6.9), and subscriptions to it, which are not offered.

The registry is for discovery: queries of entities are answered from this gateway's own log and not passed on.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.contexts import LD_JSON
from sensegate.ngsi_ld.entity_routes import OWNER_PARAMS, owner_of
from sensegate.ngsi_ld.parameters import (
    CONDITION_PARAMS,
    GEOJSON,
    JSON,
    MEMBER_PARAMS,
    PAGE_PARAMS,
    Answering,
    NotAcceptable,
    answering_of,
    page_of,
    query_of,
)
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, problem_type
from sensegate.ngsi_ld.registrations import (
    SourceRegistration,
    changed_registration,
    read_registration,
    shown_registration,
)
from sensegate.ngsi_ld.requests import MEDIA, MERGE_PATCH, context_of, json_body
from sensegate.ngsi_ld.rest import ROOT, page_headers, viewer_of
from sensegate.ngsi_ld.source_registry import SourceQuery, SourceRegistry
from sensegate.ngsi_ld.windows import parse_period, parse_time_property
from sensegate.sensorthings.instants import instant_text
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, QueryParam, Route

SOURCES = PartKey[SourceRegistry]("ngsi-ld context sources", absent="this gateway has no NGSI-LD API")
_PATH = f"{ROOT}/csourceRegistrations"
_NOT_TAKEN = {"q", "scopeQ"}
_CONDITIONS = tuple(param for param in CONDITION_PARAMS if param.name not in _NOT_TAKEN)
_ATTRS = tuple(param for param in MEMBER_PARAMS if param.name == "attrs")
_OPTIONS = QueryParam("options", "sysAttrs: with the times of creation and change; count: as count=true")
_TIMES = (
    QueryParam("timerel", "before, after or between: sources with an interval that overlaps; default: those without"),
    QueryParam("timeAt", "time that timerel is about: 2026-01-01T00:00:00Z"),
    QueryParam("endTimeAt", "end of between"),
    QueryParam(
        "timeproperty", "observedAt (default): of observationInterval; createdAt, modifiedAt: managementInterval"
    ),
)


def _answering(call: Call) -> Answering:
    answering = answering_of(call)
    if answering.media == GEOJSON:
        raise NotAcceptable(f"Accept: registrations are not served as {GEOJSON}; use {JSON} or {LD_JSON}")
    return answering


def _shown(registration: SourceRegistration, answering: Answering) -> dict[str, Any]:
    """Return a registration as a client sees it."""
    document = shown_registration(registration.document, answering.rendering.terms)
    if answering.rendering.sys_attrs:
        document["createdAt"] = instant_text(registration.created)
        document["modifiedAt"] = instant_text(registration.modified)
    return answering.with_context(document)


def _answer(answering: Answering, body: object, headers: dict[str, str]) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type=answering.media, headers=headers)


async def _create(call: Call) -> web.Response:
    """Register a context source, for discovery; no request is passed on to it."""
    viewer, body = viewer_of(call), await json_body(call)
    document = read_registration(body, context_of(call, body), viewer.now)
    registration = await call.part(SOURCES).create(call.principal, document, owner_of(call))
    return web.Response(status=201, headers={"Location": f"{_PATH}/{registration.id}"})


async def _discover(call: Call) -> web.Response:
    """Discover the context sources that may have entities; type=* for all."""
    viewer, answering, page = viewer_of(call), _answering(call), page_of(call)
    query = SourceQuery(
        entities=query_of(call, answering),
        period=parse_period(call.text("timerel"), call.text("timeAt"), call.text("endTimeAt")),
        time_property=parse_time_property(call.text("timeproperty", "observedAt")),
    )
    registrations = await call.part(SOURCES).discover(viewer, query)
    shown = [_shown(registration, answering) for registration in registrations[page.offset :][: page.limit]]
    headers = {**answering.headers, **page_headers(call, answering, page, len(registrations))}
    return _answer(answering, shown, headers)


def _target(call: Call) -> SourceRegistration:
    return call.part(SOURCES).get(viewer_of(call), call.path("registration"))


async def _get(call: Call) -> web.Response:
    """Get the registration of a context source."""
    registration, answering = _target(call), _answering(call)
    return _answer(answering, _shown(registration, answering), answering.headers)


async def _change(call: Call) -> web.Response:
    """Change members of a registration; null removes one."""
    registration, body = _target(call), await json_body(call, (*MEDIA, MERGE_PATCH))
    document = changed_registration(registration.document, body, context_of(call, body), call.deps.clock.now())
    await call.part(SOURCES).change(call.principal, registration, document)
    return web.Response(status=204)


async def _delete(call: Call) -> web.Response:
    """Delete the registration of a context source."""
    await call.part(SOURCES).delete(call.principal, _target(call))
    return web.Response(status=204)


_READ: dict[str, Any] = {
    "action": Action.READ_READINGS,
    "media": (JSON, LD_JSON),
    "errors": (404, 406, 413),
    "problem_type": problem_type,
}
_WRITE: dict[str, Any] = {
    "action": Action.CHANGE_DEVICES,
    "errors": (404, 409, 413, 415, 422),
    "problem_type": problem_type,
}
_REGISTRATION_ROUTES = tagged(
    "ngsi-ld",
    Route("POST", _PATH, _create, query=OWNER_PARAMS, raw=JSON, status=201, **_WRITE),
    Route("GET", _PATH, _discover, query=(*_CONDITIONS, *_ATTRS, *PAGE_PARAMS, *_TIMES, _OPTIONS), **_READ),
    Route("GET", f"{_PATH}/{{registration}}", _get, query=(_OPTIONS,), **_READ),
    Route("PATCH", f"{_PATH}/{{registration}}", _change, raw=JSON, status=204, **_WRITE),
    Route("DELETE", f"{_PATH}/{{registration}}", _delete, status=204, **_WRITE),
)


async def _refuse(_call: Call) -> NoReturn:
    raise NgsiError(
        ErrorType.OPERATION_NOT_SUPPORTED,
        "this gateway does not notify of registrations of context sources; "
        f"ask {_PATH} for those that match when you need them",
        status=501,
    )


def _subscription_routes() -> tuple[Route, ...]:
    path, subject = f"{ROOT}/csourceSubscriptions", "subscriptions to registrations of context sources"
    return tuple(
        Route(
            method,
            address,
            _refuse,
            summary=f"{verb} {subject}: not offered, answered with 501.",
            tag="ngsi-ld",
            action=Action.READ_READINGS,
            raw=JSON if method in {"POST", "PATCH"} else "",
            status=204,
            errors=(501,),
            problem_type=problem_type,
        )
        for method, address, verb in (
            ("POST", path, "Create"),
            ("GET", path, "List"),
            ("GET", f"{path}/{{subscription}}", "Get"),
            ("PATCH", f"{path}/{{subscription}}", "Change"),
            ("DELETE", f"{path}/{{subscription}}", "Delete"),
        )
    )


SOURCE_ROUTES = (*_REGISTRATION_ROUTES, *_subscription_routes())
