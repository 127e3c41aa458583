"""Retrieval and queries of entities: what they are made of, their forms, and paging."""

from __future__ import annotations

from typing import Any

import pytest

from sensegate.quantities.quality import Flag
from tests.ngsi_ld.serving import Entities
from tests.sensorthings.serving import with_marks
from tests.share.made import NOW, Place, make_batch

pytestmark = pytest.mark.asyncio(loop_scope="module")
AIR = "urn:ngsi-ld:AirQualityObserved:gz-air"
WEATHER = "urn:ngsi-ld:WeatherObserved:gz-air"
CORE_URL = "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld"
ERRORS = "https://uri.etsi.org/ngsi-ld/errors/"
SQUARE = "[[[113.3,23],[114,23],[114,24],[113.3,24],[113.3,23]]]"


# ── what entities are ─────────────────────────────────────────────────────────────────────────────────


async def test_an_entity_by_its_id(entities: Entities) -> None:
    """An attribute has its value, time, unit and quality; place, division and device stand beside it."""
    entity = await entities.ask(f"entities/{AIR}")
    assert entity["type"] == "AirQualityObserved"
    assert entity["scope"] == "/44/4401/440106"
    assert entity["pm25"] == {
        "type": "Property",
        "value": 35.5,
        "unitCode": "GQ",
        "observedAt": "2026-01-01T00:00:00.002Z",
        "quality": {"type": "Property", "value": "good"},
    } | {"observedAt": entity["pm25"]["observedAt"]}
    assert entity["refDevice"] == {"type": "Relationship", "object": "urn:ngsi-ld:Device:gz-air"}
    assert entity["location"]["value"] == {"type": "Point", "coordinates": [113.3612, 23.1247]}
    assert entity["dateObserved"]["value"]["@type"] == "DateTime"
    assert entity["areaServed"]["languageMap"]["zh"] == "天河区"
    assert "temperature" not in entity


async def test_each_kind_of_value(entities: Entities) -> None:
    """Numbers, truth values and texts; a further channel is a data set of the attribute."""
    entity = await entities.ask(f"entities/{WEATHER}", options="keyValues")
    assert (entity["raining"], entity["windCardinal"], entity["relativeHumidity"]) == (True, "NW", 61.0)
    assert entity["temperature"] == {"dataset": {"@none": 21.5, "urn:ngsi-ld:Dataset:2": 22.5}}
    normalized = await entities.ask(f"entities/{WEATHER}")
    assert [instance.get("datasetId") for instance in normalized["temperature"]] == [None, "urn:ngsi-ld:Dataset:2"]
    answer = await entities.ask(f"entities/{WEATHER}", datasetId="urn:ngsi-ld:Dataset:2", options="keyValues")
    assert set(answer) == {"id", "type", "scope", "temperature"}


async def test_devices_stand_beside(entities: Entities) -> None:
    """A device has its own properties, its model, and what it observes; a device without a place has no location."""
    device = await entities.ask("entities/urn:ngsi-ld:Device:gz-air", options="keyValues")
    assert device["batteryLevel"] == 88.0
    assert device["refDeviceModel"] == "urn:ngsi-ld:DeviceModel:acme:th10:3"
    assert set(device["controlledProperty"]) > {"pm25", "temperature", "batteryLevel"}
    assert "location" not in await entities.ask("entities/urn:ngsi-ld:Device:gz-cam", options="keyValues")


async def test_an_entity_that_does_not_exist(entities: Entities) -> None:
    """Neither an unknown id, nor one without any of the attributes that are asked for."""
    for path, query in ((f"entities/{AIR}x", {}), (f"entities/{AIR}", {"attrs": "nothing"})):
        problem = await entities.ask(path, expect=404, **query)
        assert problem["type"] == f"{ERRORS}ResourceNotFound"


async def test_values_follow_the_log(entities: Entities) -> None:
    """An entity has the newest value as soon as it is committed; a withdrawn reading is gone, others stay."""
    place = [Place("gz-new")]
    name = "entities/urn:ngsi-ld:AirQualityObserved:gz-new"
    for number, value in enumerate((1.0, 2.0)):
        await entities.write(make_batch([(0, "pm2_5", value)], places=place, start=NOW + number * 1_000_000))
        assert (await entities.ask(name, options="keyValues"))["pm25"] == value
    kept = await entities.ask(f"entities/{AIR}", options="keyValues")
    gone = make_batch([(0, "pm2_5", 2.0)], places=place, start=NOW + 1_000_000)
    await entities.write(with_marks(gone, revision=1, flags=int(Flag.WITHDRAWN)))
    await entities.ask(name, expect=404)
    assert await entities.ask(f"entities/{AIR}", options="keyValues") == kept


