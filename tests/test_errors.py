"""The error tree: what its drawing promises."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re

import pytest

import sensegate
from sensegate import errors
from sensegate.errors import Fenced, SensegateError, Superseded, Unavailable, combined, errors_of
from sensegate.failover.standby import _first


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
            await _first(*[fails(Unavailable("u")), lasts(), fails(Fenced("f"))][order])
        assert raised.value.__notes__ == ["at the same time: Unavailable: u"]
    with pytest.raises(ExceptionGroup):
        await _first(fails(ValueError("bug")), fails(Fenced("f")))
    with pytest.raises(Unavailable):
        await _first(ends(), fails(Unavailable("u")))
    assert await _first(lasts(), ends()) == 1
