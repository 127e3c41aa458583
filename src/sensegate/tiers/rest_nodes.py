"""REST: the nodes of a centre: who they are and how they are; inviting, joining, leaving, expelling them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound, PermissionDenied
from sensegate.ports import PartKey
from sensegate.tiers.gaps import GapReport
from sensegate.tiers.members import AREAS_MAX, CODE_LIFE_S, JoinAnswer, JoinRequest, Members, NodeMember
from sensegate.tiers.node_rows import NodeRow
from sensegate.web import listing
from sensegate.web.bodies import Body, Division, Text
from sensegate.web.routing import API, Call, Route, iso

MemberName = Annotated[str, msgspec.Meta(max_length=32, pattern="^[a-z0-9-]*$")]


Areas = Annotated[list[Division], msgspec.Meta(max_length=AREAS_MAX)]


class Invitation(Body, frozen=True):
    """A node to be invited."""

    division: Division
    member: MemberName = ""
    """Id of the node, where its city has several; empty: the code of the city."""
    areas: Areas = msgspec.field(default_factory=list)
    """Divisions of which it may send readings, each with all below it; none: its city, or those that it has."""
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=2_592_000)] = CODE_LIFE_S
    replace: bool = False
    """For a node in place of the present one (new hardware), which goes on until the other joins."""
    note: Text = ""


class NewAreas(Body, frozen=True):
    """Other areas of a node."""

    areas: Areas
    """Divisions of which it may send readings, each with all below it."""
    note: Text = ""


class JoinCode(msgspec.Struct, frozen=True):
    """A code by which a node joins: shown this once."""

    member: str
    division: str
    code: str
    until: str


class LeaveRequest(Body, frozen=True):
    """The node's own word."""

    secret: Annotated[str, msgspec.Meta(max_length=200)]


class Expulsion(Body, frozen=True):
    """Why."""

    note: Text = ""


_NO_CENTRE = "this gateway is no centre: nodes join a centre"
NODES = PartKey[Callable[[], Sequence[NodeRow]]]("nodes", absent="this gateway lists no nodes")
"""Returns the nodes that this gateway knows, itself first."""
MEMBERS = PartKey[Members]("members", absent=_NO_CENTRE)
JOIN = PartKey[Callable[[str, str, str], Awaitable[JoinAnswer]]]("join", absent=_NO_CENTRE)
"""(code, release, epoch of the node's log): admits a node."""
GAPS = PartKey[Callable[[str], Awaitable[Sequence[GapReport]]]]("gaps", absent=_NO_CENTRE)
"""Division -> what did not come of a node's lost stores."""


def _members(call: Call) -> Members:
    return call.part(MEMBERS)


async def _nodes(call: Call) -> listing.RowPage[NodeRow]:
    return listing.page_of(call, _rows(call), NodeRow, "member")


def _rows(call: Call) -> list[NodeRow]:
    scope = call.principal.scope.division
    return [row for row in call.part(NODES)() if row.division.startswith(scope) or scope.startswith(row.division)]


async def _node(call: Call) -> NodeRow:
    return row_of(call, call.path("member"))


def row_of(call: Call, member: str) -> NodeRow:
    """Return a node's line. Raises `NotFound` where it is not in the caller's scope."""
    for row in _rows(call):
        if row.member == member:
            return row
    raise NotFound(f"no node {member[:32]} in your scope")


async def _invite(call: Call) -> JoinCode:
    wanted = await call.body(Invitation)
    code, member = await _members(call).invite(
        wanted.division,
        by=call.principal,
        member=wanted.member,
        areas=wanted.areas,
        life_s=wanted.expires_s,
        replace=wanted.replace,
        note=wanted.note,
    )
    return JoinCode(member.id, member.division, code, iso(member.code_until))


async def _join(call: Call) -> JoinAnswer:
    join = call.part(JOIN)
    asked = await call.body(JoinRequest)
    address = call.request.remote or ""
    call.auth_failures.demand_not_blocked(address)
    try:
        return await join(asked.code, asked.version, asked.log_epoch)
    except PermissionDenied as why:
        if not why.authenticated:
            call.auth_failures.record(address)
        raise


