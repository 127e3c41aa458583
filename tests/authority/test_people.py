"""People: who may appoint whom, three duties, passwords and their locks, sessions that end when they must."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine

import pytest
from argon2 import Type

from sensegate.authority import passwords
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.oidc import Identity
from sensegate.authority.passwords import weakness
from sensegate.authority.people import People, holder
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, may_hand_out, scope
from sensegate.authority.trail import Facts, MemoryTrail
from sensegate.clock import FakeClock
from sensegate.config.people import PeopleConfig
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied
from tests.conftest import PASSWORD_HASHER

ROOT = Principal("root", Role.ADMIN, scope("44"))
FIRST_AUDITOR = Principal("first", Role.AUDITOR, scope("44"))
GOOD = "Kapok-tree 2026"
OTHER = "Banyan-tree 2027"
DAY_S = 86_400.0


@pytest.fixture
def people(trail: MemoryTrail, clock: FakeClock) -> People:
    return People(MemoryBucket(), trail, clock, PeopleConfig())


async def member(people: People, name: str, role: Role, place: str, by: Principal | None = None) -> Principal:
    """Return somebody who has signed in."""
    by = by or (FIRST_AUDITOR if role is Role.AUDITOR else ROOT)
    first, _ = await people.create(name, role, scope(place), by=by)
    done = await people.sign_in(name, first, new_password=GOOD)
    return people.verify(done.token)[0]


LEVELS = [
    # giver's role and scope, wanted role and scope, allowed
    (Role.PROVINCE_OPERATOR, "44", Role.CITY_OPERATOR, "4401", True),
    (Role.PROVINCE_OPERATOR, "44", Role.COUNTY_OPERATOR, "440106", True),
    (Role.PROVINCE_OPERATOR, "44", Role.PROVINCE_OPERATOR, "44", False),
    (Role.PROVINCE_OPERATOR, "44", Role.AUDITOR, "44", False),
    (Role.PROVINCE_OPERATOR, "44", Role.ADMIN, "44", False),
    (Role.CITY_OPERATOR, "4401", Role.COUNTY_OPERATOR, "440106", True),
    (Role.CITY_OPERATOR, "4401", Role.COUNTY_OPERATOR, "4401", False),
    (Role.CITY_OPERATOR, "4401", Role.COUNTY_OPERATOR, "440305", False),
    (Role.CITY_OPERATOR, "4401", Role.CITY_OPERATOR, "4401", False),
    (Role.CITY_OPERATOR, "4419", Role.COUNTY_OPERATOR, "441900003", True),
    (Role.COUNTY_OPERATOR, "440106", Role.COUNTY_OPERATOR, "440106", False),
    (Role.AUDITOR, "44", Role.AUDITOR, "4401", True),
    (Role.AUDITOR, "4401", Role.AUDITOR, "44", False),
    (Role.AUDITOR, "44", Role.COUNTY_OPERATOR, "440106", False),
    (Role.SUBSCRIBER, "44", Role.COUNTY_OPERATOR, "440106", False),
    (Role.ADMIN, "4401", Role.ADMIN, "4401", True),
    (Role.ADMIN, "4401", Role.AUDITOR, "4401", False),
    (Role.ADMIN, "4401", Role.COUNTY_OPERATOR, "440106", False),
    (Role.ADMIN, "4401", Role.CITY_OPERATOR, "4403", False),
    (Role.ADMIN, "4401", Role.PROVINCE_OPERATOR, "44", False),
    (Role.ADMIN, "44", Role.SUBSCRIBER, "44", False),
    (Role.ADMIN, "44", Role.DEVICE, "44", False),
]


@pytest.mark.parametrize(("giver", "own", "role", "wanted", "allowed"), LEVELS)
def test_each_level_appoints_those_below(giver: Role, own: str, role: Role, wanted: str, *, allowed: bool) -> None:
    """Within its own scope, operators never their own level, nobody another duty."""
    assert may_hand_out(Principal("x", giver, scope(own), person=True), holder(role, scope(wanted))) is allowed


def test_a_department_appoints_within_the_department() -> None:
    """Police of a city do not appoint people of its environment bureau, nor of all departments."""
    police = Principal("x", Role.CITY_OPERATOR, Scope("4401", "police"))
    assert may_hand_out(police, holder(Role.COUNTY_OPERATOR, Scope("440106", "police")))
    assert not may_hand_out(police, holder(Role.COUNTY_OPERATOR, Scope("440106", "environment")))
    assert not may_hand_out(police, holder(Role.COUNTY_OPERATOR, Scope("440106")))


def test_no_person_has_two_duties() -> None:
    """Who administers neither operates nor audits, nor gives itself a token that does; the others likewise."""
    admin, operator, auditor = (
        Principal("p", role, scope("44"), person=True) for role in (Role.ADMIN, Role.PROVINCE_OPERATOR, Role.AUDITOR)
    )
    assert allows(admin, Action.CHANGE_PEOPLE, "4401")
    for action in (Action.READ_AUDIT, Action.READ_READINGS, Action.CHANGE_DEVICES, Action.DECIDE_GRANTS):
        assert not allows(admin, action, "4401"), action
    assert not allows(operator, Action.READ_AUDIT, "4401")
    assert allows(auditor, Action.READ_AUDIT, "44")
    changes = [action for action in Action if action.startswith(("change", "release", "propose", "decide", "apply"))]
    assert len(changes) >= 9
    assert [action for action in changes if allows(auditor, action, "44")] == [Action.CHANGE_AUDITORS]
    for role in (Role.AUDITOR, Role.CITY_OPERATOR, Role.ADMIN, Role.SUBSCRIBER):
        assert not may_hand_out(admin, Principal("", role, scope("4401"))), role
    assert may_hand_out(ROOT, Principal("", Role.ADMIN, scope("4401"))), "a token of an administrator is no person"
    assert may_hand_out(operator, Principal("", Role.CITY_OPERATOR, scope("4401")))


async def test_an_administrator_takes_away_what_it_cannot_give(people: People) -> None:
    """It disables and removes operators, but neither resets their passwords nor enables them nor touches an auditor."""
    admin = await member(people, "root", Role.ADMIN, "44")
    await member(people, "li", Role.PROVINCE_OPERATOR, "44")
    await member(people, "zhao", Role.AUDITOR, "44", by=FIRST_AUDITOR)
    for name, role in (("x1", Role.COUNTY_OPERATOR), ("x2", Role.AUDITOR)):
        with pytest.raises(PermissionDenied, match="hands out rights"):
            await people.create(name, role, scope("440106"), by=admin)
    revision = people.get("li", admin).revision
    with pytest.raises(PermissionDenied, match="hands out rights"):
        await people.reset("li", by=admin)
    with pytest.raises(PermissionDenied, match="hands out rights"):
        await people.change("li", by=admin, revision=revision, scope=scope("4401"))
    disabled = await people.change("li", by=admin, revision=revision, disabled=True)
    with pytest.raises(PermissionDenied, match="hands out rights"):
        await people.change("li", by=admin, revision=disabled.revision, disabled=False)
    await people.remove("li", by=admin)
    for by in (admin, ROOT):
        with pytest.raises(NotFound):
            await people.remove("zhao", by=by)
    auditor = await member(people, "qian", Role.AUDITOR, "4401", by=FIRST_AUDITOR)
    with pytest.raises(NotFound):
        await people.remove("zhao", by=auditor)
    await people.remove("qian", by=FIRST_AUDITOR)


async def test_a_life(people: People, trail: MemoryTrail) -> None:
    """First password, changed on the way in, session, sign-out, removal; each step recorded, no secret among them."""
    first, person = await people.create("li.wei", Role.CITY_OPERATOR, scope("4401"), by=ROOT, title="李偉")
    with pytest.raises(PermissionDenied, match="must be changed"):
        await people.sign_in("li.wei", first)
    done = await people.sign_in("li.wei", first, new_password=GOOD)
    principal, session = people.verify(done.token)
    assert (principal.id, principal.role, principal.name) == ("person:li.wei", Role.CITY_OPERATOR, "李偉")
    assert people.is_valid(principal)
    assert session.is_csrf_token(session.csrf)
    assert not session.is_csrf_token("")
    await people.sign_out(principal)
    assert not people.is_valid(principal)
    with pytest.raises(PermissionDenied):
        people.verify(done.token)
    repeated = await people.sign_in("li.wei", GOOD)
    await people.remove("li.wei", by=ROOT)
    with pytest.raises(PermissionDenied):
        people.verify(repeated.token)
    with pytest.raises(PermissionDenied, match="wrong"):
        await people.sign_in("li.wei", GOOD)
    with pytest.raises(Conflict, match="was in use"):
        await people.create("li.wei", Role.AUDITOR, scope("44"), by=FIRST_AUDITOR)
    assert person.initial
    assert [action for _, action, *_ in trail.records] == [
        "person.create",
        "person.password",
        "session.open",
        "session.close",
        "session.open",
        "person.remove",
    ]
    assert not any(word in str(trail.records) for word in (first, GOOD, done.token, "argon2"))


async def test_wrong_passwords_lock_known_and_unknown_names_alike(
    people: People, trail: MemoryTrail, clock: FakeClock
) -> None:
    """Five, then even the right one waits; after the lock it is good again."""
    await member(people, "li", Role.AUDITOR, "44")
    for name in ("li", "nobody"):
        for _ in range(5):
            with pytest.raises(PermissionDenied) as why:
                await people.sign_in(name, "wrong")
            assert not why.value.authenticated
            assert str(why.value) == "name or password is wrong"
        with pytest.raises(Overloaded) as locked:
            await people.sign_in(name, GOOD)
        assert locked.value.retry_after_s == 900
    assert [target for _, action, target, *_ in trail.records if action == "session.locked"] == [
        "li",
        "(unknown name)",
    ]
    await clock.advance(901)
    await people.sign_in("li", GOOD)


async def test_an_old_password_must_be_changed_and_never_comes_again(people: People, clock: FakeClock) -> None:
    """After 90 days; the one in force and the five before it are refused."""
    await member(people, "li", Role.AUDITOR, "44")
    await clock.advance(90 * DAY_S)
    with pytest.raises(PermissionDenied, match="90 days"):
        await people.sign_in("li", GOOD)
    with pytest.raises(ConfigError, match="used before"):
        await people.sign_in("li", GOOD, new_password=GOOD)
    await people.sign_in("li", GOOD, new_password=OTHER)
    with pytest.raises(ConfigError, match="used before"):
        await people.sign_in("li", OTHER, new_password=GOOD)


async def test_changing_the_own_password_ends_the_other_sessions(people: People) -> None:
    """The one that asked goes on; the old password must be shown."""
    mine = await member(people, "li", Role.AUDITOR, "44")
    other = people.verify((await people.sign_in("li", GOOD)).token)[0]
    with pytest.raises(PermissionDenied, match="old password"):
        await people.change_password(mine, "wrong", OTHER)
    await people.change_password(mine, GOOD, OTHER)
    assert people.is_valid(mine)
    assert not people.is_valid(other)


async def held(check: HeldCheck, asked: Coroutine[object, object, object]) -> asyncio.Task[object]:
    """Return a task whose password check is inside its thread."""
    task = asyncio.create_task(asked)
    assert await asyncio.to_thread(check.entered.wait, 10)
    return task


class HeldCheck:
    """A comparison of passwords that has its result, and waits to be released in its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.release = threading.Event(), threading.Event()
        self.running = self.most = 0
        compare = passwords._is_match

        def slow(stored: str, password: str) -> bool:
            result = compare(stored, password)
            self.running += 1
            self.most = max(self.most, self.running)
            self.entered.set()
            self.release.wait(10)
            self.running -= 1
            return result

        monkeypatch.setattr(passwords, "_is_match", slow)


