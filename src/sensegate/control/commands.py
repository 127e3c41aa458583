"""The sender of tasks: from the queue of each device to its topic, and from its readings back to what became of them.

Tasks ─▶ Tasking ─▶ the brokers on which devices listen          the walk ─▶ `walked` ─▶ Tasks (done)

One task of a device is under way at a time, oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Scope
from sensegate.clock import Clock, moved
from sensegate.control.tasks import Confirm, Scalar, Task, Tasks, TaskState, Told
from sensegate.errors import Conflict, Lost, StoreFull
from sensegate.ingest.batches import DecodedBatch
from sensegate.model import I32, Device, Readings, Span, Spec

LOOK_S = 0.5
"""So often it is looked at what has expired or is due again."""
EARLIER_US = 60_000_000
"""A confirmation may be dated so long before the task was sent: clocks of devices are coarse."""
_log = structlog.get_logger("tasking")


class Parameter(msgspec.Struct, frozen=True):
    """What must be said with a task."""

    name: str
    kind: str
    label_zh: str
    label_en: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    words: tuple[Scalar, ...] = ()
    """The only ones that may be said; empty: any of its kind and range."""
    default: Scalar | None = None


class Capability(msgspec.Struct, frozen=True):
    """What a device can be told to do."""

    task: str
    label_zh: str
    label_en: str
    role: str
    """Least role that may."""
    parameters: tuple[Parameter, ...]
    confirmed: bool
    """Whether a reading shows that it was done."""
    when: str
    """``now`` or ``heard``."""
    expires_s: float
    again_s: float


class Speech(Protocol):
    """What profiles know of tasks (`life.Speaker`)."""

    def capabilities(self, device: Device) -> Sequence[Capability]:
        """Return what a device can be told to do."""
        ...

    def told(self, device: Device, task: str, said: Mapping[str, Scalar]) -> Told:
        """Return a task as it is sent. Raises `ConfigError`."""
        ...

    def shows(self, confirm: Confirm, value: float, text: str | None) -> bool:
        """Return whether a reading confirms a task."""
        ...


class Way(Protocol):
    """A broker on which devices listen (`collect.commands.Way`)."""

    def reaches(self, about: str) -> bool:
        """Return whether messages of this topic come from there."""
        ...

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish. Raises `Lost`."""
        ...


class Tasking:
    """Sends what is queued, reads what became of it."""

    def __init__(
        self,
        tasks: Tasks,
        devices: Devices,
        speech: Speech,
        clock: Clock,
        *,
        topics: Callable[[Device], Sequence[str]],
    ) -> None:
        """`topics`: those at which a device publishes, by which the broker is known on which it listens."""
        self.tasks = tasks
        self._devices = devices
        self._speech = speech
        self._clock = clock
        self._topics = topics
        self.ways: Sequence[Way] = ()
        self._under_way: dict[int, Task] = {}
        """By index of the device."""
        self._indices: I32 = np.empty(0, np.int32)
        self._heard: set[int] = set()
        self._shown: dict[str, Task] = {}
        self._moved = asyncio.Event()
        tasks.on_change.append(self._changed)

    # ── what is asked ───────────────────────────────────────────────────────────────────────────────

    def capabilities(self, device: Device) -> Sequence[Capability]:
        """Return what a device can be told to do."""
        return self._speech.capabilities(device)

    async def order(
        self,
        device: Device,
        task: str,
        said: Mapping[str, Scalar],
        *,
        by: Principal,
        expires_s: float = 0.0,
        note: str = "",
        order: str = "",
    ) -> Task:
        """Give a task to a device.

        Raises:
            ConfigError: it has no such task, or a parameter is wrong; Refused; Overloaded.
        """
        told = self._speech.told(device, task, said)
        place = Scope(device.division, device.department)
        return await self.tasks.order(device.id, place, told, by=by, expires_s=expires_s, note=note, order=order)

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────

    def observe(self, specs: Sequence[Spec], _span: Span, batch: DecodedBatch) -> None:
        """Look in the readings of live messages for confirmations of tasks under way."""
        self.observe_readings(specs, batch.readings)

    def observe_readings(self, specs: Sequence[Spec], readings: Readings) -> None:
        """Look in readings for confirmations of tasks under way."""
        if not len(self._indices):
            return
        for row in np.flatnonzero(np.isin(readings.device, self._indices)).tolist():
            at = int(readings.device[row])
            task = self._under_way.get(at)
            if task is None:
                continue
            if at not in self._heard:
                self._heard.add(at)
                self._moved.set()
            confirm, spec = task.told.confirm, specs[int(readings.spec[row])]
            if (
                confirm is not None
                and task.state is TaskState.SENT
                and (spec.property, spec.channel) == (confirm.property, confirm.channel)
                and int(readings.received[row]) >= task.sent
                and int(readings.time[row]) >= task.sent - EARLIER_US
                and self._speech.shows(confirm, float(readings.value[row]), readings.text.get(row))
            ):
                self._shown[task.id] = task
                self._moved.set()

    def _changed(self, _: Task) -> None:
        self._moved.set()

    # ── what is sent ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send and end tasks until cancelled."""
        while True:
            self._moved.clear()
            try:
                await self._look()
            except (Conflict, StoreFull) as why:
                _log.warning("tasks wait", cause=str(why))
            # Looked at again when something happened, and every now and then for what time alone changes.
            await moved(self._moved, self._clock, LOOK_S)

    async def _look(self) -> None:
        shown, self._shown = self._shown, {}
        for task in shown.values():
            await self._end(task, TaskState.DONE)
        heard, self._heard = self._heard, set()
        under_way: dict[int, Task] = {}
        now = self._clock.now()
        for task in self.tasks.open():
            at = self._devices.find(task.device)
            if now >= task.until or at < 0:
                await self._end(task, TaskState.EXPIRED)
                continue
            due = task.state is TaskState.QUEUED or (
                task.told.again_s > 0 and now - task.sent >= task.told.again_s * 1e6
            )
            if due and self._devices.enabled[at] and (not task.told.when_heard or at in heard):
                task = await self._send(task, self._devices.record(at))  # noqa: PLW2901 - the same, sent
            if task.state in (TaskState.QUEUED, TaskState.SENT):
                under_way[at] = task
        self._under_way = under_way
        self._indices = np.array(list(under_way), np.int32)

    async def _send(self, task: Task, device: Device) -> Task:
        ways = [way for way in self.ways if any(map(way.reaches, self._topics(device)))]
        if not ways:
            # It does not listen anywhere: nobody shall read that it was told. The task waits, and expires.
            return task
        sent = await self.tasks.sending(task)
        if sent is None:
            return task
        lost = False
        for way in ways:
            for topic in task.told.topics:
                try:
                    await way.send(topic, task.told.payload)
                except Lost as why:
                    lost = True
                    _log.warning("a task was not sent", task=task.id, device=task.device, cause=str(why))
        metrics.TASKS.labels("sent").inc()
        if task.told.confirm is None and not lost:
            await self._end(sent, TaskState.DONE)
            return msgspec.structs.replace(sent, state=TaskState.DONE)
        return sent

    async def _end(self, task: Task, state: TaskState) -> None:
        await self.tasks.end(task, state)
        metrics.TASKS.labels(state.value).inc()
