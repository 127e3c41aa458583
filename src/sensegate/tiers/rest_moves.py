"""REST: moves of devices from one gateway of the province to another."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sensegate.authority.scope import Action
from sensegate.ports import PartKey
from sensegate.tiers.move_register import MoveRecord, MoveRegister
from sensegate.web import listing
from sensegate.web.bodies import Body, DeviceId, Division
from sensegate.web.routing import API, Call, Route, iso


class MoveRequest(Body, frozen=True):
    """A device to be moved."""

    device: DeviceId
    target: Division
    """Division of the gateway to which it goes: a city, or the province for the centre itself."""
    division: Division
    """Where it stands from then on."""
    source: Division | msgspec.UnsetType = msgspec.UNSET
    """Of the gateway that it leaves; looked for where it is left out."""
    force: bool = False
    """That gateway has left or was expelled: the entry goes as it is known here. What does not go is in the answer."""
    keep_credential: bool = False
    """With `force`: that gateway runs no more, so the credential stays good; else the device needs a new one."""


class MoveCancellation(Body, frozen=True):
    """How a move is called off."""

    force: bool = False
    """The target has left or was expelled, and nobody can tell whether it took the device."""
    keep_credential: bool = False
    """With `force`: that gateway runs no more, so the credential stays good; else the device needs a new one."""


class MoveRow(msgspec.Struct, frozen=True):
    """One move."""

    id: str
    device: str
    source: str
    target: str
    division: str
    stage: str
    """``asked``, ``carried``, ``taken``, ``done``; ``recalled``, ``sent_back``, ``refused``, ``cancelled``."""
    reason: str
    identities: int
    """Readings whose identity went along: the same again is a duplicate there too."""
    by: str
    requested: str
    changed: str
    not_carried: str
    """Of a forced move: what did not go along."""
    owed: str
    """What a gateway is told to do when it is back, so that never two take the device."""


def _row(move: MoveRecord) -> MoveRow:
    return MoveRow(
        move.id,
        move.device,
        move.source,
        move.target,
        move.division,
        move.stage.value,
        move.reason,
        move.identities,
        move.by,
        iso(move.requested_at),
        iso(move.changed_at),
        str(move.forced) if move.forced else "",
        move.owed,
    )


MOVES = PartKey[MoveRegister]("moves", absent="this gateway is no centre: moves are ordered at the centre")
GATEWAYS = PartKey[Callable[[], list[str]]](
    "gateways", absent="this gateway is no centre: moves are ordered at the centre"
)
"""Returns the divisions of all gateways between which devices move."""


async def _list(call: Call) -> listing.RowPage[MoveRow]:
    return listing.page_of(call, [_row(move) for move in call.part(MOVES).all(call.principal)], MoveRow, "id")


async def _one(call: Call) -> MoveRow:
    return _row(call.part(MOVES).get(call.path("move"), call.principal))


async def _ask(call: Call) -> MoveRow:
    wanted = await call.body(MoveRequest)
    source = "" if wanted.source is msgspec.UNSET else wanted.source
    return _row(
        await call.part(MOVES).request(
            wanted.device,
            wanted.target,
            wanted.division,
            by=call.principal,
            source=source,
            gateways=call.part(GATEWAYS)(),
            force=wanted.force,
            keep_credential=wanted.keep_credential,
        )
    )


async def _cancel(call: Call) -> MoveRow:
    wanted = await call.body(MoveCancellation)
    return _row(
        await call.part(MOVES).cancel(
            call.path("move"), by=call.principal, force=wanted.force, keep_credential=wanted.keep_credential
        )
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/moves",
        handler=_list,
        summary="Moves of devices from one gateway to another.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        query=listing.params(MoveRow),
        response=list[MoveRow],
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/moves/{{move}}",
        handler=_one,
        summary="One move.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        response=MoveRow,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/moves",
        handler=_ask,
        summary="Move a device to another gateway, with its entry, its credential and the state that tells duplicates.",
        tag="nodes",
        action=Action.CHANGE_DEVICES,
        body=MoveRequest,
        response=MoveRow,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/moves/{{move}}/cancellation",
        handler=_cancel,
        summary="Call a move off: the device stays, or returns, where it was.",
        tag="nodes",
        action=Action.CHANGE_DEVICES,
        body=MoveCancellation,
        response=MoveRow,
        errors=(404, 409),
    ),
)
