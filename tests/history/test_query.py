"""Queries of the history: they equal a calculation over the feed, see masked values only, and are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import math
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from msgspec.structs import replace

from sensegate.clock import DAY_US, HOUR_US
from sensegate.config.durations import TIME_MAX_US, TIME_MIN_US
from sensegate.errors import ConfigError, Overloaded, TooMuch
from sensegate.history import query, reader
from sensegate.history.reader import HistoryRequest
from sensegate.history.windows import Windows
from sensegate.share.feeds import BoundingBox, Circle, FeedFilter
from sensegate.share.masks import Mask
from tests.history.made import KEEP_ALL
from tests.history.past import EVERYTHING, MASK, PLACES, READER, Past
from tests.share.made import NOW, make_batch

HOURS = 30


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """Six devices of two cities, thirty hours, four readings an hour of two properties."""
    made = Past(tmp_path)
    await made.sharing.open()
    made.following = running = asyncio.create_task(made.sink.run())
    random = np.random.default_rng(5)
    batches = []
    for hour in range(HOURS):
        rows: list[tuple[int, str, float | str]] = [
            (place, name, round(float(random.normal(20, 5)), 1))
            for _ in range(4)
            for place in range(len(PLACES))
            for name in ("pm2_5", "air_temperature#2")
        ]
        batches.append(make_batch(rows, places=PLACES, start=NOW + hour * HOUR_US + 600_000_000))
    await made.write(*batches)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def without(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of the history in the form of the feed, which leaves out an empty channel."""
    return {name: value for name, value in record.items() if name != "channel" or value}


@pytest.mark.parametrize("limit", [7, 1_000])
async def test_the_history_equals_the_feed(past: Past, limit: int) -> None:
    """Record by record, in the order of phenomenon time, forwards and backwards, whatever the size of a page."""
    expected = await past.feed()
    wanted = replace(EVERYTHING, end=NOW + 4 * HOUR_US) if limit < 100 else EVERYTHING
    records = await past.records(wanted, limit=limit)
    assert [without(record) for record in records] == expected[: len(records)]
    assert len(records) == (4 * 48 if limit < 100 else len(expected))
    assert await past.records(wanted, limit=limit, descending=True) == records[::-1]


async def test_conditions(past: Past) -> None:
    """By device, property, division, area and time, together with the calculation over the feed."""
    feed = await past.feed()
    for wanted, holds in (
        (FeedFilter(devices=("d-1", "absent")), lambda record: record["device"] == "d-1"),
        (FeedFilter(properties=("air_temperature",)), lambda record: record["property"] == "air_temperature"),
        (FeedFilter(divisions=("4403",)), lambda record: record["division"] == "440304"),
        (FeedFilter(bbox=BoundingBox(113.05, 22, 113.25, 24)), lambda record: record["device"] in {"d-1", "d-2"}),
        (FeedFilter(near=Circle(113.1, 23.0, 11_000)), lambda record: record["device"] in {"d-0", "d-1", "d-2"}),
        (FeedFilter(properties=("humidity'; DROP",)), lambda _record: False),
    ):
        records = await past.records(replace(wanted, begin=EVERYTHING.begin, end=EVERYTHING.end))
        assert [without(record) for record in records] == [record for record in feed if holds(record)], wanted


def brute_force(
    records: list[dict[str, Any]], window: int, offset: int, by: tuple[str, ...]
) -> dict[tuple[Any, ...], list[float]]:
    """Return the values of each group and window."""
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in records:
        time = int(np.datetime64(record["time"][:-1], "us").astype(np.int64))
        start = (time + offset) // window * window - offset
        key = (record["property"], *(record[name] for name in by), start)
        groups[key].append(record["value"])
    return groups


