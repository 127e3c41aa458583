"""Every REST path and delivery, by every role and scope, against a running gateway, as `matrix.csv` says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sensegate.authority import device_table, devices
from sensegate.authority import scope as rights
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Action, Principal, Role, Scope
from sensegate.errors import NotFound, PermissionDenied
from sensegate.flow import ROUTES
from sensegate.viid.client import ViidClient
from tests.live import matrix, openapi_probe
from tests.live.matrix import BROKERED, CANARY, Case, World, cases, missing, plain, subscribes, wrong
from tests.live.openapi_probe import Caller
from tests.live.site import Made, Site, running

pytestmark = pytest.mark.live
in_one_loop = pytest.mark.asyncio(loop_scope="module")

ROUTED = {(route.method, route.path) for route in ROUTES}
DELIVERED = {
    ("WS", "/api/v1/feeds/{feed}/ws"),
    ("MQTT", "sg/grants/{grant}/#"),
    ("NATS", "sg.feeds.{grant}.>"),
}
QUERIED = {(row["method"], row["path"]) for row in matrix.lines() if "?" in row["path"]}
"""Routes once more, with a filter that names the thing."""
CASES = cases(ROUTED | DELIVERED | QUERIED)
LISTS = [
    case
    for case in CASES
    if (case.method, case.expected) == ("GET", "yes-") and "{" not in case.path and case.role != "device"
]
"""Answers that must not depend on what happens outside the caller's scope."""
MOVING = frozenset(("/metrics", "/readyz"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, dict[Case, str]]]:
    """A gateway with callers and no things, and what its lists say."""
    async with running(matrix.config(tmp_path_factory.mktemp("matrix"))) as site:
        world = World(site)
        await world.callers()
        yield world, {case: (await world.ask(case, {}))[1] for case in LISTS if case.path not in MOVING}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(empty: tuple[World, dict[Case, str]]) -> World:
    """The same gateway, with things."""
    made, _ = empty
    await made.things()
    return made


def test_every_route_has_its_lines() -> None:
    """A route that is new is missing here until somebody writes who may use it."""
    assert missing(ROUTED | DELIVERED | QUERIED) == []
    assert missing({*ROUTED, ("GET", "/api/v1/new")}), "negative control"
    known = {(row["method"], row["path"].partition("?")[0]) for row in matrix.lines()} - {("*", "*")}
    known = {row for row in known if row[1] != "/api/v1/feeds/all/records"}
    assert known <= ROUTED | DELIVERED, "lines of routes that are no more"
    operations = {tuple(key.partition("?")[0].split(" ", 1)) for key in matrix.ASKS}
    assert operations <= ROUTED, "asks of routes that are no more"


def test_it_is_more_than_a_thousand_cells() -> None:
    """All roles, all scopes."""
    assert len(CASES) > 1_000
    assert len(CASES) == len(set(CASES))
    for which in (Counter(case.role for case in CASES), Counter(case.scope for case in CASES)):
        assert min(which.values()) > 400, which


@in_one_loop
async def test_lists_do_not_tell_of_what_is_outside(empty: tuple[World, dict[Case, str]], world: World) -> None:
    """What a caller gets of lists, counts and sums is the same before and after all happened in another's scope."""
    _, before = empty
    answers = {case: (await world.ask(case, world.names))[1] for case in before}
    differ = [
        f"{case}\n  before {before[case][:300]}\n  after  {answers[case][:300]}"
        for case in before
        if plain(before[case], {}) != plain(answers[case], {})
    ]
    assert not differ, "\n".join(differ[:20])
    assert len(before) > 150


@in_one_loop
async def test_every_operation_of_the_document(world: World) -> None:
    """From `openapi.json`: people, tokens for other feeds and strangers get nothing, and learn of nothing."""
    known = await openapi_probe.operations(world)
    assert {(operation.method, operation.path) for operation in known} == ROUTED
    assert {str(operation) for operation in known if operation.is_public} == openapi_probe.PUBLIC
    made = await openapi_probe.callers(world)
    faults = [
        result
        for caller in made
        for operation in known
        for probe in (openapi_probe.fault, openapi_probe.filter_fault)
        if (result := await probe(world, operation, caller))
    ]
    assert not faults, f"{len(faults)}:\n" + "\n".join(faults[:40])
    assert len(known) * len(made) > 1_000


