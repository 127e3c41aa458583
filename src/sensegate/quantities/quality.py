"""The one quality table: codes, flags, the words that people and programs see, and what others' codes become.

A code says how far a value may be trusted; flags say which checks it failed and how it came. A value is never removed
for its quality.
"""

from __future__ import annotations

import functools
from enum import IntEnum, IntFlag

import msgspec


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
    UNCERTAIN_SUBSTITUTED = 71
    UNCERTAIN_MAINTENANCE = 72
    UNCERTAIN_SATURATED = 73
    UNCERTAIN_LAST = 74
    UNCERTAIN_UNKNOWN = 75
    BAD = 128
    BAD_RANGE = 129
    BAD_SENSOR = 130
    BAD_MAINTENANCE = 131
    BAD_OUT_OF_SERVICE = 132
    BAD_COMMUNICATION = 133
    BAD_CONFIGURATION = 134


UNCERTAIN_FROM, BAD_FROM = 64, 128


class Row(msgspec.Struct, frozen=True):
    """What a code means, and how others would say it."""

    label_zh: str
    label_en: str
    opcua: int
    """StatusCode of OPC UA part 8 (high half)."""
    wmo: int
    """Code of the WMO style: 1 good, 2 inconsistent, 3 doubtful, 4 wrong."""


TABLE: dict[Quality, Row] = {
    Quality.GOOD: Row("正常", "good", 0x00000000, 1),
    Quality.UNCERTAIN: Row("存疑", "uncertain", 0x40000000, 3),
    Quality.UNCERTAIN_RANGE: Row("超出配置范围", "outside the range that the profile gives", 0x40940000, 3),
    Quality.UNCERTAIN_STEP: Row("变化过快", "changed faster than is credible", 0x40930000, 2),
    Quality.UNCERTAIN_STUCK: Row("长时间不变", "has not moved for too long", 0x40930000, 3),
    Quality.UNCERTAIN_CLOCK: Row("时间存疑", "the time is doubtful", 0x40000000, 3),
    Quality.UNCERTAIN_SENSOR: Row("传感器存疑", "the sensor doubts itself", 0x40930000, 3),
    Quality.UNCERTAIN_CALIBRATION: Row("校准中", "taken during calibration", 0x420A0000, 3),
    Quality.UNCERTAIN_SUBSTITUTED: Row("人工设定值", "set by hand or estimated", 0x40910000, 3),
    Quality.UNCERTAIN_MAINTENANCE: Row("维护中", "taken during maintenance", 0x40000000, 3),
    Quality.UNCERTAIN_SATURATED: Row("超测量上限", "beyond the end of the scale: at least this", 0x40940000, 3),
    Quality.UNCERTAIN_LAST: Row("最近有效值", "the last usable value, repeated", 0x40900000, 3),
    Quality.UNCERTAIN_UNKNOWN: Row("未给出标识", "the source should give a flag and gave none", 0x40000000, 3),
    Quality.BAD: Row("无效", "bad", 0x80000000, 4),
    Quality.BAD_RANGE: Row("超出物理范围", "outside the physical range", 0x80000000, 4),
    Quality.BAD_SENSOR: Row("仪器故障", "sensor or instrument failed", 0x808C0000, 4),
    Quality.BAD_MAINTENANCE: Row("维护无效", "made void by maintenance", 0x80000000, 4),
    Quality.BAD_OUT_OF_SERVICE: Row("停运", "out of service", 0x808D0000, 4),
    Quality.BAD_COMMUNICATION: Row("通讯故障", "instrument and logger have lost each other", 0x80050000, 4),
    Quality.BAD_CONFIGURATION: Row("配置错误", "the instrument is configured wrongly", 0x80890000, 4),
}
"""Every code with its row; a test holds that none is missing."""

HJ212: dict[str, Quality] = {
    "N": Quality.GOOD,
    "F": Quality.BAD_OUT_OF_SERVICE,
    "M": Quality.UNCERTAIN_MAINTENANCE,
    "S": Quality.UNCERTAIN_SUBSTITUTED,
    "D": Quality.BAD_SENSOR,
    "C": Quality.UNCERTAIN_CALIBRATION,
    "T": Quality.UNCERTAIN_SATURATED,
    "B": Quality.BAD_COMMUNICATION,
}
"""Flags of HJ 212-2017."""

