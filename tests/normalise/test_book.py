"""The book of indicators: sums by hour and device, packed when the hour is past."""

from __future__ import annotations

from collections import deque

import numpy as np

from sensegate.clock import FakeClock
from sensegate.normalise.book import OPEN_H, QualityBook
from sensegate.normalise.indicators import HOUR, HOURS_MAX, Indications


class Given:
    """Indicators that give out what a test puts in."""

    def __init__(self) -> None:
        self.parts: deque[Indications] = deque()

    def put(self, hour: int, *devices: int, received: int = 10, expected: float = 20.0) -> None:
        """Let the next taking find these devices in an hour."""
        size = len(devices)
        ints, times = np.zeros(size, np.uint32), np.zeros(size, np.int64)
        self.parts.append(
            Indications(
                np.array(devices, np.int32),
                np.full(size, hour, np.int64),
                np.full(size, received, np.uint32),
                ints,
                ints,
                ints,
                ints,
                times,
                times,
                np.full(size, expected),
                np.full(size, HOUR, np.int64),
            )
        )

    def take(self, now: int, *, final: bool = False) -> Indications:
        """Return the next part; nothing where there is none."""
        if not self.parts:
            self.put(now // HOUR)
        return self.parts.popleft()


async def test_hours_that_are_past_are_packed_and_still_add_up() -> None:
    """What is packed reads as before, and what comes late is added to it."""
    clock, given = FakeClock(), Given()
    book = QualityBook(given, clock)  # type: ignore[arg-type]
    first = clock.now() // HOUR
    given.put(first, 3, 7)
    book.take()
    before = book.since(0)
    await clock.advance(3_600 * (OPEN_H + 1))
    assert book.since(0) == before
    assert set(book._packed) == {first}
    assert first not in book._taken
    given.put(first, 7, 9, received=5)
    found = {one.device: (one.received, one.completeness) for one in book.since(0)}
    assert found == {3: (10, 0.5), 7: (15, 0.75), 9: (5, 0.25)}


async def test_old_hours_are_forgotten() -> None:
    """After two days an hour is gone, packed or not."""
    clock, given = FakeClock(), Given()
    book = QualityBook(given, clock)  # type: ignore[arg-type]
    given.put(clock.now() // HOUR, 1)
    book.take()
    await clock.advance(3_600 * (HOURS_MAX + 1))
    assert book.since(0) == []
    assert (book._taken, book._packed) == ({}, {})
