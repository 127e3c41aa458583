"""Geo-queries: the relation of the place of an entity to a geometry. Distances are in metres."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec
import numpy as np

from sensegate.ngsi_ld.entities import AttributeKind, EntityRecord
from sensegate.ngsi_ld.problems import bad_data
from sensegate.share.feeds import Circle
from sensegate.share.matching import distance_m

GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
RELATIONS = ("near", "within", "contains", "intersects", "equals", "disjoint", "overlaps")
COORDINATES_MAX = 20_000
"""Most characters of the coordinates of a query."""
_METRES_A_DEGREE = 111_320.0


class GeoQuery(msgspec.Struct, frozen=True, eq=False):
    """A condition on the place of an entity."""

    attribute: str
    """IRI of the attribute."""
    relation: str
    shape: Any
    """Geometry of the query, as the library has it."""
    most: float = math.inf
    """Greatest distance, for ``near``; likewise `least`."""
    least: float = 0.0

    def __call__(self, entity: EntityRecord) -> bool:
        """Return whether it holds of one of the places of an entity."""
        return any(
            self.admits(instance.value)
            for instance in entity.instances(self.attribute)
            if instance.kind is AttributeKind.GEO_PROPERTY
        )

    def admits(self, geometry: object) -> bool:
        """Return whether it holds of a GeoJSON geometry."""
        place = _shape_of(geometry)
        if place is None:
            return False
        if self.relation == "near":
            distance = _distance(place, self.shape)
            return self.least <= distance <= self.most
        return bool(_PREDICATES[self.relation](place, self.shape))


@cache
def _library() -> Any:
    import shapely  # noqa: PLC0415 - 20 MB that only a request with a geometry needs

    return shapely


def _predicate(name: str) -> Callable[[Any, Any], bool]:
    return lambda place, shape: bool(getattr(_library(), name)(place, shape))


_PREDICATES: Mapping[str, Callable[[Any, Any], bool]] = {name: _predicate(name) for name in RELATIONS if name != "near"}


def _shape_of(geometry: object) -> Any:
    """Return the shape of a GeoJSON geometry; None: it is none."""
    if not isinstance(geometry, Mapping):
        return None
    library = _library()
    try:
        if geometry.get("type") == "Point":
            return library.Point(geometry["coordinates"][:2])
        return library.from_geojson(msgspec.json.encode(geometry))
    except (library.errors.ShapelyError, ValueError, TypeError, KeyError):
        return None


def _distance(place: Any, shape: Any) -> float:
    """Return the distance of two shapes; of points on the sphere, of others in the plane around them."""
    if place.geom_type == shape.geom_type == "Point":
        circle = Circle(shape.x, shape.y, 0.0)
        return float(distance_m(np.array([place.x]), np.array([place.y]), circle)[0])
    middle = math.cos(math.radians(shape.centroid.y))

    def plane(positions: Any) -> Any:
        return positions * np.array([_METRES_A_DEGREE * middle, _METRES_A_DEGREE])

    transform = _library().transform
    return float(_library().distance(transform(place, plane), transform(shape, plane)))


def parse_geo_query(georel: str, geometry: str, coordinates: object, attribute: str) -> GeoQuery:
    """Return a geo-query; `coordinates`: as JSON or its text, `attribute`: IRI of the geo-property.

    Raises:
        NgsiError: naming the parameter that is wrong.
    """
    relation, *modifiers = (part.strip() for part in georel.split(";"))
    if relation not in RELATIONS:
        raise bad_data(f"georel: '{relation[:40]}' is unknown; use one of {', '.join(RELATIONS)}")
    most, least = _distances(relation, modifiers)
    if geometry not in GEOMETRIES:
        raise bad_data(f"geometry: '{geometry[:40]}' is unknown; use one of {', '.join(GEOMETRIES)}")
    if isinstance(coordinates, str):
        if len(coordinates) > COORDINATES_MAX:
            raise bad_data(f"coordinates: have {len(coordinates)} characters; give at most {COORDINATES_MAX}")
        try:
            coordinates = msgspec.json.decode(coordinates)
        except (msgspec.DecodeError, RecursionError):
            raise bad_data("coordinates: are not a JSON array; give for example [113.3,23.1]") from None
    library = _library()
    try:
        document = msgspec.json.encode({"type": geometry, "coordinates": coordinates})
        shape = library.from_geojson(document)
    except (library.errors.ShapelyError, ValueError, RecursionError):
        raise bad_data(f"coordinates: are not those of a {geometry}; see RFC 7946") from None
    if shape.is_empty or not library.is_valid(shape):
        reason = "is empty" if shape.is_empty else library.is_valid_reason(shape)
        raise bad_data(f"coordinates: the {geometry} is not valid ({reason[:80]}); give one that does not cross itself")
    west, south, east, north = shape.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise bad_data("coordinates: are out of range; give longitude, latitude in degrees")
    library.prepare(shape)
    return GeoQuery(attribute, relation, shape, most, least)


def _distances(relation: str, modifiers: list[str]) -> tuple[float, float]:
    """Return the greatest and the least distance of ``near``."""
    if relation != "near":
        if modifiers:
            raise bad_data(f"georel: {relation} takes no distance; give near")
        return math.inf, 0.0
    bounds: dict[str, float] = {}
    for modifier in modifiers:
        name, equals, text = modifier.partition("==")
        try:
            value = float(text) if equals else -1.0
        except ValueError:
            value = -1.0
        if name not in {"maxDistance", "minDistance"} or name in bounds or not 0 <= value < math.inf:
            raise bad_data(f"georel: '{modifier[:40]}' is not a distance; give near;maxDistance==METRES")
        bounds[name] = value
    if not bounds:
        raise bad_data("georel: near has no distance; give near;maxDistance==METRES or near;minDistance==METRES")
    return bounds.get("maxDistance", math.inf), bounds.get("minDistance", 0.0)