@in_one_loop
async def test_the_matrix(world: World) -> None:
    """Each cell comes out as it is written, and a refusal looks the same for a thing and for nothing."""
    faults = [fault for case in CASES if case.method not in BROKERED if (fault := await wrong(world, case))]
    assert not faults, f"{len(faults)} of {len(CASES)}:\n" + "\n".join(faults[:40])


@in_one_loop
async def test_the_broker(world: World) -> None:
    """Nobody hears a grant of others, in whatever role and scope; who holds it does."""
    faults = [fault for case in CASES if case.method in BROKERED if (fault := await wrong(world, case))]
    assert not faults, faults
    grant = world.names["grant"]
    for method, place in (("MQTT", f"sg/grants/{grant}/#"), ("NATS", f"sg.feeds.{grant}.>")):
        user = world.applicant.split("_")[1]
        assert await subscribes(world.site, method, place, user, world.applicant), "negative control"


@in_one_loop
async def test_planted_holes_are_found_by_the_probe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what is outside is shown, found by a filter, or done without the right."""
    known = {str(operation): operation for operation in await openapi_probe.operations(world)}
    token, _ = await world.site.token("city_operator", "4403", name="outside")
    city = Caller("outside", token, Principal("", Role.CITY_OPERATOR, rights.scope("4403")))
    device, listed = known["GET /api/v1/devices/{device}"], known["GET /api/v1/tokens"]
    assert not await openapi_probe.fault(world, device, city)
    assert not await openapi_probe.filter_fault(world, listed, city)
    less = Caller("outside", token, Principal("", Role.SUBSCRIBER, rights.scope("4403")))
    assert "without the right" in await openapi_probe.fault(world, listed, less)
    monkeypatch.setattr(Scope, "covers", lambda *_: True)
    assert await openapi_probe.fault(world, device, city)
    assert await openapi_probe.filter_fault(world, listed, city)


@in_one_loop
async def test_naming_a_thing_elsewhere_tells_nothing(world: World) -> None:
    """In bodies and filters of requests about one's own things: as if what is elsewhere were not there."""
    city = await openapi_probe.of_another_city(world)
    faults = [
        fault
        for reference in openapi_probe.REFERENCES
        if (fault := await openapi_probe.reference_fault(world, city, reference))
    ]
    assert not faults, "\n".join(faults)


MINE, THEIRS, NOBODY = "44030500001190000001", "44010600001190000001", "44010600001190000002"


@in_one_loop
async def test_a_name_in_use_elsewhere_is_not_taken_over(world: World) -> None:
    """An operator of another city creates something under the name of what it cannot see: that stays as it was."""
    city, _ = await world.site.token("city_operator", "4403", name="neighbour")
    await world.make("POST", "/api/v1/feeds", {"name": "of-4403", "divisions": ["4403"]}, city)
    for takeover in openapi_probe.TAKEOVERS:
        listed = (await world.site.ask("GET", takeover.list_path)).body["rows"]
        answer = await world.site.ask(takeover.method, takeover.path, city, json=takeover.body)
        # Names of plans are those of a place; other names are unique in the gateway, so that one in use is refused.
        assert answer.status in ({200} if takeover.method == "PUT" else {403, 404, 409}), (takeover, answer)
        assert not {"440106", "one office"} & set(re.findall(r"[\w ]+", str(answer.body))), (takeover, answer)
        after = (await world.site.ask("GET", takeover.list_path)).body["rows"]
        assert [row for row in listed if row not in after] == [], takeover
    await world.make("POST", "/api/v1/bundles", {"name": "taken", "title": "t", "feeds": [CANARY]})
    taken = await world.site.ask("POST", "/api/v1/bundles", city, json={"name": "taken", "feeds": ["of-4403"]})
    assert taken.status == 409
    assert CANARY not in str(taken.body), "the feeds of a bundle that it cannot see"


@in_one_loop
async def test_viid_and_mqtt_tell_nothing_of_others(world: World) -> None:
    """A camera of another city asks for one that there is and for one that there is not: the same answers."""
    site = world.site
    mine = await site.device(MINE, "440305")
    await site.device(THEIRS, "440106", department="police")
    client = ViidClient(site.addresses.viid, MINE, password=mine.password)
    await client.register()
    answers = {code: await viid_answers(site, mine, code) for code in (THEIRS, NOBODY)}
    await client.close()
    assert answers[THEIRS] == answers[NOBODY]
    own = await viid_answers(site, mine, MINE)
    assert own != answers[THEIRS], "negative control"
    await client.close()
    heard = {}
    for code in (THEIRS, NOBODY):
        async with site.phone() as phone:
            refused = await phone.connect(code, "wrong")
        async with site.phone() as phone:
            assert await phone.connect(mine.id, mine.password) == 0
            heard[code] = refused, await phone.subscribe(f"sg/{code}/down"), await phone.subscribe(f"sg/{code}/up")
    assert heard[THEIRS] == heard[NOBODY]
    assert heard[THEIRS][0] != 0
    assert min(heard[THEIRS][1:]) >= 128


