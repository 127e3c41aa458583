"""The command dispatcher: sends the tasks of each device to its topic, and reads their confirmations from its readings.

TaskQueue ─▶ CommandDispatcher ─▶ the brokers to which devices and network servers subscribe
ingest pipeline ─▶ CommandDispatcher.observe ─▶ TaskQueue (transmitted, acknowledged, failed, done)

One task of a device is in progress at a time, oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Scope
from sensegate.clock import Clock, wait_or_sleep
from sensegate.collect.commands import CommandChannel
from sensegate.control.capabilities import Capability, TaskingCapabilities
from sensegate.control.tasks import OPEN, UNDER_WAY, DeviceTask, Scalar, TaskQueue, TaskState
from sensegate.decode import downlink
from sensegate.decode.downlink import DownlinkFrame, DownlinkOutcome
from sensegate.decode.grammar import DownlinkEventPart
from sensegate.errors import ConfigError, Conflict, Overloaded, StoreFull, Unavailable
from sensegate.model import I32, Device, MessageBatch, Readings, Spec

POLL_S = 0.5
"""Interval of the checks of tasks for expiry and for repetition."""
_PUSHED = "http/"
"""First level of the topics of messages that are pushed by HTTP."""
OUTCOMES_MAX = 10_000
"""Greatest number of events of network servers that wait to be taken over."""
EARLIER_US = 60_000_000
"""Longest time before the sending of a task that its confirmation may bear: clocks of devices are coarse."""
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
        self._in_progress: dict[int, DeviceTask] = {}
        """Tasks in progress, by index of the device."""
        self._indices: I32 = np.empty(0, np.int32)
        self._heard: set[int] = set()
        self._shown: dict[str, DeviceTask] = {}
        self._uplinks: dict[int, str] = {}
        """Index of a device with an open task for its network server -> topic under which it was heard last."""
        self._watched: dict[str, list[tuple[str, str, list[DownlinkEventPart]]]] = {}
        """Topic of a network server's events -> (task, name of the device, rules)."""
        self._outcomes: list[tuple[str, DownlinkOutcome]] = []
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
    ) -> DeviceTask:
        """Queue a task for a device.

        Raises:
            ConfigError: the device has no such task, or a parameter is wrong.
            PermissionDenied, Overloaded: as `TaskQueue.enqueue`.
        """
        # A codec script encodes in a child process, which may be busy.
        command = await asyncio.to_thread(self._capabilities.command_for, device, task, parameters)
        place = Scope(device.division, device.department)
        return await self.tasks.enqueue(device.id, place, command, by=by, expires_s=expires_s, note=note, order=order)

    # ── confirmations ───────────────────────────────────────────────────────────────────────────────

    def observe(self, specs: Sequence[Spec], span: MessageBatch, readings: Readings) -> None:
        """Look in live messages for confirmations of tasks under way, and for what network servers tell of frames."""
        if self._watched:
            self._observe_events(span)
        if len(self._indices):
            self._note_uplinks(span, readings)
        self.observe_readings(specs, readings)

    def _note_uplinks(self, span: MessageBatch, readings: Readings) -> None:
        """Note the topics under which devices with open frames are heard."""
        for row in np.flatnonzero(np.isin(readings.device, self._indices)).tolist():
            at = int(readings.device[row])
            task = self._in_progress.get(at)
            if task is not None and task.command.frame is not None:
                self._uplinks[at] = span.topics[int(readings.message[row])]

    def _observe_events(self, span: MessageBatch) -> None:
        """Read the messages by which network servers report the results of frames."""
        for place, topic in enumerate(span.topics):
            for task, device, rules in self._watched.get(topic, ()):
                outcome = downlink.read_outcome(rules, span[place].payload, device, task)
                if outcome is not None and len(self._outcomes) < OUTCOMES_MAX:
                    self._outcomes.append((task, outcome))
                    self._moved.set()

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
                and task.state in UNDER_WAY
                and (spec.property, spec.channel) == (confirm.property, confirm.channel)
                and int(readings.received[row]) >= task.sent
                and int(readings.time[row]) >= task.sent - EARLIER_US
                and self._capabilities.confirms(confirm, float(readings.value[row]), readings.text.get(row))
            ):
                self._shown[task.id] = task
                self._moved.set()

    def _changed(self, _: DeviceTask) -> None:
        self._moved.set()

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Send and end tasks until cancelled."""
        while True:
            self._moved.clear()
            try:
                await self._check()
            except (Conflict, Overloaded, StoreFull, Unavailable) as why:
                _log.warning("tasks delayed", reason=str(why))
            # Checked when something happened, and now and then for what time alone changes.
            await wait_or_sleep(self._moved, self._clock, POLL_S)

    async def _check(self) -> None:
        # Each is forgotten once it is written: after an error in between they are applied again.
        while self._outcomes:
            await self._apply(*self._outcomes[0])
            del self._outcomes[0]
        while self._shown:
            task_id, task = next(iter(self._shown.items()))
            await self._end(task, TaskState.DONE)
            del self._shown[task_id]
        heard, self._heard = self._heard, set()
        try:
            await self._send_due(heard)
        except (Conflict, Overloaded, StoreFull, Unavailable):
            self._heard |= heard
            raise

    async def _send_due(self, heard: Collection[int]) -> None:
        """Send and end what is due; `heard`: devices that were heard since the last check."""
        in_progress: dict[int, DeviceTask] = {}
        watched: dict[str, list[tuple[str, str, list[DownlinkEventPart]]]] = {}
        now = self._clock.now()
        for task in self.tasks.due():
            at = self._devices.find(task.device)
            if now >= task.expires or at < 0:
                await self._end(task, TaskState.EXPIRED)
                continue
            due = task.state is TaskState.QUEUED or (
                task.state is TaskState.SENT
                and task.command.retry_s > 0
                and now - task.sent >= task.command.retry_s * 1e6
            )
            if due and self._devices.enabled[at] and (not task.command.when_online or at in heard):
                send = self._send if task.command.frame is None else self._send_frame
                task = await send(task, self._devices.record(at))  # noqa: PLW2901 - the same, sent
            if task.state in OPEN:
                in_progress[at] = task
            if task.state in UNDER_WAY and task.base:
                self._watch(watched, task, self._devices.record(at))
        self._in_progress = in_progress
        self._watched = watched
        self._uplinks = {at: topic for at, topic in self._uplinks.items() if at in in_progress}
        self._indices = np.array(list(in_progress), np.int32)

    def _valid_s(self, task: DeviceTask) -> int:
        """Return for how many seconds a sent task is kept for a device that is away.

        It ends with the task, and with its next retry: a device that comes back is told once.
        """
        remaining_s = (task.expires - self._clock.now()) / 1e6
        return int(min(remaining_s, task.command.retry_s or remaining_s))

    async def _send(self, task: DeviceTask, device: Device) -> DeviceTask:
        channels = [channel for channel in self._channels if any(map(channel.reaches, self._topics(device)))]
        if not channels:
            # The device subscribes nowhere: the task must not be shown as sent. It waits, and expires.
            return task
        sent = await self._mark_sent(task)
        if sent is None:
            return task
        lost = False
        for channel in channels:
            for topic in task.command.topics:
                try:
                    await channel.send(topic, task.command.payload, valid_s=self._valid_s(task))
                except Unavailable as why:
                    lost = True
                    _log.warning("task not sent", task=task.id, device=task.device, reason=str(why))
        metrics.TASKS.labels("sent").inc()
        if task.command.confirm is None and not lost:
            await self._end(sent, TaskState.DONE)
            return msgspec.structs.replace(sent, state=TaskState.DONE)
        return sent

    async def _send_frame(self, task: DeviceTask, device: Device) -> DeviceTask:
        """Send a frame to the device's network server, as soon as it is known under which topic it has the device."""
        frame, uplink = task.command.frame, self._uplinks.get(self._devices.find(device.id))
        if frame is None or uplink is None:
            return task
        network = self._capabilities.network_of(device, uplink, replace=frame.replace)
        channels = [channel for channel in self._channels if channel.reaches(uplink)]
        if network is None or not channels:
            return await self._fail(task, _without_route(uplink))
        try:
            name, now = _network_name(device), self._clock.now()
            made = DownlinkFrame(name, task.command.payload, frame.port, frame.confirmed, task.id, now)
            message = downlink.build_envelope(network.downlink, made)
        except ConfigError as why:
            return await self._fail(task, str(why))
        sent = await self._mark_sent(task, server=network.server, base=network.route.base)
        if sent is None:
            return task
        self._watch(self._watched, sent, device)  # before it is sent: the answer may be quick
        for channel in channels:
            try:
                await channel.send(network.route.topic, message, valid_s=self._valid_s(task))
            except Unavailable as why:
                _log.warning("task not sent", task=task.id, device=task.device, reason=str(why))
        metrics.TASKS.labels("sent").inc()
        return sent

    async def _mark_sent(self, task: DeviceTask, *, server: str = "", base: str = "") -> DeviceTask | None:
        """Mark a task sent, and look for its confirmation from now on: a quick device confirms during the sending.

        Returns:
            The task as sent; None: it has ended, or another process changed it.
        """
        sent = await self.tasks.mark_sent(task, server=server, base=base)
        if sent is not None:
            at = self._devices.find(sent.device)
            if at not in self._in_progress:
                self._indices = np.append(self._indices, np.int32(at))
            self._in_progress[at] = sent
        return sent

    async def _fail(self, task: DeviceTask, reason: str) -> DeviceTask:
        await self._end(task, TaskState.FAILED, reason)
        return msgspec.structs.replace(task, state=TaskState.FAILED)

    def _watch(
        self, watched: dict[str, list[tuple[str, str, list[DownlinkEventPart]]]], task: DeviceTask, device: Device
    ) -> None:
        """Watch for the network server's reports of a frame."""
        part = self._capabilities.downlink_of(task.server)
        if part is None:
            return
        for topic, rules in downlink.event_topics(part, task.base).items():
            watchers = watched.setdefault(topic, [])
            if all(task_id != task.id for task_id, _, _ in watchers):
                watchers.append((task.id, _network_name(device), rules))

    async def _apply(self, task_id: str, outcome: DownlinkOutcome) -> None:
        """Apply a network server's report of a frame; a task ends with the last report that it can expect."""
        task = self.tasks.find(task_id)
        if task is None or task.state not in UNDER_WAY or task.command.frame is None:
            return
        state = TaskState(outcome.state)
        expects_more = task.command.confirm is not None or (
            state is TaskState.TRANSMITTED and task.command.frame.confirmed
        )
        if state is TaskState.FAILED:
            await self._end(task, state, outcome.reason)
        elif expects_more:
            await self.tasks.progress(task_id, state)
            metrics.TASKS.labels(state.value).inc()
        else:
            await self._end(task, TaskState.DONE)

    async def _end(self, task: DeviceTask, state: TaskState, reason: str = "") -> None:
        await self.tasks.finish(task, state, reason)
        metrics.TASKS.labels(state.value).inc()


def _without_route(uplink: str) -> str:
    """Return why no downlink can go to the network server whose uplinks come by this topic."""
    if uplink.startswith(_PUSHED):
        return "its network server pushes by HTTP, which brings no downlinks; have it publish by MQTT as well"
    return "its network server takes no downlinks by this topic: see `downlink` in the server's profile"


def _network_name(device: Device) -> str:
    """Return the name of a device at its network server: its DevEUI, which is its alias or its id."""
    return (device.alias or device.id).lower()
