"""The sensing gateway of a city."""

from importlib.metadata import version

__version__ = version("sensegate")
