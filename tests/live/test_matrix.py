"""Every REST path and delivery, by every role and scope, against a running gateway, as `matrix.csv` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sensegate.authority import devices
from sensegate.authority import scope as rights
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Action, Role, Scope
from sensegate.errors import NotFound, PermissionDenied
from sensegate.flow import ROUTES
from tests.live import matrix
from tests.live.matrix import BROKERED, CANARY, Case, World, cases, missing, plain, subscribes, wrong
from tests.live.site import running

pytestmark = pytest.mark.live
in_one_loop = pytest.mark.asyncio(loop_scope="module")

ROUTED = {(route.method, route.path) for route in ROUTES}
DELIVERED = {
    ("WS", "/api/v1/feeds/{feed}/ws"),
    ("MQTT", "sg/grants/{grant}/#"),
    ("NATS", "sg.feeds.{grant}.>"),
}
ASKED = {(row["method"], row["path"]) for row in matrix.lines() if "?" in row["path"]}
"""Routes once more, with a filter that names the thing."""
CASES = cases(ROUTED | DELIVERED | ASKED)
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
    assert missing(ROUTED | DELIVERED | ASKED) == []
    assert missing({*ROUTED, ("GET", "/api/v1/new")}), "negative control"
    known = {(row["method"], row["path"].partition("?")[0]) for row in matrix.lines()} - {("*", "*")}
    known = {row for row in known if row[1] != "/api/v1/feeds/all/records"}
    assert known <= ROUTED | DELIVERED, "lines of routes that are no more"
    asked = {tuple(key.split(" ", 1)) for key in matrix.ASKS}
    assert asked <= ROUTED, "asks of routes that are no more"


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
    told = {case: (await world.ask(case, world.names))[1] for case in before}
    differ = [
        f"{case}\n  before {before[case][:300]}\n  after  {told[case][:300]}"
        for case in before
        if plain(before[case], {}) != plain(told[case], {})
    ]
    assert not differ, "\n".join(differ[:20])
    assert len(before) > 150


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


HOLES = ("allows", "department", "division", "role", "existence", "list")


@in_one_loop
@pytest.mark.parametrize("hole", HOLES)
async def test_a_planted_hole_is_found(world: World, hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The department is forgotten, the division, a role has one right too many, a 404 says more, a list is not cut."""
    paths = ("/api/v1/devices", "/api/v1/devices/{device}", "/api/v1/people/{person}", "/api/v1/feeds/{feed}/records")
    some = [case for case in CASES if case.path in paths and case.method in {"GET", "PATCH"}]
    assert not [fault for case in some if (fault := await wrong(world, case))]
    if hole == "allows":
        monkeypatch.setattr(devices, "allows", lambda *_, **__: True)
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
        true_list = Devices.list
        whole = Scope("44")
        monkeypatch.setattr(Devices, "list", lambda self, _=None, **more: true_list(self, whole, **more))
    faults = [fault for case in some if (fault := await wrong(world, case))]
    assert faults, hole
    assert all(CANARY in fault or "as " in fault for fault in faults)
