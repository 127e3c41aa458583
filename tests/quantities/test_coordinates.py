"""Places: the shifted systems of Chinese maps come back to WGS-84."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.model import F64, Datum
from sensegate.quantities.coordinates import wgs84
from tests.support.coordinates import gcj02_to_bd09, wgs84_to_gcj02

GUANGZHOU = (113.264385, 23.12911)
IN_CHINA = st.tuples(st.floats(73.0, 135.0), st.floats(2.0, 54.0))
IN_GUANGDONG = st.tuples(st.floats(109.6, 117.4), st.floats(20.1, 25.6))


def metres(first: tuple[F64, F64], other: tuple[F64, F64]) -> float:
    """Return the distance of two near places."""
    lon, lat = float(first[0]) - float(other[0]), float(first[1]) - float(other[1])
    return float(np.hypot(lon * 111_320 * np.cos(np.radians(float(first[1]))), lat * 110_600))


def pair(place: tuple[float, float]) -> tuple[F64, F64]:
    """Return the place as arrays of no dimension."""
    return np.float64(place[0]) * np.ones(()), np.float64(place[1]) * np.ones(())


def test_reference_values_of_guangzhou() -> None:
    """The forward shifts agree with an independent implementation to a millimetre."""
    gcj = wgs84_to_gcj02(*pair(GUANGZHOU))
    assert metres(gcj, pair((113.2697145828, 23.1264333357))) < 0.001
    assert metres(gcj02_to_bd09(*gcj), pair((113.2761357682, 23.1327211157))) < 0.001


@pytest.mark.parametrize(
    ("lon", "lat", "datum"),
    [
        (113.2697145828, 23.1264333357, Datum.GCJ02),
        (113.2761357682, 23.1327211157, Datum.BD09),
        (*GUANGZHOU, Datum.WGS84),
        (*GUANGZHOU, Datum.CGCS2000),
    ],
)
def test_each_datum_leads_to_wgs84(lon: float, lat: float, datum: Datum) -> None:
    """The same place in any datum is the same place in WGS-84, within half a metre."""
    assert metres(wgs84(lon, lat, datum), pair(GUANGZHOU)) < 0.5


@given(IN_CHINA)
def test_there_and_back_within_half_a_metre(place: tuple[float, float]) -> None:
    """Shifting a place and undoing it gives the place, anywhere inside China."""
    gcj = wgs84_to_gcj02(*pair(place))
    assert metres(wgs84(*gcj, Datum.GCJ02), pair(place)) < 0.5
    assert metres(wgs84(*gcj02_to_bd09(*gcj), Datum.BD09), pair(place)) < 0.5


@given(IN_GUANGDONG)
def test_the_shift_is_some_hundred_metres(place: tuple[float, float]) -> None:
    """A place taken for WGS-84 that is not would be off by 100 to 1,000 m: the conversion does something."""
    assert 50 < metres(wgs84_to_gcj02(*pair(place)), pair(place)) < 1_000


@pytest.mark.parametrize("place", [(-0.1276, 51.5072), (151.2, -33.9), (0.0, 0.0), (179.9, 89.0)])
def test_outside_china_nothing_is_shifted(place: tuple[float, float]) -> None:
    """London stays where it is, whatever datum it is registered in."""
    for datum in Datum:
        assert tuple(float(part) for part in wgs84(*place, datum)) == place
    assert tuple(float(part) for part in wgs84_to_gcj02(*pair(place))) == place


def test_columns_with_holes() -> None:
    """Columns convert as their rows do; a place that is not known (NaN) stays unknown and spoils no other."""
    lon, lat = np.array([113.27, np.nan, -0.1, 116.4]), np.array([23.13, np.nan, 51.5, 39.9])
    x, y = wgs84(lon, lat, Datum.BD09)
    for row in range(4):
        result = wgs84(lon[row], lat[row], Datum.BD09)
        np.testing.assert_allclose([x[row], y[row]], [float(result[0]), float(result[1])], rtol=0, atol=1e-9)
    assert np.isnan(x).tolist() == [False, True, False, False]
    assert wgs84(np.zeros(0), np.zeros(0), Datum.GCJ02)[0].shape == (0,)
