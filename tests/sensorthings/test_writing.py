"""Writing by the SensorThings API, against a whole running gateway: entities, Observations, data arrays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import eventually
from tests.live.site import PLAIN, Answer, Made, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
ROOT = "/sta/v1.1"
MEASUREMENT = "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement"
CELSIUS = {"name": "degree Celsius", "symbol": "°C", "definition": "http://unitsofmeasure.org/ucum.html#Cel"}
SENSOR = {
    "name": "DS18B20",
    "description": "thermometer",
    "encodingType": "application/pdf",
    "metadata": "http://x/y.pdf",
}
PROPERTY = {"name": "Air temperature", "definition": "http://x/def/air_temperature", "description": "of the air"}
AT = "2026-01-01T0{}:00:00Z"


def place(lon: float, name: str = "yard") -> dict[str, Any]:
    """Return a Location."""
    point = {"type": "Point", "coordinates": [lon, 23.1247]}
    return {"name": name, "description": "a place", "encodingType": "application/geo+json", "location": point}


def stream(**more: Any) -> dict[str, Any]:
    """Return a Datastream of air temperature, with its Sensor and ObservedProperty."""
    named = {"name": "oven temperature", "description": "of the oven", "observationType": MEASUREMENT}
    return {**named, "unitOfMeasurement": CELSIUS, "Sensor": SENSOR, "ObservedProperty": PROPERTY, **more}


TWINS = """
profile: acme/twins
version: 1
label: {zh: 双温度计, en: two thermometers}
source: the tests' own
messages:
  - label: report
    topics: ["acme/{device}/up"]
    time: {field: at, format: [iso]}
    readings:
      - {field: in, property: air_temperature, unit: Cel, channel: in}
      - {field: out, property: air_temperature, unit: Cel, channel: out}
      - {field: own, property: air_temperature, unit: Cel}
examples:
  - label: both
    topic: acme/d1/up
    payload: {"at": "2026-01-01T00:00:00Z", "in": 20, "out": 5}
    expect:
      - {property: air_temperature, value: 20, channel: in, time: "2026-01-01T00:00:00Z"}
      - {property: air_temperature, value: 5, channel: out, time: "2026-01-01T00:00:00Z"}
  - {label: no values, topic: acme/d1/up, payload: {"at": "2026-01-01T00:00:00Z"}, refuse: no_values}
"""


class Writer:
    """The API of a gateway, asked by its admin."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._count = 0

    async def ask(self, method: str, path: str, body: Any = None, *, expect: int = 200, **more: Any) -> Any:
        """Return the body of an answer."""
        address = path.removeprefix(self.site.addresses.http)
        address = address if address.startswith(ROOT) else f"{ROOT}/{path}"
        sent = {} if body is None else {"json": body}
        answer: Answer = await self.site.ask(method, address, **sent, **more)
        assert answer.status == expect, (method, path, answer.status, answer.body)
        if method == "POST" and expect == 201 and "CreateObservations" not in path:
            assert answer.headers["Location"] == answer.body["@iot.selfLink"]
        return answer.body

    async def create(self, path: str, body: Any) -> int:
        """Create an entity; return its id."""
        number: int = (await self.ask("POST", path, body, expect=201))["@iot.id"]
        return number

    async def get(self, path: str) -> Any:
        """Return an entity or a set."""
        return await self.ask("GET", path)

    async def thing(self, **more: Any) -> int:
        """Create a Thing of its own."""
        self._count += 1
        body = {"name": f"Oven {self._count}", "description": "in the yard"}
        return await self.create("Things", {**body, "properties": {"division": "440106", "owner": "me"}, **more})

    async def datastream(self) -> int:
        """Create a Thing with a Datastream; return the id of that."""
        thing = await self.thing(Locations=[place(113.36)], Datastreams=[stream()])
        number: int = (await self.get(f"Things({thing})/Datastreams"))["value"][0]["@iot.id"]
        return number

    async def audited(self) -> list[str]:
        """Return the actions on the trail."""
        return [row["action"] for row in await self.site.audit()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def writer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Writer]:
    """A node of 4401 with a profile of two equal sensors."""
    directory = tmp_path_factory.mktemp("node")
    profile = directory / "acme" / "twins.yaml"
    profile.parent.mkdir()
    profile.write_text(TWINS, encoding="utf-8")
    async with running(config_of(directory / "4401", profiles=(str(PLAIN), str(profile)))) as site:
        yield Writer(site)


