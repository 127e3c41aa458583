"""Emergency plans and the mode orders that put them in force: 平戰結合, in peace prepared, in need one order.

    plan: draft ─▶ approved (by another one than its writer)          a change makes it a draft again
    order: active ─▶ ending ─▶ ended                                  by itself at its time, or by an order

An order carries its plan as it was approved. What it makes (grants, tasks, what is shed) ends with it.

A name is a plan's own in its place only: who writes a plan never learns whether another place has one of that name. Who
sees several of a name tells them apart by their ids.
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
    """Who reads what beyond the ordinary while the order holds."""

    feed: str
    subscriber: str
    """Id of the token that reads."""
    deliveries: tuple[str, ...] = ()
    """Empty: all."""


class EmergencyCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all devices of a profile in the order's place are told, and what afterwards."""

    profile: str
    task: str
    parameters: dict[str, Scalar] = {}
    afterwards: dict[str, Scalar] | None = None
    """Parameters of the same task when the order ends; absent: nothing is told then."""


class ModePlan(msgspec.Struct, frozen=True, omit_defaults=True, tag="plan", kw_only=True):
    """What an order may do, where and for how long at most."""

    name: str
    title: str
    place: Scope
    """Orders may be for any part of it."""
    hours_max: float = 24.0
    grants: tuple[EmergencyGrant, ...] = ()
    tasks: tuple[EmergencyCommand, ...] = ()
    shed: tuple[str, ...] = ()
    """Properties that are not forwarded to the centre meanwhile, alarms apart; they come up when the order is over."""
    written_by: str = ""
    approved_by: str = ""
    """Empty: a draft."""
    approved: int = 0
    id: str = ""
    """Its name, a point, and what no other has; empty: its name, as releases before this one wrote it."""
    revision: int = 0
    format: int = 1

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return self.id or self.name


class ModeStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that an order did."""

    action: str
    """``grant``, ``task``, ``shed`` or the same with ``.end``."""
    target: str
    at: int
    count: int = 0
    """Devices told."""
    problem: str = ""
    """Why it was not (or not wholly) done."""


class ModeOrder(msgspec.Struct, frozen=True, omit_defaults=True, tag="order", kw_only=True):
    """A plan in force."""

    id: str
    plan: ModePlan
    place: Scope
    since: int
    """µs UTC, as all its times."""
    until: int
    """It ends by itself then."""
    reason: str
    by: str
    drill: bool = False
    """Everything happens, and everything that it leaves in records says that it was a drill."""
    state: str = "active"
    """``active``, ``ending`` (being undone) or ``finish``."""
    ended: int = 0
    ended_by: str = ""
    """Empty: by itself."""
    steps: tuple[ModeStep, ...] = ()
    revision: int = 0
    format: int = 1


MODE_ACTOR = Principal("clock", Role.ADMIN, Scope("44"), name="mode orders")
"""Who acts where an order does its steps."""


class ModeRegistry:
    """The plans and orders of a gateway."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock) -> None:
        self._shelf = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._plans: RecordTable[ModePlan] = RecordTable(self._shelf, "plan", ModePlan, prefix="plan.", packed=True)
        self._orders: RecordTable[ModeOrder] = RecordTable(
            self._shelf, "order", ModeOrder, prefix="order.", packed=True
        )
        self._plans.on_change.append(self._changed)
        self._orders.on_change.append(self._changed)
        self.on_change: list[Callable[[], None]] = []
        """Called after a change is in memory."""

    # ── plans ───────────────────────────────────────────────────────────────────────────────────────

    async def write(self, plan: ModePlan, *, by: Principal, revision: int) -> ModePlan:
        """Write a plan as of a revision (0: a new one); it is a draft until somebody else approves it.

        Raises:
            PermissionDenied, ConfigError, Conflict.
        """
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        alike = self._named(plan.name, by)
        present = next((plan for plan in alike if plan.revision == revision), None)
        if revision and present is None:
            raise Conflict(f"plan {plan.name} was changed meanwhile, or there is none; read it again")
        if present is not None:
            demand(by, Action.CHANGE_MODE, present.place.division, present.place.department)
        elif len(self._plans) >= PLANS_MAX:
            raise ConfigError(f"{PLANS_MAX} plans", key="name", remedy="delete one")
        name = present.name if present else plan.name
        if any(other is not present and other.place == plan.place for other in self._named(name, by)):
            raise Conflict(f"{scope_text(plan.place)} has a plan {name}; read it again, and send its revision")
        kept = msgspec.structs.replace(plan, name=name, written_by=by.id, approved_by="", approved=0)
        _check(kept)
        kept = msgspec.structs.replace(kept, id=present.id if present else f"{kept.name}.{secrets.token_hex(4)}")
        await self._trail.record(by, "mode.plan", kept.name, after=_facts(kept))
        return await self._plans.put(kept.key, kept, expected=revision)

    async def approve(self, name: str, *, by: Principal, revision: int) -> ModePlan:
        """Approve a plan as it is at a revision. Raises `PermissionDenied` (its own writer), `NotFound`, `Conflict`."""
        plan = self.plan(name, by)
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        if by.id == plan.written_by:
            raise PermissionDenied("who wrote a plan does not approve it; ask another one of your level or above")
        if plan.revision != revision:
            raise Conflict(f"plan {name} is at revision {plan.revision}, not {revision}; read it again")
        await self._trail.record(by, "mode.approve", plan.name, after={"id": plan.key, "revision": revision})
        approved = msgspec.structs.replace(plan, approved_by=by.id, approved=self._clock.now())
        return await self._plans.put(plan.key, approved, expected=revision)

    async def delete(self, name: str, *, by: Principal) -> None:
        """Forget a plan; an order that put it in force goes on with it. Raises `NotFound`, `PermissionDenied`."""
        plan = self.plan(name, by)
        demand(by, Action.CHANGE_MODE, plan.place.division, plan.place.department)
        await self._trail.record(by, "mode.forget", plan.name, before=_facts(plan))
        await self._plans.delete(plan.key, expected=plan.revision)

    def plan(self, name: str, by: Principal) -> ModePlan:
        """Return a plan by its name or id; of several of the name, that of the caller's own place.

        Raises:
            NotFound: there is none that the caller may see. Conflict: several; say which.
        """
        found = self._named(name, by)
        if len(found) > 1:
            found = [candidate for candidate in found if candidate.place == by.scope] or found
        if not found:
            raise NotFound(f"no plan '{name[:64]}' in your scope")
        if len(found) > 1:
            ids = ", ".join(f"{plan.key} of {scope_text(plan.place)}" for plan in found[:5])
            raise Conflict(f"{len(found)} plans are called '{name[:64]}'; give the id: {ids}")
        return found[0]

    def _named(self, name: str, by: Principal) -> list[ModePlan]:
        """Return the plans of an id or else a name, as far as the caller may see them."""
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
        """Put a plan in force for a time, for all of its place or a part.

        Raises:
            NotFound: no such plan. PermissionDenied: `by` may not, or it is not approved. ConfigError: no reason, too
                long.
        """
        plan = self.plan(name, by)
        place = place or plan.place
        demand(by, Action.CHANGE_MODE, place.division, place.department)
        if not plan.place.covers(place.division, place.department):
            raise PermissionDenied(f"plan {name} is for {scope_text(plan.place)}, not for {scope_text(place)}")
        if not plan.approved_by:
            raise PermissionDenied(f"plan {name} is not approved; ask another one than {plan.written_by} to approve it")
        if not 0 < hours <= plan.hours_max:
            raise ConfigError(f"{hours:g}", key="hours", remedy=f"above 0, at most {plan.hours_max:g} (its plan)")
        if not reason.strip() or len(reason) > _TEXT_MAX:
            raise ConfigError("is missing or too long", key="reason", remedy=f"say why, in 1 to {_TEXT_MAX} characters")
        name = plan.name
        active = [order for order in self._orders.all() if order.state == "active" and order.place == place]
        if any(order.plan.key == plan.key for order in active):
            raise Conflict(f"plan {name} is in force for {scope_text(place)} already")
        now = self._clock.now()
        order = ModeOrder(
            id=f"{now // 1000:012x}{secrets.token_hex(4)}",
            plan=plan,
            place=place,
            since=now,
            until=now + round(hours * 3.6e9),
            reason=reason,
            by=by.id,
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
        """End an order before its time. Raises `NotFound`, `PermissionDenied`, `Conflict` (it has ended)."""
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
            raise NotFound(f"no order {order_id[:20]} in your scope")
        return order

    def orders(self, by: Principal) -> Iterable[ModeOrder]:
        """Return the orders that the caller may see."""
        return [
            order
            for order in self._orders
            if allows(by, Action.READ_REGISTRY, order.place.division, order.place.department)
        ]

    # ── who carries them out ────────────────────────────────────────────────────────────────────────

    def open(self) -> Iterable[ModeOrder]:
        """Return the orders in force, and those whose undoing is not complete."""
        return [order for order in self._orders if order.state != "ended"]

    async def expire(self, order: ModeOrder) -> ModeOrder:
        """Say that an order's time is over."""
        facts: Facts = {"order": order.id, "drill": order.drill}
        await self._trail.record(MODE_ACTOR, "mode.end", order.plan.name, after=facts)
        after = msgspec.structs.replace(order, state="ending", ended=self._clock.now())
        return await self._orders.put(order.id, after, expected=order.revision)

    async def record_step(self, order: ModeOrder, step: ModeStep) -> ModeOrder:
        """Record a step of an order."""
        facts: Facts = {"order": order.id, "drill": order.drill, "step": step.action, "count": step.count}
        if step.problem:
            facts["said"] = step.problem
        await self._trail.record(MODE_ACTOR, "mode.step", step.target, after=facts)
        after = msgspec.structs.replace(order, steps=(*order.steps, step))
        return await self._orders.put(order.id, after, expected=order.revision)

    async def finish(self, order: ModeOrder) -> ModeOrder:
        """Say that all of an order is undone."""
        after = msgspec.structs.replace(order, state="ended")
        done = await self._orders.put(order.id, after, expected=order.revision)
        ended = [order for order in self._orders if order.state == "ended"]
        for oldest in ended[: max(0, len(ended) - ENDED_MAX)]:
            await self._orders.delete(oldest.id, expected=oldest.revision)
        return done

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        await self._shelf.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; through losses of the engine."""
        await self._shelf.run()

    def _changed(self, _before: object, _after: object) -> None:
        for listener in self.on_change:
            listener()


def _check(plan: ModePlan) -> None:
    if not _NAME.fullmatch(plan.name):
        raise ConfigError(f"'{plan.name[:64]}'", key="name", remedy="small letters, digits and -")
    if not plan.title.strip() or len(plan.title) > _TEXT_MAX:
        raise ConfigError("is missing or too long", key="title", remedy=f"1 to {_TEXT_MAX} characters")
    if not 0 < plan.hours_max <= HOURS_MAX:
        raise ConfigError(f"{plan.hours_max:g}", key="hours_max", remedy=f"above 0, at most {HOURS_MAX:g}")
    for name in ("grants", "tasks", "shed"):
        if len(getattr(plan, name)) > STEPS_MAX:
            raise ConfigError(f"{len(getattr(plan, name))} of them", key=name, remedy=f"at most {STEPS_MAX}")
    if not (plan.grants or plan.tasks or plan.shed):
        raise ConfigError("does nothing", key="plan", remedy="give it `grants`, `tasks` or `shed`")


def _facts(plan: ModePlan) -> Facts:
    facts: Facts = msgspec.to_builtins(msgspec.structs.replace(plan, revision=0))
    return facts
