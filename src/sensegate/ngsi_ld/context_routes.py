"""HTTP: stored @context documents (`/jsonldContexts`, clauses 5.13 and 6.29 to 6.30)."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.contexts import LD_JSON
from sensegate.ngsi_ld.hosted_contexts import HOSTED, PATH, ContextKind, HostedContext
from sensegate.ngsi_ld.parameters import JSON
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data, problem_type
from sensegate.ngsi_ld.requests import json_body
from sensegate.sensorthings.instants import instant_text
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, QueryParam, Route


def _address(call: Call, context: HostedContext) -> str:
    return context.url or f"{call.request.url.origin()}{PATH}/{context.id}"


def _details(call: Call, context: HostedContext) -> dict[str, object]:
    return {
        "URL": _address(call, context),
        "localId": context.id,
        "kind": context.kind.value,
        "timestamp": instant_text(context.created),
    }


def _flag(call: Call, name: str) -> bool:
    text = call.text(name, "false")
    if text not in {"true", "false"}:
        raise bad_data(f"query: {name}: '{text[:20]}' is neither true nor false; give one of them")
    return text == "true"


async def _create(call: Call) -> web.Response:
    """Store an @context, under an address of this gateway or for a URL elsewhere."""
    contexts = call.part(HOSTED)
    context = await contexts.create(call.principal, await json_body(call), call.text("url"))
    location = f"{PATH}/{context.id}"
    return web.Response(status=201, headers={"Location": location})


async def _list(call: Call) -> web.Response:
    """List the addresses of the stored @contexts."""
    kind, with_details = call.text("kind"), _flag(call, "details")
    if kind and kind not in set(ContextKind):
        raise bad_data(f"query: kind: '{kind[:40]}' is unknown; use {', '.join(ContextKind)}")
    contexts = [context for context in call.part(HOSTED).all() if not kind or context.kind == kind]
    rows = [_details(call, context) if with_details else _address(call, context) for context in contexts]
    return web.Response(body=msgspec.json.encode(rows), content_type=JSON)


async def _get(call: Call) -> web.Response:
    """Get a stored @context."""
    context = call.part(HOSTED).get(call.path("context"))
    if _flag(call, "details"):
        return web.Response(body=msgspec.json.encode(_details(call, context)), content_type=JSON)
    media = JSON if call.request.headers.get("Accept", "").startswith(JSON) else LD_JSON
    return web.Response(body=msgspec.json.encode({"@context": context.document}), content_type=media)


async def _delete(call: Call) -> web.Response:
    """Delete a stored @context."""
    contexts = call.part(HOSTED)
    if _flag(call, "reload"):
        contexts.get(call.path("context"))
        raise NgsiError(
            ErrorType.OPERATION_NOT_SUPPORTED,
            "query: reload: nothing is fetched from a network; delete the @context and POST its new text",
        )
    await contexts.delete(call.principal, call.path("context"))
    return web.Response(status=204)


CONTEXT_ROUTES = tagged(
    "ngsi-ld",
    Route(
        "POST",
        PATH,
        _create,
        action=Action.CHANGE_DEVICES,
        query=(QueryParam("url", "address elsewhere for which it stands, as requests name it"),),
        raw=JSON,
        status=201,
        errors=(409, 415),
        problem_type=problem_type,
    ),
    Route(
        "GET",
        PATH,
        _list,
        action=Action.READ_READINGS,
        query=(
            QueryParam("details", "true: with kind, id and time of each", "boolean"),
            QueryParam("kind", "only those of a kind: Hosted, Cached or ImplicitlyCreated"),
        ),
        problem_type=problem_type,
    ),
    Route(
        "GET",
        f"{PATH}/{{context}}",
        _get,
        action=Action.READ_READINGS,
        query=(QueryParam("details", "true: its kind, id and time instead", "boolean"),),
        media=(LD_JSON, JSON),
        errors=(404,),
        problem_type=problem_type,
    ),
    Route(
        "DELETE",
        f"{PATH}/{{context}}",
        _delete,
        action=Action.CHANGE_DEVICES,
        query=(QueryParam("reload", "true: fetch it anew, which this gateway does not", "boolean"),),
        status=204,
        errors=(404, 409, 422),
        problem_type=problem_type,
    ),
)
