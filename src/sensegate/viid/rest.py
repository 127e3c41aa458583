"""REST resources of GA/T 1400: registrations, superior and subordinate platforms, subscriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from sensegate.authority.scope import Action
from sensegate.errors import PermissionDenied
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso


class Registration(msgspec.Struct, frozen=True):
    """A registered camera or platform."""

    device: str
    address: str
    since: str
    last: str
    requests: int
    objects: int
    clock_behind_s: float | None
    """Delay of its clock against ours, including transit; null: unknown. The standard allows 1 s."""


class SuperiorSubscription(msgspec.Struct, frozen=True):
    """A subscription of a superior platform."""

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


class SuperiorStatus(msgspec.Struct, frozen=True):
    """A superior platform."""

    name: str
    server_id: str
    registered: bool
    problem: str


class SubordinateStatus(msgspec.Struct, frozen=True):
    """A subordinate platform, and the subscription there."""

    device: str
    subscription: str
    in_force: bool
    cancelled: bool
    problem: str


class ViidStatus(msgspec.Struct, frozen=True):
    """The state of GA/T 1400 at this gateway."""

    server_id: str
    registrations: list[Registration]
    superiors: list[SuperiorStatus]
    subscriptions: list[SuperiorSubscription]
    subordinates: list[SubordinateStatus]


class ViidControl(Protocol):
    """The operations of the VIID feature."""

    def status(self) -> ViidStatus:
        """Return the state of registrations, platforms and subscriptions."""
        ...

    async def cancel(self, device: str) -> SubordinateStatus:
        """Cancel the subscription at a subordinate platform. Raises `NotFound`."""
        ...

    async def renew(self, device: str) -> SubordinateStatus:
        """Renew the subscription at a subordinate platform. Raises `NotFound`."""
        ...


VIID = PartKey[ViidControl]("viid", absent="GA/T 1400 is off; set viid.server_id")


def registration(session: Any, code: str) -> Registration:
    """Return a session (`viid.sessions.ViidSession`) as a row."""
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


def _control(call: Call) -> ViidControl:
    control = call.part(VIID)
    if not call.principal.scope.covers(call.deps.division):
        raise PermissionDenied("platforms concern the whole gateway, but your scope is only a part of it")
    return control


async def _status(call: Call) -> ViidStatus:
    """Registrations, platforms and subscriptions by GA/T 1400 (VIID)."""
    return _control(call).status()


async def _cancel(call: Call) -> SubordinateStatus:
    """Cancel the subscription at a subordinate platform."""
    control = _control(call)
    name = call.path("device")
    await call.deps.audit.record(call.principal, "viid.cancel", name)
    return await control.cancel(name)


async def _renew(call: Call) -> SubordinateStatus:
    """Renew the subscription at a subordinate platform; objects in between are not sent."""
    control = _control(call)
    name = call.path("device")
    await call.deps.audit.record(call.principal, "viid.renew", name)
    return await control.renew(name)


ROUTES: Sequence[Route] = tagged(
    "video",
    Route("GET", f"{API}/viid", _status, action=Action.READ_REGISTRY, errors=(404,)),
    Route("POST", f"{API}/viid/subordinates/{{device}}/cancel", _cancel, action=Action.CHANGE_DEVICES, errors=(404,)),
    Route("POST", f"{API}/viid/subordinates/{{device}}/renew", _renew, action=Action.CHANGE_DEVICES, errors=(404,)),
)
