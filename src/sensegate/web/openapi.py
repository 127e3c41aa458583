"""OpenAPI 3.1 document, generated from the table of routes, in the forms that code generators take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

import msgspec

from sensegate.config.gateway import WebConfig
from sensegate.web.problems import CONTENT_TYPE, Problem, title_of
from sensegate.web.routing import QueryParam, Route

_REF = "#/components/schemas/{name}"
_COMMON = (400, 401, 403, 429, 503)
_BINARY = {"type": "string", "format": "binary"}
PATH_PARAMETERS = {
    "alarm": "id of the alarm",
    "application": "id of the application for access",
    "attribute": "name or IRI of the attribute, such as pm25",
    "bundle": "name of the bundle of feeds",
    "channel": "name of the alarm channel",
    "code": "code of the division (GB/T 2260), such as 4401",
    "column": "column of the tile, from west to east",
    "context": "id of the stored @context",
    "correction": "id of the correction",
    "device": "id of the device",
    "division": "code of the division (GB/T 2260), such as 4401",
    "entity": "id of the entity, such as urn:ngsi-ld:Device:gz-1",
    "feed": "name of the feed",
    "grant": "id of the grant",
    "id": "id of the refused part",
    "instance": "URI of the instance of an attribute, as instanceId has it",
    "job": "id of the job",
    "label": "name of the label, such as device or property",
    "member": "id of the node's membership",
    "model": "model of the device, the second part of the profile's name",
    "month": "month in UTC, such as 2026-05",
    "move": "id of the move",
    "name": "standard name of the property, such as air_temperature",
    "order": "id of the order",
    "person": "name with which the person signs in",
    "plan": "name of the emergency plan",
    "registration": "URI of the registration of a context source",
    "resource": "path of the resource, such as Things(7)/Datastreams",
    "row": "row of the tile, from north to south, with its suffix, such as 13.png",
    "rule": "name of the alarm rule",
    "sequence": "sequence of the entry on the log",
    "subscription": "id of the subscription, such as urn:ngsi-ld:Subscription:1",
    "task": "id of the task",
    "token": "id of the token",
    "type": "type of the entities, such as AirQualityObserved",
    "vendor": "maker of the device, the first part of the profile's name",
    "version": "version of the profile, such as 1.2.0",
    "webhook": "id of the webhook",
    "zoom": "zoom level of the tile",
}
"""Meaning of each parameter of a path, by its name."""


def document(routes: Sequence[Route], *, version: str, config: WebConfig) -> dict[str, Any]:
    """Return the OpenAPI document of a table of routes; `config` holds the limits of parameters."""
    types = [Problem]
    for route in routes:
        types += [kind for kind in (route.body, _item(route.response)) if kind is not None and kind not in types]
    refs, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(types, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, config)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sensegate",
            "version": version,
            "description": "The sensing gateway of a city. Errors are RFC 9457 problems; times are UTC with Z.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "the gateway that serves this document"}],
        "paths": paths,
        "components": {
            "schemas": {name: _generatable(schema) for name, schema in schemas.items()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "device": {"type": "http", "scheme": "basic", "description": "device id and its password"},
            },
        },
    }


def _item(answer: Any) -> Any:
    return get_args(answer)[0] if get_origin(answer) is list else answer


def _generatable(schema: Any) -> Any:
    """Return a schema without `items: false`, with which msgspec closes tuples and no code generator can do anything.

    `minItems` and `maxItems` close them as well. Elements of one type become `items`.
    """
    if isinstance(schema, list):
        return [_generatable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    fields = {name: _generatable(part) for name, part in schema.items()}
    if fields.get("items") is False:
        del fields["items"]
        elements = fields.get("prefixItems", [])
        if elements and all(element == elements[0] for element in elements):
            del fields["prefixItems"]
            fields["items"] = elements[0]
    return fields


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": PATH_PARAMETERS.get(name, ""),
        "schema": {"type": "string"},
    }


def _query_parameter(param: QueryParam, config: WebConfig) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.schema}
    maximum = getattr(config, param.maximum_setting) if param.maximum_setting else param.maximum
    if param.minimum is not None:
        schema["minimum"] = param.minimum
    if maximum is not None:
        schema["maximum"] = maximum
    return {"name": param.name, "in": "query", "description": param.description, "schema": schema}


def _operation(route: Route, schema_of: dict[Any, Any], config: WebConfig) -> dict[str, Any]:
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_query_parameter(param, config) for param in route.query]
    if 428 in route.errors:
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": True,
                "description": "revision that was read, as its ETag has it; another one meanwhile: 412",
                "schema": {"type": "string"},
            }
        )
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
        operation["requestBody"] = {"required": True, "content": {route.raw: _content(route.raw, {})}}
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
        success["content"] = {media: _content(media, schema) for media in route.media}
    elif route.status != 204:
        success["content"] = {media: _content(media, {}) for media in route.media}
    responses = {str(route.status): success}
    for status in _statuses(route):
        responses[str(status)] = {
            "description": title_of(status),
            "content": {CONTENT_TYPE: {"schema": schema_of[Problem]}},
        }
    return responses


def _content(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a body: of a type, of any JSON, text or bytes."""
    if media.split(";", maxsplit=1)[0] in {"application/json", "application/geo+json"}:
        return {"schema": schema}
    return {"schema": {"type": "string"} if media.startswith("text/") else _BINARY}


def _statuses(route: Route) -> Iterable[int]:
    common = _COMMON if route.token or route.raw else (400, 503)
    return sorted({*common, *route.errors})


def _name(route: Route) -> str:
    words = re.sub(r"[{}]", "", route.path.removeprefix("/api/v1/")).replace("-", "/").replace(".", "/").split("/")
    return "_".join([route.method.lower(), *filter(None, words)])
