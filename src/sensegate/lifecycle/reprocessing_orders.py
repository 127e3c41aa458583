"""Reprocessing orders: requests to decode recorded messages again; they survive restarts.

An order describes the selection; its progress is part of the commits (the position of ``redecode:<id>``), so that a
kill at any moment neither repeats nor skips a message. One order is executed at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import StrEnum
from functools import partial

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, allows, demand, scope_text
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.model import REPROCESSING_PREFIX

ORDERS_MAX = 200
WAITING_MAX = 20
DEVICES_MAX = 2_000
ATTEMPTS_MAX = 200


class OrderState(StrEnum):
    """State of an order."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (OrderState.WAITING, OrderState.RUNNING)


class ReprocessingOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order to reprocess recorded messages."""

    id: str
    profile: str
    target: Scope
    since: int
    """Earliest arrival of the messages, µs UTC."""
    until: int
    """Latest arrival of the messages (exclusive), µs UTC."""
    input: ReprocessingInput
    partition: str
    """``<division>-<partition>`` of the messages."""
    epoch: str
    """Epoch of the log."""
    last_sequence: int
    """Last sequence of the log that is read; what the order itself writes comes after it."""
    created: int
    by: str
    devices: tuple[str, ...] = ()
    """Ids of the devices; empty: all devices of the profile in the target."""
    state: OrderState = OrderState.WAITING
    attempts: int = 0
    """Number of starts: a job restarts whenever ingest does."""
    ended: int = 0
    problem: str = ""
    """Reason of its failure."""
    counts: dict[str, int] = {}
    """Once it is done: ledger kind -> count of source ``redecode:<id>``."""
    revision: int = 0
    format: int = 1

    @property
    def source(self) -> str:
        """Name of its source in ledger and commits."""
        return f"{REPROCESSING_PREFIX}{self.id}"


OrderList = list[ReprocessingOrder]


class ReprocessingOrders:
    """Registry of the reprocessing orders of a gateway."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock) -> None:
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._orders: RecordTable[ReprocessingOrder] = RecordTable(
            self._store, "redecode", ReprocessingOrder, prefix="", packed=True
        )
        self._orders.on_change.append(self._changed)
        self.on_change: list[Callable[[ReprocessingOrder], None]] = []
        """Called after a change is in memory."""

    async def order(self, wanted: ReprocessingOrder, *, by: Principal, note: str = "") -> ReprocessingOrder:
        """Create an order.

        Raises:
            PermissionDenied: `by` may not release profiles in its target.
            ConfigError: it is invalid. Overloaded: too many orders wait.
        """
        demand(by, Action.RELEASE_PROFILES, wanted.target.division, wanted.target.department)
        if wanted.since >= wanted.until:
            raise ConfigError("is not before `until`", key="since", remedy="give a time span, e.g. since=3h")
        if len(wanted.devices) > DEVICES_MAX:
            raise ConfigError(f"{len(wanted.devices)} devices", key="devices", remedy=f"at most {DEVICES_MAX}")
        if sum(order.state in OPEN for order in self._orders.all()) >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} redecodes wait; they run one after another", retry_after_s=30)
        order = msgspec.structs.replace(wanted, id=secrets.token_hex(6), created=self._clock.now(), by=by.id)
        facts: Facts = {
            "job": order.id,
            "target": scope_text(order.target),
            "since": order.since,
            "until": order.until,
            "what": order.input.value,
            "devices": list(order.devices),
        }
        if note:
            facts["note"] = note
        await self._trail.record(by, "profile.redecode", order.profile, after=facts)
        stored = await self._orders.put(order.id, order, expected=0)
        await self._delete_oldest()
        return stored

    async def cancel(self, order_id: str, *, by: Principal) -> ReprocessingOrder:
        """Cancel an order; its committed part stays.

        Raises `NotFound`, `PermissionDenied`, `Conflict` (it has ended).
        """
        order = self.get(order_id, by)
        demand(by, Action.RELEASE_PROFILES, order.target.division, order.target.department)
        if order.state not in OPEN:
            raise Conflict(f"redecode {order.id} is {order.state}")
        await self._trail.record(by, "profile.redecode.cancel", order.profile, after={"job": order.id})
        return await self._set(order, state=OrderState.CANCELLED, ended=self._clock.now())

    def get(self, order_id: str, by: Principal) -> ReprocessingOrder:
        """Return an order. Raises `NotFound` where there is none that the caller may see."""
        order = self._orders.find(order_id)
        if order is None or not allows(by, Action.READ_REGISTRY, order.target.division, order.target.department):
            raise NotFound(f"no redecode {order_id[:20]} in your scope")
        return order

    def list(self, by: Principal, profile: str = "") -> OrderList:
        """Return the orders that the caller may see, newest first."""
        orders = sorted(self._orders.all(), key=lambda order: -order.created)
        return [
            candidate
            for candidate in orders
            if (not profile or candidate.profile == profile)
            and allows(by, Action.READ_REGISTRY, candidate.target.division, candidate.target.department)
        ]

    # ── for the worker ──────────────────────────────────────────────────────────────────────────────

    def next(self, partition: str) -> ReprocessingOrder | None:
        """Return the order to execute now: the running one, or else the oldest that waits."""
        open_orders = [order for order in self._orders.all() if order.state in OPEN and order.partition == partition]
        return min(open_orders, key=lambda order: (order.state is OrderState.WAITING, order.created), default=None)

    def is_open(self, order_id: str) -> bool:
        """Return whether an order still waits or runs."""
        order = self._orders.find(order_id)
        return order is not None and order.state in OPEN

    async def begin(self, order: ReprocessingOrder) -> bool:
        """Mark an order as running; return False where it has ended, or fails because it was started too often."""
        if order.attempts >= ATTEMPTS_MAX:
            await self.fail(order, f"started {order.attempts} times without an end: a bug; the log has the traceback")
            return False
        return await self._change(order, state=OrderState.RUNNING, attempts=order.attempts + 1)

    async def finish(self, order: ReprocessingOrder, counts: dict[str, int], *, by: Principal) -> None:
        """Mark an order as done, with its counts, also on the audit trail."""
        if self.is_open(order.id):
            facts: Facts = {"job": order.id, **counts}
            await self._trail.record(by, "profile.redecode.done", order.profile, after=facts)
            await self._change(order, state=OrderState.DONE, ended=self._clock.now(), counts=counts)

    async def fail(self, order: ReprocessingOrder, why: str) -> None:
        """Mark an order as failed, with the reason."""
        await self._change(order, state=OrderState.FAILED, ended=self._clock.now(), problem=why[:500])

    # ── following the bucket ────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes made by every process until cancelled; resumes after a loss of the engine."""
        await self._store.run()

    def _changed(self, _before: ReprocessingOrder | None, after: ReprocessingOrder | None) -> None:
        if after is not None:
            for listener in self.on_change:
                listener(after)

    async def _change(self, order: ReprocessingOrder, **changes: object) -> bool:
        """Change an order that is open, whatever another process does with it; return False where it has ended."""
        while (present := self._orders.find(order.id)) is not None and present.state in OPEN:
            try:
                await self._set(present, **changes)
            except Conflict:
                await self._orders.until(partial(self._is_another, present))
            else:
                return True
        return False

    def _is_another(self, known: ReprocessingOrder) -> bool:
        return self._orders.find(known.id) is not known

    async def _set(self, order: ReprocessingOrder, **changes: object) -> ReprocessingOrder:
        present = self._orders.find(order.id) or order
        return await self._orders.put(order.id, msgspec.structs.replace(present, **changes), expected=present.revision)

    async def _delete_oldest(self) -> None:
        ended = sorted(
            (order for order in self._orders.all() if order.state not in OPEN), key=lambda order: order.created
        )
        for order in ended[: max(0, len(self._orders) - ORDERS_MAX)]:
            await self._orders.delete(order.id, expected=order.revision)
