"""Parsing of durations and points in time in options, the same for every command."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sensegate.config import durations

HOUR_S, DAY_S = 3_600.0, 86_400.0


def parse_duration(text: str | float) -> float:
    """Return the seconds of ``90s``, ``30m``, ``12h``, ``7d``, ``2w``; a number without a unit is seconds."""
    if not isinstance(text, str):
        return float(text)
    seconds = durations.duration_s(text)
    if seconds is None and text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
    if seconds is None:
        raise typer.BadParameter(f"'{text}' is not a duration; give a number and a unit: {durations.DURATION_EXAMPLES}")
    return seconds


def parse_time(text: str) -> str:
    """Return a valid text of a point in time for the gateway, or an empty text."""
    if text:
        try:
            durations.time_us(text, time.time_ns() // 1_000)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is not a time; give {durations.TIME_EXAMPLES}") from None
    return text


def parse_time_or_now(text: str) -> str:
    """Return as `parse_time`; ``now`` is the present."""
    return "0s" if text == "now" else parse_time(text)


Since = Annotated[
    str,
    typer.Option(parser=parse_time, metavar="TIME", help="Earliest time of arrival: 30m, 1h, 7d (ago), or ISO 8601."),
]
Until = Annotated[
    str, typer.Option(parser=parse_time, metavar="TIME", help="Latest time of arrival, as --since; default: now.")
]
