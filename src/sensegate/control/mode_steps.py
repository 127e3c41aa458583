"""Mode orders carried out: what each makes, step by step, and undone when it ends; a restart goes on where it was.

Modes ─▶ Emergency ─▶ grants (share), tasks (tasking), what the uplink sheds (publish)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Scope, written
from sensegate.clock import Clock, moved
from sensegate.control.commands import Tasking
from sensegate.control.modes import CLOCK, Modes, Order, Step, Telling, Widening
from sensegate.control.tasks import Scalar
from sensegate.errors import Conflict, Lost, SensegateError, StoreFull
from sensegate.model import Shed

LOOK_S = 1.0
EXPIRES_S = 86_400.0
"""What devices are told when an order ends is tried for so long."""
_log = structlog.get_logger("emergency")


class Widen(Protocol):
    """Makes and ends the grants of an order (`share.widening.Widenings`)."""

    async def open(self, order: Order, wanted: Widening) -> None:
        """Make a grant, once. Raises `SensegateError` where it cannot be."""
        ...

    async def close(self, order: Order, wanted: Widening) -> None:
        """End it."""
        ...


class Emergency:
    """The hands of mode orders; `run` until cancelled."""

    def __init__(self, modes: Modes, tasking: Tasking, devices: Devices, clock: Clock) -> None:
        self._modes = modes
        self._tasking = tasking
        self._devices = devices
        self._clock = clock
        self.widen: Widen | None = None
        """None: this gateway shares nothing."""
        self._moved = asyncio.Event()
        modes.on_change.append(self._moved.set)

    def shed(self) -> Sequence[Shed]:
        """Return what is not forwarded at the moment."""
        return [
            Shed(order.place.division, order.place.department, frozenset(order.plan.shed))
            for order in self._modes.open()
            if order.state == "active" and order.plan.shed
        ]

    async def run(self) -> None:
        """Do and undo until cancelled."""
        while True:
            self._moved.clear()
            for order in list(self._modes.open()):
                try:
                    await self._advance(order)
                except (Conflict, StoreFull, Lost) as why:
                    _log.warning("a mode order waits", order=order.id, cause=str(why))
            await moved(self._moved, self._clock, LOOK_S)

    async def _advance(self, order: Order) -> None:
        if order.state == "active" and self._clock.now() >= order.until:
            order = await self._modes.over(order)
        plan, active = order.plan, order.state == "active"
        end = "" if active else ".end"
        begun = {(step.what, step.target) for step in order.steps}
        for number, wanted in enumerate(plan.grants):
            what, target = f"grant{end}", f"{number}: {wanted.feed} to {wanted.subscriber}"
            if (what, target) not in begun and (active or ("grant", target) in begun):
                order = await self._modes.step(order, await self._grant(order, wanted, what, target))
        for number, told in enumerate(plan.tasks):
            what, target = f"task{end}", f"{number}: {told.profile} {told.task}"
            said = told.parameters if active else told.afterwards
            if said is not None and (what, target) not in begun and (active or ("task", target) in begun):
                order = await self._modes.step(order, await self._tell(order, told, said, what, target))
        if plan.shed and (f"shed{end}", written(order.place)) not in begun:
            shed = Step(f"shed{end}", written(order.place), self._clock.now(), len(plan.shed), ", ".join(plan.shed))
            order = await self._modes.step(order, shed)
        if not active:
            await self._modes.ended(order)

    async def _grant(self, order: Order, wanted: Widening, what: str, target: str) -> Step:
        said = ""
        if self.widen is None:
            said = "this gateway shares nothing"
        else:
            try:
                await (self.widen.open if order.state == "active" else self.widen.close)(order, wanted)
            except (Lost, StoreFull, Conflict):
                raise
            except SensegateError as why:
                said = str(why)
        return Step(what, target, self._clock.now(), 0 if said else 1, said)

    async def _tell(self, order: Order, told: Telling, said: Mapping[str, Scalar], what: str, target: str) -> Step:
        """Give a task to each device, once: a restart in the middle finds those that have it."""
        part = Scope(order.place.division, order.place.department)
        name = f"{order.id}{'' if order.state == 'active' else '.end'}"
        have = {
            task.device
            for task in self._tasking.tasks.list(CLOCK)
            if task.order == name and task.told.task == told.task
        }
        refused: list[str] = []
        ids = self._devices.ids_of(told.profile, part)
        note = f"{'drill: ' if order.drill else ''}{order.reason}"[:500]
        rest_s = max(1.0, (order.until - self._clock.now()) / 1e6) if order.state == "active" else EXPIRES_S
        for device in ids:
            if device in have:
                continue
            try:
                await self._tasking.order(
                    self._devices.record(self._devices.find(device)),
                    told.task,
                    said,
                    by=CLOCK,
                    expires_s=rest_s,
                    note=note,
                    order=name,
                )
            except (Lost, StoreFull):
                raise
            except SensegateError as why:
                refused.append(f"{device}: {why}")
        wrong = f"{len(refused)} refused; the first: {refused[0]}" if refused else ""
        return Step(what, target, self._clock.now(), len(ids) - len(refused), wrong)
