"""The matrix of who may do what: its lines, the world in which they are tried, and how each path is asked.

`matrix.csv` is written by hand. A line: method, path, roles (several with spaces), then what comes of it for callers
of four scopes, seen from the thing that the path names (a device, feed, … of 440106, department police):

- ``own``: the scope covers it and is of its department;
- ``in``: the scope covers it, all departments;
- ``dept``: the scope covers its division, but is of another department;
- ``out``: another division.

Cells:

- ``yes``: done, or refused for another reason than rights (400, 409, 410, 412, 422, 426, 429, 501);
- ``yes+``: and the answer shows the thing; ``yes-``: and shows nothing of it, as if it did not exist;
- ``401``; ``403`` and ``404``: the same answer as for what does not exist;
- ``403!`` and ``404!``: refused to somebody who may know that it exists;
- ``no``: the broker does not let it subscribe; ``-``: no such caller can be.

Methods are those of HTTP, and WS, MQTT, NATS. Roles are names, ``operators`` for the three levels, ``others`` for all
that no other line of the path names. A line with path ``*`` is for all paths without one of their own for the role. A
new route needs its lines here, or `test_every_route_has_its_lines` fails; a path that takes a body needs an entry in
`ASKS`.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import nats.errors
from msgspec.structs import replace
from nats.aio.client import Client

from sensegate.config import Config
from sensegate.config.alarms import AlarmsConfig, MailConfig
from sensegate.config.history import HistoryConfig
from sensegate.config.people import EgressConfig
from sensegate.config.viid import ViidConfig
from tests.conftest import eventually
from tests.live.granting import ENTRY
from tests.live.site import Made, Site, config_of, reading

FILE = Path(__file__).with_name("matrix.csv")
ROLES = ("device", "subscriber", "county_operator", "city_operator", "province_operator", "auditor", "admin")
SCOPES = ("own", "in", "dept", "out")
CANARY = "kanari"
PLACES: dict[str, tuple[str, str]] = {
    "subscriber": ("440106", "440305"),
    "county_operator": ("440106", "440305"),
    "city_operator": ("4401", "4403"),
    "province_operator": ("44", "4403"),
    "auditor": ("44", "4403"),
    "admin": ("44", "4403"),
}
"""Role -> division of the scopes own, in and dept, and of out."""
PASSED = frozenset((*range(200, 400), 400, 409, 410, 412, 422, 426, 429, 501))


def config(directory: Path) -> Config:
    """Return the configuration of the world's gateway: a centre whose webhooks may reach what answers nothing."""
    return replace(
        config_of(directory, "44"),
        egress=EgressConfig(allow=("198.51.100.0/24",)),
        viid=ViidConfig(server_id="44000000005030000001"),
        history=HistoryConfig(enabled=True),
        alarms=AlarmsConfig(mail=MailConfig(host="mail.example.org")),
    )


CHANNEL: dict[str, Any] = {"kind": "mail", "place": "440106/police", "recipients": [f"{CANARY}@example.org"]}
CORRECTION = {"action": "withdraw", "begin": "2020-01-01T00:00Z", "end": "2020-01-02T00:00Z", "note": "x"}
BROKERED = frozenset(("MQTT", "NATS"))


class Case(msgspec.Struct, frozen=True):
    """One cell."""

    method: str
    path: str
    role: str
    scope: str
    expected: str

    def __str__(self) -> str:
        return f"{self.method} {self.path} as {self.role} ({self.scope})"


