"""Positions in NGSI-LD entities and GeoJSON features, judged by the division of their device like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sensegate.decode import Decoder
from tests.decode.decoding import run, values
from tests.normalise.placed import flags

HEAD = '  - topics: ["acme/{device}"]\n    readings:\n'


def entity(lon: float, lat: float) -> dict[str, Any]:
    """Return an NGSI-LD entity, normalised."""
    place = {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, lat]}}
    return {"id": "urn:ngsi-ld:Device:d1", "type": "Device", "location": place}


def simplified(lon: float, lat: float) -> dict[str, Any]:
    """Return an NGSI-LD entity as key-values."""
    return {"id": "urn:ngsi-ld:Device:d1", "type": "Device", "location": {"type": "Point", "coordinates": [lon, lat]}}


def feature(lon: float, lat: float) -> dict[str, Any]:
    """Return a GeoJSON feature."""
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [lon, lat, 12.5]}, "properties": {}}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (entity, "location.value.coordinates"),
        (simplified, "location.coordinates"),
        (feature, "geometry.coordinates"),
    ],
)
@pytest.mark.parametrize(
    ("lon", "lat", "flagged"),
    [
        (113.33, 23.13, [False, False, False]),
        (114.06, 22.54, [True, True, False]),
        (23.13, 113.33, [True, True, False]),  # latitude first, against both standards
    ],
)
def test_a_position_of_a_geometry_is_compared_with_the_division(
    make: Callable[..., Decoder],
    document: Callable[[float, float], dict[str, Any]],
    path: str,
    lon: float,
    lat: float,
    flagged: list[bool],
) -> None:
    """Both numbers of the list are readings, longitude first, and bear the flag where they lie outside."""
    readings = "".join(
        f'      - {{field: "{path}[{index}]", property: {name}}}\n'
        for index, name in enumerate(("longitude", "latitude"))
    )
    decoder = make(HEAD + readings)
    read = list(values(decoder, run(decoder, document(lon, lat))).values())
    assert read == [lon, lat]
    assert flags(0, *read) == flagged
