"""An ingest pipeline over a log in memory that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.commit_records import decode_commit
from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.collect.commands import DownlinkQueue
from sensegate.collect.contract import Source
from sensegate.config import IngestConfig, TimeConfig
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Fenced, Overloaded, Unavailable
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.pipeline import IngestPipeline, PipelineStages
from sensegate.model import Delivery, Device, LogMessage, Message, SourcePosition
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.quantities.series import SeriesIndex
from tests.conftest import eventually
from tests.live.site import PLAIN, Made, Site, config_of

ADMIN = Principal("test", Role.ADMIN, scope("44"))
COUNT = 60
CHUNK = 5


class Script:
    """A source of `COUNT` messages with positions; it is lost after the deliveries named, once each.

    It gives what lies behind the position committed, as it must; `acknowledged` is what it was told.
    """

    name = "mqtt"

    def __init__(self, now: int, lost_after: Sequence[int] = ()) -> None:
        self._messages = [
            Message("sg/d1/up", b'{"time": %d, "values": {"air_temperature": %.1f}}' % (1767225600 + n, n / 10), now, n)
            for n in range(1, COUNT + 1)
        ]
        self._lost_after = set(lost_after)
        self._at = 0
        self._given = 0
        self._stopped = asyncio.Event()
        self.started: list[int] = []
        self.acknowledged = 0
        self.on_ack: Callable[[int], Awaitable[None]] | None = None

    async def start(self, committed: SourcePosition | None) -> None:
        self._at = committed.sequence if committed else 0
        self.started.append(self._at)
        self._stopped.clear()

    async def stop(self) -> None:
        self._stopped.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while self._at < COUNT:
            chunk = self._messages[self._at : self._at + CHUNK]
            self._at += len(chunk)
            self._given += 1
            yield Delivery(self.name, chunk, self._ack(chunk[-1].sequence), SourcePosition("life", chunk[-1].sequence))
            if self._given in self._lost_after:
                self._lost_after.remove(self._given)
                lost = Overloaded if self._given % 2 else Unavailable  # as a source that records on a busy audit trail
                raise lost("the source was lost, as the script says")
            await asyncio.sleep(0)
        await self._stopped.wait()

    def _ack(self, sequence: int) -> Callable[[], Awaitable[None]]:
        async def ack() -> None:
            self.acknowledged = max(self.acknowledged, sequence)
            if self.on_ack:
                await self.on_ack(sequence)

        return ack


class Faulty(MemoryLog):
    """A log whose writes fail by a script: number of the write since `arm` -> what happens to it."""

    def __init__(self, faults: dict[int, str] | None = None) -> None:
        super().__init__()
        self.arm(faults or {})

    def arm(self, faults: dict[int, str]) -> None:
        """Let writes fail from now on."""
        self._faults, self.writes = faults, 0

    async def write(self, members: Sequence[LogMessage]) -> int:
        self.writes += 1
        match self._faults.get(self.writes):
            case "lost":
                raise Unavailable("nothing was written, as the script says")
            case "answer lost":
                await super().write(members)
                raise Unavailable("it was written, but the answer was lost, as the script says")
            case "fenced":
                raise Fenced("another was there, as the script says")
        return await super().write(members)


class Walk:
    """An ingest on a log in memory and a scripted source."""

    def __init__(
        self,
        log: MemoryLog,
        source: Source,
        devices: Devices,
        directory: Path,
        *,
        profiles: Path = PLAIN,
        memory: DecoderMemory | None = None,
    ) -> None:
        self.log, self.source = log, source
        clock, series, known = SystemClock(), SeriesIndex(), ProfileSet.load([profiles])
        # Small commits: a script has several of them.
        limits = IngestConfig(commit_messages_max=CHUNK, commit_interval_ms=0)
        self.ingest = IngestPipeline(
            msgspec.structs.replace(config_of(directory), ingest=limits),
            clock,
            [source],
            PipelineStages(
                Interpreter(
                    Decoder(known, devices, memory=memory),
                    Normaliser(known.specs, series=series, clock=clock, time=TimeConfig()),
                ),
                Indicators(series),
                Committer(
                    log,
                    Deduplicator(directory / "duplicates", clock=clock, device_id=devices.id),
                    devices.index,
                    known.specs,
                    clock,
                    writer=CommitWriter("4401"),
                ),
                devices,
                commands=DownlinkQueue([], clock),
            ),
        )

    async def committed(self) -> list[int]:
        """Return the numbers of the readings on the log, in its order."""
        numbers = []
        for entry in await self.log.fetch(0, limit=10_000):
            if entry.subject.startswith("readings."):
                values = columns.decode(entry.payload, sequence=entry.sequence).value
                numbers += [round(value * 10) for value in values.tolist()]
        return numbers

    async def position(self) -> int:
        """Return the position of the source in the last commit."""
        last = await self.log.last("commit.4401-0")
        return decode_commit(last.payload).positions["mqtt"].sequence if last else 0

    async def until_done(self) -> None:
        """Walk until the source is acknowledged whole; then stop."""
        walking = asyncio.create_task(self.ingest.run())
        try:
            source = self.source
            assert isinstance(source, Script)
            await eventually(lambda: source.acknowledged == COUNT or walking.done())
        finally:
            walking.cancel()
            await asyncio.gather(walking, return_exceptions=True)


async def registry() -> Devices:
    """Return a registry that knows `d1`."""
    made = Devices(MemoryBucket(), MemoryTrail(), SystemClock(), home="44")
    await made.load()
    await made.add(Device("d1", "440106", "sensegate/plain"), by=ADMIN)
    return made


async def numbers(site: Site, device: Made) -> list[int]:
    """Return the values of a device in the feed, in its order."""
    return [round(row["value"]) for row in await site.records(device=device.id)]
