"""Counts by place: those of the ledgers, renewed when an hour or the registry changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, Clock, FakeClock
from sensegate.model import I64, LogEntry
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.place_totals import UNKNOWN, DevicePlaceSource, Place
from tests.conftest import eventually
from tests.share.made import NOW

HOUR = NOW // HOUR_US


class Places:
    """A registry of two devices, and ledgers."""

    def __init__(self, log: MemoryLog, clock: Clock) -> None:
        self.places: dict[str, Place] = {"a": ("440106", "env"), "b": ("440103", "")}
        self.version = 1
        self.asked = 0
        self.books = HourlyLedgers(log, clock, source=DevicePlaceSource(self._places_of, lambda: self.version))
        self._sequence = 0

    def _places_of(self, devices: Sequence[str]) -> tuple[I64, list[Place]]:
        self.asked += 1
        places = [*self.places.values()]
        numbers = [places.index(self.places[name]) if name in self.places else -1 for name in devices]
        return np.array(numbers, np.int64), places

    def add(self, device: str, count: int, *, hour: int = HOUR, recorded: str = "") -> None:
        """Add messages of a device."""
        ledger = Ledger()
        ledger.add(hour, device, "mqtt", "messages", count)
        ledger.add(hour, device, "mqtt", "decoded", count - 1)
        if recorded:
            ledger.set_places([device], [recorded])
        self._sequence += 1
        self.books.add(LogEntry(self._sequence, "ledger.4401-0", ledger.encode(), NOW))

    async def messages(self, hour: int = HOUR) -> dict[Place, int]:
        """Return place -> messages of an hour."""
        counts = await self.books.places.of("4401", hour, hour + 1)
        return {place: kinds["messages"] for place, kinds in counts.get(hour, {}).items()}


async def test_counts_are_of_the_place_where_a_device_is_registered(memory_log: MemoryLog, clock: FakeClock) -> None:
    """The registry's place comes before the ledger's own; without either a count is of no place."""
    given = Places(memory_log, clock)
    assert await given.messages() == {}
    given.add("a", 5, recorded="4402/other")
    given.add("b", 2)
    given.add("moved", 3, recorded="440305/police")
    given.add("moved-too", 4, recorded="440305")
    given.add("", 7)
    given.add("stranger", 1)
    expected = {("440106", "env"): 5, ("440103", ""): 2, ("440305", "police"): 3, ("440305", ""): 4, UNKNOWN: 8}
    assert await given.messages() == expected
    counts = await given.books.places.of("4401", HOUR)
    assert counts[HOUR]["440305", "police"] == {"messages": 3, "decoded": 2}
    assert sum(map(sum, (kinds.values() for kinds in counts[HOUR].values()))) == sum(
        given.books.total("4401", HOUR).totals().values()
    )


async def test_sums_are_kept_until_something_changes(memory_log: MemoryLog, clock: FakeClock) -> None:
    """What was summed is not read again; a new count, a change of the registry and a packed hour are seen at once."""
    given = Places(memory_log, clock)
    given.add("a", 5)
    given.add("a", 9, hour=HOUR - 1)
    assert (await given.messages(), await given.messages(HOUR - 1)) == ({("440106", "env"): 5}, {("440106", "env"): 9})
    result = given.asked
    assert await given.messages() == {("440106", "env"): 5}
    assert given.asked == result
    given.add("a", 1)
    assert await given.messages() == {("440106", "env"): 6}
    given.places["a"], given.version = ("4403", ""), 2
    assert (await given.messages(), await given.messages(HOUR - 1)) == ({("4403", ""): 6}, {("4403", ""): 9})
    await clock.advance(3 * 3_600)
    given.add("b", 1, hour=HOUR + 3)
    await given.books.flush()  # packs the hours that have ended
    given.add("a", 1, hour=HOUR - 1)
    assert await given.messages(HOUR - 1) == {("4403", ""): 10}


async def test_hours_that_left_memory_take_nothing(memory_log: MemoryLog, clock: FakeClock) -> None:
    """Sums are bounded by the hours that the ledgers hold."""
    given = Places(memory_log, clock)
    for hour in range(60):
        given.add("a", 2, hour=HOUR - hour)
        await given.messages(HOUR - hour)
    await given.books.flush()
    given.add("a", 2)
    await given.messages()
    assert len(given.books.places._sums) <= len(given.books) < 60


async def test_what_was_loaded_is_summed_before_anybody_asks(memory_log: MemoryLog, clock: FakeClock) -> None:
    """A restart sums the day in the background; totals by kind come from the same sums, and later counts are added."""
    before = Places(memory_log, clock)
    for hour in range(30):
        before.add("a", 2 + hour, hour=HOUR - hour)
    await before.books.flush()
    given = Places(memory_log, clock)
    await given.books.open("")
    running = asyncio.create_task(given.books.run())
    await eventually(lambda: len(given.books.places._sums) == 26)
    result = given.asked
    assert await given.messages(HOUR - 3) == {("440106", "env"): 5}
    assert given.books.totals("4401", HOUR - 3, HOUR - 2) == {HOUR - 3: {"messages": 5, "decoded": 4}}
    assert given.asked == result
    given._sequence = 1_000
    given.add("b", 7, hour=HOUR - 3)
    assert given.books.totals("4401", HOUR - 3, HOUR - 2) == {HOUR - 3: {"messages": 12, "decoded": 10}}
    assert await given.messages(HOUR - 3) == {("440106", "env"): 5, ("440103", ""): 7}
    given.add("a", 3, hour=HOUR - 2)
    await given.books.flush()  # packs the hours that have ended
    key = "4401", HOUR - 2
    await eventually(lambda: given.books.places._sums[key].stamp == given.books.stamp(*key))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
