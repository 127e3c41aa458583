"""REST routes of refused parts of spans, and of an operator's actions on a node's uplink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound
from sensegate.tiers.protocol import Lane, RefusedPart
from sensegate.tiers.rest_nodes import row_of
from sensegate.tiers.uplink import RefusedSpan
from sensegate.web.bodies import Body, Text
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

DEVICES_SHOWN = 20
"""Most devices of a refused part in an answer."""
PartId = Annotated[str, msgspec.Meta(max_length=32, pattern="^[0-9a-f]+$")]


class UplinkOperations(Protocol):
    """An operator's actions on a node's uplink, see `tiers.uplink.Uplink`."""

    resent: dict[str, str]
    """Id of a refused part that was sent again -> its outcome."""

    async def refused_parts(self) -> list[RefusedPart]:
        """Return the parts that the centre refused and that can be sent again."""
        ...

    async def resend(self, ids: Sequence[str] = ()) -> list[RefusedPart]:
        """Queue refused parts to be sent again; return those that wait now."""
        ...

    def refused_span(self, lane: Lane) -> RefusedSpan:
        """Return the refused span of a lane. Raises `Conflict` where there is none."""
        ...

    def skip(self, span: RefusedSpan) -> None:
        """Skip a refused span. Raises `Conflict` where it is no longer refused."""
        ...

    def take_over(self) -> None:
        """Claim the lanes by force, even if another copy of this store has sent spans."""
        ...


class RefusedRow(msgspec.Struct, frozen=True):
    """A part of spans that the centre refused."""

    id: str
    kind: str
    grade: int
    reason: str
    rows: int
    spans: int
    """Number of consecutive spans that had it."""
    at: str
    """Time when the first part was refused."""
    detail: str
    devices: list[str]
    """Devices whose rows are refused, at most 20; empty: all rows of the kind and grade are."""
    devices_count: int
    lane: str
    after: int
    until: int
    """The rows come from the entries (after, until] of the node's log."""
    size: int
    digest: str
    """SHA-256 (hex) of the first refused part."""
    outcome: str = ""
    """Outcome when it was sent again; empty: it was not."""


class RefusedRows(msgspec.Struct, frozen=True):
    """The parts that can be sent again."""

    rows: list[RefusedRow]


class ResendRequest(Body, frozen=True):
    """Selection of refused parts to be sent again."""

    ids: Annotated[list[PartId], msgspec.Meta(max_length=500)] = msgspec.field(default_factory=list)
    """Ids of the parts; empty: all."""


class ResendQueue(msgspec.Struct, frozen=True):
    """Number of parts that wait to be sent again."""

    waiting: int


class SkipRequest(Body, frozen=True):
    """Lane whose refused span is skipped."""

    lane: Literal["live", "backlog"]
    note: Text = ""


class SkippedSpan(msgspec.Struct, frozen=True):
    """The span that is skipped."""

    lane: str
    reason: str
    after: int
    until: int


class TakeoverRequest(Body, frozen=True):
    """Request that this store takes over the lanes."""

    note: Text = ""


class TakeoverAnswer(msgspec.Struct, frozen=True):
    """Answer while the lanes are being claimed; `/readyz` shows whether the claim was granted."""

    claiming: bool = True


UPLINK = PartKey[Callable[[], UplinkOperations]]("uplink", absent="this gateway is not a node and has no uplink")
REFUSED = PartKey[Callable[[str], Awaitable[Sequence[RefusedPart]]]]("refused", absent="this gateway is not a centre")
"""Member -> its refused parts."""
REFUSED_BODY = PartKey[Callable[[str, str], Awaitable[bytes | None]]](
    "refused_body", absent="this gateway is not a centre"
)
"""(member, id of a refused part) -> its first body; None: it is not stored."""


def _row(part: RefusedPart, outcome: str = "") -> RefusedRow:
    selection = part.selection
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
        selection.after,
        selection.until,
        part.size,
        part.digest,
        outcome,
    )


async def _refused(call: Call) -> RefusedRows:
    """List the parts that the centre refused and that can be sent again (node)."""
    demand(call.principal, Action.READ_LEDGER, call.deps.division)
    uplink = call.part(UPLINK)()
    return RefusedRows([_row(part, uplink.resent.get(part.id, "")) for part in await uplink.refused_parts()])


async def _refused_of(call: Call) -> RefusedRows:
    """List the refused parts of a node that it can send again (centre)."""
    row = row_of(call, call.path("member"))
    # The answer names devices of all divisions and departments of the node.
    demand(call.principal, Action.READ_LEDGER, row.division)
    return RefusedRows([_row(part) for part in await call.part(REFUSED)(row.member)])


async def _body(call: Call) -> web.StreamResponse:
    """Download the first body of a refused part (centre)."""
    row = row_of(call, call.path("member"))
    demand(call.principal, Action.READ_QUARANTINE, row.division)
    part_id = call.path("id")
    body = await call.part(REFUSED_BODY)(row.member, part_id)
    if body is None:
        raise NotFound(f"the body of {part_id[:32]} is not stored; it was too large, or has expired")
    await call.deps.audit.record(call.principal, "node.refused.read", row.member, after={"part": part_id})
    return web.Response(body=body, content_type="application/octet-stream")


async def _resend(call: Call) -> ResendQueue:
    """Send refused parts again, after their cause was fixed at the centre (node)."""
    body = await call.body(ResendRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    uplink = call.part(UPLINK)()
    await call.deps.audit.record(call.principal, "uplink.resend", call.deps.division, after={"ids": body.ids})
    return ResendQueue(len(await uplink.resend(body.ids)))


async def _skip(call: Call) -> SkippedSpan:
    """Skip a span that the centre refuses as a whole. Its rows are counted as skipped (node)."""
    body = await call.body(SkipRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    uplink = call.part(UPLINK)()
    span = uplink.refused_span(Lane(body.lane))
    facts = {"lane": body.lane, "after": span.after, "until": span.until, "reason": span.reason}
    await call.deps.audit.record(call.principal, "uplink.skip", call.deps.division, after={**facts, "note": body.note})
    uplink.skip(span)
    return SkippedSpan(body.lane, span.reason, span.after, span.until)


async def _take_over(call: Call) -> TakeoverAnswer:
    """Let this store take over from another copy of it, which is denied from then on (node)."""
    body = await call.body(TakeoverRequest)
    demand(call.principal, Action.CHANGE_NODES, call.deps.division)
    uplink = call.part(UPLINK)()
    await call.deps.audit.record(call.principal, "uplink.takeover", call.deps.division, after={"note": body.note})
    uplink.take_over()
    return TakeoverAnswer()


ROUTES = tagged(
    "nodes",
    Route("GET", f"{API}/uplink/refused", _refused, action=Action.READ_LEDGER, errors=(404, 409)),
    Route("GET", f"{API}/nodes/{{member}}/refused", _refused_of, action=Action.READ_LEDGER, errors=(404,)),
    Route(
        "GET",
        f"{API}/nodes/{{member}}/refused/{{id}}",
        _body,
        action=Action.READ_QUARANTINE,
        media=("application/octet-stream",),
        errors=(404,),
    ),
    Route("POST", f"{API}/uplink/resend", _resend, action=Action.CHANGE_NODES, body=ResendRequest, errors=(404, 409)),
    Route("POST", f"{API}/uplink/skip", _skip, action=Action.CHANGE_NODES, body=SkipRequest, errors=(404, 409)),
    Route(
        "POST",
        f"{API}/uplink/takeover",
        _take_over,
        action=Action.CHANGE_NODES,
        body=TakeoverRequest,
        errors=(404, 409),
    ),
)
