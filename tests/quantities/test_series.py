"""Series: a dense, stable number for each (device, property, channel)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.errors import ConfigError
from sensegate.model import I32
from sensegate.quantities import series as module
from sensegate.quantities.series import SeriesIndex

ROWS = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 300)), max_size=60)


def columns(rows: list[tuple[int, int]]) -> tuple[I32, I32]:
    """Return the rows as two columns."""
    both = np.array(rows, np.int32).reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


@settings(max_examples=settings().max_examples * 2)
@given(st.lists(ROWS, max_size=8))
def test_numbering_is_a_dictionary(batches: list[list[tuple[int, int]]]) -> None:
    """Batch by batch the numbers are those of a plain dict: one per key, dense, never moved."""
    series, known = SeriesIndex(), dict[tuple[int, int], int]()
    for batch in batches:
        numbers = series.resolve(*columns(batch)).tolist()
        for row, number in zip(batch, numbers, strict=True):
            assert known.setdefault(row, number) == number
        assert sorted(known.values()) == list(range(len(series)))
    device, variable = series.keys()
    assert {(int(d), int(v)): n for n, (d, v) in enumerate(zip(device, variable, strict=True))} == known


def test_find_adds_nothing() -> None:
    """Looking up answers -1 for what is not there, among rows that are."""
    series = SeriesIndex()
    series.resolve(*columns([(1, 1), (2, 2)]))
    assert series.find(*columns([(2, 2), (9, 9), (1, 1), (1, 2)])).tolist() == [1, -1, 0, -1]
    assert len(series) == 2


def test_two_probes_of_one_device_are_two_series() -> None:
    """The channel tells apart what is alike on one device."""
    series = SeriesIndex()
    first, two = series.variable("air_temperature", "1"), series.variable("air_temperature", "2")
    assert first != two
    assert series.variable("air_temperature", "1") == first
    assert series.variables[two] == ("air_temperature", "2")
    assert len(set(series.resolve(*columns([(7, first), (7, two)])).tolist())) == 2


def test_numbers_survive_a_restart() -> None:
    """What `keys` gave, `restore` gives back, also where the registry has moved a device or lost it."""
    before = SeriesIndex()
    before.resolve(*columns([(device, variable) for device in range(100) for variable in range(5)]))
    device, variable = before.keys()
    after = SeriesIndex()
    moved = np.where(device == 3, -1, device + 1000).astype(np.int32)
    after.restore(moved, variable)
    assert len(after) == len(before)
    there = moved >= 0
    assert (after.find(moved[there], variable[there]) == np.flatnonzero(there)).all()
    assert after.keys()[0][~there].tolist() == [-1] * 5
    assert after.resolve(*columns([(3, 0)])).tolist() == [500]


def test_restore_refuses_what_would_mix_up_series() -> None:
    """A numbering in use, or two numbers of one key, are refused."""
    used = SeriesIndex()
    used.resolve(*columns([(1, 1)]))
    with pytest.raises(ValueError, match="empty"):
        used.restore(*columns([(1, 1)]))
    with pytest.raises(ValueError, match="two numbers"):
        SeriesIndex().restore(*columns([(1, 1), (1, 1)]))


def test_a_large_city_fits() -> None:
    """Half a million series cost at most 40 bytes each, and are all found again."""
    series = SeriesIndex()
    device = np.repeat(np.arange(100_000, dtype=np.int32), 5)
    variable = np.tile(np.arange(5, dtype=np.int32), 100_000)
    numbers = series.resolve(device, variable)
    assert (numbers == np.arange(500_000)).all()
    assert (series.find(device, variable) == numbers).all()
    assert series.nbytes / len(series) <= 40


def test_too_many_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on (property, channel) pairs is an error, not a wrong number."""
    monkeypatch.setattr(module, "VARIABLES_MAX", 2)
    series = SeriesIndex()
    series.variable("a")
    series.variable("b")
    with pytest.raises(ConfigError, match="more than 2"):
        series.variable("c")
