"""REST of the life of profiles, at its rim: who is let in, what a gateway without a store says, what is documented."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sensegate.authority.scope import Action, Role
from sensegate.web import profile_jobs, profiles
from sensegate.web.routing import Route
from tests.web.serving import Gateway

ROUTES = (*profiles.ROUTES, *profile_jobs.ROUTES)
NAMES = [f"{route.method} {route.path.removeprefix('/api/v1/profiles/')}" for route in ROUTES]


def path_of(route: Route) -> str:
    """Return a path of a route."""
    return re.sub(r"\{(\w+)\}", lambda part: {"version": "3"}.get(part[1], "x"), route.path)


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
async def test_who_is_let_in(gateway: Gateway, route: Route) -> None:
    """Nobody without a token, no subscriber; whoever may is told that this gateway keeps no versions."""
    body: dict[str, Any] = {} if route.body is None else {"json": {}}
    await gateway.ask(route.method, path_of(route), expect=401, **body)
    subscriber = await gateway.token(Role.SUBSCRIBER, "4401")
    if route.action is not Action.READ_READINGS:
        await gateway.ask(route.method, path_of(route), subscriber, expect=403, **body)
    if route.action is Action.RELEASE_PROFILES:
        county = await gateway.token(Role.COUNTY_OPERATOR, "440106")
        await gateway.ask(route.method, path_of(route), county, expect=403, **body)
    status, problem, _ = await gateway.ask(route.method, path_of(route), await gateway.token(), **body)
    assert status in {400, 404}, problem
    assert "this gateway" in problem["detail"] or "body" in problem["detail"] or "share" in problem["detail"]


def test_what_changes_something_is_a_right_of_its_own() -> None:
    """Each step of a city asks for the right to release, each of a county for the right to propose."""
    steps = {route.path.rpartition("/")[2]: route.action for route in ROUTES if route.method == "POST"}
    assert {name for name, action in steps.items() if action is Action.RELEASE_PROFILES} == {
        "return",
        "release",
        "canary",
        "rollback",
        "redecode",
    }
    assert {name for name, action in steps.items() if action is Action.PROPOSE_PROFILES} == {
        "versions",
        "propose",
        "shadow",
        "diff",
    }


async def test_the_document_names_them(gateway: Gateway) -> None:
    """OpenAPI is made of the same table: every path, with its body and its answers."""
    _, document, _ = await gateway.ask("GET", "/openapi.json", expect=200)
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["summary"] == route.summary
        assert str(route.status) in operation["responses"]
        assert ("requestBody" in operation) == (route.body is not None)
        assert {"401", "403", "404"} <= operation["responses"].keys()
