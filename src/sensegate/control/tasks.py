"""Tasks of devices: queued commands, their state and outcome; they survive restarts.

    queued ─▶ sent ─▶ done        the confirming reading came (or the task has none, and it was sent)
    │         └────▶ expired      no confirmation in time
    └─▶ expired, cancelled        the task was never sent

A frame for a device behind a network server is sent to that server, which tells what became of it:

    sent ─▶ transmitted ─▶ acknowledged ─▶ done      as far as it is told; a task ends at the last that it can expect
    └─────────┴──────────▶ failed                    the server or the device did not take it

The state `sent` is written before a task is sent: a task that must not run twice is sent once, or not at all.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, has_rank
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied

OPEN_MAX = 20_000
DEVICE_MAX = 20
"""Most open tasks of a device."""
ENDED_MAX = 2_000
"""Most ended tasks that are kept; the audit trail keeps all."""
DELETED_AT_ONCE = 100
NOTE_MAX = 500
EXPIRES_MAX_S = 30 * 86_400.0
Scalar = bool | int | float | str


class TaskState(StrEnum):
    """State of a task."""

    QUEUED = "queued"
    SENT = "sent"
    TRANSMITTED = "transmitted"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


UNDER_WAY = (TaskState.SENT, TaskState.TRANSMITTED, TaskState.ACKNOWLEDGED)
OPEN = (TaskState.QUEUED, *UNDER_WAY)


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reading that confirms that a task was done."""

    property: str
    expected: Scalar
    channel: str = ""
    tolerance: float = 0.0


class FrameCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """Command that a network server delivers as a frame."""

    port: int
    confirmed: bool = False
    replace: bool = False


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task as encoded by a profile: topics and payload of the command."""

    task: str
    profile: str
    """``vendor/model@version`` by which it was encoded."""
    parameters: dict[str, Scalar]
    topics: tuple[str, ...]
    payload: bytes
    confirm: Confirmation | None = None
    role: Role = Role.COUNTY_OPERATOR
    """Lowest role that may give the task."""
    when_online: bool = False
    """True if it is sent only once a message of the device arrives."""
    expires_s: float = 600.0
    retry_s: float = 0.0
    """Interval of retries while it is not confirmed; 0: no retries."""
    frame: FrameCommand | None = None
    """The payload is a frame for the device's network server, which puts it into its own envelope."""


class DeviceTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task of a device."""

    id: str
    device: str
    division: str
    department: str
    command: Command
    by: str
    created: int
    """µs UTC, as all times of a task."""
    expires: int
    """Time at which it is abandoned."""
    note: str = ""
    order: str = ""
    """Id of the mode order that created it; empty: none."""
    state: TaskState = TaskState.QUEUED
    sends: int = 0
    sent: int = 0
    """Time of the last sending."""
    ended: int = 0
    server: str = ""
    """Profile of the network server to which a frame was sent."""
    base: str = ""
    """Prefix of the device's topics at that server."""
    reason: str = ""
    """Reason of the failure."""
    revision: int = 0
    format: int = 1


_CLOCK = Principal("clock", Role.ADMIN, Scope("44"), name="tasks")
"""Principal in whose name a task ends by itself."""