async def test_create_each_entity(writer: Writer) -> None:
    """201 with the address; what was given is returned; each act is on the trail."""
    sensor, observed = await writer.create("Sensors", SENSOR), await writer.create("ObservedProperties", PROPERTY)
    feature = {"name": "lake", "description": "water", "encodingType": "application/geo+json"}
    shape = {"type": "Polygon", "coordinates": [[[113, 23], [114, 23], [114, 24], [113, 23]]]}
    number = await writer.create("FeaturesOfInterest", {**feature, "feature": shape})
    assert (await writer.get(f"FeaturesOfInterest({number})"))["feature"] == shape
    assert (await writer.get(f"Sensors({sensor})"))["metadata"] == SENSOR["metadata"]
    assert (await writer.get(f"ObservedProperties({observed})"))["definition"] == PROPERTY["definition"]
    location = await writer.create("Locations", place(113.3))
    thing = await writer.thing(Locations=[{"@iot.id": location}])
    record = await writer.get(f"Things({thing})")
    assert record["properties"]["owner"] == "me"
    assert record["properties"]["profile"] == "sensegate/plain"
    device = (await writer.site.ask("GET", f"/api/v1/devices/{record['properties']['device']}")).body
    assert (device["lon"], device["lat"], device["division"]) == (113.3, 23.1247, "440106")
    body = stream(Thing={"@iot.id": thing}, Sensor={"@iot.id": sensor}, ObservedProperty={"@iot.id": observed})
    created = await writer.create("Datastreams", body)
    shown = await writer.get(f"Datastreams({created})")
    assert {name: shown[name] for name in ("name", "unitOfMeasurement", "observationType")} == {
        name: body[name] for name in ("name", "unitOfMeasurement", "observationType")
    }
    assert (await writer.get(f"Datastreams({created})/Sensor"))["@iot.id"] == sensor
    assert (await writer.get(f"Datastreams({created})/ObservedProperty"))["@iot.id"] == observed
    assert [entity["@iot.id"] for entity in (await writer.get(f"Sensors({sensor})/Datastreams"))["value"]] == [created]
    assert {"device.add", "sensorthings.create"} <= set(await writer.audited())


async def test_deep_insert(writer: Writer) -> None:
    """A Thing with Locations, Datastreams, Sensor, ObservedProperty and Observations in one request."""
    observations = [{"phenomenonTime": AT.format(1), "result": 21.5}, {"phenomenonTime": AT.format(2), "result": 22}]
    thing = await writer.thing(Locations=[place(113.4)], Datastreams=[stream(Observations=observations)])
    expanded = await writer.get(
        f"Things({thing})?$expand=Locations,HistoricalLocations,Datastreams($expand=Observations,Sensor,ObservedProperty)"
    )
    (datastream,) = expanded["Datastreams"]
    assert [entity["result"] for entity in datastream["Observations"]] == [22, 21.5]
    assert datastream["Sensor"]["name"] == SENSOR["name"]
    assert datastream["ObservedProperty"]["name"] == PROPERTY["name"]
    assert expanded["Locations"][0]["location"]["coordinates"][0] == 113.4
    assert len(expanded["HistoricalLocations"]) == 1
    nested = await writer.thing()
    number = await writer.create(f"Things({nested})/Datastreams", stream())
    assert (await writer.get(f"Datastreams({number})/Thing"))["@iot.id"] == nested


