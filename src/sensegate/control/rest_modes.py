"""REST: emergency plans, and the mode orders that put them in force."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, scope, scope_text
from sensegate.control.modes import EmergencyCommand, EmergencyGrant, ModeOrder, ModePlan, ModeRegistry
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.registry import unknown_property
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso


class NewPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Emergency plan: the acts that an order by it may carry out."""

    title: str
    place: str
    """Division, or DIVISION/DEPARTMENT: orders may be for any part of it."""
    hours_max: float = 24.0
    grants: list[EmergencyGrant] = []
    tasks: list[EmergencyCommand] = []
    shed: list[str] = []
    """Properties that are not forwarded to the centre meanwhile, alarms apart; they come up when the order is over."""


class PlanRow(msgspec.Struct, frozen=True):
    """A plan."""

    name: str
    title: str
    place: str
    hours_max: float
    grants: list[EmergencyGrant]
    tasks: list[EmergencyCommand]
    shed: list[str]
    written_by: str
    approved_by: str
    """Empty: a draft; no order may be given by it."""
    approved: str
    id: str
    """Goes in the place of its name where you see several of that name."""
    revision: int


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Put a plan in force."""

    plan: str
    """Its name or id."""
    hours: float
    reason: str
    place: str = ""
    """Part of the plan's place; empty: all of it."""
    drill: bool = False
    """Everything happens, and each record of it says that it was a drill."""


class StepRow(msgspec.Struct, frozen=True):
    """Step that an order carried out."""

    step: str
    target: str
    at: str
    count: int
    problem: str


class OrderRow(msgspec.Struct, frozen=True):
    """A mode order, with its steps."""

    id: str
    plan: str
    plan_revision: int
    place: str
    state: str
    """``active``, ``ending`` or ``ended``."""
    drill: bool
    since: str
    until: str
    ended: str
    ended_by: str
    reason: str
    by: str
    steps: list[StepRow]


MODES = PartKey[ModeRegistry]("modes", absent="this gateway knows no emergency plans")


def modes_of(call: Call) -> ModeRegistry:
    """Return the plans and orders. Raises `NotFound` at a gateway that has none."""
    return call.part(MODES)


def _plan_row(plan: ModePlan) -> PlanRow:
    return PlanRow(
        plan.name,
        plan.title,
        scope_text(plan.place),
        plan.hours_max,
        list(plan.grants),
        list(plan.tasks),
        list(plan.shed),
        plan.written_by,
        plan.approved_by,
        iso(plan.approved),
        plan.key,
        plan.revision,
    )


def _order_row(order: ModeOrder) -> OrderRow:
    return OrderRow(
        order.id,
        order.plan.name,
        order.plan.revision,
        scope_text(order.place),
        order.state,
        order.drill,
        iso(order.since),
        iso(order.until),
        iso(order.ended),
        order.ended_by,
        order.reason,
        order.by,
        [StepRow(step.action, step.target, iso(step.at), step.count, step.problem) for step in order.steps],
    )


async def _plans(call: Call) -> listing.RowPage[PlanRow]:
    """Emergency plans in the caller's scope."""
    return listing.page_of(call, map(_plan_row, modes_of(call).plans(call.principal)), PlanRow, "id")


async def _plan(call: Call) -> PlanRow:
    """Get an emergency plan."""
    return _plan_row(modes_of(call).plan(call.path("plan"), call.principal))


async def _write(call: Call) -> PlanRow:
    """Write a plan (If-Match: the revision that is replaced); a draft until somebody else approves it."""
    wanted = await call.body(NewPlan)
    for name in wanted.shed:
        if problem := unknown_property(name):
            raise BadRequest(f"body: shed: {problem}")
    plan = ModePlan(
        name=call.path("plan"),
        title=wanted.title,
        place=scope(wanted.place),
        hours_max=wanted.hours_max,
        grants=tuple(wanted.grants),
        tasks=tuple(wanted.tasks),
        shed=tuple(wanted.shed),
    )
    written_ = await modes_of(call).write(plan, by=call.principal, revision=call.revision(required=False) or 0)
    return _plan_row(written_)


async def _approve(call: Call) -> PlanRow:
    """Approve a plan that somebody else wrote, as it is at the revision of If-Match."""
    revision = call.revision() or 0
    return _plan_row(await modes_of(call).approve(call.path("plan"), by=call.principal, revision=revision))


async def _forget(call: Call) -> web.Response:
    """Forget a plan; an order that put it in force goes on."""
    await modes_of(call).delete(call.path("plan"), by=call.principal)
    return web.Response(status=204)


async def _orders(call: Call) -> listing.RowPage[OrderRow]:
    """Mode orders in the caller's scope; sort=-id gives the newest first."""
    return listing.page_of(call, map(_order_row, modes_of(call).orders(call.principal)), OrderRow, "id")


async def _order(call: Call) -> OrderRow:
    """Get a mode order with its steps."""
    return _order_row(modes_of(call).get(call.path("order"), call.principal))


async def _give(call: Call) -> OrderRow:
    """Put an approved plan in force for a time; it ends by itself."""
    wanted = await call.body(NewOrder)
    order = await modes_of(call).order(
        wanted.plan,
        by=call.principal,
        hours=wanted.hours,
        reason=wanted.reason,
        place=scope(wanted.place) if wanted.place else None,
        drill=wanted.drill,
    )
    return _order_row(order)


async def _end(call: Call) -> OrderRow:
    """End a mode order before its time: what it made ends with it."""
    return _order_row(await modes_of(call).end(call.path("order"), by=call.principal))


_PLAN = f"{API}/emergency-plans/{{plan}}"
_ORDERS = f"{API}/mode-orders"
ROUTES = tagged(
    "emergency",
    Route("GET", f"{API}/emergency-plans", _plans, action=Action.READ_REGISTRY, query=listing.params(PlanRow)),
    Route("GET", _PLAN, _plan, action=Action.READ_REGISTRY, errors=(404, 409)),
    Route("PUT", _PLAN, _write, action=Action.CHANGE_MODE, body=NewPlan, errors=(409, 415)),
    Route("POST", f"{_PLAN}/approval", _approve, action=Action.CHANGE_MODE, errors=(404, 409, 428)),
    Route("DELETE", _PLAN, _forget, action=Action.CHANGE_MODE, status=204, errors=(404, 409)),
    Route("GET", _ORDERS, _orders, action=Action.READ_REGISTRY, query=listing.params(OrderRow)),
    Route("POST", _ORDERS, _give, action=Action.CHANGE_MODE, body=NewOrder, status=201, errors=(404, 409, 415)),
    Route("GET", f"{_ORDERS}/{{order}}", _order, action=Action.READ_REGISTRY, errors=(404,)),
    Route("DELETE", f"{_ORDERS}/{{order}}", _end, action=Action.CHANGE_MODE, errors=(404, 409)),
)
