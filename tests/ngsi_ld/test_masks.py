"""Masks as an oracle: no condition, order, place or count tells what a mask hides; grants, feeds and metering hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.scope import Role
from sensegate.ngsi_ld.rest import FEED_ROOT
from sensegate.share.masks import Mask, Rounding
from sensegate.share.metering import Usage
from tests.ngsi_ld.serving import Entities, entities_serving, granted
from tests.share.made import NOW, Place, make_batch

pytestmark = pytest.mark.asyncio(loop_scope="module")
MASK = Mask(
    round=(Rounding("air_temperature", 1.0),),
    grid_m=5_000,
    time_s=3_600,
    k=10,
    drop=("relative_humidity", "profile"),
    division_digits=4,
)
SECRETS = (
    (Place("gz-1", "440106", "env", "air", 1, 113.3601, 23.1201), 21.21, 3.0, 1_234_567),
    (Place("gz-1", "440106", "env", "air", 1, 113.3641, 23.1229), 20.84, 4.0, 7_654_321),
)
"""(place, temperature, people, time after the hour): different, and equal under the mask."""
NEAR = {"georel": "near;maxDistance==200", "geometry": "Point", "coordinates": "[113.3601,23.1201]"}
STRIP = "[[[113.36,23],[113.363,23],[113.363,24],[113.36,24],[113.36,23]]]"
ALL = {"type": "*", "local": "true", "count": "true"}
QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("entities", ALL),
    ("entities", {**ALL, "options": "sysAttrs"}),
    ("entities", {**ALL, "options": "keyValues", "limit": 1}),
    ("entities", {**ALL, "q": "temperature>20.9"}),
    ("entities", {**ALL, "q": "temperature==20.9..21.1"}),
    ("entities", {**ALL, "q": "temperature==21"}),
    ("entities", {**ALL, "q": "peoplePresent<4"}),
    ("entities", {**ALL, "q": "relativeHumidity"}),
    ("entities", {**ALL, "q": "dateObserved>2026-01-01T00:00:05Z"}),
    ("entities", {**ALL, "q": "temperature.observedAt>2026-01-01T00:00:05Z"}),
    ("entities", {**ALL, "q": "modifiedAt>2026-01-01T00:00:05Z|temperature.modifiedAt>2026-01-01T00:00:05Z"}),
    ("entities", {**ALL, "q": "refDeviceModel~=acme"}),
    ("entities", {**ALL, "q": 'areaServed[zh]=="天河区"'}),
    ("entities", {**ALL, **NEAR}),
    ("entities", {**ALL, "georel": "within", "geometry": "Polygon", "coordinates": STRIP}),
    ("entities", {**ALL, "scopeQ": "/44/4401/440106"}),
    ("entities/urn:ngsi-ld:WeatherObserved:gz-1", {}),
    ("types", {"details": "true"}),
    ("attributes", {"details": "true"}),
    ("attributes/temperature", {}),
]
DIFFERING = 9
"""Queries whose answers differ without the mask, at the least."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twins() -> AsyncIterator[list[Entities]]:
    """Two gateways that differ in nothing but what the mask hides, each by a grant with it."""
    async with entities_serving(rows=()) as first, entities_serving(rows=()) as second:
        for entities, (place, temperature, people, late) in zip((first, second), SECRETS, strict=True):
            rows: list[tuple[int, str, float | str]] = [
                (0, "air_temperature", temperature),
                (0, "people_present", people),
                (0, "relative_humidity", temperature * 3),
            ]
            await entities.write(make_batch(rows, places=[place], start=NOW + late))
        yield [await granted(first, MASK), await granted(second, MASK)]


async def answers_of(entities: Entities, path: str, query: dict[str, Any]) -> str:
    """Return an answer with its headers, as text."""
    body, response = await entities.reply(path, **query)
    return f"{json.dumps(body)} {response.headers.get('NGSILD-Results-Count')} {response.headers.get('Link')}"


@pytest.mark.parametrize(("path", "query"), QUERIES)
async def test_answers_depend_on_masked_values_only(twins: list[Entities], path: str, query: dict[str, Any]) -> None:
    """Two worlds that are equal under the mask give equal answers; without it some differ (control below)."""
    assert await answers_of(twins[0], path, query) == await answers_of(twins[1], path, query)


async def test_without_the_mask_answers_differ(twins: list[Entities]) -> None:
    """Control: the same worlds by a grant without a mask."""
    bare = [await granted(entities, Mask()) for entities in twins]
    pairs = [[await answers_of(entities, path, query) for entities in bare] for path, query in QUERIES]
    assert sum(first != second for first, second in pairs) >= DIFFERING


