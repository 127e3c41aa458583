"""Time checks: whether the phenomenon time is credible given the time of arrival.

The phenomenon time must lie after `TimeConfig.oldest` and not years ahead, otherwise the value is rejected; anything
else is flagged and kept. Devices that send local time as UTC, or the reverse, are permanently eight hours off: a steady
shift, unlike a backlog that passes through that lag while it drains, is flagged `clock`.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import numpy as np

from sensegate.clock import HOUR_US, SECOND_US
from sensegate.config import TimeConfig
from sensegate.errors import ConfigError
from sensegate.model import BOOL, F64, I32, I64, U8, U32
from sensegate.quantities.quality import Flag, TimeQuality

SHIFT = 8 * HOUR_US
"""China Standard Time minus UTC."""
SHIFT_TOLERANCE = 120 * SECOND_US
SHIFT_STEADY = 600 * SECOND_US
"""Time for which a lag must stay at the shift before it is treated as one."""

REPRESENTABLE = (-62_135_596_800 * SECOND_US, 253_402_300_799 * SECOND_US)
"""Years 1 to 9999: the times that can be written at all."""

_NOT_SHIFTED = np.iinfo(np.int64).min
WINDOW = HOUR_US
"""Devices heard within this time say something about the gateway's own clock."""
SPREAD_S = 60.0
"""Lags this close to one another agree."""
STEADY = 60 * SECOND_US
"""Time for which a device's lag must have stayed within `SPREAD_S` before it is evidence: a backlog passes on."""


BACKLOG = 6 * HOUR_US
"""Devices that are later than this are sending what they kept: a wrong clock of ours is told by others."""
PERIOD_MORE = 300 * SECOND_US
"""A value of a period may bear the time of its beginning: it is late by the interval, and by up to this."""


class DeviceAgreement(NamedTuple):
    """Agreement of the devices on the time."""

    agreeing: int = 0
    """Independent devices whose steady lags lie within `SPREAD_S` of one another, the most that do."""
    heard: int = 0
    """Independent devices heard of late with a clock of their own, and other devices that are registered and enabled;
    devices behind one gateway count as one."""
    offset_s: float = 0.0
    """Seconds by which the agreeing devices are ahead of our clock."""


