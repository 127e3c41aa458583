"""Who calls: a bearer token, a person's session, or a device's own credential. Guessing is slowed by address.

A session in a cookie goes with every request of the browser, whoever made the page that asks: so a change by cookie
needs the session's CSRF text beside it, and a request of another page is refused by its `Origin`.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from urllib.parse import urlsplit

from aiohttp import web

from sensegate import metrics
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.clock import Clock
from sensegate.errors import Overloaded, PermissionDenied
from sensegate.model import Device
from sensegate.web.deps import Deps

FAILURES_MAX = 20
"""So many wrong credentials of one address within `WINDOW_S`; then it waits."""
WINDOW_S = 60.0
_ADDRESSES_MAX = 10_000
CSRF = "X-CSRF-Token"
BACKGROUND = "X-Background"
"""Sent by a page that asks by itself, again and again: it does not keep an idle session alive."""
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


class Guesses:
    """Wrong credentials by address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def demand_patience(self, address: str) -> None:
        """Return unless the address has failed too often. Raises `Overloaded`."""
        began, count = self._failures.get(address, (0.0, 0))
        left = began + WINDOW_S - self._clock.monotonic()
        if count >= FAILURES_MAX and left > 0:
            metrics.LIMIT_HITS.labels("http_guesses").inc()
            raise Overloaded("too many wrong credentials from your address", retry_after_s=left)

    def failed(self, address: str) -> None:
        """Note a wrong credential."""
        metrics.PERMISSION_DENIED.labels("http").inc()
        now = self._clock.monotonic()
        began, count = self._failures.pop(address, (now, 0))
        self._failures[address] = (began, count + 1) if now - began < WINDOW_S else (now, 1)
        while len(self._failures) > _ADDRESSES_MAX:
            self._failures.popitem(last=False)


def caller(request: web.Request, deps: Deps, guesses: Guesses) -> Principal:
    """Return whom the request's bearer token or session proves.

    Raises:
        PermissionDenied: none, or a wrong, revoked or expired one; by cookie: a page of others, or without the CSRF
            text.
        Overloaded: too many wrong ones before.
    """
    scheme, credential = _authorization(request)
    cookie = request.cookies.get(cookie_name(deps), "") if deps.people and not scheme else ""
    if scheme != "bearer" and not cookie:
        raise PermissionDenied("send `Authorization: Bearer TOKEN`", authenticated=False)
    address = request.remote or ""
    guesses.demand_patience(address)
    try:
        if deps.people and (cookie or credential.startswith("ss_")):
            used = BACKGROUND not in request.headers
            principal, session = deps.people.verify(cookie or credential, used=used)
        else:
            return deps.tokens.verify(credential)
    except PermissionDenied:
        guesses.failed(address)
        raise
    if cookie:
        demand_own_page(request)
        if request.method not in _SAFE and not session.is_csrf_token(request.headers.get(CSRF, "")):
            raise PermissionDenied(
                f"a change by cookie needs the session's csrf text in {CSRF}; GET /api/v1/session tells it"
            )
    return principal


def good(principal: Principal, deps: Deps) -> bool:
    """Return whether what proved a caller before still does; ask it of open streams, at least every second."""
    if principal.person:
        return deps.people is not None and deps.people.is_valid(principal)
    return deps.tokens.is_valid(principal)


def cookie_name(deps: Deps) -> str:
    """Return the name of the session's cookie: one that no neighbour domain can set, where there is TLS."""
    return "__Host-sensegate" if deps.secure else "sensegate"


def demand_own_page(request: web.Request) -> None:
    """Return unless a page of others made the browser ask. Raises `PermissionDenied`."""
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
    if foreign or request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise PermissionDenied("a page of another origin may not use this session")


def device(request: web.Request, name: str, deps: Deps, guesses: Guesses) -> tuple[Device, Principal]:
    """Return the device `name` if the request carries its own credential (Basic id:password, or Bearer password).

    Raises:
        PermissionDenied: wrong credential, disabled or unknown device (not told apart), or that of another device.
        Overloaded: too many wrong ones before.
    """
    scheme, credential = _authorization(request)
    address = request.remote or ""
    guesses.demand_patience(address)
    user, password = name, credential
    if scheme == "basic":
        try:
            user, _, password = base64.b64decode(credential, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
    verified = deps.devices.verify(user, password) if scheme in {"basic", "bearer"} else None
    if verified is None:
        guesses.failed(address)
        raise PermissionDenied("the device's own credential is asked for: Basic id:password", authenticated=False)
    proved, _ = verified
    if name != proved.id:
        # A gateway may push for the devices behind it.
        at = deps.devices.find(name)
        target = deps.devices.record(at) if at >= 0 else None
        if target is None or proved.id not in target.gateways or not deps.devices.enabled[at]:
            metrics.PERMISSION_DENIED.labels("http").inc()
            raise PermissionDenied(f"{proved.id} may not send for another device")
        return target, Principal(proved.id, Role.DEVICE, Scope(proved.division))
    return proved, Principal(proved.id, Role.DEVICE, Scope(proved.division))


def _authorization(request: web.Request) -> tuple[str, str]:
    values = request.headers.getall("Authorization", [])
    if len(values) != 1 or len(values[0]) > 1_000:
        return "", ""
    scheme, _, credential = values[0].partition(" ")
    return scheme.lower(), credential.strip()