# ── forms ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_concise_form(entities: Entities) -> None:
    """Without types; a value that stands alone is the attribute."""
    entity = await entities.ask(f"entities/{AIR}", options="concise")
    assert entity["refDevice"] == {"object": "urn:ngsi-ld:Device:gz-air"}
    assert entity["pm25"] == {
        "value": 35.5,
        "unitCode": "GQ",
        "observedAt": entity["pm25"]["observedAt"],
        "quality": "good",
    }
    assert entity == await entities.ask(f"entities/{AIR}", format="concise")


async def test_simplified_form(entities: Entities) -> None:
    """By its name of today and by the old one; a language property keeps its map."""
    entity = await entities.ask(f"entities/{AIR}", options="simplified")
    assert entity["pm25"] == 35.5
    assert entity["areaServed"] == {"languageMap": {"zh": "天河区", "en": entity["areaServed"]["languageMap"]["en"]}}
    assert entity == await entities.ask(f"entities/{AIR}", options="keyValues")
    assert entity == await entities.ask(f"entities/{AIR}", format="simplified")


async def test_system_attributes(entities: Entities) -> None:
    """The times of the entity and of each attribute: when the reading arrived."""
    entity = await entities.ask(f"entities/{AIR}", options="sysAttrs")
    assert entity["createdAt"] <= entity["modifiedAt"]
    assert entity["pm25"]["modifiedAt"] > entity["pm25"]["observedAt"]
    assert "createdAt" not in await entities.ask(f"entities/{AIR}")


async def test_attributes_that_are_shown(entities: Entities) -> None:
    """By `attrs`, `pick` and `omit`; what is not there is left out without a word."""
    assert set(await entities.ask(f"entities/{AIR}", attrs="pm25,none")) == {"id", "type", "scope", "pm25"}
    assert set(await entities.ask(f"entities/{AIR}", pick="id,pm25")) == {"id", "pm25"}
    rest = await entities.ask(f"entities/{AIR}", omit="scope,pm25,pm10")
    assert set(rest) == {"id", "type", "dateObserved", "refDevice", "location", "areaServed"}
    await entities.ask(f"entities/{AIR}", pick="pm25", attrs="pm25", expect=400)


@pytest.mark.parametrize(
    ("lang", "expected"),
    [("zh", "天河区"), ("en", "Tianhe"), ("fr;q=1,en;q=0.8,zh;q=0.2", "Tianhe"), ("zh-CN", "天河区")],
)
async def test_languages(entities: Entities, lang: str, expected: str) -> None:
    """One language of each language property, by preference."""
    entity = await entities.ask(f"entities/{AIR}", lang=lang)
    assert entity["areaServed"]["type"] == "Property"
    assert entity["areaServed"]["value"].startswith(expected)
    assert (await entities.ask(f"entities/{AIR}", lang=lang, options="keyValues"))["areaServed"].startswith(expected)
    await entities.ask(f"entities/{AIR}", lang="en;q=x", expect=400)


async def test_geojson(entities: Entities) -> None:
    """A feature, and a collection of features; the geometry is the location, or the property that is named."""
    accept = {"Accept": "application/geo+json"}
    feature, response = await entities.reply(f"entities/{AIR}", headers=accept)
    assert response.content_type == "application/geo+json"
    assert feature["type"] == "Feature"
    assert feature["geometry"] == {"type": "Point", "coordinates": [113.3612, 23.1247]}
    assert feature["properties"]["type"] == "AirQualityObserved"
    listed = await entities.ask("entities", type="Device", options="keyValues", headers=accept)
    assert listed["type"] == "FeatureCollection"
    assert [feature["geometry"] is None for feature in listed["features"]].count(True) == 1
    other = await entities.ask(f"entities/{AIR}", geometryProperty="pm25", headers=accept)
    assert other["geometry"] is None


async def test_media_types(entities: Entities) -> None:
    """JSON with the context in a header, JSON-LD with the context in the body; nothing else."""
    _, response = await entities.reply(f"entities/{AIR}", headers={"Accept": "text/html,*/*;q=0.1"})
    assert response.content_type == "application/json"
    assert CORE_URL in response.headers["Link"]
    entity, response = await entities.reply(f"entities/{AIR}", headers={"Accept": "application/ld+json"})
    assert (response.content_type, entity["@context"]) == ("application/ld+json", CORE_URL)
    assert "Link" not in response.headers
    problem = await entities.ask(f"entities/{AIR}", headers={"Accept": "text/html"}, expect=406)
    assert problem["type"] == f"{ERRORS}InvalidRequest"


