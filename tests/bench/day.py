"""A city's day in minutes: a whole gateway whose clock is moved by the bench and whose messages come without MQTT.

Everything runs but the MQTT side: registry, decode, normalise, duplicates with their disk, the real log, the feeds'
reader, the books. As a process of its own (`python -m tests.bench.day CONFIG REGISTERED DEVICES ROUNDS`) it goes on
sending until it is killed, after it has said ``full``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop

from sensegate import config, flow, logs
from sensegate.config import Config
from sensegate.model import Delivery, Device, Message, Position
from tests.bench import rig
from tests.bench.workload import COUNTIES

MINUTE_US = 60_000_000
PIECES = 10
"""Batches a minute; between two the clock moves by a tenth of it."""
PROPERTIES = ("air_temperature", "relative_humidity", "pm2_5", "pm10", "sound_level")
NOT_RUN = {"ingest", "quality", "clock"}
"""What the day does itself, and the watch on our own clock, which is moved here."""
TAKE_EVERY = 5
"""Minutes between two lookings at the indicators."""


class MovedClock:
    """A clock that the bench moves; who sleeps sleeps real time."""

    def __init__(self, now: int) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1e6

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Day:
    """A gateway and its devices, minute by minute."""

    def __init__(
        self, parts: flow.Gateway, clock: MovedClock, devices: int, *, late: float = 0.02, seed: int = 1
    ) -> None:
        self.parts = parts
        self.clock = clock
        self.readings = 0
        self._late = late
        self._chance = random.Random(seed)
        self._topics = [f"sg/m{at:06d}/up" for at in range(devices)]
        self._tails = [[self._tail() for _ in range(3)] for _ in range(devices)]
        self._minute = 0
        self._sequence = parts.stages.committer.totals.get("messages", 0)

    def _tail(self) -> bytes:
        near = self._chance.gauss
        values = (
            round(near(20, 3), 1),
            round(near(60, 5), 1),
            round(near(30, 9)),
            round(near(50, 9)),
            round(near(55, 6), 1),
        )
        inside = ",".join(f'"{name}":{abs(value)}' for name, value in zip(PROPERTIES, values, strict=True))
        return f'"values":{{{inside}}}}}'.encode()

    async def minute(self) -> None:
        """Let every device send its readings once, through to the log."""
        count = len(self._topics)
        size = -(-count // PIECES)
        pieces = [range(first, min(first + size, count)) for first in range(0, count, size)]
        written: asyncio.Task[object] | None = None
        for piece in pieces:
            self.clock.at += MINUTE_US // PIECES
            delivery = self._delivery(piece)
            pending = self.parts.pipeline._process([delivery])
            if written:
                await written
            written = asyncio.create_task(self.parts.stages.committer.write(pending))
            await asyncio.sleep(0)
        if written:
            await written
        self._minute += 1
        self.readings += count * len(PROPERTIES)
        # In life the worker has half a minute for what it gets here in a moment.
        self.parts.stages.committer._duplicates.settle()
        if self._minute % TAKE_EVERY == 0:
            self.parts.stages.quality.collect()

    def _delivery(self, piece: Sequence[int]) -> Delivery:
        now = self.clock.at
        turn = self._minute % 3
        head = b'{"time":%d,' % (now // 1_000_000)
        payloads = [head + self._tails[at][turn] for at in piece]
        for _ in range(round(len(piece) * self._late)):
            at = self._chance.randrange(len(piece))
            # Not on the minute, so that it is no repeat of what came in time.
            ago = self._chance.randrange(1, 3_600) // 15 * 15 + self._chance.randrange(1, 15)
            payloads[at] = b'{"time":%d,' % (now // 1_000_000 - ago) + self._tails[piece[at]][turn]
        topics, first = self._topics, self._sequence + 1
        messages = [
            Message(topics[at], payload, now, first + place)
            for place, (at, payload) in enumerate(zip(piece, payloads, strict=True))
        ]
        self._sequence += len(messages)
        return Delivery("bench", messages, _nothing, Position("bench", self._sequence))


async def _nothing() -> None:
    return None


async def enrol(parts: flow.Gateway, count: int) -> None:
    """Register devices in an empty registry."""
    await rig.restore(
        parts,
        [
            Device(
                f"m{at:06d}",
                division=COUNTIES[at % len(COUNTIES)],
                profile="sensegate/plain",
                lon=round(113.2 + at % 97 / 300, 4),
                lat=round(23.0 + at % 89 / 300, 4),
                interval_s=60.0,
                name=f"station {at}",
            )
            for at in range(count)
        ],
    )


@contextlib.asynccontextmanager
async def gateway(settled: Config, clock: MovedClock) -> AsyncIterator[flow.Gateway]:
    """Yield a whole gateway with its tasks running, but for the ingest: the day itself is that."""
    logs.configure("warning", "text")
    async with contextlib.AsyncExitStack() as stack:
        parts = await flow.open_gateway(settled, clock, stack)
        await parts.stages.committer.open()
        tasks = [asyncio.ensure_future(task.run()) for name, task in parts.tasks.items() if name not in NOT_RUN]
        try:
            yield parts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def yesterday(minutes: int) -> MovedClock:
    """Return a clock that will be at the present after so many minutes."""
    return MovedClock(time.time_ns() // 1_000 - minutes * MINUTE_US)


async def _fill(file: Path, registered: int, devices: int, rounds: int) -> None:
    clock = yesterday(rounds)
    async with gateway(config.load(file), clock) as parts:
        await enrol(parts, registered)
        day = Day(parts, clock, devices)
        for _ in range(rounds):
            await day.minute()
        print("full", day.readings, flush=True)
        while True:
            await day.minute()
            await asyncio.sleep(0)


if __name__ == "__main__":
    uvloop.run(_fill(Path(sys.argv[1]), *map(int, sys.argv[2:])))
