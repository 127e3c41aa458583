"""A stranger to our SensorThings API: the client of Fraunhofer IOSB lists, filters, expands and writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import frost_sta_client as frost  # type: ignore[import-untyped] # it has no types
import pytest
import pytest_asyncio
import requests
from frost_sta_client.model.ext.data_array_document import DataArrayDocument  # type: ignore[import-untyped] # it has no types
from frost_sta_client.model.ext.data_array_value import DataArrayValue  # type: ignore[import-untyped] # it has no types
from frost_sta_client.model.ext.unitofmeasurement import UnitOfMeasurement  # type: ignore[import-untyped] # it has no types
from frost_sta_client.service.auth_handler import AuthHandler  # type: ignore[import-untyped] # it has no types
from geojson import Point  # type: ignore[import-untyped] # it has no types

from tests.live.site import Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
MEASUREMENT = "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement"
HOURS = 5


class BearerHandler(AuthHandler):  # type: ignore[misc] # the client has no types
    """Adds the token to every request of the client."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def add_auth_header(self) -> Any:
        """Return what the client passes to requests."""

        def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {self._token}"
            return request

        return add


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node of 4401."""
    async with running(config_of(tmp_path_factory.mktemp("node"))) as running_site:
        yield running_site


def work(url: str, token: str) -> dict[str, Any]:
    """Do with the client what a developer does; return what it saw."""
    service = frost.SensorThingsService(url, auth_handler=BearerHandler(token))
    result: dict[str, Any] = {}
    unit = UnitOfMeasurement(name="degree Celsius", symbol="°C", definition="http://unitsofmeasure.org/ucum.html#Cel")
    thing = frost.Thing(
        name="Kettle",
        description="in the kitchen",
        properties={"division": "440106"},
        locations=[
            frost.Location(
                name="kitchen",
                description="where the kettle is",
                encoding_type="application/geo+json",
                location=Point((113.36, 23.12)),
            )
        ],
    )
    service.create(thing)
    datastream = frost.Datastream(
        name="kettle temperature",
        description="of the water",
        observation_type=MEASUREMENT,
        unit_of_measurement=unit,
        thing=frost.Thing(id=thing.id),
        sensor=frost.Sensor(name="s", description="a sensor", encoding_type="text/plain", metadata="x"),
        observed_property=frost.ObservedProperty(
            name="water temperature", definition="http://x/water_temperature", description="of water"
        ),
    )
    service.create(datastream)
    for hour in range(HOURS):
        observation = frost.Observation(
            phenomenon_time=f"2026-01-01T0{hour}:00:00Z",
            result=20 + hour,
            datastream=frost.Datastream(id=datastream.id),
        )
        service.create(observation)
        result.setdefault("ids", []).append(observation.id)
    values = DataArrayValue()
    values.components = {values.Property.PHENOMENON_TIME, values.Property.RESULT}
    values.datastream = frost.Datastream(id=datastream.id)
    for hour in range(5, 8):
        values.add_observation(frost.Observation(phenomenon_time=f"2026-01-01T0{hour}:00:00Z", result=20 + hour))
    result["array"] = len(service.observations().create(DataArrayDocument(value=[values])))
    result["thing"] = service.things().find(thing.id).name
    stored = service.datastreams().find(datastream.id)
    result["unit"] = stored.unit_of_measurement.symbol
    query = stored.get_observations().query()
    result["results"] = [entity.result for entity in query.orderby("phenomenonTime", "ASC").top(3).list()]
    result["hot"] = [entity.result for entity in stored.get_observations().query().filter("result gt 25").list()]
    result["count"] = service.observations().query().count().top(1).list().count
    expanded = service.things().query().filter("name eq 'Kettle'").expand("Datastreams($expand=Observations($top=1))")
    (only,) = list(expanded.list())
    result["expanded"] = [next(iter(stream.observations)).result for stream in only.datastreams]
    stored.description = "of boiling water"
    service.update(stored)
    service.patch(stored, [{"op": "replace", "path": "/name", "value": "renamed"}])
    repeated = service.datastreams().find(datastream.id)
    result["changed"] = (repeated.name, repeated.description)
    service.delete(service.observations().find(result["ids"][0]))
    result["left"] = len(list(stored.get_observations().query().list()))
    service.delete(thing)
    result["things"] = len(list(service.things().query().filter("name eq 'Kettle'").list()))
    return result


@pytest.mark.filterwarnings("ignore:furl.pathstr:DeprecationWarning")
async def test_the_client_of_another_server(site: Site) -> None:
    """Lists page by page, filters, orders, counts, expands; creates, by data array too, updates, patches, deletes."""
    result = await asyncio.to_thread(work, f"{site.addresses.http}/sta/v1.1", site.admin)
    assert len(set(result.pop("ids"))) == HOURS
    assert result == {
        "array": 3,
        "thing": "Kettle",
        "unit": "°C",
        "results": [20, 21, 22, 23, 24, 25, 26, 27],
        "hot": [27, 26],
        "count": 8,
        "expanded": [27],
        "changed": ("renamed", "of boiling water"),
        "left": 7,
        "things": 0,
    }
