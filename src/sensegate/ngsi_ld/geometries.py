"""Geometries of geo-properties: GeoJSON as entities keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import shapely
from shapely.errors import GEOSException, ShapelyError
from shapely.geometry import shape

from sensegate.ngsi_ld.problems import bad_data

GEOMETRIES: Final = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"})
POINTS_MAX: Final = 2_000


def is_geometry_type(value: Any) -> bool:
    """Return whether a value is an object of a type of geometries."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    return isinstance(kind, str) and kind in GEOMETRIES


def check_geometry(value: Any, where: str) -> None:
    """Return if a value is a geometry in degrees. Raises `NgsiError`."""
    if not is_geometry_type(value) or set(value) - {"bbox"} != {"type", "coordinates"}:
        raise bad_data(f"{where}: is not a geometry; give GeoJSON: {', '.join(sorted(GEOMETRIES))} with coordinates")
    try:
        geometry = shape(dict(value))
        points = shapely.get_coordinates(geometry)
    except (ShapelyError, GEOSException, ValueError, TypeError, IndexError, AttributeError, RecursionError):
        raise bad_data(
            f"{where}: coordinates: are not those of a {value['type']}; give [longitude, latitude]"
        ) from None
    if geometry.is_empty or not len(points) or len(points) > POINTS_MAX:
        raise bad_data(f"{where}: coordinates: has {len(points)} positions; give 1 to {POINTS_MAX}")
    if not bool(np.isfinite(points).all()) or not bool((np.abs(points) <= (180, 90)).all()):
        raise bad_data(f"{where}: coordinates: are out of range; give [longitude, latitude] in degrees of WGS-84")