async def test_an_observation_is_committed_when_it_is_answered(writer: Writer) -> None:
    """By its set and by its Datastream; with all that the standard gives it; its FeatureOfInterest is made for it."""
    number = await writer.datastream()
    body = {"phenomenonTime": AT.format(3), "result": 23.5, "Datastream": {"@iot.id": number}}
    observation = await writer.create("Observations", body)
    shown = await writer.get(f"Observations({observation})")
    assert (shown["result"], shown["phenomenonTime"]) == (23.5, "2026-01-01T03:00:00.000000Z")
    feature = await writer.get(f"Observations({observation})/FeatureOfInterest")
    assert feature["feature"]["coordinates"] == [113.36, 23.1247]
    (record,) = await writer.site.records(
        device=(await writer.get(f"Datastreams({number})/Thing"))["properties"]["device"]
    )
    assert record["value"] == 23.5
    whole = {
        "result": 24.5,
        "phenomenonTime": f"{AT.format(4)}/{AT.format(5)}",
        "resultTime": AT.format(6),
        "validTime": f"{AT.format(6)}/{AT.format(7)}",
        "resultQuality": {"nameOfMeasure": "good"},
        "parameters": {"by": "hand"},
        "FeatureOfInterest": {
            "name": "roof",
            "description": "up",
            "encodingType": "application/geo+json",
            "feature": {"type": "Point", "coordinates": [113.5, 23.5]},
        },
    }
    second = await writer.create(f"Datastreams({number})/Observations", whole)
    shown = await writer.get(f"Observations({second})?$expand=FeatureOfInterest")
    assert {name: shown[name] for name in whole if name != "FeatureOfInterest"} == {
        name: value for name, value in whole.items() if name != "FeatureOfInterest"
    }
    assert shown["FeatureOfInterest"]["name"] == "roof"
    of_feature = await writer.get(f"FeaturesOfInterest({shown['FeatureOfInterest']['@iot.id']})/Observations")
    assert [entity["@iot.id"] for entity in of_feature["value"]] == [second]
    now = await writer.create(f"Datastreams({number})/Observations", {"result": 1})
    assert (await writer.get(f"Datastreams({number})/Observations?$top=1"))["value"][0]["@iot.id"] == now


async def test_duplicates_are_judged_like_any_other(writer: Writer) -> None:
    """The same Observation again is the one that exists; another result of its time is a revision of it."""
    number = await writer.datastream()
    # Within the horizon of the deduplication.
    recent = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    body = {"phenomenonTime": recent.isoformat(), "result": 20.0}
    path = f"Datastreams({number})/Observations"
    first = await writer.create(path, body)
    assert await writer.create(path, body) == first
    assert len((await writer.get(path))["value"]) == 1
    assert await writer.create(path, {**body, "result": 21.0}) == first
    (only,) = (await writer.get(path))["value"]
    assert (only["@iot.id"], only["result"]) == (first, 21.0)
    assert await writer.site.totals()


async def test_data_arrays(writer: Writer) -> None:
    """Rows of several Datastreams in one request; a wrong row is answered in its place."""
    numbers = [await writer.datastream() for _ in range(2)]
    names = ["phenomenonTime", "result", "FeatureOfInterest/id"]
    body: list[dict[str, Any]] = [
        {
            "Datastream": {"@iot.id": number},
            "components": names,
            "dataArray@iot.count": 3,
            "dataArray": [[AT.format(hour), 20 + hour, None] for hour in range(1, 4)],
        }
        for number in numbers
    ]
    body[1]["dataArray"][1][1] = "warm"
    links = await writer.ask("POST", "CreateObservations", body, expect=201)
    assert len(links) == 6
    assert [place for place, link in enumerate(links) if link == "error"] == [4]
    for link, result in zip(links, (21, 22, 23, 21, None, 23), strict=True):
        if link != "error":
            assert (await writer.get(link))["result"] == result
    refused: list[Any] = [{}, [1], [{**body[0], "components": ["colour"]}], [{**body[0], "dataArray": [[1]]}]]
    for wrong in refused:
        await writer.ask("POST", "CreateObservations", wrong, expect=400)


