"""REST: accounts of people; each level manages those below it, auditors manage auditors."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from sensegate.authority.people import People, Person
from sensegate.authority.scope import Action, Role, Scope, duty
from sensegate.errors import NotFound
from sensegate.web import listing
from sensegate.web.bodies import Body, Division, Text
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

PersonRole = Literal["county_operator", "city_operator", "province_operator", "auditor", "admin"]


class NewPerson(Body, frozen=True):
    """Account to be created."""

    id: str
    """User name: 2 to 64 characters of a-z 0-9 . _ -"""
    role: PersonRole
    scope: Division
    department: Text = ""
    title: Text = ""
    """Full name."""


class PersonChange(Body, frozen=True):
    """Changes; keys that are left out stay unchanged. A change of duty is rejected."""

    role: PersonRole | msgspec.UnsetType = msgspec.UNSET
    scope: Division | msgspec.UnsetType = msgspec.UNSET
    department: Text | msgspec.UnsetType = msgspec.UNSET
    title: Text | msgspec.UnsetType = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    """True ends the sessions of the account too."""


class PersonRow(msgspec.Struct, frozen=True):
    """Account, without its password."""

    id: str
    role: str
    duty: str
    scope: str
    department: str
    title: str
    disabled: bool
    external: bool
    """True if an identity provider authenticates it."""
    password_set: str
    created: str
    created_by: str
    revision: int


class InitialPassword(msgspec.Struct, frozen=True):
    """Initial password, shown only once; it must be changed at the first sign-in."""

    id: str
    password: str


def accounts(call: Call) -> People:
    """Return the accounts of people. Raises `NotFound` where the gateway has none."""
    if call.deps.people is None:
        raise NotFound("this gateway has no accounts of people; use a token")
    return call.deps.people


def _row(person: Person) -> PersonRow:
    return PersonRow(
        person.id,
        person.role,
        duty(person.role) or "",
        person.scope.division,
        person.scope.department,
        person.title,
        person.disabled,
        person.external,
        iso(person.password_set),
        iso(person.created),
        person.created_by,
        person.revision,
    )


def _scope(call: Call, division: str, department: str) -> Scope:
    return Scope(call.deps.divisions.check(division)[0], department)


async def _list(call: Call) -> listing.RowPage[PersonRow]:
    """List the accounts in the caller's scope."""
    return listing.page_of(call, [_row(person) for person in accounts(call).list(call.principal)], PersonRow, "id")


async def _person(call: Call) -> PersonRow:
    """Get an account; everybody may get their own."""
    return _row(accounts(call).get(call.path("person"), call.principal))


async def _add(call: Call) -> InitialPassword:
    """Create an account of a level below the caller's; its initial password is shown only once."""
    people = accounts(call)
    wanted = await call.body(NewPerson)
    scope = _scope(call, wanted.scope, wanted.department)
    password, person = await people.create(wanted.id, Role(wanted.role), scope, by=call.principal, title=wanted.title)
    return InitialPassword(person.id, password)


async def _change(call: Call) -> PersonRow:
    """Change an account; open sessions have the change at once."""
    people = accounts(call)
    revision = call.revision()
    wanted = await call.body(PersonChange)
    before = people.get(call.path("person"), call.principal)
    division = before.scope.division if wanted.scope is msgspec.UNSET else wanted.scope
    department = before.scope.department if wanted.department is msgspec.UNSET else wanted.department
    after = await people.change(
        before.id,
        by=call.principal,
        revision=revision or 0,
        role=None if wanted.role is msgspec.UNSET else Role(wanted.role),
        scope=_scope(call, division, department),
        title=None if wanted.title is msgspec.UNSET else wanted.title,
        disabled=None if wanted.disabled is msgspec.UNSET else wanted.disabled,
    )
    return _row(after)


async def _reset(call: Call) -> InitialPassword:
    """Reset the password of an account; its sessions end."""
    person_id = call.path("person")
    return InitialPassword(person_id, await accounts(call).reset(person_id, by=call.principal))


async def _remove(call: Call) -> web.Response:
    """Delete an account permanently; its name is not assigned again."""
    await accounts(call).remove(call.path("person"), by=call.principal)
    return web.Response(status=204)


_CHANGE = Action.CHANGE_PEOPLE
ROUTES = tagged(
    "people",
    Route(
        "GET",
        f"{API}/people",
        _list,
        action=_CHANGE,
        or_action=Action.CHANGE_AUDITORS,
        query=listing.params(PersonRow),
        errors=(404,),
    ),
    Route(
        "POST",
        f"{API}/people",
        _add,
        action=_CHANGE,
        or_action=Action.CHANGE_AUDITORS,
        body=NewPerson,
        status=201,
        errors=(404, 409),
    ),
    Route("GET", f"{API}/people/{{person}}", _person, errors=(404,)),
    Route(
        "PATCH",
        f"{API}/people/{{person}}",
        _change,
        action=_CHANGE,
        or_action=Action.CHANGE_AUDITORS,
        body=PersonChange,
        errors=(404, 409, 412, 428),
    ),
    Route(
        "POST",
        f"{API}/people/{{person}}/password",
        _reset,
        action=_CHANGE,
        or_action=Action.CHANGE_AUDITORS,
        status=201,
        errors=(404, 409),
    ),
    Route(
        "DELETE",
        f"{API}/people/{{person}}",
        _remove,
        action=_CHANGE,
        or_action=Action.CHANGE_AUDITORS,
        status=204,
        errors=(404, 409),
    ),
)
