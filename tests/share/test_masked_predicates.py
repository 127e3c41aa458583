"""Probing masks by the predicates of requests: whatever is asked, the answer depends on masked values only."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.bus.reader import format_timestamp
from sensegate.clock import HOUR_US, FakeClock
from sensegate.config.durations import TIME_MAX_US, TIME_MIN_US
from sensegate.model import LogMessage
from sensegate.share.feeds import BoundingBox, Circle, FeedFilter
from sensegate.share.masks import NO_MASK, Mask
from sensegate.share.reader import LogReader
from sensegate.share.sharing import FeedRequest, Sharing
from tests.share.made import NOW, Place, grant_record, make_batch
from tests.support.memory_sharing import sharing_in_memory

READER = Principal("reader", Role.SUBSCRIBER, scope("44"))
SECRET = Place("gz-air-1", "440106", "env", "air", 1, 113.361234, 23.124789)
ARRIVED = NOW + 2 * HOUR_US + 1_234_567
MASK = Mask(time_s=3_600, grid_m=5_000)

Ask = Callable[[FeedRequest], Awaitable[list[dict[str, object]]]]


Make = Callable[[Mask], Awaitable[Ask]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Function: mask -> function that reads a log of one record at a secret place and time by a grant with it."""
    tasks: list[asyncio.Task[None]] = []

    async def open_one(mask: Mask) -> Ask:
        sharing, ask = await _open(mask)
        tasks.append(asyncio.create_task(sharing.reader.run(0)))
        return ask

    yield open_one
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _open(mask: Mask) -> tuple[Sharing, Ask]:
    clock = FakeClock(ARRIVED)
    log = MemoryLog(clock, epoch="e1")
    batch = make_batch([(0, "air_temperature", 21.0)], places=[SECRET], start=ARRIVED - 777_777)
    await log.write([LogMessage("readings.4401.440106.1", columns.encode(batch), 72)])
    await clock.advance(5 * 3_600)
    store = RecordStore(MemoryBucket(), clock)
    sharing = sharing_in_memory(LogReader(log, clock), clock, store)
    await sharing.open()
    grant = grant_record(
        {"id": "g0123456789abcdef", "feed": "all", "subscriber": "reader", "expires": ARRIVED + 10**14, "mask": mask}
    )
    await sharing.grants.records.put(grant.id, grant, expected=0)

    async def ask(request: FeedRequest) -> list[dict[str, object]]:
        page = await sharing.page(READER, request, form="json", limit=10, wait_s=0.0)
        records: list[dict[str, object]] = json.loads(page.body)["records"]
        return records

    return sharing, ask


