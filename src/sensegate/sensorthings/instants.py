"""Times of the standard: instants, intervals and durations, in µs, as ISO 8601 texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
)
_DURATION = re.compile(r"(-)?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII)


class Span(msgspec.Struct, frozen=True, order=False):
    """An instant (``begin == end``) or an interval, µs UTC."""

    begin: int
    end: int

    ALL: ClassVar[tuple[int, int]] = (-(2**62), 2**62)

    @property
    def is_instant(self) -> bool:
        return self.begin == self.end


class Duration(msgspec.Struct, frozen=True):
    """A length of time in µs."""

    length: int


def parse_instant(text: str) -> int | None:
    """Return a time with a zone as µs UTC; None: it is not one."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    minute, seconds, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{minute.upper()}{seconds or ':00'}{zone.upper().replace('Z', '+00:00')}")
    except ValueError:
        return None
    return micros_of(moment) + int((fraction or "0").ljust(6, "0")[:6])


def parse_span(text: str) -> Span | None:
    """Return an instant or an interval ``begin/end``; None: it is neither, or ends before it begins."""
    first, slash, second = text.partition("/")
    begin = parse_instant(first)
    end = parse_instant(second) if slash else begin
    return None if begin is None or end is None or end < begin else Span(begin, end)


def parse_duration(text: str) -> Duration | None:
    """Return an ISO 8601 duration of weeks, days, hours, minutes and seconds; None: it is not one."""
    match = _DURATION.fullmatch(text)
    if match is None or len(text) < 3 or text.endswith("T"):
        return None
    sign, *parts = match.groups()
    weeks, days, hours, minutes, seconds = (float(part or 0) for part in parts)
    length = ((weeks * 7 + days) * 86_400 + hours * 3_600 + minutes * 60 + seconds) * 1e6
    return Duration(round(-length if sign else length))


def micros_of(moment: datetime) -> int:
    """Return a datetime with a zone as µs UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(time: int) -> datetime:
    """Return a time (µs UTC) as a datetime. Raises `OverflowError` outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=time)


def instant_text(time: int) -> str:
    """Return a time (µs UTC) as ISO 8601 with milliseconds, or microseconds where these are not 0."""
    precision = "microseconds" if time % 1_000 else "milliseconds"
    return moment_of(time).isoformat(timespec=precision).replace("+00:00", "Z")
