"""Masks as an oracle: no filter, order or count tells what a mask hides; grants, feeds and metering hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.scope import Role
from sensegate.quantities.quality import Flag
from sensegate.sensorthings.rest import FEED_ROOT, ROOT
from sensegate.share.masks import Mask, Rounding
from sensegate.share.metering import Usage
from tests.sensorthings.serving import Things, things_serving, with_marks
from tests.share.made import NOW, Place, grant_record, make_batch

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
QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("Things", {"count": "true"}),
    ("Things", {"filter": "startswith(properties/division,'440106')", "count": "true"}),
    ("Things", {"orderby": "Datastreams/Observations/result desc"}),
    ("Things", {"filter": "Datastreams/Observations/result gt 20.9"}),
    ("Things", {"filter": "Datastreams/Observations/result lt 5"}),
    ("Things", {"filter": "geo.distance(Locations/location,geography'POINT(113.36 23.12)') lt 0.002"}),
    ("Things", {"filter": "st_within(Locations/location,geography'POLYGON((113.36 23,113.363 23,113.363 24,113.36 24,"
                          "113.36 23))')"}),
    ("Datastreams", {"expand": "Observations($top=1)"}),
    ("Datastreams", {"filter": "Sensor/name eq 'acme/th10@3'", "count": "true"}),
    ("Datastreams", {"filter": "ObservedProperty/name eq 'relative_humidity'", "count": "true"}),
    ("Locations", {"orderby": "name", "resultFormat": "GeoJSON"}),
    ("FeaturesOfInterest", {}),
    ("Sensors", {"count": "true"}),
    ("ObservedProperties", {"count": "true"}),
    ("Observations", {"count": "true", "orderby": "result desc"}),
    ("Observations", {"count": "true", "filter": "result gt 20.9 and result lt 21.1"}),
    ("Observations", {"count": "true", "filter": "result eq 21"}),
    ("Observations", {"count": "true", "filter": "result eq 3 or result eq 4"}),
    ("Observations", {"count": "true", "filter": "phenomenonTime ge 2026-01-01T00:00:05Z"}),
    ("Observations", {"count": "true", "filter": "second(phenomenonTime) gt 0 or minute(resultTime) gt 0"}),
    ("Observations", {"count": "true", "filter": "resultTime gt 2026-01-01T00:00:05Z"}),
    ("Observations", {"resultFormat": "dataArray"}),
    ("Observations", {"resultFormat": "CSV", "expand": "FeatureOfInterest"}),
]  # fmt: skip


async def granted(things: Things, mask: Mask, feed: str = "all", **more: object) -> Things:
    """Return the API as a subscriber of another city sees it by a grant with a mask."""
    gateway = things.gateway
    token = await gateway.token(Role.SUBSCRIBER, "4407")
    user = token.split("_")[1]
    wanted = {"id": f"g{len(gateway.sharing.grants.records):016x}", "feed": feed, "subscriber": user}
    grant = grant_record({**wanted, "expires": 2 * NOW, "mask": mask, **more})
    await gateway.sharing.grants.records.put(grant.id, grant, expected=0)
    return things.under(token, FEED_ROOT.format(feed=feed))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twins() -> AsyncIterator[list[Things]]:
    """Two gateways that differ in nothing but what the mask hides, each by a grant with it."""
    async with things_serving(places=()) as first, things_serving(places=()) as second:
        for things, (place, temperature, people, late) in zip((first, second), SECRETS, strict=True):
            await things.write(
                make_batch(
                    [
                        (0, "air_temperature", temperature),
                        (0, "people_present", people),
                        (0, "relative_humidity", temperature * 3),
                    ],
                    places=[place],
                    start=NOW + late,
                )
            )
        yield [await granted(first, MASK), await granted(second, MASK)]


@pytest.mark.parametrize(("path", "query"), QUERIES)
async def test_answers_depend_on_masked_values_only(twins: list[Things], path: str, query: dict[str, Any]) -> None:
    """Two worlds that are equal under the mask give equal answers; without it some differ (control below)."""
    answers = [await things.ask(path, **query) for things in twins]
    texts = [
        (json.dumps(answer) if not isinstance(answer, bytes) else answer.decode()).replace(
            things.gateway.url, "http://here"
        )
        for things, answer in zip(twins, answers, strict=True)
    ]
    assert texts[0] == texts[1]


async def test_a_batch_is_masked(twins: list[Things]) -> None:
    """All queries in one batch: equal under the mask, as each alone is; and each answer is that of the query alone."""
    requests = [
        {
            "id": f"q{number}",
            "method": "get",
            "url": f"{path}?{urlencode({f'${name}': value for name, value in query.items()})}",
        }
        for number, (path, query) in enumerate(QUERIES)
    ]
    texts = []
    for things in twins:
        answer = await things.ask("$batch", method="POST", json={"requests": requests})
        assert [response["status"] for response in answer["responses"]] == [200] * len(QUERIES)
        texts.append(json.dumps(answer).replace(things.gateway.url, "http://here"))
    assert texts[0] == texts[1]
    first = json.loads(texts[0].replace("http://here", twins[0].gateway.url))["responses"][0]["body"]
    assert first == await twins[0].ask(QUERIES[0][0], **QUERIES[0][1])


async def test_without_the_mask_answers_differ(twins: list[Things]) -> None:
    """Control: the same worlds by a grant without a mask."""
    bare = [await granted(things, Mask()) for things in twins]
    differing = 0
    for path, query in QUERIES:
        answers = [str(await things.ask(path, **query)).replace(things.gateway.url, "") for things in bare]
        differing += answers[0] != answers[1]
    assert differing > len(QUERIES) // 2


async def boundary(low: float, high: float, is_above: Callable[[float], Awaitable[bool]]) -> float:
    """Return by binary search where an answer changes."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if await is_above(middle) else (low, middle)
    return high


