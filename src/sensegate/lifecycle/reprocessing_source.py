"""Messages of the log, given once more: a source like any other, whose position is in the commits.

Its sequence is (entry of the log, place in it), so that what was committed is never given again, and an order goes on
where the last commit left it. One delivery is under way at a time, and it is small: live ones do not wait behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec

from sensegate.lifecycle.recorded import QUARANTINE, RAW, Progress, Recorded, recorded
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_orders import ReprocessingInput, ReprocessingOrder
from sensegate.model import Delivery, Message, Position
from sensegate.ports import Log

CHUNK = 300
"""Messages of one delivery."""
PLACE_BITS = 20
_PLACE = (1 << PLACE_BITS) - 1


_KINDS = {
    ReprocessingInput.RAW: (RAW,),
    ReprocessingInput.QUARANTINE: (QUARANTINE,),
    ReprocessingInput.BOTH: (RAW, QUARANTINE),
}


class ReprocessingSource:
    """Gives the messages of one order after another; between orders nothing."""

    name = "redecode"

    def __init__(self, log: Log, orders: Reprocessing, position: Callable[[str], Position | None]) -> None:
        """`position`: the committed position of a source by name."""
        self._log = log
        self._orders = orders
        self._position = position
        self._era = 0
        self._free = asyncio.Event()

    async def start(self, committed: Position | None) -> None:  # noqa: ARG002 - each order has a position of its own
        self._era += 1
        self._free = asyncio.Event()
        self._free.set()

    async def stop(self) -> None:
        self._era += 1
        self._free.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._era
        while era == self._era:
            order, after = await self._orders.next()
            async for delivery in self._give(order, after):
                yield delivery
                await self._free.wait()
                if era != self._era:
                    return
            if era == self._era and self._orders.is_open(order):
                await self._orders.end(order)

    async def _give(self, order: ReprocessingOrder, after: int) -> AsyncIterator[Delivery]:
        committed, place = self._committed(order, after)
        progress = Progress(after, order.end, max(committed - 1, after) if place else committed)
        async for entry in recorded(self._log, order.partition, progress, _KINDS[order.input]):
            numbered = [
                msgspec.structs.replace(message, sequence=(entry.sequence << PLACE_BITS) | at)
                for at, message in enumerate(entry.messages, 1)
                if order.since <= message.received < order.until and not (entry.sequence == committed and at <= place)
            ]
            chosen = self._orders.concerning(order, numbered)
            for first in range(0, len(chosen), CHUNK):
                if not self._orders.is_open(order):
                    return
                self._free.clear()
                yield self._delivery(order, entry, list(chosen[first : first + CHUNK]))
                self._orders.at(order, progress.share)
            if not self._orders.is_open(order):
                return

    def _committed(self, order: ReprocessingOrder, after: int) -> tuple[int, int]:
        """Return (entry, place of its last message) that is committed."""
        position = self._position(order.source)
        if position is None or position.life != order.id:
            return after, 0
        return position.sequence >> PLACE_BITS, position.sequence & _PLACE

    def _delivery(self, order: ReprocessingOrder, entry: Recorded, messages: list[Message]) -> Delivery:
        free = self._free

        async def ack() -> None:
            free.set()

        again: Literal["raw", "quarantine"] = "quarantine" if entry.quarantined else "raw"
        return Delivery(order.source, messages, ack, Position(order.id, messages[-1].sequence), again)
