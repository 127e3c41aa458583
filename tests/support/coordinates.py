"""Conversions from WGS-84 to the shifted coordinates of Chinese maps, whose inverses the gateway has."""

from __future__ import annotations

import numpy as np

from sensegate.model import F64
from sensegate.quantities import coordinates


def wgs84_to_gcj02(lon: F64, lat: F64) -> tuple[F64, F64]:
    """Convert WGS-84 to GCJ-02."""
    inside = coordinates._in_china(lon, lat)
    east, north = coordinates._gcj02_offset(lon, lat)
    return np.where(inside, lon + east, lon), np.where(inside, lat + north, lat)


def gcj02_to_bd09(lon: F64, lat: F64) -> tuple[F64, F64]:
    """Convert GCJ-02 to BD-09."""
    inside = coordinates._in_china(lon, lat)
    east, north = coordinates._gcj02_to_bd09(lon, lat)
    return np.where(inside, east, lon), np.where(inside, north, lat)
