"""Makes the parse of a format, with options, as a rule of a profile has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.decode.part import ProfilePart
from sensegate.errors import ProfileError

NESTING_MAX = 32


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def parse_with(
    name: str, options: ProfilePart | None = None, charset: str = "utf-8", nesting_max: int = NESTING_MAX
) -> Callable[[bytes], Any]:
    """Return payload -> tree of a format. Raises `ProfileError` where the options are wrong."""
    parse = FORMATS[name].compile(options, FormatContext("vendor/model", 1, Path(), _error, charset))
    return lambda payload: parse(PayloadFrame(payload, nesting_max))