class TaskQueue:
    """Queues of the tasks of a gateway's devices."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock) -> None:
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._tasks: RecordTable[DeviceTask] = RecordTable(self._store, "task", DeviceTask, prefix="", packed=True)
        self._tasks.on_change.append(self._changed)
        self._queues: dict[str, dict[str, DeviceTask]] = {}
        """Device -> its open tasks, oldest first."""
        self._open = 0
        """Number of open tasks."""
        self.on_change: list[Callable[[DeviceTask], None]] = []
        """Called after a change is in memory."""

    async def enqueue(
        self,
        device: str,
        place: Scope,
        command: Command,
        *,
        by: Principal,
        expires_s: float = 0.0,
        note: str = "",
        order: str = "",
    ) -> DeviceTask:
        """Queue a task for a device at `place` (its division and department); `expires_s` 0: as in the profile.

        Raises:
            PermissionDenied: `by` may not, or the task requires a higher role.
            ConfigError: an argument is invalid. Overloaded: too many tasks wait.
        """
        demand(by, Action.TASK_DEVICES, place.division, place.department)
        if not has_rank(by, command.role):
            raise PermissionDenied(f"task {command.task} requires the role {command.role}; yours is {by.role}")
        if not 0 <= expires_s <= EXPIRES_MAX_S:
            raise ConfigError(
                f"{expires_s:g} s is out of range",
                key="expires_s",
                remedy=f"give at most {EXPIRES_MAX_S:g}; 0: as in the profile",
            )
        if len(note) > NOTE_MAX:
            raise ConfigError(f"{len(note)} characters are too many", key="note", remedy=f"give at most {NOTE_MAX}")
        if len(self._queues.get(device, ())) >= DEVICE_MAX:
            raise Overloaded(f"{DEVICE_MAX} tasks of {device} already wait", retry_after_s=30)
        if self._open >= OPEN_MAX:
            raise Overloaded(f"{OPEN_MAX} tasks already wait", retry_after_s=30)
        now = self._clock.now()
        until = now + round((expires_s or command.expires_s) * 1e6)
        task_id = f"{now // 1000:012x}{secrets.token_hex(4)}"
        task = DeviceTask(
            task_id, device, place.division, place.department, command, by.id, now, until, note=note, order=order
        )
        facts: Facts = {
            "task": command.task,
            "id": task.id,
            "parameters": dict(command.parameters),
            "profile": command.profile,
        }
        if note:
            facts["note"] = note
        if order:
            facts["order"] = order
        await self._trail.record(by, "task.order", device, after=facts)
        given = await self._tasks.put(task.id, task, expected=0)
        await self._delete_oldest()
        return given

    def has_room(self, device: str) -> bool:
        """Return whether `enqueue` takes one more task of a device."""
        return self._open < OPEN_MAX and len(self._queues.get(device, ())) < DEVICE_MAX

    async def cancel(self, task_id: str, *, by: Principal) -> DeviceTask:
        """Cancel a task. Raises `NotFound`, `PermissionDenied`, `Conflict` (it was sent, or has ended)."""
        task = self.get(task_id, by)
        demand(by, Action.TASK_DEVICES, task.division, task.department)
        if task.state not in OPEN:
            raise Conflict(f"task {task.id} is {task.state}")
        if task.state in UNDER_WAY and not task.command.retry_s:
            raise Conflict(f"task {task.id} was sent to {task.device}; it can no longer be cancelled")
        await self._trail.record(by, "task.cancel", task.device, after={"id": task.id, "sends": task.sends})
        return await self._set(task, state=TaskState.CANCELLED, ended=self._clock.now())

    def get(self, task_id: str, by: Principal) -> DeviceTask:
        """Return a task. Raises `NotFound` where there is none that the caller may see."""
        task = self._tasks.find(task_id)
        if task is None or not allows(by, Action.READ_REGISTRY, task.division, task.department):
            raise NotFound(f"there is no task {task_id[:20]} in your scope")
        return task

    def list(self, by: Principal, device: str = "") -> Iterable[DeviceTask]:
        """Return the tasks that the caller may see, newest first."""
        tasks = sorted(self._tasks.all(), key=lambda task: -task.created)
        return [
            task
            for task in tasks
            if (not device or task.device == device)
            and allows(by, Action.READ_REGISTRY, task.division, task.department)
        ]

    # ── for the sender ──────────────────────────────────────────────────────────────────────────────

    def due(self) -> Iterable[DeviceTask]:
        """Return the task of each device that is due: its oldest open one."""
        return [next(iter(queue.values())) for queue in self._queues.values()]

    async def mark_sent(self, task: DeviceTask, *, server: str = "", base: str = "") -> DeviceTask | None:
        """Mark a task as sent and return it; None where it was changed meanwhile and must not be sent."""
        now = self._clock.now()
        try:
            return await self._set(task, state=TaskState.SENT, sends=task.sends + 1, sent=now, server=server, base=base)
        except Conflict:
            return None

    def find(self, task_id: str) -> DeviceTask | None:
        """Return a task, None if there is none."""
        return self._tasks.find(task_id)

    async def progress(self, task_id: str, state: TaskState) -> None:
        """Set the state of a task that is under way, if it comes after the present one."""
        present = self._tasks.find(task_id)
        if (
            present is None
            or present.state not in UNDER_WAY
            or UNDER_WAY.index(state) <= UNDER_WAY.index(present.state)
        ):
            return
        await self._set(present, state=state)

    async def finish(self, task: DeviceTask, state: TaskState, reason: str = "") -> None:
        """Set the final state of a task, unless it has ended already."""
        present = self._tasks.find(task.id)
        if present is None or present.state not in OPEN:
            return
        facts: Facts = {"id": task.id, "task": task.command.task, "state": state.value, "sends": present.sends}
        if reason:
            facts["reason"] = reason
        await self._trail.record(_CLOCK, "task.end", task.device, after=facts)
        await self._set(present, state=state, ended=self._clock.now(), reason=reason)

    def counts(self) -> Counter[TaskState]:
        """Return the number of tasks per state."""
        return Counter(task.state for task in self._tasks.all())

    # ── following the bucket ────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes made by every process until cancelled; resumes after a loss of the engine."""
        await self._store.run()

    def _changed(self, before: DeviceTask | None, after: DeviceTask | None) -> None:
        """Update the queues after a change of a record."""
        task = after or before
        if task is None:
            return
        is_open = after is not None and after.state in OPEN
        self._open += is_open - (before is not None and before.state in OPEN)
        queue = self._queues.setdefault(task.device, {})
        if is_open:
            is_new = task.id not in queue
            queue[task.id] = task
            if is_new and len(queue) > 1:
                # After a restart they come in the order of their last changes.
                ordered = sorted(queue.items(), key=lambda item: (item[1].created, item[0]))
                self._queues[task.device] = dict(ordered)
        else:
            queue.pop(task.id, None)
        if not queue:
            del self._queues[task.device]
        if after is not None:
            for listener in self.on_change:
                listener(after)

    async def _set(self, task: DeviceTask, **changes: object) -> DeviceTask:
        present = self._tasks.find(task.id)
        if present is None or present.revision != task.revision:
            raise Conflict(f"task {task.id}: changed meanwhile")
        return await self._tasks.put(task.id, msgspec.structs.replace(present, **changes), expected=present.revision)

    async def _delete_oldest(self) -> None:
        # A mode order creates thousands of tasks at once, so they are not sorted each time.
        if len(self._tasks) - self._open <= ENDED_MAX + DELETED_AT_ONCE:
            return
        ended = [task for task in self._tasks.all() if task.state not in OPEN]
        for task in sorted(ended, key=lambda task: task.created)[: max(0, len(ended) - ENDED_MAX)]:
            try:
                await self._tasks.delete(task.id, expected=task.revision)
            except Conflict:
                continue  # another process has changed or deleted it
