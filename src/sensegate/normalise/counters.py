"""Counter arithmetic: roll-overs, resets, differences and totals of meter readings.

A counter only rises. If it falls it has rolled over (restarted at 0 after its `modulus`), was reset (restarted at 0 at
any value), or was turned back. The cause is derived from neighbouring readings alone, so the same readings give the
same answer on every tier.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from sensegate.model import F64, U8


class CounterDrop(IntEnum):
    """Cause of a decrease between two neighbouring readings of a counter."""

    NONE = 0
    ROLLOVER = 1
    """The counter passed its modulus: the difference is counted across it."""
    RESET = 2
    """The counter restarted at 0: its value was counted since then."""
    BACK = 3
    """The value decreased slightly: a correction, or not a counter."""


def classify_drops(before: F64, after: F64, modulus: F64, advance_max: F64 | float = np.inf) -> U8:
    """Classify each pair of neighbouring readings.

    Args:
        before: the earlier reading.
        after: the later reading.
        modulus: value at which the counter restarts; 0: unlimited.
        advance_max: greatest credible advance between the two, if known.

    A decrease is a roll-over if it means a credible advance of less than half the range, and a reset if less than half
    of the value is left.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        falls = after < before
        advance = after + modulus - before
        over = falls & (modulus > 0) & (before < modulus) & (advance < modulus / 2) & (advance <= advance_max)
        was_reset = falls & ~over & (after < before / 2)
    return np.select(
        [over, was_reset, falls],
        [np.uint8(CounterDrop.ROLLOVER), np.uint8(CounterDrop.RESET), np.uint8(CounterDrop.BACK)],
        np.uint8(0),
    )


def deltas(value: F64, modulus: float = 0.0, advance_max: float = np.inf) -> F64:
    """Return the amount counted between each reading and the one before it, in order of time; the first is NaN.

    After a reset it is the counter's new value; a counter that decreased slightly gives a negative difference.
    """
    before, after = value[:-1], value[1:]
    kind = classify_drops(before, after, np.full(len(before), modulus), advance_max)
    counted = np.full(len(value), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        counted[1:] = np.where(
            kind == CounterDrop.RESET, after, after - before + np.where(kind == CounterDrop.ROLLOVER, modulus, 0.0)
        )
    return counted


def totals(value: F64, modulus: float = 0.0, advance_max: float = np.inf) -> F64:
    """Return the readings as if the counter had never restarted; the first reading is the starting point."""
    if not len(value):
        return value
    steps = deltas(value, modulus, advance_max)
    steps[0] = value[0]
    with np.errstate(over="ignore", invalid="ignore"):
        sums: F64 = np.cumsum(steps)
    return sums
