"""Whoever looks again by itself is woken by an event at once, and by the clock alone otherwise."""

from __future__ import annotations

import asyncio

from sensegate.clock import FakeClock, wait_or_sleep


async def test_an_event_wakes_at_once() -> None:
    """The clock stands still."""
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_or_sleep(event, FakeClock(), 5.0))
    await asyncio.sleep(0)
    event.set()
    async with asyncio.timeout(30):
        await waiting


async def test_the_clock_wakes_without_one() -> None:
    """Not before its time; nothing is left waiting for the event."""
    clock, event = FakeClock(), asyncio.Event()
    waiting = asyncio.create_task(wait_or_sleep(event, clock, 5.0))
    for _ in range(3):
        await asyncio.sleep(0)  # it begins to wait
    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.2)
    async with asyncio.timeout(30):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
