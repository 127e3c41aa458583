"""The sensing gateway of a city."""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: that takes 50 ms, which a child for scripts should not spend."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version  # noqa: PLC0415 - the point of it

    return version("sensegate")
