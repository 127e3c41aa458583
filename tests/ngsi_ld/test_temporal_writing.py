"""Writing of the temporal evolution at a running gateway: instances are readings, added, revised and withdrawn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.live.site import Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
TEMPORAL = "/ngsi-ld/v1/temporal/entities"
ERRORS = "https://uri.etsi.org/ngsi-ld/errors/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node of the city 4401."""
    async with running(config_of(tmp_path_factory.mktemp("node"))) as running_site:
        yield running_site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(site: Site) -> str:
    """Token of an operator of the city."""
    return (await site.token("city_operator"))[0]


def at(minute: int, value: float, **more: Any) -> dict[str, Any]:
    """Return an instance of a property."""
    return {"type": "Property", "value": value, "observedAt": f"2026-01-01T00:{minute:02d}:00Z", **more}


HUMID = {"relativeHumidity": at(1, 60)}


async def fresh(site: Site, name: str) -> str:
    """Register a device; return its entity of the weather."""
    await site.device(name)
    return f"urn:ngsi-ld:WeatherObserved:{name}"


async def evolution(site: Site, entity: str, name: str = "temperature") -> list[Any]:
    """Return the instances of an attribute."""
    answer = await site.ask("GET", f"{TEMPORAL}/{entity}")
    assert answer.status in {200, 404}, answer.body
    result: list[Any] = answer.body.get(name, []) if answer.status == 200 else []
    return result


async def test_instances_are_readings(site: Site, operator: str) -> None:
    """Created (201), added to (204), in the feed after the answer; what is sent twice is there once."""
    entity = await fresh(site, "tw-1")
    body = {
        "id": entity,
        "type": "WeatherObserved",
        "temperature": [at(1, 20), at(2, 21)],
        "relativeHumidity": at(1, 60),
    }
    answer = await site.ask("POST", TEMPORAL, operator, json=body)
    assert (answer.status, answer.headers["Location"]) == (201, f"{TEMPORAL}/{entity}")
    assert [part["value"] for part in await evolution(site, entity)] == [20, 21]
    assert len([row for row in await site.records() if row["device"] == "tw-1"]) == 3
    assert (await site.ask("POST", TEMPORAL, operator, json=body)).status == 204
    added = {"temperature": [at(3, 22, unitCode="CEL")]}
    assert (await site.ask("POST", f"{TEMPORAL}/{entity}/attrs", operator, json=added)).status == 204
    assert [part["value"] for part in await evolution(site, entity)] == [20, 21, 22]


async def test_instances_are_revised_and_withdrawn(site: Site, operator: str) -> None:
    """An instance is changed by a revision of its reading and deleted by withdrawing it; others stay."""
    entity = await fresh(site, "tw-2")
    body = {"id": entity, "type": "WeatherObserved", "temperature": [at(1, 20), at(2, 21), at(3, 22)]}
    assert (await site.ask("POST", TEMPORAL, operator, json=body)).status == 201
    first, second, _ = await evolution(site, entity)
    path = f"{TEMPORAL}/{entity}/attrs/temperature"
    changed = {"temperature": [{"type": "Property", "value": 25}]}
    assert (await site.ask("PATCH", f"{path}/{first['instanceId']}", operator, json=changed)).status == 204
    moved = {"value": 1, "observedAt": "2026-01-01T00:09:00Z"}
    assert (await site.ask("PATCH", f"{path}/{first['instanceId']}", operator, json=moved)).status == 400
    assert (await site.ask("DELETE", f"{path}/{second['instanceId']}", operator)).status == 204
    assert [part["value"] for part in await evolution(site, entity)] == [25, 22]
    absent = await site.ask("DELETE", f"{path}/urn:ngsi-ld:Instance:1", operator)
    assert (absent.status, absent.body["type"]) == (404, f"{ERRORS}ResourceNotFound")
    other = f"{TEMPORAL}/{entity}/attrs/relativeHumidity/{first['instanceId']}"
    assert (await site.ask("DELETE", other, operator)).status == 404


