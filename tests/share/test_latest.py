"""Last values of a feed: what a caller gets of them, masked before they are filtered, page after page."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgpack
import numpy as np
import pytest

from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import Gone, NotFound, Overloaded, PermissionDenied
from sensegate.model import LogMessage
from sensegate.share import latest as latest_module
from sensegate.share.feeds import BoundingBox, Circle, FeedFilter
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestPage, LatestReader, LatestRequest
from sensegate.share.masks import Mask, Rounding
from sensegate.share.reader import LogReader
from sensegate.share.sharing import FeedRequest
from tests.share.made import NOW, Place, grant_record, make_batch
from tests.support.memory_sharing import sharing_in_memory

READER = Principal("reader", Role.SUBSCRIBER, scope("44"))
PLACES = [
    Place(f"d-{number:02d}", "440106" if number % 2 else "440304", lon=113.0 + number / 100, lat=23.0 + number / 100)
    for number in range(40)
]


class City:
    """A log with readings, its last values, and readers with grants."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW + HOUR_US)
        self.log = MemoryLog(self.clock, epoch="e1")
        reader = LogReader(self.log, self.clock)
        self.values = LastValues()
        reader.on_rows.append(lambda rows: self.values.apply(rows.batch, rows.sequence))
        self.sharing = sharing_in_memory(reader, self.clock)
        self.latest = LatestReader(self.values, self.sharing)

    async def write(self, rows: list[tuple[int, str, float | str]], **more: Any) -> None:
        """Commit a batch, and wait until its values are the last ones."""
        batch = make_batch(rows, places=PLACES, **more)
        sequence = await self.log.write([LogMessage("readings.4401.all.1", columns.encode(batch), 72)])
        async with asyncio.timeout(30):
            while self.sharing.reader.end < sequence:
                await asyncio.sleep(0)

    async def grant(self, **more: Any) -> None:
        """Give the reader a grant for everything."""
        grant = grant_record(
            {"id": "g0123456789abcdef", "feed": "all", "subscriber": "reader", "expires": NOW + 10**14, **more}
        )
        before = self.sharing.grants.find(grant.id)
        await self.sharing.grants.records.put(grant.id, grant, expected=before.revision if before else 0)

    async def read(self, form: str = "json", limit: int = 1_000, **more: Any) -> LatestPage:
        """Return a page."""
        return await self.latest.page(READER, LatestRequest("all", **more), form=form, limit=limit)

    async def records(self, **more: Any) -> list[dict[str, Any]]:
        """Return the records of a page."""
        records: list[dict[str, Any]] = json.loads((await self.read(**more)).body)["records"]
        return records


@pytest.fixture
async def city() -> AsyncIterator[City]:
    """A city in which forty devices of two cities measured twice."""
    made = City()
    await made.sharing.open()
    running = asyncio.create_task(made.sharing.reader.run())
    await asyncio.sleep(0)
    for number in range(2):
        rows: list[tuple[int, str, float | str]] = [
            (place, name, number * 100 + place)
            for place in range(len(PLACES))
            for name in ("pm2_5", "air_temperature#2")
        ]
        await made.write(rows, start=NOW + number * 60_000_000)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_each_series_once_with_its_last_value(city: City) -> None:
    """The records of the log with the latest time, each equal to the one that its feed gives."""
    records = await city.records()
    assert len(records) == 2 * len(PLACES)
    assert {record["value"] for record in records} == {100.0 + place for place in range(len(PLACES))}
    page = await city.sharing.page(READER, FeedRequest("all"), form="json", limit=1_000, wait_s=0.0)
    known = {record["id"]: record for record in json.loads(page.body)["records"]}
    for record in records:
        assert {name: value for name, value in record.items() if name != "cursor"} == {
            "channel": "",
            **{name: value for name, value in known[record["id"]].items() if name != "cursor"},
        }
        # The minute in a cursor is that of arrival; the position is the same.
        assert record["cursor"][3:19] == known[record["id"]]["cursor"][3:19]
        assert record["cursor"][-4:] == known[record["id"]]["cursor"][-4:]


@pytest.mark.parametrize("limit", [1, 7, 40, 1_000])
async def test_pages_cover_all(city: City, limit: int) -> None:
    """Page after page, each series once; the name of a page of another run is gone."""
    ids: list[str] = []
    after = ""
    for _ in range(100):
        page = await city.read(limit=limit, after=after)
        ids += [record["id"] for record in json.loads(page.body)["records"]]
        after = page.next
        if not after:
            break
    assert len(ids) == len(set(ids)) == 2 * len(PLACES)
    named = (await city.read(limit=1)).next
    with pytest.raises(Gone):
        await LatestReader(city.values, city.sharing).page(
            READER, LatestRequest("all", after=named), form="json", limit=1
        )
    with pytest.raises(Gone):
        await city.read(after="0" * 32)


