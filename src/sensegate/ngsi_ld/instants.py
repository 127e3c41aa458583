"""Times of NGSI-LD: date-times, dates and times of day of ISO 8601 with their zone."""

from __future__ import annotations

import re

from sensegate.sensorthings.instants import parse_instant

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:\d\d)?")


def parse_date_time(text: str) -> int | None:
    """Return the time (µs UTC) of a date-time with a zone; None: the text is none."""
    if len(text) > 40 or not _DATE_TIME.fullmatch(text):
        return None
    return parse_instant(text.replace(",", "."))


def is_date(text: str) -> bool:
    """Return whether a text is a date."""
    return bool(_DATE.fullmatch(text))


def is_time(text: str) -> bool:
    """Return whether a text is a time of day."""
    return bool(_TIME.fullmatch(text))
