"""Whether our own clock is right: held against the engine's, the centre's and the devices'."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sensegate.bus.record import decode_commit
from sensegate.bus.unreadable import read
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.normalise.clocks import TimeChecks
from sensegate.ports import Log

LOOK_S = 10.0

_log = structlog.get_logger("clock")


class OwnClock:
    """Looks every few seconds; while our clock is off, time judges nothing."""

    def __init__(
        self, config: Config, clock: Clock, log: Log, clocks: TimeChecks, centre_s: Callable[[], float | None]
    ) -> None:
        """`clocks`: told of it. `centre_s`: how far the centre's clock is from ours; None where nobody knows."""
        self._config = config
        self._clock = clock
        self._store = log
        self._clocks = clocks
        self._centre_s = centre_s

    async def run(self) -> None:
        """Look until cancelled."""
        limit_s = self._config.time.clock_error_max_s
        off = False
        while True:
            await self._clock.sleep(LOOK_S)
            seen = await self._offsets()
            now_off = any(abs(offset_s) > limit_s for offset_s in seen)
            if now_off != off:
                _log.error("own clock is off" if now_off else "own clock is right again", offsets_s=seen)
            off = self._clocks.own_clock_off = now_off

    async def _offsets(self) -> list[float]:
        config = self._config
        ours = await self._store.last(f"commit.{config.member_id}-{config.ingest.partition}")
        record = read(ours, "own clock", decode_commit) if ours else None
        seen = [(ours.time - record.committed_at) / 1e6] if ours and record else []
        if (centre_s := self._centre_s()) is not None:
            seen.append(centre_s)
        elif not config.engine.url and (devices_s := self._clocks.median_lag(self._clock.now())) is not None:
            # Alone with an engine on our own clock, only the devices can tell.
            seen.append(devices_s)
        return seen
