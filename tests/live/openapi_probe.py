"""Every operation of the served OpenAPI document, by callers and for objects that `matrix.csv` does not have.

The oracle is no table: an object out of the caller's reach is answered exactly as one that does not exist (status,
body, headers), and an operation that the caller's role has no right to is refused whatever its object. A new operation
is probed by itself; a new name of a path needs an entry in the world's names.
"""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import msgspec

from sensegate.authority.scope import Principal, Role, has_right, scope
from sensegate.flow import ROUTES
from tests.live.matrix import ASKS, CANARY, PASSED, Ask, World, plain, profile

PUBLIC = frozenset(
    {
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /ping",
        "GET /health",
        "GET /tiles/{zoom}/{column}/{row}",
        "POST /api/v1/nodes/join",
        "POST /api/v1/nodes/{member}/leave",
        "GET /api/v1/session/methods",
        "POST /api/v1/session",
        "GET /api/v1/session/oidc",
        "GET /api/v1/session/oidc/callback",
    }
)
"""Operations without a credential; a further one must be added here on purpose."""
NO_HEADER = frozenset({"date", "x-request-id", "content-length", "retry-after"})
PASSWORD = "Kapok-tree 2026"
SIGNING_OUT = frozenset({"DELETE /api/v1/session", "PUT /api/v1/session/password"})
"""They end or lock the session with which the probe asks."""
OF_THE_CALLER = frozenset(
    {
        "POST /api/v1/profiles/{vendor}/{model}/versions",
        "POST /api/v1/profiles/{vendor}/{model}/redecode",
    }
)
"""They make something of the caller's own area, for a model that belongs to nobody."""
FOR_ALL = frozenset(
    {
        "/api/v1/properties",
        "/api/v1/properties/{name}",
        "/api/v1/divisions",
        "/api/v1/divisions/{code}",
        "/ngsi-ld/v1/jsonldContexts/{context}",
    }
)
"""Reference data, the same for every caller."""


class Operation(msgspec.Struct, frozen=True):
    """An operation of the document."""

    method: str
    path: str
    is_public: bool
    query: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Caller(msgspec.Struct, frozen=True):
    """A caller; its rights as `scope.has_right` knows them."""

    name: str
    token: str
    principal: Principal | None
    """None: it is not authenticated."""
    is_inside: bool = False
    """Whether the objects of the world lie in its scope."""


