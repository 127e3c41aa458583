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
