"""Phenomenon times of video formats: text or number -> (µs UTC, quality), or None if it is not a time.

Qualities: ``explicit`` (the zone is stated, or fixed by the format), ``assumed_tz`` (local time without a zone),
``derived`` (from an id), ``received`` (none given; the time of arrival).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from math import isfinite
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sensegate.clock import begins_month

EXPLICIT: Final = "explicit"
ASSUMED: Final = "assumed_tz"
DERIVED: Final = "derived"
RECEIVED: Final = "received"

BEIJING: Final = "Asia/Shanghai"
SECOND: Final = 1_000_000
BEIJING_S: Final = 8 * 3_600
DAY_S: Final = 86_400
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_LAST_S: Final = 4_102_444_800
"""2100-01-01: larger epoch times have another unit."""
_ISO = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[Tt ]\s*(\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d{1,12}))?\s*"
    r"([Zz]|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)
_COMPACT = re.compile(r"\d{14}(?:\d{3})?", re.ASCII)
_EPOCH_MS = re.compile(r"\d{12,13}", re.ASCII)

TimeResult = tuple[int, str]
"""µs UTC, quality"""


def _us(year: int, month: int, day: int, hour: int, minute: int, second: int, micro: int = 0) -> int | None:
    """Return µs as if the parts were UTC; None if the time does not exist. Accepts second 60 and hour 24.

    The caller checks that second 60 is a leap second, when it knows the zone: see `_checked`.
    """
    if year < 1970 or minute > 59 or second > 60 or hour > 24 or (hour == 24 and (minute or second or micro)):
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return (days * DAY_S + hour * 3_600 + minute * 60 + second) * SECOND + micro


def _checked(us: int, second: int) -> int | None:
    """Return µs UTC that are no less than 0; None also for a second 60 that can be no leap second."""
    return us if us >= 0 and (second < 60 or begins_month(us)) else None


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _local(us: int, zone: str) -> int | None:
    """Convert µs on the local clock of an IANA zone to µs UTC."""
    if zone == BEIJING:
        return us - BEIJING_S * SECOND if us >= BEIJING_S * SECOND else None
    try:
        moment = datetime.fromtimestamp(us // SECOND, UTC).replace(tzinfo=_zone(zone))
        offset = moment.utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OverflowError):
        return None
    return None if offset is None else us - round(offset.total_seconds()) * SECOND


def parse_iso(text: str, naive: str = "utc") -> TimeResult | None:
    """Parse an ISO 8601 date and time; single-digit parts are accepted.

    Without an offset, ``naive="utc"`` treats it as UTC (fixed by the format: ``explicit``), otherwise it is local time
    of that IANA zone (``assumed_tz``).
    """
    match = _ISO.fullmatch(text.strip()) if len(text) < 64 else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    micro = int((fraction or "0").ljust(6, "0")[:6])
    us = _us(int(year), int(month), int(day), int(hour), int(minute), int(second), micro)
    if us is None:
        return None
    if offset is None and naive != "utc":
        local = _local(us, naive)
        checked = None if local is None else _checked(local, int(second))
        return None if checked is None else (checked, ASSUMED)
    if offset is not None and offset not in {"Z", "z"}:
        hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
        if hours > 14 or minutes > 59:
            return None
        shift = (hours * 3_600 + minutes * 60) * SECOND
        us += shift if offset[0] == "-" else -shift
    checked = _checked(us, int(second))
    return None if checked is None else (checked, EXPLICIT)


def parse_compact(text: str) -> TimeResult | None:
    """Parse ``YYYYMMDDhhmmss`` with or without milliseconds: Beijing time."""
    text = text.strip()
    if not _COMPACT.fullmatch(text):
        return None
    us = _us(
        int(text[:4]),
        int(text[4:6]),
        int(text[6:8]),
        int(text[8:10]),
        int(text[10:12]),
        int(text[12:14]),
        int(text[14:] or 0) * 1_000,
    )
    local = None if us is None else _local(us, BEIJING)
    checked = None if local is None else _checked(local, int(text[12:14]))
    return None if checked is None else (checked, ASSUMED)


def parse_beijing(text: str) -> TimeResult | None:
    """Parse a time of GA/T 1400 or GB/T 28181: Beijing time without zone, in any of its spellings.

    ``YYYYMMDDhhmmss`` with or without milliseconds, ISO with ``T`` or a blank (an offset, if present, is respected),
    epoch milliseconds.
    """
    text = text.strip()
    if parsed := parse_compact(text):
        return parsed
    if _EPOCH_MS.fullmatch(text):
        return epoch(int(text) / 1_000)
    return parse_iso(text, BEIJING)


def derived(digits: str) -> TimeResult | None:
    """Parse the time within an id (``YYYYMMDDhhmmss``, Beijing)."""
    parsed = parse_compact(digits) if len(digits) == 14 else None
    return None if parsed is None else (parsed[0], DERIVED)


def epoch(seconds: float) -> TimeResult | None:
    """Convert seconds since 1970; None if they are not a time of this century (milliseconds, for example)."""
    if not isfinite(seconds) or not 0 <= seconds < _LAST_S:
        return None
    return round(seconds * SECOND), EXPLICIT


def epoch_ms(milliseconds: float) -> TimeResult | None:
    """Convert milliseconds since 1970."""
    return epoch(milliseconds / 1_000) if isfinite(milliseconds) else None


def received(arrival: int) -> TimeResult:
    """Return the time of arrival for a message without a time."""
    return arrival, RECEIVED
