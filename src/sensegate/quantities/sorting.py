"""Stable sort of integers: several times as fast as numpy's own on batches of readings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensegate.model import I64


def radix_argsort(number: NDArray[Any]) -> I64:
    """Return the stable permutation that sorts non-negative integers.

    numpy sorts 16-bit integers by radix, in linear time. Larger ones are sorted with their index in the low bits, for
    which numpy has vector instructions, or, where both do not fit into 63 bits, digit by digit, lowest first.
    """
    if not len(number):
        return np.empty(0, np.int64)
    greatest = int(number.max())
    bits = len(number).bit_length()
    if greatest >> 16 and greatest.bit_length() + bits < 64:
        packed = number.astype(np.int64)
        packed <<= bits
        packed |= np.arange(len(number))
        packed.sort()
        packed &= (1 << bits) - 1
        return packed
    order: I64 = np.argsort(number.astype(np.uint16), kind="stable")
    shift = 16
    while greatest >> shift:
        digit = (number >> number.dtype.type(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        shift += 16
    return order