OPCUA: dict[int, Quality] = {
    0x408F0000: Quality.UNCERTAIN_LAST,
    0x40900000: Quality.UNCERTAIN_LAST,
    0x40910000: Quality.UNCERTAIN_SUBSTITUTED,
    0x40930000: Quality.UNCERTAIN_SENSOR,
    0x40940000: Quality.UNCERTAIN_SATURATED,
    0x420A0000: Quality.UNCERTAIN_CALIBRATION,
    0x80050000: Quality.BAD_COMMUNICATION,
    0x80310000: Quality.BAD_COMMUNICATION,
    0x80890000: Quality.BAD_CONFIGURATION,
    0x808A0000: Quality.BAD_COMMUNICATION,
    0x808B0000: Quality.BAD_SENSOR,
    0x808C0000: Quality.BAD_SENSOR,
    0x808D0000: Quality.BAD_OUT_OF_SERVICE,
}
"""Status codes that say more than their severity."""

WMO: dict[int, Quality] = {
    0: Quality.UNCERTAIN_UNKNOWN,
    1: Quality.GOOD,
    2: Quality.UNCERTAIN,
    3: Quality.UNCERTAIN,
    4: Quality.BAD,
    5: Quality.UNCERTAIN_SUBSTITUTED,
}
"""Codes in the style of the WMO: 0 not checked, 1 good, 2 inconsistent, 3 doubtful, 4 wrong, 5 changed."""


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
    ROLLOVER = 1 << 14
    """A counter reached its end and began again at 0: it counted on."""
    RESET = 1 << 15
    """A counter began again at 0 where it pleased."""
    UNIT = 1 << 16
    """The series is a thousand times too large or too small to be usual: the profile's unit is probably wrong."""
    WARNED = 1 << 17
    """The maker's codec script gave a warning with the message."""
    REDECODED = 1 << 18
    """Read once more, from the message as it was received, by a later version of the profile."""
    SHADOW = 1 << 19
    """Of a second source: another device is the authority for this property of the asset."""


class TimeQuality(IntEnum):
    """Where the phenomenon time comes from."""

    DEVICE = 0
    ASSUMED_ZONE = 1
    DERIVED = 2
    RECEIVED = 3


@functools.lru_cache(maxsize=1024)
def _words(flags: int) -> tuple[str, ...]:
    return tuple(flag.name.lower() for flag in Flag if flags & flag and flag.name)


def flag_words(flags: int) -> list[str]:
    """Return the words of the set bits, in the order of the table."""
    return list(_words(flags))


@functools.cache
def quality_word(code: int) -> str:
    """Return the lower-case word of a quality code (``good``, ``uncertain_range``).

    A code from a newer release, which the table does not know, gives the word of its class.
    """
    return Quality(code if code in TABLE else severity(code)).name.lower()


def severity(code: int) -> Quality:
    """Return the class of a code: GOOD, UNCERTAIN or BAD."""
    if code >= BAD_FROM:
        return Quality.BAD
    return Quality.UNCERTAIN if code >= UNCERTAIN_FROM else Quality.GOOD


def worse(one: int, other: int) -> int:
    """Return the code of the worse class; of two in the same class the first, for it was found first."""
    return other if severity(other) > severity(one) else one


def from_hj212(flag: str | None) -> Quality:
    """Return the quality that a flag of HJ 212 means; none, or one that is not in the standard, is not good."""
    return HJ212.get((flag or "").strip().upper(), Quality.UNCERTAIN_UNKNOWN)


def from_opcua(status: int) -> Quality:
    """Return the quality that an OPC UA StatusCode means: by its code where known, else by its severity bits."""
    known = OPCUA.get(status & 0xFFFF0000)
    if known is not None:
        return known
    return (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[status >> 30 & 0b11]


def from_wmo(code: int) -> Quality:
    """Return the quality that a code in the style of the WMO means; unknown ones (9: missing) are bad."""
    return WMO.get(code, Quality.BAD)
