"""REST routes of the return flow by files, for networks with an air gap; connected nodes need no request."""

from __future__ import annotations

import hashlib
from typing import Protocol

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, demand
from sensegate.authority.trail import Facts
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route


class ReturnProgress(msgspec.Struct, frozen=True):
    """Result of an import, and the position of this node."""

    rows: int
    """Number of rows; 0: the file was imported before."""
    cursor: str
    """Position of this node: the next file must start there or before."""


class ReturnTransfer(Protocol):
    """Return flow by files, at a node or at a centre."""

    async def export(self, division: str, epoch: str, after: int) -> tuple[bytes, str]:
        """Return a signed file of the rows that go back to a node after a position, and the position where it ends."""
        ...

    async def place(self) -> str:
        """Return the position of this node."""
        ...

    async def take(self, file: bytes) -> tuple[int, str]:
        """Import a file; return (number of rows, position)."""
        ...


RETURNS = PartKey[ReturnTransfer]("returns", absent="this gateway has no return flow")


def _transfer(call: Call) -> ReturnTransfer:
    return call.part(RETURNS)


async def _export(call: Call) -> web.StreamResponse:
    """Export a signed file of the rows that go back to a node after a position (centre)."""
    division = call.deps.divisions.check(call.path("division"))[0]
    demand(call.principal, Action.CHANGE_NODES, division)
    epoch, _, after = call.text("after").rpartition(":")
    if after and not (after.isascii() and after.isdigit() and len(after) < 20 and epoch):
        raise BadRequest(
            f"query: after: '{call.text('after')[:60]}' is no place; `sensegate return offset` at the node says it"
        )
    body, until = await _transfer(call).export(division, epoch, int(after or 0))
    await call.deps.audit.record(call.principal, "return.export", division, after={"until": until})
    name = f"return-{division}-{until.rpartition(':')[2]}.sgr"
    return web.Response(
        body=body,
        content_type="application/vnd.sensegate.return",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Cursor": until},
    )


async def _place(call: Call) -> ReturnProgress:
    """Show the position of this node in the return flow of its centre."""
    demand(call.principal, Action.READ_LEDGER, call.deps.division)
    return ReturnProgress(0, await _transfer(call).place())


async def _import(call: Call) -> ReturnProgress:
    """Import a signed file of the centre. A file that was imported before changes nothing."""
    demand(call.principal, Action.CHANGE_FEEDS, call.deps.division)
    transfer, file = _transfer(call), await call.raw_body()
    # Before the import, by its content: what the file holds is known only when it is taken.
    facts: Facts = {"size": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    await call.deps.audit.record(call.principal, "return.import", call.deps.division, after=facts)
    rows, position = await transfer.take(file)
    return ReturnProgress(rows, position)


ROUTES = tagged(
    "nodes",
    Route(
        "GET",
        f"{API}/returns/{{division}}",
        _export,
        action=Action.CHANGE_NODES,
        query=(QueryParam("after", "place of the node: `cursor` of its returns/place; default: all that is kept"),),
        media=("application/vnd.sensegate.return",),
        errors=(404, 410),
    ),
    Route("GET", f"{API}/returns/place", _place, action=Action.READ_LEDGER, errors=(404,)),
    Route(
        "POST",
        f"{API}/returns",
        _import,
        action=Action.CHANGE_FEEDS,
        raw="application/octet-stream",
        errors=(404, 409, 413),
    ),
)