# ── queries ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type": "AirQualityObserved"}, ["gz-air", "sz-air"]),
        ({"type": "AirQualityObserved,NoiseLevelObserved"}, ["gz-air", "sz-air", "gz-noise"]),
        ({"type": "AirQualityObserved;NoiseLevelObserved"}, []),
        ({"type": "*", "idPattern": "noise$"}, ["gz-noise", "gz-noise"]),
        ({"type": "AirQualityObserved", "idPattern": "^urn:ngsi-ld:Air.*:sz"}, ["sz-air"]),
        ({"id": f"{AIR},urn:ngsi-ld:Nothing:x", "type": "*"}, ["gz-air"]),
        ({"id": WEATHER, "type": "AirQualityObserved"}, []),
        ({"attrs": "pm10"}, ["gz-air"]),
        ({"attrs": "pm10,LAeq"}, ["gz-air", "gz-noise"]),
        ({"q": "pm25>20"}, ["gz-air"]),
        ({"q": "pm25<=20;refDevice==urn:ngsi-ld:Device:sz-air"}, ["sz-air"]),
        ({"q": 'pm25.quality=="good"', "type": "AirQualityObserved"}, ["gz-air", "sz-air"]),
        ({"q": 'windCardinal~=^N|areaServed[zh]=="天河区";LAeq'}, ["gz-air"]),
        ({"q": "dateObserved>2030-01-01T00:00:00Z"}, []),
        (
            {
                "type": "Device",
                "georel": "near;maxDistance==5000",
                "geometry": "Point",
                "coordinates": "[113.36,23.12]",
            },
            ["gz-air"],
        ),
        ({"type": "Device", "georel": "within", "geometry": "Polygon", "coordinates": SQUARE}, ["gz-air"]),
        (
            {
                "type": "Device",
                "georel": "disjoint",
                "geometry": "Polygon",
                "coordinates": SQUARE,
                "geoproperty": "location",
            },
            ["gz-noise", "sz-air"],
        ),
        ({"type": "Device", "scopeQ": "/44/4401/#"}, ["gz-air", "gz-cam", "gz-noise"]),
        ({"type": "Device", "scopeQ": "/44/4403/#,/44/4401/440103"}, ["gz-noise", "sz-air"]),
        ({"local": "true", "q": "pm25", "scopeQ": "/44/+/440304"}, ["sz-air"]),
    ],
)
async def test_queries(entities: Entities, query: dict[str, Any], expected: list[str]) -> None:
    """Each condition by GET; the same by POST gives the same."""
    names = [name.partition(":")[2] for name in await entities.ids(**query)]
    assert names == expected
    body: dict[str, Any] = {"type": "Query"}
    selection: dict[str, Any] = {key: query[key] for key in ("type", "idPattern") if key in query}
    if "id" in query:
        selection["id"] = query["id"].split(",")
    body |= {"entities": [selection]} if selection else {}
    body |= {key: query[key] for key in ("q", "scopeQ") if key in query}
    body |= {"attrs": query["attrs"].split(",")} if "attrs" in query else {}
    if "georel" in query:
        body["geoQ"] = {key: query[key] for key in ("georel", "geometry", "coordinates", "geoproperty") if key in query}
    posted = await entities.ask("entityOperations/query", method="POST", json=body, limit=1_000)
    assert [entity["id"].rpartition(":")[2] for entity in posted] == expected


async def test_queries_by_post(entities: Entities) -> None:
    """Several selections, forms and members of the answer; the context stands in a body of JSON-LD."""
    body = {
        "@context": CORE_URL,
        "type": "Query",
        "entities": [{"type": "AirQualityObserved", "id": AIR}, {"type": "NoiseLevelObserved"}],
        "pick": ["id", "pm25", "LAeq"],
    }
    headers = {"Content-Type": "application/ld+json"}
    listed = await entities.ask(
        "entityOperations/query", method="POST", json=body, headers=headers, options="keyValues", count="true"
    )
    assert [set(entity) for entity in listed] == [{"id", "pm25"}, {"id", "LAeq"}]
    refused: list[Any] = [{}, {"type": "Other"}, {"type": "Query", "extra": 1}, []]
    for wrong in [*refused, {"type": "Query", "entities": [{"id": "x"}]}]:
        problem = await entities.ask("entityOperations/query", method="POST", json=wrong, expect=400)
        assert problem["type"] == f"{ERRORS}BadRequestData"
    headers = {"Content-Type": "application/json"}
    problem = await entities.ask("entityOperations/query", method="POST", data="{", headers=headers, expect=400)
    assert problem["type"] == f"{ERRORS}InvalidRequest"
    headers = {"Content-Type": "text/plain"}
    await entities.ask("entityOperations/query", method="POST", data="{}", headers=headers, expect=415)