@pytest.mark.parametrize("how", ["sign in", "change"])
async def test_a_password_that_is_reset_during_its_check_is_worth_nothing(
    people: People, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A sign-in with the old password that is being checked opens no session after the reset, nor sets a password."""
    mine = await member(people, "li", Role.AUDITOR, "44")
    check = HeldCheck(monkeypatch)
    asked = people.sign_in("li", GOOD) if how == "sign in" else people.change_password(mine, GOOD, OTHER)
    task = await held(check, asked)
    await people.reset("li", by=FIRST_AUDITOR)
    check.release.set()
    with pytest.raises(PermissionDenied, match="wrong"):
        await task
    assert len(people.sessions) == 0


async def test_a_reset_while_a_session_is_recorded_prevents_it(
    people: People, trail: MemoryTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is opened after its record; a password that was reset in between opens none."""
    await member(people, "li", Role.AUDITOR, "44")
    record = trail.record

    async def reset_first(by: Principal, action: str, target: str, **facts: Facts | None) -> None:
        await record(by, action, target, **facts)
        if action == "session.open":
            await people.reset("li", by=FIRST_AUDITOR)

    monkeypatch.setattr(trail, "record", reset_first)
    with pytest.raises(PermissionDenied, match="changed meanwhile"):
        await people.sign_in("li", GOOD)
    assert len(people.sessions) == 0


async def test_a_caller_that_goes_away_is_counted_and_holds_its_slot(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-in whose caller disconnects counts as an attempt, and its thread keeps its slot until it ends."""
    check = HeldCheck(monkeypatch)
    for number in range(5):
        task = asyncio.create_task(people.sign_in("li", f"wrong {number}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    check.release.set()
    await asyncio.gather(*people._checks)
    assert check.most <= passwords.CONCURRENT_MAX
    with pytest.raises(Overloaded):
        await people.sign_in("li", "right or wrong")


async def test_sessions_end_when_idle_and_by_age(people: People, clock: FakeClock) -> None:
    """Half an hour without a question; eight hours in any case."""
    await member(people, "li", Role.AUDITOR, "44")
    text = (await people.sign_in("li", GOOD)).token
    for _ in range(17):
        await clock.advance(1_700)
        if clock.now() - 1_767_225_600_000_000 < 28_800e6:
            people.verify(text)
    with pytest.raises(PermissionDenied):
        people.verify(text)
    text = (await people.sign_in("li", GOOD)).token
    await clock.advance(1_800)
    with pytest.raises(PermissionDenied):
        people.verify(text)


async def test_a_change_is_in_force_at_once(people: People) -> None:
    """Narrowed, then disabled: the open session has it; an open stream (`is_valid`) is told to end."""
    mine = await member(people, "li", Role.CITY_OPERATOR, "4401")
    text = (await people.sign_in("li", GOOD)).token
    revision = people.get("li", ROOT).revision
    changed = await people.change("li", by=ROOT, revision=revision, scope=Scope("4401", "police"))
    assert not people.is_valid(mine)
    assert people.verify(text)[0].scope == Scope("4401", "police")
    with pytest.raises(Conflict):
        await people.change("li", by=ROOT, revision=revision, disabled=True)
    with pytest.raises(ConfigError, match="duty"):
        await people.change("li", by=ROOT, revision=changed.revision, role=Role.AUDITOR)
    await people.change("li", by=ROOT, revision=changed.revision, disabled=True)
    with pytest.raises(PermissionDenied):
        people.verify(text)
    with pytest.raises(PermissionDenied, match="wrong"):
        await people.sign_in("li", GOOD)


async def test_others_are_neither_seen_nor_changed(people: People) -> None:
    """A city's operator sees the people of its city; those of another city do not exist for it."""
    city = await member(people, "gz", Role.CITY_OPERATOR, "4401")
    await people.create("th", Role.COUNTY_OPERATOR, scope("440106"), by=city)
    await people.create("sz", Role.CITY_OPERATOR, scope("4403"), by=ROOT)
    assert [person.id for person in people.list(city)] == ["gz", "th"]
    for person_id in ("sz", "nobody"):
        with pytest.raises(NotFound, match=f"no person '{person_id}' in your scope"):
            people.get(person_id, city)
    with pytest.raises(PermissionDenied):
        await people.remove("gz", by=city)
    await people.remove("th", by=city)


async def test_whom_a_provider_vouches_for(people: People, trail: MemoryTrail) -> None:
    """The account is made, follows its rules, is shut out here when disabled, and keeps its duty."""
    identity = Identity("u-1", "li.wei", Role.CITY_OPERATOR, scope("4401"))
    first = await people.sign_in_external(identity)
    await people.sign_in_external(identity)
    moved = Identity("u-1", "li.wei", Role.CITY_OPERATOR, scope("4403"))
    await people.sign_in_external(moved)
    principal, _ = people.verify(first.token)
    assert (principal.id, principal.scope) == ("person:oidc:u-1", scope("4403"))
    with pytest.raises(PermissionDenied, match="duty is permanent"):
        await people.sign_in_external(Identity("u-1", "li.wei", Role.AUDITOR, scope("44")))
    with pytest.raises(PermissionDenied, match="wrong"):
        await people.sign_in("oidc:u-1", "")
    row = people.get("oidc:u-1", ROOT)
    await people.change("oidc:u-1", by=ROOT, revision=row.revision, disabled=True)
    with pytest.raises(PermissionDenied, match="disabled"):
        await people.sign_in_external(moved)
    assert [action for _, action, *_ in trail.records if action.startswith("person")] == [
        "person.create",
        "person.change",
        "person.change",
    ]


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("Short-1", "characters"),
        ("x" * 300, "longer"),
        ("Kapok\x00tree2026", "control"),
        ("Aa1-Aa1-Aa1-", "too few different"),
        ("Password-2026", "common password"),
        ("kapoktreegrows", "needs 3"),
        ("my-Li.Wei-0815x", "name"),
        ("kapok trees grow along the river", ""),
        ("木棉花開在三月裡 Kapok", ""),
        (GOOD, ""),
    ],
)
def test_what_is_a_password(password: str, why: str) -> None:
    """Twelve characters of three kinds, or a long phrase; no beginnings of leaked ones."""
    result = weakness(password, name="li.wei")
    assert (why in result) if why else result == ""


def test_a_hash_costs_as_much_as_it_should() -> None:
    """Argon2id with at least 64 MiB and three passes (RFC 9106, second choice); tests alone hash at less."""
    assert PASSWORD_HASHER.type is Type.ID
    assert PASSWORD_HASHER.memory_cost >= 65_536
    assert PASSWORD_HASHER.time_cost >= 3
    assert PASSWORD_HASHER.verify(PASSWORD_HASHER.hash(GOOD), GOOD)