async def test_attributes_and_entities_are_withdrawn(site: Site, operator: str) -> None:
    """All readings of an attribute, or of an entity, are withdrawn; another entity of the device stays."""
    entity = await fresh(site, "tw-3")
    air = "urn:ngsi-ld:AirQualityObserved:tw-3"
    body = {
        "id": entity,
        "type": "WeatherObserved",
        "temperature": [at(1, 20), at(2, 21)],
        "relativeHumidity": at(1, 60),
    }
    assert (await site.ask("POST", TEMPORAL, operator, json=body)).status == 201
    other = {"id": air, "type": "AirQualityObserved", "pm25": at(1, 35)}
    assert (await site.ask("POST", TEMPORAL, operator, json=other)).status == 201
    assert (await site.ask("DELETE", f"{TEMPORAL}/{entity}/attrs/temperature", operator)).status == 204
    assert await evolution(site, entity) == []
    assert len(await evolution(site, entity, "relativeHumidity")) == 1
    assert (await site.ask("DELETE", f"{TEMPORAL}/{entity}/attrs/windSpeed", operator)).status == 404
    assert (await site.ask("DELETE", f"{TEMPORAL}/{entity}", operator)).status == 204
    assert await evolution(site, entity, "relativeHumidity") == []
    assert len(await evolution(site, air, "pm25")) == 1


@pytest.mark.parametrize(
    ("members", "status", "word"),
    [
        ({"temperature": {"type": "Property", "value": 1}}, 400, "observedAt: is missing"),
        ({"temperature": at(1, 1, unitCode="KEL")}, 400, "unitCode"),
        ({"temperature": {**at(1, 1), "value": "warm"}}, 400, "number"),
        ({"temperatur": at(1, 1)}, 400, "use some of"),
        ({"temperature": at(1, 1, quality={"type": "Property", "value": "good"})}, 400, "no plain Property"),
        ({"temperature": at(1, 1, datasetId="urn:ngsi-ld:Dataset:2")}, 422, "without datasetId"),
        ({"temperature": []}, 400, "instances"),
        ({"type": "AirQualityObserved", "temperature": at(1, 1)}, 400, "type"),
        ({"id": "urn:ngsi-ld:WeatherObserved:nobody", "temperature": at(1, 1)}, 422, "POST /api/v1/devices"),
        ({"id": "urn:x:tw-bench", "type": "Bench", "seats": at(1, 1)}, 422, "kept by a department"),
    ],
)
async def test_what_is_refused(site: Site, operator: str, members: dict[str, Any], status: int, word: str) -> None:
    """What is no reading of a device that sends here is refused by name, with the way out."""
    bench = {"id": "urn:x:tw-bench", "type": "Bench", "seats": 2}
    assert (await site.ask("POST", "/ngsi-ld/v1/entities", operator, json=bench)).status in {201, 409}
    if not [row for row in (await site.ask("GET", "/api/v1/devices", operator)).body["rows"] if row["id"] == "tw-4"]:
        await site.device("tw-4")
    body = {"id": "urn:ngsi-ld:WeatherObserved:tw-4", "type": "WeatherObserved", **members}
    answer = await site.ask("POST", TEMPORAL, operator, json=body)
    assert answer.status == status, answer.body
    assert word in answer.body["detail"]


async def test_who_may_write(site: Site, operator: str) -> None:
    """Operators of the city in its scope; others are refused or see nothing, and nothing is written."""
    device = await site.device("tw-5")
    assert (await site.push(device, reading(20, "2026-01-01T00:01:00Z"))).status == 202
    entity = "urn:ngsi-ld:WeatherObserved:tw-5"
    (instance,) = await evolution(site, entity)
    body = {"temperature": at(2, 21)}
    for role, place, status in (
        ("subscriber", "4401", 403),
        ("county_operator", "440106", 403),
        ("city_operator", "440103", 404),
    ):
        token, _ = await site.token(role, place)
        assert (await site.ask("POST", f"{TEMPORAL}/{entity}/attrs", token, json=body)).status == status
    stranger, _ = await site.token("city_operator", "440103")
    path = f"{TEMPORAL}/{entity}/attrs/temperature/{instance['instanceId']}"
    assert (await site.ask("DELETE", path, stranger)).status == 404
    assert len(await evolution(site, entity)) == 1
    assert (await site.ask("POST", f"{TEMPORAL}/{entity}/attrs", operator, json=body)).status == 204
    assert len(await evolution(site, entity)) == 2
