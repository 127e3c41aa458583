"""Quarantined messages that reprocessing has recovered: they leave the quarantine, in the commit of their readings.

A commit of reprocessed messages holds an entry ``recovered.<partition>`` with the places of those that gave readings.
A place is (sequence of the quarantine's entry << 20) | (number of the message in it, from 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from sensegate.bus.decoding import decoder
from sensegate.bus.unreadable import read
from sensegate.model import LogEntry

SUBJECT = "recovered"
PLACE_BITS = 20


class _Recovered(msgspec.Struct, frozen=True):
    places: list[int]
    format: int = 1


_decode = decoder(_Recovered, "recovered messages")


def encode_places(places: Iterable[int]) -> bytes:
    """Return the payload of an entry."""
    return msgspec.msgpack.encode(_Recovered(sorted(places)))


class PlacesLog(Protocol):
    """Reader of the log's entries about recovered data."""

    async def bounds(self) -> tuple[int, int]: ...
    async def fetch_of(self, subject: str, after: int) -> Sequence[LogEntry]: ...


class RecoveredMessages:
    """The places of all recovered messages of this log; `refresh` before asking."""

    def __init__(self, log: PlacesLog) -> None:
        self._log = log
        self._places: set[int] = set()
        self._after = 0

    async def refresh(self) -> None:
        """Read the recoveries since the last call. Raises `Unavailable`."""
        while entries := await self._log.fetch_of(f"{SUBJECT}.*", self._after):
            for entry in entries:
                if (recovered := read(entry, "recovered messages", _decode)) is not None:
                    self._places.update(recovered.places)
            self._after = entries[-1].sequence
        first, _ = await self._log.bounds()
        if self._places and min(self._places) >> PLACE_BITS < first:
            self._places = {place for place in self._places if place >> PLACE_BITS >= first}

    def contains(self, sequence: int, number: int) -> bool:
        """Return whether message `number` (from 1) of a quarantine's entry was recovered."""
        return (sequence << PLACE_BITS) | number in self._places