@cache
def lines() -> list[dict[str, str]]:
    """Return the lines of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if not row["method"].startswith("#")]


def _roles(row: dict[str, str]) -> list[str]:
    """Return the roles of a line."""
    roles = row["roles"].replace("operators", "county_operator city_operator province_operator").split()
    if roles != ["others"]:
        assert set(roles) <= set(ROLES), row
        return roles
    same = [line for line in lines() if (line["method"], line["path"]) == (row["method"], row["path"]) and line != row]
    return [role for role in ROLES if role != "device" and not any(role in _roles(row) for row in same)]


def cases(routes: set[tuple[str, str]]) -> list[Case]:
    """Return the cells for these (method, path); a line of its own goes before one for `*`."""
    table: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in lines():
        for role in _roles(row):
            key = row["method"], row["path"], role
            assert key not in table, f"two lines for {key}"
            table[key] = row
    cases = []
    for method, path in sorted(routes):
        for role in ROLES:
            line = table.get((method, path, role)) or table.get(("*", "*", role))
            if line is not None:
                cases += [Case(method, path, role, scope, line[scope]) for scope in SCOPES if line[scope] != "-"]
    return cases


def missing(routes: set[tuple[str, str]]) -> list[str]:
    """Return the routes without a whole set of lines of their own (`device` may be that of `*`)."""
    own: dict[tuple[str, str], set[str]] = {}
    general = set()
    for row in lines():
        roles = set(_roles(row))
        if row["path"] == "*":
            general |= roles
        own.setdefault((row["method"], row["path"]), set()).update(roles)
    return [
        f"{method} {path}: no line for {', '.join(sorted(set(ROLES) - own.get((method, path), set()) - general))}"
        for method, path in sorted(routes)
        if set(ROLES) - own.get((method, path), set()) - general
    ]


# ── the world ─────────────────────────────────────────────────────────────────────────────────────────


class World:
    """A gateway with callers of every role and scope, and things of 440106/police that are named after a canary."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.names: dict[str, str] = {}
        """Placeholder of a path -> the thing; those of `absent` name nothing."""
        self.absent: dict[str, str] = {}
        self.tokens: dict[tuple[str, str], str] = {}
        self.devices: dict[str, Made] = {}
        """Scope -> device that calls."""
        self.refused: dict[str, dict[str, str]] = {}
        """Method and path -> things that those name who are refused; nobody ends them."""
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Return a number that was not yet given."""
        return next(self._numbers)

    async def callers(self) -> None:
        """Make a token for each role and scope."""
        for role, (inside, outside) in PLACES.items():
            for scope, (place, department) in {
                "own": (inside, "police"),
                "in": (inside, ""),
                "dept": (inside, "environment"),
                "out": (outside, ""),
            }.items():
                self.tokens[role, scope], _ = await self.site.token(role, place, department=department, name="caller")
        shared = {"name": "shared", "divisions": ["440106"], "departments": ["police"]}
        await self.make("POST", "/api/v1/feeds", shared)
        await self.make("PATCH", "/api/v1/catalogue/shared", ENTRY)
        self.devices["in"] = await self.site.device("peer-1", "440106", department="police")
        self.devices["dept"] = await self.site.device("env-1", "440106", department="environment")
        self.devices["out"] = await self.site.device("out-1", "440305")

    async def make(self, method: str, path: str, body: Any = None, token: str | None = None, **more: Any) -> Any:
        """Ask as the admin (or another); it must be done."""
        answer = await self.site.ask(method, path, token, **({"json": body} if body is not None else {}), **more)
        assert answer.status < 300, (method, path, answer.body)
        return answer.body

    async def device(self, name: str) -> Made:
        """Register a device of 440106/police."""
        return await self.site.device(name, "440106", department="police")

    async def _alarm_things(self) -> None:
        heat = {"kind": "threshold", "property": "air_temperature", "above": -100.0, "place": "440106/police"}
        await self.make("PUT", f"/api/v1/alarm-rules/{CANARY}", heat)
        await self.make("PUT", f"/api/v1/alarm-channels/{CANARY}", CHANNEL)

    async def things(self) -> None:
        """Make all that the paths name."""
        site, make = self.site, self.make
        here: dict[str, Any] = {"division": "440106", "department": "police", "lon": 113.36, "lat": 23.12}
        device = await site.device(CANARY, owner="one office", **here)
        await site.device(f"{CANARY}-near", owner="another office", **here)
        self.devices["own"] = device
        await self._alarm_things()
        assert (await site.push(device, reading(21.5))).status == 202
        assert (await site.push(device, '{"values": {"air_temperature": 22}}')).status == 202  # of now: an alarm
        assert (await site.push(device, b"{kanari")).status == 202
        county, _ = await site.token("county_operator", "440106", department="police", name="maker")
        self.county = county
        feed = {"name": CANARY, "divisions": ["440106"], "departments": ["police"], "description": CANARY}
        await make("POST", "/api/v1/feeds", feed)
        await make("POST", "/api/v1/bundles", {"name": CANARY, "title": CANARY, "feeds": [CANARY]})
        applicant, _ = await site.token("subscriber", "4407", name="applicant")
        self.applicant = applicant
        wish = {
            "feeds": ["shared"],
            "purpose": CANARY,
            "legal_basis": "law",
            "days": 30,
            "deliveries": ["http", "mqtt", "nats"],
        }
        first = await make("POST", "/api/v1/applications", wish, applicant)
        done = await make("POST", f"/api/v1/applications/{first['id']}/decision", {"approve": True})
        reader, reader_id = await site.token("subscriber", "440106", department="police", name=CANARY)
        hook = {"feed": CANARY, "url": f"https://198.51.100.7/{CANARY}"}
        made = await make("POST", "/api/v1/webhooks", hook, reader)
        await make("POST", f"/api/v1/webhooks/{made['id']}/pause", {}, reader)
        task = {"task": "report-interval", "parameters": {"interval": 10}, "note": CANARY}
        created = await make("POST", f"/api/v1/devices/{CANARY}/tasks", task)
        person = {"id": CANARY, "role": "county_operator", "scope": "440106", "department": "police"}
        await make("POST", "/api/v1/people", person)
        await make("POST", "/api/v1/nodes", {"division": "4401"})
        await eventually(self._node_is_there)
        await make("POST", f"/api/v1/profiles/acme/{CANARY}/versions", {"text": profile(CANARY)}, county)
        plan: dict[str, Any] = {"title": CANARY, "place": "440106/police", "tasks": [], "shed": [], "grants": []}
        plan["tasks"] = [{"profile": "sensegate/plain", "task": "report-interval", "parameters": {"interval": 5}}]
        second, _ = await site.token("admin", "44", name="second")
        row = await make("PUT", f"/api/v1/emergency-plans/{CANARY}", plan)
        match = {"If-Match": f'"{row["revision"]}"'}
        await make("POST", f"/api/v1/emergency-plans/{CANARY}/approval", {}, second, headers=match)
        # To a node that was invited and never came: it stays asked.
        moved = await site.device(f"{CANARY}-moved", "440106", department="police")
        move = await make("POST", "/api/v1/moves", {"device": moved.id, "target": "4401", "division": "440106"})
        order = {"plan": CANARY, "hours": 1, "reason": CANARY, "drill": True}
        given = await make("POST", "/api/v1/mode-orders", order)
        (alarm,) = await eventually(self._alarms)
        correction = await make("POST", "/api/v1/corrections", {**CORRECTION, "devices": [CANARY]})
        self.names = {
            "device": CANARY,
            "alarm": alarm["id"],
            "rule": CANARY,
            "channel": CANARY,
            "zoom": "zoom17",
            "column": "column109123",
            "row": "row56789.png",
            "correction": correction["id"],
            "feed": CANARY,
            "bundle": CANARY,
            "application": first["id"],
            "grant": done["grants"][0],
            "webhook": made["id"],
            "task": created["id"],
            "person": CANARY,
            "token": reader_id,
            "member": "4401",
            "code": "440106",
            "vendor": "acme",
            "model": CANARY,
            "version": "1",
            "plan": CANARY,
            "order": given["id"],
            "move": move["id"],
            "job": "kanarijob",
            "month": "2026-11",
            "name": "air_temperature",
            "division": "4401",
            "id": "5" * 32,
            "sequence": "1",
            "label": "device",
            "resource": "Things",
            "entity": f"urn:ngsi-ld:WeatherObserved:{CANARY}",
            "type": "WeatherObserved",
            "attribute": "temperature",
            "registration": (await _registration(self))["registration"],
            "instance": (await _evolution(self, CANARY))["instance"],
            "context": (await _context(self))["context"],
            "subscription": (await _subscription(self))["subscription"],
        }
        self.absent = {
            name: re.sub(r"[0-9a-z]", lambda character: "9" if character[0].isdigit() else "z", value)
            for name, value in self.names.items()
        }
        for name in ("application", "grant", "webhook", "task", "token", "order", "move", "context"):
            kind = self.names[name][0] if not re.fullmatch(r"[0-9a-f]+", self.names[name]) else ""
            self.absent[name] = kind + "0" * (len(self.names[name]) - len(kind))
        self.absent |= {
            "member": "4404",
            "code": "440111",
            "month": "2026-11",
            "name": "air_temperature",
            "label": "device",
        }
        self.absent |= {
            "resource": "Things",
            "type": "Nothing",
            "attribute": "nothing",
            "vendor": "acme",
            "version": "1",
            "division": "4404",
            "sequence": "9" * 12,
        }

    async def _alarms(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.site.ask("GET", "/api/v1/alarms")).body["rows"]
        return rows

    async def _node_is_there(self) -> bool:
        return (await self.site.ask("GET", "/api/v1/nodes/4401")).status == 200

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, case: Case, names: dict[str, str]) -> tuple[int, str]:
        """Return (status, body) of a case, for things of these names."""
        path, asking = case.path, ASKS.get(f"{case.method} {case.path}", Ask())
        for name, value in names.items():
            path = path.replace(f"{{{name}}}", value)
        assert not names or "{" not in path, f"{path}: nothing is named so; add it to the world's names"
        more: dict[str, Any] = {}
        if asking.json is not None:
            more["json"] = json.loads(self.filled(json.dumps(asking.json), names))
        if asking.data:
            more["data"] = self.filled(asking.data, names)
        headers = {**asking.headers}
        if asking.match:
            headers["If-Match"] = f'"{await self._revision(path)}"'
        token = self.tokens.get((case.role, case.scope), "")
        if case.role == "device":
            caller = self.devices[case.scope]
            headers["Authorization"] = aiohttp.encode_basic_auth(caller.id, caller.password)
        else:
            headers["Authorization"] = f"Bearer {token}"
        url = self.site.addresses.http + path
        if case.method == "WS":
            try:
                async with self.site.session.ws_connect(url, headers=headers) as socket:
                    return 200, str((await socket.receive(5)).data)
            except aiohttp.WSServerHandshakeError as why:
                return why.status, ""
        async with self.site.session.request(
            case.method, url, headers=headers, allow_redirects=False, params=asking.query, **more
        ) as response:
            if response.status == 200 and response.content_type == "text/event-stream":
                text = ""
                while "data:" not in text:
                    text += (await response.content.readuntil(b"\n\n")).decode()
                return 200, text
            return response.status, (await response.read()).decode(errors="replace")

    def filled(self, text: str, names: dict[str, str]) -> str:
        """Return a body with names and new numbers put in."""
        number = str(self.number())
        text = text.replace('"<n#>"', number)
        for name, value in (*names.items(), ("n", number)):
            text = text.replace(f"<{name}>", value)
        return text

    async def _revision(self, path: str) -> int:
        answer = await self.site.ask("GET", path.removesuffix("/approval"))
        return int(answer.body.get("revision", 1)) if isinstance(answer.body, dict) else 1


def profile(model: str, version: str = "1") -> str:
    """Return a profile of the vendor acme."""
    return (
        f"profile: acme/{model}\nversion: {version}\nlabel: {{zh: 表, en: meter}}\n"
        "source: made for the test\nmessages:\n"
        f'  - label: telemetry\n    topics: ["{model}/{{device}}/up"]\n    readings:\n'
        "      - {field: t, property: air_temperature, unit: Cel}\n"
        f"examples:\n  - label: one\n    topic: {model}/d1/up\n    payload: {{t: 21.5}}\n"
        "    expect:\n      - {property: air_temperature, value: 21.5}\n"
    )


class Ask(msgspec.Struct, frozen=True):
    """How a path is asked; ``<device>`` in a body is the thing's name, ``<n>`` a new number."""

    json: Any = None
    data: str = ""
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    match: bool = False
    """With the revision that the thing has."""
    fresh: Callable[[World], Awaitable[dict[str, str]]] | None = None
    """Makes a new thing for each case that may do it, because the first ends it."""
    sign: str = CANARY
    """What an answer holds that shows the thing."""


