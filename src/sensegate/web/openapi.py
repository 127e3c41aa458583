"""OpenAPI 3.1 document, generated from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

import msgspec

from sensegate.web.problems import CONTENT_TYPE, Problem, title_of
from sensegate.web.routing import Route

_REF = "#/components/schemas/{name}"
_COMMON = (400, 401, 403, 429, 503)


def document(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of a table of routes."""
    types = [Problem]
    for route in routes:
        types += [kind for kind in (route.body, _item(route.response)) if kind is not None and kind not in types]
    refs, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(types, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sensegate",
            "version": version,
            "description": "The sensing gateway of a city. Errors are RFC 9457 problems; times are UTC with Z.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "device": {"type": "http", "scheme": "basic", "description": "device id and its password"},
            },
        },
    }


def _item(answer: Any) -> Any:
    return get_args(answer)[0] if get_origin(answer) is list else answer


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    parameters += [
        {"name": param.name, "in": "query", "description": param.description, "schema": {"type": param.schema}}
        for param in route.query
    ]
    if 428 in route.errors:
        parameters.append({"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}})
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": _name(route),
        "parameters": parameters,
        "responses": _responses(route, schema_of),
        "security": [{"token": []}] if route.token else ([{"device": []}, {"token": []}] if route.raw else []),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    elif route.raw:
        operation["requestBody"] = {"required": True, "content": {route.raw: {}, "*/*": {}}}
    return operation


def _responses(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": title_of(route.status)}
    if route.response is not None:
        schema = schema_of[_item(route.response)]
        if get_origin(route.response) is list:
            rows = {"type": "array", "items": schema}
            schema = {
                "type": "object",
                "required": ["rows"],
                "properties": {"rows": rows, "next": {"type": "string"}, "total": {"type": "integer"}},
            }
        success["content"] = {media: {"schema": schema} if media == "application/json" else {} for media in route.media}
    elif route.status != 204:
        success["content"] = {media: {} for media in route.media}
    responses = {str(route.status): success}
    for status in _statuses(route):
        responses[str(status)] = {
            "description": title_of(status),
            "content": {CONTENT_TYPE: {"schema": schema_of[Problem]}},
        }
    return responses


def _statuses(route: Route) -> Iterable[int]:
    common = _COMMON if route.token or route.raw else (400, 503)
    return sorted({*common, *route.errors})


def _name(route: Route) -> str:
    words = re.sub(r"[{}]", "", route.path.removeprefix("/api/v1/")).replace("-", "/").replace(".", "/").split("/")
    return "_".join([route.method.lower(), *filter(None, words)])
