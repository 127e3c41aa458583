"""The OpenAPI document of all routes: valid, and in the forms that code generators take."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from sensegate.config.gateway import WebConfig
from sensegate.flow import ROUTES
from sensegate.web import openapi

CONFIG = WebConfig(page_max=777)
SOAK = bool(os.environ.get("SENSEGATE_SOAK"))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document of all routes."""
    document: dict[str, Any] = json.loads(json.dumps(openapi.document(ROUTES, version="1.2.3", config=CONFIG)))
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the operations, each with its name."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def faults(document: dict[str, Any]) -> list[str]:
    """Return what a code generator would not take, or what its user would miss."""
    texts = [] if document.get("servers") else ["no servers"]
    for name, operation in operations(document):
        if not operation["summary"].endswith("."):
            texts.append(f"{name}: the summary is no sentence")
        for parameter in operation["parameters"]:
            schema, place = parameter["schema"], f"{name}: {parameter['name']}"
            if not parameter.get("description"):
                texts.append(f"{place}: no description")
            if schema["type"] in {"integer", "number"} and not {"minimum", "maximum"} <= schema.keys():
                texts.append(f"{place}: no bounds")
        for status, response in operation["responses"].items():
            for media, content in response.get("content", {}).items():
                if "schema" not in content:
                    texts.append(f"{name}: {status} {media}: no schema")
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            if "*" in media or "schema" not in content:
                texts.append(f"{name}: body {media}: no schema of one type")
    texts += [f"{place} is false" for place in closed_items(document["components"]["schemas"], "schemas")]
    return texts


def closed_items(schema: Any, place: str) -> Iterator[str]:
    """Yield the places of `items: false`, which generators do not take."""
    if isinstance(schema, dict):
        if schema.get("items", True) is False:
            yield f"{place}.items"
        for name, part in schema.items():
            yield from closed_items(part, f"{place}.{name}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from closed_items(part, f"{place}[{index}]")


@pytest.mark.skipif(not SOAK, reason="the validator takes five seconds of CPU; make soak")
def test_it_is_valid(document: dict[str, Any]) -> None:
    """By a validator that others wrote; the control spoils one schema."""
    validate(document)
    broken = copy.deepcopy(document)
    broken["components"]["schemas"]["Problem"]["type"] = "nothing"
    with pytest.raises(OpenAPIValidationError):
        validate(broken)


def test_generators_take_every_operation(document: dict[str, Any]) -> None:
    """Servers, descriptions, bounds of numbers, a schema of each body; no tuple closed by `items: false`."""
    assert faults(document) == []


@pytest.mark.parametrize("spoiled", ["servers", "description", "minimum", "schema", "items"])
def test_each_rule_sees_what_breaks_it(document: dict[str, Any], spoiled: str) -> None:
    """The controls: a document without that part is not taken."""
    broken = copy.deepcopy(document)
    records = broken["paths"]["/api/v1/feeds/{feed}/records"]["get"]
    if spoiled == "servers":
        del broken["servers"]
    elif spoiled == "schema":
        del records["responses"]["200"]["content"]["text/csv"]["schema"]
    elif spoiled == "items":
        broken["components"]["schemas"]["Problem"]["properties"]["pair"] = {"type": "array", "items": False}
    else:
        parameter = next(each for each in records["parameters"] if each["name"] == "limit")
        del (parameter if spoiled == "description" else parameter["schema"])[spoiled]
    assert len(faults(broken)) == 1


def test_bounds_are_those_of_the_configuration(document: dict[str, Any]) -> None:
    """`limit` is bounded by `web.page_max`, the wait by `web.long_poll_max_s`."""
    records = document["paths"]["/api/v1/feeds/{feed}/records"]["get"]
    bounds = {parameter["name"]: parameter["schema"] for parameter in records["parameters"]}
    assert bounds["limit"] == {"type": "integer", "minimum": 1, "maximum": 777}
    assert bounds["wait"] == {"type": "number", "minimum": 0, "maximum": CONFIG.long_poll_max_s}


def test_tuples_keep_their_length(document: dict[str, Any]) -> None:
    """A pair of one type is an array of two; a tuple of several types keeps its `prefixItems`."""
    runs = document["components"]["schemas"]["MissingRow"]["properties"]["runs"]["items"]
    assert (runs["minItems"], runs["maxItems"], runs["items"]["type"]) == (2, 2, "integer")
