"""Requests that bring something: their media types, their @context, their JSON, and the form of their routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.contexts import LD_JSON, ContextSource, LdContext, context_of_body
from sensegate.ngsi_ld.parameters import CONTEXTS, JSON
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, problem_type
from sensegate.web.problems import BadRequest
from sensegate.web.routing import Call, QueryParam, Route

MERGE_PATCH = "application/merge-patch+json"
MEDIA = (JSON, LD_JSON)


async def json_body(call: Call, media: tuple[str, ...] = MEDIA) -> Any:
    """Return the body as JSON. Raises `NgsiError`, `BadRequest`."""
    if call.request.content_type not in media:
        raise BadRequest(
            f"Content-Type: '{call.request.content_type[:60]}' is not taken; send {' or '.join(media)}", status=415
        )
    raw = await call.raw_body()
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise NgsiError(ErrorType.INVALID_REQUEST, f"body: {why}") from None


def source_of(call: Call, body: object) -> ContextSource | None:
    """Return the @context that a request with a body names; None: the core @context. Raises `NgsiError`."""
    return context_of_body(call.request.content_type, call.request.headers.getall("Link", []), body)


def context_of(call: Call, body: object) -> LdContext:
    """Return the context by which a body is read. Raises `NgsiError`."""
    return call.part(CONTEXTS).resolve(source_of(call, body))


def write_route(
    action: Action,
    method: str,
    path: str,
    handler: Callable[[Call], Awaitable[object]],
    summary: str,
    query: tuple[QueryParam, ...] = (),
    *,
    status: int = 204,
) -> Route:
    """Return the route of an operation that changes entities."""
    return Route(
        method=method,
        path=path,
        handler=handler,
        summary=summary,
        tag="ngsi-ld",
        action=action,
        query=query,
        raw="" if method == "DELETE" else JSON,
        status=status,
        errors=(404, 409, 413, 415, 422),
        problem_type=problem_type,
    )
