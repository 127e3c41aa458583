"""The error tree: what its drawing promises."""

from __future__ import annotations

import importlib
import pkgutil
import re

import sensegate
from sensegate import errors
from sensegate.errors import SensegateError


def _drawn() -> set[str]:
    return set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))


def _subclasses(kind: type[SensegateError]) -> set[type[SensegateError]]:
    return {kind}.union(*(_subclasses(child) for child in kind.__subclasses__()))


def test_the_drawing_names_every_class_of_errors() -> None:
    """Each error of `errors.py`, and each direct subclass elsewhere, stands in the drawn tree; nothing else does."""
    for module in pkgutil.walk_packages(sensegate.__path__, "sensegate."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    package = {kind for kind in _subclasses(SensegateError) if kind.__module__.startswith("sensegate.")}
    own = {kind.__name__ for kind in package if kind.__module__ == errors.__name__}
    public = {kind.__name__ for kind in package if not kind.__name__.startswith("_")}
    assert own - {"SensegateError"} <= _drawn() <= public
    assert {kind.__name__ for kind in SensegateError.__subclasses__() if kind in package} <= _drawn()


def test_an_undrawn_class_would_be_noticed() -> None:
    """Control: a subclass that is not drawn is found by the comparison above."""
    assert "SensegateError" not in _drawn()
    assert "Lost" not in _drawn()
