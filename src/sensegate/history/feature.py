"""Feature: the history of readings beyond the retention of the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sensegate.errors import ConfigError
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.history.engine import HistoryEngine
from sensegate.history.prometheus import PROMETHEUS
from sensegate.history.prometheus import ROUTES as PROMETHEUS_ROUTES
from sensegate.history.prometheus_reader import PrometheusReader
from sensegate.history.query import HistoryQueries
from sensegate.history.reader import HistoryReader
from sensegate.history.rest import HISTORY, ROUTES
from sensegate.history.segments import SegmentStore
from sensegate.history.sink import HistorySink


async def _open(parts: Parts) -> Feature | None:
    config = parts.core.config.history
    if not config.enabled:
        return None
    if parts.core.config.engine.encryption in {"on", "convert"}:
        raise ConfigError(
            "the files of the history are not encrypted, and engine.encryption is on",
            key="history.enabled",
            remedy="set it to false, or set engine.encryption to auto or off and encrypt the disk",
        )
    directory = Path(config.directory or Path(parts.core.config.directory) / "history")
    engine = await asyncio.to_thread(
        HistoryEngine, directory / "scratch", memory_bytes=config.memory_bytes, threads=config.threads
    )
    parts.stack.callback(engine.close)
    sharing = parts.share.sharing
    sink = HistorySink(sharing.reader.log, SegmentStore(directory, engine), config, parts.core.clock)
    queries = HistoryQueries(engine, sink, sharing.server.masks, config)
    return Feature(
        tasks={"history": Task(sink.run, Place.HELPER)},
        parts={
            HISTORY: HistoryReader(queries, sharing, sink.drop),
            PROMETHEUS: PrometheusReader(queries, sharing, parts.share.latest),
        },
        warnings=sink.warnings,
    )


FEATURE = FeatureSpec(
    name="history",
    title="readings beyond the retention of the log, and their aggregates",
    config=("history",),
    routes=(*ROUTES, *PROMETHEUS_ROUTES),
    open=_open,
)
