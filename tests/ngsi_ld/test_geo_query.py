"""Geo-queries, selections of types and scopes: what they admit, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sensegate.ngsi_ld.entities import AttributeKind
from sensegate.ngsi_ld.geo_query import parse_geo_query
from sensegate.ngsi_ld.logic import parse_words, scope_matches
from sensegate.ngsi_ld.problems import NgsiError
from tests.ngsi_ld.made import CORE, attribute, entity

LOCATION = CORE.expand("location")
SQUARE = [[[113.0, 23.0], [114.0, 23.0], [114.0, 24.0], [113.0, 24.0], [113.0, 23.0]]]
POINT = {"type": "Point", "coordinates": [113.36, 23.12]}
LINE = {"type": "LineString", "coordinates": [[113.5, 23.5], [114.5, 23.5]]}
PARK = {"type": "Polygon", "coordinates": [[[113.9, 23.9], [114.1, 23.9], [114.1, 24.1], [113.9, 24.1], [113.9, 23.9]]]}
AREA = {"type": "Polygon", "coordinates": SQUARE}


@pytest.mark.parametrize(
    ("geometry", "georel", "kind", "coordinates", "holds"),
    [
        (POINT, "near;maxDistance==1000", "Point", [113.365, 23.12], True),
        (POINT, "near;maxDistance==500", "Point", [113.365, 23.12], False),
        (POINT, "near;minDistance==500", "Point", [113.365, 23.12], True),
        (POINT, "near;minDistance==1000", "Point", [113.365, 23.12], False),
        (POINT, "near;minDistance==100;maxDistance==1000", "Point", [113.365, 23.12], True),
        (LINE, "near;maxDistance==60000", "Point", [113.0, 23.5], True),
        (LINE, "near;maxDistance==50000", "Point", [113.0, 23.5], False),
        (POINT, "within", "Polygon", SQUARE, True),
        (PARK, "within", "Polygon", SQUARE, False),
        (AREA, "contains", "Point", [113.5, 23.5], True),
        (POINT, "contains", "Polygon", SQUARE, False),
        (LINE, "intersects", "Polygon", SQUARE, True),
        (POINT, "intersects", "LineString", [[0, 0], [1, 1]], False),
        (POINT, "equals", "Point", [113.36, 23.12], True),
        (POINT, "equals", "Point", [113.37, 23.12], False),
        (POINT, "disjoint", "Point", [0, 0], True),
        (LINE, "disjoint", "Polygon", SQUARE, False),
        (PARK, "overlaps", "Polygon", SQUARE, True),
        (POINT, "overlaps", "Polygon", SQUARE, False),
        (POINT, "intersects", "MultiPoint", [[113.36, 23.12], [0, 0]], True),
        (POINT, "within", "MultiPolygon", [SQUARE], True),
        (LINE, "intersects", "MultiLineString", [[[114, 23], [114, 24]]], True),
    ],
)
def test_relations(geometry: Any, georel: str, kind: str, coordinates: Any, holds: bool) -> None:  # noqa: FBT001
    """Each relation and geometry, with its control; coordinates as text or as JSON."""
    place = entity(attribute("location", geometry, AttributeKind.GEO_PROPERTY))
    assert parse_geo_query(georel, kind, coordinates, LOCATION)(place) is holds
    assert parse_geo_query(georel, kind, msgspec.json.encode(coordinates).decode(), LOCATION)(place) is holds


def test_an_entity_without_a_place_has_no_relation() -> None:
    """Not even `disjoint` holds of what is nowhere, or of a property that is no geometry."""
    query = parse_geo_query("disjoint", "Point", [0, 0], LOCATION)
    assert not query(entity())
    assert not query(entity(attribute("location", POINT)))
    assert not query(entity(attribute("location", {"type": "Point"}, AttributeKind.GEO_PROPERTY)))


@pytest.mark.parametrize(
    ("georel", "kind", "coordinates", "problem"),
    [
        ("nearby", "Point", [0, 0], "georel"),
        ("near", "Point", [0, 0], "distance"),
        ("near;maxDistance==x", "Point", [0, 0], "distance"),
        ("near;maxDistance==-1", "Point", [0, 0], "distance"),
        ("within;maxDistance==1", "Point", [0, 0], "takes no distance"),
        ("within", "Circle", [0, 0], "geometry"),
        ("within", "Polygon", [0, 0], "coordinates"),
        ("within", "Polygon", "[[", "coordinates"),
        ("within", "Polygon", [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]], "not valid"),
        ("within", "Point", [200, 0], "out of range"),
        ("within", "Point", " " * 30_000, "characters"),
    ],
)
def test_what_is_refused(georel: str, kind: str, coordinates: Any, problem: str) -> None:
    """An unknown relation or geometry, coordinates of another one, an area that crosses itself."""
    with pytest.raises(NgsiError, match=problem):
        parse_geo_query(georel, kind, coordinates, LOCATION)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("/44/4401/440106", True),
        ("/44/4401", False),
        ("/44/4401/#", True),
        ("/44/#", True),
        ("/#", True),
        ("/44/4401/440106/#", True),
        ("/44/+/440106", True),
        ("/+/440106", False),
        ("/44/4403/#", False),
        ("/44/4403/#,/44/4401/#", True),
        ("/44/4403/#|/44/4401/#", True),
        ("/44/#;/44/4403/#", False),
        ("(/44/4403/#,/44/4401/#);/44/#", True),
    ],
)
def test_scopes(text: str, holds: bool) -> None:  # noqa: FBT001
    """`+` is one level, `#` a level and all below; `;` and `,` join, with parentheses."""
    condition = parse_words("scopeQ", text)
    assert condition.holds(lambda pattern: scope_matches(pattern, ("/44/4401/440106",))) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [("A", True), ("C", False), ("A,C", True), ("A|C", True), ("A;B", True), ("A;C", False), ("(A;C),B", True)],
)
def test_selections_of_types(text: str, holds: bool) -> None:  # noqa: FBT001
    """An entity of several types is selected by one of them, or by all."""
    assert parse_words("type", text).holds({"A", "B"}.__contains__) is holds


@pytest.mark.parametrize("text", ["", ",", "A,", "(A", "A)", "A;;B", "(" * 30 + "A" + ")" * 30])
def test_selections_that_are_refused(text: str) -> None:
    """A name that is missing, a parenthesis that is not closed."""
    with pytest.raises(NgsiError, match="type"):
        parse_words("type", text)
