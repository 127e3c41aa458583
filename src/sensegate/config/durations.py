"""How people write times: how long (``30m``), and when (``2026-01-01T00:00:00Z``, or ``1h`` for an hour ago).

One grammar for the command line and for the query of every path.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
HOW_LONG = "90s, 30m, 12h, 7d or 2w"
"""Examples for help and errors."""
WHEN = "30m, 1h, 7d (so long ago), or a time: 2026-01-01T00:00:00Z"
_SPAN = re.compile(r"([0-9]{1,9}(?:[.][0-9]{1,6})?)([smhdw])")


def seconds(text: str) -> float | None:
    """Return the seconds of ``90s``, ``30m``, ``1.5h``, ``7d``, ``2w``; None where a text is no such span."""
    found = _SPAN.fullmatch(text)
    return float(found[1]) * UNITS_S[found[2]] if found else None


def moment(text: str, now: int) -> int:
    """Return the time (µs UTC) of ISO 8601, of epoch seconds or ms, or of a span before `now`.

    Raises:
        ValueError: it is none of these.
    """
    if (back := seconds(text)) is not None:
        return max(1, now - round(back * 1e6))
    if text.replace(".", "", 1).isdigit() and len(text) < 20:
        number = float(text)
        return round(number * (1e6 if number < 1e11 else 1e3))
    # A `+` of a zone that was not escaped in a query comes as a space.
    found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return round(found.timestamp() * 1e6)
    except OverflowError as why:
        raise ValueError(str(why)) from why
