"""The hourly sums of a standby: the same at every position, nothing counted twice after a promotion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.contract import Log
from sensegate.bus.ledger import DECODED, MESSAGES, Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import HOUR_US, FakeClock
from sensegate.errors import Unavailable
from sensegate.failover import ledger_copy
from sensegate.failover.ledger_copy import LedgerCopy
from sensegate.model import LogMessage
from sensegate.share.hourly_ledgers import HourlyLedgers

TTL_H = 9_600


def asks(hours: Log) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Return the way to the sums of the active centre."""

    async def ask(subject: str, payload: bytes) -> bytes:
        assert subject == "hours"
        return await ledger_copy.answer_sums(hours, payload)

    return ask


def ledger(hour: int, count: int) -> bytes:
    """Return a ledger of one commit."""
    counts = Ledger()
    for kind in (MESSAGES, DECODED):
        counts.add(hour, "d-1", "mqtt", kind, count)
    return counts.encode()


class Site:
    """A log with its books."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.log = MemoryLog(clock)
        self.hours = MemoryLog(clock, epoch=f"hours-{id(self)}")

    async def open(self) -> None:
        """Begin to count where the sums end."""
        self.books = HourlyLedgers(self.hours, self.clock)
        after = await self.books.open(self.log.epoch)
        for entry in await self.log.fetch(after, limit=10_000):
            self.books.add(entry)

    async def commit(self, node: str, hour: int, count: int) -> None:
        """Write a ledger and count it."""
        at = await self.log.write([LogMessage(f"ledger.{node}", ledger(hour, count))])
        for entry in await self.log.fetch(at - 1):
            self.books.add(entry)

    def sums(self, node: str) -> dict[str, int]:
        """Return all that is counted of a node."""
        return self.books.total(node, 0).totals()


async def caught_up(copy: LedgerCopy, first: Site, second: Site, end: int | None = None) -> None:
    """Copy until nothing comes; `end`: of the log, as if it had come so far."""
    while await copy.copy_next(
        asks(first.hours), second.log.epoch, (await second.log.bounds())[1] if end is None else end
    ):
        pass


@given(
    commits=st.lists(st.tuples(st.sampled_from(["4401", "4403"]), st.integers(0, 3), st.integers(1, 9)), max_size=25),
    events=st.lists(st.sampled_from(["flush", "log", "sums", "lose"]), max_size=25),
    small=st.booleans(),
)
async def test_the_same_sums_after_a_promotion(
    commits: list[tuple[str, int, int]], events: list[str], *, small: bool
) -> None:
    """Whenever it is promoted: what its log holds is counted once, whatever of the sums had come."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(ledger_copy, "ROWS_MAX", 2)
        clock = FakeClock()
        first, second = Site(clock), Site(clock)
        await first.open()
        copy, now = LedgerCopy(second.hours, clock, ttl_h=TTL_H), clock.now() // HOUR_US
        for number, (node, ago, count) in enumerate(commits):
            await first.commit(node, now - ago, count)
            event = events[number] if number < len(events) else "flush"
            if event == "flush":
                await first.books.flush()
            elif event == "log":
                for entry in await first.log.fetch((await second.log.bounds())[1], limit=10_000):
                    await second.log.write([LogMessage(entry.subject, entry.payload)])
            else:
                if event == "lose":
                    second.hours.fail_next_write(written=bool(count % 2))
                try:
                    await caught_up(copy, first, second)
                except Unavailable:  # also where an earlier loss waited for the first write
                    copy = LedgerCopy(second.hours, clock, ttl_h=TTL_H)
        await second.open()
        expected: dict[str, int] = {}
        for node, _, count in commits[: (await second.log.bounds())[1]]:
            expected[node] = expected.get(node, 0) + count
        for node in ("4401", "4403"):
            assert second.sums(node).get(MESSAGES, 0) == expected.get(node, 0)


async def test_no_sums_that_are_ahead_of_the_log() -> None:
    """They wait until the log has come so far; the control: written at once they would count what is not there."""
    clock = FakeClock()
    first, second = Site(clock), Site(clock)
    await first.open()
    await first.commit("4401", clock.now() // HOUR_US, 5)
    await first.books.flush()
    copy = LedgerCopy(second.hours, clock, ttl_h=TTL_H)
    await caught_up(copy, first, second)
    assert await copy.position() is None
    await caught_up(copy, first, second, 99)
    await second.open()
    assert second.sums("4401")[MESSAGES] == 5


async def test_it_goes_on_where_it_was_and_lives_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart only what is new is asked for; old hours keep the rest of their life."""
    clock = FakeClock()
    first, second = Site(clock), Site(clock)
    await first.open()
    now = clock.now() // HOUR_US
    for ago in (0, 30):
        await first.commit("4401", now - ago, 1)
    await first.books.flush()
    await caught_up(LedgerCopy(second.hours, clock, ttl_h=31), first, second, 99)
    results: list[bytes] = []

    async def ask(subject: str, payload: bytes) -> bytes:
        results.append(payload)
        return await asks(first.hours)(subject, payload)

    reopened = LedgerCopy(second.hours, clock, ttl_h=31)
    await reopened.copy_next(ask, second.log.epoch, 99)
    assert results == [ledger_copy._encode((await first.hours.bounds())[1])]
    await clock.advance(2 * 3_600)
    left = [entry.subject for entry in await second.hours.fetch(0)]
    assert left == [f"hours.4401.{now}", "hours.position"]
    # Another stream there: all of it, anew.
    fresh = Site(clock)
    await fresh.open()
    await fresh.commit("4401", now, 7)
    await fresh.books.flush()
    await caught_up(reopened, fresh, second, 99)
    await second.open()
    assert second.sums("4401")[MESSAGES] == 7


async def test_more_than_goes_into_one_write_is_marked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion between two writes sees that sums and position do not belong together."""
    monkeypatch.setattr(ledger_copy, "WRITE_ROWS", 2)
    clock = FakeClock()
    first, second = Site(clock), Site(clock)
    await first.open()
    for ago in range(5):
        await first.commit("4401", clock.now() // HOUR_US - ago, 1)
    await first.books.flush()
    copy, written = LedgerCopy(second.hours, clock, ttl_h=TTL_H), second.hours.write
    positions: list[str] = []

    async def write(members: list[LogMessage]) -> int:
        at = await written(members)
        present = await copy.position()
        positions.append(present.epoch if present else "none")
        return at

    monkeypatch.setattr(second.hours, "write", write)
    await caught_up(copy, first, second, 99)
    assert positions == ["", "", "", "memory"]
