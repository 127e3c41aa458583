"""REST: what the centre refused of a node, and what an operator of the node does about its uplink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound
from sensegate.ports import PartKey
from sensegate.tiers.protocol import Lane, RefusedPart
from sensegate.tiers.rest_nodes import row_of
from sensegate.tiers.uplink import RefusedSpan
from sensegate.web.bodies import Body, Text
from sensegate.web.routing import API, Call, Route, iso

DEVICES_SHOWN = 20
PartId = Annotated[str, msgspec.Meta(max_length=32, pattern="^[0-9a-f]+$")]


class UplinkOperations(Protocol):
    """A node's uplink, as its operator sees it (`tiers.uplink.Uplink`)."""

    resent: dict[str, str]
    """Id of a refused part that was sent once more -> what became of it."""

    async def refused_parts(self) -> list[RefusedPart]:
        """Return what the centre refused and may be sent once more."""
        ...

    async def resend(self, ids: Sequence[str] = ()) -> list[RefusedPart]:
        """Send refused parts once more; return those that wait now."""
        ...

    def skip(self, lane: Lane) -> RefusedSpan:
        """Go past the span of a lane that is refused as a whole."""
        ...

    def take_over(self) -> None:
        """Claim the lanes whatever another copy of this store has sent."""
        ...


class RefusedRow(msgspec.Struct, frozen=True):
    """A part of spans that the centre did not take."""

    id: str
    kind: str
    grade: int
    reason: str
    rows: int
    spans: int
    """So many spans that followed each other had it."""
    at: str
    """When the first one came."""
    detail: str
    devices: list[str]
    """Whose rows they are, at most 20; empty: all rows of the kind and grade."""
    devices_count: int
    lane: str
    after: int
    until: int
    """They are of the entries (after, until] of the node's log."""
    size: int
    digest: str
    """SHA-256 (hex) of the first one."""
    outcome: str = ""
    """What became of it when it was sent once more; empty: it was not."""


class RefusedRows(msgspec.Struct, frozen=True):
    """All that may be sent once more."""

    rows: list[RefusedRow]


class ResendRequest(Body, frozen=True):
    """What is to be sent once more."""

    ids: Annotated[list[PartId], msgspec.Meta(max_length=500)] = msgspec.field(default_factory=list)
    """None: all."""


class ResendQueue(msgspec.Struct, frozen=True):
    """What waits to be sent once more."""

    waiting: int


class SkipRequest(Body, frozen=True):
    """Which span is passed."""

    lane: Literal["live", "backlog"]
    note: Text = ""


class SkippedSpan(msgspec.Struct, frozen=True):
    """The span that is passed."""

    lane: str
    reason: str
    after: int
    until: int


class TakeoverRequest(Body, frozen=True):
    """Why this store is to go on."""

    note: Text = ""


class TakeoverAnswer(msgspec.Struct, frozen=True):
    """The lanes are being claimed; `/readyz` says whether it was granted."""

    claiming: bool = True


UPLINK = PartKey[Callable[[], UplinkOperations]]("uplink", absent="this gateway is no node: it sends nothing up")
REFUSED = PartKey[Callable[[str], Awaitable[Sequence[RefusedPart]]]]("refused", absent="this gateway is no centre")
"""Member -> what was refused of it."""
REFUSED_BODY = PartKey[Callable[[str, str], Awaitable[bytes | None]]](
    "refused_body", absent="this gateway is no centre"
)
"""(member, id) -> what was refused first."""


def _row(part: RefusedPart, outcome: str = "") -> RefusedRow:
    made = part.selection
    return RefusedRow(
        part.id,
        part.kind.value,
        part.grade,
        part.reason,
        part.rows,
        part.spans,
        iso(part.refused_at),
        part.detail,
        list(part.devices[:DEVICES_SHOWN]),
        len(part.devices),
        part.lane.value,
        made.after,
        made.until,
        part.size,
        part.digest,
        outcome,
    )


async def _refused(call: Call) -> RefusedRows:
    demand(call.principal, Action.READ_LEDGER, call.deps.division)
    desk = call.part(UPLINK)()
    return RefusedRows([_row(part, desk.resent.get(part.id, "")) for part in await desk.refused_parts()])


async def _refused_of(call: Call) -> RefusedRows:
    row = row_of(call, call.path("member"))
    # It names devices of all places and departments of the node.
    demand(call.principal, Action.READ_LEDGER, row.division)
    return RefusedRows([_row(part) for part in await call.part(REFUSED)(row.member)])


async def _body(call: Call) -> web.StreamResponse:
    row = row_of(call, call.path("member"))
    demand(call.principal, Action.READ_QUARANTINE, row.division)
    part_id = call.path("id")
    body = await call.part(REFUSED_BODY)(row.member, part_id)
    if body is None:
        raise NotFound(f"no body of {part_id[:32]} is kept: it was too large, or its time is over")
    await call.deps.audit.record(call.principal, "node.refused.read", row.member, after={"part": part_id})
    return web.Response(body=body, content_type="application/octet-stream")


async def _resend(call: Call) -> ResendQueue:
    wanted = await call.body(ResendRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    desk = call.part(UPLINK)()
    await call.deps.audit.record(call.principal, "uplink.resend", call.deps.division, after={"ids": wanted.ids})
    return ResendQueue(len(await desk.resend(wanted.ids)))


async def _skip(call: Call) -> SkippedSpan:
    wanted = await call.body(SkipRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    desk = call.part(UPLINK)()
    stuck = desk.skip(Lane(wanted.lane))
    facts = {"lane": wanted.lane, "after": stuck.after, "until": stuck.until, "reason": stuck.reason}
    await call.deps.audit.record(
        call.principal, "uplink.skip", call.deps.division, after={**facts, "note": wanted.note}
    )
    return SkippedSpan(wanted.lane, stuck.reason, stuck.after, stuck.until)


async def _take_over(call: Call) -> TakeoverAnswer:
    wanted = await call.body(TakeoverRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    desk = call.part(UPLINK)()
    await call.deps.audit.record(call.principal, "uplink.takeover", call.deps.division, after={"note": wanted.note})
    desk.take_over()
    return TakeoverAnswer()


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/uplink/refused",
        handler=_refused,
        summary="What the centre did not take of this node and may be sent once more (node).",
        tag="nodes",
        action=Action.READ_LEDGER,
        response=RefusedRows,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}/refused",
        handler=_refused_of,
        summary="What was not taken of a node and may be sent once more by it (centre).",
        tag="nodes",
        action=Action.READ_LEDGER,
        response=RefusedRows,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}/refused/{{id}}",
        handler=_body,
        summary="What was refused first of an entry of the list, as it came (centre).",
        tag="nodes",
        action=Action.READ_QUARANTINE,
        media=("application/octet-stream",),
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/uplink/resend",
        handler=_resend,
        summary="Send refused parts once more, once the centre was mended (node).",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=ResendRequest,
        response=ResendQueue,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/uplink/skip",
        handler=_skip,
        summary="Go past a span that the centre refuses as a whole; its rows are counted as skipped (node).",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=SkipRequest,
        response=SkippedSpan,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/uplink/takeover",
        handler=_take_over,
        summary="Let this store go on although another copy of it has sent; the other one is refused then (node).",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=TakeoverRequest,
        response=TakeoverAnswer,
        errors=(404, 409),
    ),
)