WINDOWS = (
    (HOUR_US, "UTC", 0),
    (DAY_US, "Asia/Shanghai", 8 * HOUR_US),
    (HOUR_US // 4, "UTC", 0),
    (6 * HOUR_US, "UTC", 0),
)


async def test_aggregates_equal_a_calculation(past: Past) -> None:
    """From hourly sums, from rows and from masked rows alike, by any group and window."""
    feed = await past.feed()
    functions = ("count", "min", "max", "mean", "sum", "last", "good")
    more = (*functions, "median", "p90", "stddev")
    cases = [(window, by) for window in WINDOWS for by in ((), ("device",), ("division",), ("device", "division"))]
    exact = {}
    for (window, zone, offset), by in cases:
        expected = brute_force(feed, window, offset, by)
        exact[window, by] = await past.aggregate(window, more, by, zone=zone)
        for rows in (await past.aggregate(window, functions, by, zone=zone), exact[window, by]):
            assert len(rows) == len(expected)
            for row in rows:
                start = int(np.datetime64(row["start"][:-1], "us").astype(np.int64))
                compare(row, expected[row["property"], *(row[name] for name in by), start])
    await past.grant(mask=Mask(drop=("profile",)))
    for (window, zone, _), by in cases:
        masked = await past.aggregate(window, more, by, zone=zone)
        assert len(masked) == len(exact[window, by])
        for masked_row, row in zip(masked, exact[window, by], strict=True):
            assert masked_row == pytest.approx(row)


def compare(row: dict[str, Any], values: list[float]) -> None:
    """Compare a row with the calculation over its values."""
    assert row["count"] == len(values)
    assert (row["min"], row["max"]) == (min(values), max(values))
    assert math.isclose(row["mean"], statistics.fmean(values))
    assert math.isclose(row["sum"], math.fsum(values))
    assert row["good"] == 1.0
    if "median" in row:
        assert math.isclose(row["median"], statistics.median(values))
        assert math.isclose(row["p90"], float(np.quantile(values, 0.9)))


async def test_hourly_sums_are_used(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows are whole hours, and nowhere else: without the files of the rows only these are answered."""
    expected = await past.aggregate(HOUR_US, ("mean",))
    monkeypatch.setattr(past.store, "file_of", lambda _segment: Path("/nowhere"))
    assert await past.aggregate(HOUR_US, ("mean",)) == expected
    for window, functions in ((HOUR_US // 2, ("mean",)), (HOUR_US, ("median",))):
        with pytest.raises(Exception, match="nowhere"):
            await past.aggregate(window, functions)


async def test_gaps_are_shown(past: Past) -> None:
    """A window without readings has a count of 0 and no mean; it is never filled."""
    wanted = replace(EVERYTHING, begin=NOW - 2 * HOUR_US, end=NOW + (HOURS + 2) * HOUR_US)
    rows = await past.aggregate(HOUR_US, ("count", "mean"), wanted=wanted, gaps=True)
    assert len(rows) == 2 * (HOURS + 4)
    empty = [row for row in rows if row["count"] == 0]
    assert len(empty) == 2 * 4
    assert all(row["mean"] is None for row in empty)
    assert len(await past.aggregate(HOUR_US, ("count", "mean"), wanted=wanted)) == 2 * HOURS


async def test_late_readings_and_revisions(past: Past) -> None:
    """A late reading stands in its place; of a revised one the last revision counts, in rows and in aggregates."""
    before = await past.records(FeedFilter(devices=("d-0",), properties=("pm2_5",), begin=NOW, end=NOW + HOUR_US))
    time = int(np.datetime64(before[0]["time"][:-1], "us").astype(np.int64))
    late = make_batch([(0, "pm2_5", 500.0)], places=PLACES, start=NOW + 300_000_000)
    once = make_batch([(0, "pm2_5", 111.0)], places=PLACES, start=time, revision=np.array([1], np.uint8))
    twice = make_batch([(0, "pm2_5", 222.0)], places=PLACES, start=time, revision=np.array([2], np.uint8))
    await past.write(late, once, twice)
    wanted = FeedFilter(devices=("d-0",), properties=("pm2_5",), begin=NOW, end=NOW + HOUR_US)
    records = await past.records(wanted)
    assert [record["value"] for record in records] == [500.0, 222.0, *(record["value"] for record in before[1:])]
    everything = await past.records(wanted, revisions=True)
    assert [record["value"] for record in everything[:4]] == [500.0, before[0]["value"], 111.0, 222.0]
    rows = await past.aggregate(HOUR_US, ("count", "max", "sum"), wanted=wanted)
    values = [record["value"] for record in records]
    assert [(row["count"], row["max"]) for row in rows] == [(len(values), 500.0)]
    assert math.isclose(rows[0]["sum"], math.fsum(values))


@pytest.mark.parametrize("method", ["minmax", "lttb"])
async def test_samples_for_a_plot(past: Past, method: str) -> None:
    """So many readings of each series at most, each one of its readings; the peaks are kept by min-max."""
    whole = await past.records()
    series: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in whole:
        series[record["device"], record["property"]].append(record)
    for points in (10, 40, 1_000):
        page = await past.history.samples(
            READER, HistoryRequest("all", EVERYTHING), form="json", points=points, method=method
        )
        records = json.loads(page.body)["records"]
        assert [record["time"] for record in records] == sorted(record["time"] for record in records)
        for key, all_of_it in series.items():
            kept = [record for record in records if (record["device"], record["property"]) == key]
            assert len(kept) == min(points, len(kept)) > points // 4 if points < 100 else len(all_of_it)
            assert all(record in all_of_it for record in kept)
            values = [record["value"] for record in kept]
            if method == "minmax":
                assert (min(values), max(values)) == (
                    min(record["value"] for record in all_of_it),
                    max(record["value"] for record in all_of_it),
                )
            else:
                assert kept[0] == all_of_it[0]
                assert kept[-1] == all_of_it[-1]
    await past.grant(mask=MASK)
    page = await past.history.samples(READER, HistoryRequest("all", EVERYTHING), form="json", points=10, method=method)
    assert {record["value"] % 10 for record in json.loads(page.body)["records"]} == {0.0}


# ── masks ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_aggregate_tells_what_a_mask_hides(past: Past) -> None:
    """Windows with one value, percentiles, counts by area and time: all are those of masked values (the oracle)."""
    functions = ("min", "max", "mean", "sum", "first", "last", "median", "p99.9")
    second = 1_000_000
    bare = await past.aggregate(
        second, functions, ("device",), wanted=replace(EVERYTHING, begin=NOW, end=NOW + HOUR_US)
    )
    assert any(row["min"] % 10 for row in bare), "the control: without a mask single values are seen"
    await past.grant(mask=MASK)
    shown = await past.records()
    assert {record["property"] for record in shown} == {"pm2_5"}
    assert {record["value"] % 10 for record in shown} == {0.0}
    for window in (second, HOUR_US, DAY_US):
        wanted = replace(EVERYTHING, begin=NOW, end=NOW + (HOUR_US if window == second else DAY_US))
        rows = await past.aggregate(window, functions, ("device", "division"), wanted=wanted)
        assert rows
        for row in rows:
            assert row["property"] == "pm2_5"
            assert row["device"].startswith("~")
            assert row["division"] in {"4401", "4403"}
            assert row["min"] % 10 == row["max"] % 10 == row["first"] % 10 == row["last"] % 10 == 0.0
            if window == second:
                assert row["start"] == "2026-01-01T00:00:00.000000Z", "the period of the mask, not the second"
    for bounds in ((NOW, NOW + 1), (NOW + 1, NOW + HOUR_US)):
        rows = await past.aggregate(DAY_US, ("count",), wanted=FeedFilter(begin=bounds[0], end=bounds[1]))
        assert sum(row["count"] for row in rows) == (2 * 4 * 6 if bounds[0] == NOW else 0)
    for device in ("d-1", "d-2"):
        assert await past.records(replace(EVERYTHING, devices=(device,))) == []
    for record in shown[:: len(shown) // 9]:
        area = Circle(record["lon"], record["lat"], 1.0)
        assert record in await past.records(replace(EVERYTHING, near=area))
    for place in PLACES:
        assert await past.records(replace(EVERYTHING, near=Circle(place.lon, place.lat, 100.0))) == []


async def test_a_page_name_tells_nothing(past: Past) -> None:
    """It is sealed, belongs to its feed, and cannot be made up."""
    await past.grant(mask=MASK)
    page = await past.history.page(READER, HistoryRequest("all", EVERYTHING), form="json", limit=3)
    other = await past.history.page(READER, HistoryRequest("all", EVERYTHING), form="json", limit=3)
    assert page.next != other.next
    for text in (page.next[:-4] + "AAA=", "nonsense", "ü"):
        with pytest.raises(ConfigError, match="after"):
            await past.history.page(READER, HistoryRequest("all", EVERYTHING, text), form="json", limit=3)


# ── limits and forms ──────────────────────────────────────────────────────────────────────────────────


async def test_limits(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many masked rows, too many rows of the answer, too long: an error with the way out; quotas hold."""
    monkeypatch.setattr(past.queries, "_config", replace(KEEP_ALL, query_rows_max=1_000))
    await past.grant(mask=MASK)
    with pytest.raises(TooMuch, match="shorter period"):
        await past.aggregate(HOUR_US, ("mean",))
    await past.grant()
    monkeypatch.setattr(reader, "CELLS_MAX", 10)
    with pytest.raises(TooMuch, match="longer window"):
        await past.aggregate(HOUR_US, ("mean",), gaps=True)
    monkeypatch.undo()
    monkeypatch.setattr(past.queries, "_config", replace(KEEP_ALL, query_timeout_s=0.1))
    monkeypatch.setattr(
        query, "statement", lambda *_args, **_more: "SELECT count(*) FROM range(1000000000) a, range(1000000) b"
    )
    async with asyncio.timeout(60):
        with pytest.raises(TooMuch, match=r"0\.1 s"):
            await past.aggregate(HOUR_US, ("median",))
    monkeypatch.undo()
    await past.grant(volume=20)
    assert len((await past.history.page(READER, HistoryRequest("all", EVERYTHING), form="json", limit=15)).body)
    with pytest.raises(Overloaded):
        await past.aggregate(HOUR_US, ("mean",))
    with pytest.raises(ConfigError, match="zone"):
        Windows.of(NOW, NOW + DAY_US, HOUR_US, "Mars/Olympus")
    with pytest.raises(ConfigError, match="window"):
        Windows.of(NOW, NOW + 3_000 * DAY_US, 1_000_000, "UTC")


async def test_queries_wait_for_others_up_to_a_number(past: Past) -> None:
    """Further ones are refused at once, and those that wait are answered when there is room."""
    past.following.cancel()  # it waits until all queries have ended, and holds up further ones meanwhile
    await asyncio.gather(past.following, return_exceptions=True)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(KEEP_ALL.queries_max):
            await stack.enter_async_context(past.sink.reading())
        waiting = [asyncio.create_task(past.aggregate(DAY_US, ("count",))) for _ in range(query.WAITING_MAX)]
        async with asyncio.timeout(30):
            while past.sink.waiting < query.WAITING_MAX:
                await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="wait"):
            await past.aggregate(DAY_US, ("count",))
    async with asyncio.timeout(30):
        assert all(await asyncio.gather(*waiting))


async def test_forms(past: Past) -> None:
    """CSV, NDJSON, GeoJSON and MessagePack hold the readings of the JSON page."""
    expected = (await past.records())[:50]
    pages = {}
    for form in reader.FORMS:
        page = await past.history.page(READER, HistoryRequest("all", EVERYTHING), form=form, limit=50)
        pages[form] = page.body
    ids = [record["id"] for record in expected]
    assert [json.loads(line)["id"] for line in pages["ndjson"].splitlines()] == ids
    assert [row["id"] for row in csv.DictReader(io.StringIO(pages["csv"].decode()))] == ids
    assert [feature["id"] for feature in json.loads(pages["geojson"])["features"]] == ids
    tree = msgpack.unpackb(pages["msgpack"])
    values = np.frombuffer(tree["columns"]["value"], tree["types"]["value"])
    assert sorted(values) == sorted(record["value"] for record in expected)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "Europe/Berlin", "Asia/Kathmandu"])
def test_windows_of_days_begin_at_midnight(zone: str) -> None:
    """Of the zone, through changes of its clock; they cover the period without a gap; weeks begin on Monday."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    begin = NOW + 80 * DAY_US + 12_345
    windows = Windows.of(begin, begin + 20 * DAY_US, DAY_US, zone)
    local = [datetime.fromtimestamp(start / 1e6, ZoneInfo(zone)) for start in windows.starts]
    assert {(time.hour, time.minute) for time in local} == {(0, 0)}
    assert windows.starts[0] <= begin < windows.starts[1]
    assert windows.ends()[-1] >= begin + 20 * DAY_US
    weeks = Windows.of(begin, begin + 60 * DAY_US, 7 * DAY_US, zone)
    assert {datetime.fromtimestamp(start / 1e6, ZoneInfo(zone)).weekday() for start in weeks.starts} == {0}


def test_windows_at_the_ends_of_time() -> None:
    """Local times would leave the years that a calendar has: the caller's error."""
    for begin in (TIME_MIN_US, TIME_MAX_US - DAY_US):
        with pytest.raises(ConfigError, match="2 to 9998"):
            Windows.of(begin, begin + DAY_US, HOUR_US, "Asia/Shanghai")
