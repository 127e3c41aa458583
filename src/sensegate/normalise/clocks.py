"""Checks of time: is the phenomenon time believable, seen from the arrival?

Sources: the phenomenon time must lie after `TimeConfig.oldest` and not years ahead, else the value is rejected; all
else is marked and kept (field-lessons TIME-1, TIME-5). Devices that send local time as UTC, or the reverse, are off
by eight hours for good: a steady shift, unlike a backlog that drains through that lag, is marked `clock`.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from sensegate.config import TimeConfig
from sensegate.errors import ConfigError
from sensegate.model import BOOL, I32, I64, U8, U32
from sensegate.quantities.quality import Flag, TimeQuality

SECOND = 1_000_000
HOUR = 3_600 * SECOND

SHIFT = 8 * HOUR
"""China Standard Time minus UTC."""
SHIFT_PLAY = 120 * SECOND
SHIFT_STEADY = 600 * SECOND
"""A lag must stay at the shift for so long before it counts as one."""

REPRESENTABLE = (-62_135_596_800 * SECOND, 253_402_300_799 * SECOND)
"""Years 1 to 9999: what can be written as a time at all."""

_NOT_SHIFTED = np.iinfo(np.int64).min
OFFSET_DEVICES_MIN = 5
"""The devices' median says something about our own clock only when at least so many spoke of late."""
OFFSET_WINDOW = 600 * SECOND


class Clocks:
    """Judges phenomenon times against arrival; remembers of each device its last lag and since when it is shifted."""

    def __init__(self, config: TimeConfig) -> None:
        self.late = round(config.late_s * SECOND)
        self.stale = round(config.stale_h * HOUR)
        self.future = round(config.future_s * SECOND)
        self.future_max = round(config.future_max_h * HOUR)
        self.oldest = _instant(config.oldest)
        self.own_clock_off = False
        """Set by the flow when our own clock is off: then nothing is judged by time, and all is marked."""
        self._lag: I64 = np.zeros(0, np.int64)
        self._heard: I64 = np.zeros(0, np.int64)
        self._shifted_since: I64 = np.zeros(0, np.int64)
        self._shifted = 0

    def bad(self, time: I64, now: int) -> BOOL | None:
        """Return True for rows whose time is beyond belief, None when there is none."""
        low, high = REPRESENTABLE if self.own_clock_off else (self.oldest, now + self.future_max)
        if low <= int(time.min()) and int(time.max()) <= high:
            return None
        return (time < low) | (time > high)

    def mark(self, device: I32, time: I64, time_quality: U8, received: I64, flags: U32) -> BOOL | None:
        """Set the flags of time; return True for rows whose time is doubtful, None when there is none.

        A late or stale reading is not doubtful: it says itself when it was. One from the future, or from a device
        that is off by a time zone, is.
        """
        if self.own_clock_off:
            flags |= np.uint32(Flag.CLOCK)
            ours: BOOL = time_quality == TimeQuality.RECEIVED
            return ours
        lag = received - time
        self._remember(device, lag, time_quality, received)
        least, most = int(lag.min()), int(lag.max())
        doubtful = None
        if most > self.late:
            flags[lag > self.late] |= np.uint32(Flag.LATE)
        if most > self.stale:
            flags[lag > self.stale] |= np.uint32(Flag.STALE)
        if least < -self.future:
            doubtful = lag < -self.future
            flags[doubtful] |= np.uint32(Flag.FUTURE)
        if self._shifted or most >= SHIFT - SHIFT_PLAY or least <= SHIFT_PLAY - SHIFT:
            shifted = self._steadily_shifted(device, lag, time_quality, received)
            flags[shifted] |= np.uint32(Flag.CLOCK)
            doubtful = shifted if doubtful is None else doubtful | shifted
        return doubtful

    def offset(self, now: int) -> float | None:
        """Return by how many seconds the median device is behind us (negative: ahead), None when too few spoke.

        Counts devices with a clock of their own that were heard within the last ten minutes.
        """
        lag = self._lag[self._heard > now - OFFSET_WINDOW]
        return float(np.median(lag)) / SECOND if len(lag) >= OFFSET_DEVICES_MIN else None

    def lag_of(self, device: int) -> float | None:
        """Return a device's last lag in seconds (negative: its clock is ahead), None before it spoke."""
        known = device < len(self._heard) and self._heard[device] > 0
        return float(self._lag[device]) / SECOND if known else None

    def _remember(self, device: I32, lag: I64, time_quality: U8, received: I64) -> None:
        top = int(device.max())
        if top >= len(self._lag):
            size = max(top + 1, len(self._lag) * 3 // 2, 1024)
            self._lag = _grown(self._lag, size, 0)
            self._heard = _grown(self._heard, size, 0)
            self._shifted_since = _grown(self._shifted_since, size, _NOT_SHIFTED)
        if time_quality.any():
            own = time_quality <= TimeQuality.ASSUMED_ZONE
            device, lag, received = device[own], lag[own], received[own]
        self._lag[device] = lag
        self._heard[device] = received

    def _steadily_shifted(self, device: I32, lag: I64, time_quality: U8, received: I64) -> BOOL:
        """Return True for rows of devices whose lag has been eight hours for a while; keep the account of it."""
        shifted = np.abs(np.abs(lag) - SHIFT) <= SHIFT_PLAY
        rows, back = np.flatnonzero(shifted), device[~shifted & (time_quality <= TimeQuality.ASSUMED_ZONE)]
        fresh = rows[self._shifted_since[device[rows]] == _NOT_SHIFTED][::-1]
        self._shifted_since[device[fresh]] = received[fresh]  # of one device the first row is written last
        self._shifted_since[back] = _NOT_SHIFTED  # one row that is not shifted ends it for the device
        since = self._shifted_since[device]
        steady: BOOL = shifted & (since != _NOT_SHIFTED)
        steady[steady] = received[steady] - since[steady] >= SHIFT_STEADY
        self._shifted = int((self._shifted_since != _NOT_SHIFTED).sum())
        return steady


def _grown(column: I64, size: int, fill: int) -> I64:
    grown = np.full(size, fill, np.int64)
    grown[: len(column)] = column
    return grown


def _instant(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as why:
        raise ConfigError("not a time", key="time.oldest", remedy="write it as 2000-01-01T00:00:00Z") from why
    if when.tzinfo is None:
        raise ConfigError("a time without a zone", key="time.oldest", remedy="write it as 2000-01-01T00:00:00Z")
    return round(when.timestamp() * SECOND)
