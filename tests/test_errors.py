"""The error tree: what its drawing promises."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
import sys

import pytest

import sensegate
from sensegate import errors
from sensegate.errors import (
    CancellableTaskGroup,
    Fenced,
    SensegateError,
    Superseded,
    Unavailable,
    combined,
    errors_of,
)
from sensegate.failover.standby import _first_result


def _drawn() -> set[str]:
    return set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))


def _subclasses(kind: type[SensegateError]) -> set[type[SensegateError]]:
    return {kind}.union(*(_subclasses(child) for child in kind.__subclasses__()))


def _undrawn(kinds: set[type[SensegateError]]) -> set[str]:
    """Return the classes that the drawing lacks: of `errors.py`, and direct subclasses of the base anywhere."""
    wanted = {kind for kind in kinds if kind.__module__ == errors.__name__ or SensegateError in kind.__bases__}
    return {kind.__name__ for kind in wanted} - _drawn() - {"SensegateError"}


def test_the_drawing_names_every_class_of_errors() -> None:
    """Each error of `errors.py`, and each direct subclass elsewhere, stands in the drawn tree; nothing else does."""
    for module in pkgutil.walk_packages(sensegate.__path__, "sensegate."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    package = {kind for kind in _subclasses(SensegateError) if kind.__module__.startswith("sensegate.")}
    assert _undrawn(package) == set()
    assert _drawn() <= {kind.__name__ for kind in package}


def test_an_undrawn_class_is_noticed() -> None:
    """Control: the comparison finds a class that the drawing lacks."""

    class Forgotten(SensegateError):
        """Drawn nowhere."""

    assert _undrawn({Forgotten}) == {"Forgotten"}


def test_fencing_is_raised_before_what_can_be_tried_again() -> None:
    """Of errors of parallel tasks the loss of the right to write is raised, however deep; the others are its notes."""
    inner = ExceptionGroup("inner", [Unavailable("b"), Superseded("c")])
    error = combined(ExceptionGroup("outer", [Unavailable("a"), inner]))
    assert isinstance(error, Superseded)
    assert [note.rpartition(" ")[2] for note in error.__notes__] == ["a", "b"]


def test_a_bug_among_errors_is_not_swallowed() -> None:
    """A group that holds a bug stays whole; the control: without the bug the one error is raised."""
    group = ExceptionGroup("both", [Fenced("a"), ValueError("bug")])
    assert combined(group) is group
    assert [type(error) for error in errors_of(group)] == [ValueError, Fenced]
    assert isinstance(combined(ExceptionGroup("one", [Fenced("a")])), Fenced)


async def test_two_tasks_that_fail_at_once() -> None:
    """Neither error is lost, in whichever order the tasks were given; a result beside an error does not hide it."""

    async def fails(error: Exception) -> int:
        raise error

    async def ends() -> int:
        return 1

    async def lasts() -> int:
        await asyncio.Event().wait()
        return 2

    for order in (slice(None), slice(None, None, -1)):
        with pytest.raises(Fenced) as raised:
            await _first_result(*[fails(Unavailable("u")), lasts(), fails(Fenced("f"))][order])
        assert raised.value.__notes__ == ["at the same time: Unavailable: u"]
    with pytest.raises(ExceptionGroup):
        await _first_result(fails(ValueError("bug")), fails(Fenced("f")))
    with pytest.raises(Unavailable):
        await _first_result(ends(), fails(Unavailable("u")))
    assert await _first_result(lasts(), ends()) == 1


async def _retry(group_type: type[asyncio.TaskGroup], failing: asyncio.Event, retried: asyncio.Event) -> None:
    """Run a task that fails once `failing` is set, and try again, as loops of the gateway do."""
    while True:
        try:
            async with group_type() as group:
                group.create_task(_fail(failing))
        except* Unavailable:
            failing.clear()
            retried.set()


async def _fail(failing: asyncio.Event) -> None:
    await failing.wait()
    raise Unavailable("away")


@pytest.mark.parametrize("group_type", [CancellableTaskGroup, asyncio.TaskGroup])
async def test_a_cancellation_beside_an_error_ends_the_task(group_type: type[asyncio.TaskGroup]) -> None:
    """A task that retries is cancelled when one of its own tasks fails: it ends. Control: the group of Python 3.11."""
    failing, retried = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(_retry(group_type, failing, retried))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    failing.set()
    task.cancel()
    await asyncio.wait({task, asyncio.ensure_future(retried.wait())}, return_when=asyncio.FIRST_COMPLETED)
    is_lost = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert is_lost == (group_type is asyncio.TaskGroup and sys.version_info < (3, 13))


async def test_errors_and_a_lone_cancellation_stay_what_they_are() -> None:
    """Errors come as a group, a cancellation as itself."""
    failing = asyncio.Event()
    failing.set()
    with pytest.raises(ExceptionGroup) as raised:
        async with CancellableTaskGroup() as group:
            group.create_task(_fail(failing))
    assert isinstance(raised.value.exceptions[0], Unavailable)
    task = asyncio.create_task(_retry(CancellableTaskGroup, asyncio.Event(), asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