async def test_a_binary_search_finds_the_masked_value(twins: list[Things]) -> None:
    """By `$filter` on a result, by its `$count`, and by the distance of a place."""

    async def is_above(limit: float) -> bool:
        condition = f"result gt {limit:.9f} and Datastream/ObservedProperty/name eq 'air_temperature'"
        return bool((await twins[0].ask("Observations", filter=condition, count="true", top=0))["@iot.count"])

    assert await boundary(0.0, 50.0, is_above) == pytest.approx(21.0)

    async def is_east(lon: float) -> bool:
        box = f"POLYGON(({lon:.7f} 0,180 0,180 90,{lon:.7f} 90,{lon:.7f} 0))"
        return bool((await twins[0].ask("Things", filter=f"st_within(Locations/location,geography'{box}')"))["value"])

    edge = await boundary(112.0, 115.0, is_east)
    (location,) = (await twins[0].ask("Locations"))["value"]
    assert edge == pytest.approx(location["location"]["coordinates"][0], abs=1e-6)
    assert edge != pytest.approx(SECRETS[0][0].lon, abs=1e-4)


async def test_pseudonyms_have_ids_of_their_own(things: Things) -> None:
    """Neither the name nor an id that is known without the mask leads to a device that is pseudonymised."""
    masked = await granted(things, Mask(hash=("device",)))
    mine, theirs = await things.values("Things"), await masked.values("Things")
    assert len(theirs) == len(mine)
    assert all(thing["name"].startswith("~") for thing in theirs)
    for known in ("Things", "Datastreams", "Locations", "FeaturesOfInterest"):
        ids = {entity["@iot.id"] for entity in await things.values(known)}
        assert not ids & {entity["@iot.id"] for entity in await masked.values(known)}
        await masked.ask(f"{known}({min(ids)})", expect=404)
    assert (await masked.ask("Things", filter="name eq 'gz-air' or properties/device eq 'gz-air'"))["value"] == []
    assert "gz-air" not in json.dumps(await masked.ask("Things", expand="Datastreams/Observations,Locations"))
    assert len(await masked.values("Observations", top=7)) == len(await things.values("Observations"))


