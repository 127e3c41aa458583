"""REST routes of a centre's nodes: their status, inviting, joining, leaving, expelling, areas, gaps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound, PermissionDenied
from sensegate.tiers.gaps import GapReport
from sensegate.tiers.members import AREAS_MAX, CODE_LIFE_S, JoinAnswer, JoinRequest, Members, NodeMember
from sensegate.tiers.node_rows import NodeRow
from sensegate.web import listing
from sensegate.web.bodies import Body, Division, Text
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

MemberName = Annotated[str, msgspec.Meta(max_length=32, pattern="^[a-z0-9-]*$")]
Areas = Annotated[list[Division], msgspec.Meta(max_length=AREAS_MAX)]


class Invitation(Body, frozen=True):
    """Invitation of a node."""

    division: Division
    member: MemberName = ""
    """Id of the node, where its city has several; empty: the code of the city."""
    areas: Areas = msgspec.field(default_factory=list)
    """Divisions whose readings it may send, each with all below it; none: those that it has, at first its city."""
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=2_592_000)] = CODE_LIFE_S
    replace: bool = False
    """True if the code is for a node that replaces the present one (new hardware), which works until then."""
    note: Text = ""


class NewAreas(Body, frozen=True):
    """New areas of a node."""

    areas: Areas
    """Divisions whose readings it may send, each with all below it."""
    note: Text = ""


class JoinCode(msgspec.Struct, frozen=True):
    """A join code, shown only in this answer."""

    member: str
    division: str
    code: str
    until: str


class LeaveRequest(Body, frozen=True):
    """Request of a node to leave, with the secret of its link."""

    secret: Annotated[str, msgspec.Meta(max_length=200)]


class Expulsion(Body, frozen=True):
    """Reason of an expulsion."""

    note: Text = ""


_NO_CENTRE = "this gateway is not a centre; nodes join a centre"
NODES = PartKey[Callable[[], Sequence[NodeRow]]]("nodes", absent="this gateway lists no nodes")
"""Returns the nodes that this gateway knows, itself first."""
MEMBERS = PartKey[Members]("members", absent=_NO_CENTRE)
JOIN = PartKey[Callable[[str, str, str], Awaitable[JoinAnswer]]]("join", absent=_NO_CENTRE)
"""Admits a node: (join code, release, epoch of the node's log) -> the answer."""
GAPS = PartKey[Callable[[str], Awaitable[Sequence[GapReport]]]]("gaps", absent=_NO_CENTRE)
"""Member -> the gaps of its lost stores."""


def _members(call: Call) -> Members:
    return call.part(MEMBERS)


async def _nodes(call: Call) -> listing.RowPage[NodeRow]:
    """List the nodes that this gateway knows: state, lag, release, load, counts, clock."""
    return listing.page_of(call, _rows(call), NodeRow, "member")


def _rows(call: Call) -> list[NodeRow]:
    scope = call.principal.scope.division
    return [row for row in call.part(NODES)() if row.division.startswith(scope) or scope.startswith(row.division)]


async def _node(call: Call) -> NodeRow:
    """Show one node."""
    return row_of(call, call.path("member"))


def row_of(call: Call, member: str) -> NodeRow:
    """Return the row of a node. Raises `NotFound` where it is not in the caller's scope."""
    for row in _rows(call):
        if row.member == member:
            return row
    raise NotFound(f"there is no node {member[:32]} in your scope")


async def _invite(call: Call) -> JoinCode:
    """Invite the node of a city, or one that replaces it. The join code is shown only here and works once."""
    invitation = await call.body(Invitation)
    code, member = await _members(call).invite(
        invitation.division,
        by=call.principal,
        member=invitation.member,
        areas=invitation.areas,
        life_s=invitation.expires_s,
        replace=invitation.replace,
        note=invitation.note,
    )
    return JoinCode(member.id, member.division, code, iso(member.code_until))


async def _join(call: Call) -> JoinAnswer:
    """Join as a node with a join code. The credential of the link is shown only here."""
    join = call.part(JOIN)
    request = await call.body(JoinRequest)
    try:
        return await join(request.code, request.version, request.log_epoch)
    except PermissionDenied as why:
        if not why.authenticated:
            call.auth_failures.record("join", call.address)
        raise


async def _leave(call: Call) -> MembershipRow:
    """Leave as a node, with the secret of its link."""
    body = await call.body(LeaveRequest)
    members = _members(call)
    try:
        return _membership_row(await members.leave(call.path("member"), body.secret))
    except PermissionDenied:
        call.auth_failures.record(f"node {call.path('member')}", call.address)
        raise


async def _expel(call: Call) -> MembershipRow:
    """Expel a node, or withdraw its invitation. Its connections are closed within 2 s."""
    body = await call.body(Expulsion)
    return _membership_row(await _members(call).expel(call.path("member"), by=call.principal, note=body.note))


async def _set_areas(call: Call) -> MembershipRow:
    """Set the areas of a node, the divisions whose readings it may send; others are refused from now on."""
    body = await call.body(NewAreas)
    members = _members(call)
    return _membership_row(await members.set_areas(call.path("member"), body.areas, by=call.principal, note=body.note))


class MissingRow(msgspec.Struct, frozen=True):
    """Messages of one device that are missing at the centre."""

    device: str
    runs: list[tuple[int, int]]
    """(first, last) sequence numbers of which no reading came."""
    count: int
    restarted: bool
    """True if the device restarted its numbering meanwhile, so that the number of missing messages is unknown."""


class GapRow(msgspec.Struct, frozen=True):
    """A gap in a node's readings, because the node was lost with its store."""

    since: str
    """Time of the last span from the lost store."""
    until: str
    """Time when the replacing node joined."""
    pending: int
    """Entries that still waited in the backlog of the lost store."""
    missing: int
    """Missing messages of devices that number them."""
    devices: list[MissingRow]


async def _gaps(call: Call) -> GapRows:
    """List the gaps of a node that was lost with its store: times, and missing sequence numbers of devices."""
    row = row_of(call, call.path("member"))
    # The answer names devices of all divisions and departments of the node.
    demand(call.principal, Action.READ_LEDGER, row.division)
    gaps_of = call.part(GAPS)
    rows = [
        GapRow(
            iso(gap.since),
            iso(gap.until),
            gap.pending,
            gap.missing,
            [MissingRow(device.device, device.runs, device.count, device.restarted) for device in gap.devices],
        )
        for gap in await gaps_of(row.member)
    ]
    return GapRows(rows)


class GapRows(msgspec.Struct, frozen=True):
    """All gaps of a node."""

    rows: list[GapRow]


class MembershipRow(msgspec.Struct, frozen=True):
    """Membership of a node."""

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


ROUTES = tagged(
    "nodes",
    Route("GET", f"{API}/nodes", _nodes, action=Action.READ_REGISTRY, query=listing.params(NodeRow)),
    Route("GET", f"{API}/nodes/{{member}}", _node, action=Action.READ_REGISTRY, errors=(404,)),
    Route("GET", f"{API}/nodes/{{member}}/gaps", _gaps, action=Action.READ_LEDGER, errors=(404,)),
    Route("POST", f"{API}/nodes", _invite, action=Action.CHANGE_NODES, body=Invitation, status=201, errors=(404, 409)),
    Route("POST", f"{API}/nodes/join", _join, token=False, body=JoinRequest, status=201, errors=(404, 409)),
    Route("POST", f"{API}/nodes/{{member}}/leave", _leave, token=False, body=LeaveRequest, errors=(404,)),
    Route(
        "POST", f"{API}/nodes/{{member}}/expel", _expel, action=Action.CHANGE_NODES, body=Expulsion, errors=(404, 409)
    ),
    Route(
        "PUT", f"{API}/nodes/{{member}}/areas", _set_areas, action=Action.CHANGE_NODES, body=NewAreas, errors=(404, 409)
    ),
)