async def viid_answers(site: Site, mine: Made, code: str) -> list[str]:
    """Return what a registered camera gets told about a code, without the code and the time."""
    vehicle = {"MotorVehicleID": "1", "InfoKind": 1, "SourceID": "1", "DeviceID": code, "PlateNo": "x"}
    viid_answers = []
    for method, path, tree in (
        ("POST", "/VIID/MotorVehicles", {"MotorVehicleListObject": {"MotorVehicleObject": [vehicle]}}),
        ("POST", "/VIID/Faces", {"FaceListObject": {"FaceObject": [{"FaceID": "1", "DeviceID": code}]}}),
        ("POST", "/VIID/System/Keepalive", {"KeepaliveObject": {"DeviceID": code}}),
        ("GET", f"/VIID/APEs?ApeID={code}", None),
        ("GET", f"/VIID/APEs/{code}", None),
        ("POST", "/VIID/Subscribes", {"SubscribeListObject": {"SubscribeObject": [{"SubscribeID": code}]}}),
    ):
        viid_answers += [await viid_answer(site, method, path, tree, identify) for identify in (MINE, code)]
    for user, password in ((mine.id, mine.password), (code, mine.password), (code, "wrong")):
        other = ViidClient(site.addresses.viid, code, user=user, password=password)
        try:
            await other.register()
            viid_answers.append("registered")
        except PermissionDenied as why:
            viid_answers.append(str(why))
        finally:
            await other.close()
    return [re.sub(r"\d{14}", "TIME", text.replace(code, "*")) for text in viid_answers]


async def viid_answer(site: Site, method: str, path: str, tree: object, identify: str) -> str:
    """Return status and body of a request."""
    url, headers = site.addresses.viid + path, {"User-Identify": identify}
    body = None if tree is None else json.dumps(tree)
    async with site.session.request(method, url, data=body, headers=headers) as response:
        return f"{method} {path} {response.status} {await response.text()}"


HOLES = ("allows", "department", "division", "role", "existence", "list")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good_cases(world: World) -> list[Case]:
    """Some cases of which none is wrong before a hole is planted."""
    paths = ("/api/v1/devices", "/api/v1/devices/{device}", "/api/v1/people/{person}", "/api/v1/feeds/{feed}/records")
    some = [case for case in CASES if case.path in paths and case.method in {"GET", "PATCH"}]
    assert not [fault for case in some if (fault := await wrong(world, case))]
    return some


@in_one_loop
@pytest.mark.parametrize("hole", HOLES)
async def test_a_planted_hole_is_found(
    world: World, good_cases: list[Case], hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The department is forgotten, the division, a role has one right too many, a 404 says more, a list is not cut."""
    if hole == "allows":
        for module in (devices, device_table):
            monkeypatch.setattr(module, "allows", lambda *_, **__: True)
    elif hole == "department":
        monkeypatch.setattr(Scope, "covers", lambda self, division, _="": division.startswith(self.division))
    elif hole == "division":
        monkeypatch.setattr(Scope, "covers", lambda self, _, department="": self.department in {"", department})
    elif hole == "role":
        wider = {**rights._RIGHTS, Role.SUBSCRIBER: rights._RIGHTS[Role.SUBSCRIBER] | {Action.READ_REGISTRY}}
        monkeypatch.setattr(rights, "_RIGHTS", wider)
    elif hole == "existence":
        true_get = Devices.get

        def get(self: Devices, device_id: str, by: rights.Principal | None = None) -> object:
            try:
                return true_get(self, device_id, by)
            except NotFound as why:
                if self.is_present(device_id):
                    raise PermissionDenied("outside your scope") from why
                raise

        monkeypatch.setattr(Devices, "get", get)
    else:
        true_select = Devices.select
        whole = Scope("44")
        monkeypatch.setattr(Devices, "select", lambda self, _=None, *more: true_select(self, whole, *more))
    faults = [fault for case in good_cases if (fault := await wrong(world, case))]
    assert faults, hole
    assert all(CANARY in fault or "as " in fault for fault in faults)
