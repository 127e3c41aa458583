"""REST routes of moves of devices from one gateway of the province to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from sensegate.authority.scope import Action
from sensegate.tiers.move_records import MoveOptions, MoveRecord
from sensegate.tiers.move_register import MoveRegister
from sensegate.web import listing
from sensegate.web.bodies import Body, DeviceId, Division
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

Gateway = Annotated[
    str,
    msgspec.Meta(
        pattern="^[0-9]{2,12}(-[a-z0-9]+)*$", max_length=32, description="id of a node, or the division of the centre"
    ),
]


class MoveRequest(Body, frozen=True):
    """Request to move a device."""

    device: DeviceId
    target: Gateway
    """Gateway to which it moves: the id of a node (`4401`, `4401-port`), or the province for the centre itself."""
    division: Division
    """Division of the device after the move."""
    source: Gateway | msgspec.UnsetType = msgspec.UNSET
    """Gateway that it leaves; by default it is looked up."""
    force: bool = False
    """The source has left or was expelled: the entry moves as it is known here. The answer says what is lost."""
    keep_credential: bool = False
    """With `force`: the source no longer runs, so the credential stays valid; else the device needs a new one."""


class MoveCancellation(Body, frozen=True):
    """Options of a cancellation."""

    force: bool = False
    """The target has left or was expelled, so whether it has the device is unknown."""
    keep_credential: bool = False
    """With `force`: the target no longer runs, so the credential stays valid; else the device needs a new one."""


class MoveRow(msgspec.Struct, frozen=True):
    """A move of a device."""

    id: str
    device: str
    source: str
    target: str
    division: str
    stage: str
    """``asked``, ``carried``, ``taken``, ``done``; ``recalled``, ``sent_back``, ``refused``, ``cancelled``."""
    reason: str
    """Reason why it was refused or cancelled, or does not go on."""
    identities: int
    """Number of readings whose identities moved along: a repetition of one is a duplicate at the target, too."""
    by: str
    requested: str
    changed: str
    not_carried: str
    """State that a forced move has lost."""
    owed: str
    """Orders that a gateway gets when it is back, so that never two gateways accept the device."""


def _row(move: MoveRecord) -> MoveRow:
    return MoveRow(
        move.id,
        move.device,
        move.source,
        move.target,
        move.division,
        move.stage.value,
        "; ".join(filter(None, (move.reason, move.problem))),
        move.identities,
        move.by,
        iso(move.requested_at),
        iso(move.changed_at),
        str(move.forced) if move.forced else "",
        move.owed,
    )


MOVES = PartKey[MoveRegister]("moves", absent="this gateway is not a centre; request moves at the centre")
GATEWAYS = PartKey[Callable[[], list[str]]](
    "gateways", absent="this gateway is not a centre; request moves at the centre"
)
"""Returns the divisions of all gateways between which devices move."""


async def _list(call: Call) -> listing.RowPage[MoveRow]:
    """List the moves of devices from one gateway to another."""
    return listing.page_of(call, [_row(move) for move in call.part(MOVES).all(call.principal)], MoveRow, "id")


async def _show(call: Call) -> MoveRow:
    """Show one move."""
    return _row(call.part(MOVES).get(call.path("move"), call.principal))


async def _request(call: Call) -> MoveRow:
    """Move a device to another gateway with its entry, its credential and the identities of its readings."""
    body = await call.body(MoveRequest)
    source = "" if body.source is msgspec.UNSET else body.source
    return _row(
        await call.part(MOVES).request(
            body.device,
            body.target,
            body.division,
            by=call.principal,
            gateways=call.part(GATEWAYS)(),
            options=MoveOptions(source, body.force, body.keep_credential),
        )
    )


async def _cancel(call: Call) -> MoveRow:
    """Cancel a move. The device stays, or returns, where it was."""
    body = await call.body(MoveCancellation)
    return _row(
        await call.part(MOVES).cancel(
            call.path("move"), by=call.principal, force=body.force, keep_credential=body.keep_credential
        )
    )


ROUTES = tagged(
    "nodes",
    Route("GET", f"{API}/moves", _list, action=Action.READ_REGISTRY, query=listing.params(MoveRow), errors=(404,)),
    Route("GET", f"{API}/moves/{{move}}", _show, action=Action.READ_REGISTRY, errors=(404,)),
    Route(
        "POST", f"{API}/moves", _request, action=Action.CHANGE_DEVICES, body=MoveRequest, status=201, errors=(404, 409)
    ),
    Route(
        "POST",
        f"{API}/moves/{{move}}/cancellation",
        _cancel,
        action=Action.CHANGE_DEVICES,
        body=MoveCancellation,
        errors=(404, 409),
    ),
)
