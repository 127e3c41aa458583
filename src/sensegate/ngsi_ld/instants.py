"""Times of NGSI-LD: date-times, dates and times of day of ISO 8601 with their zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:\d\d)?")


def date_time(time: int) -> str:
    """Return a time (µs UTC) as NGSI-LD writes it: ``2026-01-01T00:00:00.000Z``, with µs where it has any."""
    moment = _EPOCH + timedelta(microseconds=time)
    digits = "microseconds" if time % 1_000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=digits) + "Z"


def parse_date_time(text: str) -> int | None:
    """Return the time (µs UTC) of a date-time with a zone; None: the text is none."""
    if len(text) > 40 or not _DATE_TIME.fullmatch(text):
        return None
    head, mark, tail = text.replace(",", ".").partition(".")
    if mark:
        digits = re.match(r"\d+", tail)
        assert digits is not None  # noqa: S101 - as the pattern has it
        text = f"{head}.{digits[0][:6]:0<6}{tail[digits.end() :]}"
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def is_date(text: str) -> bool:
    """Return whether a text is a date."""
    return bool(_DATE.fullmatch(text))


def is_time(text: str) -> bool:
    """Return whether a text is a time of day."""
    return bool(_TIME.fullmatch(text))
