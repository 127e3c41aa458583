"""A node whose messages are decoded again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.ledger import Ledger
from sensegate.clock import SystemClock
from sensegate.config import IngestConfig, TimeConfig
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.watch import ProfileWatcher
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.pipeline import IngestPipeline, PipelineStages
from sensegate.lifecycle.comparisons import MessageRange as Asked
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.opening import (
    LifecycleStores,
    ProfileLifecycle,
    ReprocessingParts,
    open_lifecycle,
    open_reprocessing,
)
from sensegate.lifecycle.reprocessing_input import ReprocessingInput
from sensegate.lifecycle.reprocessing_orders import OrderState, ReprocessingOrder
from sensegate.model import Delivery, Device, Message, SourcePosition
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.quantities.series import SeriesIndex
from tests.conftest import eventually
from tests.live.site import config_of
from tests.support.pipeline import Faulty
from tests.support.thermometer import THERMOMETER, write

ADMIN = Principal("test", Role.ADMIN, scope("44"))
NOW = SystemClock().now()
FIRST = NOW // 1_000_000 - 3_600
NAMES = [f"d{number}" for number in range(6)]
ROUNDS = 30
TIMED = THERMOMETER.replace("    readings:", "    time: {field: at, format: epoch_s}\n    readings:")


class Given:
    """A source that gives what it is told, once each, with positions."""

    name = "mqtt"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.at = 0
        self.acknowledged = 0
        self._wake = asyncio.Event()

    def give(self, messages: Sequence[Message]) -> None:
        """Have messages given; their sequence is set."""
        for message in messages:
            self.messages.append(msgspec.structs.replace(message, sequence=len(self.messages) + 1))
        self._wake.set()

    async def start(self, committed: SourcePosition | None) -> None:
        self.at = committed.sequence if committed else 0

    async def stop(self) -> None:
        self._wake.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            chunk = self.messages[self.at : self.at + 25]
            if not chunk:
                self._wake.clear()
                await self._wake.wait()
                continue
            self.at += len(chunk)

            async def ack(upto: int = self.at) -> None:
                self.acknowledged = upto

            yield Delivery(self.name, chunk, ack, SourcePosition("life", chunk[-1].sequence))


class Node:
    """A walk with everything that decodes again, on stores that outlive it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log, self.trail = Faulty(), MemoryTrail()
        self.buckets: dict[str, MemoryBucket] = {}
        self.source = Given()
        write(directory, TIMED)
        self.config = msgspec.structs.replace(
            config_of(directory / "node", profiles=(str(directory / "acme"),)),
            ingest=IngestConfig(commit_interval_ms=0),
        )
        self.lifecycle: ProfileLifecycle
        self.reprocessing: ReprocessingParts

    async def bucket(self, name: str) -> Any:
        """Return a store by name."""
        return self.buckets.setdefault(name, MemoryBucket())

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[ProfileLifecycle]:
        """Run one life of the process; at its end nothing is put in order."""
        clock, series = SystemClock(), SeriesIndex()
        async with contextlib.AsyncExitStack() as stack:
            devices = Devices(await self.bucket("devices"), self.trail, clock, home="44")
            stores = LifecycleStores(self.config, clock, self.log, self.trail, self.bucket)
            result = await open_lifecycle(stores, ProfileWatcher(self.config.profiles, clock), devices, stack)
            await devices.load()
            committer = Committer(
                self.log,
                Deduplicator(self.directory / "duplicates", clock=clock, device_id=devices.id),
                devices.index,
                result.profiles.set.specs,
                clock,
                writer=CommitWriter("4401"),
            )
            decoder = Decoder(result.profiles.set, devices, memory=DecoderMemory(undoable=True))
            reprocessing = open_reprocessing(result, committer, series=series, memory=decoder.memory)
            reprocessor, recorded = reprocessing.interpreter, reprocessing.source
            interpreter = Interpreter(
                decoder,
                Normaliser(result.profiles.set.specs, series=series, clock=clock, time=TimeConfig()),
            )
            ingest = IngestPipeline(
                self.config,
                clock,
                [self.source, recorded],
                PipelineStages(interpreter, Indicators(series), committer, devices, reprocessor=reprocessor),
            )

            def changed(profiles: Any, names: list[str]) -> None:
                def turn() -> None:
                    interpreter.apply_profiles(profiles, devices.of_profiles(names))
                    reprocessor.apply_profiles(profiles, devices.of_profiles(names))
                    committer.apply_specs(profiles.specs)

                ingest.boundary.add(turn)

            result.profiles.on_change.append(changed)
            self.lifecycle, self.devices, self.reprocessing = result, devices, reprocessing
            tasks = [asyncio.ensure_future(work()) for work in (ingest.run, *result.tasks.values())]
            try:
                yield result
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def enrol(self) -> None:
        """Register the devices."""
        for name in NAMES:
            await self.devices.add(Device(name, "440106", "acme/th"), by=ADMIN)

    async def spoken(self, first: int = 0, rounds: int = ROUNDS) -> None:
        """Have every device say so many readings, tenths of a degree; return when all are committed."""
        self.source.give(
            [
                Message(f"acme/{name}/up", b'{"t": %d, "at": %d}' % (200 + at, FIRST + 60 * at), NOW, 0)
                for at in range(first, first + rounds)
                for name in NAMES
            ]
        )
        await eventually(lambda: self.source.acknowledged == len(self.source.messages))

    async def released(self, number: int, scale: float) -> None:
        """Put a version with another scale in force."""
        text = TIMED.replace("version: 1", f"version: {number}").replace("scale: 0.1", f"scale: {scale}")
        text = text.replace('payload: {"t": 215}', f'payload: {{"t": 215, "at": {FIRST}}}')
        text = text.replace("air_temperature, value: 21.5", f"air_temperature, value: {215 * scale}, time: TIME")
        text = text.replace("TIME", f"'{asiso(FIRST)}'")
        text += '  - label: no JSON\n    topic: acme/d1/up\n    payload: "no"\n    refuse: malformed\n'
        releases = self.lifecycle.releases
        await releases.draft(Content(text), by=ADMIN)
        await releases.propose("acme/th", number, by=ADMIN)
        await releases.release("acme/th", number, by=ADMIN)
        assert await self.lifecycle.rollout.wait_in_force()

    async def order(
        self, source: ReprocessingInput = ReprocessingInput.RAW, devices: tuple[str, ...] = ()
    ) -> ReprocessingOrder:
        """Order everything decoded again."""
        result = Asked(NOW - 10**9, NOW + 10**9, devices)
        return await self.reprocessing.reprocessing.order("acme/th", result, source, by=ADMIN, target=Scope("4401"))

    async def done(self, order: ReprocessingOrder) -> ReprocessingOrder:
        """Wait for an order's end."""

        def ended() -> ReprocessingOrder | None:
            record = self.lifecycle.orders.get(order.id, ADMIN)
            return record if record.state not in {OrderState.WAITING, OrderState.RUNNING} else None

        result: ReprocessingOrder = await eventually(ended, 30)
        return result

    async def history(self) -> dict[tuple[str, int], list[tuple[int, float]]]:
        """Return (device, round) -> (revision, value) of the readings on the log, in its order."""
        result: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for entry in await self.log.fetch(0, limit=100_000, max_bytes=2**40):
            if not entry.subject.startswith("readings."):
                continue
            batch = columns.decode(entry.payload, sequence=entry.sequence)
            for row in range(len(batch)):
                key = batch.origins.device[int(batch.origin[row])], (int(batch.time[row]) // 10**6 - FIRST) // 60
                result.setdefault(key, []).append((int(batch.revision[row]), round(float(batch.value[row]), 6)))
        return result

    async def ledger(self) -> Counter[str]:
        """Return the sums of all ledgers on the log; each balances."""
        total: Counter[str] = Counter()
        for entry in await self.log.fetch(0, limit=100_000, max_bytes=2**40):
            if entry.subject.startswith("ledger."):
                decoded = Ledger.decode(entry.payload)
                decoded.check()
                total.update(decoded.totals())
        return total


def asiso(seconds: int) -> str:
    """Return epoch seconds as a profile's example writes them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
