"""Coordinate conversion between WGS-84 and the shifted systems of Chinese maps, GCJ-02 and BD-09.

CGCS2000 and WGS-84 agree to decimetres and are treated as equal. GCJ-02 has no published definition and no closed
inverse; the formula below is the one in common use (checked against reference values of Guangzhou), inverted by
iteration to far less than a metre. Outside the bounding box of China coordinates are not shifted and are returned
unchanged; within some hundred metres of the edge of that box the inverse is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.model import BOOL, F64, I64, Datum, Fields, Spec

WEST, EAST, SOUTH, NORTH = 72.004, 137.8347, 0.8293, 55.8271
"""Bounding box within which GCJ-02 shifts, degrees."""

_AXIS = 6378245.0
_ECCENTRICITY2 = 0.00669342162296594323  # Krasovsky 1940, as the unshift_coordinates uses it
_BD_TURN = np.pi * 3000.0 / 180.0
_ROUNDS = 12
_TOLERANCE = 1e-10
"""Convergence limit in degrees; about 0.01 mm."""


def wgs84(lon: F64 | float, lat: F64 | float, datum: Datum) -> tuple[F64, F64]:
    """Convert coordinates in `datum` to WGS-84; returns (longitude, latitude) in degrees; NaN stays NaN."""
    x, y = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # values outside the box are computed and then discarded
        match datum:
            case Datum.WGS84 | Datum.CGCS2000:
                return x, y
            case Datum.GCJ02:
                return gcj02_to_wgs84(x, y)
            case Datum.BD09:
                return gcj02_to_wgs84(*bd09_to_gcj02(x, y))


def unshift_coordinates(fields: Fields, value: F64, specs: Sequence[Spec], shifted: Sequence[int]) -> list[int]:
    """Convert the shifted coordinates in `value` (degrees) to WGS-84 in place; return the rows that lack a partner.

    `shifted` lists the specs with another datum. A longitude is paired with the latitude of the same message, device,
    time and channel; without its partner it cannot be converted.
    """
    rows: I64 = np.flatnonzero(np.isin(fields.spec, shifted))
    waiting: dict[tuple[int, int, int, str, Datum, bool], int] = {}
    for row in rows.tolist():
        spec = specs[fields.spec[row]]
        east = spec.property == "longitude"
        place = (int(fields.message[row]), int(fields.device[row]), int(fields.time[row]), spec.channel, spec.datum)
        other = waiting.pop((*place, not east), None)
        if other is None:
            waiting[*place, east] = row
            continue
        x, y = (row, other) if east else (other, row)
        lon, lat = wgs84(value[x : x + 1], value[y : y + 1], spec.datum)
        value[x], value[y] = lon[0], lat[0]
    return list(waiting.values())


def gcj02_to_wgs84(lon: F64, lat: F64) -> tuple[F64, F64]:
    """Convert GCJ-02 to WGS-84 by fixed-point iteration."""
    inside = _in_china(lon, lat)
    x, y = lon, lat
    for _ in range(_ROUNDS):
        east, north = _gcj02_offset(x, y)
        nx, ny = lon - east, lat - north
        moved = np.fmax(np.abs(nx - x), np.abs(ny - y))[inside]
        x, y = nx, ny
        if not moved.size or np.nanmax(moved, initial=0.0) < _TOLERANCE:
            break
    return np.where(inside, x, lon), np.where(inside, y, lat)


def bd09_to_gcj02(lon: F64, lat: F64) -> tuple[F64, F64]:
    """Convert BD-09 to GCJ-02 by fixed-point iteration."""
    inside = _in_china(lon, lat)
    x, y = lon, lat
    for _ in range(_ROUNDS):
        east, north = _gcj02_to_bd09(x, y)
        dx, dy = lon - east, lat - north
        x, y = x + dx, y + dy
        moved = np.fmax(np.abs(dx), np.abs(dy))[inside]
        if not moved.size or np.nanmax(moved, initial=0.0) < _TOLERANCE:
            break
    return np.where(inside, x, lon), np.where(inside, y, lat)


def _in_china(lon: F64, lat: F64) -> BOOL:
    inside: BOOL = (lon >= WEST) & (lon <= EAST) & (lat >= SOUTH) & (lat <= NORTH)
    return inside


def _gcj02_to_bd09(lon: F64, lat: F64) -> tuple[F64, F64]:
    radius = np.hypot(lon, lat) + 0.00002 * np.sin(lat * _BD_TURN)
    angle = np.arctan2(lat, lon) + 0.000003 * np.cos(lon * _BD_TURN)
    return radius * np.cos(angle) + 0.0065, radius * np.sin(angle) + 0.006


def _gcj02_offset(lon: F64, lat: F64) -> tuple[F64, F64]:
    """Return the offset of GCJ-02 to the east and to the north, degrees."""
    x, y = lon - 105.0, lat - 35.0
    root = 0.1 * np.sqrt(np.abs(x))
    common = 20.0 * np.sin(6.0 * x * np.pi) + 20.0 * np.sin(2.0 * x * np.pi)
    north = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 2.0 * root
    north = north + (common + 20.0 * np.sin(y * np.pi) + 40.0 * np.sin(y / 3.0 * np.pi)) * 2.0 / 3.0
    north = north + (160.0 * np.sin(y / 12.0 * np.pi) + 320.0 * np.sin(y * np.pi / 30.0)) * 2.0 / 3.0
    east = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + root
    east = east + (common + 20.0 * np.sin(x * np.pi) + 40.0 * np.sin(x / 3.0 * np.pi)) * 2.0 / 3.0
    east = east + (150.0 * np.sin(x / 12.0 * np.pi) + 300.0 * np.sin(x / 30.0 * np.pi)) * 2.0 / 3.0
    angle = np.radians(lat)
    curve = 1.0 - _ECCENTRICITY2 * np.sin(angle) ** 2
    meridian = _AXIS * (1.0 - _ECCENTRICITY2) / (curve * np.sqrt(curve))
    parallel = _AXIS / np.sqrt(curve) * np.cos(angle)
    return np.degrees(east / parallel), np.degrees(north / meridian)
