"""Geometries of filters: well-known text and GeoJSON, and the geospatial functions of the standard."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from sensegate.web.problems import BadRequest

WKT_MAX = 10_000
"""Most characters of a geometry in a filter."""


class Shape:
    """A geometry."""

    __slots__ = ("shape",)

    def __init__(self, shape: Any) -> None:
        """`shape`: as the library has it."""
        self.shape = shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and bool(_library().equals(self.shape, other.shape))


@cache
def _library() -> Any:
    import shapely  # noqa: PLC0415 - 20 MB that only a request with a geometry needs

    return shapely


def _predicate(name: str) -> Callable[[Shape, Shape], object]:
    return lambda first, second: bool(getattr(_library(), name)(first.shape, second.shape))


PREDICATES: dict[str, Callable[[Shape, Shape], object]] = {
    "geo.distance": lambda first, second: float(_library().distance(first.shape, second.shape)),
    "geo.intersects": _predicate("intersects"),
    **{
        f"st_{name}": _predicate(name)
        for name in ("equals", "disjoint", "touches", "within", "overlaps", "crosses", "intersects", "contains")
    },
}
"""Functions of two geometries; distances are in the unit of the coordinates, degrees."""


def from_text(wkt: str) -> Shape:
    """Return the geometry of well-known text, in the order longitude, latitude. Raises `BadRequest`."""
    text = wkt.partition(";")[2] if wkt.upper().startswith("SRID=") else wkt
    if len(text) > WKT_MAX:
        raise BadRequest(f"query: $filter: a geometry has {len(text)} characters; give at most {WKT_MAX}")
    library = _library()
    try:
        return Shape(library.from_wkt(text))
    except library.errors.ShapelyError:
        raise BadRequest(
            f"query: $filter: '{text[:40]}' is not a geometry; give for example geography'POINT(113.3 23.1)'"
        ) from None


def from_json(value: object) -> Shape | None:
    """Return the geometry of a GeoJSON geometry or feature; None: it has none that can be read."""
    if isinstance(value, Shape):
        return value
    if isinstance(value, dict) and value.get("type") == "Feature":
        value = value.get("geometry")
    if not isinstance(value, dict):
        return None
    library = _library()
    try:
        return Shape(library.from_geojson(msgspec.json.encode(value)))
    except (library.errors.ShapelyError, ValueError):
        return None


def relates(first: Shape, second: Shape, pattern: str) -> bool:
    """Return whether two geometries relate as a DE-9IM pattern says. Raises `BadRequest`."""
    if len(pattern) != 9 or not {*pattern.upper()} <= {*"TF*012"}:
        raise BadRequest(f"query: $filter: '{pattern[:20]}' is not a DE-9IM pattern; give nine of T, F, *, 0, 1, 2")
    return bool(_library().relate_pattern(first.shape, second.shape, pattern.upper()))


def length_of(geometry: Shape) -> float:
    """Return the length of a line or of an outline, in the unit of its coordinates."""
    return float(_library().length(geometry.shape))
