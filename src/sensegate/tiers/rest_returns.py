"""REST: return flow by files, for networks with an air gap; the connected way needs no request."""

from __future__ import annotations

from typing import Protocol

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, demand
from sensegate.ports import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, QueryParam, Route


class ReturnProgress(msgspec.Struct, frozen=True):
    """What a file brought."""

    rows: int
    """0: it was taken before."""
    cursor: str
    """Place to which this node has come: the next file must begin there or before."""


class ReturnTransfer(Protocol):
    """Return flow by files, at a node or at a centre."""

    async def export(self, division: str, life: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of what goes back to a node after a place, and where it ends."""
        ...

    async def place(self) -> str:
        """Return how far this node has come."""
        ...

    async def take(self, file: bytes) -> tuple[int, str]:
        """Take a file; return (rows, place)."""
        ...


RETURNS = PartKey[ReturnTransfer]("returns", absent="no return flow here")


def _desk(call: Call) -> ReturnTransfer:
    return call.part(RETURNS)


async def _export(call: Call) -> web.StreamResponse:
    division = call.deps.divisions.check(call.path("division"))[0]
    demand(call.principal, Action.CHANGE_NODES, division)
    life, _, after = call.text("after").rpartition(":")
    if after and not (after.isascii() and after.isdigit() and len(after) < 20 and life):
        raise BadRequest(
            f"query: after: '{call.text('after')[:60]}' is no place; `sensegate return offset` at the node says it"
        )
    body, until = await _desk(call).export(division, life, int(after or 0))
    await call.deps.audit.record(call.principal, "return.export", division, after={"until": until})
    name = f"return-{division}-{until.rpartition(':')[2]}.sgr"
    return web.Response(
        body=body,
        content_type="application/vnd.sensegate.return",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Cursor": until},
    )


async def _place(call: Call) -> ReturnProgress:
    demand(call.principal, Action.READ_LEDGER, call.deps.division)
    return ReturnProgress(0, await _desk(call).place())


async def _import(call: Call) -> ReturnProgress:
    demand(call.principal, Action.CHANGE_FEEDS, call.deps.division)
    rows, place = await _desk(call).take(await call.raw_body())
    await call.deps.audit.record(
        call.principal, "return.import", call.deps.division, after={"rows": rows, "until": place}
    )
    return ReturnProgress(rows, place)


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/returns/{{division}}",
        handler=_export,
        summary="A signed file of what goes back to a node, after a place (centre).",
        tag="nodes",
        action=Action.CHANGE_NODES,
        query=(QueryParam("after", "place of the node: `cursor` of its returns/place; default: all that is kept"),),
        media=("application/vnd.sensegate.return",),
        errors=(404, 410),
    ),
    Route(
        method="GET",
        path=f"{API}/returns/place",
        handler=_place,
        summary="The place to which this node has come in what its centre gives back.",
        tag="nodes",
        action=Action.READ_LEDGER,
        response=ReturnProgress,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/returns",
        handler=_import,
        summary="Take a signed file of the centre; one that was taken before changes nothing.",
        tag="nodes",
        action=Action.CHANGE_FEEDS,
        raw="application/octet-stream",
        response=ReturnProgress,
        errors=(404, 409, 413),
    ),
)
