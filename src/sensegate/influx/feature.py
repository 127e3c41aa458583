"""Feature: InfluxDB 2 line protocol, in and out."""

from __future__ import annotations

import asyncio

from sensegate.config import read_secret
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.influx.outlets import PREFIX, Outlets
from sensegate.influx.write import ROUTES


async def _open(parts: Parts) -> Feature | None:
    configured = parts.core.config.influx.outlets
    if not configured:
        return None
    # Importing the client takes a while.
    outlets = await asyncio.to_thread(Outlets, configured, parts.share.push, read_secret)
    parts.stack.callback(outlets.close)
    return Feature(tasks={"outlets": Task(outlets.run, Place.HELPER)}, warnings=outlets.warnings)


FEATURE = FeatureSpec(
    name="line protocol",
    title="InfluxDB 2 line protocol: devices that write it, and stores into which feeds are written",
    config=("influx",),
    routes=ROUTES,
    subscription_prefixes=(PREFIX,),
    open=_open,
)
