"""Feature: the history of readings beyond the retention of the log; without it, what the log holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sensegate.errors import ConfigError, NotFound
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.history.engine import HistoryEngine, is_installed
from sensegate.history.log_queries import REMEDY, LogQueries
from sensegate.history.observation_counts import ObservationCounts
from sensegate.history.prometheus import PROMETHEUS
from sensegate.history.prometheus import ROUTES as PROMETHEUS_ROUTES
from sensegate.history.prometheus_reader import PrometheusReader
from sensegate.history.query import HistoryQueries
from sensegate.history.reader import HistoryReader
from sensegate.history.rest import COUNTS, HISTORY, ROUTES
from sensegate.history.segments import SegmentStore
from sensegate.history.sink import HistorySink
from sensegate.web.parts import PartKey

QUERIES = PartKey[HistoryQueries]("queries of the history", absent=f"this gateway keeps no history; {REMEDY}")


async def _open(parts: Parts) -> Feature:
    config = parts.core.config.history
    if not config.enabled or not is_installed():
        return _of_log(parts)
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
    sink = HistorySink(sharing.reader.log, SegmentStore(directory), config, parts.core.clock)
    queries = HistoryQueries(engine, sink, sharing.server.masks, config)
    return Feature(
        tasks={"history": Task(sink.run, Place.HELPER)},
        parts={
            HISTORY: HistoryReader(queries, sharing, sink.drop),
            COUNTS: _counts(parts),
            QUERIES: queries,
            PROMETHEUS: PrometheusReader(queries, sharing, parts.share.latest),
        },
        warnings=sink.warnings,
    )


def _counts(parts: Parts) -> ObservationCounts:
    """Return the counts of observations, which only the log has: it is encrypted for them."""
    sharing = parts.share.sharing
    queries = LogQueries(sharing.reader, sharing.server.masks, parts.core.config.history)
    return ObservationCounts(queries, sharing)


def _of_log(parts: Parts) -> Feature:
    """Return the reader of a gateway without a history: readings of the days that its log holds."""
    config, sharing = parts.core.config.history, parts.share.sharing

    async def drop(_division: str) -> int:
        raise NotFound(QUERIES.absent)

    warnings = ["history.enabled: DuckDB or pyarrow is not installed, nothing is kept; install sensegate[history]"]
    reader = HistoryReader(LogQueries(sharing.reader, sharing.server.masks, config), sharing, drop)
    return Feature(parts={HISTORY: reader, COUNTS: _counts(parts)}, warnings=lambda: warnings if config.enabled else [])


FEATURE = FeatureSpec(
    name="history",
    title="readings beyond the retention of the log, and their aggregates",
    config=("history",),
    routes=(*ROUTES, *PROMETHEUS_ROUTES),
    open=_open,
)