async def boundary(low: float, high: float, is_above: Callable[[float], Awaitable[bool]]) -> float:
    """Return by binary search where an answer changes."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if await is_above(middle) else (low, middle)
    return high


async def test_a_binary_search_finds_the_masked_value(twins: list[Entities]) -> None:
    """By `q` and its count, and by the area of a geo-query; control: without the mask it finds the value."""

    def by_value(entities: Entities) -> Callable[[float], Awaitable[bool]]:
        async def is_above(limit: float) -> bool:
            query: dict[str, Any] = {"q": f"temperature>{limit:.9f}", "limit": 0, "count": "true"}
            _, response = await entities.reply("entities", **query)
            return response.headers["NGSILD-Results-Count"] != "0"

        return is_above

    assert await boundary(0.0, 50.0, by_value(twins[0])) == pytest.approx(21.0)
    bare = await granted(twins[0], Mask())
    assert await boundary(0.0, 50.0, by_value(bare)) == pytest.approx(SECRETS[0][1])

    async def is_east(lon: float) -> bool:
        box = f"[[[{lon:.7f},0],[180,0],[180,90],[{lon:.7f},90],[{lon:.7f},0]]]"
        query = {"type": "Device", "georel": "within", "geometry": "Polygon", "coordinates": box}
        return bool(await twins[0].ask("entities", **query))

    edge = await boundary(112.0, 115.0, is_east)
    (device,) = await twins[0].ask("entities", type="Device", options="keyValues")
    assert edge == pytest.approx(device["location"]["coordinates"][0], abs=1e-6)
    assert edge != pytest.approx(SECRETS[0][0].lon, abs=1e-4)


async def test_pseudonyms(entities: Entities) -> None:
    """Neither a name nor an id that is known without the mask leads to a device that is pseudonymised."""
    masked = await granted(entities, Mask(hash=("device",)))
    mine, theirs = await entities.ids(**ALL), await masked.ids(**ALL)
    assert len(mine) == len(theirs)
    assert not {*mine} & {*theirs}
    assert all(":~" in name for name in theirs)
    await masked.ask("entities/urn:ngsi-ld:Device:gz-air", expect=404)
    assert await masked.ids(type="*", id="urn:ngsi-ld:Device:gz-air") == []
    assert await masked.ids(q="refDevice==urn:ngsi-ld:Device:gz-air") == []
    assert "gz-air" not in json.dumps(await masked.ask("entities", limit=1_000, **ALL))


async def test_a_grant_gives_what_it_names(entities: Entities) -> None:
    """Properties and divisions of the grant, and nothing once it is revoked."""
    narrow = await granted(entities, Mask(), properties=("air_temperature",), divisions=("4401",))
    assert await narrow.ids(type="*", local="true") == ["Device:gz-air", "WeatherObserved:gz-air"]
    assert "temperature" in (await narrow.ask("attributes"))["attributeList"]
    assert "pm25" not in (await narrow.ask("attributes"))["attributeList"]
    await narrow.ask("entities/urn:ngsi-ld:WeatherObserved:sz-air", expect=404)
    (grant,) = [grant for grant in entities.gateway.sharing.grants.records if grant.properties]
    revoked = msgspec.structs.replace(grant, revoked=1)
    await entities.gateway.sharing.grants.records.put(grant.id, revoked, expected=grant.revision)
    assert await narrow.ids(type="*", local="true") == []
    await entities.under(entities.token, FEED_ROOT.format(feed="none")).ask("entities", type="Device", expect=404)


async def test_the_scope_of_a_token(entities: Entities) -> None:
    """A token sees the entities of its division, and no other."""
    token = await entities.gateway.token(Role.SUBSCRIBER, "4403")
    own = entities.under(token)
    assert await own.ids(type="Device") == ["Device:sz-air"]
    await own.ask("entities/urn:ngsi-ld:Device:gz-air", expect=404)
    assert "LAeq" not in (await own.ask("attributes"))["attributeList"]


async def test_delivered_readings_are_counted(entities: Entities) -> None:
    """Readings that a caller got are metered to its token and grant; those that are not shown are not."""
    reader = await granted(entities, Mask())

    def counted() -> int:
        rows: list[Usage] = entities.gateway.sharing.usage()
        return sum(row.records for row in rows if row.token == reader.token.split("_")[1])

    listed = await reader.ask("entities", type="WeatherObserved,AirQualityObserved")
    shown = [value for entity in listed for value in entity.values() if isinstance(value, (dict, list))]
    instances = [part for value in shown for part in (value if isinstance(value, list) else [value])]
    readings = sum("quality" in part for part in instances)
    assert counted() == readings > 5
    await reader.ask("entities", type="WeatherObserved", pick="id,location", count="true")
    await reader.ask("types", details="true")
    assert counted() == readings
    await reader.ask("entities/urn:ngsi-ld:AirQualityObserved:gz-air", attrs="pm25")
    assert counted() == readings + 1


async def test_the_quota_of_a_grant(entities: Entities) -> None:
    """What exceeds the volume is refused as a whole; what fits is given."""
    limited = await granted(entities, Mask(), volume=5)
    await limited.ask("entities", type="WeatherObserved", expect=429)
    assert len(await limited.ask("entities", type="AirQualityObserved")) == 2
    await limited.ask("entities", type="AirQualityObserved", expect=429)
