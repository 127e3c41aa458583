"""Work in the background: begun, looked at, given up, and what is told when it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.clock import FakeClock
from sensegate.errors import Conflict, NotFound, Overloaded, Unavailable
from sensegate.lifecycle.jobs import JOBS_MAX, RUNNING_MAX, Job, Jobs, JobState
from tests.conftest import eventually

CITY = Principal("city", Role.CITY_OPERATOR, scope("4401"))
OTHER = Principal("other", Role.CITY_OPERATOR, scope("4403"))
HERE = Scope("440106")


async def test_its_life() -> None:
    """It tells its progress, ends with a result, and only its scope sees it."""
    jobs, go = Jobs(FakeClock()), asyncio.Event()

    async def work(job: Job) -> Any:
        job.share = 0.5
        await go.wait()
        return {"found": 7}

    begun = jobs.start("diff", "acme/th", HERE, CITY, work)
    await eventually(lambda: jobs.get("acme/th", begun.id, CITY).share == 0.5)
    assert begun.state is JobState.RUNNING
    with pytest.raises(NotFound):
        jobs.get("acme/th", begun.id, OTHER)
    with pytest.raises(NotFound):
        jobs.get("acme/other", begun.id, CITY)
    go.set()
    await eventually(lambda: begun.state is JobState.DONE)
    assert (begun.share, begun.result) == (1.0, {"found": 7})
    with pytest.raises(Conflict):
        await jobs.cancel("acme/th", begun.id, CITY)


async def test_failures_are_told() -> None:
    """One of ours by its words; a bug as a bug; neither ends anything else."""
    jobs = Jobs(FakeClock())

    async def lost(_job: Job) -> Any:
        raise Unavailable("the log is away")

    async def bug(_job: Job) -> Any:
        raise ZeroDivisionError

    first, second = (jobs.start("diff", "acme/th", HERE, CITY, work) for work in (lost, bug))
    task = jobs._tasks[second.id]
    await eventually(lambda: second.ended and first.ended)
    with pytest.raises(ZeroDivisionError):
        await task
    assert (first.state, first.message) == (JobState.FAILED, "the log is away")
    assert (second.state, second.message) == (
        JobState.FAILED,
        "the job crashed because of a bug; the log has the traceback",
    )


async def test_too_many_and_given_up() -> None:
    """A bound on what runs at once; one that is given up makes room; at the end all are."""
    jobs = Jobs(FakeClock())

    async def endless(_job: Job) -> Any:
        await asyncio.Event().wait()

    begun = [jobs.start("diff", "acme/th", HERE, CITY, endless) for _ in range(RUNNING_MAX)]
    with pytest.raises(Overloaded):
        jobs.start("diff", "acme/th", HERE, CITY, endless)
    await asyncio.sleep(0)
    assert (await jobs.cancel("acme/th", begun[0].id, CITY)).state is JobState.CANCELLED
    last = jobs.start("diff", "acme/th", HERE, CITY, endless)
    await asyncio.sleep(0)
    await jobs.cancel_all()
    assert last.state is JobState.CANCELLED
    assert [job.id for job in jobs.list("acme/th", CITY)] == [last.id, *(job.id for job in reversed(begun))]


async def test_one_that_is_given_up_before_its_first_step_leaves_its_place() -> None:
    """It is cancelled, and others can be started."""
    jobs = Jobs(FakeClock())

    async def work(_job: Job) -> Any:
        return None

    for _ in range(RUNNING_MAX + 1):
        begun = jobs.start("diff", "acme/th", HERE, CITY, work)
        await jobs.cancel("acme/th", begun.id, CITY)
        assert begun.state is JobState.CANCELLED
        assert begun.ended


async def test_a_running_job_is_not_forgotten() -> None:
    """However many shorter ones were started since: it can be seen and cancelled."""
    jobs = Jobs(FakeClock())

    async def long(_job: Job) -> Any:
        await asyncio.Event().wait()

    async def short(_job: Job) -> Any:
        return None

    running = jobs.start("diff", "acme/th", HERE, CITY, long)
    for _ in range(JOBS_MAX + 5):
        other = jobs.start("diff", "acme/th", HERE, CITY, short)
        await asyncio.gather(jobs._tasks[other.id])
    assert len(jobs.list("acme/th", CITY)) == JOBS_MAX
    assert (await jobs.cancel("acme/th", running.id, CITY)).state is JobState.CANCELLED
