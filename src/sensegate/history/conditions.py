"""Selections as SQL: the conditions of a scan on what is not masked, with texts as parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sensegate.history.segment_files import LAST_TIME_SQL, TIME_SQL
from sensegate.share.feeds import FeedSelection
from sensegate.share.matching import SECONDARY


class Scan(msgspec.Struct, frozen=True):
    """A source of rows, with the parameters of its text."""

    sql: str
    parameters: tuple[str | int, ...] = ()


def table_of(files: Sequence[Path]) -> str:
    """Return files as a table."""
    names = ", ".join("'{}'".format(str(file).replace("'", "''")) for file in files)
    return f"read_parquet([{names}])"


def rows_of(files: Sequence[Path], begin: int, end: int) -> str:
    """Return the rows of files as a table with their times, those of a period and some beside it.

    Row groups are skipped by the stored milliseconds.
    """
    period = f"ms >= {begin // 1_000} AND ms <= {end // 1_000}"
    return f"(SELECT *, {TIME_SQL} AS time FROM {table_of(files)} WHERE {period})"


def conditions_of(selection: FeedSelection) -> tuple[list[str], list[str | int]]:
    """Return what of a selection holds for rows and for hourly sums alike: conditions, and their parameters."""
    conditions, parameters = [f"grade <= {selection.grade_max}"], list[str | int]()
    for column, words in (
        ("domain", selection.domains),
        ("department", selection.departments),
        ("split_part(property, '#', 1)", selection.properties),
        ("device", selection.devices),
    ):
        if words:
            conditions.append(f"{column} IN ({', '.join('?' * len(words))})")
            parameters += words
    if selection.properties:
        # Row groups of other properties are skipped by this; a channel is behind a "#", which comes before "$".
        conditions.append("property >= ? AND property < ?")
        parameters += [min(selection.properties), f"{max(selection.properties)}$"]
    if selection.divisions:
        prefixes = " OR ".join("starts_with(division, ?)" for _ in selection.divisions)
        conditions.append(f"({prefixes})")
        parameters += selection.divisions
    return conditions, parameters


def rows_scan(
    selection: FeedSelection,
    files: Sequence[Path],
    revised: Sequence[Path],
    *,
    begin: int,
    end: int,
    more: str = "",
) -> Scan:
    """Return the rows of a selection in a period, without those that a row of the `revised` files revises."""
    conditions, parameters = conditions_of(selection)
    conditions += [f"time >= {begin}", f"time < {end}"]
    if not selection.secondary_sources:
        conditions.append(f"(flags & {int(SECONDARY)}) = 0")
    if revised:
        conditions.append(
            f"NOT EXISTS (SELECT 1 FROM {rows_of(revised, begin, end)} AS v "
            f"WHERE v.revision > r.revision AND v.node = r.node AND v.device = r.device "
            f"AND v.property = r.property AND v.time = r.time "
            f"AND v.revision > 0 AND v.time >= {begin} AND v.time < {end})"
        )
    if more:
        conditions.append(more)
    source = rows_of(files, begin, end)
    return Scan(f"SELECT * FROM {source} AS r WHERE {' AND '.join(conditions)}", tuple(parameters))


def sums_scan(selection: FeedSelection, files: Sequence[Path], *, begin: int, end: int) -> Scan:
    """Return the hourly sums of a selection in a period of whole hours."""
    conditions, parameters = conditions_of(selection)
    conditions += [f"hour >= {begin}", f"hour < {end}"]
    if not selection.secondary_sources:
        conditions.append("secondary = 0")
    columns = f"*, hour AS time, {LAST_TIME_SQL} AS last_time"
    sql = f"SELECT {columns} FROM {table_of(files)} WHERE {' AND '.join(conditions)}"
    return Scan(sql, tuple(parameters))