class TimeChecks:
    """Compares phenomenon times with arrival; remembers each device's last lag and since when it has been shifted."""

    def __init__(self, config: TimeConfig) -> None:
        self.late = round(config.late_s * SECOND_US)
        self.stale = round(config.stale_h * HOUR_US)
        self.future = round(config.future_s * SECOND_US)
        self.future_max = round(config.future_max_h * HOUR_US)
        self.oldest = _parse_oldest(config.oldest)
        self.own_clock_off = False
        """True if the gateway's own clock is wrong: then every reading is flagged and none is judged by its time."""
        self._lag: I64 = np.zeros(0, np.int64)
        self._heard: I64 = np.zeros(0, np.int64)
        self._steady_since: I64 = np.zeros(0, np.int64)
        self._shifted_since: I64 = np.zeros(0, np.int64)
        self._shifted = 0

    def out_of_bounds(self, time: I64, now: int) -> BOOL | None:
        """Return True for rows whose time is out of bounds, None if there are none."""
        low, high = REPRESENTABLE if self.own_clock_off else (self.oldest, now + self.future_max)
        if low <= int(time.min()) and int(time.max()) <= high:
            return None
        return (time < low) | (time > high)

    def mark(self, device: I32, time: I64, time_quality: U8, received: I64, flags: U32) -> BOOL | None:
        """Set the time flags; return True for rows whose time is doubtful, None if there are none.

        A late or stale reading is not doubtful, as its own time is trusted. One from the future, or from a device that
        is off by a time zone, is doubtful.
        """
        lag = received - time
        self._remember(device, lag, time_quality, received)
        if self.own_clock_off:
            flags |= np.uint32(Flag.CLOCK)
            ours: BOOL = time_quality == TimeQuality.RECEIVED
            return ours
        least, greatest = int(lag.min()), int(lag.max())
        doubtful = None
        if greatest > self.late:
            flags[lag > self.late] |= np.uint32(Flag.LATE)
        if greatest > self.stale:
            flags[lag > self.stale] |= np.uint32(Flag.STALE)
        if least < -self.future:
            doubtful = lag < -self.future
            flags[doubtful] |= np.uint32(Flag.FUTURE)
        if self._shifted or greatest >= SHIFT - SHIFT_TOLERANCE or least <= SHIFT_TOLERANCE - SHIFT:
            shifted = self._steadily_shifted(device, lag, time_quality, received)
            flags[shifted] |= np.uint32(Flag.CLOCK)
            doubtful = shifted if doubtful is None else doubtful | shifted
        return doubtful

    def agreement(self, now: int, gateway: I32, enabled: BOOL, interval_s: F64) -> DeviceAgreement:
        """Return how far the devices with a clock of their own agree.

        A lag that has another reason is no evidence: that of a time zone, of a period whose beginning is sent, of a
        backlog.

        Args:
            now: µs UTC.
            gateway: number of its gateway by device, 0 for none.
            enabled: whether a device is registered and in use, by device.
            interval_s: expected interval by device, 0: unknown.
        """
        heard = np.flatnonzero(self._heard > now - WINDOW)
        if not heard.size:
            return DeviceAgreement()
        counted = np.union1d(heard, np.flatnonzero(enabled))
        behind = gateway[counted]
        source = np.where(behind > 0, -behind.astype(np.int64), counted)
        sources, of_device = np.unique(source, return_inverse=True)
        of_heard = of_device[np.searchsorted(counted, heard)]
        lag = self._lag[heard]
        period = interval_s[heard] * SECOND_US
        explained = (np.abs(np.abs(lag) - SHIFT) <= SHIFT_TOLERANCE) | (lag > BACKLOG)
        explained |= (period > 0) & (lag > PERIOD_MORE) & (lag <= period + PERIOD_MORE)
        steady = ~explained & (self._heard[heard] - self._steady_since[heard] >= STEADY)
        lags = np.full(len(sources), np.iinfo(np.int64).min)
        lags[of_heard[steady]] = lag[steady]
        lags = np.sort(lags[lags != np.iinfo(np.int64).min])
        if not lags.size:
            return DeviceAgreement(0, len(sources))
        ends = np.searchsorted(lags, lags + round(SPREAD_S * SECOND_US), side="right")
        counts = ends - np.arange(len(lags))
        first = int(counts.argmax())
        agreeing = lags[first : int(ends[first])]
        return DeviceAgreement(len(agreeing), len(sources), -float(np.median(agreeing)) / SECOND_US)

    def device_lag(self, device: int) -> float | None:
        """Return a device's last lag in seconds (negative: its clock is ahead), None before its first message."""
        known = device < len(self._heard) and self._heard[device] > 0
        return float(self._lag[device]) / SECOND_US if known else None

    def _remember(self, device: I32, lag: I64, time_quality: U8, received: I64) -> None:
        top = int(device.max())
        if top >= len(self._lag):
            size = max(top + 1, len(self._lag) * 3 // 2, 1024)
            self._lag = _grown(self._lag, size, 0)
            self._heard = _grown(self._heard, size, 0)
            self._steady_since = _grown(self._steady_since, size, 0)
            self._shifted_since = _grown(self._shifted_since, size, _NOT_SHIFTED)
        if time_quality.any():
            own = time_quality <= TimeQuality.ASSUMED_ZONE
            device, lag, received = device[own], lag[own], received[own]
        if len(device) > 1:
            # The values of a message follow each other and say the same.
            tells = np.empty(len(device), np.bool_)
            tells[0] = True
            tells[1:] = (device[1:] != device[:-1]) | (lag[1:] != lag[:-1]) | (received[1:] != received[:-1])
            device, lag, received = device[tells], lag[tells], received[tells]
        moved = (self._heard[device] == 0) | (np.abs(lag - self._lag[device]) > SPREAD_S * SECOND_US)
        if moved.any():
            self._steady_since[device[moved]] = received[moved]
        self._lag[device] = lag
        self._heard[device] = received

    def _steadily_shifted(self, device: I32, lag: I64, time_quality: U8, received: I64) -> BOOL:
        """Return True for rows of devices whose lag has been eight hours for a while, and track since when."""
        shifted = np.abs(np.abs(lag) - SHIFT) <= SHIFT_TOLERANCE
        rows, back = np.flatnonzero(shifted), device[~shifted & (time_quality <= TimeQuality.ASSUMED_ZONE)]
        fresh = rows[self._shifted_since[device[rows]] == _NOT_SHIFTED][::-1]
        self._shifted_since[device[fresh]] = received[fresh]  # reversed, so that a device's first row wins
        self._shifted_since[back] = _NOT_SHIFTED  # a single unshifted row ends the shift of its device
        since = self._shifted_since[device]
        steady: BOOL = shifted & (since != _NOT_SHIFTED)
        steady[steady] = received[steady] - since[steady] >= SHIFT_STEADY
        self._shifted = int((self._shifted_since != _NOT_SHIFTED).sum())
        return steady


def _grown(column: I64, size: int, fill: int) -> I64:
    grown = np.full(size, fill, np.int64)
    grown[: len(column)] = column
    return grown


def _parse_oldest(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as why:
        raise ConfigError("not a time", key="time.oldest", remedy="use the form 2000-01-01T00:00:00Z") from why
    if when.tzinfo is None:
        raise ConfigError("the time has no zone", key="time.oldest", remedy="use the form 2000-01-01T00:00:00Z")
    return round(when.timestamp() * SECOND_US)