class Answered(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    body: str
    headers: dict[str, str]


async def operations(world: World) -> list[Operation]:
    """Return the operations of the document that the gateway serves."""
    document = (await world.site.ask("GET", "/openapi.json", "")).body
    return [
        Operation(
            method.upper(),
            path,
            not operation["security"],
            tuple(parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def callers(world: World) -> list[Caller]:
    """Make the callers: unauthenticated ones, people of all duties, a token for other feeds than the world's."""
    site = world.site
    revoked, revoked_id = await site.token("admin", "44", name="revoked")
    await world.make("DELETE", f"/api/v1/tokens/{revoked_id}")
    limited, _ = await site.token("city_operator", "4401", feeds=["shared"], name="limited")
    auditor = site.config_file("auditor.token").read_text().strip()
    operations = [
        Caller("without a token", "", None),
        Caller("with a wrong secret", f"sg_{revoked_id}_{'x' * 32}", None),
        Caller("with a revoked token", revoked, None),
        Caller(
            "token for other feeds",
            limited,
            Principal("", Role.CITY_OPERATOR, scope("4401"), ("shared",)),
            is_inside=True,
        ),
    ]
    for role, place, maker, is_inside in (
        ("admin", "44", None, True),
        ("admin", "4403", None, False),
        ("city_operator", "4403", None, False),
        ("auditor", "4403", auditor, False),
    ):
        name = f"person-{role}-{place}".replace("_", "-")
        made = await world.make("POST", "/api/v1/people", {"id": name, "role": role, "scope": place}, maker)
        sign_in = {"name": name, "password": made["password"], "new_password": PASSWORD, "bearer": True}
        session = await world.make("POST", "/api/v1/session", sign_in, "")
        principal = Principal("", Role(role), scope(place), person=True)
        operations.append(Caller(f"{role} of {place} in person", session["token"], principal, is_inside))
    return operations


def object_names(operation: Operation) -> set[str]:
    """Return the names of objects in the path and the body of an operation."""
    asking = ASKS.get(str(operation), Ask())
    return set(re.findall(r"{(\w+)}", operation.path)) | set(re.findall(r"<(\w+)>", str(asking.json) + asking.data))


async def exchange(
    world: World, operation: Operation, token: str, names: dict[str, str], query: dict[str, str] | None = None
) -> Answered:
    """Ask an operation for objects of these names."""
    asking = ASKS.get(str(operation), Ask())
    path = operation.path
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{operation}: add the name to the world's names"
    more: dict[str, Any] = {}
    if asking.json is not None:
        more["json"] = msgspec.json.decode(world.filled(msgspec.json.encode(asking.json).decode(), names))
    if asking.data:
        more["data"] = world.filled(asking.data, names)
    headers = {**asking.headers, **({"If-Match": '"1"'} if asking.match else {})}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    params = {**asking.query, **(query or {})}
    async with world.site.session.request(
        operation.method,
        world.site.addresses.http + path,
        headers=headers,
        params=params,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=20),
        **more,
    ) as response:
        kept = {key.lower(): value for key, value in response.headers.items() if key.lower() not in NO_HEADER}
        if response.content_type == "text/event-stream":
            return Answered(response.status, (await response.content.readuntil(b"\n\n")).decode(), kept)
        return Answered(response.status, (await response.read()).decode(errors="replace"), kept)


def difference(world: World, named: set[str], present: Answered, missing: Answered) -> str:
    """Return how the answer for an object differs from that for a missing one; empty: it does not."""
    there, absent = ({name: names[name] for name in named} for names in (world.names, world.absent))
    if present.status != missing.status:
        return f"{present.status}, missing {missing.status}: {present.body[:200]} | {missing.body[:200]}"
    if plain(present.body, there) != plain(missing.body, absent):
        return f"body {present.body[:200]} | missing {missing.body[:200]}"
    if present.headers != missing.headers:
        return f"headers {present.headers} | missing {missing.headers}"
    return ""


async def fault(world: World, operation: Operation, caller: Caller) -> str:
    """Probe an operation as a caller; return what is wrong, or an empty string."""
    if caller.principal is not None and str(operation) in SIGNING_OUT | OF_THE_CALLER:
        return ""
    is_inside = caller.is_inside and caller.principal is not None and not caller.principal.feeds
    if is_inside and caller.principal is not None and _has_right(operation, caller.principal):
        return ""  # it may; `matrix.csv` says with what result
    present = await exchange(world, operation, caller.token, world.names)
    text = f"{operation} {caller.name}: "
    if caller.principal is None and not operation.is_public:
        # Many wrong secrets: they are told to wait. What is asked for is not looked at in either case.
        return "" if present.status in {401, 429} else f"{text}{present.status}, not 401"
    if (
        caller.principal is not None
        and not operation.is_public
        and not _has_right(operation, caller.principal)
        and present.status in PASSED
    ):
        return f"{text}{present.status} without the right: {present.body[:200]}"
    named = {name for name in object_names(operation) if world.names.get(name) != world.absent.get(name)}
    if not named or operation.path in FOR_ALL:
        return f"{text}shows {CANARY}: {present.body[:200]}" if CANARY in present.body else ""
    missing = await exchange(world, operation, caller.token, world.absent)
    result = difference(world, named, present, missing)
    return f"{text}{result}" if result else ""


def _has_right(operation: Operation, principal: Principal) -> bool:
    """Return whether the table of routes lets a role do this at all."""
    route = _ROUTES[str(operation)]
    needed = [action for action in (route.action, route.or_action) if action is not None]
    return not needed or any(has_right(principal, action) for action in needed)


_ROUTES = {f"{route.method} {route.path}": route for route in ROUTES}
FILTERS: dict[str, str] = {
    "devices": "device",
    "tokens": "token",
    "people": "person",
    "grants": "grant",
    "applications": "application",
    "webhooks": "webhook",
    "tasks": "task",
    "moves": "move",
    "nodes": "member",
    "emergency-plans": "plan",
    "mode-orders": "order",
}
"""Last segment of a list's path -> name whose value its `id` filters by."""


def filters(world: World, operation: Operation) -> list[tuple[str, str, set[str]]]:
    """Return (parameter, value for the object, names) of the parameters of a list by which an object can be named."""
    last = operation.path.rpartition("/")[2]
    filters = []
    for parameter in operation.query:
        name = parameter if parameter in {"device", "feed", "token", "person", "grant", "webhook", "plan"} else ""
        if parameter == "id":
            name = FILTERS.get(last, "")
        if parameter in {"q", "text"}:
            name = "device"  # named after the canary, as all objects are
        if name:
            filters.append((parameter, name, {name}))
    return [(parameter, world.names[name], names) for parameter, name, names in filters]


async def filter_fault(world: World, operation: Operation, caller: Caller) -> str:
    """Ask a list for an object by each of its filters; return what tells it from a missing one."""
    if operation.method != "GET" or "{" in operation.path or caller.principal is None:
        return ""
    if caller.is_inside and not caller.principal.feeds and _has_right(operation, caller.principal):
        return ""
    for parameter, value, names in filters(world, operation):
        (name,) = names
        present = await exchange(world, operation, caller.token, {}, {parameter: value})
        missing = await exchange(world, operation, caller.token, {}, {parameter: world.absent[name]})
        if result := difference(world, names, present, missing):
            return f"{operation}?{parameter}= {caller.name}: {result}"
    return ""


class Takeover(msgspec.Struct, frozen=True):
    """A creation in the caller's own area under the name of an object elsewhere."""

    method: str
    path: str
    body: dict[str, Any]
    list_path: str
    """Where the object is listed."""


TAKEOVERS = (
    Takeover(
        "POST",
        "/api/v1/devices",
        {"id": CANARY, "profile": "sensegate/plain", "division": "440305", "department": "police"},
        "/api/v1/devices",
    ),
    Takeover(
        "POST",
        "/api/v1/devices",
        {"id": "its-alias", "alias": CANARY, "profile": "sensegate/plain", "division": "440305"},
        "/api/v1/devices",
    ),
    Takeover("POST", "/api/v1/feeds", {"name": CANARY, "divisions": ["440305"]}, "/api/v1/feeds"),
    Takeover("POST", "/api/v1/people", {"id": CANARY, "role": "county_operator", "scope": "440305"}, "/api/v1/people"),
    Takeover(
        "PUT",
        f"/api/v1/emergency-plans/{CANARY}",
        {"title": "mine", "place": "440305/police", "shed": ["illuminance"]},
        "/api/v1/emergency-plans",
    ),
    Takeover("POST", "/api/v1/bundles", {"name": CANARY, "title": "mine", "feeds": ["of-4403"]}, "/api/v1/bundles"),
)


class Reference(msgspec.Struct, frozen=True):
    """A request of the caller about its own things that names another one in its body or query."""

    method: str
    path: str
    body: Any = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    undo: str = ""
    """Path that is deleted after each request."""


_MINE = "sensegate/plain"
_OWN_VERSION = "/api/v1/profiles/acme/of-4403/versions/1"
REFERENCES = (
    Reference("POST", "/api/v1/devices", {"id": "r-1", "division": "440305", "profile": _MINE, "gateway": "<device>"}),
    Reference("PATCH", "/api/v1/devices/of-4403", {"gateway": "<device>"}, headers={"If-Match": "own"}),
    Reference("PATCH", "/api/v1/devices/of-4403", {"asset": "<device>-asset"}, headers={"If-Match": "own"}),
    Reference("POST", "/api/v1/moves", {"device": "<device>", "target": "4403", "division": "440305"}),
    Reference("POST", "/api/v1/feeds", {"name": "r-<n>", "divisions": ["440305"], "departments": ["<device>"]}),
    Reference("POST", "/api/v1/tokens", {"role": "subscriber", "scope": "4403", "feeds": ["<feed>"]}),
    Reference("POST", "/api/v1/webhooks", {"feed": "<feed>", "url": "https://198.51.100.7/x"}),
    Reference("POST", "/api/v1/applications", {"feeds": ["<feed>"], "purpose": "p", "legal_basis": "l"}),
    Reference("POST", "/api/v1/applications", {"bundle": "<bundle>", "purpose": "p", "legal_basis": "l"}),
    Reference(
        "POST",
        "/api/v1/applications",
        {"feeds": ["shared"], "subscriber": "<token>", "purpose": "p", "legal_basis": "l"},
    ),
    Reference("POST", "/api/v1/bundles", {"name": "r-<n>", "title": "t", "feeds": ["<feed>"]}),
    Reference("POST", "/api/v1/bundles", {"name": "r-<n>", "title": "t", "feeds": ["ref-4403", "<feed>"]}),
    Reference(
        "PUT",
        "/api/v1/emergency-plans/r-<n>",
        {"title": "t", "place": "440305/police", "grants": [{"feed": "<feed>", "subscriber": "<token>"}]},
    ),
    Reference("POST", "/api/v1/mode-orders", {"plan": "<plan>", "hours": 1, "reason": "x", "place": "440305"}),
    Reference("POST", f"{_OWN_VERSION}/canary", {"devices": ["<device>"], "target": "4403"}),
    Reference(
        "POST",
        f"{_OWN_VERSION}/shadow",
        {"devices": ["<device>"], "target": "4403"},
        undo="/api/v1/profiles/acme/of-4403/shadow",
    ),
    Reference("POST", "/api/v1/profiles/sensegate/plain/redecode", {"devices": ["<device>"], "target": "4403"}),
    Reference(
        "POST", "/api/v1/profiles/acme/of-4403/diff", {"a": 0, "b": 1, "devices": ["<device>"], "target": "4403"}
    ),
    Reference("GET", "/api/v1/feeds/ref-4403/records", query={"device": "<device>"}),
    Reference("GET", "/api/v1/feeds/ref-4403/latest", query={"device": "<device>"}),
    Reference("GET", "/api/v1/ledger", query={"by": "device", "device": "<device>"}),
    Reference("GET", "/api/v1/quality", query={"device": "<device>"}),
    Reference("GET", "/api/v1/quarantine", query={"device": "<device>"}),
    Reference("GET", "/api/v1/usage", query={"token": "<token>"}),
    Reference("GET", "/api/v1/usage", query={"feed": "<feed>"}),
    Reference("GET", "/api/v1/subscribers", query={"feed": "<feed>"}),
)


async def of_another_city(world: World) -> str:
    """Make things of 4403; return the token of its operator."""
    city, _ = await world.site.token("city_operator", "4403", name="reference")
    await world.make("POST", "/api/v1/devices", {"id": "of-4403", "division": "440305", "profile": _MINE}, city)
    await world.make("POST", "/api/v1/feeds", {"name": "ref-4403", "divisions": ["4403"]}, city)
    await world.make("POST", "/api/v1/profiles/acme/of-4403/versions", {"text": profile("of-4403")}, city)
    for device in (world.names["device"], "somewhere"):
        # Assets that are taken: by a device of another city, and by none.
        await world.site.ask("PATCH", f"/api/v1/devices/{device}", json={"asset": f"{device}-asset"})
    return city


async def reference_fault(world: World, city: str, reference: Reference) -> str:
    """Ask for a thing that there is elsewhere and for one that there is not; return how the answers differ."""
    answers = []
    for names in (world.names, world.absent):
        headers = dict(reference.headers)
        if "If-Match" in headers:
            row = (await world.site.ask("GET", reference.path, city)).body
            headers["If-Match"] = f'"{row["revision"]}"'
        body = world.filled(msgspec.json.encode(reference.body).decode(), names)
        query = {key: world.filled(value, names) for key, value in reference.query.items()}
        more = {} if reference.body is None else {"json": msgspec.json.decode(body)}
        path = world.filled(reference.path, names)
        answer = await world.site.ask(reference.method, path, city, params=query, headers=headers, **more)
        if reference.undo:
            await world.site.ask("DELETE", reference.undo, city)
        shown = plain(msgspec.json.encode(answer.body).decode() if not isinstance(answer.body, bytes) else "", names)
        answers.append((answer.status, _NEW.sub("", shown)))
    return "" if answers[0] == answers[1] else f"{reference}:\n  {answers[0]}\n  {answers[1]}"


_NEW = re.compile(
    r'"(id|token|name|revision|expires|created|started|since|until|deadline|secret|number|source)": ?("[^"]*"|\d+),?'
)