async def test_update(writer: Writer) -> None:
    """PATCH changes what it names, PUT replaces, a JSON patch does what it says; links move."""
    number = await writer.datastream()
    thing = (await writer.get(f"Datastreams({number})/Thing"))["@iot.id"]
    await writer.ask("PATCH", f"Things({thing})", {"description": "moved", "properties": {"colour": "red"}})
    shown = await writer.get(f"Things({thing})")
    assert (shown["description"], shown["properties"]["colour"]) == ("moved", "red")
    await writer.ask("PUT", f"Things({thing})", {"name": "New name", "description": "whole"})
    shown = await writer.get(f"Things({thing})")
    assert (shown["name"], "colour" in shown["properties"]) == ("New name", False)
    device = (await writer.site.ask("GET", f"/api/v1/devices/{shown['properties']['device']}")).body
    assert device["name"] == "New name"
    await writer.ask("PUT", f"Things({thing})", {"name": "x"}, expect=400)
    sensor = await writer.create("Sensors", {**SENSOR, "name": "other"})
    await writer.ask("PATCH", f"Datastreams({number})", {"name": "renamed", "Sensor": {"@iot.id": sensor}})
    shown = await writer.get(f"Datastreams({number})?$expand=Sensor")
    assert (shown["name"], shown["Sensor"]["name"]) == ("renamed", "other")
    operations = [
        {"op": "replace", "path": "/name", "value": "patched"},
        {"op": "test", "path": "/name", "value": "patched"},
    ]
    headers = {"Content-Type": "application/json-patch+json"}
    await writer.ask("PATCH", f"Sensors({sensor})", operations, headers=headers)
    assert (await writer.get(f"Sensors({sensor})"))["name"] == "patched"
    wrong = [{"op": "remove", "path": "/nothing"}]
    await writer.ask("PATCH", f"Sensors({sensor})", wrong, headers=headers, expect=400)
    observation = await writer.create(
        f"Datastreams({number})/Observations", {"phenomenonTime": AT.format(1), "result": 1}
    )
    await writer.ask("PATCH", f"Observations({observation})", {"result": 2, "parameters": {"why": "typo"}})
    shown = await writer.get(f"Observations({observation})")
    assert (shown["result"], shown["parameters"]) == (2, {"why": "typo"})
    await writer.ask("PATCH", f"Observations({observation})", {"phenomenonTime": AT.format(2)}, expect=409)
    await writer.ask("PATCH", f"Things({thing})", {"Datastreams": [stream()]}, expect=400)


async def test_locations_are_remembered(writer: Writer) -> None:
    """A Thing that moves gets a HistoricalLocation by itself; a later one that a client adds moves it."""
    thing = await writer.thing(Locations=[place(113.1, "first")])
    second = await writer.create("Locations", place(113.2, "second"))
    await writer.ask("PATCH", f"Things({thing})", {"Locations": [{"@iot.id": second}]})
    past = (await writer.get(f"Things({thing})/HistoricalLocations?$expand=Locations&$orderby=time"))["value"]
    assert [entry["Locations"][0]["name"] for entry in past] == ["first", "second"]
    third = await writer.create(f"Things({thing})/Locations", place(113.3, "third"))
    assert (await writer.get(f"Things({thing})/Locations"))["value"][0]["@iot.id"] == third
    shown = await writer.get(f"Things({thing})")
    device = (await writer.site.ask("GET", f"/api/v1/devices/{shown['properties']['device']}")).body
    assert device["lon"] == 113.3
    earlier = {"time": AT.format(1), "Thing": {"@iot.id": thing}, "Locations": [{"@iot.id": second}]}
    number = await writer.create("HistoricalLocations", earlier)
    assert (await writer.get(f"HistoricalLocations({number})"))["time"] == AT.format(1)
    assert (await writer.get(f"Things({thing})/Locations"))["value"][0]["@iot.id"] == third
    await writer.ask("PATCH", f"HistoricalLocations({number})", {"time": AT.format(2)})
    assert len((await writer.get(f"Locations({second})/HistoricalLocations"))["value"]) == 2