async def test_a_grant_gives_what_it_names(things: Things) -> None:
    """Properties and divisions of the grant; its root is that of the feed; revoked, it gives nothing."""
    narrow = await granted(things, Mask(), properties=("air_temperature",), divisions=("4401",))
    assert {entity["name"] for entity in await narrow.values("Datastreams")} == {"air_temperature"}
    names = {entity["name"] for entity in await narrow.values("Things")}
    assert names == {"gz-air", "gz-noise", "gz-cam"}
    listed = await narrow.values("ObservedProperties")
    assert [entity["name"] for entity in listed] == ["air_temperature"]
    number = await things.datastream("sz-air", "air_temperature")
    await narrow.ask(f"Datastreams({number})", expect=404)
    observation = (await things.ask(f"Datastreams({number})/Observations", top=1))["value"][0]
    await narrow.ask(f"Observations({observation['@iot.id']})", expect=404)
    (grant,) = [grant for grant in things.gateway.sharing.grants.records if grant.properties]
    revoked = msgspec.structs.replace(grant, revoked=1)
    await things.gateway.sharing.grants.records.put(grant.id, revoked, expected=grant.revision)
    assert (await narrow.ask("Things"))["value"] == []


async def test_delivered_observations_are_counted(things: Things) -> None:
    """The rows that a caller got, expanded ones too, are metered to its token, feed and grant; filtered ones not."""
    reader = await granted(things, Mask())

    def rows() -> list[Usage]:
        usage = things.gateway.sharing.usage()
        return [row for row in usage if row.token == reader.token.split("_")[1]]

    page = await reader.ask("Things", expand="Datastreams($expand=Observations($top=1))")
    got = sum(len(stream["Observations"]) for thing in page["value"] for stream in thing["Datastreams"])
    got += len((await reader.ask("Observations", filter="result gt 24", top=3))["value"])
    assert sum(row.records for row in rows()) == got > 10
    await reader.ask("Things")
    assert sum(row.records for row in rows()) == got
    batch = {"requests": [{"id": str(top), "method": "get", "url": f"Observations?$top={top}"} for top in (2, 3)]}
    await reader.ask("$batch", method="POST", json=batch)
    assert sum(row.records for row in rows()) == got + 5
    limited = await granted(things, Mask(), volume=5)
    assert len((await limited.ask("Observations", top=4))["value"]) == 4
    await limited.ask("Observations", top=2, expect=429)
    batch["requests"][0]["url"] = "Observations?$top=1"
    answer = await limited.ask("$batch", method="POST", json=batch)
    assert [response["status"] for response in answer["responses"]] == [200, 429]


async def test_a_revision_replaces_and_a_withdrawn_one_goes(things: Things) -> None:
    """One Observation whatever its revisions, under the id of the first; a withdrawn one is gone."""
    place = [Place("gz-rev")]
    first = make_batch([(0, "air_temperature", 1.0)], places=place, start=NOW)
    await things.write(first)
    number = await things.datastream("gz-rev", "air_temperature")
    path = f"Datastreams({number})/Observations"
    (before,) = await things.values(path)
    await things.write(with_marks(make_batch([(0, "air_temperature", 2.0)], places=place, start=NOW), revision=1))
    (after,) = await things.values(path, filter="result gt 0")
    assert (after["@iot.id"], after["result"], after["parameters"]["revision"]) == (before["@iot.id"], 2.0, 1)
    assert (await things.ask(f"Observations({before['@iot.id']})"))["result"] == 2.0
    gone = make_batch([(0, "air_temperature", 2.0)], places=place, start=NOW)
    await things.write(with_marks(gone, revision=2, flags=int(Flag.WITHDRAWN)))
    assert await things.values(path) == await things.values(path, filter="result gt 0") == []
    await things.ask(f"Observations({before['@iot.id']})", expect=404)


async def test_roots(things: Things) -> None:
    """A feed has a root of its own, with addresses below it."""
    await granted(things, Mask())
    feed = things.under(things.token, FEED_ROOT.format(feed="all"))
    page = await feed.ask("Things", top=1)
    assert FEED_ROOT.format(feed="all") in page["value"][0]["@iot.selfLink"]
    assert await feed.ask(page["@iot.nextLink"])
    await things.under(things.token, FEED_ROOT.format(feed="none")).ask("Things", expect=404)
    assert ROOT in (await things.ask("Things", top=1))["@iot.nextLink"]
