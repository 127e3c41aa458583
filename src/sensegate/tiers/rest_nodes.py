"""REST: the nodes of a centre: who they are and how they are; inviting, joining, leaving, expelling them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.errors import NotFound, PermissionDenied
from sensegate.ports import Part
from sensegate.tiers.gaps import Named
from sensegate.tiers.members import AREAS_MAX, CODE_LIFE_S, Asked, Member, Members, Told
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


class Leaving(Body, frozen=True):
    """The node's own word."""

    secret: Annotated[str, msgspec.Meta(max_length=200)]


class Expulsion(Body, frozen=True):
    """Why."""

    note: Text = ""


_NO_CENTRE = "this gateway is no centre: nodes join a centre"
NODES = Part[Callable[[], Sequence[NodeRow]]]("nodes", absent="this gateway lists no nodes")
"""Returns the nodes that this gateway knows, itself first."""
MEMBERS = Part[Members]("members", absent=_NO_CENTRE)
JOIN = Part[Callable[[str, str, str], Awaitable[Told]]]("join", absent=_NO_CENTRE)
"""(code, release, epoch of the node's log): admits a node."""
GAPS = Part[Callable[[str], Awaitable[Sequence[Named]]]]("gaps", absent=_NO_CENTRE)
"""Division -> what did not come of a node's lost stores."""


def _members(call: Call) -> Members:
    return call.part(MEMBERS)


async def _nodes(call: Call) -> Any:
    return listing.answer(call, _rows(call), NodeRow, "member")


def _rows(call: Call) -> list[NodeRow]:
    scope = call.principal.scope.division
    return [row for row in call.part(NODES)() if row.division.startswith(scope) or scope.startswith(row.division)]


async def _node(call: Call) -> Any:
    return row_of(call, call.path("member"))


def row_of(call: Call, member: str) -> NodeRow:
    """Return a node's line. Raises `NotFound` where it is not in the caller's scope."""
    for row in _rows(call):
        if row.member == member:
            return row
    raise NotFound(f"no node {member[:32]} in your scope")


async def _invite(call: Call) -> Any:
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


async def _join(call: Call) -> Any:
    join = call.part(JOIN)
    asked = await call.body(Asked)
    address = call.request.remote or ""
    call.guesses.demand_patience(address)
    try:
        return await join(asked.code, asked.version, asked.life)
    except PermissionDenied as why:
        if not why.authenticated:
            call.guesses.failed(address)
        raise


async def _leave(call: Call) -> Any:
    said = await call.body(Leaving)
    members = _members(call)
    address = call.request.remote or ""
    call.guesses.demand_patience(address)
    try:
        return _stand(await members.leave(call.path("member"), said.secret))
    except PermissionDenied:
        call.guesses.failed(address)
        raise


async def _expel(call: Call) -> Any:
    said = await call.body(Expulsion)
    return _stand(await _members(call).expel(call.path("member"), by=call.principal, note=said.note))


async def _set_areas(call: Call) -> Any:
    said = await call.body(NewAreas)
    members = _members(call)
    return _stand(await members.set_areas(call.path("member"), said.areas, by=call.principal, note=said.note))


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


async def _gaps(call: Call) -> Any:
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
    return {"rows": rows}


class Gaps(msgspec.Struct, frozen=True):
    """All of a node."""

    rows: list[GapRow]


class Standing(msgspec.Struct, frozen=True):
    """Where a node stands with its centre."""

    member: str
    division: str
    state: str
    generation: int
    changed: str
    note: str = ""
    areas: list[str] = []


def _stand(member: Member) -> Standing:
    return Standing(
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
        call=_nodes,
        what="The nodes that this gateway knows: state, lag, release, load, counts, clock.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        query=listing.params(NodeRow),
        answer=list[NodeRow],
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}",
        call=_node,
        what="One node.",
        tag="nodes",
        action=Action.READ_REGISTRY,
        answer=NodeRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/nodes/{{member}}/gaps",
        call=_gaps,
        what="What did not come of a node that was lost with its store: the time, and numbers where devices count.",
        tag="nodes",
        action=Action.READ_LEDGER,
        answer=Gaps,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes",
        call=_invite,
        what="Invite the node of a city, or one in its place: a code that is shown this once and works once.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=Invitation,
        answer=JoinCode,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/join",
        call=_join,
        what="A node joins by its code; what it is told is told this once.",
        tag="nodes",
        token=False,
        body=Asked,
        answer=Told,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/{{member}}/leave",
        call=_leave,
        what="A node leaves, by the secret of its link.",
        tag="nodes",
        token=False,
        body=Leaving,
        answer=Standing,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/nodes/{{member}}/expel",
        call=_expel,
        what="Expel a node, or take its invitation back: its rights end and its connection is closed within 2 s.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=Expulsion,
        answer=Standing,
        errors=(404, 409),
    ),
    Route(
        method="PUT",
        path=f"{API}/nodes/{{member}}/areas",
        call=_set_areas,
        what="Give a node other areas: divisions of which it may send readings; others are refused from now on.",
        tag="nodes",
        action=Action.CHANGE_NODES,
        body=NewAreas,
        answer=Standing,
        errors=(404, 409),
    ),
)