async def test_delete(writer: Writer) -> None:
    """What belongs to an entity goes with it; an Observation is withdrawn, by a revision that subscribers get."""
    number = await writer.datastream()
    path = f"Datastreams({number})/Observations"
    first = await writer.create(path, {"phenomenonTime": AT.format(1), "result": 1})
    second = await writer.create(path, {"phenomenonTime": AT.format(2), "result": 2})
    await writer.ask("DELETE", f"Observations({first})")
    await writer.ask("GET", f"Observations({first})", expect=404)
    assert [entity["@iot.id"] for entity in (await writer.get(path))["value"]] == [second]
    thing = await writer.get(f"Datastreams({number})/Thing")
    device = thing["properties"]["device"]
    records = await writer.site.records(device=device)
    assert ["withdrawn" in record["flags"] for record in records] == [False, False, True]
    sensor = (await writer.get(f"Datastreams({number})/Sensor"))["@iot.id"]
    await writer.ask("DELETE", f"Sensors({sensor})")
    await writer.ask("GET", f"Datastreams({number})", expect=404)
    await writer.ask("GET", f"Observations({second})", expect=404)
    repeated = await writer.create(f"Things({thing['@iot.id']})/Datastreams", stream())
    assert repeated == number
    await writer.ask("DELETE", f"Things({thing['@iot.id']})")
    for gone in (f"Things({thing['@iot.id']})", f"Datastreams({number})"):
        await writer.ask("GET", gone, expect=404)
    assert (await writer.site.ask("GET", f"/api/v1/devices/{device}")).body["state"] == "retired"
    location = await writer.create("Locations", place(113.9))
    await writer.ask("DELETE", f"Locations({location})")
    await writer.ask("GET", f"Locations({location})", expect=404)
    assert {"sensorthings.delete", "readings.withdraw", "device.retire"} <= set(await writer.audited())


async def test_delete_of_a_further_channel(writer: Writer) -> None:
    """Of three equal sensors, two with a channel: that of one goes; those of the others at the same time stay."""
    twins = await writer.site.device("twins", profile="acme/twins")
    text = f'{{"at": "{AT.format(3)}", "in": 7, "out": 8, "own": 9}}'
    assert (await writer.site.push(twins, text)).status == 202

    async def all_three() -> list[dict[str, Any]]:
        rows = await writer.get("Observations?$filter=Datastream/Thing/name eq 'twins'&$expand=Datastream")
        result: list[dict[str, Any]] = rows["value"]
        return result if len(result) == 3 else []

    observations = await eventually(all_three)
    for result, left in ((8, [7, 9]), (9, [7])):
        (gone,) = [row["@iot.id"] for row in observations if row["result"] == result]
        await writer.ask("DELETE", f"Observations({gone})")
        await writer.ask("GET", f"Observations({gone})", expect=404)
        rows = (await writer.get("Observations?$filter=Datastream/Thing/name eq 'twins'"))["value"]
        assert sorted(row["result"] for row in rows) == left


REFUSED = [
    ("POST", "Things", {"name": "x"}, 400, "description: is missing"),
    ("POST", "Things", {"name": "x", "description": "y", "colour": 1}, 400, "has no 'colour'"),
    ("POST", "Things", {"name": 1, "description": "y"}, 400, "is not a text"),
    ("POST", "Things", {"name": "x", "description": "y", "properties": []}, 400, "not a JSON object"),
    (
        "POST",
        "Things",
        {"name": "x", "description": "y", "Locations": [{"@iot.id": 5}]},
        400,
        "there is no Locations(5)",
    ),
    ("POST", "Things", [], 400, "not a JSON object"),
    ("POST", "Thing", {}, 404, "no entity set"),
    ("POST", "Things(1)", {}, 400, "names an entity"),
    ("POST", "ObservedProperties", {**PROPERTY, "name": "air temprature", "definition": "x"}, 400, "air_temperature"),
    ("POST", "Datastreams", {**stream(), "Thing": {"@iot.id": 1}}, 400, "there is no Things(1)"),
    ("POST", "Locations", {**place(1), "encodingType": "text/plain"}, 400, "use application/geo+json"),
    ("POST", "Locations", {**place(1), "location": {"type": "Pint"}}, 400, "is not GeoJSON"),
    ("POST", "Observations", {"result": 1}, 400, "Datastream: is missing"),
    ("POST", "Observations", {"result": 1, "phenomenonTime": "yesterday"}, 400, "not a time"),
    ("PATCH", "Things", {"name": "x"}, 400, "names no entity"),
    ("PATCH", "Things(1)", {"name": "x"}, 404, "there is no Things(1)"),
    ("DELETE", "Things(1)", None, 404, "there is no Things(1)"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), REFUSED)
async def test_what_is_refused(writer: Writer, method: str, path: str, body: Any, status: int, says: str) -> None:
    """A problem document that names the member; nothing is written."""
    problem = await writer.ask(method, path, body, expect=status)
    assert says in problem["detail"], problem