async def test_pages(entities: Entities) -> None:
    """Pages by limit and offset, with links to the neighbours, and the number of all where it is asked for."""
    every = await entities.ids(type="*", local="true")
    address, listed = "entities?type=*&local=true&limit=3&count=true", []
    for _ in range(100):
        page, response = await entities.reply(address)
        assert response.headers["NGSILD-Results-Count"] == str(len(every))
        listed += [entity["id"].removeprefix("urn:ngsi-ld:") for entity in page]
        link = response.links.get("next")
        assert ("prev" in response.links) is ("offset" in address)
        if link is None:
            break
        address = str(link["url"])
    assert listed == every
    page, response = await entities.reply("entities", type="Device", limit=0, count="true")
    assert page == []
    assert int(response.headers["NGSILD-Results-Count"]) >= 4
    assert "NGSILD-Results-Count" not in (await entities.reply("entities", type="Device"))[1].headers
    page, response = await entities.reply("entities", type="Device", options="count")
    assert "NGSILD-Results-Count" in response.headers


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({}, "BadRequestData"),
        ({"type": "Device", "limit": "0"}, "BadRequestData"),
        ({"type": "Device", "limit": "x"}, "BadRequestData"),
        ({"type": "Device", "offset": "-1"}, "BadRequestData"),
        ({"type": "Device", "count": "yes"}, "BadRequestData"),
        ({"type": "Device", "options": "fast"}, "BadRequestData"),
        ({"type": "Device", "format": "csv"}, "BadRequestData"),
        ({"type": "Device", "idPattern": "("}, "BadRequestData"),
        ({"type": "Device", "attrs": ""}, "BadRequestData"),
        ({"type": "(", "q": "a"}, "BadRequestData"),
        ({"id": "no-uri", "type": "Device"}, "BadRequestData"),
        ({"q": "a=5"}, "BadRequestData"),
        ({"type": "Device", "coordinates": "[0,0]"}, "BadRequestData"),
        ({"type": "Device", "georel": "near", "geometry": "Point", "coordinates": "[0,0]"}, "BadRequestData"),
        ({"type": "Device", "filter": "x"}, "BadRequestData"),
    ],
)
async def test_what_is_refused(entities: Entities, query: dict[str, Any], kind: str) -> None:
    """A parameter that is missing, unknown or not understood is a problem document with a type of the standard."""
    problem = await entities.ask("entities", expect=400, **query)
    assert problem["type"] == f"{ERRORS}{kind}"
    assert problem["title"]
    assert problem["detail"]


async def test_too_many_results(entities: Entities) -> None:
    """A page beyond what is allowed is refused with the way out."""
    problem = await entities.ask("entities", type="Device", limit=5_000, expect=413)
    assert problem["type"] == f"{ERRORS}TooManyResults"
    assert "Link" in problem["detail"]


async def test_a_tenant_is_refused(entities: Entities) -> None:
    """There are no tenants."""
    problem = await entities.ask("entities", type="Device", headers={"NGSILD-Tenant": "x"}, expect=501)
    assert problem["type"] == f"{ERRORS}NoMultiTenantSupport"


# ── types and attributes ──────────────────────────────────────────────────────────────────────────────


async def test_types(entities: Entities) -> None:
    """All types, with their attributes where these are asked for; one type with its number of entities."""
    listed = await entities.ask("types")
    assert listed["type"] == "EntityTypeList"
    assert "AirQualityObserved" in listed["typeList"]
    detailed = {row["typeName"]: row for row in await entities.ask("types", details="true")}
    assert set(detailed) == set(listed["typeList"])
    assert "pm25" in detailed["AirQualityObserved"]["attributeNames"]
    info = await entities.ask("types/NoiseLevelObserved")
    assert (info["type"], info["typeName"], info["entityCount"]) == ("EntityTypeInfo", "NoiseLevelObserved", 1)
    kinds = {row["attributeName"]: row["attributeTypes"] for row in info["attributeDetails"]}
    assert kinds["LAeq"] == ["Property"]
    assert kinds["location"] == ["GeoProperty"]
    await entities.ask("types/Unknown", expect=404)


async def test_attributes(entities: Entities) -> None:
    """All attributes, with their types where these are asked for; one attribute with its number of entities."""
    listed = await entities.ask("attributes")
    assert listed["type"] == "AttributeList"
    assert {"pm25", "LAeq", "location"} <= set(listed["attributeList"])
    detailed = {row["attributeName"]: row for row in await entities.ask("attributes", details="true")}
    assert detailed["LAeq"]["typeNames"] == ["NoiseLevelObserved"]
    info = await entities.ask("attributes/LAeq")
    assert (info["attributeCount"], info["attributeTypes"]) == (1, ["Property"])
    await entities.ask("attributes/unknown", expect=404)
