"""Source of recorded messages for reprocessing, whose position is part of the commits as for any other source.

Its sequence is (log entry, index in it), so that committed messages are never delivered again, and an order resumes
after the last commit. One small delivery is under way at a time, so live deliveries do not wait for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import groupby

import msgspec

from sensegate.bus.contract import Log
from sensegate.bus.recovered import PLACE_BITS, RecoveredMessages
from sensegate.lifecycle.order_source import OrderSource
from sensegate.lifecycle.recorded import QUARANTINE, RAW, Progress, RecordedMessages, read_recorded
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.lifecycle.reprocessing_orders import ReprocessingOrder
from sensegate.model import Delivery, Message, SourcePosition

DELIVERY_MESSAGES_MAX = 300
"""Most messages of a delivery."""
_PLACE = (1 << PLACE_BITS) - 1


_KINDS = {
    ReprocessingInput.RAW: (RAW, QUARANTINE),  # recovered messages are only there
    ReprocessingInput.QUARANTINE: (QUARANTINE,),
    ReprocessingInput.BOTH: (RAW, QUARANTINE),
}


class ReprocessingSource(OrderSource):
    """Delivers the messages of one order after another."""

    name = "redecode"

    def __init__(
        self,
        log: Log,
        orders: Reprocessing,
        position: Callable[[str], SourcePosition | None],
        recovered: RecoveredMessages,
    ) -> None:
        """`position`: returns the committed position of a source by name. `recovered`: what has left the quarantine."""
        super().__init__(position)
        self._recovered = recovered
        self._log = log
        self._orders = orders

    async def deliveries(self) -> AsyncIterator[Delivery]:
        era = self._generation
        while era == self._generation:
            order, after = await self._orders.next()
            async for delivery in self._deliver(order, after):
                yield delivery
                await self._acknowledged.wait()
                if era != self._generation:
                    return
            if era == self._generation and self._orders.is_open(order):
                await self._orders.finish(order)

    async def _deliver(self, order: ReprocessingOrder, after: int) -> AsyncIterator[Delivery]:
        committed, place = self._committed(order, after)
        progress = Progress(after, order.last_sequence, max(committed - 1, after) if place else committed)
        await self._recovered.refresh()
        async for entry in read_recorded(self._log, order.partition, progress, _KINDS[order.input]):
            numbered = [
                msgspec.structs.replace(message, sequence=(entry.sequence << PLACE_BITS) | at)
                for at, message in enumerate(entry.messages, 1)
                if order.since <= message.received < order.until and not (entry.sequence == committed and at <= place)
            ]
            chosen = self._orders.relevant(order, numbered)
            for quarantined, messages in groupby(chosen, key=lambda message: self._is_quarantined(entry, message)):
                if quarantined and order.input is ReprocessingInput.RAW:
                    continue
                if not quarantined and order.input is ReprocessingInput.QUARANTINE:
                    continue
                for part in _parts(list(messages)):
                    if not self._orders.is_open(order):
                        return
                    yield self._delivery(order, part, quarantined=quarantined)
                    self._orders.set_progress(order, progress.share)
            if not self._orders.is_open(order):
                return

    def _committed(self, order: ReprocessingOrder, after: int) -> tuple[int, int]:
        """Return (entry, index of its last committed message) up to which the order is committed."""
        sequence = self._committed_sequence(order.source, order.id)
        return (sequence >> PLACE_BITS, sequence & _PLACE) if sequence else (after, 0)

    def _is_quarantined(self, entry: RecordedMessages, message: Message) -> bool:
        """Return whether a message is still in quarantine; a recovered one counts as one that gave readings."""
        return entry.quarantined and not self._recovered.contains(entry.sequence, message.sequence & _PLACE)

    def _delivery(self, order: ReprocessingOrder, messages: list[Message], *, quarantined: bool) -> Delivery:
        return self._acknowledged_delivery(order.source, order.id, messages, "quarantine" if quarantined else "raw")


def _parts(messages: list[Message]) -> Iterator[list[Message]]:
    for first in range(0, len(messages), DELIVERY_MESSAGES_MAX):
        yield messages[first : first + DELIVERY_MESSAGES_MAX]
