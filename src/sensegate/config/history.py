"""The configuration of the history of readings.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated

from sensegate.config.setting import ConfigRecord, doc


class HistoryConfig(ConfigRecord, frozen=True):
    """Readings beyond the retention of the log, in Parquet files; needs the extra `sensegate[history]`.

    Without it `/history` answers the days that the log holds.

    Observations of cameras are not kept, since the files are not encrypted.
    """

    enabled: Annotated[bool, doc("keep a history")] = False
    directory: Annotated[
        str,
        doc(
            "directory of its files; empty: `history` in the directory of the gateway, where `sensegate backup` takes "
            "it along; lost files are written again from the days that the log holds"
        ),
    ] = ""
    retention_days: Annotated[
        float,
        doc("retention of readings of grades 1 and 2, by time of arrival", least=0.01, most=36_600),
    ] = 400.0
    grade3_retention_days: Annotated[float, doc("retention of readings of grades 3 and 4", least=0.01, most=36_600)] = (
        90.0
    )
    flush_s: Annotated[
        float, doc("readings are in the history after this time at the latest", least=0.1, most=3_600)
    ] = 30.0
    memory_bytes: Annotated[
        int,
        doc(
            "memory for queries, which spill more to the disk; merging files takes up to 400 MB beside it",
            least=64 * 1024**2,
            most=10**12,
        ),
    ] = 256 * 1024**2
    threads: Annotated[int, doc("threads of queries", least=1, most=64)] = 2
    query_timeout_s: Annotated[float, doc("a query that takes longer is answered 413", least=0.1, most=600)] = 10.0
    query_rows_max: Annotated[
        int, doc("most masked readings that one aggregate may read; more is answered 413", least=1_000, most=10**9)
    ] = 2_000_000
    queries_max: Annotated[int, doc("queries at the same time; further ones wait, then get 429", least=1, most=100)] = 2
