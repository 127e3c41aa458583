"""Counts of what cameras observed: reports and objects, by class, zone, device and window, under the grant's mask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sensegate.bus import columns
from sensegate.clock import DAY_US, HOUR_US
from sensegate.errors import TooMuch
from sensegate.history.log_queries import LogQueries
from sensegate.history.observation_counts import ObservationCounts
from sensegate.history.windows import Windows
from sensegate.model import OBSERVATION, LogMessage
from sensegate.share.feeds import FeedFilter
from sensegate.share.masks import Mask
from tests.history.made import KEEP_ALL
from tests.history.past import PLACES, READER, Past
from tests.share.made import NOW, make_batch

PERIOD = FeedFilter(begin=NOW, end=NOW + 3 * HOUR_US)


def report(kind: str, track: str = "", zone: str = "") -> str:
    """Return an observation as it is stored."""
    body: dict[str, Any] = {"id": "0", "kind": "observation", "object_class": kind, "box": [0, 0, 1, 1]}
    if track:
        body["track"] = track
    if zone:
        body["event"] = {"type": "line_crossed", "zone": zone}
    return json.dumps(body)


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """Two cameras: a car that is reported three times and a person without a track; an hour later the car again."""
    made = Past(tmp_path)
    await made.sharing.open()
    reading = asyncio.create_task(made.sharing.reader.run(0))
    car, person = report("vehicle", "t1", "gate"), report("person")
    hours = ([(0, car), (0, car), (0, car), (0, person), (1, car), (1, person), (1, person)], [(0, car)])
    for hour, rows in enumerate(hours):
        batch = make_batch(
            [(place, OBSERVATION, text) for place, text in rows], places=PLACES, start=NOW + hour * HOUR_US
        )
        await made.log.write([LogMessage("observations.4401.all.1", columns.encode(batch), 72)])
    measured = make_batch([(0, "pm2_5", 1.0)], places=PLACES, start=NOW)
    await made.log.write([LogMessage("readings.4401.all.1", columns.encode(measured), 72)])
    yield made
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def counts(past: Past, by: tuple[str, ...], *, window: int = HOUR_US, form: str = "json") -> Any:
    """Return counts as the reader gets them."""
    queries = LogQueries(past.sharing.reader, past.sharing.server.masks, KEEP_ALL)
    windows = Windows.of(NOW, NOW + 3 * HOUR_US, window, "UTC")
    answer = await ObservationCounts(queries, past.sharing).count(READER, "all", PERIOD, by, windows, form=form)
    rows = json.loads(answer.body)["rows"] if form == "json" else answer.body.decode().splitlines()
    assert answer.count == len(rows) - (form == "csv")
    return rows


def numbers(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return (hour, names of the group, observations, objects) of each row."""
    return [(row["start"][11:13], *(row[name] for name in names), row["observations"], row["objects"]) for row in rows]


async def test_reports_and_objects(past: Past) -> None:
    """A track is one object of its camera in a window; reports without a track are objects each; readings are none."""
    assert numbers(await counts(past, ("class",)), "class") == [
        ("00", "person", 3, 3),
        ("00", "vehicle", 4, 2),
        ("01", "vehicle", 1, 1),
    ]
    assert numbers(await counts(past, ("class", "zone"), window=DAY_US), "class", "zone") == [
        ("00", "person", "", 3, 3),
        ("00", "vehicle", "gate", 5, 2),
    ]
    assert numbers(await counts(past, ("device",)), "device") == [
        ("00", PLACES[0].device, 4, 2),
        ("00", PLACES[1].device, 3, 3),
        ("01", PLACES[0].device, 1, 1),
    ]
    assert (await counts(past, ("zone",), form="csv"))[:2] == [
        "zone,start,end,observations,objects",
        ",2026-01-01T00:00:00.000000Z,2026-01-01T01:00:00.000000Z,3,3",
    ]


async def test_what_a_mask_hides_is_not_counted(past: Past) -> None:
    """A mask of times leaves observations out of the feed and so of the counts; the control has none."""
    await past.grant(kinds=("reading", "observation"))
    assert await counts(past, ("class",))
    await past.grant(kinds=("reading", "observation"), mask=Mask(time_s=60))
    assert await counts(past, ("class",)) == []


async def test_limits(past: Past) -> None:
    """More observations than a query may read are refused, with what to do."""
    queries = LogQueries(past.sharing.reader, past.sharing.server.masks, replace(KEEP_ALL, query_rows_max=5))
    windows = Windows.of(NOW, NOW + 3 * HOUR_US, HOUR_US, "UTC")
    with pytest.raises(TooMuch, match="shorter period"):
        await ObservationCounts(queries, past.sharing).count(READER, "all", PERIOD, ("class",), windows, form="json")
