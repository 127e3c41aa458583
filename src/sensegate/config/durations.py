"""Durations (``30m``) and points in time (``2026-01-01T00:00:00Z``, or ``1h`` for an hour ago) as people write them.

The command line and the query parameters of every HTTP path share this grammar.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
DURATION_EXAMPLES = "90s, 30m, 12h, 7d or 2w"
"""Examples for help and errors."""
TIME_MIN_US, TIME_MAX_US = -62_135_596_800_000_000, 253_402_300_799_000_000
"""First and last second that ISO 8601 can write, µs UTC: 0001-01-01T00:00:00Z, 9999-12-31T23:59:59Z."""
TIME_EXAMPLES = "30m, 1h, 7d (ago), or a time: 2026-01-01T00:00:00Z"
_DURATION = re.compile(r"([0-9]{1,9}(?:[.][0-9]{1,6})?)([smhdw])")


def duration_s(text: str) -> float | None:
    """Return the seconds of ``90s``, ``30m``, ``1.5h``, ``7d``, ``2w``; None if the text is not a duration."""
    match = _DURATION.fullmatch(text)
    return float(match[1]) * UNITS_S[match[2]] if match else None


def time_us(text: str, now: int) -> int:
    """Return the time (µs UTC) of an ISO 8601 text, of epoch seconds or milliseconds, or of a duration before `now`.

    Raises:
        ValueError: the text is none of these, or the time is not of the years 1 to 9999.
    """
    time = _time_us(text, now)
    if not TIME_MIN_US <= time <= TIME_MAX_US:
        raise ValueError(f"{text}: give a time of the years 1 to 9999")
    return time


def _time_us(text: str, now: int) -> int:
    if (back := duration_s(text)) is not None:
        return max(1, now - round(back * 1e6))
    if text.replace(".", "", 1).isdigit() and len(text) < 20:
        number = float(text)
        return round(number * (1e6 if number < 1e11 else 1e3))
    # An unescaped `+` of a zone in a query arrives as a space.
    parsed = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    try:
        return round(parsed.timestamp() * 1e6)
    except OverflowError as why:
        raise ValueError(str(why)) from why
