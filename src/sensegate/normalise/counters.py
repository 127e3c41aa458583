"""Counters: what a meter's readings say of the quantity that went through it.

A counter only rises. When it falls it has rolled over (it starts again at 0 instead of reaching its `modulus`), or was
reset (it starts again at 0 where it pleases), or somebody turned it back. Which of them is judged from neighbours
alone, so the same readings give the same answer on any tier, whoever asks and from where on.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from sensegate.model import F64, U8


class Fall(IntEnum):
    """What happened between two neighbouring readings of a counter."""

    NONE = 0
    ROLLOVER = 1
    """It reached its end: the difference is counted over the end."""
    RESET = 2
    """It began again at 0: what it shows was counted since."""
    BACK = 3
    """It went back a little: a correction, or no counter at all."""


def fall(before: F64, after: F64, modulus: F64, most: F64 | float = np.inf) -> U8:
    """Return for each pair of neighbours what happened (`Fall`).

    Args:
        before: the earlier reading.
        after: the later one.
        modulus: where the counter starts again; 0: it has no end.
        most: greatest credible advance between the two, where it is known.

    A fall is a roll-over if it means a credible advance of less than half the range, a reset if less than half is left.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        falls = after < before
        advance = after + modulus - before
        over = falls & (modulus > 0) & (before < modulus) & (advance < modulus / 2) & (advance <= most)
        anew = falls & ~over & (after < before / 2)
    return np.select(
        [over, anew, falls], [np.uint8(Fall.ROLLOVER), np.uint8(Fall.RESET), np.uint8(Fall.BACK)], np.uint8(0)
    )


def deltas(value: F64, modulus: float = 0.0, most: float = np.inf) -> F64:
    """Return what was counted between each reading and the one before it, in order of time; the first is NaN.

    After a reset it is what the counter shows since; a counter that went back gives a negative difference.
    """
    before, after = value[:-1], value[1:]
    kind = fall(before, after, np.full(len(before), modulus), most)
    found = np.full(len(value), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        found[1:] = np.where(kind == Fall.RESET, after, after - before + np.where(kind == Fall.ROLLOVER, modulus, 0.0))
    return found


def totals(value: F64, modulus: float = 0.0, most: float = np.inf) -> F64:
    """Return the counter as it would stand had it never started again; the first reading is the beginning."""
    if not len(value):
        return value
    steps = deltas(value, modulus, most)
    steps[0] = value[0]
    with np.errstate(over="ignore", invalid="ignore"):
        whole: F64 = np.cumsum(steps)
    return whole
