"""Count the messages of each device in the current minute: one device that floods must not hold up a city."""

from __future__ import annotations

import numpy as np

from sensegate.model import BOOL, I32, I64
from sensegate.quantities.sorting import radix_argsort

MINUTE_US = 60_000_000


class DeviceRates:
    """Counts by device index and minute of arrival; eight bytes for each device."""

    def __init__(self, rate_s: float) -> None:
        """Allow `rate_s` messages a second for each device, as a mean over a minute."""
        self.allowed = round(rate_s * 60)
        self._minute: I32 = np.zeros(0, np.int32)
        self._count: I32 = np.zeros(0, np.int32)

    def exceeding(self, device: I32, received: I64) -> BOOL | None:
        """Count messages (device index or -1; arrival in µs); return which exceed the rate, None if none does."""
        if not len(device):
            return None
        minute = (received // MINUTE_US).astype(np.int32)
        if minute[0] == minute[-1] and bool((minute == minute[0]).all()):
            return self._within_minute(device, int(minute[0]))
        over = np.zeros(len(device), np.bool_)
        for single_minute in np.unique(minute).tolist():
            rows = np.flatnonzero(minute == single_minute)
            part = self._within_minute(device[rows], single_minute)
            if part is not None:
                over[rows] = part
        return over if over.any() else None

    def _within_minute(self, device: I32, minute: int) -> BOOL | None:
        top = int(device.max())
        if top < 0:
            return None
        if top >= len(self._count):
            size = max(top + 1, len(self._count) * 3 // 2, 1024)
            self._minute = np.concatenate([self._minute, np.zeros(size - len(self._minute), np.int32)])
            self._count = np.concatenate([self._count, np.zeros(size - len(self._count), np.int32)])
        known = device >= 0
        here = device if known.all() else device[known]
        stale = here[self._minute[here] != minute]
        self._count[stale] = 0
        self._minute[stale] = minute
        before = self._count[here]
        sent = np.bincount(here)
        self._count[: len(sent)] += sent.astype(np.int32)
        if int(self._count[here].max()) <= self.allowed:
            return None
        # Rare: number the messages of each device within the batch.
        order = radix_argsort(here)
        ordered = here[order]
        first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        start = np.maximum.accumulate(np.where(first, np.arange(len(ordered)), 0))
        nth = np.empty(len(here), np.int64)
        nth[order] = np.arange(len(ordered)) - start
        over = np.zeros(len(device), np.bool_)
        over[known] = before + nth >= self.allowed
        return over if over.any() else None
