"""The shortest decimal of a number: what a device meant, without the noise of binary arithmetic.

39 steps of 0.1 are 3.9000000000000004 in binary, and a single-precision 2.885 is 2.8849999904632568. Both become the
number with the shortest decimal that they cannot be told from, once, before they are stored: all encoders then agree.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sensegate.model import BOOL, F64

DIGITS: Final = 12
"""Significant digits at which noise is removed."""
NOISE_ULPS: Final = 8
"""Distance from a number of so many digits, in units of the last binary place, that is taken for noise."""
_EXACT_POWER: Final = 22
"""Greatest power of ten that is exact in binary."""
_FEW_DECIMALS: Final = 1e3
_FEW_DIGITS_MAX: Final = 1e8
"""Below this a number with three decimals has fewer than `DIGITS` digits."""
_SINGLE_MAX: Final = float(np.finfo(np.float32).max)
_POWERS: F64 = np.array([float(10**exponent) for exponent in range(_EXACT_POWER + 1)])


def has_noise(values: F64) -> BOOL:
    """Return which values may have noise: all but those of at most three decimals and `DIGITS` digits."""
    with np.errstate(invalid="ignore", over="ignore"):
        few: BOOL = np.rint(values * _FEW_DECIMALS) / _FEW_DECIMALS == values
        few &= np.abs(values) < _FEW_DIGITS_MAX
    return ~few


def without_single_noise(values: F64) -> F64:
    """Return the values, those of single precision as the shortest decimal that gives them; the same array if none is.

    A double that is exactly a single-precision number with more than three decimals was one (a meter's 123456.78125 is
    123456.78): readings with few decimals, also the halves and eighths that are exact in both, stay as they are.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = values * _FEW_DECIMALS
        rows = np.flatnonzero((np.abs(values) <= _SINGLE_MAX) & (scaled != np.rint(scaled)))
        if not rows.size:
            return values
        single = values[rows].astype(np.float32)
        exact = single.astype(np.float64) == values[rows]
    if not exact.any():
        return values
    result = values.copy()
    result[rows[exact]] = [float(str(value)) for value in single[exact]]
    return result


def without_noise(values: F64) -> F64:
    """Return the values, those within a few binary units of a number of `DIGITS` digits as that number."""
    rows = np.flatnonzero(has_noise(values))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        some = values[rows]
        exponent = DIGITS - 1 - np.floor(np.log10(np.abs(some)))
        able = (exponent > 0) & (exponent <= _EXACT_POWER) & (some != np.rint(some))
        rows = rows[able]
        if not rows.size:
            return values
        some, factor = some[able], _POWERS[exponent[able].astype(np.int64)]
        rounded = np.rint(some * factor) / factor
        noisy = (rounded != some) & (np.abs(rounded - some) <= NOISE_ULPS * np.spacing(np.abs(some)))
    if not noisy.any():
        return values
    result = values.copy()
    result[rows[noisy]] = rounded[noisy]
    return result
