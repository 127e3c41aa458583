"""Quality codes and flags, their labels, and the mapping from codes of other standards.

A code says how far a value may be trusted; flags say which checks it failed and how it arrived. A value is never
removed because of its quality.
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


class QualityMeaning(msgspec.Struct, frozen=True):
    """Meaning of a quality code, and its equivalents in other standards."""

    label_zh: str
    label_en: str
    opcua: int
    """StatusCode of OPC UA part 8 (high half)."""
    wmo: int
    """Code in the style of the WMO: 1 good, 2 inconsistent, 3 doubtful, 4 wrong."""


TABLE: dict[Quality, QualityMeaning] = {
    Quality.GOOD: QualityMeaning("正常", "good", 0x00000000, 1),
    Quality.UNCERTAIN: QualityMeaning("存疑", "uncertain", 0x40000000, 3),
    Quality.UNCERTAIN_RANGE: QualityMeaning("超出配置范围", "outside the range given by the profile", 0x40940000, 3),
    Quality.UNCERTAIN_STEP: QualityMeaning("变化过快", "changed faster than is credible", 0x40930000, 2),
    Quality.UNCERTAIN_STUCK: QualityMeaning("长时间不变", "unchanged for too long", 0x40930000, 3),
    Quality.UNCERTAIN_CLOCK: QualityMeaning("时间存疑", "timestamp doubtful", 0x40000000, 3),
    Quality.UNCERTAIN_SENSOR: QualityMeaning("传感器存疑", "sensor reports itself as doubtful", 0x40930000, 3),
    Quality.UNCERTAIN_CALIBRATION: QualityMeaning("校准中", "taken during calibration", 0x420A0000, 3),
    Quality.UNCERTAIN_SUBSTITUTED: QualityMeaning("人工设定值", "entered manually or estimated", 0x40910000, 3),
    Quality.UNCERTAIN_MAINTENANCE: QualityMeaning("维护中", "taken during maintenance", 0x40000000, 3),
    Quality.UNCERTAIN_SATURATED: QualityMeaning(
        "超测量上限", "above the measuring range: at least this value", 0x40940000, 3
    ),
    Quality.UNCERTAIN_LAST: QualityMeaning("最近有效值", "last usable value, repeated", 0x40900000, 3),
    Quality.UNCERTAIN_UNKNOWN: QualityMeaning("未给出标识", "expected quality flag missing", 0x40000000, 3),
    Quality.BAD: QualityMeaning("无效", "bad", 0x80000000, 4),
    Quality.BAD_RANGE: QualityMeaning("超出物理范围", "outside the physical range", 0x80000000, 4),
    Quality.BAD_SENSOR: QualityMeaning("仪器故障", "sensor or instrument failed", 0x808C0000, 4),
    Quality.BAD_MAINTENANCE: QualityMeaning("维护无效", "invalidated by maintenance", 0x80000000, 4),
    Quality.BAD_OUT_OF_SERVICE: QualityMeaning("停运", "out of service", 0x808D0000, 4),
    Quality.BAD_COMMUNICATION: QualityMeaning("通讯故障", "instrument and logger cannot communicate", 0x80050000, 4),
    Quality.BAD_CONFIGURATION: QualityMeaning("配置错误", "instrument misconfigured", 0x80890000, 4),
}
"""Entry of every code; a test checks that none is missing."""

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
"""Status codes that are more specific than their severity."""

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
    """Flags of a reading; the lower-case name is the word in the JSON form."""

    LATE = 1 << 0
    """It arrived after a later reading of its series, or long after its own time."""
    CONFLICT = 1 << 1
    """Another value for a reading that was accepted before: a revision of it."""
    CLOCK = 1 << 2
    """A clock is off, the device's or the gateway's, and the time is not to be relied on."""
    RANGE = 1 << 3
    """Outside of the plausible range."""
    STEP = 1 << 4
    """A change since the last reading that is faster than plausible."""
    STUCK = 1 << 5
    """The same value for longer than plausible."""
    FUTURE = 1 << 6
    """Its time lies after its arrival, by more than clocks usually differ."""
    STALE = 1 << 7
    """Its time lies so long before its arrival that it is no present state."""
    BACKLOG = 1 << 8
    """It reached the centre after an interruption of the link, not live."""
    UNIDENTIFIABLE = 1 << 9
    """It has neither time, sequence number nor message id of the device: duplicates of it are not recognised."""
    NOT_DEDUPLICATED = 1 << 10
    """Its time lies further back than duplicates are remembered."""
    BEST_EFFORT = 1 << 11
    """Published at QoS 0: it may have been lost on the way without notice, and others like it."""
    ALARM = 1 << 12
    """The profile marks the property as an alarm: no deadband and no mode order withholds it."""
    HEARTBEAT = 1 << 13
    """Unchanged, accepted as the sign of life that the profile asks for."""
    ROLLOVER = 1 << 14
    """A counter reached its modulus and restarted at 0; counting continued."""
    RESET = 1 << 15
    """A counter restarted at 0 before it reached its modulus."""
    UNIT = 1 << 16
    """The series is a thousand times too large or too small to be usual: the profile's unit is probably wrong."""
    WARNED = 1 << 17
    """The vendor's codec script gave a warning with the message."""
    REDECODED = 1 << 18
    """Decoded again, from the stored message, by a later version of the profile."""
    SECONDARY = 1 << 19
    """From a secondary source: another device is the authority for this property of the asset."""
    REDELIVERED = 1 << 20
    """The device sent the message again (DUP), and nothing identifies the reading: it may be there twice."""
    PLACE = 1 << 21
    """A coordinate outside of the division in which the device is registered."""

    WITHDRAWN = 1 << 22
    """An operator has withdrawn the reading: it is to be used for nothing."""
    CORRECTED = 1 << 23
    """An operator has set the quality of the reading afterwards (calibration, maintenance)."""


