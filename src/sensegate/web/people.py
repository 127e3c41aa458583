"""REST: accounts of people, each level for those below it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from aiohttp import web

from sensegate.authority.people import People, Person
from sensegate.authority.scope import Action, Role, Scope, duty
from sensegate.errors import NotFound
from sensegate.web import listing
from sensegate.web.bodies import Body, Division, Text
from sensegate.web.routing import API, Call, Route, iso

PersonRole = Literal["county_operator", "city_operator", "province_operator", "auditor", "admin"]


class NewPerson(Body, frozen=True):
    """An account to be made."""

    id: str
    """Name to sign in with: 2 to 64 of a-z 0-9 . _ -"""
    role: PersonRole
    scope: Division
    department: Text = ""
    title: Text = ""
    """Full name."""


class PersonChange(Body, frozen=True):
    """What is to change; keys that are left out stay as they are. Another duty is refused."""

    role: PersonRole | msgspec.UnsetType = msgspec.UNSET
    scope: Division | msgspec.UnsetType = msgspec.UNSET
    department: Text | msgspec.UnsetType = msgspec.UNSET
    title: Text | msgspec.UnsetType = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    """True ends the sessions too."""


class PersonRow(msgspec.Struct, frozen=True):
    """An account; never its password."""

    id: str
    role: str
    duty: str
    scope: str
    department: str
    title: str
    disabled: bool
    external: bool
    """A provider of identities vouches for it."""
    password_set: str
    created: str
    created_by: str
    revision: int


class InitialPassword(msgspec.Struct, frozen=True):
    """A password shown this once; it must be changed at the first sign-in."""

    id: str
    password: str


def _people(call: Call) -> People:
    if call.deps.people is None:
        raise NotFound("no accounts of people here; programs have tokens")
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


async def _list(call: Call) -> Any:
    return listing.page_of(call, [_row(person) for person in _people(call).list(call.principal)], PersonRow, "id")


async def _one(call: Call) -> Any:
    return _row(_people(call).get(call.path("person"), call.principal))


async def _add(call: Call) -> Any:
    people = _people(call)
    wanted = await call.body(NewPerson)
    scope = _scope(call, wanted.scope, wanted.department)
    password, person = await people.create(wanted.id, Role(wanted.role), scope, by=call.principal, title=wanted.title)
    return InitialPassword(person.id, password)


async def _change(call: Call) -> Any:
    people = _people(call)
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


async def _reset(call: Call) -> Any:
    person_id = call.path("person")
    return InitialPassword(person_id, await _people(call).reset(person_id, by=call.principal))


async def _remove(call: Call) -> Any:
    await _people(call).remove(call.path("person"), by=call.principal)
    return web.Response(status=204)


_CHANGE = Action.CHANGE_PEOPLE
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/people",
        handler=_list,
        summary="Accounts of people in the caller's scope.",
        tag="people",
        action=_CHANGE,
        query=listing.params(PersonRow),
        response=list[PersonRow],
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/people",
        handler=_add,
        summary="Make an account, of a level below the caller's own; its first password is shown this once.",
        tag="people",
        action=_CHANGE,
        body=NewPerson,
        response=InitialPassword,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=f"{API}/people/{{person}}",
        handler=_one,
        summary="One account; everybody's own.",
        tag="people",
        response=PersonRow,
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=f"{API}/people/{{person}}",
        handler=_change,
        summary="Change an account; open sessions have it at once.",
        tag="people",
        action=_CHANGE,
        body=PersonChange,
        response=PersonRow,
        errors=(404, 409, 412, 428),
    ),
    Route(
        method="POST",
        path=f"{API}/people/{{person}}/password",
        handler=_reset,
        summary="Give an account a new first password; its sessions end.",
        tag="people",
        action=_CHANGE,
        response=InitialPassword,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=f"{API}/people/{{person}}",
        handler=_remove,
        summary="End an account for good; its name is not given again.",
        tag="people",
        action=_CHANGE,
        status=204,
        errors=(404, 409),
    ),
)
