"""The one quality table: codes, flags, and the words that people and programs see."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Quality(IntEnum):
    """Quality of a reading; 0 good, 64 and up uncertain, 128 and up bad."""

    GOOD = 0
    UNCERTAIN = 64
    UNCERTAIN_RANGE = 65
    UNCERTAIN_STEP = 66
    UNCERTAIN_STUCK = 67
    UNCERTAIN_CLOCK = 68
    UNCERTAIN_SENSOR = 69
    UNCERTAIN_CALIBRATION = 70
    BAD = 128
    BAD_RANGE = 129
    BAD_SENSOR = 130
    BAD_MAINTENANCE = 131


class Flag(IntFlag):
    """Marks on a reading; each lower-case name is the word in the JSON form."""

    LATE = 1 << 0
    CONFLICT = 1 << 1
    CLOCK = 1 << 2
    RANGE = 1 << 3
    STEP = 1 << 4
    STUCK = 1 << 5
    FUTURE = 1 << 6
    STALE = 1 << 7
    BACKLOG = 1 << 8
    UNIDENTIFIABLE = 1 << 9
    UNJUDGED = 1 << 10
    BEST_EFFORT = 1 << 11
    ALARM = 1 << 12
    HEARTBEAT = 1 << 13


class TimeQuality(IntEnum):
    """Where the phenomenon time comes from."""

    DEVICE = 0
    ASSUMED_ZONE = 1
    DERIVED = 2
    RECEIVED = 3


def flag_words(flags: int) -> list[str]:
    """Return the words of the set bits, in the order of the table."""
    return [flag.name.lower() for flag in Flag if flags & flag and flag.name]


def quality_word(code: int) -> str:
    """Return the lower-case word of a quality code, e.g. ``good`` or ``uncertain_range``."""
    return Quality(code).name.lower()