async def _leave(call: Call) -> MembershipRow:
    said = await call.body(LeaveRequest)
    members = _members(call)
    address = call.request.remote or ""
    call.auth_failures.demand_not_blocked(address)
    try:
        return _membership_row(await members.leave(call.path("member"), said.secret))
    except PermissionDenied:
        call.auth_failures.record(address)
        raise


async def _expel(call: Call) -> MembershipRow:
    said = await call.body(Expulsion)
    return _membership_row(await _members(call).expel(call.path("member"), by=call.principal, note=said.note))


async def _set_areas(call: Call) -> MembershipRow:
    said = await call.body(NewAreas)
    members = _members(call)
    return _membership_row(await members.set_areas(call.path("member"), said.areas, by=call.principal, note=said.note))


class MissingRow(msgspec.Struct, frozen=True):
    """What of one device did not come."""

    device: str
    runs: list[tuple[int, int]]
    """(first, last) sequence numbers of which no reading came."""
    count: int
    restarted: bool
    """It began to count anew meanwhile: what it sent before is not known."""


class GapRow(msgspec.Struct, frozen=True):
    """What did not come because a node was lost with its store."""

    since: str
    """When the last span that came of the lost store was made."""
    until: str
    """When the node in its place joined."""
    pending: int
    """Entries of its log that were waiting in its backlog besides."""
    missing: int
    """Messages that devices which number them sent and that did not come."""
    devices: list[MissingRow]


async def _gaps(call: Call) -> GapRows:
    row = row_of(call, call.path("member"))
    # It names devices of all places and departments of the node.
    demand(call.principal, Action.READ_LEDGER, row.division)
    gaps_of = call.part(GAPS)
    rows = [
        GapRow(
            iso(gap.since),
            iso(gap.until),
            gap.pending,
            gap.missing,
            [MissingRow(lost.device, lost.runs, lost.count, lost.restarted) for lost in gap.devices],
        )
        for gap in await gaps_of(row.member)
    ]
    return GapRows(rows)


class GapRows(msgspec.Struct, frozen=True):
    """All of a node."""

    rows: list[GapRow]


class MembershipRow(msgspec.Struct, frozen=True):
    """Where a node stands with its centre."""

    member: str
    division: str
    state: str
    generation: int
    changed: str
    note: str = ""
    areas: list[str] = []


def _membership_row(member: NodeMember) -> MembershipRow:
    return MembershipRow(
        member.id,
        member.division,
        member.state.value,
        member.generation,
        iso(member.changed),
        member.note,
        list(member.areas),
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/nodes",
        handler=_nodes,
        summary="The nodes that this gateway knows: state, lag, release, load, counts, clock.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        query=listing.params(NodeRow),
        response=list[NodeRow],
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}",
        handler=_node,
        summary="One node.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        response=NodeRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}/gaps",
        handler=_gaps,
        summary="What did not come of a node that was lost with its store: the time, and numbers where devices count.",
        tag="nodes",
        action=Action.READ_LEDGER,
        response=GapRows,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes",
        handler=_invite,
        summary="Invite the node of a city, or one in its place: a code that is shown this once and works once.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=Invitation,
        response=JoinCode,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/join",
        handler=_join,
        summary="A node joins by its code; what it is told is told this once.",
        tag="nodes",
        token=False,
        body=JoinRequest,
        response=JoinAnswer,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/{{member}}/leave",
        handler=_leave,
        summary="A node leaves, by the secret of its link.",
        tag="nodes",
        token=False,
        body=LeaveRequest,
        response=MembershipRow,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/{{member}}/expel",
        handler=_expel,
        summary="Expel a node, or take its invitation back: its rights end and its connection is closed within 2 s.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=Expulsion,
        response=MembershipRow,
        errors=(404, 409),
    ),
    Route(
        method="PUT",
        path=f"{API}/nodes/{{member}}/areas",
        handler=_set_areas,
        summary="Give a node other areas: divisions of which it may send readings; others are refused from now on.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=NewAreas,
        response=MembershipRow,
        errors=(404, 409),
    ),
)