async def boundary(low: int, high: int, is_found: Callable[[int], Awaitable[bool]]) -> int:
    """Return by binary search the first number at which the answer changes."""
    first = await is_found(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await is_found(middle) is first else (low, middle)
    return high


TIMES: dict[str, Callable[[int], FeedRequest]] = {
    "from": lambda time: FeedRequest("all", wanted=FeedFilter(begin=time)),
    "to": lambda time: FeedRequest("all", wanted=FeedFilter(end=time)),
    "since": lambda time: FeedRequest("all", since=time),
    "until": lambda time: FeedRequest("all", until=time),
    "since, descending": lambda time: FeedRequest("all", since=time, descending=True),
    "until, descending": lambda time: FeedRequest("all", until=time, descending=True),
    "from, a day ahead": lambda time: FeedRequest("all", wanted=FeedFilter(begin=time + 86_400_000_000)),
}


@pytest.mark.parametrize("name", TIMES)
async def test_a_binary_search_by_time_finds_the_masked_time(name: str, make: Make) -> None:
    """Each bound of a window changes the answer only at the start of a masked period."""
    ask, bare = await make(MASK), await make(NO_MASK)

    async def matches(time: int) -> bool:
        return bool(await ask(TIMES[name](time)))

    async def found_bare(time: int) -> bool:
        return bool(await bare(TIMES[name](time)))

    edge = await boundary(NOW - 48 * HOUR_US, NOW + 5 * HOUR_US, matches)
    # The first time of a period (a bound that is included) or the one after it.
    assert edge % HOUR_US in {0, 1}, name
    # The control: without a mask the same search finds the record to the microsecond.
    exact = await boundary(NOW - 48 * HOUR_US, NOW + 5 * HOUR_US, found_bare)
    secrets = {ARRIVED, ARRIVED + 1, ARRIVED - 777_777, ARRIVED - 777_776}
    assert exact in secrets | {time - 86_400_000_000 for time in secrets}, name
    assert exact % HOUR_US not in {0, 1}


class DatedLog(MemoryLog):
    """A log that knows times as the server does, of the years 1 to 9999."""

    async def sequence_at(self, time: int) -> int:
        format_timestamp(time)
        return await super().sequence_at(time)


async def test_a_masked_time_beyond_all_years_is_a_bound_as_any(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last time of a request, and the masked periods around them."""
    monkeypatch.setattr(f"{__name__}.MemoryLog", DatedLog)
    ask = await make(Mask(time_s=31 * 86_400))
    assert await ask(FeedRequest("all", since=TIME_MIN_US))
    assert await ask(FeedRequest("all", until=TIME_MAX_US))
    assert await ask(FeedRequest("all", until=TIME_MAX_US, descending=True))
    assert not await ask(FeedRequest("all", until=TIME_MIN_US, descending=True))


async def test_a_search_by_area_finds_the_masked_position(make: Make) -> None:
    """Boxes and circles contain the record exactly if they contain the centre of its grid cell."""
    ask, bare = await make(MASK), await make(NO_MASK)
    shown = (await ask(FeedRequest("all")))[0]
    lon, lat = shown["lon"], shown["lat"]
    assert isinstance(lon, float)
    assert isinstance(lat, float)
    assert (lon, lat) != (SECRET.lon, SECRET.lat)
    randomness = random.Random(7)
    differences = 0
    for _ in range(300):
        east, north = (SECRET.lon + randomness.gauss(0, 0.02), SECRET.lat + randomness.gauss(0, 0.02))
        circle = Circle(east, north, randomness.uniform(10, 5_000))
        request = FeedRequest("all", wanted=FeedFilter(near=circle))
        inside = bool(await ask(request))
        assert inside is (_metres(lon, lat, circle) <= circle.metres)
        differences += inside is not bool(await bare(request))
        box = BoundingBox(east, north, east + 0.02, north + 0.02)
        request = FeedRequest("all", wanted=FeedFilter(bbox=box))
        assert bool(await ask(request)) is (box.west <= lon <= box.east and box.south <= lat <= box.north)
    assert differences > 20, "the control: without a mask the same questions get other answers"


async def test_a_dropped_position_is_in_no_area(make: Make) -> None:
    """Where the mask drops the place, no area contains the record; without it the whole Earth does."""
    request = FeedRequest("all", wanted=FeedFilter(bbox=BoundingBox(-180, -90, 180, 90)))
    assert await (await make(Mask(drop=("place",))))(request) == []
    assert await (await make(NO_MASK))(request)


async def test_dropped_fields_stay_dropped(make: Make) -> None:
    """A projection shows the masked columns, like the whole record."""
    mask = Mask(drop=("place", "profile"), hash=("device",), division_digits=4, time_s=3_600, key="k")
    fields = ("device", "lon", "lat", "profile", "division", "time", "received")
    ask, bare = await make(mask), await make(NO_MASK)
    whole = (await ask(FeedRequest("all")))[0]
    chosen = (await ask(FeedRequest("all", fields=fields)))[0]
    assert chosen == {field: whole[field] for field in fields}
    assert (chosen["lon"], chosen["profile"], chosen["division"]) == (None, "", "4401")
    assert (await bare(FeedRequest("all", fields=fields)))[0]["device"] == SECRET.device, "the control"
    assert chosen["device"] != SECRET.device


def _metres(lon: float, lat: float, circle: Circle) -> float:
    """Return a distance by the law of cosines, another formula than that of the gateway."""
    first, second = math.radians(lat), math.radians(circle.lat)
    cosine = math.sin(first) * math.sin(second)
    cosine += math.cos(first) * math.cos(second) * math.cos(math.radians(lon - circle.lon))
    return math.acos(min(1.0, cosine)) * 6_371_008.8


async def test_a_predicate_on_true_values_is_found_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a gateway that filters before it masks fails the search by time."""
    ask = await make(MASK)
    monkeypatch.setattr(Mask, "period_end", lambda _self, time: time)

    async def matches(time: int) -> bool:
        return bool(await ask(TIMES["until"](time)))

    edge = await boundary(NOW - 48 * HOUR_US, NOW + 5 * HOUR_US, matches)
    assert edge % HOUR_US not in {0, 1}
