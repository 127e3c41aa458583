"""The command dispatcher: sends the tasks of each device to its topic, and reads their confirmations from its readings.

TaskQueue ─▶ CommandDispatcher ─▶ the brokers to which devices subscribe
ingest pipeline ─▶ CommandDispatcher.observe ─▶ TaskQueue (done)

One task of a device is in progress at a time, oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Scope
from sensegate.clock import Clock, moved
from sensegate.collect.commands import CommandChannel
from sensegate.control.capabilities import Capability, TaskingCapabilities
from sensegate.control.tasks import Scalar, Task, TaskQueue, TaskState
from sensegate.errors import Conflict, StoreFull, Unavailable
from sensegate.ingest.batches import DecodedBatch
from sensegate.model import I32, Device, Readings, Span, Spec

POLL_S = 0.5
"""How often tasks are checked for expiry and for repetition."""
EARLIER_US = 60_000_000
"""How long before the sending of a task its confirmation may be dated: clocks of devices are coarse."""
_log = structlog.get_logger("control")


class CommandDispatcher:
    """Sends queued tasks and recognises their confirmations."""

    def __init__(
        self,
        tasks: TaskQueue,
        devices: Devices,
        capabilities: TaskingCapabilities,
        clock: Clock,
        *,
        channels: Sequence[CommandChannel],
        topics: Callable[[Device], Sequence[str]],
    ) -> None:
        """Send nothing yet.

        Args:
            tasks: the queue.
            devices: the registry.
            capabilities: what each device can be told.
            clock: the clock.
            channels: brokers to which devices subscribe.
            topics: topics under which a device publishes; they tell to which broker it subscribes.
        """
        self.tasks = tasks
        self._devices = devices
        self._capabilities = capabilities
        self._clock = clock
        self._topics = topics
        self._channels = channels
        self._in_progress: dict[int, Task] = {}
        """By index of the device."""
        self._indices: I32 = np.empty(0, np.int32)
        self._heard: set[int] = set()
        self._shown: dict[str, Task] = {}
        self._moved = asyncio.Event()
        tasks.on_change.append(self._changed)

    # ── ordering ───────────────────────────────────────────────────────────────────────────────

    def capabilities(self, device: Device) -> Sequence[Capability]:
        """Return the tasks that a device can perform."""
        return self._capabilities.capabilities(device)

    async def order(
        self,
        device: Device,
        task: str,
        parameters: Mapping[str, Scalar],
        *,
        by: Principal,
        expires_s: float = 0.0,
        note: str = "",
        order: str = "",
    ) -> Task:
        """Queue a task for a device.

        Raises:
            ConfigError: the device has no such task, or a parameter is wrong.
            PermissionDenied, Overloaded: as `TaskQueue.enqueue`.
        """
        command = self._capabilities.command_for(device, task, parameters)
        place = Scope(device.division, device.department)
        return await self.tasks.enqueue(device.id, place, command, by=by, expires_s=expires_s, note=note, order=order)

    # ── confirmations ───────────────────────────────────────────────────────────────────────────────

    def observe(self, specs: Sequence[Spec], _span: Span, batch: DecodedBatch) -> None:
        """Look in the readings of live messages for confirmations of tasks under way."""
        self.observe_readings(specs, batch.readings)

    def observe_readings(self, specs: Sequence[Spec], readings: Readings) -> None:
        """Look in readings for confirmations of tasks under way."""
        if not len(self._indices):
            return
        for row in np.flatnonzero(np.isin(readings.device, self._indices)).tolist():
            at = int(readings.device[row])
            task = self._in_progress.get(at)
            if task is None:
                continue
            if at not in self._heard:
                self._heard.add(at)
                self._moved.set()
            confirm, spec = task.command.confirm, specs[int(readings.spec[row])]
            if (
                confirm is not None
                and task.state is TaskState.SENT
                and (spec.property, spec.channel) == (confirm.property, confirm.channel)
                and int(readings.received[row]) >= task.sent
                and int(readings.time[row]) >= task.sent - EARLIER_US
                and self._capabilities.confirms(confirm, float(readings.value[row]), readings.text.get(row))
            ):
                self._shown[task.id] = task
                self._moved.set()

    def _changed(self, _: Task) -> None:
        self._moved.set()

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send and end tasks until cancelled."""
        while True:
            self._moved.clear()
            try:
                await self._check()
            except (Conflict, StoreFull) as why:
                _log.warning("tasks delayed", reason=str(why))
            # Checked when something happened, and now and then for what time alone changes.
            await moved(self._moved, self._clock, POLL_S)

    async def _check(self) -> None:
        shown, self._shown = self._shown, {}
        for task in shown.values():
            await self._end(task, TaskState.DONE)
        heard, self._heard = self._heard, set()
        in_progress: dict[int, Task] = {}
        now = self._clock.now()
        for task in self.tasks.open():
            at = self._devices.find(task.device)
            if now >= task.until or at < 0:
                await self._end(task, TaskState.EXPIRED)
                continue
            due = task.state is TaskState.QUEUED or (
                task.command.again_s > 0 and now - task.sent >= task.command.again_s * 1e6
            )
            if due and self._devices.enabled[at] and (not task.command.when_heard or at in heard):
                task = await self._send(task, self._devices.record(at))  # noqa: PLW2901 - the same, sent
            if task.state in (TaskState.QUEUED, TaskState.SENT):
                in_progress[at] = task
        self._in_progress = in_progress
        self._indices = np.array(list(in_progress), np.int32)

    async def _send(self, task: Task, device: Device) -> Task:
        channels = [channel for channel in self._channels if any(map(channel.reaches, self._topics(device)))]
        if not channels:
            # The device subscribes nowhere: the task must not be shown as sent. It waits, and expires.
            return task
        sent = await self.tasks.sending(task)
        if sent is None:
            return task
        lost = False
        for channel in channels:
            for topic in task.command.topics:
                try:
                    await channel.send(topic, task.command.payload)
                except Unavailable as why:
                    lost = True
                    _log.warning("task not sent", task=task.id, device=task.device, reason=str(why))
        metrics.TASKS.labels("sent").inc()
        if task.command.confirm is None and not lost:
            await self._end(sent, TaskState.DONE)
            return msgspec.structs.replace(sent, state=TaskState.DONE)
        return sent

    async def _end(self, task: Task, state: TaskState) -> None:
        await self.tasks.end(task, state)
        metrics.TASKS.labels(state.value).inc()
