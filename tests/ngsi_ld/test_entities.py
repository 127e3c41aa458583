"""Retrieval of entities: what they are made of, their forms, paging, and what a caller sees of them."""

from __future__ import annotations

import pytest

from tests.ngsi_ld.serving import Entities

pytestmark = pytest.mark.asyncio(loop_scope="module")
AIR = "urn:ngsi-ld:AirQualityObserved:gz-air"


async def test_entities_of_a_type(entities: Entities) -> None:
    """Each device is an entity for each type of its properties, by id; Devices stand beside."""
    assert await entities.ids(type="AirQualityObserved") == ["AirQualityObserved:gz-air", "AirQualityObserved:sz-air"]
    assert await entities.ids(type="Device") == [
        f"Device:{name}" for name in ("gz-air", "gz-cam", "gz-noise", "sz-air")
    ]


async def test_an_entity_by_its_id(entities: Entities) -> None:
    """An attribute has its value, time, unit and quality; place, division and device stand beside it."""
    entity = await entities.ask(f"entities/{AIR}")
    assert entity["type"] == "AirQualityObserved"
    assert entity["scope"] == "/44/4401/440106"
    assert entity["pm25"] == {
        "type": "Property",
        "value": 35.5,
        "unitCode": "GQ",
        "observedAt": entity["pm25"]["observedAt"],
        "quality": {"type": "Property", "value": "good"},
    }
    assert entity["refDevice"] == {"type": "Relationship", "object": "urn:ngsi-ld:Device:gz-air"}
    assert entity["location"]["value"] == {"type": "Point", "coordinates": [113.3612, 23.1247]}
