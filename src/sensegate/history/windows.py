"""Windows of time: equal spans, aligned to the hours, days and weeks of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from sensegate.clock import DAY_US
from sensegate.config.durations import TIME_MAX_US, TIME_MIN_US
from sensegate.errors import ConfigError

WEEK_US = 7 * DAY_US
_YEAR_US = 366 * DAY_US
_MONDAY_US = 4 * DAY_US
"""1970-01-05 was a Monday."""
WINDOWS_MAX = 100_000


class Windows(msgspec.Struct, frozen=True):
    """Starts of the windows that cover a period, ascending; the last one ends at `end`."""

    starts: list[int]
    """µs UTC."""
    end: int
    step: int
    """Length, µs; days that a change of the clock shortens or lengthens differ from it."""
    shift: int | None
    """A window starts at ``time - (time - shift) % step``; None: the starts are not equally spaced."""

    @classmethod
    def of(cls, begin: int, end: int, step: int, zone: str) -> Windows:
        """Return the windows of `step` (µs) that overlap [begin, end).

        Raises:
            ConfigError: the zone is unknown, there are too many windows, or they are at the ends of time.
        """
        try:
            place = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"'{zone[:40]}' is not a time zone", key="zone", remedy="give a name such as Asia/Shanghai or UTC"
            ) from None
        if (end - begin) // step > WINDOWS_MAX:
            raise ConfigError(
                f"gives {(end - begin) // step} windows", key="window", remedy=f"give at most {WINDOWS_MAX} windows"
            )
        if begin < TIME_MIN_US + _YEAR_US or end > TIME_MAX_US - _YEAR_US:
            raise ConfigError("is too far away", key="window", remedy="give a period within the years 2 to 9998")
        offsets = _offsets(begin, end, place)
        if len(set(offsets)) == 1 or step % DAY_US:
            shift = (_MONDAY_US if step % WEEK_US == 0 else 0) - offsets[0]
            first = begin - (begin - shift) % step
            return cls([*range(first, end, step)], end, step, shift)
        return cls(_local_starts(begin, end, step, place), end, step, None)

    def ends(self) -> list[int]:
        """Return the end of each window."""
        last = self.starts[-1] + self.step if self.shift is not None else self.end
        return [*self.starts[1:], last]


def _offset(time: int, place: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(time // 1_000_000, UTC).astimezone(place).utcoffset() or timedelta(0)
    return round(offset.total_seconds() * 1e6)


def _offsets(begin: int, end: int, place: ZoneInfo) -> list[int]:
    """Return the offsets of a zone from UTC within a period, µs; looked at once a week."""
    return [_offset(time, place) for time in [*range(begin, end, WEEK_US), end]]


def _local_starts(begin: int, end: int, step: int, place: ZoneInfo) -> list[int]:
    """Return the local midnights at which windows of whole days start."""
    local = begin + _offset(begin, place)
    shift = _MONDAY_US if step % WEEK_US == 0 else 0
    local -= (local - shift) % step
    starts: list[int] = []
    while True:
        naive = datetime(1970, 1, 1) + timedelta(microseconds=local)  # noqa: DTZ001 - local time, of `place`
        start = round(naive.replace(tzinfo=place).timestamp() * 1e6)
        if start >= end:
            return starts
        starts.append(start)
        local += step
