"""REST: signing in and out, as a person: with a password, or by way of a provider of identities."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.people import People, SignInResult
from sensegate.authority.scope import Principal
from sensegate.errors import NotFound, PermissionDenied
from sensegate.web import auth
from sensegate.web.bodies import Body
from sensegate.web.routing import API, Call, Param, Route, iso

_BINDING = "sensegate-sign-in"
_CALLBACK = f"{API}/session/oidc/callback"


class SignIn(Body, frozen=True):
    """Who signs in."""

    name: str
    password: str
    new_password: str = ""
    """Changes the password on the way; asked for with the first one and when it is too old."""
    bearer: bool = False
    """True: answer with a text to send as `Authorization: Bearer`, and set no cookie."""


class PasswordChange(Body, frozen=True):
    """A new password."""

    old: str
    new: str


class SessionRow(msgspec.Struct, frozen=True):
    """The session of a person."""

    id: str
    """``person:NAME``, as it stands in the audit trail."""
    name: str
    role: str
    scope: str
    department: str
    csrf: str
    """To be sent as X-CSRF-Token with every change that is proved by the cookie."""
    ends: str
    """At the latest; sooner when nothing is asked."""
    token: str = ""
    """With `bearer`: the session's text, told this once."""


class Ways(msgspec.Struct, frozen=True):
    """How people may sign in here."""

    password: bool
    provider: str
    """The provider of identities; empty: none."""


def _people(call: Call) -> People:
    if call.deps.people is None:
        raise NotFound("people do not sign in here; programs have tokens")
    return call.deps.people


def _row(call: Call, principal: Principal, csrf: str, left_s: float, token: str = "") -> SessionRow:
    place = principal.scope
    ends = iso(call.deps.clock.now() + round(left_s * 1e6))
    return SessionRow(principal.id, principal.name, principal.role, place.division, place.department, csrf, ends, token)


def _opened(call: Call, done: SignInResult) -> tuple[SessionRow, str]:
    people = _people(call)
    principal = people.principal(done.session)
    if principal is None:
        raise PermissionDenied("the account was ended meanwhile", authenticated=False)
    return _row(call, principal, done.session.csrf, people.sessions.left_s(done.session)), done.token


def _with_cookie(call: Call, response: web.StreamResponse, text: str) -> None:
    """Set the session's cookie; Strict: no page of others makes the browser send it."""
    response.set_cookie(
        auth.cookie_name(call.deps), text, path="/", httponly=True, secure=call.deps.secure, samesite="Strict"
    )


async def _ways(call: Call) -> Any:
    return Ways(call.deps.people is not None, call.deps.oidc.issuer if call.deps.oidc else "")


async def _sign_in(call: Call) -> Any:
    people = _people(call)
    wanted = await call.body(SignIn)
    auth.demand_own_page(call.request)
    address = call.request.remote or ""
    call.guesses.demand_patience(address)
    try:
        done = await people.sign_in(wanted.name, wanted.password, new_password=wanted.new_password)
    except PermissionDenied as why:
        if not why.authenticated:
            call.guesses.failed(address)
        raise
    row, text = _opened(call, done)
    if wanted.bearer:
        return msgspec.structs.replace(row, token=text)
    response = web.Response(body=msgspec.json.encode(row), content_type="application/json", status=201)
    _with_cookie(call, response, text)
    return response


async def _session(call: Call) -> Any:
    people = _people(call)
    session = people.sessions.find_id(call.principal.session)
    if session is None:
        raise NotFound("no session: the caller is a program")
    return _row(call, call.principal, session.csrf, people.sessions.left_s(session))


async def _sign_out(call: Call) -> Any:
    if not call.principal.person:
        raise NotFound("no session: the caller is a program")
    await _people(call).sign_out(call.principal)
    response = web.Response(status=204)
    response.del_cookie(auth.cookie_name(call.deps), path="/", secure=call.deps.secure, httponly=True)
    return response


async def _password(call: Call) -> Any:
    wanted = await call.body(PasswordChange)
    await _people(call).change_password(call.principal, wanted.old, wanted.new)
    return web.Response(status=204)


async def _begin(call: Call) -> Any:
    _people(call)
    if call.deps.oidc is None:
        raise NotFound("no provider of identities here; sign in with a password")
    begun = await call.deps.oidc.begin()
    response = web.Response(status=303, headers={"Location": begun.url})
    # Lax: the browser comes back from the provider's page, and must bring this one along.
    response.set_cookie(
        _BINDING,
        begun.binding,
        path=_CALLBACK,
        httponly=True,
        secure=call.deps.secure,
        samesite="Lax",
        max_age=600,
    )
    return response


async def _callback(call: Call) -> Any:
    people = _people(call)
    if call.deps.oidc is None:
        raise NotFound("no provider of identities here; sign in with a password")
    address = call.request.remote or ""
    call.guesses.demand_patience(address)
    if error := call.text("error"):
        raise PermissionDenied(f"the provider refused: {error[:100]}", authenticated=False)
    try:
        identity = await call.deps.oidc.finish(
            state=call.text("state"),
            binding=call.request.cookies.get(_BINDING, ""),
            code=call.text("code"),
            issuer=call.text("iss"),
        )
        done = await people.sign_in_external(identity)
    except PermissionDenied as why:
        if not why.authenticated:
            call.guesses.failed(address)
        raise
    _, text = _opened(call, done)
    response = web.Response(status=303, headers={"Location": "/"})
    _with_cookie(call, response, text)
    response.del_cookie(_BINDING, path=_CALLBACK, secure=call.deps.secure, httponly=True)
    return response


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/session/ways",
        call=_ways,
        what="How people may sign in here.",
        tag="people",
        token=False,
        answer=Ways,
    ),
    Route(
        method="POST",
        path=f"{API}/session",
        call=_sign_in,
        what="Sign in as a person, for a cookie or a bearer text.",
        tag="people",
        token=False,
        body=SignIn,
        answer=SessionRow,
        status=201,
        errors=(401, 403, 404, 429),
    ),
    Route(
        method="GET",
        path=f"{API}/session",
        call=_session,
        what="The session of the caller, with its CSRF text.",
        tag="people",
        answer=SessionRow,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{API}/session",
        call=_sign_out,
        what="Sign out; open streams of the session end within 2 s.",
        tag="people",
        status=204,
        errors=(404,),
    ),
    Route(
        method="PUT",
        path=f"{API}/session/password",
        call=_password,
        what="Change the own password; all other sessions of the caller end.",
        tag="people",
        body=PasswordChange,
        status=204,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/session/oidc",
        call=_begin,
        what="Go to the provider of identities to sign in there.",
        tag="people",
        token=False,
        status=303,
        media=("text/plain",),
        errors=(404, 429),
    ),
    Route(
        method="GET",
        path=_CALLBACK,
        call=_callback,
        what="Where the provider of identities sends the browser back to.",
        tag="people",
        token=False,
        status=303,
        media=("text/plain",),
        query=(
            Param("code", "of the provider"),
            Param("state", "of the sign-in that was begun"),
            Param("iss", "the provider's name"),
            Param("session_state", "of the provider; not used"),
            Param("error", "why the provider refused"),
            Param("error_description", "the same, for people; not shown"),
            Param("error_uri", "the same"),
        ),
        errors=(401, 403, 404, 429),
    ),
)
