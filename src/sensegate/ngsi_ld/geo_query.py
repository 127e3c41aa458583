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
from sensegate.share.matching import EARTH_RADIUS_M

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
    bounds: tuple[float, float, float, float] = (-180.0, -90.0, 180.0, 90.0)
    """West, south, east, north of the geometry."""

    def __call__(self, entity: EntityRecord) -> bool:
        """Return whether it holds of one of the places of an entity."""
        return any(
            self.admits(instance.value)
            for instance in entity.instances(self.attribute)
            if instance.kind is AttributeKind.GEO_PROPERTY
        )

    def admits(self, geometry: object) -> bool:
        """Return whether it holds of a GeoJSON geometry."""
        point = _point_of(geometry)
        if point is not None and self.relation != "near":
            west, south, east, north = self.bounds
            if not (west <= point[0] <= east and south <= point[1] <= north):
                return self.relation == "disjoint"
        if point is not None and self.relation == "near" and self.bounds[:2] == self.bounds[2:]:
            # The geometry is a point.
            return self.least <= _great_circle(point, self.bounds[:2]) <= self.most
        place = _shape_of(geometry)
        if place is None:
            return False
        if self.relation == "near":
            return self.least <= _distance(place, self.shape) <= self.most
        return bool(_PREDICATES[self.relation](place, self.shape))


def _point_of(geometry: object) -> tuple[float, float] | None:
    """Return the position of a GeoJSON point; None: it is none."""
    if not isinstance(geometry, Mapping) or geometry.get("type") != "Point":
        return None
    match geometry.get("coordinates"):
        case [float() | int() as lon, float() | int() as lat, *_]:
            return float(lon), float(lat)
    return None


def _great_circle(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the distance of two positions on the sphere, in metres."""
    across, up = math.radians(first[0] - second[0]), math.radians(first[1] - second[1])
    lower, upper = math.radians(first[1]), math.radians(second[1])
    chord = math.sin(up / 2) ** 2 + math.cos(lower) * math.cos(upper) * math.sin(across / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(chord, 1.0)))


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
        return library.from_geojson(msgspec.json.encode(geometry))
    except (library.errors.ShapelyError, ValueError):
        return None


def _distance(place: Any, shape: Any) -> float:
    """Return the distance of two shapes in the plane around the second."""
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
    return GeoQuery(attribute, relation, shape, most, least, (west, south, east, north))


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