class TimeQuality(IntEnum):
    """Origin of the phenomenon time."""

    DEVICE = 0
    """The device's own, with its zone."""
    ASSUMED_ZONE = 1
    """The device's own, without a zone: that of the profile or the node is assumed."""
    DERIVED = 2
    """Computed from other times of the message, for example those of the network server."""
    RECEIVED = 3
    """The time of arrival: the message has none."""


@functools.lru_cache(maxsize=1024)
def _words(flags: int) -> tuple[str, ...]:
    return tuple(flag.name.lower() for flag in Flag if flags & flag and flag.name)


def flag_words(flags: int) -> list[str]:
    """Return the words of the set bits, in the order of the enumeration."""
    return list(_words(flags))


@functools.cache
def quality_word(code: int) -> str:
    """Return the lower-case word of a quality code (``good``, ``uncertain_range``).

    A code of a newer release, unknown here, gives the word of its class.
    """
    return Quality(code if code in TABLE else severity(code)).name.lower()


def severity(code: int) -> Quality:
    """Return the class of a code: GOOD, UNCERTAIN or BAD."""
    if code >= BAD_FROM:
        return Quality.BAD
    return Quality.UNCERTAIN if code >= UNCERTAIN_FROM else Quality.GOOD


def from_hj212(flag: str | None) -> Quality:
    """Return the quality of an HJ 212 flag; a missing or unknown flag is uncertain."""
    return HJ212.get((flag or "").strip().upper(), Quality.UNCERTAIN_UNKNOWN)


def from_opcua(status: int) -> Quality:
    """Return the quality of an OPC UA StatusCode: by its code where known, otherwise by its severity bits."""
    known = OPCUA.get(status & 0xFFFF0000)
    if known is not None:
        return known
    return (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[status >> 30 & 0b11]


def from_wmo(code: int) -> Quality:
    """Return the quality of a code in the style of the WMO; unknown codes (9: missing) are bad."""
    return WMO.get(code, Quality.BAD)
