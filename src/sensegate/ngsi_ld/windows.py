"""Periods of temporal queries, the windows of their aggregates, and what is computed of each window."""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.sensorthings.instants import micros_of, moment_of

WINDOWS_MAX = 5_000
"""Most windows of an aggregate."""
RELATIONS = ("before", "after", "between")
_DURATION = re.compile(
    r"P(?=.)(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=.)(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,8}(?:\.\d{1,6})?)S)?)?",
    re.ASCII,
)
_YEAR_MAX = 9_000
_TIME_MAX = micros_of(datetime(_YEAR_MAX, 1, 1, tzinfo=UTC))
"""Latest end of a window: later times cannot be written."""
Value = bool | float | str
Aggregate = Callable[[Sequence[Value]], Value | None]


class Period(msgspec.Struct, frozen=True):
    """Period, µs UTC; the end is excluded."""

    begin: int | None = None
    """None: as early as there is anything."""
    end: int | None = None


class TimeProperty(StrEnum):
    """Time of a reading to which a temporal query refers."""

    OBSERVED = "observedAt"
    CREATED = "createdAt"
    """Arrival of its first revision."""
    MODIFIED = "modifiedAt"
    """Arrival of its last revision."""


def parse_time_property(text: str) -> TimeProperty:
    """Return the time to which a query refers. Raises `NgsiError`."""
    if text not in set(TimeProperty):
        raise NgsiError(
            ErrorType.OPERATION_NOT_SUPPORTED,
            f"timeproperty: '{text[:40]}' is not kept by time; use {', '.join(TimeProperty)}",
        )
    return TimeProperty(text)


def parse_period(timerel: str, time_at: str, end_time_at: str) -> Period | None:
    """Return the period of a temporal query; None: it has none. Raises `NgsiError`."""
    if not timerel:
        if time_at or end_time_at:
            raise bad_data(f"timerel: is missing; give one of {', '.join(RELATIONS)}")
        return None
    if timerel not in RELATIONS:
        raise bad_data(f"timerel: '{timerel[:20]}' is unknown; use one of {', '.join(RELATIONS)}")
    time = _time("timeAt", time_at)
    if timerel == "between":
        end = _time("endTimeAt", end_time_at)
        if end <= time:
            raise bad_data("endTimeAt: is not after timeAt; give a later time")
        return Period(time, end)
    if end_time_at:
        raise bad_data(f"endTimeAt: does not go with {timerel}; use between")
    # `after` excludes the time itself, `before` does too.
    return Period(None, time) if timerel == "before" else Period(time + 1, None)


def _time(key: str, text: str) -> int:
    time = parse_date_time(text)
    if time is None:
        problem = f"'{text[:40]}' is not a date-time" if text else "is missing"
        raise bad_data(f"{key}: {problem}; give for example 2026-01-01T00:00:00Z")
    return time


class WindowLength(msgspec.Struct, frozen=True):
    """Length of a window: calendar months and a fixed length; both 0: the whole period."""

    months: int = 0
    length: int = 0
    """µs."""

    def windows(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the windows of a period, in order. Raises `NgsiError`."""
        if not self.months and not self.length:
            return [(begin, end)]
        edges = [begin]
        while edges[-1] < end:
            if len(edges) > WINDOWS_MAX:
                raise NgsiError(
                    ErrorType.TOO_MANY_RESULTS,
                    f"aggrPeriodDuration: gives more than {WINDOWS_MAX} windows; give a longer one or a shorter period",
                )
            edge = self._after(begin, len(edges))
            if edge > _TIME_MAX:
                raise _too_long()
            edges.append(edge)
        return [*itertools.pairwise(edges)]

    def _after(self, begin: int, count: int) -> int:
        """Return where the window of a number ends."""
        if not self.months:
            return begin + count * self.length
        start = moment_of(begin)
        months = start.month - 1 + count * self.months
        year, month = start.year + months // 12, months % 12 + 1
        if year > _YEAR_MAX:
            raise _too_long()
        last = (datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) - timedelta(days=1)).day
        moved = start.replace(year=year, month=month, day=min(start.day, last))
        return micros_of(moved) + count * self.length


def parse_duration(text: str) -> WindowLength:
    """Return a duration of ISO 8601; empty or ``PT0S``: the whole period. Raises `NgsiError`."""
    if not text:
        return WindowLength()
    match = _DURATION.fullmatch(text)
    if match is None:
        raise bad_data(f"aggrPeriodDuration: '{text[:20]}' is not a duration; give for example PT1H or P1D")
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in match.groups()[:6])
    try:
        length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=float(match[7] or 0))
    except OverflowError:
        raise _too_long() from None
    return WindowLength(years * 12 + months, length // timedelta(microseconds=1))


def _too_long() -> NgsiError:
    return bad_data("aggrPeriodDuration: is too long; give a shorter one")


# ── aggregates ────────────────────────────────────────────────────────────────────────────────────────


def _numbers(values: Sequence[Value]) -> list[float]:
    return [float(value) for value in values if not isinstance(value, str)]


def _extreme(values: Sequence[Value], choose: Callable[[Sequence[float]], float], *, last: bool) -> Value | None:
    texts = sorted(value for value in values if isinstance(value, str))
    if texts:
        return texts[-1] if last else texts[0]
    numbers = _numbers(values)
    return choose(numbers) if numbers else None


def _sum(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    return math.fsum(numbers) if numbers else None


def _mean(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


def _deviation(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    if not numbers:
        return None
    mean = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))


def _finite(compute: Aggregate) -> Aggregate:
    """Return an aggregate that does not apply to values for which it is too large a number."""

    def finite(values: Sequence[Value]) -> Value | None:
        try:
            return compute(values)
        except OverflowError:
            return None

    return finite


METHODS: Mapping[str, Aggregate] = {
    "totalCount": len,
    "distinctCount": lambda values: len({(isinstance(value, bool), value) for value in values}),
    "sum": _finite(_sum),
    "avg": _finite(_mean),
    "min": lambda values: _extreme(values, min, last=False),
    "max": lambda values: _extreme(values, max, last=True),
    "stddev": _finite(_deviation),
    "sumsq": _finite(lambda values: _sum([float(value) ** 2 for value in values if not isinstance(value, str)])),
}
"""Aggregation method of the specification -> what it computes; None: it does not apply to these values."""


def parse_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return aggregation methods. Raises `NgsiError`."""
    if not names:
        raise bad_data(f"aggrMethods: is missing; give some of {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise bad_data(f"aggrMethods: '{name[:20]}' is unknown; use some of {', '.join(METHODS)}")
    return tuple(dict.fromkeys(names))


class AggregateCell(msgspec.Struct, frozen=True, array_like=True):
    """Aggregate of one window, as the specification writes it."""

    value: Value
    begin: str
    end: str


def windowed(
    times: Sequence[int], values: Sequence[Value], windows: Sequence[tuple[int, int]]
) -> list[tuple[tuple[int, int], Sequence[Value]]]:
    """Return the windows that have values, with these; `times` are ascending."""
    groups = []
    for window in windows:
        first, last = bisect.bisect_left(times, window[0]), bisect.bisect_left(times, window[1])
        if last > first:
            groups.append((window, values[first:last]))
    return groups
