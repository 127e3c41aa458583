"""The executor of mode orders: takes the steps of each, undoes them when it ends, and resumes after a restart.

ModeRegistry ─▶ ModeOrderExecutor ─▶ emergency grants, tasks of devices, properties that the uplink withholds
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Scope, scope_text
from sensegate.clock import Clock, wait_or_sleep
from sensegate.control.commands import CommandDispatcher
from sensegate.control.emergency_grants import EmergencyGrants
from sensegate.control.modes import MODE_ACTOR, EmergencyCommand, EmergencyGrant, ModeOrder, ModeRegistry, ModeStep
from sensegate.control.tasks import Scalar
from sensegate.errors import Conflict, Overloaded, SensegateError, StoreFull, Unavailable
from sensegate.model import SheddingRule

POLL_S = 1.0
EXPIRES_S = 86_400.0
"""Life of the tasks that devices get when an order ends."""
_log = structlog.get_logger("control")


class ModeOrderExecutor:
    """Carries mode orders out while `run`."""

    def __init__(
        self, modes: ModeRegistry, tasking: CommandDispatcher, devices: Devices, clock: Clock, grants: EmergencyGrants
    ) -> None:
        self._modes = modes
        self._tasking = tasking
        self._devices = devices
        self._clock = clock
        self._grants = grants
        self._tasked: dict[tuple[str, str], set[str]] = {}
        """(order, or its end; target of a step that is not complete) -> devices that have their task."""
        self._moved = asyncio.Event()
        modes.on_change.append(self._moved.set)

    def shed(self) -> Sequence[SheddingRule]:
        """Return the readings that active orders withhold from the centre."""
        return [
            SheddingRule(order.place.division, order.place.department, frozenset(order.plan.shed))
            for order in self._modes.unfinished()
            if order.state == "active" and order.plan.shed
        ]

    async def run(self) -> None:
        """Take and undo steps until cancelled."""
        while True:
            self._moved.clear()
            for order in list(self._modes.unfinished()):
                try:
                    await self._advance(order)
                except (Conflict, Overloaded, StoreFull, Unavailable) as why:  # also queues and the audit trail
                    _log.warning("mode order delayed", order=order.id, reason=str(why))
            await wait_or_sleep(self._moved, self._clock, POLL_S)

    async def _advance(self, order: ModeOrder) -> None:
        if order.state == "active" and self._clock.now() >= order.until:
            order = await self._modes.expire(order)
        plan, active = order.plan, order.state == "active"
        end = "" if active else ".end"
        taken = {(step.action, step.target) for step in order.steps}
        delayed: Overloaded | None = None
        for number, wanted in enumerate(plan.grants):
            action, target = f"grant{end}", f"{number}: {wanted.feed} to {wanted.subscriber}"
            if (action, target) not in taken and (active or ("grant", target) in taken):
                order = await self._modes.record_step(order, await self._grant(order, wanted, action, target))
        for number, command in enumerate(plan.tasks):
            action, target = f"task{end}", f"{number}: {command.profile} {command.task}"
            parameters = command.parameters if active else command.afterwards
            has_begun = active or ("task", target) in taken or self._has_begun(order, command)
            if parameters is not None and (action, target) not in taken and has_begun:
                try:
                    step = await self._command(order, command, parameters, action, target)
                except Overloaded as why:  # full queues delay their own step, not those behind it
                    delayed = why
                    continue
                order = await self._modes.record_step(order, step)
                self._tasked.pop((_order_name(order), target), None)
        if plan.shed and (f"shed{end}", scope_text(order.place)) not in taken:
            shed = ModeStep(
                f"shed{end}", scope_text(order.place), self._clock.now(), len(plan.shed), ", ".join(plan.shed)
            )
            order = await self._modes.record_step(order, shed)
        if delayed is not None:
            raise delayed
        if not active:
            await self._modes.finish(order)
            self._tasked = {
                key: devices for key, devices in self._tasked.items() if key[0] not in {order.id, f"{order.id}.end"}
            }

    async def _grant(self, order: ModeOrder, wanted: EmergencyGrant, action: str, target: str) -> ModeStep:
        problem = ""
        try:
            await (self._grants.open if order.state == "active" else self._grants.close)(order, wanted)
        except (Unavailable, StoreFull, Conflict):
            raise
        except SensegateError as why:
            problem = str(why)
        return ModeStep(action, target, self._clock.now(), 0 if problem else 1, problem)

    def _has_begun(self, order: ModeOrder, command: EmergencyCommand) -> bool:
        """Return whether devices have a task of an order whose step was not complete when it ended."""
        tasks = self._tasking.tasks.list(MODE_ACTOR)
        return any(task.order == order.id and task.command.task == command.task for task in tasks)

    async def _command(
        self, order: ModeOrder, command: EmergencyCommand, parameters: Mapping[str, Scalar], action: str, target: str
    ) -> ModeStep:
        """Queue a task for each device, once: after a restart those that have it are recognised.

        Raises:
            Overloaded: the queues of some devices are full; all others have their task.
            Unavailable, StoreFull: the store takes no tasks.
        """
        part = Scope(order.place.division, order.place.department)
        # Not as an administrator: what its giver may not tell a device, the order does not tell it either.
        giver = Principal(MODE_ACTOR.id, order.role, part, name=MODE_ACTOR.name)
        name = _order_name(order)
        have = self._tasked.setdefault((name, target), set())
        have.update(
            task.device
            for task in self._tasking.tasks.list(MODE_ACTOR)
            if task.order == name and task.command.task == command.task
        )
        refused: list[str] = []
        full = 0
        ids = self._devices.ids_of(command.profile, part)
        note = f"{'drill: ' if order.drill else ''}{order.reason}"[:500]
        rest_s = max(1.0, (order.until - self._clock.now()) / 1e6) if order.state == "active" else EXPIRES_S
        for device in ids:
            if device in have:
                continue
            if not self._tasking.tasks.has_room(device):
                full += 1
                continue
            try:
                await self._tasking.order(
                    self._devices.record(self._devices.find(device)),
                    command.task,
                    parameters,
                    by=giver,
                    expires_s=rest_s,
                    note=note,
                    order=name,
                )
                have.add(device)
            except (Overloaded, Unavailable, StoreFull):
                raise
            except SensegateError as why:
                refused.append(f"{device}: {why}")
        if full:
            raise Overloaded(f"{full} of {len(ids)} devices have no room for task {command.task}", retry_after_s=POLL_S)
        problem = f"{len(refused)} refused; the first: {refused[0]}" if refused else ""
        return ModeStep(action, target, self._clock.now(), len(ids) - len(refused), problem)


def _order_name(order: ModeOrder) -> str:
    """Return the name by which tasks refer to an order, or to its end."""
    return f"{order.id}{'' if order.state == 'active' else '.end'}"
