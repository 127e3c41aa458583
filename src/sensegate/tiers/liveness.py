"""Liveness of the other tier: how long nothing was heard of it, whatever the state of its connection.

A connection proves nothing: a half-open one, and that of a process that hangs, stay open for minutes. So each side
counts from the last request or answer of the other. Nodes report every two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.errors import Unavailable

SILENT_S: Final = 7.0
"""Silence after which a member is reported, within ten seconds of the fault."""
LAG_PERIOD_S: Final = 1.0

_log = structlog.get_logger("tiers")


class Liveness:
    """Times at which members were last heard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._heard: dict[str, float] = {}

    def note(self, member: str) -> None:
        """Note that a member was heard now."""
        self._heard[member] = self._clock.monotonic()

    def silence_s(self, member: str) -> float:
        """Return how long a member was not heard, at most since this process began."""
        return self._clock.monotonic() - self._heard.get(member, self._began)

    def is_silent(self, member: str) -> bool:
        """Return whether a member was not heard for longer than `SILENT_S`."""
        return self.silence_s(member) > SILENT_S


class LogEnd(Protocol):
    """The part of the log that tells where it ends."""

    async def bounds(self) -> tuple[int, int]:
        """Return the first and the last sequence. Raises `Unavailable`."""
        ...


class UplinkLag:
    """Number of entries that the centre does not have; it rises while the centre is away."""

    def __init__(self, log: LogEnd, clock: Clock, *, log_end: int = 0) -> None:
        """`log_end`: last sequence when this process began; what was not forwarded before is not known yet."""
        self._log = log
        self._clock = clock
        self._position = max(log_end, 0)
        self._backlog = 0
        self.entries = 0
        """Entries of the log that the centre does not have."""

    def set(self, position: int, unsent: int, backlog: int) -> None:
        """Set the lag while the centre answers.

        Args:
            position: of the live lane.
            unsent: entries behind it.
            backlog: entries of the ranges that the backlog lane has still to forward.
        """
        self._position, self._backlog = position, backlog
        self.entries = unsent + backlog
        metrics.UPLINK_LAG.set(self.entries)

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Keep the metric up to date while the centre does not answer, until cancelled."""
        while True:
            await self._clock.sleep(LAG_PERIOD_S)
            if is_connected():
                continue
            try:
                _, end = await self._log.bounds()
            except Unavailable as why:
                _log.debug("lag of the uplink not updated", reason=str(why))
                continue
            self.entries = max(0, end - self._position) + self._backlog
            metrics.UPLINK_LAG.set(self.entries)
