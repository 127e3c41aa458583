"""Work that takes a while and is asked for by people: begun, looked at, given up; the last ones are remembered.

Jobs live as long as the process. What must outlive it keeps its own state (see `redecode`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, Scope, allows
from sensegate.clock import Clock
from sensegate.errors import Conflict, NotFound, Overloaded, SensegateError

RUNNING_MAX = 2
JOBS_MAX = 50

_log = structlog.get_logger("jobs")


class JobState(StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(msgspec.Struct):
    """One piece of work."""

    id: str
    kind: str
    profile: str
    target: Scope
    by: str
    started: int
    state: JobState = JobState.RUNNING
    share: float = 0.0
    """What is done, 0 to 1."""
    ended: int = 0
    message: str = ""
    """Why it failed; what it is doing."""
    result: Any = None


Work = Callable[[Job], Awaitable[Any]]
"""Does it and returns the result; tells `share` and `message` on the way."""


class Jobs:
    """All jobs of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, kind: str, profile: str, target: Scope, by: Principal, work: Work) -> Job:
        """Begin a job. Raises `Overloaded` where too many run."""
        if len(self._tasks) >= RUNNING_MAX:
            raise Overloaded(f"{len(self._tasks)} jobs run; wait for one or give it up", retry_after_s=5)
        job = Job(secrets.token_hex(6), kind, profile, target, by.id, self._clock.now())
        self._jobs[job.id] = job
        while len(self._jobs) > JOBS_MAX:
            self._jobs.popitem(last=False)
        self._tasks[job.id] = asyncio.create_task(self._run(job, work), name=f"{kind} {job.id}")
        return job

    async def _run(self, job: Job, work: Work) -> None:
        try:
            job.result = await work(job)
            job.state, job.share = JobState.DONE, 1.0
        except asyncio.CancelledError:
            job.state = JobState.CANCELLED
        except SensegateError as why:
            job.state, job.message = JobState.FAILED, str(why)
            _log.warning("a job failed", kind=job.kind, profile=job.profile, why=str(why))
        finally:
            if job.state is JobState.RUNNING:
                job.state, job.message = JobState.FAILED, "it crashed: a bug; the log has the traceback"
            job.ended = self._clock.now()
            self._tasks.pop(job.id, None)

    def list(self, profile: str, by: Principal) -> JobList:
        """Return the jobs of a profile that the caller may see, newest first."""
        found = (job for job in reversed(self._jobs.values()) if job.profile == profile)
        return [job for job in found if allows(by, Action.READ_REGISTRY, job.target.division, job.target.department)]

    def get(self, profile: str, job_id: str, by: Principal) -> Job:
        """Return a job. Raises `NotFound`."""
        found = next((job for job in self.list(profile, by) if job.id == job_id), None)
        if found is None:
            raise NotFound(f"no job {job_id[:20]} of {profile}; jobs are forgotten at a restart")
        return found

    async def cancel(self, profile: str, job_id: str, by: Principal) -> Job:
        """Give a job up. Raises `NotFound`, `Conflict` (it has ended)."""
        job = self.get(profile, job_id, by)
        task = self._tasks.get(job.id)
        if task is None:
            raise Conflict(f"job {job.id} is {job.state}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return job

    async def cancel_all(self) -> None:
        """Give all up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


JobList = list[Job]
