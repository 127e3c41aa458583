"""Reading by the SensorThings API: the data model, resource paths, and the options of requests."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from sensegate.sensorthings.ids import ID_MAX
from sensegate.sensorthings.kinds import KINDS, SETS
from tests.sensorthings.serving import HOURS, PLACES, Things, things_serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = HOURS * (2 * len(PLACES) + 2)
OF = "air_temperature"


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind.name != "HistoricalLocation"], ids=lambda kind: kind.name
)
async def test_properties_and_relations(things: Things, kind: Any) -> None:
    """Each entity has its mandatory properties, an id and an address, and a link for each relation that answers."""
    page = await things.ask(kind.plural, top=3)
    assert page["value"]
    for entity in page["value"]:
        assert {"@iot.id", "@iot.selfLink", *kind.mandatory} <= set(entity)
        assert 0 < entity["@iot.id"] <= ID_MAX
        assert entity["@iot.selfLink"].endswith(f"/sta/v1.1/{kind.plural}({entity['@iot.id']})")
        assert await things.ask(entity["@iot.selfLink"]) == entity
        for link in kind.links.values():
            target = await things.ask(entity[f"{link.name}@iot.navigationLink"])
            assert ("value" in target) == link.is_many
            if not link.is_many:
                assert target["@iot.selfLink"].endswith(f"/{KINDS[link.target].plural}({target['@iot.id']})")


async def test_the_service_root_lists_the_sets(things: Things) -> None:
    """Each entity set with its address, and the requirements that hold."""
    root = await things.ask()
    assert [entry["name"] for entry in root["value"]] == [*SETS]
    for entry in root["value"]:
        assert "value" in await things.ask(entry["url"])
    assert all(text.startswith("http://www.opengis.net/spec/") for text in root["serverSettings"]["conformance"])


async def test_values_of_the_model(things: Things) -> None:
    """A Datastream has the unit and type of its property; an Observation its time, result and quality."""
    number = await things.datastream("gz-air", OF)
    datastream = await things.ask(f"Datastreams({number})")
    assert datastream["unitOfMeasurement"] == {
        "name": "Cel",
        "symbol": "Cel",
        "definition": "http://unitsofmeasure.org/ucum.html#Cel",
    }
    assert datastream["observationType"].endswith("/OM_Measurement")
    observation = (await things.ask(f"Datastreams({number})/Observations", top=1))["value"][0]
    assert observation["result"] == 20 + HOURS - 1
    assert observation["phenomenonTime"].startswith(f"2026-01-01T{HOURS - 1:02d}:00:00")
    assert observation["resultQuality"] == {"quality": "good", "flags": []}
    truth = await things.datastream("gz-air", "raining")
    results = [entity["result"] for entity in await things.values(f"Datastreams({truth})/Observations")]
    assert results == [True, False] * (HOURS // 2)
    feature = await things.ask(f"{observation['@iot.selfLink']}/FeatureOfInterest")
    assert feature["feature"] == {"type": "Point", "coordinates": [113.3612, 23.1247]}


async def test_resource_paths(things: Things) -> None:
    """Sets, entities, properties, raw values, links of any depth, references."""
    thing = await things.id_of("Things", "gz-air")
    number = await things.datastream("gz-air", OF)
    assert await things.ask(f"Things({thing})/name") == {"name": "gz-air"}
    assert await things.ask(f"Things({thing})/name/$value") == b"gz-air"
    assert await things.ask(f"Things({thing})/properties/division") == {"division": "440106"}
    assert (await things.ask(f"Things({thing})/Datastreams({number})/ObservedProperty/name"))["name"] == OF
    assert (await things.ask(f"Datastreams({number})/Thing/Locations"))["value"][0]["name"] == "place of gz-air"
    references = await things.ask(f"Things({thing})/Datastreams/$ref")
    assert {"@iot.selfLink"} == set(references["value"][0])
    assert (await things.ask(f"Datastreams({number})/Thing/$ref"))["@iot.selfLink"].endswith(f"Things({thing})")
    assert await things.ask(f"Things({thing})/Datastreams/$count") == b"4"
    for path in (
        "Thing",
        "Things(1)",
        f"Things({thing})/names",
        f"Things({thing})/name/more",
        f"Things({thing})/Datastreams(1)",
        f"Things({thing})/Datastreams/name",
        f"Things({thing})/$value",
        "Observations(12345)",
        f"Datastreams({number})/Observations(1)",
    ):
        await things.ask(path, expect=404)
    for path in ("Things(x)", "Things('1')", "Things(1", "Th/", "/".join(["Things"] * 20)):
        await things.ask(path, expect=404 if path == "Th/" else 400)


async def test_expand(things: Things) -> None:
    """Nested links with options of their own; what is expanded has no link, and the next page of it an address."""
    page = await things.ask(
        "Things",
        expand="Datastreams($filter=name eq 'air_temperature';$select=name;$expand=Observations($top=2;$select=result),"
        "ObservedProperty($select=name)),Locations",
        filter="name eq 'gz-air'",
    )
    (thing,) = page["value"]
    assert "Datastreams@iot.navigationLink" not in thing
    assert "HistoricalLocations@iot.navigationLink" in thing
    (datastream,) = thing["Datastreams"]
    assert datastream["ObservedProperty"] == {"name": OF}
    assert [row["result"] for row in datastream["Observations"]] == [25.0, 24.0]
    more = await things.ask(datastream["Observations@iot.nextLink"])
    assert [row["result"] for row in more["value"]] == [23.0, 22.0]
    paths = await things.ask("Datastreams", expand="Thing/Locations,Thing/HistoricalLocations", top=1)
    assert {"Locations", "HistoricalLocations"} <= set(paths["value"][0]["Thing"])


async def test_the_last_observation_of_every_datastream(things: Things) -> None:
    """From memory in one go: the same as the newest of each Datastream."""
    page = await things.ask("Things", expand="Datastreams($expand=Observations($top=1))")
    result = 0
    for thing in page["value"]:
        for datastream in thing["Datastreams"]:
            (last,) = datastream["Observations"]
            listed = await things.ask(f"Datastreams({datastream['@iot.id']})/Observations", top=2)
            assert last == listed["value"][0]
            result += 1
    assert result == 2 * len(PLACES) + 2


async def test_select(things: Things) -> None:
    """Only what is named; a link by its name."""
    page = await things.ask("Things", select="id,name,Datastreams", top=1)
    assert set(page["value"][0]) == {"@iot.id", "name", "Datastreams@iot.navigationLink"}
    await things.ask("Things", select="name,colour", expect=400)


async def test_order(things: Things) -> None:
    """By several keys, over links, either way; by phenomenonTime in both directions, page after page."""
    names = [thing["name"] for thing in await things.values("Things", orderby="name desc", top=1)]
    assert names == sorted((place.device for place in PLACES), reverse=True)
    listed = await things.values("Datastreams", orderby="ObservedProperty/name,Thing/name desc", top=3, expand="Thing")
    pairs = [(entity["name"], entity["Thing"]["name"]) for entity in listed]
    by_name = sorted(pairs, key=lambda pair: pair[1], reverse=True)
    assert pairs == sorted(by_name, key=lambda pair: pair[0])
    ascending = await things.values("Observations", orderby="phenomenonTime", top=7)
    descending = await things.values("Observations", orderby="phenomenonTime desc", top=11)
    assert len(ascending) == ROWS
    assert [entity["@iot.id"] for entity in ascending] == [entity["@iot.id"] for entity in descending][::-1]
    by_result = await things.values("Observations", orderby="result desc,id", filter="result gt 0", top=5)
    results = [entity["result"] for entity in by_result]
    assert results == sorted(results, reverse=True)
    assert len(results) == HOURS * 2 * len(PLACES)


async def test_top_skip_and_count(things: Things) -> None:
    """`$count` is of all that match, whatever the page; `$skip` passes over; the next page begins at a key."""
    page = await things.ask("Observations", top=2, skip=3, count="true", filter="result ge 60")
    assert page["@iot.count"] == HOURS * len(PLACES)
    whole = await things.values("Observations", filter="result ge 60")
    assert page["value"] == whole[3:5]
    assert "skip=" not in page["@iot.nextLink"]
    assert (await things.ask(page["@iot.nextLink"]))["value"] == whole[5:7]
    assert (await things.ask("Things", top=0, count="true")) == {"@iot.count": len(PLACES), "value": []}
    assert (await things.ask("Things", top=1, skip=len(PLACES)))["value"] == []


async def test_options_apply_in_their_order(things: Things) -> None:
    """First the filter, then count, order, skip, top; at last what is expanded and selected."""
    page = await things.ask(
        "Things", filter="startswith(name,'gz')", count="true", orderby="name desc", skip=1, top=1, select="name"
    )
    assert page["@iot.count"] == 3
    assert page["value"] == [{"name": "gz-cam"}]


@pytest.mark.parametrize("size", [1, 2, 7, 59, 60, 61])
async def test_pages_hold_each_observation_once(things: Things, size: int) -> None:
    """Whatever the size of a page."""
    ids = [entity["@iot.id"] for entity in await things.values("Observations", top=size)]
    assert len(ids) == len(set(ids)) == ROWS


async def test_data_array_csv_and_geojson(things: Things) -> None:
    """The same Observations in every form."""
    number = await things.datastream("gz-air", OF)
    plain = (await things.ask(f"Datastreams({number})/Observations"))["value"]
    (group,) = (await things.ask(f"Datastreams({number})/Observations", resultFormat="dataArray"))["value"]
    assert group["dataArray@iot.count"] == HOURS
    assert [dict(zip(group["components"], row, strict=True))["result"] for row in group["dataArray"]] == [
        entity["result"] for entity in plain
    ]
    chosen = await things.ask("Observations", resultFormat="dataArray", select="id,result", top=3)
    assert chosen["value"][0]["components"] == ["id", "result"]
    raw = await things.ask(f"Datastreams({number})/Observations", resultFormat="CSV", expand="Datastream($select=name)")
    rows = list(csv.DictReader(io.StringIO(raw.decode())))
    assert [float(row["result"]) for row in rows] == [entity["result"] for entity in plain]
    assert {row["Datastream/name"] for row in rows} == {OF}
    shown = await things.ask("Observations", resultFormat="GeoJSON", top=1, filter="Datastream/Thing/name eq 'sz-air'")
    assert shown["features"][0]["geometry"] == {"type": "Point", "coordinates": [114.0579, 22.5431]}
    located = await things.ask("Locations", resultFormat="GeoJSON")
    assert len(located["features"]) == 3
    await things.ask("Things", resultFormat="dataArray", expect=400)


async def test_ids_stay(things: Things) -> None:
    """An id is a function of names and of the record: another gateway with the same readings gives the same."""
    async with things_serving() as other:
        for name in ("Things", "Datastreams", "Locations", "FeaturesOfInterest", "Observations", "Sensors"):
            mine = [entity["@iot.id"] for entity in await things.values(name)]
            assert [entity["@iot.id"] for entity in await other.values(name)] == mine