async def test_of_a_datastream_what_does_not_fit_is_refused(writer: Writer) -> None:
    """A result of another kind, another unit, a second Datastream of the same property, readings of other profiles."""
    number = await writer.datastream()
    thing = (await writer.get(f"Datastreams({number})/Thing"))["@iot.id"]
    problem = await writer.ask("POST", f"Datastreams({number})/Observations", {"result": "warm"}, expect=400)
    assert "is a number" in problem["detail"]
    await writer.ask("POST", f"Things({thing})/Datastreams", stream(), expect=409)
    kelvin = {"name": "kelvin", "symbol": "K", "definition": "http://unitsofmeasure.org/ucum.html#K"}
    other = await writer.thing()
    problem = await writer.ask("POST", f"Things({other})/Datastreams", stream(unitOfMeasurement=kelvin), expect=400)
    assert "give symbol Cel" in problem["detail"]
    table = (await writer.get("ObservedProperties?$filter=name eq 'air_temperature'"))["value"][0]
    for method in ("PATCH", "DELETE"):
        body = {"description": "x"} if method == "PATCH" else None
        await writer.ask(method, f"ObservedProperties({table['@iot.id']})", body, expect=409)


async def test_devices_that_others_registered_are_things(writer: Writer) -> None:
    """A registered device is a Thing before it speaks; its texts can be written; its readings come by its messages."""
    device: Made = await writer.site.device("plain-1", lon=113.0, lat=23.0)
    (thing,) = (await writer.get("Things?$filter=properties/device eq 'plain-1'"))["value"]
    assert (await writer.get(f"Things({thing['@iot.id']})/Datastreams"))["value"] == []
    assert (await writer.site.push(device, reading(21.5))).status == 202
    (datastream,) = (await writer.get(f"Things({thing['@iot.id']})/Datastreams?$expand=Observations"))["value"]
    assert [entity["result"] for entity in datastream["Observations"]] == [21.5]
    await writer.ask("PATCH", f"Datastreams({datastream['@iot.id']})", {"description": "by the door"})
    assert (await writer.get(f"Datastreams({datastream['@iot.id']})"))["description"] == "by the door"
    path = f"Datastreams({datastream['@iot.id']})/Observations"
    await writer.create(path, {"phenomenonTime": AT.format(9), "result": 5})
    assert len((await writer.get(path))["value"]) == 2


async def test_rights(writer: Writer) -> None:
    """Who may not change devices writes nothing; a county does not see what another one wrote."""
    site = writer.site
    number = await writer.datastream()
    thing = (await writer.get(f"Datastreams({number})/Thing"))["@iot.id"]
    subscriber, _ = await site.token("subscriber", "4401")
    county, _ = await site.token("county_operator", "440103")
    own, _ = await site.token("county_operator", "440106")
    body = {"name": "x", "description": "y", "properties": {"division": "440106"}}
    assert (await site.ask("POST", f"{ROOT}/Things", subscriber, json=body)).status == 403
    assert (await site.ask("POST", f"{ROOT}/Things", county, json=body)).status == 403
    assert (await site.ask("POST", f"{ROOT}/Things", own, json=body)).status == 201
    for method in ("PATCH", "DELETE", "GET"):
        assert (await site.ask(method, f"{ROOT}/Things({thing})", county, data='{"name": "z"}')).status == 404
    assert (await site.ask("GET", f"{ROOT}/Things({thing})", own)).status == 200
    # An operator changes devices, but readings come from devices or from who may ingest.
    path = f"{ROOT}/Datastreams({number})/Observations"
    assert (await site.ask("POST", path, own, json={"result": 1})).status == 403


async def test_many_at_a_time(writer: Writer) -> None:
    """Observations of many requests at once: each answered with its own record."""
    numbers = [await writer.datastream() for _ in range(2)]
    paths = [(f"Datastreams({number})/Observations", hour) for number in numbers for hour in range(8)]
    bodies = [{"phenomenonTime": AT.format(hour), "result": hour} for _, hour in paths]
    ids = await asyncio.gather(*(writer.create(path, body) for (path, _), body in zip(paths, bodies, strict=True)))
    assert len(set(ids)) == len(paths)
    for number, (_, hour) in zip(ids, paths, strict=True):
        assert (await writer.get(f"Observations({number})"))["result"] == hour
