"""Base of the sources that carry out an operator's orders: one delivery is under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sensegate.model import Delivery, Message, RecordedIn, SourcePosition


class OrderSource:
    """Starts, stops and acknowledges; a subclass has `name` and `deliveries`.

    An order has a position of its own in the commits: its source's name with the order's id as the epoch. What is
    committed is therefore never delivered again, and an order goes on after the last commit.
    """

    def __init__(self, position: Callable[[str], SourcePosition | None]) -> None:
        """`position`: returns the committed position of a source by name."""
        self._position = position
        self._generation = 0
        self._acknowledged = asyncio.Event()

    async def start(self, committed: SourcePosition | None) -> None:  # noqa: ARG002 - each order has a position of its own
        """Begin a new generation of deliveries."""
        self._generation += 1
        self._acknowledged = asyncio.Event()
        self._acknowledged.set()

    async def stop(self) -> None:
        """End `deliveries` at the next acknowledgement that it awaits."""
        self._generation += 1
        self._acknowledged.set()

    def _committed_sequence(self, source: str, order: str) -> int:
        """Return the sequence up to which an order is committed; 0 for one that has not begun."""
        position = self._position(source)
        return position.sequence if position is not None and position.epoch == order else 0

    def _acknowledged_delivery(
        self, source: str, order: str, messages: list[Message], recorded_in: RecordedIn
    ) -> Delivery:
        """Return a delivery whose acknowledgement lets the next one begin."""
        self._acknowledged.clear()
        free = self._acknowledged

        async def ack() -> None:
            free.set()

        return Delivery(source, messages, ack, SourcePosition(order, messages[-1].sequence), recorded_in)
