"""Emergency plans and the mode orders that activate them (平戰結合): prepared in peace, activated by one order.

    plan: draft ─▶ approved (by another person than its author)       a change makes it a draft again
    order: active ─▶ ending ─▶ ended                                  at its end time, or on request

An order contains its plan as approved. Its effects (grants, tasks, shedding) end with it.

The name of a plan is unique only within its place, so that authors do not learn about plans of other places. Plans of
the same name are distinguished by their ids.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, scope_text
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.control.tasks import Scalar
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied

PLANS_MAX = 500
STEPS_MAX = 100
HOURS_MAX = 31 * 24.0
ENDED_MAX = 500
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_TEXT_MAX = 500


class EmergencyGrant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Additional access to a feed while the order is active."""

    feed: str
    subscriber: str
    """Id of the subscriber's token."""
    deliveries: tuple[str, ...] = ()
    """Permitted deliveries; empty: all."""


class EmergencyCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """Task for all devices of a profile in the order's place, at its start and at its end."""

    profile: str
    task: str
    parameters: dict[str, Scalar] = {}
    afterwards: dict[str, Scalar] | None = None
    """Parameters of the same task at the end of the order; None: no task then."""


class ModePlan(msgspec.Struct, frozen=True, omit_defaults=True, tag="plan", kw_only=True):
    """Emergency plan: the effects of an order, its place and its maximum duration."""

    name: str
    title: str
    place: Scope
    """Orders may concern any part of it."""
    hours_max: float = 24.0
    grants: tuple[EmergencyGrant, ...] = ()
    tasks: tuple[EmergencyCommand, ...] = ()
    shed: tuple[str, ...] = ()
    """Properties that are not forwarded to the centre during the order, except alarms; they follow after its end."""
    written_by: str = ""
    author: str = ""
    """Id of the person who wrote it, also with a token that this person made."""
    approved_by: str = ""
    """Id of the person who approved it; empty: a draft."""
    approved: int = 0
    id: str = ""
    """Unique id: name, dot, random suffix."""
    revision: int = 0
    format: int = 1

    @property
    def key(self) -> str:
        """Unique key of the plan."""
        return self.id or self.name


class ModeStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that an order executed."""

    action: str
    """``grant``, ``task``, ``shed`` or the same with ``.end``."""
    target: str
    at: int
    count: int = 0
    """Number of devices concerned."""
    problem: str = ""
    """Reason why the step was not, or not completely, done."""


class ModeOrder(msgspec.Struct, frozen=True, omit_defaults=True, tag="order", kw_only=True):
    """An activation of a plan."""

    id: str
    plan: ModePlan
    place: Scope
    since: int
    """µs UTC, as all times of an order."""
    until: int
    """Time at which it ends by itself."""
    reason: str
    by: str
    role: Role = Role.CITY_OPERATOR
    """Role of who gave it: its tasks need no higher one."""
    drill: bool = False
    """True if it is a drill: everything is executed, and all records of it are marked as a drill."""
    state: str = "active"
    """``active``, ``ending`` (being undone) or ``ended``."""
    ended: int = 0
    ended_by: str = ""
    """Id of the person who ended it; empty: it ended by itself."""
    steps: tuple[ModeStep, ...] = ()
    revision: int = 0
    format: int = 1


MODE_ACTOR = Principal("clock", Role.ADMIN, Scope("44"), name="mode orders")
"""Principal that sees the tasks of all orders; each step is executed with the rights of who gave the order."""


class ModeRegistry:
    """Registry of the plans and mode orders of a gateway."""

    def __init__(
        self, bucket: Bucket, trail: Trail, clock: Clock, *, person_behind: Callable[[str], str] = lambda name: name
    ) -> None:
        """`person_behind`: id of a caller -> id of the person who made its token, or the same id."""
        self._person_behind = person_behind
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._plans: RecordTable[ModePlan] = RecordTable(self._store, "plan", ModePlan, prefix="plan.", packed=True)
        self._orders: RecordTable[ModeOrder] = RecordTable(
            self._store, "order", ModeOrder, prefix="order.", packed=True
        )
        self._plans.on_change.append(self._changed)
        self._orders.on_change.append(self._changed)
        self.on_change: list[Callable[[], None]] = []
        """Called after a change is in memory."""

    # ── plans ───────────────────────────────────────────────────────────────────────────────────────

    async def write(self, plan: ModePlan, *, by: Principal, revision: int) -> ModePlan:
        """Write a plan at a revision (0: a new plan); it is a draft until another person approves it.

        Raises:
            PermissionDenied, ConfigError, Conflict.
        """
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        candidates = self._find_plans(plan.name, by)
        present = next((plan for plan in candidates if plan.revision == revision), None)
        if revision and present is None:
            raise Conflict(f"plan {plan.name} was changed or deleted meanwhile; read it again")
        if present is not None:
            demand(by, Action.CHANGE_MODE, present.place.division, present.place.department)
        elif len(self._plans) >= PLANS_MAX:
            raise ConfigError(f"there are {PLANS_MAX} plans already", key="name", remedy="delete one")
        name = present.name if present else plan.name
        if any(other is not present and other.place == plan.place for other in self._find_plans(name, by)):
            raise Conflict(f"{scope_text(plan.place)} already has a plan {name}; read it, and send its revision")
        author = self._person_behind(by.id)
        fresh = msgspec.structs.replace(plan, name=name, written_by=by.id, author=author, approved_by="", approved=0)
        _check(fresh)
        fresh = msgspec.structs.replace(fresh, id=present.id if present else f"{fresh.name}.{secrets.token_hex(4)}")
        await self._trail.record(by, "mode.plan", fresh.name, after=_facts(fresh))
        return await self._plans.put(fresh.key, fresh, expected=revision)

    async def approve(self, name: str, *, by: Principal, revision: int) -> ModePlan:
        """Approve a plan at a revision. Raises `PermissionDenied` (its author may not), `NotFound`, `Conflict`."""
        plan = self.plan(name, by)
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        if self._person_behind(by.id) == plan.author:
            raise PermissionDenied("authors may not approve their own plans; ask another person of your level or above")
        if plan.revision != revision:
            raise Conflict(f"plan {name} is at revision {plan.revision}, not {revision}; read it again")
        await self._trail.record(by, "mode.approve", plan.name, after={"id": plan.key, "revision": revision})
        approved = msgspec.structs.replace(plan, approved_by=by.id, approved=self._clock.now())
        return await self._plans.put(plan.key, approved, expected=revision)

    async def delete(self, name: str, *, by: Principal) -> None:
        """Delete a plan; active orders of it continue. Raises `NotFound`, `PermissionDenied`."""
        plan = self.plan(name, by)
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        await self._trail.record(by, "mode.forget", plan.name, before=_facts(plan))
        await self._plans.delete(plan.key, expected=plan.revision)

    def plan(self, name: str, by: Principal) -> ModePlan:
        """Return a plan by name or id; of several with the name, that of the caller's own place.

        Raises:
            NotFound: there is none that the caller may see. Conflict: there are several.
        """
        plans = self._find_plans(name, by)
        if len(plans) > 1:
            plans = [plan for plan in plans if plan.place == by.scope] or plans
        if not plans:
            raise NotFound(f"there is no plan '{name[:64]}' in your scope")
        if len(plans) > 1:
            ids = ", ".join(f"{plan.key} of {scope_text(plan.place)}" for plan in plans[:5])
            raise Conflict(f"{len(plans)} plans have the name '{name[:64]}'; give the id: {ids}")
        return plans[0]

    def _find_plans(self, name: str, by: Principal) -> list[ModePlan]:
        """Return the plans with an id or a name that the caller may see."""
        return [
            plan
            for plan in self._plans
            if name in {plan.name, plan.key}
            and allows(by, Action.READ_REGISTRY, plan.place.division, plan.place.department)
        ]

    def plans(self, by: Principal) -> Iterable[ModePlan]:
        """Return the plans that the caller may see."""
        return [
            plan for plan in self._plans if allows(by, Action.READ_REGISTRY, plan.place.division, plan.place.department)
        ]

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────

    async def order(
        self, name: str, *, by: Principal, hours: float, reason: str, place: Scope | None = None, drill: bool = False
    ) -> ModeOrder:
        """Activate a plan for a limited time, in all of its place or a part.

        Raises:
            NotFound: there is no such plan. PermissionDenied: `by` may not, or the plan is not approved.
            ConfigError: the reason is missing, or the duration too long. Conflict: the plan is active there already.
        """
        plan = self.plan(name, by)
        place = place or plan.place
        demand(by, Action.CHANGE_MODE, place.division, place.department)
        if not plan.place.covers(place.division, place.department):
            raise PermissionDenied(f"plan {name} is for {scope_text(plan.place)}, not for {scope_text(place)}")
        if not plan.approved_by:
            raise PermissionDenied(
                f"plan {name} is not approved; ask another person than {plan.written_by} to approve it"
            )
        if not 0 < hours <= plan.hours_max:
            raise ConfigError(
                f"{hours:g} is out of range",
                key="hours",
                remedy=f"give more than 0 and at most {plan.hours_max:g} (the plan's limit)",
            )
        if not reason.strip() or len(reason) > _TEXT_MAX:
            raise ConfigError(
                "is missing or too long", key="reason", remedy=f"give the reason in 1 to {_TEXT_MAX} characters"
            )
        name = plan.name
        active = [order for order in self._orders.all() if order.state == "active" and order.place == place]
        if any(order.plan.key == plan.key for order in active):
            raise Conflict(f"plan {name} is already active in {scope_text(place)}")
        now = self._clock.now()
        order = ModeOrder(
            id=f"{now // 1000:012x}{secrets.token_hex(4)}",
            plan=plan,
            place=place,
            since=now,
            until=now + round(hours * 3.6e9),
            reason=reason,
            by=by.id,
            role=by.role,
            drill=drill,
        )
        facts: Facts = {
            "order": order.id,
            "place": scope_text(place),
            "until": order.until,
            "reason": reason,
            "drill": drill,
            "plan": plan.key,
            "revision": plan.revision,
        }
        await self._trail.record(by, "mode.order", name, after=facts)
        return await self._orders.put(order.id, order, expected=0)

    async def end(self, order_id: str, *, by: Principal) -> ModeOrder:
        """End an order early. Raises `NotFound`, `PermissionDenied`, `Conflict` (it has ended)."""
        order = self.get(order_id, by)
        demand(by, Action.CHANGE_MODE, order.place.division, order.place.department)
        if order.state != "active":
            raise Conflict(f"order {order.id} is {order.state}")
        facts: Facts = {"order": order.id, "drill": order.drill}
        await self._trail.record(by, "mode.end", order.plan.name, after=facts)
        after = msgspec.structs.replace(order, state="ending", ended=self._clock.now(), ended_by=by.id)
        return await self._orders.put(order.id, after, expected=order.revision)

    def get(self, order_id: str, by: Principal) -> ModeOrder:
        """Return an order. Raises `NotFound` where there is none that the caller may see."""
        order = self._orders.find(order_id)
        if order is None or not allows(by, Action.READ_REGISTRY, order.place.division, order.place.department):
            raise NotFound(f"there is no order {order_id[:20]} in your scope")
        return order

    def orders(self, by: Principal) -> Iterable[ModeOrder]:
        """Return the orders that the caller may see."""
        return [
            order
            for order in self._orders
            if allows(by, Action.READ_REGISTRY, order.place.division, order.place.department)
        ]

    # ── for the executor ────────────────────────────────────────────────────────────────────────────

    def unfinished(self) -> Iterable[ModeOrder]:
        """Return the active orders, and those that are not completely undone."""
        return [order for order in self._orders if order.state != "ended"]

    async def expire(self, order: ModeOrder) -> ModeOrder:
        """Start ending an order at its end time."""
        facts: Facts = {"order": order.id, "drill": order.drill}
        await self._trail.record(MODE_ACTOR, "mode.end", order.plan.name, after=facts)
        after = msgspec.structs.replace(order, state="ending", ended=self._clock.now())
        return await self._orders.put(order.id, after, expected=order.revision)

    async def record_step(self, order: ModeOrder, step: ModeStep) -> ModeOrder:
        """Record a step of an order."""
        facts: Facts = {"order": order.id, "drill": order.drill, "step": step.action, "count": step.count}
        if step.problem:
            facts["problem"] = step.problem
        await self._trail.record(MODE_ACTOR, "mode.step", step.target, after=facts)
        after = msgspec.structs.replace(order, steps=(*order.steps, step))
        return await self._orders.put(order.id, after, expected=order.revision)

    async def finish(self, order: ModeOrder) -> ModeOrder:
        """Mark an order as ended; delete the oldest ended orders beyond the limit."""
        after = msgspec.structs.replace(order, state="ended")
        done = await self._orders.put(order.id, after, expected=order.revision)
        ended = [order for order in self._orders if order.state == "ended"]
        for oldest in ended[: max(0, len(ended) - ENDED_MAX)]:
            await self._orders.delete(oldest.id, expected=oldest.revision)
        return done

    # ── following the bucket ────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes made by every process until cancelled; resumes after a loss of the engine."""
        await self._store.run()

    def _changed(self, _before: object, _after: object) -> None:
        for listener in self.on_change:
            listener()


def _check(plan: ModePlan) -> None:
    if not _NAME.fullmatch(plan.name):
        raise ConfigError(
            f"'{plan.name[:64]}' is not permitted", key="name", remedy="use lower-case letters, digits and -"
        )
    if not plan.title.strip() or len(plan.title) > _TEXT_MAX:
        raise ConfigError("is missing or too long", key="title", remedy=f"give 1 to {_TEXT_MAX} characters")
    if not 0 < plan.hours_max <= HOURS_MAX:
        raise ConfigError(
            f"{plan.hours_max:g} is out of range", key="hours_max", remedy=f"give more than 0 and at most {HOURS_MAX:g}"
        )
    for name in ("grants", "tasks", "shed"):
        if len(getattr(plan, name)) > STEPS_MAX:
            raise ConfigError(f"{len(getattr(plan, name))} are too many", key=name, remedy=f"give at most {STEPS_MAX}")
    if not (plan.grants or plan.tasks or plan.shed):
        raise ConfigError("has no effect", key="plan", remedy="give it `grants`, `tasks` or `shed`")


def _facts(plan: ModePlan) -> Facts:
    facts: Facts = msgspec.to_builtins(msgspec.structs.replace(plan, revision=0))
    return facts
