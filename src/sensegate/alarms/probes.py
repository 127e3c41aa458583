"""Conditions of the gateway itself, as numbers that rules compare."""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from sensegate.alarms.rules import AlarmKind
from sensegate.bus.ledger import MESSAGES, QUARANTINED
from sensegate.clock import Clock

WINDOW_S = 900.0
"""Time over which the rate of quarantined messages is taken."""
MESSAGES_MIN = 20
"""A rate of fewer messages says nothing."""


def free_share(directory: Path) -> float | None:
    """Return the share of the disk of a directory that is free; None: it cannot be read, which the store reports."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return usage.free / usage.total


class GatewayProbes:
    """Measures the gateway; a kind that does not apply to it, or is unknown now, has no value."""

    def __init__(
        self,
        clock: Clock,
        directory: Path,
        *,
        totals: Callable[[], Mapping[str, int]],
        lag: Callable[[], int | None],
        refused: Callable[[], Awaitable[int | None]],
        store_problems: Callable[[], int],
        free: Callable[[Path], float | None] = free_share,
    ) -> None:
        """Begin to measure.

        Args:
            clock: source of time.
            directory: on the disk of the store.
            totals: returns the ledger since the log began: kind -> count.
            lag: returns the entries that the centre does not have; None: there is no centre.
            refused: returns the number of refused spans or parts; None: unknown.
            store_problems: returns how many problems the store has.
            free: returns the share of a disk that is free.
        """
        self._clock = clock
        self._directory = directory
        self._totals = totals
        self._lag = lag
        self._refused = refused
        self._store_problems = store_problems
        self._free = free
        self._counts: deque[tuple[float, int, int]] = deque()
        """(seconds, messages, quarantined), oldest first."""

    async def values(self) -> dict[AlarmKind, float | None]:
        """Return the present values. Raises `Unavailable`."""
        return {
            AlarmKind.DISK: await asyncio.to_thread(self._free, self._directory),
            AlarmKind.QUARANTINE_RATE: self._quarantine_rate(),
            AlarmKind.LAG: self._lag(),
            AlarmKind.REFUSED_SPANS: await self._refused(),
            AlarmKind.STORE_MISSING: float(self._store_problems()),
        }

    def _quarantine_rate(self) -> float | None:
        totals, now = self._totals(), self._clock.monotonic()
        quarantined_total = sum(count for kind, count in totals.items() if kind.partition(".")[0] == QUARANTINED)
        self._counts.append((now, totals.get(MESSAGES, 0), quarantined_total))
        while now - self._counts[0][0] > WINDOW_S:
            self._counts.popleft()
        (_, messages, quarantined), (_, before, quarantined_before) = self._counts[-1], self._counts[0]
        passed = messages - before
        return (quarantined - quarantined_before) / passed if passed >= MESSAGES_MIN else None
