"""Coordinates in readings against the division of their device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sensegate.clock import FakeClock
from sensegate.normalise import places
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.series import SeriesIndex
from tests.normalise.placed import SPECS, Places, flags
from tests.normalise.rows import NOW, Row, fields_of


@pytest.mark.parametrize(
    ("device", "lon", "lat", "expected"),
    [
        (0, 113.33, 23.13, [False, False]),
        (1, 113.33, 23.13, [False, False]),
        (0, 114.06, 22.54, [True, True]),  # Shenzhen
        (0, 113.33, 22.54, [False, True]),
        (0, 23.13, 113.33, [True, True]),
        (2, 114.06, 22.54, [False, False]),
        (2, 116.40, 39.91, [False, True]),  # Peking
        (3, 113.75, 23.02, [False, False]),
        (9, 2.3, 48.8, [False, False]),
    ],
)
def test_coordinates_outside_of_the_division_are_flagged(
    device: int, lon: float, lat: float, expected: list[bool]
) -> None:
    """A coordinate beyond the extent of the registered division bears the flag; other properties never do."""
    assert flags(device, lon, lat) == [*expected, False]


def test_swapped_coordinates_are_reported_once_with_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names the device and what to do, once."""
    lines: list[dict[str, Any]] = []
    logger = SimpleNamespace(warning=lambda event, **facts: lines.append({"event": event, **facts}))
    monkeypatch.setattr(places, "_log", logger)
    normaliser = Normaliser(SPECS, series=SeriesIndex(), clock=FakeClock(NOW), places=Places())
    for _ in range(3):
        fields, received, _ = fields_of([Row(23.13, 0, message=0), Row(113.33, 1, message=0)])
        normaliser.normalise(fields, received)
    assert [(line["event"], line["device"]) for line in lines] == [("coordinates look swapped", "d0")]
    assert "swap the fields" in lines.pop()["remedy"]
    flags(0, 114.06, 22.54)
    assert lines == []


@pytest.mark.parametrize(
    ("device", "lon", "lat", "expected"),
    [
        (0, 113.2644, 23.1292, [True, False]),  # Yuexiu, the county beside it
        (0, 0.0, 0.0, [True, True]),  # no fix
        (0, -113.33, 23.13, [True, False]),  # the western hemisphere
        (0, 113.33, -23.13, [False, True]),  # the southern one
        (0, 113.33, 23.99, [False, True]),
        (1, 113.36, 23.13, [False, False]),
        (1, 113.60, 22.80, [True, True]),  # Nansha
        (2, 109.7, 20.3, [False, False]),  # the south-west of the province
        (2, 117.3, 23.7, [True, False]),  # Fujian
        (2, 110.3, 20.0, [False, True]),  # Hainan
        (3, 23.02, 113.75, [True, True]),  # swapped
        (4, 500.0, 23.1, [False, False]),  # of a device whose division is not known nothing is said
    ],
)
def test_places_in_and_beside_a_division(device: int, lon: float, lat: float, expected: list[bool]) -> None:
    """Each coordinate is judged by itself, and never a reading beside them."""
    assert flags(device, lon, lat) == [*expected, False]
