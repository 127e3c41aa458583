"""Writing over HTTP: entities, attributes, batches and stored contexts, as a client of the standard sends them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from sensegate.authority.scope import Role
from sensegate.ngsi_ld.contexts import link_header
from tests.ngsi_ld.serving import Entities, entities_serving

NAME = "urn:ngsi-ld:Building:1"
BUILDING = {
    "id": NAME,
    "type": "Building",
    "height": {"type": "Property", "value": 30, "unitCode": "MTR"},
    "location": {"type": "Point", "coordinates": [113.3, 23.1]},
    "isIn": {"object": "urn:ngsi-ld:Park:1"},
}
USER = {"Building": "https://example.org/Building", "height": "https://example.org/height"}
ERRORS = "https://uri.etsi.org/ngsi-ld/errors/"
_NUMBERS = itertools.count(100)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city() -> AsyncIterator[Entities]:
    """The API, asked by an operator of the city 4401."""
    async with entities_serving() as running:
        yield running.under(await running.gateway.token(Role.CITY_OPERATOR, "4401"))


async def fresh(city: Entities, **members: Any) -> str:
    """Create an entity of its own; return its id."""
    name = f"urn:ngsi-ld:Building:{next(_NUMBERS)}"
    await city.ask("entities", method="POST", json={**BUILDING, "id": name, **members}, expect=201)
    return name


async def test_create_read_and_delete(city: Entities) -> None:
    """An entity that was created is found by queries beside those of devices, and is gone once deleted."""
    _, response = await city.reply("entities", method="POST", json=BUILDING, expect=201)
    assert response.headers["Location"] == f"/ngsi-ld/v1/entities/{NAME}"
    answer = await city.ask(f"entities/{NAME}")
    assert answer["height"] == {"type": "Property", "value": 30, "unitCode": "MTR"}
    assert answer["location"]["type"] == "GeoProperty"
    assert answer["isIn"] == {"type": "Relationship", "object": "urn:ngsi-ld:Park:1"}
    assert {"Building:1", "Device:gz-air"} <= set(await city.ids(type="Building,Device"))
    assert await city.ids(type="Building") == ["Building:1"]
    problem = await city.ask("entities", method="POST", json=BUILDING, expect=409)
    assert problem["type"] == f"{ERRORS}AlreadyExists"
    await city.ask(f"entities/{NAME}", method="DELETE", expect=204)
    assert (await city.ask(f"entities/{NAME}", expect=404))["type"] == f"{ERRORS}ResourceNotFound"


async def test_attributes(city: Entities) -> None:
    """Append, update, change in part, replace, merge and delete, with 207 where a part was not applied."""
    name = await fresh(city)
    path = f"entities/{name}"
    await city.ask(f"{path}/attrs", method="POST", json={"floors": 5}, expect=204)
    result = await city.ask(
        f"{path}/attrs", method="POST", json={"floors": 6, "rooms": 7}, options="noOverwrite", expect=207
    )
    assert result["updated"] == ["rooms"]
    assert [part["attributeName"] for part in result["notUpdated"]] == ["floors"]
    result = await city.ask(f"{path}/attrs", method="PATCH", json={"floors": 8, "doors": 1}, expect=207)
    assert [part["attributeName"] for part in result["notUpdated"]] == ["doors"]
    await city.ask(f"{path}/attrs/height", method="PATCH", json={"value": 31}, expect=204)
    assert (await city.ask(path))["height"] == {"type": "Property", "value": 31, "unitCode": "MTR"}
    await city.ask(f"{path}/attrs/height", method="PUT", json={"type": "Property", "value": 32}, expect=204)
    media = {"Content-Type": "application/merge-patch+json"}
    await city.ask(path, method="PATCH", data=b'{"rooms": "urn:ngsi-ld:null"}', headers=media, expect=204)
    await city.ask(f"{path}/attrs/isIn", method="DELETE", expect=204)
    assert (await city.ask(f"{path}/attrs/isIn", method="DELETE", expect=404))["type"].endswith("ResourceNotFound")
    answer = await city.ask(path, options="keyValues")
    assert answer == {
        "id": name,
        "type": "Building",
        "height": 32,
        "floors": 8,
        "location": BUILDING["location"],
    }
    await city.ask(path, method="PUT", json={"type": "Building", "open": True}, expect=204)
    assert await city.ask(path, options="keyValues") == {"id": name, "type": "Building", "open": True}


async def test_batches(city: Entities) -> None:
    """Every operation on a batch answers for each entity: 201 and 204 for all, 207 with errors by entity."""
    names = [f"urn:ngsi-ld:Bench:{number}" for number in range(4)]
    benches = [{"id": name, "type": "Bench", "seats": 2} for name in names]

    async def batch(operation: str, body: Any, expect: int, **query: Any) -> Any:
        return await city.ask(f"entityOperations/{operation}", method="POST", json=body, expect=expect, **query)

    assert await batch("create", benches[:2], 201) == names[:2]
    partly = await batch("create", [benches[1], benches[2], {"id": "urn:x:1"}], 207)
    assert partly["success"] == [names[2]]
    assert [(part["entityId"], part["error"]["type"]) for part in partly["errors"]] == [
        (names[1], f"{ERRORS}AlreadyExists"),
        ("urn:x:1", f"{ERRORS}BadRequestData"),
    ]
    assert await batch("upsert", [{**bench, "color": "red"} for bench in benches], 201) == [names[3]]
    await batch("upsert", [{"id": names[0], "type": "Bench", "age": 3}], 204, options="update")
    await batch("update", [{"id": names[0], "seats": 3}], 204)
    await batch("merge", [{"id": names[1], "color": "urn:ngsi-ld:null"}], 204)
    answer = await city.ask("entities", type="Bench", options="keyValues")
    assert answer[0] == {"id": names[0], "type": "Bench", "seats": 3, "color": "red", "age": 3}
    assert "color" not in answer[1]
    partly = await batch("delete", [*names, "urn:x:1"], 207)
    assert partly["success"] == names
    await batch("create", [], 400)
    await batch("create", [benches[0]] * 1_001, 400)


async def test_the_context_of_a_body(city: Entities) -> None:
    """Names are stored as IRIs: another @context shows other names; an unknown one is LdContextNotAvailable."""
    body = {**BUILDING, "@context": USER}
    media = {"Content-Type": "application/ld+json"}
    await city.ask("entities", method="POST", json={**body, "id": "urn:x:ld"}, headers=media, expect=201)
    plain = await city.ask("entities/urn:x:ld")
    assert plain["type"] == "https://example.org/Building"
    assert "https://example.org/height" in plain
    created = (await city.reply("jsonldContexts", method="POST", json={"@context": USER}, expect=201))[1]
    address = f"{city.gateway.url}{created.headers['Location']}"
    shown = await city.ask("entities/urn:x:ld", headers={"Link": link_header(address)})
    assert (shown["type"], shown["height"]["value"]) == ("Building", 30)
    absent = {"Link": link_header("https://example.org/c.jsonld")}
    problem = await city.ask("entities/urn:x:ld", headers=absent, expect=503)
    assert problem["type"] == f"{ERRORS}LdContextNotAvailable"
    await city.ask(
        "jsonldContexts", method="POST", json={"@context": USER}, url="https://example.org/c.jsonld", expect=201
    )
    assert (await city.ask("entities/urn:x:ld", headers=absent))["type"] == "Building"


async def test_stored_contexts(city: Entities) -> None:
    """Contexts are listed, shown with details, deleted, and not fetched anew."""
    _, created = await city.reply("jsonldContexts", method="POST", json={"@context": {"a": "urn:x:a"}}, expect=201)
    path = created.headers["Location"]
    assert (await city.ask(path, headers={"Accept": "application/json"})) == {"@context": {"a": "urn:x:a"}}
    assert (await city.reply(path))[1].content_type == "application/ld+json"
    details = await city.ask(path, details="true")
    assert details["kind"] == "Hosted"
    assert details["URL"].endswith(path)
    assert details["URL"] in await city.ask("jsonldContexts")
    assert details in await city.ask("jsonldContexts", details="true", kind="Hosted")
    problem = await city.ask(path, method="DELETE", reload="true", expect=422)
    assert problem["type"] == f"{ERRORS}OperationNotSupported"
    await city.ask(path, method="DELETE", expect=204)
    await city.ask(path, expect=404)
    wrong: tuple[Any, ...] = ({"a": 1}, {"@context": {"a": 7}}, [])
    for body in wrong:
        await city.ask("jsonldContexts", method="POST", json=body, expect=400)


async def test_the_context_inside_a_request_is_linked(city: Entities) -> None:
    """A JSON answer to a request with its @context inside links to a copy, by which its names are read."""
    source = {"Mast": "https://example.org/Mast", "tall": "https://example.org/tall"}
    body = {"type": "Query", "entities": [{"type": "Mast"}], "@context": source}
    media = {"Content-Type": "application/ld+json", "Accept": "application/json"}
    mast = {"id": "urn:x:mast", "type": "Mast", "tall": 9, "@context": source}
    await city.ask("entities", method="POST", json=mast, headers={"Content-Type": media["Content-Type"]}, expect=201)
    (reply,), response = await city.reply("entityOperations/query", method="POST", json=body, headers=media)
    assert (reply["type"], reply["tall"]["value"]) == ("Mast", 9)
    address = response.links["http://www.w3.org/ns/json-ld#context"]["url"]
    assert await city.ask(str(address)) == {"@context": source}
    repeated = await city.reply("entityOperations/query", method="POST", json=body, headers=media)
    assert repeated[1].headers["Link"] == response.headers["Link"]
    assert str(address) in await city.ask("jsonldContexts", kind="ImplicitlyCreated")
    assert str(address) not in await city.ask("jsonldContexts", kind="Hosted")
    assert (await city.ask("entities/urn:x:mast", headers={"Link": link_header(str(address))}))["tall"]["value"] == 9
    problem = await city.ask(str(address), method="DELETE", expect=422)
    assert problem["type"] == f"{ERRORS}OperationNotSupported"


async def test_entities_of_devices_are_not_written(city: Entities) -> None:
    """An entity that follows from readings is refused with the way out, and stays."""
    name = "urn:ngsi-ld:AirQualityObserved:gz-air"
    problem = await city.ask(f"entities/{name}", method="PATCH", json={"pm25": 1}, expect=422)
    assert problem["type"] == f"{ERRORS}OperationNotSupported"
    assert "/api/v1/devices" in problem["detail"]
    await city.ask("entities", method="POST", json={**BUILDING, "id": name}, expect=409)
    assert (await city.ask(f"entities/{name}"))["type"] == "AirQualityObserved"


async def test_ids_of_foreign_devices_are_not_taken(city: Entities) -> None:
    """Nobody puts an entity beside that of a device elsewhere, with attributes that its viewers take for its own."""
    foreign = {**BUILDING, "id": "urn:ngsi-ld:AirQualityObserved:sz-air"}
    await city.ask(f"entities/{foreign['id']}", expect=404)
    await city.ask("entities", method="POST", json=foreign, expect=409)
    await city.ask("entityOperations/upsert", method="POST", json=[foreign], expect=207)
    await city.ask(f"entities/{foreign['id']}", method="PATCH", json={"pm25": 1}, expect=404)
    unheard = {**BUILDING, "id": "urn:ngsi-ld:Building:sz-air"}
    await city.ask("entities", method="POST", json=unheard, expect=201)
    await city.ask(f"entities/{unheard['id']}", method="DELETE", expect=204)


async def test_who_may_write_and_who_sees(city: Entities) -> None:
    """A subscriber reads in its scope and writes nothing; another city sees nothing; an owner lies in the scope."""
    name = await fresh(city)
    reader = city.under(await city.gateway.token(Role.SUBSCRIBER, "4401"))
    assert (await reader.ask(f"entities/{name}"))["id"] == name
    await reader.ask(f"entities/{name}", method="DELETE", expect=403)
    other = city.under(await city.gateway.token(Role.CITY_OPERATOR, "4403"))
    await other.ask(f"entities/{name}", expect=404)
    await other.ask(f"entities/{name}", method="DELETE", expect=404)
    body = {**BUILDING, "id": "urn:x:county"}
    await city.ask("entities", method="POST", json=body, division="4403", expect=403)
    await city.ask("entities", method="POST", json=body, division="440106", department="police", expect=201)
    county = city.under(await city.gateway.token(Role.SUBSCRIBER, "440106"))
    assert (await county.ask("entities/urn:x:county"))["id"] == "urn:x:county"


async def test_bad_requests(city: Entities) -> None:
    """Media types, JSON, options and ids that are wrong are refused by their name."""
    text = {"Content-Type": "text/plain"}
    assert "text/plain" in (await city.ask("entities", method="POST", data=b"{}", headers=text, expect=415))["detail"]
    json = {"Content-Type": "application/json"}
    problem = await city.ask("entities", method="POST", data=b"{", headers=json, expect=400)
    assert problem["type"] == f"{ERRORS}InvalidRequest"
    for query, word in (({"options": "turbo"}, "turbo"), ({"division": "x"}, "x")):
        problem = await city.ask("entities", method="POST", json=BUILDING, expect=400, **query)
        assert word in problem["detail"]
    name = await fresh(city)
    await city.ask(f"entities/{name}", method="PUT", json={**BUILDING, "id": "urn:x:other"}, expect=400)
    await city.ask(f"entities/{name}", method="PATCH", json={}, observedAt="now", expect=400)
    await city.ask(f"entities/{name}/attrs/height", method="DELETE", datasetId="x", expect=400)
