"""Authentication: bearer tokens, sessions of people, credentials of devices.

A wrong secret slows down its own id at its address; a right one is never refused for failures of others.

A browser sends the session cookie with every request, whatever page makes it: a change authenticated by cookie
therefore needs the CSRF token of the session, and a request of a foreign page is rejected by its `Origin`.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import urlsplit

from aiohttp import web

from sensegate import metrics
from sensegate.authority.attempts import FailedAttempts
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.errors import PermissionDenied
from sensegate.model import Device
from sensegate.web.addresses import client_address
from sensegate.web.deps import WebDependencies

CSRF = "X-CSRF-Token"
BACKGROUND = "X-Background"
"""Header of periodic requests of a page, which do not keep an idle session alive."""
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def caller(request: web.Request, deps: WebDependencies, failures: FailedAttempts) -> Principal:
    """Return the principal of the request's bearer token (clients of InfluxDB call it ``Token``) or session.

    Raises:
        PermissionDenied: none, or a wrong, revoked or expired one; by cookie: a page of others, or without the CSRF
            text.
        Overloaded: it is wrong, as were too many before it.
    """
    scheme, credential = _authorization(request)
    cookie = request.cookies.get(cookie_name(deps), "") if deps.people and not scheme else ""
    if scheme not in {"bearer", "token"} and not cookie:
        raise PermissionDenied("send `Authorization: Bearer TOKEN`", authenticated=False)
    try:
        if deps.people and (cookie or credential.startswith("ss_")):
            used = BACKGROUND not in request.headers
            principal, session = deps.people.verify(cookie or credential, used=used)
        else:
            return deps.tokens.verify(credential)
    except PermissionDenied:
        parts = (cookie or credential).split("_", 2)
        caller_id = parts[1] if parts[0] in {"sg", "ss"} and len(parts) == 3 else ""
        failures.record(caller_id, client_address(request, deps.config))
        raise
    if cookie:
        demand_same_origin(request)
        if request.method not in _SAFE and not session.is_csrf_token(request.headers.get(CSRF, "")):
            raise PermissionDenied(f"a change by cookie needs the CSRF token in {CSRF}; GET /api/v1/session returns it")
    return principal


def is_valid(principal: Principal, deps: WebDependencies) -> bool:
    """Return whether the credential of a caller is still valid; open streams check it at least every second."""
    if principal.person:
        return deps.people is not None and deps.people.is_valid(principal)
    return deps.tokens.is_valid(principal)


def cookie_name(deps: WebDependencies) -> str:
    """Return the name of the session cookie; with TLS one that no sibling domain can set."""
    return "__Host-sensegate" if deps.is_secure else "sensegate"


def demand_same_origin(request: web.Request) -> None:
    """Return if the request is not made by a foreign page. Raises `PermissionDenied`."""
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
    if foreign or request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise PermissionDenied("pages of other origins may not use this session")


def device_of(
    request: web.Request, name: str, deps: WebDependencies, failures: FailedAttempts
) -> tuple[Device, Principal]:
    """Return the device `name` if the request has its credential.

    It is Basic id:password, Bearer password, or as clients of InfluxDB send it: Token id:password, Token password.

    Raises:
        PermissionDenied: wrong credential, disabled or unknown device (not distinguished), or that of another device.
        Overloaded: it is wrong, as were too many before it.
    """
    scheme, credential = _authorization(request)
    user, password = name, credential
    if scheme == "basic":
        try:
            user, _, password = base64.b64decode(credential, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
    elif scheme == "token" and ":" in credential:
        user, _, password = credential.partition(":")
    verified = deps.devices.verify(user, password) if scheme in {"basic", "bearer", "token"} else None
    if verified is None:
        failures.record(f"device {user}", client_address(request, deps.config))
        raise PermissionDenied("send the credential of the device: Basic id:password", authenticated=False)
    authenticated, _ = verified
    if name != authenticated.id:
        # A device gateway may send for the devices behind it.
        index = deps.devices.find(name)
        target = deps.devices.record(index) if index >= 0 else None
        if target is None or authenticated.id not in target.gateways or not deps.devices.enabled[index]:
            metrics.PERMISSION_DENIED.labels("http").inc()
            raise PermissionDenied(f"{authenticated.id} may not send for {name[:64]}")
        return target, Principal(authenticated.id, Role.DEVICE, Scope(authenticated.division))
    return authenticated, Principal(authenticated.id, Role.DEVICE, Scope(authenticated.division))


def _authorization(request: web.Request) -> tuple[str, str]:
    values = request.headers.getall("Authorization", [])
    if len(values) != 1 or len(values[0]) > 1_000:
        return "", ""
    scheme, _, credential = values[0].partition(" ")
    return scheme.lower(), credential.strip()
