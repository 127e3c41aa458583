"""Noise of binary arithmetic is removed; nothing else is changed."""

from __future__ import annotations

import struct
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.quantities.decimals import NOISE_ULPS, without_noise, without_single_noise

DECIMALS = st.decimals(-(10**7), 10**7, places=3).map(float)


def single(value: float) -> float:
    """Return a value as a device sends it in single precision."""
    result: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return result


@given(st.integers(-(10**6), 10**6), st.sampled_from([0.1, 0.01, 0.001, 0.25, 0.0001, 1e-6]))
def test_a_number_of_steps_is_its_decimal(count: int, step: float) -> None:
    """So many steps of a scale are the decimal number that they mean."""
    [value] = without_noise(np.array([count * step]))
    assert value == float(Decimal(count) * Decimal(str(step)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (39 * 0.1, 3.9), (2885 * 0.001, 2.885), (0.1 + 0.2, 0.3), ((70.7 - 32) * 5 / 9, 21.5), (-39 * 0.1, -3.9),
        (71 * 5 / 9, 71 * 5 / 9), (113.264385123456789, 113.264385123456789), (1e15 + 0.5, 1e15 + 0.5), (0.0, 0.0),
        (1e-300, 1e-300), (12345678901234567.0, 12345678901234567.0), (5e-324, 5e-324), (1.7e308, 1.7e308),
    ],
)  # fmt: skip
def test_examples(value: float, expected: float) -> None:
    """Noise goes; digits that somebody sent stay."""
    assert without_noise(np.array([value]))[0] == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_moves_by_less_than_can_be_measured(value: float) -> None:
    """At most a few units of the last binary place, and twice is once."""
    [result] = without_noise(np.array([value]))
    assert abs(result - value) <= NOISE_ULPS * np.spacing(abs(value))
    assert without_noise(np.array([result]))[0] == result


@given(DECIMALS)
def test_a_decimal_stays(value: float) -> None:
    """Numbers with few digits are left alone, by both."""
    assert without_noise(np.array([value]))[0] == value
    assert without_single_noise(np.array([value]))[0] == value


@given(st.decimals(-1000, 1000, places=3).map(float))
def test_single_precision_is_its_shortest_decimal(value: float) -> None:
    """What was sent in single precision is the decimal that it was made of."""
    assert without_single_noise(np.array([single(value)]))[0] == value


@pytest.mark.parametrize("value", [21.5, 1048575.125, 0.0625, 3.0, 16777216.0, 1e30, float("nan"), float("inf"), -0.0])
def test_numbers_that_are_exact_in_both_precisions_stay(value: float) -> None:
    """Halves, eighths and whole numbers are not taken for single precision; nor is what is no number."""
    assert without_single_noise(np.array([value]))[0] == pytest.approx(value, nan_ok=True, abs=0)
    assert without_noise(np.array([value]))[0] == pytest.approx(value, nan_ok=True, abs=0)


def test_an_array_without_noise_is_returned_itself() -> None:
    """No copy is made where nothing changes."""
    values = np.array([1.0, 2.5, 3.125])
    assert without_noise(values) is values
    assert without_single_noise(values) is values


@pytest.mark.parametrize(
    "value",
    [
        123456.78,
        200000.1,
        300000.2,
        99999.99,
        65536.01,
        4711.53,
        0.07,
        -12.7,
        1013.25,
        16384.5,
        2097152.25,
        16777216.0,
        8.0625,
    ],
)
def test_a_single_precision_number_is_its_shortest_decimal(value: float) -> None:
    """Also that of a meter, whose seven digits leave few decimals; halves, eighths and whole numbers are exact."""
    assert without_single_noise(np.array([single(value)]))[0] == value


@pytest.mark.parametrize("value", [2097152.25, 1048576.125, 16777217.0, 123456789.5, 4294967295.0, 0.3125, 113.264435])
def test_doubles_are_not_shortened(value: float) -> None:
    """Control: what is exact in few decimals, or no single, was sent so."""
    assert without_single_noise(np.array([value]))[0] == value
