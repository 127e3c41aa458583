"""Background jobs requested by people: start, inspect, cancel; the latest ones are remembered.

Jobs end with the process. Work that must outlive it stores its own state (see `reprocessing_orders`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, Scope, allows
from sensegate.clock import Clock
from sensegate.errors import Conflict, NotFound, Overloaded, SensegateError

RUNNING_MAX = 2
JOBS_MAX = 50

_log = structlog.get_logger("lifecycle")


class JobState(StrEnum):
    """State of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(msgspec.Struct):
    """A background job."""

    id: str
    kind: str
    profile: str
    target: Scope
    by: str
    started: int
    state: JobState = JobState.RUNNING
    share: float = 0.0
    """Completed share, 0 to 1."""
    ended: int = 0
    message: str = ""
    """Reason of its failure, or its present activity."""
    result: Any = None


Work = Callable[[Job], Awaitable[Any]]
"""Function that does the work and returns the result; it may update `share` and `message`."""


class Jobs:
    """All jobs of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, kind: str, profile: str, target: Scope, by: Principal, work: Work) -> Job:
        """Start a job. Raises `Overloaded` where too many are running."""
        if len(self._tasks) >= RUNNING_MAX:
            raise Overloaded(f"{len(self._tasks)} jobs are running; wait for one or cancel it", retry_after_s=5)
        job = Job(secrets.token_hex(6), kind, profile, target, by.id, self._clock.now())
        self._jobs[job.id] = job
        for oldest in [old.id for old in self._jobs.values() if old.id not in self._tasks and old is not job]:
            if len(self._jobs) <= JOBS_MAX:
                break
            del self._jobs[oldest]
        task = asyncio.create_task(self._run(job, work), name=f"{kind} {job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(partial(self._end, job))  # also of a task that is cancelled before its first step
        return job

    async def _run(self, job: Job, work: Work) -> None:
        try:
            job.result = await work(job)
            job.state, job.share = JobState.DONE, 1.0
        except SensegateError as why:
            job.state, job.message = JobState.FAILED, str(why)
            _log.warning("job failed", kind=job.kind, profile=job.profile, reason=str(why))

    def _end(self, job: Job, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            job.state = JobState.CANCELLED
        elif job.state is JobState.RUNNING:
            job.state, job.message = JobState.FAILED, "the job crashed because of a bug; the log has the traceback"
        job.ended = self._clock.now()
        self._tasks.pop(job.id, None)

    def list(self, profile: str, by: Principal) -> JobList:
        """Return the jobs of a profile that the caller may see, newest first."""
        jobs = (job for job in reversed(self._jobs.values()) if job.profile == profile)
        return [job for job in jobs if allows(by, Action.READ_REGISTRY, job.target.division, job.target.department)]

    def get(self, profile: str, job_id: str, by: Principal) -> Job:
        """Return a job. Raises `NotFound`."""
        job = next((job for job in self.list(profile, by) if job.id == job_id), None)
        if job is None:
            raise NotFound(f"there is no job {job_id[:20]} of {profile}; a restart forgets jobs")
        return job

    async def cancel(self, profile: str, job_id: str, by: Principal) -> Job:
        """Cancel a job. Raises `NotFound`, `Conflict` (it has ended)."""
        job = self.get(profile, job_id, by)
        task = self._tasks.get(job.id)
        if task is None:
            raise Conflict(f"job {job.id} is {job.state}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return job

    async def cancel_all(self) -> None:
        """Cancel all jobs."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


JobList = list[Job]
