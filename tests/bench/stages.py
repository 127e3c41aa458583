"""CPU of the walk and of the way out by stage, in one process without server: ``python -m tests.bench.stages [KINDS]``.

The stages that a batch of a front passes in the gateway's process, from its bytes to a prepared commit, and from the
entry of the log to server-sent events; sockets, server and the loop are left out. Prints µs of CPU a message of six
values, medians of the batches. `KINDS`: numbers of the profiles of `workload` (``0,1,2``); without: the plain one.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sensegate.authority.divisions import Divisions
from sensegate.authority.index import DeviceIndex, unchanged
from sensegate.bus import columns
from sensegate.clock import SystemClock
from sensegate.collect.intake import batch as form
from sensegate.collect.intake.batch import IntakeBatchBuilder
from sensegate.collect.intake.source import _messages
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.redaction import MessageRedactor, removed_of
from sensegate.ingest.metadata import MetadataReader
from sensegate.model import BOOL, F64, I32, Delivery, Device, MessageBatch, SourcePosition
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.quantities.series import SeriesIndex
from sensegate.share import json_records
from sensegate.share.delivery import EVENT_ROWS
from sensegate.share.device_texts import DeviceTexts
from sensegate.share.feeds import FeedSelection
from sensegate.share.last_values import LastValues
from sensegate.share.matching import matches
from sensegate.share.reader import named_rows
from tests.bench.persist import Bin
from tests.bench.workload import make

PROFILES = Path(__file__).parents[2] / "device_profiles"
BATCH, FRONT_BATCH, DEVICES, BATCHES, WARM = 4_000, 500, 1_000, 16, 4
PREFIX = "c1.AAAAAAAAAAAAAAAAAAAA"


class Registry:
    """The devices of a workload, as decoding and persistence know them."""

    version = 1

    def __init__(self, devices: list[Device]) -> None:
        self._devices = devices
        self.index = DeviceIndex(Divisions.load(), unchanged)
        for device in devices:
            self.index.put(self.index.slot(device.id), device)
        self.index.place(range(len(devices)), devices)
        self.enabled: BOOL = np.ones(len(devices), np.bool_)

    def find(self, name: str, /) -> int:
        """Return the index of a device, -1 if there is none."""
        return self.index.names.get(name, -1)

    def record(self, index: int, /) -> Device:
        """Return a device."""
        return self._devices[index]

    def extents(self, device: I32) -> F64:
        """Return the extents of the divisions of devices."""
        return self.index.extents(device)

    def id(self, index: int) -> str:
        """Return the id of a device."""
        return self.index.ids[index]


class Laps:
    """CPU seconds of each stage in each batch."""

    def __init__(self) -> None:
        self._spent: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.thread_time()
        yield
        self._spent[name].append(time.thread_time() - start)

    def medians(self, messages: int) -> dict[str, float]:
        """Return µs a message by stage, without the first batches."""
        return {name: round(statistics.median(spent[WARM:]) / messages * 1e6, 3) for name, spent in self._spent.items()}


async def _no_ack() -> None:
    return None


class Walk:
    """The stages over one registry."""

    def __init__(self, directory: Path, devices: list[Device]) -> None:
        clock = SystemClock()
        self.laps = Laps()
        self._profiles = ProfileSet.load([PROFILES])
        registry = Registry(devices)
        self._index = registry.index
        series = SeriesIndex()
        self._decoder = Decoder(self._profiles, registry)
        self._redactor = MessageRedactor({}, None, bytes_max=1 << 20)  # type: ignore[arg-type] # nothing is redacted
        self._metadata = MetadataReader()
        specs = self._profiles.specs
        self._normaliser = Normaliser(specs, series=series, clock=clock, places=registry)
        self._indicators = Indicators(series)
        self.duplicates = Deduplicator(directory, clock=clock, device_id=registry.id)
        writer = CommitWriter("4401")
        self._committer = Committer(Bin(), self.duplicates, self._index, specs, clock, writer=writer)  # type: ignore[arg-type]
        self._last_values = LastValues()
        self._entry = 0
        self._device_texts = DeviceTexts()
        self.bytes_out = 0

    async def open(self) -> None:
        """Open the committer."""
        await self._committer.open()

    async def take(self, sealed: list[bytes], sequence: int) -> None:
        """Pass batches of a front through all stages, as one commit."""
        stage = self.laps.stage
        with stage("intake"):
            parts = [_messages(form.decode(data), sequence + (at << 16)) for at, data in enumerate(sealed)]
            position = SourcePosition("bench", sequence)
            delivery = Delivery("mqtt", MessageBatch.joined(parts), _no_ack, position)
        with stage("metadata"):
            deliveries = [self._metadata.complete(delivery, self._profiles)]
        with stage("redaction"):
            span = MessageBatch.joined([delivery.messages for delivery in deliveries])
            self._redactor.pending(span, self._decoder)
        with stage("decode"):
            fields = self._decoder.decode(span)
        with stage("normalise"):
            readings, rejected = self._normaliser.normalise(fields, span.received, span.best_effort, span.redelivered)
        with stage("removed"):
            removed_of(span)
        with stage("persist"):
            pending = self._committer.prepare(deliveries, fields, readings, rejected, messages=span)
        with stage("observe"):
            self._index.observe(readings.device, readings.received)
        with stage("indicators"):
            self._indicators.count(
                self._normaliser.table, readings, rejected, keep=pending.accepted, received=span.received
            )
        await self._committer.write(pending)
        await asyncio.to_thread(self.duplicates.wait_idle)
        for member in pending.messages:
            if member.subject.startswith("readings."):
                self._send(member.payload)

    def _send(self, payload: bytes) -> None:
        stage = self.laps.stage
        self._entry += 1
        entry = self._entry
        with stage("entry"):
            batch = named_rows(columns.decode(payload, sequence=entry).without_local())
        with stage("last values"):
            self._last_values.apply(batch, entry)
        with stage("matches"):
            rows = matches(batch, FeedSelection())
        with stage("events"):
            texts = json_records.RecordTexts(batch, self._device_texts)
            size = sum(
                len(json_records.events(batch, rows[first : first + EVENT_ROWS], entry, PREFIX, texts))
                for first in range(0, len(rows), EVENT_ROWS)
            )
        self.bytes_out += size


def _sealed(messages: list, number: int) -> list[bytes]:  # type: ignore[type-arg]
    instance = bytes(16)
    batches = []
    for at, first in enumerate(range(0, len(messages), FRONT_BATCH)):
        builder = IntakeBatchBuilder()
        for place, message in enumerate(messages[first : first + FRONT_BATCH]):
            builder.topics.append(message.topic)
            builder.payloads.append(message.payload)
            builder.flags.append(1 << form.QOS_SHIFT)
            if place % 10 == 9 or first + place + 1 == len(messages):
                builder.end_read(message.user, message.user, time.time_ns() // 1_000)
        batches.append(builder.seal(instance, number * 1_000 + at + 1))
    return batches


async def bench(kinds: tuple[int, ...] = (0,), batches: int = BATCHES) -> dict[str, object]:
    """Return µs of CPU a message by stage."""
    work = make(BATCH * (batches + 1), DEVICES, kinds=kinds, end=time.time(), step_s=1.0)
    directory = Path(tempfile.mkdtemp(prefix="sensegate-bench-"))
    try:
        walk = Walk(directory, work.devices)
        await walk.open()
        for number in range(batches):
            part = work.messages[number * BATCH : (number + 1) * BATCH]
            await walk.take(_sealed(part, number), (number + 1) << 24)
        walk.duplicates.close()
    finally:
        shutil.rmtree(directory)
    stages = walk.laps.medians(BATCH)
    out = ("entry", "last values", "matches", "events")
    return {
        "name": "stages",
        "figure": round(sum(spent for name, spent in stages.items() if name not in out), 2),
        "unit": "us of CPU a message, intake to prepared commit",
        "way_out": round(sum(stages.get(name, 0.0) for name in out), 2),
        "stages": stages,
        "bytes_out": walk.bytes_out,
    }


if __name__ == "__main__":
    chosen = tuple(map(int, sys.argv[1].split(","))) if len(sys.argv) > 1 else (0,)
    print(json.dumps(asyncio.run(bench(chosen))))