async def test_filters(city: City) -> None:
    """By division, property, device, area and time; what is not named is not given."""
    for wanted, expected in (
        (FeedFilter(divisions=("440106",)), 40),
        (FeedFilter(properties=("pm2_5",)), 40),
        (FeedFilter(properties=("air_temperature",)), 40),
        (FeedFilter(devices=("d-03", "d-04", "absent")), 4),
        (FeedFilter(bbox=BoundingBox(113.0, 23.0, 113.095, 24.0)), 20),
        (FeedFilter(near=Circle(113.0, 23.0, 1_600.0)), 4),
        (FeedFilter(begin=NOW + 60_000_000), 80),
        (FeedFilter(end=NOW + 60_000_000), 0),
    ):
        assert len(await city.records(wanted=wanted)) == expected, wanted


async def test_forms(city: City) -> None:
    """NDJSON, CSV, GeoJSON and MessagePack have the records of the JSON page."""
    expected = [record["id"] for record in await city.records()]
    raw = (await city.read("ndjson")).body
    assert [json.loads(line)["id"] for line in raw.splitlines()] == expected
    raw = (await city.read("csv")).body
    assert [row["id"] for row in csv.DictReader(io.StringIO(raw.decode()))] == expected
    raw = (await city.read("geojson")).body
    assert [feature["id"] for feature in json.loads(raw)["features"]] == expected
    tree = msgpack.unpackb((await city.read("msgpack")).body)
    values = np.frombuffer(tree["columns"]["value"], tree["types"]["value"])
    assert sorted(values) == sorted(100.0 + place for place in range(len(PLACES)) for _ in range(2))


async def test_a_mask_covers_last_values(city: City) -> None:
    """Rounded, hashed, coarsened and dropped as in the feed; filters see masked values only."""
    mask = Mask(
        drop=("air_temperature",),
        round=(Rounding("pm2_5", 50.0),),
        hash=("device",),
        grid_m=20_000.0,
        time_s=3_600,
        division_digits=4,
        key="k",
    )
    bare = await city.records()
    assert {record["device"] for record in bare} == {place.device for place in PLACES}, "the control"
    await city.grant(mask=mask)
    records = await city.records()
    assert len(records) == len(PLACES)
    assert {record["value"] for record in records} == {100.0, 150.0}
    assert {record["division"] for record in records} == {"4401", "4403"}
    assert {record["time"] for record in records} == {"2026-01-01T00:00:00.000000Z"}
    names = {record["device"] for record in records}
    assert all(name.startswith("~") for name in names)
    assert await city.records(wanted=FeedFilter(devices=("d-03",))) == [], "a true name finds nothing"
    name = records[0]["device"]
    assert [record["device"] for record in await city.records(wanted=FeedFilter(devices=(name,)))] == [name]
    assert len(await city.records(wanted=FeedFilter(divisions=("440106",)))) == 0
    assert await city.records(wanted=FeedFilter(begin=NOW + 1)) == [], "the hour of the mask began before"
    for record in records[::7]:
        around = FeedFilter(near=Circle(record["lon"], record["lat"], 1.0))
        assert record in await city.records(wanted=around), "the cell's centre finds the cell"
    hidden = [place for place in PLACES if (place.lon, place.lat) not in {(r["lon"], r["lat"]) for r in records}]
    for place in hidden[::7]:
        assert await city.records(wanted=FeedFilter(near=Circle(place.lon, place.lat, 1.0))) == []


async def test_a_dropped_place_is_in_no_area(city: City) -> None:
    """Nothing is found by area where the mask drops the place."""
    everywhere = FeedFilter(bbox=BoundingBox(-180, -90, 180, 90))
    assert len(await city.records(wanted=everywhere)) == 80, "the control"
    await city.grant(mask=Mask(drop=("place",)))
    assert await city.records(wanted=everywhere) == []


