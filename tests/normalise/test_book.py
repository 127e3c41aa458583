"""The book of indicators: what is taken in pieces adds up to what would have been taken at once."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

import pytest

from sensegate.clock import HOUR_US
from sensegate.normalise.book import COLLECT_S, OPEN_HOURS, IndicatorStore
from sensegate.normalise.indicators import GRACE
from sensegate.quantities.indicator_counts import HOURS_MAX
from tests.normalise.indicator_rows import Counted, minutes, row_of
from tests.normalise.rows import FAHRENHEIT, NOW, Row

SHARES = ("authenticity", "accuracy", "continuity", "completeness")


class BookRow(NamedTuple):
    """Indicators of one device in one hour."""

    device: int
    hour: int
    received: int
    authenticity: float | None
    accuracy: float | None
    continuity: float | None
    completeness: float | None


class Book:
    """Counted readings and the book that takes them."""

    def __init__(self) -> None:
        self.counted = Counted()
        self.clock = self.counted.clock
        self.book = IndicatorStore(self.counted.indicators, self.clock)

    def rows(self, since: int = 0) -> list[BookRow]:
        """Return all rows of the book, the newest hour first."""
        return [
            BookRow(device, part.hour, received, *(None if math.isnan(value) else value for value in values))
            for part in self.book.since(since)
            for device, received, *values in zip(
                part.device.tolist(),
                part.received.tolist(),
                *(getattr(part, name).tolist() for name in SHARES),
                strict=True,
            )
        ]

    def row(self, device: int = 0, hour: int = 0) -> BookRow:
        """Return what the book says of a device and an hour, counted from NOW's."""
        rows = [row for row in self.rows() if (row.device, row.hour) == (device, NOW + hour * HOUR_US)]
        assert len(rows) == 1, rows
        return rows[0]


@pytest.mark.parametrize("pieces", [1, 2, 4, 12])
async def test_pieces_add_up(pieces: int) -> None:
    """An hour taken in pieces, with values out of range, rejected and missing, is the hour taken at once."""
    whole, book = Counted(), Book()
    size = 60 // pieces
    for first in range(0, 60, size):
        rows = [
            Row(99.0 if minute.time == 120 else float("nan") if minute.time == 180 else minute.value, time=minute.time)
            for minute in minutes(first=first, last=first + size)
            if not 600 < minute.time < 1200
        ]
        whole.add(*rows)
        book.counted.add(*rows)
        book.book.collect()
        await book.clock.advance(size * 60)
    await book.clock.advance(GRACE / 1e6)
    expected, results = row_of(whole.take(1), 0), book.row()
    assert results.received == expected["received"] == 50
    assert [getattr(results, name) for name in SHARES] == [pytest.approx(expected[name], abs=1e-4) for name in SHARES]
    assert results.accuracy is not None
    assert results.accuracy < 1
    assert results.continuity is not None
    assert results.continuity < 1


async def test_the_hour_that_is_open_is_shown() -> None:
    """Who has just put up a station sees it at once; asking often changes nothing."""
    book = Book()
    book.counted.add(*minutes(last=5))
    assert [book.row().received for _ in range(3)] == [5, 5, 5]
    book.counted.add(*minutes(first=5, last=8))
    assert book.row().received == 8


async def test_none_where_nothing_defines_it() -> None:
    """Without a declared interval there is no completeness and no continuity; without readings no authenticity."""
    book = Book()
    book.counted.add(Row(50.0, FAHRENHEIT))
    book.counted.add(Row(float("nan"), FAHRENHEIT, device=1))
    row = book.row()
    assert (row.authenticity, row.accuracy, row.continuity, row.completeness) == (1, 1, None, None)
    assert (book.row(1).received, book.row(1).authenticity, book.row(1).accuracy) == (0, None, 0)


async def test_devices_keep_apart() -> None:
    """Counts of one device never enter another's, whichever came first or came again."""
    book = Book()
    for device, last in ((5, 3), (1, 4), (5, 6), (3, 2)):
        book.counted.add(*minutes(device=device, last=last))
        book.book.collect()
    assert [(item.device, item.received) for item in book.rows(0)] == [(1, 4), (3, 2), (5, 9)]


async def test_since_gives_whole_hours_newest_first() -> None:
    """An hour is given if any of it lies after the time asked for."""
    book = Book()
    for hour in range(3):
        book.counted.add(*[Row(20.0 + minute, time=hour * 3600 + minute * 60) for minute in range(hour + 1)])
        await book.clock.advance(3600)
    assert [item.received for item in book.rows(NOW)][:3] == [3, 2, 1]
    assert {item.hour for item in book.rows(NOW + HOUR_US + 1)} == {NOW + HOUR_US, NOW + 2 * HOUR_US}
    assert NOW not in {item.hour for item in book.rows(NOW + HOUR_US)}


async def test_the_next_hours_are_given_oldest_first() -> None:
    """Hours without any count are passed over: whoever asks for a few at a time reaches the newest."""
    book, first = Book(), NOW // HOUR_US
    await book.clock.advance(9 * 3600)
    assert book.book.counts_after(first - 1, limit=2) == []
    book.counted.add(Row(20.0, time=9 * 3600.0, received=9 * 3600.0))
    assert [hour for hour, _ in book.book.counts_after(first - 1, limit=2)] == [first + 9]
    await book.clock.advance(3 * 3600)
    assert [hour for hour, _ in book.book.counts_after(first - 1, limit=2)] == [first + 9, first + 10]
    assert [len(counts) for _, counts in book.book.counts_after(first + 9, limit=1)] == [1], (
        "it was silent, which counts"
    )
    assert book.book.counts_after(first + 12, limit=2) == []


async def test_what_comes_late_to_a_packed_hour_counts() -> None:
    """Hours are packed once little comes to them; what does come is added, and what was there is not changed."""
    book = Book()
    book.counted.add(*minutes(last=30))
    before = book.row()
    await book.clock.advance((OPEN_HOURS + 3) * 3600)
    book.book.collect()
    packed = book.row()
    assert (packed.received, packed.accuracy) == (before.received, before.accuracy)
    late = (OPEN_HOURS + 3) * 3600.0
    book.counted.add(*[Row(20.0 + minute % 7, time=minute * 60.0, received=late) for minute in range(30, 60)])
    assert book.row().received == 60
    assert book.row().completeness == 1


async def test_two_days_are_kept() -> None:
    """Older hours are forgotten: the book is bounded."""
    book = Book()
    book.counted.add(*minutes(last=3))
    assert book.row().received == 3
    await book.clock.advance((HOURS_MAX + 2) * 3600)
    assert NOW not in {item.hour for item in book.rows(0)}
    assert len(book.book._open) + len(book.book._packed) <= HOURS_MAX + 2


async def test_it_takes_by_itself() -> None:
    """`run` takes every so often, so that an indicator's memory does not depend on who asks."""
    book = Book()
    running = asyncio.create_task(book.book.run())
    await asyncio.sleep(0)
    book.counted.add(*minutes(last=3))
    await book.clock.advance(COLLECT_S)
    assert [int(part.received.sum()) for part in book.book._open.values()] == [3]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
