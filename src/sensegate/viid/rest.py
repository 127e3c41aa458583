"""REST: who has registered by GA/T 1400, the platforms above and below, and their subscriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from sensegate.authority.scope import Action
from sensegate.errors import PermissionDenied
from sensegate.ports import PartKey
from sensegate.web.routing import API, Call, Route, iso


class Registration(msgspec.Struct, frozen=True):
    """A camera or platform that has registered here."""

    device: str
    address: str
    since: str
    last: str
    requests: int
    objects: int
    clock_behind_s: float | None
    """By how much its clock is behind ours, transit included; null: not known. The standard allows 1 s."""


class Subscription(msgspec.Struct, frozen=True):
    """A subscription of a platform above."""

    superior: str
    id: str
    kinds: list[str]
    resources: list[str]
    status: int
    """0 active, 1 cancelled, 2 expired."""
    until: str
    """Empty: without end."""
    objects: int
    notifications: int


class Above(msgspec.Struct, frozen=True):
    """A platform above."""

    name: str
    server_id: str
    registered: bool
    trouble: str


class Below(msgspec.Struct, frozen=True):
    """A platform below, and our subscription there."""

    device: str
    subscription: str
    in_force: bool
    cancelled: bool
    trouble: str


class Told(msgspec.Struct, frozen=True):
    """All of it."""

    server_id: str
    registrations: list[Registration]
    above: list[Above]
    subscriptions: list[Subscription]
    below: list[Below]


class ViidDesk(Protocol):
    """What the wiring offers."""

    def told(self) -> Told:
        """Return the state of everything."""
        ...

    async def cancel(self, device: str) -> Below:
        """Cancel our subscription at a platform below. Raises `NotFound`."""
        ...

    async def renew(self, device: str) -> Below:
        """Subscribe there again. Raises `NotFound`."""
        ...


VIID = PartKey[ViidDesk]("viid", absent="GA/T 1400 is not spoken here; set viid.server_id")


def registration(session: Any, code: str) -> Registration:
    """Return a session (`viid_sessions.Session`) as a row."""
    behind = session.offset_us
    return Registration(
        code,
        session.address,
        iso(session.since),
        iso(session.last),
        session.requests,
        session.objects,
        None if behind is None else behind / 1e6,
    )


def _desk(call: Call) -> ViidDesk:
    desk = call.part(VIID)
    if not call.principal.scope.covers(call.deps.division):
        raise PermissionDenied("platforms are a matter of the whole gateway; your scope is a part of it")
    return desk


async def _told(call: Call) -> Told:
    return _desk(call).told()


async def _cancel(call: Call) -> Below:
    desk = _desk(call)
    name = call.path("device")
    await call.deps.audit.record(call.principal, "viid.cancel", name)
    return await desk.cancel(name)


async def _renew(call: Call) -> Below:
    desk = _desk(call)
    name = call.path("device")
    await call.deps.audit.record(call.principal, "viid.renew", name)
    return await desk.renew(name)


ROUTES: Sequence[Route] = (
    Route(
        method="GET",
        path=f"{API}/viid",
        handler=_told,
        summary="Registrations, platforms and subscriptions by GA/T 1400 (VIID).",
        tag="video",
        action=Action.READ_REGISTRY,
        response=Told,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/viid/below/{{device}}/cancel",
        handler=_cancel,
        summary="Cancel our subscription at a platform below.",
        tag="video",
        action=Action.CHANGE_DEVICES,
        response=Below,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/viid/below/{{device}}/renew",
        handler=_renew,
        summary="Subscribe at a platform below again; what was seen meanwhile is not sent.",
        tag="video",
        action=Action.CHANGE_DEVICES,
        response=Below,
        errors=(404,),
    ),
)