async def test_quota_and_scope_hold(city: City) -> None:
    """Records are taken from the quota of the grant; a token of another city gets its own part or nothing."""
    await city.grant(volume=100)
    assert (await city.read(limit=80)).count == 80
    assert (await city.read(limit=80)).count == 20
    with pytest.raises(Overloaded):
        await city.read()
    other = Principal("other", Role.SUBSCRIBER, scope("4403"))
    page = await city.latest.page(other, LatestRequest("all"), form="json", limit=1_000)
    assert {record["division"] for record in json.loads(page.body)["records"]} == {"440304"}
    restricted = Principal("third", Role.SUBSCRIBER, scope("44"), feeds=("air",))
    with pytest.raises(NotFound):
        await city.latest.page(restricted, LatestRequest("all"), form="json", limit=1)


async def test_the_cursor_continues_without_a_gap(city: City) -> None:
    """Records after the page's cursor are exactly those that were committed since."""
    page = await city.read()
    await city.write([(3, "pm2_5", 7.0)], start=NOW + 120_000_000)
    after = await city.sharing.page(READER, FeedRequest("all", page.cursor), form="json", limit=10, wait_s=0.0)
    assert [record["value"] for record in json.loads(after.body)["records"]] == [7.0]
    records = await city.records(wanted=FeedFilter(devices=("d-03",), properties=("pm2_5",)))
    assert [record["value"] for record in records] == [7.0]


async def test_changes_are_streamed(city: City) -> None:
    """All values first, then those that changed; one that changes often is sent as it is at the end."""
    request = LatestRequest("all", FeedFilter(properties=("pm2_5",)))
    stream = await city.latest.open_stream(lambda: READER, request, heartbeat_s=5.0, interval_s=0.0)
    result: list[dict[str, Any]] = []
    async with asyncio.timeout(60), aclosing(stream):
        async for events in stream:
            result += [
                json.loads(block[6:]) for block in events.body.decode().split("\n\n") if block.startswith("data")
            ]
            if len(result) == len(PLACES):
                for number in range(5):
                    await city.write(
                        [(3, "pm2_5", number), (3, "air_temperature#2", 1.0)], start=NOW + (number + 3) * 60_000_000
                    )
                await city.write([(4, "pm2_5", 5.0)], start=NOW + 600_000_000)
            if result[-1]["device"] == "d-04" and result[-1]["value"] == 5.0:
                break
    changed = result[len(PLACES) :]
    assert [(record["device"], record["value"]) for record in changed] == [("d-03", 4.0), ("d-04", 5.0)]


async def test_a_revoked_token_ends_the_stream(city: City) -> None:
    """Within two seconds, by the error of the admission, although nothing changes."""
    is_revoked = False

    def principal() -> Principal:
        if is_revoked:
            raise PermissionDenied("revoked")
        return READER

    stream = await city.latest.open_stream(principal, LatestRequest("all"), heartbeat_s=60.0, interval_s=0.0)
    async with asyncio.timeout(30), aclosing(stream):
        assert (await anext(stream)).count == 2 * len(PLACES)
        is_revoked = True
        with pytest.raises(PermissionDenied):
            await anext(stream)


async def test_a_grant_that_ends_while_values_wait_ends_them(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first values are many: what has not been sent when the grant was revoked is not sent."""
    monkeypatch.setattr(latest_module, "_BLOCK", 10)
    monkeypatch.setattr(latest_module, "_RECHECK_S", 0.0)
    await city.grant()
    principal = Principal("reader", Role.SUBSCRIBER, scope("4404"))
    stream = await city.latest.open_stream(lambda: principal, LatestRequest("all"), heartbeat_s=0.0, interval_s=0.0)
    async with asyncio.timeout(30), aclosing(stream):
        assert [(await anext(stream)).count for _ in range(2)] == [10, 10]
        await city.grant(revoked=NOW, reason="test")
        assert (await anext(stream)).count in {0, 10}  # of the block that was admitted before
        assert [(await anext(stream)).count for _ in range(3)] == [0, 0, 0]


@pytest.mark.slow
async def test_a_grant_that_ends_ends_its_values(city: City) -> None:
    """A subscriber whose scope covers nothing gets no change after its grant was revoked."""
    await city.grant()
    principal = Principal("reader", Role.SUBSCRIBER, scope("4404"))
    stream = await city.latest.open_stream(lambda: principal, LatestRequest("all"), heartbeat_s=1.5, interval_s=0.0)
    async with asyncio.timeout(30), aclosing(stream):
        assert (await anext(stream)).count == 2 * len(PLACES)
        await city.grant(revoked=NOW, reason="test")
        assert (await anext(stream)).count == 0
        await city.write([(3, "pm2_5", 7.0)], start=NOW + 600_000_000)
        assert (await anext(stream)).count == 0
