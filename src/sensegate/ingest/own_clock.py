"""Monitoring of the system clock against those of the engine, the centre and the devices."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sensegate.bus.commit_records import decode_commit
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.normalise.clocks import TimeChecks
from sensegate.ports import Log

CHECK_S = 10.0

_log = structlog.get_logger("clock")


class ClockMonitor:
    """Checks the clock periodically; while it is wrong, checks of time are suspended."""

    def __init__(
        self, config: Config, clock: Clock, log: Log, clocks: TimeChecks, centre_s: Callable[[], float | None]
    ) -> None:
        """`clocks`: its checks are suspended. `centre_s`: returns the offset of the centre's clock; None: unknown."""
        self._config = config
        self._clock = clock
        self._store = log
        self._clocks = clocks
        self._centre_s = centre_s

    async def run(self) -> None:
        """Check periodically, until cancelled."""
        limit_s = self._config.time.clock_error_max_s
        off = False
        while True:
            await self._clock.sleep(CHECK_S)
            offsets = await self._offsets()
            now_off = any(abs(offset_s) > limit_s for offset_s in offsets)
            if now_off != off:
                _log.error("system clock is wrong" if now_off else "system clock is correct again", offsets_s=offsets)
            off = self._clocks.own_clock_off = now_off

    async def _offsets(self) -> list[float]:
        config = self._config
        last = await self._store.last(f"commit.{config.member_id}-{config.ingest.partition}")
        record = read(last, "own clock", decode_commit) if last else None
        offsets = [(last.time - record.committed_at) / 1e6] if last and record else []
        if (centre_s := self._centre_s()) is not None:
            offsets.append(centre_s)
        elif not config.engine.url and (devices_s := self._clocks.median_lag(self._clock.now())) is not None:
            # Without a centre, and with the engine on the same machine, only the devices give another time.
            offsets.append(devices_s)
        return offsets
