"""Counts of what cameras observed, by class, zone, device or division and window: of the days that the log holds.

A camera reports an object several times while it follows it: `observations` counts the reports, `objects` the tracks
in a window, a report without a track as an object of its own.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import numpy as np

from sensegate.authority.scope import Principal
from sensegate.errors import Overloaded, TooMuch
from sensegate.history.query import HistoryRows
from sensegate.history.windows import Windows
from sensegate.share.feeds import FeedFilter, FeedSelection
from sensegate.share.quota import read_within_quota
from sensegate.share.records import csv_cell, iso
from sensegate.share.sharing import Sharing

DIMENSIONS = ("class", "zone", "device", "division")
"""Keys by which counts may be grouped."""
GROUPS_MAX = 100_000
"""Most rows of an answer."""
_STEP = 5_000
"""Observations that are counted at a time; other tasks run in between."""


class _Event(msgspec.Struct, frozen=True):
    zone: str = ""


class _Observation(msgspec.Struct, frozen=True):
    """Fields of an observation by which it is counted."""

    object_class: str = ""
    track: str = ""
    event: _Event | None = None


class CountRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of one group in one window."""

    start: str
    end: str
    observations: int
    objects: int
    object_class: str | None = msgspec.field(default=None, name="class")
    """``""``: the camera states none; None, as the others: not grouped by it."""
    zone: str | None = None
    device: str | None = None
    division: str | None = None


class CountPage(msgspec.Struct, frozen=True):
    """Counts, in the order of their windows."""

    rows: list[CountRow]


class CountAnswer(msgspec.Struct, frozen=True):
    """Encoded counts."""

    body: bytes
    count: int
    grant: str


class ObservationQueries(Protocol):
    """Queries for the observations of a period."""

    async def observations(self, selection: FeedSelection, begin: int, end: int) -> list[HistoryRows]:
        """Return masked observations. Raises `ConfigError`, `TooMuch`, `Unavailable`."""
        ...


class ObservationCounts:
    """Counter of the observations that a caller may read."""

    def __init__(self, queries: ObservationQueries, sharing: Sharing) -> None:
        self._queries = queries
        self._sharing = sharing

    async def count(
        self, principal: Principal, feed: str, wanted: FeedFilter, by: tuple[str, ...], windows: Windows, *, form: str
    ) -> CountAnswer:
        """Return the counts of each group and window that has any, as JSON or CSV; `wanted` has a period.

        Raises:
            NotFound, PermissionDenied: as `Grants.admit`.
            ConfigError, TooMuch, Unavailable: as `ObservationQueries.observations`.
            Overloaded: the quota has less room than the answer has rows.
        """
        admission = self._sharing.admit(principal, feed, wanted, "http", form)
        begin, end = wanted.begin or 0, wanted.end or 0

        async def read(most: int) -> CountAnswer:
            parts: list[HistoryRows] = []
            if admission.selection is not None:
                parts = await self._queries.observations(admission.selection, begin, end)
            rows = await counted(parts, by, windows)
            if len(rows) > GROUPS_MAX:
                raise TooMuch(f"the answer has {len(rows)} rows; give a longer window, or fewer dimensions")
            if len(rows) > most:
                raise Overloaded(f"grant {admission.grant_id}: {len(rows)} rows exceed the {most} that are left")
            body = _csv(rows, by) if form == "csv" else msgspec.json.encode(CountPage(rows))
            return CountAnswer(body, len(rows), admission.grant_id)

        return await read_within_quota(admission.quota, GROUPS_MAX, read)


async def counted(parts: Iterable[HistoryRows], by: tuple[str, ...], windows: Windows) -> list[CountRow]:
    """Return the counts of observations by group and window, ordered by both."""
    observations: dict[tuple[str, ...], dict[int, int]] = {}
    objects: dict[tuple[str, ...], dict[int, set[tuple[str, str]]]] = {}
    starts = windows.starts
    done = 0
    for part in parts:
        for time, device, division, observation, identity in _observed(part):
            facts = {
                "class": observation.object_class,
                "zone": observation.event.zone if observation.event else "",
                "device": device,
                "division": division,
            }
            group, start = tuple(facts[name] for name in by), starts[max(0, bisect_right(starts, time) - 1)]
            counts = observations.setdefault(group, {})
            counts[start] = counts.get(start, 0) + 1
            seen = objects.setdefault(group, {}).setdefault(start, set())
            seen.add((device, f"track {observation.track}" if observation.track else identity))
            done += 1
            if done % _STEP == 0:
                await asyncio.sleep(0)
    ends = dict(zip(starts, windows.ends(), strict=True))
    rows = []
    for start, group in sorted((start, group) for group, counts in observations.items() for start in counts):
        facts = dict(zip(by, group, strict=True))
        first, last = iso(np.array([start, ends[start]], np.int64))
        rows.append(
            CountRow(
                first,
                last,
                observations[group][start],
                len(objects[group][start]),
                facts.get("class"),
                facts.get("zone"),
                facts.get("device"),
                facts.get("division"),
            )
        )
    return rows


def _observed(part: HistoryRows) -> Iterator[tuple[int, str, str, _Observation, str]]:
    """Yield (time, device, division, observation, id of the record) of each row that is an observation."""
    batch = part.batch
    for row in part.rows.tolist():
        text = batch.text.get(row)
        if text is None:
            continue
        try:
            observation = _decode(text)
        except msgspec.DecodeError:
            continue  # a text of another property
        origin = int(batch.origin[row])
        yield (
            int(batch.time[row]),
            batch.origins.device[origin],
            batch.origins.division[origin],
            observation,
            batch.record_id(row),
        )


_decode = msgspec.json.Decoder(_Observation).decode


def _csv(rows: list[CountRow], by: tuple[str, ...]) -> bytes:
    lines = [",".join((*by, "start", "end", "observations", "objects"))]
    for row in rows:
        facts = {"class": row.object_class, "zone": row.zone, "device": row.device, "division": row.division}
        cells = [csv_cell(facts[name] or "") for name in by]
        lines.append(",".join((*cells, row.start, row.end, str(row.observations), str(row.objects))))
    return "".join(f"{line}\r\n" for line in lines).encode()
