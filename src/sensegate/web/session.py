"""REST: sign-in and sign-out of people, by password or identity provider."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.people import SignInResult
from sensegate.authority.scope import Principal
from sensegate.errors import NotFound, PermissionDenied
from sensegate.web import auth
from sensegate.web.bodies import Body
from sensegate.web.people import accounts
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

_BINDING = "sensegate-sign-in"
_CALLBACK = f"{API}/session/oidc/callback"


class SignIn(Body, frozen=True):
    """Credentials of a sign-in."""

    name: str
    password: str
    new_password: str = ""
    """Changes the password; required at the first sign-in and when it has expired."""
    bearer: bool = False
    """True: return a token for `Authorization: Bearer` instead of a cookie."""


class PasswordChange(Body, frozen=True):
    """Change of the own password."""

    old: str
    new: str


class SessionRow(msgspec.Struct, frozen=True):
    """Session of a person."""

    id: str
    """Id in the audit trail, ``person:NAME``."""
    name: str
    role: str
    scope: str
    department: str
    csrf: str
    """CSRF token, to be sent as X-CSRF-Token with every change authenticated by cookie."""
    ends: str
    """Latest end of the session; an idle one ends sooner."""
    token: str = ""
    """With `bearer`: the token of the session, shown only once."""


class SignInMethods(msgspec.Struct, frozen=True):
    """Sign-in methods of this gateway."""

    password: bool
    provider: str
    """Issuer of the identity provider; empty: none."""


def _row(call: Call, principal: Principal, csrf: str, left_s: float, token: str = "") -> SessionRow:
    place = principal.scope
    ends = iso(call.deps.clock.now() + round(left_s * 1e6))
    return SessionRow(principal.id, principal.name, principal.role, place.division, place.department, csrf, ends, token)


def _opened(call: Call, done: SignInResult) -> tuple[SessionRow, str]:
    people = accounts(call)
    principal = people.principal(done.session)
    if principal is None:
        raise PermissionDenied("the account was deleted meanwhile", authenticated=False)
    return _row(call, principal, done.session.csrf, people.sessions.left_s(done.session)), done.token


def set_session_cookie(call: Call, response: web.StreamResponse, text: str) -> None:
    """Set the session cookie, SameSite=Strict: foreign pages cannot make the browser send it."""
    response.set_cookie(
        auth.cookie_name(call.deps), text, path="/", httponly=True, secure=call.deps.is_secure, samesite="Strict"
    )


async def _methods(call: Call) -> SignInMethods:
    """Get the sign-in methods of this gateway."""
    return SignInMethods(call.deps.people is not None, call.deps.oidc.issuer if call.deps.oidc else "")


async def _sign_in(call: Call) -> SessionRow | web.Response:
    """Sign in as a person, for a cookie or a bearer token."""
    people = accounts(call)
    wanted = await call.body(SignIn)
    auth.demand_same_origin(call.request)
    done = await people.sign_in(wanted.name, wanted.password, new_password=wanted.new_password, address=call.address)
    row, text = _opened(call, done)
    if wanted.bearer:
        return msgspec.structs.replace(row, token=text)
    response = web.Response(body=msgspec.json.encode(row), content_type="application/json", status=201)
    set_session_cookie(call, response, text)
    return response


async def open_by_form(call: Call, name: str, password: str, new_password: str) -> str:
    """Open a session of a person; return the text of its cookie. Raises as the sign-in of the API."""
    done = await accounts(call).sign_in(name, password, new_password=new_password, address=call.address)
    _, text = _opened(call, done)
    return text


async def _session(call: Call) -> SessionRow:
    """Get the session of the caller, with its CSRF token."""
    people = accounts(call)
    session = people.sessions.find_id(call.principal.session)
    if session is None:
        raise NotFound("there is no session: the caller uses a token")
    return _row(call, call.principal, session.csrf, people.sessions.left_s(session))


async def _sign_out(call: Call) -> web.Response:
    """Sign out; open streams of the session end within 2 s."""
    if not call.principal.person:
        raise NotFound("there is no session: the caller uses a token")
    await accounts(call).sign_out(call.principal)
    response = web.Response(status=204)
    response.del_cookie(auth.cookie_name(call.deps), path="/", secure=call.deps.is_secure, httponly=True)
    return response


async def _password(call: Call) -> web.Response:
    """Change the password of the caller; all other sessions of the caller end."""
    wanted = await call.body(PasswordChange)
    await accounts(call).change_password(call.principal, wanted.old, wanted.new, address=call.address)
    return web.Response(status=204)


async def _begin(call: Call) -> web.StreamResponse:
    """Redirect to the identity provider for sign-in."""
    accounts(call)
    if call.deps.oidc is None:
        raise NotFound("this gateway has no identity provider; sign in with a password")
    started = await call.deps.oidc.begin(call.address)
    response = web.Response(status=303, headers={"Location": started.url})
    # Lax: the browser must send this cookie when it returns from the provider's page.
    response.set_cookie(
        _BINDING,
        started.binding,
        path=_CALLBACK,
        httponly=True,
        secure=call.deps.is_secure,
        samesite="Lax",
        max_age=600,
    )
    return response


async def _callback(call: Call) -> web.StreamResponse:
    """Callback of the identity provider after sign-in."""
    people = accounts(call)
    if call.deps.oidc is None:
        raise NotFound("this gateway has no identity provider; sign in with a password")
    if error := call.text("error"):
        raise PermissionDenied(f"the identity provider rejected the sign-in: {error[:100]}", authenticated=False)
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
            call.auth_failures.record("oidc", call.address)
        raise
    _, text = _opened(call, done)
    response = web.Response(status=303, headers={"Location": "/console/"})
    set_session_cookie(call, response, text)
    response.del_cookie(_BINDING, path=_CALLBACK, secure=call.deps.is_secure, httponly=True)
    return response


ROUTES = tagged(
    "people",
    Route("GET", f"{API}/session/methods", _methods, token=False, is_essential=True),
    Route(
        "POST",
        f"{API}/session",
        _sign_in,
        token=False,
        is_essential=True,
        body=SignIn,
        status=201,
        errors=(401, 403, 404, 429),
    ),
    Route("GET", f"{API}/session", _session, errors=(404,)),
    Route("DELETE", f"{API}/session", _sign_out, status=204, errors=(404,)),
    Route("PUT", f"{API}/session/password", _password, body=PasswordChange, status=204, errors=(404,)),
    Route(
        "GET",
        f"{API}/session/oidc",
        _begin,
        token=False,
        is_essential=True,
        status=303,
        media=("text/plain",),
        errors=(404, 429),
    ),
    Route(
        "GET",
        _CALLBACK,
        _callback,
        token=False,
        is_essential=True,
        status=303,
        media=("text/plain",),
        query=(
            QueryParam("code", "authorization code"),
            QueryParam("state", "state of the sign-in"),
            QueryParam("iss", "issuer"),
            QueryParam("session_state", "sent by some providers; ignored"),
            QueryParam("error", "error of the provider"),
            QueryParam("error_description", "description of the error; ignored"),
            QueryParam("error_uri", "page about the error; ignored"),
        ),
        errors=(401, 403, 404, 429),
    ),
)
