"""Tasks of devices: who told which device to do what, how far it is, and what became of it; they outlive a restart.

    queued ─▶ sent ─▶ done        its confirmation was read (or it has none, and it was sent)
    │         └────▶ expired      no confirmation in time
    └─▶ expired, cancelled        it was never sent

That a task is sent is written before it is sent: one that must not happen twice is sent once, or not at all.
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
"""Open tasks of one device."""
ENDED_MAX = 2_000
"""Ended tasks that are kept; the audit trail keeps all."""
FORGOTTEN_AT_ONCE = 100
NOTE_MAX = 500
EXPIRES_MAX_S = 30 * 86_400.0
Scalar = bool | int | float | str


class TaskState(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    SENT = "sent"
    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OPEN = (TaskState.QUEUED, TaskState.SENT)


class Confirm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reading that shows that a task was done."""

    property: str
    wanted: Scalar
    channel: str = ""
    tolerance: float = 0.0


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a profile makes of a task: where it goes and how it reads there."""

    task: str
    profile: str
    """``vendor/model@version`` by which it was written."""
    parameters: dict[str, Scalar]
    topics: tuple[str, ...]
    payload: bytes
    confirm: Confirm | None = None
    role: Role = Role.COUNTY_OPERATOR
    """Least that may give it."""
    when_heard: bool = False
    """Sent as soon as the device is heard."""
    expires_s: float = 600.0
    again_s: float = 0.0
    """Sent again while it is not confirmed; 0: never."""


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task of one device."""

    id: str
    device: str
    division: str
    department: str
    command: Command
    by: str
    made: int
    """µs UTC, as all its times."""
    until: int
    """It is given up then."""
    note: str = ""
    order: str = ""
    """The mode order of which it is a part."""
    state: TaskState = TaskState.QUEUED
    sends: int = 0
    sent: int = 0
    """When it was sent last."""
    ended: int = 0
    revision: int = 0
    format: int = 1


_CLOCK = Principal("clock", Role.ADMIN, Scope("44"), name="tasks")
"""Who acts when a task ends by itself."""


