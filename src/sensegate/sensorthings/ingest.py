"""Observations in: as messages of the device's plain layout, through the ingest like any other.

The answer comes after the commit. What a repeated Observation meets is the reading that is there already; another
result of the same time is a revision, as by every other way in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.sensorthings.ids import observation_id
from sensegate.sensorthings.instants import Span, instant_text
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.structure import SeenDatastream
from sensegate.sensorthings.view import CallerView
from sensegate.share import records
from sensegate.share.reader import LogReader

MESSAGE_ROWS = 500
"""Observations of one message; several messages of a request are committed together."""
Push = Callable[[str, bytes], Awaitable[None]]
"""(device, message of the plain layout): returns after the commit."""


class NewReading(msgspec.Struct, frozen=True):
    """An Observation to be taken."""

    stream: SeenDatastream
    time: int
    """Phenomenon time, µs UTC."""
    result: Any


class ObservationIntake:
    """Takes Observations and finds the records that they became."""

    def __init__(self, reader: LogReader, observations: ObservationReader) -> None:
        self._reader = reader
        self._observations = observations

    async def take(self, view: CallerView, readings: Sequence[NewReading], push: Push) -> list[int | None]:
        """Return the id of each Observation after the commit; None: it was not taken, and is in quarantine.

        Raises:
            Overloaded: too many messages wait; those before may be committed.
            Unavailable: not committed in time; it still may be.
        """
        _, last = await self._reader.log.bounds()
        messages = list(_messages(readings))
        await asyncio.gather(*(push(device, body) for device, body in messages))
        known = await self._committed(readings, last)
        missing = [reading for reading in readings if (reading.stream.id, reading.time) not in known]
        if missing:
            known |= await self._present(view, missing)
        return [known.get((reading.stream.id, reading.time)) for reading in readings]

    async def _committed(self, readings: Sequence[NewReading], after: int) -> dict[tuple[int, int], int]:
        """Return the ids of first revisions on the log after a sequence: (Datastream, time) -> id."""
        wanted = {(reading.stream.thing.word, reading.stream.name): reading.stream for reading in readings}
        devices = {device for device, _ in wanted}
        known: dict[tuple[int, int], int] = {}
        await self._reader.catch_up()
        position = after
        while True:
            read = await self._reader.read(position)
            for entry in read.entries:
                batch = entry.batch
                mine = np.array([device in devices for device in batch.origins.device], np.bool_)
                if not len(batch) or not mine.any():
                    continue
                rows = np.flatnonzero(mine[batch.origin] & (batch.revision == 0))
                sequences = records.sequences_of(batch, rows, entry.sequence)
                for origin, variable, moment, sequence, index in zip(
                    batch.origin[rows].tolist(),
                    batch.property[rows].tolist(),
                    batch.time[rows].tolist(),
                    sequences,
                    batch.index[rows].tolist(),
                    strict=True,
                ):
                    stream = wanted.get((batch.origins.device[origin], batch.properties[variable]))
                    if stream is not None:
                        known[stream.id, moment] = observation_id(batch.node, sequence, index)
            if read.end <= position:
                return known
            position = read.end

    async def _present(self, view: CallerView, readings: Sequence[NewReading]) -> dict[tuple[int, int], int]:
        """Return the ids of readings that were there already."""
        streams = {reading.stream.id: reading.stream for reading in readings}
        times = [reading.time for reading in readings]
        span = Span(min(times), max(times) + 1)
        read = await self._observations.read(view, list(streams.values()), span, len(readings), descending=False)
        known = {}
        for entity in read.rows.entities(0, len(read.rows)):
            source: Any = entity.source
            known[source.datastream.id, source.time] = entity.id
        return known


def _messages(readings: Sequence[NewReading]) -> list[tuple[str, bytes]]:
    """Return the messages of each device, with the values of one time together."""
    of_device: dict[str, dict[int, dict[str, Any]]] = {}
    for reading in readings:
        times = of_device.setdefault(reading.stream.thing.device, {})
        times.setdefault(reading.time, {})[reading.stream.measured] = reading.result
    messages = []
    for device, times in of_device.items():
        items = [{"time": instant_text(moment), "values": values} for moment, values in sorted(times.items())]
        messages += [
            (device, msgspec.json.encode(items[start : start + MESSAGE_ROWS]))
            for start in range(0, len(items), MESSAGE_ROWS)
        ]
    return messages
