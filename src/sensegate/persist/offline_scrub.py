"""Build the scrub of a store whose gateway does not run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from sensegate.bus.engine import Engine, User
from sensegate.bus.log import JetStreamLog
from sensegate.clock import HOUR_US, SystemClock
from sensegate.config import Config
from sensegate.persist.duplicates import HORIZON_SLACK_H
from sensegate.persist.scrub import Scrub, scrub_target


@contextlib.asynccontextmanager
async def offline_scrub(config: Config, engine: Engine) -> AsyncIterator[Scrub]:
    """Yield the scrub of a log; the engine has started. Raises `Unavailable`."""
    client = await engine.connect(User.GATEWAY, name="scrub")
    try:
        log = JetStreamLog(client)
        await log.open(Path(config.directory))
        horizon_us = (config.duplicates.horizon_h + HORIZON_SLACK_H) * HOUR_US
        yield Scrub(log, scrub_target(config, horizon_us), SystemClock())
        await log.close()
    finally:
        await client.close()