class TaskQueue:
    """All tasks of a gateway's devices."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock) -> None:
        self._shelf = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._tasks: RecordTable[Task] = RecordTable(self._shelf, "task", Task, prefix="", packed=True)
        self._tasks.on_change.append(self._changed)
        self._queues: dict[str, dict[str, Task]] = {}
        """Device -> its open tasks, oldest first."""
        self._open = 0
        """How many are open."""
        self.on_change: list[Callable[[Task], None]] = []
        """Called after a change is in memory."""

    async def enqueue(
        self,
        device: str,
        place: Scope,
        told: Command,
        *,
        by: Principal,
        expires_s: float = 0.0,
        note: str = "",
        order: str = "",
    ) -> Task:
        """Give a task to a device at `place` (its division and department); `expires_s` 0: as its profile says.

        Raises:
            PermissionDenied: `by` may not, or the task asks for a higher role.
            ConfigError: it means nothing. Overloaded: too many wait.
        """
        demand(by, Action.TASK_DEVICES, place.division, place.department)
        if not has_rank(by, told.role):
            raise PermissionDenied(f"task {told.task} asks for a {told.role}; you are a {by.role}")
        if not 0 <= expires_s <= EXPIRES_MAX_S:
            raise ConfigError(f"{expires_s:g} s", key="expires_s", remedy=f"up to {EXPIRES_MAX_S:g}; 0: as the profile")
        if len(note) > NOTE_MAX:
            raise ConfigError(f"{len(note)} characters", key="note", remedy=f"at most {NOTE_MAX}")
        if len(self._queues.get(device, ())) >= DEVICE_MAX:
            raise Overloaded(f"{DEVICE_MAX} tasks of {device} wait already", retry_after_s=30)
        if self._open >= OPEN_MAX:
            raise Overloaded(f"{OPEN_MAX} tasks wait already", retry_after_s=30)
        now = self._clock.now()
        until = now + round((expires_s or told.expires_s) * 1e6)
        task_id = f"{now // 1000:012x}{secrets.token_hex(4)}"
        task = Task(task_id, device, place.division, place.department, told, by.id, now, until, note=note, order=order)
        facts: Facts = {"task": told.task, "id": task.id, "parameters": dict(told.parameters), "profile": told.profile}
        if note:
            facts["note"] = note
        if order:
            facts["order"] = order
        await self._trail.record(by, "task.order", device, after=facts)
        given = await self._tasks.put(task.id, task, expected=0)
        await self._forget()
        return given

    async def cancel(self, task_id: str, *, by: Principal) -> Task:
        """Give a task up. Raises `NotFound`, `PermissionDenied`, `Conflict` (it was sent, or has ended)."""
        task = self.get(task_id, by)
        demand(by, Action.TASK_DEVICES, task.division, task.department)
        if task.state not in OPEN:
            raise Conflict(f"task {task.id} is {task.state}")
        if task.state is TaskState.SENT and not task.command.again_s:
            raise Conflict(f"task {task.id} was sent to {task.device}; it cannot be taken back")
        await self._trail.record(by, "task.cancel", task.device, after={"id": task.id, "sends": task.sends})
        return await self._set(task, state=TaskState.CANCELLED, ended=self._clock.now())

    def get(self, task_id: str, by: Principal) -> Task:
        """Return a task. Raises `NotFound` where there is none that the caller may see."""
        task = self._tasks.find(task_id)
        if task is None or not allows(by, Action.READ_REGISTRY, task.division, task.department):
            raise NotFound(f"no task {task_id[:20]} in your scope")
        return task

    def list(self, by: Principal, device: str = "") -> Iterable[Task]:
        """Return the tasks that the caller may see, newest first."""
        found = sorted(self._tasks.all(), key=lambda one: -one.made)
        return [
            candidate
            for candidate in found
            if (not device or candidate.device == device)
            and allows(by, Action.READ_REGISTRY, candidate.division, candidate.department)
        ]

    # ── the sender's side ───────────────────────────────────────────────────────────────────────────

    def open(self) -> Iterable[Task]:
        """Return the task of each device that is to be done now: its oldest open one."""
        return [next(iter(queue.values())) for queue in self._queues.values()]

    async def sending(self, task: Task) -> Task | None:
        """Say that a task is sent now; None where it has changed meanwhile and must not be."""
        try:
            return await self._set(task, state=TaskState.SENT, sends=task.sends + 1, sent=self._clock.now())
        except Conflict:
            return None

    async def end(self, task: Task, state: TaskState) -> None:
        """Say what became of a task; nothing where somebody else has."""
        present = self._tasks.find(task.id)
        if present is None or present.state not in OPEN:
            return
        facts: Facts = {"id": task.id, "task": task.command.task, "state": state.value, "sends": present.sends}
        await self._trail.record(_CLOCK, "task.end", task.device, after=facts)
        await self._set(present, state=state, ended=self._clock.now())

    def counts(self) -> Counter[TaskState]:
        """Return how many are in which state."""
        return Counter(task.state for task in self._tasks.all())

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        await self._shelf.open()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled; through losses of the engine."""
        await self._shelf.run()

    def _changed(self, before: Task | None, after: Task | None) -> None:
        """Keep the queues true to the records."""
        task = after or before
        if task is None:
            return
        is_open = after is not None and after.state in OPEN
        self._open += is_open - (before is not None and before.state in OPEN)
        queue = self._queues.setdefault(task.device, {})
        if is_open:
            queue[task.id] = task
        else:
            queue.pop(task.id, None)
        if not queue:
            del self._queues[task.device]
        if after is not None:
            for listener in self.on_change:
                listener(after)

    async def _set(self, task: Task, **changes: object) -> Task:
        present = self._tasks.find(task.id)
        if present is None or present.revision != task.revision:
            raise Conflict(f"task {task.id}: changed meanwhile")
        return await self._tasks.put(task.id, msgspec.structs.replace(present, **changes), expected=present.revision)

    async def _forget(self) -> None:
        # An order of an emergency gives thousands at once: it is not to sort them all each time.
        if len(self._tasks) - self._open <= ENDED_MAX + FORGOTTEN_AT_ONCE:
            return
        ended = [task for task in self._tasks.all() if task.state not in OPEN]
        for task in sorted(ended, key=lambda task: task.made)[: max(0, len(ended) - ENDED_MAX)]:
            try:
                await self._tasks.delete(task.id, expected=task.revision)
            except Conflict:
                continue  # another process was faster; the task that was given stands
