"""REST routes of device owners, and of devices that two nodes send."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound
from sensegate.tiers.ownership import DeviceOwners
from sensegate.tiers.rest_nodes import MEMBERS
from sensegate.web.bodies import Body
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

OWNERS = PartKey[DeviceOwners]("owners", absent="this gateway is not a centre")


class NewOwner(Body, frozen=True):
    """New owner of a device."""

    member: Annotated[str, msgspec.Meta(max_length=32, pattern="^[a-z0-9-]+$")]


class OwnerRow(msgspec.Struct, frozen=True):
    """The owner of a device."""

    device: str
    owner: str


class ConflictRow(msgspec.Struct, frozen=True):
    """A device that a node sent although another node owns it; its rows were refused."""

    device: str
    owner: str
    sent_by: str
    at: str


class ConflictRows(msgspec.Struct, frozen=True):
    """The newest conflicts since the process started."""

    rows: list[ConflictRow]


def _owners(call: Call) -> DeviceOwners:
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    return call.part(OWNERS)


async def _conflicts(call: Call) -> ConflictRows:
    """List the devices that a node sent although another node owns them, newest first."""
    return ConflictRows(
        [
            ConflictRow(conflict.device, conflict.owner, conflict.sent_by, iso(conflict.sent_at))
            for conflict in _owners(call).conflicts()
        ]
    )


async def _owner(call: Call) -> OwnerRow:
    """Show which node owns a device: the first that sent it, or the one to which it moved."""
    device = call.path("device")
    owner = _owners(call).owner(device)
    if not owner:
        raise NotFound(f"the device {device[:64]} was never sent by a node")
    return OwnerRow(device, owner)


async def _assign(call: Call) -> OwnerRow:
    """Set which node owns a device, where the wrong one was the first to send it. Audited."""
    body = await call.body(NewOwner)
    owners = _owners(call)
    call.part(MEMBERS).demand_known(body.member)
    transfer = await owners.assign(call.path("device"), body.member, by=call.principal)
    return OwnerRow(transfer.device, transfer.owner)


ROUTES = tagged(
    "nodes",
    Route("GET", f"{API}/device-owners", _conflicts, action=Action.CHANGE_NODES, errors=(404,)),
    Route("GET", f"{API}/device-owners/{{device}}", _owner, action=Action.CHANGE_NODES, errors=(404,)),
    Route(
        "PUT", f"{API}/device-owners/{{device}}", _assign, action=Action.CHANGE_NODES, body=NewOwner, errors=(404, 409)
    ),
)