async def _device(world: World) -> dict[str, str]:
    return {"device": (await world.device(f"{CANARY}-{world.number()}")).id}


async def _rule(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    rule = {"kind": "threshold", "property": "illuminance", "above": 1e9, "place": "440106/police"}
    await world.make("PUT", f"/api/v1/alarm-rules/{name}", rule)
    return {"rule": name}


async def _channel(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    await world.make("PUT", f"/api/v1/alarm-channels/{name}", CHANNEL)
    return {"channel": name}


async def _feed(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    feed = {"name": name, "divisions": ["440106"], "departments": ["police"]}
    await world.make("POST", "/api/v1/feeds", feed)
    return {"feed": name}


async def _bundle(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    await world.make("POST", "/api/v1/bundles", {"name": name, "title": name, "feeds": [CANARY]})
    return {"bundle": name}


async def _evolution(world: World, device: str) -> dict[str, str]:
    """Return the entity of a device's readings, an attribute of it and an instance of that."""
    entity = f"urn:ngsi-ld:WeatherObserved:{device}"
    known = await world.make("GET", f"/ngsi-ld/v1/temporal/entities/{entity}")
    return {"entity": entity, "attribute": "temperature", "instance": known["temperature"][0]["instanceId"]}


async def _observed(world: World) -> dict[str, str]:
    device = await world.device(f"{CANARY}-{world.number()}")
    assert (await world.site.push(device, reading(20))).status == 202
    return await _evolution(world, device.id)


INSTANCE = {"type": "Property", "value": 20, "observedAt": "2026-01-01T00:00:00Z"}


async def _bench(world: World) -> dict[str, str]:
    name = f"urn:ngsi-ld:Bench:{world.number()}"
    place = "?division=440106&department=police"
    await world.make("POST", f"/ngsi-ld/v1/entities{place}", {"id": name, "type": "Bench", "temperature": 20})
    return {"entity": name}


REGISTRATION: dict[str, Any] = {
    "type": "ContextSourceRegistration",
    "information": [{"entities": [{"type": "WeatherObserved"}]}],
    "endpoint": "https://198.51.100.7/ngsi-ld",
}


async def _registration(world: World) -> dict[str, str]:
    name = f"urn:ngsi-ld:ContextSourceRegistration:{CANARY}-{world.number()}"
    place = "?division=440106&department=police"
    await world.make("POST", f"/ngsi-ld/v1/csourceRegistrations{place}", {"id": name, **REGISTRATION})
    return {"registration": name}


SUBSCRIPTION: dict[str, Any] = {
    "type": "Subscription",
    "entities": [{"type": "WeatherObserved"}],
    "isActive": False,
    "notification": {"endpoint": {"uri": f"https://198.51.100.7/{CANARY}"}},
}


async def _subscription(world: World) -> dict[str, str]:
    token, _ = await world.site.token("subscriber", "440106", department="police", name=CANARY)
    name = f"urn:ngsi-ld:Subscription:{CANARY}-{world.number()}"
    await world.make("POST", f"/feeds/{CANARY}/ngsi-ld/v1/subscriptions", {"id": name, **SUBSCRIPTION}, token)
    return {"subscription": name}


async def _context(world: World) -> dict[str, str]:
    place, _ = await world.site.token("county_operator", "440106", department="police", name=f"{CANARY} contexts")
    await world.make("POST", "/ngsi-ld/v1/jsonldContexts", {"@context": {"a": f"urn:x:{world.number()}"}}, place)
    addresses = await world.make("GET", "/ngsi-ld/v1/jsonldContexts?details=true")
    return {"context": max(addresses, key=lambda row: row["timestamp"])["localId"]}


async def _token(world: World) -> dict[str, str]:
    _, name = await world.site.token("subscriber", "440106", department="police", name=CANARY)
    return {"token": name}


async def _person(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    person = {"id": name, "role": "county_operator", "scope": "440106", "department": "police"}
    await world.make("POST", "/api/v1/people", person)
    return {"person": name}


async def _webhook(world: World) -> dict[str, str]:
    token, _ = await world.site.token("subscriber", "440106", department="police", name=CANARY)
    hook = {"feed": CANARY, "url": f"https://198.51.100.7/{CANARY}"}
    made = await world.make("POST", "/api/v1/webhooks", hook, token)
    await world.make("POST", f"/api/v1/webhooks/{made['id']}/pause", {}, token)
    return {"webhook": made["id"]}


async def _task(world: World) -> dict[str, str]:
    device = await world.device(f"{CANARY}-{world.number()}")
    task = {"task": "report-interval", "parameters": {"interval": 10}, "note": CANARY}
    return {"task": (await world.make("POST", f"/api/v1/devices/{device.id}/tasks", task))["id"]}


async def _move(world: World) -> dict[str, str]:
    device = await world.device(f"{CANARY}-{world.number()}")
    wish = {"device": device.id, "target": "4401", "division": "440106"}
    return {"move": (await world.make("POST", "/api/v1/moves", wish))["id"]}


async def _plan(world: World) -> dict[str, str]:
    name = f"{CANARY}-{world.number()}"
    plan = {"title": CANARY, "place": "440106/police", "shed": ["illuminance"]}
    await world.make("PUT", f"/api/v1/emergency-plans/{name}", plan)
    return {"plan": name}


_VERSION = "/api/v1/profiles/{vendor}/{model}/versions/{version}"
PROMETHEUS = {
    "query": {"query": "air_temperature"},
    "query_range": {"query": "air_temperature", "start": "1767225600", "end": "1767225660", "step": "60"},
    "series": {"match[]": "air_temperature"},
    "labels": {"match[]": "air_temperature"},
}
"""Query of Prometheus -> its parameters."""
ASKS: dict[str, Ask] = {
    "POST /api/v1/devices": Ask(
        {"id": "new-<n>", "division": "440106", "department": "police", "profile": "sensegate/plain"}
    ),
    "POST /api/v1/devices/import": Ask(
        data="id,division,department,profile\nnew-<n>,440106,police,sensegate/plain\n",
        headers={"Content-Type": "text/csv"},
        sign='"outcome":"added"',
    ),
    "PATCH /api/v1/devices/{device}": Ask({"name": "x"}, match=True),
    "DELETE /api/v1/devices/{device}": Ask(fresh=_device),
    "POST /api/v1/devices/{device}/rotate": Ask({}, fresh=_device),
    "POST /api/v1/devices/{device}/disable": Ask(fresh=_device),
    "POST /api/v1/ingest/{device}": Ask(data=reading(20), headers={"Content-Type": "application/json"}),
    "POST /api/v2/write?bucket={device}": Ask(data="m air_temperature=20"),
    "POST /onvif/{device}": Ask(data=reading(21), headers={"Content-Type": "application/json"}),
    "POST /api/v1/devices/{device}/tasks": Ask(
        {"task": "report-interval", "parameters": {"interval": 10}}, fresh=_device
    ),
    "DELETE /api/v1/tasks/{task}": Ask(fresh=_task),
    "POST /api/v1/corrections": Ask({**CORRECTION, "devices": ["<device>"]}),
    "POST /api/v1/alarms/{alarm}/acknowledge": Ask({"note": "x"}),
    "POST /api/v1/alarms/{alarm}/silence": Ask({"seconds": 60}),
    "PUT /api/v1/alarm-rules/{rule}": Ask(
        {"kind": "threshold", "property": "air_temperature", "above": -100.0, "place": "440106/police"}, match=True
    ),
    "DELETE /api/v1/alarm-rules/{rule}": Ask(fresh=_rule),
    "PUT /api/v1/alarm-channels/{channel}": Ask(CHANNEL, match=True),
    "DELETE /api/v1/alarm-channels/{channel}": Ask(fresh=_channel),
    "POST /api/v1/feeds": Ask({"name": "new-<n>", "divisions": ["440106"], "departments": ["police"]}),
    "PATCH /api/v1/feeds/{feed}": Ask({"description": CANARY}, match=True),
    "DELETE /api/v1/feeds/{feed}": Ask(fresh=_feed),
    "GET /api/v1/feeds/{feed}/records": Ask(query={"limit": "10"}),
    **{f"GET /api/v1/feeds/{{feed}}/prometheus/api/v1/{name}": Ask(query=query) for name, query in PROMETHEUS.items()},
    **{
        f"POST /api/v1/feeds/{{feed}}/prometheus/api/v1/{name}": Ask(
            data=urlencode(query), headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        for name, query in PROMETHEUS.items()
    },
    "POST /api/v1/webhooks": Ask({"feed": "<feed>", "url": "https://198.51.100.7/<n>"}),
    "DELETE /api/v1/webhooks/{webhook}": Ask(fresh=_webhook),
    "POST /api/v1/webhooks/{webhook}/pause": Ask({}),
    "POST /api/v1/webhooks/{webhook}/resume": Ask({}, fresh=_webhook),
    "PATCH /api/v1/catalogue/{feed}": Ask({"title": CANARY}, match=True),
    "POST /api/v1/catalogue/{feed}/sample": Ask({}),
    "POST /api/v1/bundles": Ask({"name": "new-<n>", "title": "x", "feeds": ["<feed>"]}),
    "DELETE /api/v1/bundles/{bundle}": Ask(fresh=_bundle),
    "POST /api/v1/applications": Ask({"feeds": ["<feed>"], "purpose": "p", "legal_basis": "l", "days": 1}),
    "POST /api/v1/applications/{application}/decision": Ask({"approve": False, "reason": "no"}),
    "PATCH /api/v1/grants/{grant}": Ask({"rate": "<n#>"}, match=True),
    "DELETE /api/v1/grants/{grant}": Ask(headers={"If-Match": '"1000000"'}),
    "POST /api/v1/grants/{grant}/renew": Ask({"days": 1}),
    "POST /api/v1/tokens": Ask({"role": "subscriber", "scope": "440106", "department": "police"}),
    "DELETE /api/v1/tokens/{token}": Ask(fresh=_token),
    **{
        f"GET {root}/ngsi-ld/v1/entities": Ask(query={"type": "WeatherObserved,Device", "limit": "1000"})
        for root in ("", "/feeds/{feed}")
    },
    "POST /ngsi-ld/v1/entities": Ask({"id": "urn:ngsi-ld:Bench:<n>", "type": "Bench"}),
    "PUT /ngsi-ld/v1/entities/{entity}": Ask({"type": "Bench", "temperature": 21}, fresh=_bench),
    "PATCH /ngsi-ld/v1/entities/{entity}": Ask({"temperature": 21}, fresh=_bench),
    "DELETE /ngsi-ld/v1/entities/{entity}": Ask(fresh=_bench),
    "POST /ngsi-ld/v1/entities/{entity}/attrs": Ask({"temperature": 21}, fresh=_bench),
    "PATCH /ngsi-ld/v1/entities/{entity}/attrs": Ask({"temperature": 21}, fresh=_bench),
    "PATCH /ngsi-ld/v1/entities/{entity}/attrs/{attribute}": Ask({"value": 3}, fresh=_bench),
    "PUT /ngsi-ld/v1/entities/{entity}/attrs/{attribute}": Ask({"value": 3}, fresh=_bench),
    "DELETE /ngsi-ld/v1/entities/{entity}/attrs/{attribute}": Ask(fresh=_bench),
    **{
        f"POST /ngsi-ld/v1/entityOperations/{operation}": Ask([{"id": "urn:ngsi-ld:Bench:<n>", "type": "Bench"}])
        for operation in ("create", "upsert", "update", "merge")
    },
    "POST /ngsi-ld/v1/entityOperations/delete": Ask(["<entity>"]),
    **{
        f"{method} {root}/ngsi-ld/v1/subscriptions{suffix}": ask
        for root in ("", "/feeds/{feed}")
        for method, suffix, ask in (
            ("POST", "", Ask(SUBSCRIPTION)),
            ("PATCH", "/{subscription}", Ask({"description": CANARY})),
            ("DELETE", "/{subscription}", Ask(fresh=_subscription)),
        )
    },
    "POST /ngsi-ld/v1/csourceRegistrations": Ask({"id": "urn:ngsi-ld:Source:<n>", **REGISTRATION}),
    "GET /ngsi-ld/v1/csourceRegistrations": Ask(query={"type": "WeatherObserved", "limit": "1000"}),
    "PATCH /ngsi-ld/v1/csourceRegistrations/{registration}": Ask({"description": "x"}, fresh=_registration),
    "DELETE /ngsi-ld/v1/csourceRegistrations/{registration}": Ask(fresh=_registration),
    "POST /ngsi-ld/v1/csourceSubscriptions": Ask({"type": "x"}),
    "PATCH /ngsi-ld/v1/csourceSubscriptions/{subscription}": Ask({"type": "x"}),
    "POST /ngsi-ld/v1/temporal/entities": Ask({"id": "<entity>", "type": "WeatherObserved", "temperature": INSTANCE}),
    "DELETE /ngsi-ld/v1/temporal/entities/{entity}": Ask(fresh=_observed),
    "POST /ngsi-ld/v1/temporal/entities/{entity}/attrs": Ask({"temperature": INSTANCE}),
    "DELETE /ngsi-ld/v1/temporal/entities/{entity}/attrs/{attribute}": Ask(fresh=_observed),
    # A reading of its own: those of the world go with the history that a case before this one deletes.
    "PATCH /ngsi-ld/v1/temporal/entities/{entity}/attrs/{attribute}/{instance}": Ask({"value": 21.5}, fresh=_observed),
    "DELETE /ngsi-ld/v1/temporal/entities/{entity}/attrs/{attribute}/{instance}": Ask(fresh=_observed),
    "POST /ngsi-ld/v1/jsonldContexts": Ask({"@context": {"a": "urn:x:a"}}),
    "DELETE /ngsi-ld/v1/jsonldContexts/{context}": Ask(fresh=_context),
    **{
        f"GET {root}/ngsi-ld/v1/temporal/entities": Ask(
            query={"type": "WeatherObserved", "timerel": "after", "timeAt": "2020-01-01T00:00:00Z"}
        )
        for root in ("", "/feeds/{feed}")
    },
    **{
        f"POST {root}/ngsi-ld/v1/temporal/entityOperations/query": Ask(
            {
                "type": "Query",
                "entities": [{"type": "WeatherObserved"}],
                "temporalQ": {"timerel": "after", "timeAt": "2020-01-01T00:00:00Z"},
            }
        )
        for root in ("", "/feeds/{feed}")
    },
    **{
        f"POST {root}/ngsi-ld/v1/entityOperations/query": Ask(
            {"type": "Query", "entities": [{"type": "WeatherObserved"}]}, query={"limit": "1000"}
        )
        for root in ("", "/feeds/{feed}")
    },
    **{
        f"POST {root}/sta/v1.1/$batch": Ask({"requests": [{"id": "1", "method": "get", "url": "Things"}]})
        for root in ("", "/feeds/{feed}")
    },
    "GET /api/v1/ledger": Ask(query={"by": "device"}),
    "POST /api/v1/log/{sequence}/quarantine": Ask({"note": CANARY}),
    "GET /api/v1/nodes": Ask(sign='"4401"'),
    "GET /api/v1/nodes/{member}": Ask(sign='"4401"'),
    "POST /api/v1/nodes": Ask({"division": "4401"}),
    "POST /api/v1/nodes/join": Ask({}),
    "POST /api/v1/nodes/{member}/leave": Ask({}),
    "POST /api/v1/nodes/{member}/expel": Ask({"note": ""}),
    "PUT /api/v1/nodes/{member}/areas": Ask({"areas": ["<division>"]}),
    "PUT /api/v1/device-owners/{device}": Ask({"member": "<member>"}),
    "POST /api/v1/uplink/resend": Ask({}),
    "POST /api/v1/uplink/skip": Ask({"lane": "live"}),
    "POST /api/v1/uplink/takeover": Ask({}),
    "POST /api/v1/moves": Ask({"device": "<device>", "target": "4401", "division": "440106"}, fresh=_device),
    "POST /api/v1/moves/{move}/cancellation": Ask({}, fresh=_move),
    "POST /api/v1/returns": Ask(data="x", headers={"Content-Type": "application/octet-stream"}),
    "POST /api/v1/profiles/{vendor}/{model}/versions": Ask({"text": profile("<model>", "<n>")}),
    f"POST {_VERSION}/propose": Ask({}),
    f"POST {_VERSION}/return": Ask({}),
    f"POST {_VERSION}/release": Ask({"target": "440106/police"}),
    f"POST {_VERSION}/canary": Ask({"share": 0.5, "target": "440106/police"}),
    f"POST {_VERSION}/shadow": Ask({}),
    "POST /api/v1/profiles/{vendor}/{model}/rollback": Ask({}),
    "POST /api/v1/profiles/{vendor}/{model}/redecode": Ask({}),
    "POST /api/v1/profiles/{vendor}/{model}/diff": Ask({"a": 0, "b": 1}),
    "POST /api/v1/profiles/learn": Ask({"shape": "x"}),
    "POST /api/v1/profiles/lint": Ask({"text": profile("linted")}),
    "POST /api/v1/profiles/try": Ask({"text": profile("tried"), "topic": "acme/tried/up", "payload": "{}"}),
    "POST /api/v1/profiles/accept": Ask({"text": profile("accepted")}),
    "POST /api/v1/people": Ask({"id": "new-<n>", "role": "county_operator", "scope": "440106", "department": "police"}),
    "PATCH /api/v1/people/{person}": Ask({"title": "x"}, match=True),
    "POST /api/v1/people/{person}/password": Ask({}),
    "DELETE /api/v1/people/{person}": Ask(fresh=_person),
    "POST /api/v1/session": Ask({}),
    "PUT /api/v1/session/password": Ask({"old": "x", "new": "y"}),
    "PUT /api/v1/emergency-plans/{plan}": Ask({"title": CANARY, "place": "440106/police"}),
    "POST /api/v1/emergency-plans/{plan}/approval": Ask(match=True),
    "DELETE /api/v1/emergency-plans/{plan}": Ask(fresh=_plan),
    "POST /api/v1/mode-orders": Ask({"plan": "<plan>", "hours": 1, "reason": "x", "place": "440106/police"}),
    "DELETE /api/v1/mode-orders/{order}": Ask(),
}


# ── judging ───────────────────────────────────────────────────────────────────────────────────────────

_VOLATILE = re.compile(
    r'"(instance|time|now|ends|last|since|until|updated|counted|code|hours_of_month)": ?("[^"]*"|\d+),?'
)


async def hears(world: World, case: Case) -> bool:
    """Return whether the broker lets a caller subscribe to a grant."""
    place = case.path.replace("{grant}", world.names["grant"])
    if case.role == "device":
        user, password = world.devices[case.scope].id, world.devices[case.scope].password
    else:
        password = world.tokens[case.role, case.scope]
        user = password.split("_")[1]
    return await subscribes(world.site, case.method, place, user, password)


async def subscribes(site: Site, method: str, place: str, user: str, password: str) -> bool:
    """Return whether a subscription by MQTT or NATS is granted."""
    if method == "MQTT":
        async with site.phone() as phone:
            return await phone.connect(user, password) == 0 and await phone.subscribe(place) < 128
    refused: list[Exception] = []

    async def note(why: Exception) -> None:
        refused.append(why)

    client = Client()
    try:
        await client.connect(
            site.addresses.nats, user=user, password=password, allow_reconnect=False, error_cb=note, connect_timeout=5
        )
        await client.subscribe(place)
        await client.flush()
    except nats.errors.Error as why:
        refused.append(why)
    finally:
        with contextlib.suppress(nats.errors.Error):
            await client.close()
    return not refused


def plain(body: str, names: dict[str, str]) -> str:
    """Return an answer without what differs between two askings, and without the names that were asked for."""
    for value in sorted(names.values(), key=len, reverse=True):
        body = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "*", body)
    return _VOLATILE.sub("", body)


async def wrong(world: World, case: Case) -> str:
    """Ask a case; return what is wrong with the answer, or an empty string."""
    expected = case.expected
    if case.method in BROKERED:
        return f"{case}: the broker lets it hear" if await hears(world, case) is (expected == "no") else ""
    asking = ASKS.get(f"{case.method} {case.path}", Ask())
    names = {**world.names, **await _thing_of(world, case, asking)}
    status, body = await world.ask(case, names)
    text = f"{case}: {status}, expected {expected}: {body[:300]}"
    good = status in PASSED if expected.startswith("yes") else str(status) == expected.rstrip("!")
    if not good or (expected == "yes+" and asking.sign not in body):
        return text
    if expected.endswith(("!", "+")) or expected in {"yes", "401"}:
        return ""
    return f"{text}\n   {result}" if (result := await _difference(world, case, names, (status, body))) else ""


async def _thing_of(world: World, case: Case, asking: Ask) -> dict[str, str]:
    """Return what a case names: a new thing if it may end it; who is refused leaves it to the next who is."""
    if asking.fresh is None:
        return {}
    if case.expected.startswith("yes"):
        return await asking.fresh(world)
    text = f"{case.method} {case.path}"
    if text not in world.refused:
        world.refused[text] = await asking.fresh(world)
    return world.refused[text]


async def _difference(world: World, case: Case, names: dict[str, str], answer: tuple[int, str]) -> str:
    """Return what tells the thing from one that does not exist, or an empty string."""
    status, body = answer
    asking = ASKS.get(f"{case.method} {case.path}", Ask())
    result = case.path + json.dumps(asking.json).replace("<", "{").replace(">", "}")
    named = [name for name in names if f"{{{name}}}" in result and names[name] != world.absent[name]]
    if not named:
        return "the thing is shown" if case.expected == "yes-" and asking.sign in body else ""
    other, twin = await world.ask(case, world.absent)
    there, not_there = ({name: table[name] for name in named} for table in (names, world.absent))
    alike = (other, plain(twin, not_there)) == (status, plain(body, there))
    return "" if alike else f"what does not exist: {other}: {twin[:300]}"
