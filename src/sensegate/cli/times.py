"""How options take times: how long, and when; the same on every command."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sensegate.config import durations

HOUR_S, DAY_S = 3_600.0, 86_400.0


def parse_duration(text: str | float) -> float:
    """Return the seconds of ``90s``, ``30m``, ``12h``, ``7d``, ``2w``; a bare number is seconds."""
    if not isinstance(text, str):
        return float(text)
    found = durations.duration_s(text)
    if found is None and text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
        found = float(text)
    if found is None:
        raise typer.BadParameter(
            f"'{text}' is no span of time; give a number and a unit: {durations.DURATION_EXAMPLES}"
        )
    return found


def parse_time(text: str) -> str:
    """Return the text of a time that the gateway understands; empty: none is given."""
    if text:
        try:
            durations.time_us(text, time.time_ns() // 1_000)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is no time; give {durations.TIME_EXAMPLES}") from None
    return text


Since = Annotated[
    str,
    typer.Option(
        parser=parse_time, metavar="TIME", help="From this time of arrival on: 30m, 1h, 7d (so long ago), or ISO 8601."
    ),
]
Until = Annotated[
    str, typer.Option(parser=parse_time, metavar="TIME", help="Up to this time of arrival, as --since; default: now.")
]
