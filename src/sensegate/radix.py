"""The order of small whole numbers: several times as fast as a comparison sort on batches of readings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensegate.model import I64


def order_of(number: NDArray[Any]) -> I64:
    """Return the permutation that sorts whole numbers of 0 and more; equal ones stay in their order.

    numpy sorts 16 bits by radix, in linear time; larger numbers are sorted so digit by digit, lowest first.
    """
    if not len(number):
        return np.empty(0, np.int64)
    most = int(number.max())
    order: I64 = np.argsort(number.astype(np.uint16), kind="stable")
    shift = 16
    while most >> shift:
        digit = (number >> number.dtype.type(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        shift += 16
    return order
