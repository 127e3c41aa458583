"""Turns of reading: how much a front takes from its connections until its event loop turns.

After a burst every connection has a large chunk to read, and all of them are handled in one turn of the loop: hundreds
of milliseconds in which no batch is sent and no answer arrives. What exceeds a turn waits, in order of arrival.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TURN_BYTES = 64 * 1024
"""A turn ends with the chunk that exceeds this: some 250 messages, half a millisecond."""


class WaitingReader(Protocol):
    """A connection that has bytes to be taken in a later turn, and is not read meanwhile."""

    @property
    def deferred_bytes(self) -> int:
        """Return the number of waiting bytes."""
        ...

    def take_deferred(self) -> None:
        """Take them, and read on."""
        ...


class ReadTurns:
    """Admits chunks to the present turn of the loop; the connections beyond it wait for one of the next turns."""

    def __init__(self, turn_bytes: int = TURN_BYTES) -> None:
        self._turn_bytes = turn_bytes
        self._left = turn_bytes
        self._waiting: dict[WaitingReader, None] = {}
        self._is_scheduled = False

    def admits(self, size: int) -> bool:
        """Return whether a chunk is taken now; otherwise its connection calls `wait`."""
        if self._waiting or self._left <= 0:
            return False
        self._left -= size
        self._schedule()
        return True

    def wait(self, reader: WaitingReader) -> None:
        """Put a connection in the queue for the next turns."""
        self._waiting[reader] = None
        self._schedule()

    def forget(self, reader: WaitingReader) -> None:
        """Forget a closed connection."""
        self._waiting.pop(reader, None)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn with those that wait."""
        self._is_scheduled = False
        self._left = self._turn_bytes
        while self._waiting and self._left > 0:
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            self._left -= reader.deferred_bytes
            reader.take_deferred()
        if self._waiting:
            self._schedule()
